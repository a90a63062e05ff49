"""Requests handed over to a loop's thread: begun together, delivered without a task, settled once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interrupts import Interrupt, ctrl_c
from patience import patient

from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.delivery import submissions as submissions_module
from raccoon_fast.delivery import wake as wake_module
from raccoon_fast.delivery.attempts import Delivery
from raccoon_fast.delivery.loop_thread import LoopThread
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.delivery.submissions import Submission, Submissions
from raccoon_fast.errors import ClientClosedError, ConnectionLostError, MessageTooLargeError, Outcome, ServerError
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.logs import resolve_logger
from raccoon_fast.stats import resolve_stats
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Request, Transport

SOON = RetryPolicy(max_attempts=3, initial=0.01, jitter=None)


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *args: object) -> None:
        pass

    def error(self, text: str, *args: object) -> None:
        self.lines.append(text % args)


class Open(Transport):
    """An open connection, which answers when it is told to."""

    def __init__(self) -> None:
        self.begun: list[tuple[Request, Attempt]] = []
        self.calls: list[str] = []
        self.timeouts: list[float] = []
        self.answers: Callable[[Request], Response | Exception] | None = None

    async def send(self, request: Request, timeout_s: float) -> Response:
        self.calls.append(f"send {request.req_guid}")
        answer = acked(request) if self.answers is None else self.answers(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self, request: Request, timeout_s: float) -> Attempt:
        self.calls.append(f"start {request.req_guid}")
        self.timeouts.append(timeout_s)
        attempt = Attempt()
        if self.answers is None:
            self.begun.append((request, attempt))
        elif isinstance(answer := self.answers(request), Exception):
            attempt.set_exception(answer)
        else:
            attempt.set_result(answer)
        return attempt

    def hold(self) -> None:
        self.calls.append("hold")

    def release(self) -> None:
        self.calls.append("release")

    async def close(self) -> None:
        for _, attempt in self.begun:
            if not attempt.done():
                attempt.set_exception(ConnectionLostError("closed"))


class Parts:
    def __init__(self, policy: RetryPolicy = SOON) -> None:
        self.logger = Logger()
        log = resolve_logger(self.logger)
        self.thread = LoopThread(log)
        self.transport = Open()
        self.sender = Sender(resolve_stats(None))
        self.delivery: Delivery | None = None
        self.policy = policy
        self.submissions = Submissions(self.thread, self.start, log)
        self.thread.at_end = self.submissions.end
        self.thread.start()

    def start(self) -> Delivery:
        if self.delivery is None:
            self.delivery = Delivery(self.transport, self.policy, 5.0, self.sender)
        return self.delivery

    def on_loop(self, function: Callable[..., object], *arguments: Any) -> Any:
        async def call() -> object:
            result = function(*arguments)
            await asyncio.sleep(0)
            return result

        return self.thread.submit(call).result(patient(10))

    def tasks(self) -> int:
        return self.on_loop(lambda: len(asyncio.all_tasks()) - 1)

    def held(self) -> Any:
        """Keeps the loop from running until it is left."""
        return _Held(self.thread)


class _Held:
    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._gate, self._in = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._thread.loop.call_soon_threadsafe(lambda: (self._in.set(), self._gate.wait(patient(30))))
        assert self._in.wait(patient(30))

    def __exit__(self, *exc_info: object) -> None:
        self._gate.set()


@pytest.fixture
def parts() -> Iterator[Parts]:
    one = Parts()
    yield one
    one.thread.stop(patient(10))


def request(guid: str = "g") -> Request:
    envelope = ProtoEnvelope()
    envelope.add("page", b"{}")
    return Request(guid, envelope, "proto", 20)


def acked(one: Request) -> Response:
    return Response(Status.SUCCESS, Code.OK, 0, "", {"req_guid": one.req_guid})


def test_those_that_wait_begin_together_without_tasks_and_in_their_order(parts: Parts) -> None:
    parts.submissions.submit(request("first"))
    parts.on_loop(lambda: None)
    assert parts.transport.calls == ["start first"]
    parts.transport.calls.clear()
    with parts.held():
        for guid in "abc":
            parts.submissions.submit(request(guid))
    assert parts.tasks() == 0
    assert parts.transport.calls == ["hold", "start a", "start b", "start c", "release"]


def test_an_answer_settles_it_and_frees_the_request(parts: Parts) -> None:
    submission = parts.submissions.submit(request())
    parts.on_loop(lambda: None)
    ((one, attempt),) = parts.transport.begun
    assert submission.request is one
    assert not submission.done()
    parts.on_loop(attempt.set_result, acked(one))
    assert submission.result(0) == acked(one)
    assert submission.request is None
    assert not parts.start()._in_flight


def test_it_may_be_submitted_again_once_settled_but_not_before(parts: Parts) -> None:
    parts.submissions.submit(request())
    twice = parts.submissions.submit(request())
    with pytest.raises(ValueError, match="in flight already"):
        twice.result(patient(10))
    parts.on_loop(lambda: parts.transport.begun[0][1].set_result(acked(parts.transport.begun[0][0])))
    again = parts.submissions.submit(request())
    parts.on_loop(lambda: parts.transport.begun[1][1].set_result(acked(parts.transport.begun[1][0])))
    assert again.result(patient(10)).req_guid == "g"


@pytest.mark.parametrize(
    "failure",
    [ConnectionLostError("lost"), Response(Status.ERROR, Code.INTERNAL_ERROR, 0, "", {"req_guid": "g"})],
    ids=["lost", "answer"],
)
def test_a_failed_first_attempt_counts_among_the_attempts(parts: Parts, failure: Any) -> None:
    parts.transport.answers = lambda one: failure
    submission = parts.submissions.submit(request())
    error = submission.exception(patient(10))
    assert isinstance(error, (ConnectionLostError, ServerError))
    assert (error.attempts, error.req_guid, error.outcome) == (3, "g", Outcome.POSSIBLY_DELIVERED)
    assert parts.transport.calls == ["start g", "send g", "send g"]
    assert parts.logger.lines == [f"request g was not acknowledged: {error}"]
    assert not parts.start()._in_flight


def test_a_retry_that_succeeds_settles_it(parts: Parts) -> None:
    answers = iter([ConnectionLostError("lost"), None])
    parts.transport.answers = lambda one: next(answers) or acked(one)
    assert parts.submissions.submit(request()).result(patient(10)).req_guid == "g"
    assert parts.logger.lines == []


def test_a_final_error_is_not_retried(parts: Parts) -> None:
    parts.transport.answers = lambda one: MessageTooLargeError("too large")
    error = parts.submissions.submit(request()).exception(patient(10))
    assert isinstance(error, MessageTooLargeError)
    assert error.size == 20
    assert parts.transport.calls == ["start g"]


def test_an_unexpected_error_is_its_outcome(parts: Parts) -> None:
    parts.transport.answers = lambda one: ZeroDivisionError()  # type: ignore[return-value, arg-type]
    assert isinstance(parts.submissions.submit(request()).exception(patient(10)), ZeroDivisionError)


def test_the_policy_s_total_timeout_bounds_the_first_attempt() -> None:
    parts = Parts(RetryPolicy(total_timeout=2.0))
    parts.submissions.submit(request())
    parts.on_loop(lambda: None)
    assert parts.transport.timeouts == [2.0]
    parts.thread.stop(patient(10))


def test_a_pause_that_a_server_asked_for_is_kept(parts: Parts) -> None:
    parts.on_loop(parts.start)
    assert parts.delivery is not None
    parts.delivery._paused_until_s = parts.on_loop(parts.thread.loop.time) + 600.0
    parts.submissions.submit(request())
    assert parts.tasks() > 0
    assert parts.transport.calls == []


async def closed(parts: Parts, timeout_s: float) -> int:
    delivery = parts.start()
    await delivery.wait_idle(timeout_s)
    return await delivery.close()


def test_close_waits_for_it_and_then_fails_it(parts: Parts) -> None:
    answered, left = parts.submissions.submit(request("a")), parts.submissions.submit(request("b"))
    parts.on_loop(lambda: None)
    closing = parts.thread.submit(closed, parts, 0.2)
    one, attempt = parts.transport.begun[0]
    parts.on_loop(attempt.set_result, acked(one))
    assert closing.result(patient(10)) == 1
    assert answered.result(0).req_guid == "a"
    error = left.exception(0)
    assert isinstance(error, ClientClosedError)
    assert (error.req_guid, error.outcome) == ("b", Outcome.POSSIBLY_DELIVERED)
    late = parts.submissions.submit(request("c"))
    assert isinstance(late.exception(patient(10)), ClientClosedError)


def test_close_ends_as_soon_as_the_last_one_is_answered(parts: Parts) -> None:
    parts.submissions.submit(request())
    parts.on_loop(lambda: None)
    closing = parts.thread.submit(closed, parts, 600.0)
    one, attempt = parts.transport.begun[0]
    parts.on_loop(attempt.set_result, acked(one))
    assert closing.result(patient(10)) == 0


def test_the_end_of_the_loop_settles_all(parts: Parts) -> None:
    begun = parts.submissions.submit(request("begun"))
    parts.on_loop(lambda: None)
    held = parts.held()
    held.__enter__()
    waiting = parts.submissions.submit(request("waiting"))
    parts.thread._is_stopped = True
    stopping = threading.Thread(target=parts.thread.stop, args=(patient(10),))
    stopping.start()
    held.__exit__()
    stopping.join(patient(10))
    for one in (begun, waiting):
        assert isinstance(one.exception(0), ClientClosedError)
        assert one.request is None
    assert len(parts.logger.lines) == 2
    with pytest.raises(ClientClosedError):
        parts.submissions.submit(request("late"))
    assert len(parts.logger.lines) == 2


def test_an_attempt_that_ends_after_the_loop_changes_nothing(parts: Parts) -> None:
    submission = parts.submissions.submit(request())
    parts.on_loop(lambda: None)
    parts.thread.stop(patient(10))
    error = submission.exception(0)
    parts.transport.begun[0][1].set_result(acked(request()))
    assert submission.exception(0) is error


def test_many_threads_submit_and_each_is_settled_once(parts: Parts) -> None:
    parts.transport.answers = acked
    results: list[Response] = []

    def submit(name: int) -> None:
        for number in range(50):
            submission = parts.submissions.submit(request(f"{name}-{number}"))
            results.append(submission.result(patient(30)))

    threads = [threading.Thread(target=submit, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(30))
    assert sorted(one.req_guid for one in results) == sorted(f"{a}-{b}" for a in range(4) for b in range(50))


class Trace:
    """Counts how its request ended."""

    headers: dict[str, str] = {}  # noqa: RUF012 - as of a trace without headers

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def end(self, error: BaseException | None) -> None:
        self.ends.append(error)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(error)


def test_a_traced_request_ends_its_trace_however_it_ends(parts: Parts) -> None:
    parts.transport.answers = acked
    good, twice, late = request("good"), request("twice"), request("late")
    for one in (good, twice, late):
        one.trace = Trace()  # type: ignore[assignment]
    assert parts.submissions.submit(good).result(patient(10)).req_guid == "good"
    assert good.trace.ends == [None]  # type: ignore[union-attr]
    parts.transport.answers = None
    parts.submissions.submit(request("twice"))
    error = parts.submissions.submit(twice).exception(patient(10))
    assert twice.trace.ends == [error]  # type: ignore[union-attr]
    with parts.held():
        submission = parts.submissions.submit(late)
        parts.thread._is_stopped = True
        parts.thread.loop.call_soon_threadsafe(parts.thread.loop.stop)
    parts.thread.stop(patient(10))
    assert late.trace.ends[-1] is submission.exception(0)  # type: ignore[union-attr]


def test_an_attempt_that_is_a_task_needs_no_second_one(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Open, "start", Transport.start)
    parts.on_loop(parts.start)
    assert parts.delivery is not None
    monkeypatch.setattr(parts.delivery, "_continue", None)
    assert parts.submissions.submit(request()).result(patient(10)).req_guid == "g"


def test_an_attempt_that_the_end_of_the_loop_cancels_is_abandoned(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(transport: Open, request: Request, timeout_s: float) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Open, "start", Transport.start)
    monkeypatch.setattr(Open, "send", wait)
    submission = parts.submissions.submit(request())
    parts.on_loop(lambda: None)
    parts.thread.stop(patient(10))
    error = submission.exception(0)
    assert isinstance(error, ClientClosedError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED


def test_a_retry_that_is_thrown_away_with_its_loop_settles_nothing(parts: Parts) -> None:
    async def throw_away() -> bool:
        delivery = parts.start()
        submission = Submission(request(), resolve_logger(None))
        delivery._paused_until_s = parts.thread.loop.time() + 600.0
        coroutine = delivery._deliver_submission(submission, request(), None)
        waiting = asyncio.ensure_future(asyncio.sleep(0))
        coroutine.send(None)
        coroutine.close()
        await waiting
        return submission.done()

    assert not parts.thread.submit(throw_away).result(patient(10))


def test_a_ctrl_c_before_any_line_of_submit_loses_no_later_request() -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        parts = Parts()
        parts.transport.answers = acked
        try:
            with Interrupt(at, ctrl_c, submissions_module, wake_module):
                parts.submissions.submit(request("interrupted"))
            is_over = True
        except KeyboardInterrupt:
            pass
        assert parts.submissions.submit(request("later")).result(patient(10)).req_guid == "later"
        assert not parts.submissions._waiting
        parts.thread.stop(patient(10))
    assert at > 10


def test_a_settled_one_keeps_its_callbacks_promise() -> None:
    called: list[object] = []
    submission = Submission(request(), resolve_logger(None))
    submission.add_done_callback(called.append)
    submission.succeed(acked(request()))
    assert called == [submission]
