"""From a request to its outcome, over a scripted transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.delivery import attempts
from raccoon_fast.delivery.attempts import Delivery
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.errors import (
    AckTimeoutError,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DeliveryError,
    MessageTooLargeError,
    Outcome,
    ServerError,
)
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.stats import resolve_stats
from raccoon_fast.transports.base import Request, Transport

SOON = RetryPolicy(max_attempts=3, initial=0.01, jitter=None)
Step = Any


class Scripted(Transport):
    """Does the next step at each attempt: returns it, raises it, or, called with the request, awaits it."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.attempts: list[tuple[float, float]] = []
        self.closed = asyncio.Event()

    async def send(self, request: Request, timeout_s: float) -> Response:
        self.attempts.append((asyncio.get_running_loop().time(), timeout_s))
        step = self._steps.pop(0)
        if callable(step):
            step = await step(request)
        if isinstance(step, Exception):
            raise step
        return acked(request) if step is None else step

    async def close(self) -> None:
        self.closed.set()


def acked(request: Request) -> Response:
    return Response(Status.SUCCESS, Code.OK, 0, "", {"req_guid": request.req_guid})


def refused(code: Code, guid: str = "g") -> Response:
    return Response(Status.ERROR, code, 0, "why", {"req_guid": guid})


def duplicate_id() -> ServerError:
    response = Response(Status.ERROR, Code.MAX_USER_LIMIT_REACHED, 0, "Duplicate connection")
    return ServerError("1008", response=response, retryable=True, outcome=Outcome.NOT_DELIVERED)


def request(guid: str = "g") -> Request:
    envelope = ProtoEnvelope()
    envelope.add("page", b"{}")
    return Request(guid, envelope, "proto", 20)


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def delivery(transport: Transport, policy: RetryPolicy = SOON, timeout_s: float = 5.0) -> Delivery:
    return Delivery(transport, policy, timeout_s, Sender(resolve_stats(None)))


def outcome_of(*steps: Step, policy: RetryPolicy = SOON, timeout_s: float | None = None) -> tuple[Any, Scripted]:
    """The answer or the error, and the transport that saw the attempts."""

    async def main() -> tuple[Any, Scripted]:
        transport = Scripted(*steps)
        try:
            return await delivery(transport, policy).deliver(request(), timeout_s), transport
        except (DeliveryError, MessageTooLargeError) as error:
            return error, transport

    return run(main)


@pytest.mark.parametrize(
    "failure",
    [
        ConnectError("no"),
        ConnectionLostError("lost"),
        AckTimeoutError("late"),
        ServerError("503", retryable=True, status=503, outcome=Outcome.POSSIBLY_DELIVERED),
        refused(Code.INTERNAL_ERROR),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_transient_error_is_retried(failure: Step) -> None:
    response, transport = outcome_of(failure, failure, None)
    assert (response.status, len(transport.attempts)) == (Status.SUCCESS, 3)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (ServerError("404", retryable=False, status=404, outcome=Outcome.NOT_DELIVERED), Outcome.NOT_DELIVERED),
        (refused(Code.BAD_REQUEST), Outcome.NOT_DELIVERED),
    ],
)
def test_a_final_error_is_not_retried(failure: Step, outcome: Outcome) -> None:
    error, transport = outcome_of(failure)
    assert isinstance(error, ServerError)
    assert (error.req_guid, error.attempts, error.outcome, len(transport.attempts)) == ("g", 1, outcome, 1)


def test_when_attempts_run_out_the_last_error_is_raised_and_the_worst_outcome_known() -> None:
    error, transport = outcome_of(ConnectError("1"), ConnectionLostError("2"), ConnectError("3"))
    assert (str(error), error.attempts, error.req_guid) == ("3", 3, "g")
    assert error.outcome is Outcome.POSSIBLY_DELIVERED
    error, _ = outcome_of(ConnectError("1"), ConnectError("2"), ConnectError("3"))
    assert error.outcome is Outcome.NOT_DELIVERED
    assert len(transport.attempts) == 3


def test_waits_grow_as_the_policy_says() -> None:
    policy = RetryPolicy(max_attempts=3, initial=0.05, multiplier=3.0, jitter=None)
    _, transport = outcome_of(ConnectionLostError("1"), ConnectionLostError("2"), None, policy=policy)
    first, second, third = (when for when, _ in transport.attempts)
    assert second - first >= 0.05
    assert third - second >= 0.15


def test_a_message_too_large_is_reported_with_its_size() -> None:
    error, transport = outcome_of(MessageTooLargeError("413"))
    assert isinstance(error, MessageTooLargeError)
    assert (error.size, len(transport.attempts)) == (20, 1)


@pytest.mark.parametrize("bound", ["timeout", "policy"])
def test_a_deadline_over_all_attempts(bound: str) -> None:
    """A wait that would end after the deadline does not begin."""
    policy = RetryPolicy(max_attempts=9, initial=30.0, jitter=None, total_timeout=5.0 if bound == "policy" else None)
    error, transport = outcome_of(
        ConnectionLostError("1"), policy=policy, timeout_s=5.0 if bound == "timeout" else None
    )
    assert (str(error), len(transport.attempts)) == ("1", 1)
    assert 0 < transport.attempts[0][1] <= 5.0


def test_an_attempt_has_no_more_time_than_is_left() -> None:
    _, transport = outcome_of(ConnectionLostError("1"), None, timeout_s=1.0)
    assert transport.attempts[1][1] <= 0.99
    _, transport = outcome_of(None, timeout_s=60.0)
    assert transport.attempts[0][1] == 5.0


def test_all_requests_obey_retry_after() -> None:
    async def main() -> None:
        busy = ServerError("429", retryable=True, outcome=Outcome.NOT_DELIVERED, retry_after_s=0.2)
        transport = Scripted(busy, None, None)
        one = delivery(transport)
        first = asyncio.ensure_future(one.deliver(request("a")))
        while not transport.attempts:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, one.deliver(request("b")))
        began_s = transport.attempts[0][0]
        assert all(when - began_s >= 0.19 for when, _ in transport.attempts[1:])

    run(main)


def test_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    async def main() -> None:
        busy = ServerError("429", retryable=True, outcome=Outcome.NOT_DELIVERED, retry_after_s=60.0)
        one = delivery(Scripted(busy))
        with pytest.raises(ServerError, match="429"):
            await one.deliver(request("a"), 1.0)
        with pytest.raises(AckTimeoutError, match="asked to wait") as caught:
            await one.deliver(request("b"), 1.0)
        assert (caught.value.outcome, caught.value.req_guid) == (Outcome.NOT_DELIVERED, "b")

    run(main)


def test_all_requests_share_the_backoff_of_failed_connects() -> None:
    async def main() -> None:
        began_s: dict[str, list[float]] = {}

        async def fail_at_first(request: Request) -> Response | None:
            attempts_s = began_s.setdefault(request.req_guid, [])
            attempts_s.append(asyncio.get_running_loop().time())
            if len(attempts_s) == 1:
                raise ConnectError("no")
            return None

        policy = RetryPolicy(max_attempts=2, initial=0.2, jitter=None)
        one = delivery(Scripted(*[fail_at_first] * 16), policy)
        await asyncio.gather(*(one.deliver(request(str(number))) for number in range(8)))
        # Eight that failed together are one failure: 0.2 s, not 0.2 x 2^7.
        assert len(began_s) == 8
        failed_s = min(first_s for first_s, _ in began_s.values())
        assert all(0.19 <= second_s - failed_s < 20.0 for _, second_s in began_s.values())

    run(main)


def test_waiting_for_a_duplicate_id_is_not_an_attempt() -> None:
    lost = ConnectionLostError("lost")
    policy = RetryPolicy(max_attempts=2, initial=0.01)
    response, transport = outcome_of(*[duplicate_id()] * 4, lost, None, policy=policy)
    assert (response.status, len(transport.attempts)) == (Status.SUCCESS, 6)


def test_a_duplicate_id_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_DUPLICATE_ID_LIMIT_S", 0.2)
    error, transport = outcome_of(*[duplicate_id()] * 50)
    assert error.response.code is Code.MAX_USER_LIMIT_REACHED
    assert 2 < len(transport.attempts) < 10


def unwritten() -> AckTimeoutError:
    return AckTimeoutError("no turn", outcome=Outcome.NOT_DELIVERED)


def written(error: Exception, resends: int = 0) -> Step:
    async def fail(request: Request) -> None:
        request.was_written, request.resends = True, resends
        raise error

    return fail


def test_a_request_never_written_costs_no_attempt() -> None:
    lost = ConnectionLostError("closed", outcome=Outcome.NOT_DELIVERED)
    response, transport = outcome_of(*[unwritten(), lost] * 4, written(ConnectionLostError("lost")), None)
    assert (response.status, len(transport.attempts)) == (Status.SUCCESS, 10)


def test_it_waits_no_longer_than_the_deadline() -> None:
    policy = RetryPolicy(max_attempts=1, initial=0.02, multiplier=1.0, jitter=None)
    error, transport = outcome_of(*[unwritten()] * 99, policy=policy, timeout_s=0.3)
    assert (str(error), error.attempts, error.outcome) == ("no turn", 0, Outcome.NOT_DELIVERED)
    assert 1 < len(transport.attempts) <= 16


def test_without_a_deadline_it_waits_as_long_as_all_attempts_may_take() -> None:
    async def main() -> None:
        transport = Scripted(*[unwritten()] * 99)
        policy = RetryPolicy(max_attempts=2, initial=0.02, multiplier=1.0, jitter=None)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(AckTimeoutError):
            await delivery(transport, policy, timeout_s=0.15).deliver(request())
        assert 0.2 < asyncio.get_running_loop().time() - began_s < 10.0

    run(main)


def test_a_request_that_was_written_and_refused_is_an_attempt() -> None:
    refused_error = ConnectionLostError("refused", outcome=Outcome.NOT_DELIVERED)
    error, transport = outcome_of(*[written(refused_error)] * 3)
    assert (error.attempts, error.outcome, len(transport.attempts)) == (3, Outcome.NOT_DELIVERED, 3)


def test_resends_by_a_transport_are_counted() -> None:
    error, transport = outcome_of(
        written(ConnectionLostError("1"), 1), written(ConnectError("2"), 2), ConnectError("3")
    )
    assert (error.attempts, len(transport.attempts)) == (6, 3)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED


def test_a_message_too_large_keeps_the_worse_outcome_of_an_earlier_attempt() -> None:
    error, _ = outcome_of(ConnectionLostError("lost"), MessageTooLargeError("413"))
    assert isinstance(error, MessageTooLargeError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED
    error, _ = outcome_of(ConnectError("no"), MessageTooLargeError("413"))
    assert error.outcome is Outcome.NOT_DELIVERED


def test_a_guid_in_flight_cannot_be_sent_again() -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def later(request: Request) -> None:
            await answered.wait()

        one = delivery(Scripted(later, None))
        first = asyncio.ensure_future(one.deliver(request()))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="'g' is in flight already"):
            await one.deliver(request())
        answered.set()
        await first
        await one.deliver(request())

    run(main)


def test_close_waits_then_fails_the_rest() -> None:
    async def main() -> None:
        transport = Scripted()

        async def until_closed(request: Request) -> None:
            await transport.closed.wait()
            raise ConnectionLostError("closed")

        transport._steps = [until_closed]
        one = delivery(transport)
        sending = asyncio.ensure_future(one.deliver(request()))
        await asyncio.sleep(0)
        await one.wait_idle(0.05)
        assert await one.close() == 1
        with pytest.raises(ClientClosedError, match="closed before") as caught:
            await sending
        assert (caught.value.outcome, caught.value.req_guid) == (Outcome.POSSIBLY_DELIVERED, "g")
        with pytest.raises(ClientClosedError):
            await one.deliver(request())

    run(main)


def test_close_ends_a_wait_between_attempts() -> None:
    async def main() -> None:
        transport = Scripted(ConnectError("no"))
        one = delivery(transport, RetryPolicy(max_attempts=2, initial=30.0, jitter=None))
        sending = asyncio.ensure_future(one.deliver(request()))
        while not transport.attempts:
            await asyncio.sleep(0)
        await one.wait_idle(0.01)
        assert await one.close() == 1
        with pytest.raises(ClientClosedError) as caught:
            await sending
        assert caught.value.outcome is Outcome.NOT_DELIVERED
        assert isinstance(caught.value.__cause__, ConnectError)

    run(main)


def test_close_with_nothing_in_flight() -> None:
    async def main() -> None:
        transport = Scripted(None)
        one = delivery(transport)
        await one.deliver(request())
        await one.wait_idle(5.0)
        assert await one.close() == 0
        assert transport.closed.is_set()

    run(main)
