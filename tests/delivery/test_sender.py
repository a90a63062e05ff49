"""A single attempt: stamped, sent, and reported to statistics and listeners."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
from scripted import SendEventRequest, ended

from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.errors import ConnectionLostError, Outcome, ServerError
from raccoon_fast.events import Ack, Code, Response, Status
from raccoon_fast.transports.base import Request, Transport


class Figures:
    def __init__(self) -> None:
        self.timings: list[tuple[str, float]] = []

    def timing(self, name: str, ms: float) -> None:
        self.timings.append((name, ms))

    def count(self, name: str, n: int) -> None:
        raise AssertionError("bytes and connections are the transports' to count")


class Listener:
    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.ended = 0
        self.forgotten = 0

    def publish(self, ack: Ack) -> None:
        self.acks.append(ack)

    def end(self) -> None:
        self.ended += 1

    def forget(self) -> None:
        self.forgotten += 1


class Answering(Transport):
    """Answers with what it was given, and keeps what was sent."""

    def __init__(self, answer: Response | Exception) -> None:
        self._answer = answer
        self.sent: list[bytes] = []

    async def send(self, request: Request, timeout_s: float) -> Response:
        self.sent.append(bytes(request.envelope.payload()))
        request.written_s = time.monotonic()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def close(self) -> None:
        raise NotImplementedError


def request() -> Request:
    envelope = ProtoEnvelope()
    envelope.add("page", b"{}")
    return Request("g", envelope, "proto", 20)


def response(status: Status = Status.SUCCESS, code: Code = Code.OK, guid: str = "g") -> Response:
    return Response(status, code, 0, "why", {"req_guid": guid})


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def sender(figures: Figures, listener: Listener) -> Sender:
    sender = Sender(figures)
    sender.listen(listener)
    return sender


def attempt(sender: Sender, transport: Answering, sent: Request | None = None) -> Response:
    return asyncio.run(sender.send(transport, sent or request(), 5.0, time.monotonic() - 1.0))


def test_an_acknowledgement(sender: Sender, figures: Figures, listener: Listener) -> None:
    answer = response()
    assert attempt(sender, Answering(answer)) is answer
    (ack,) = listener.acks
    assert (ack.req_guid, ack.response) == ("g", answer)
    assert 1000.0 <= ack.sent_ms < 10_000.0
    assert 0.0 <= ack.ack_ms < 5000.0
    assert figures.timings == [("sent_tt_ms", ack.sent_ms), ("ack_tt_ms", ack.ack_ms)]


def test_every_attempt_has_its_own_time_and_the_same_guid(sender: Sender) -> None:
    transport, one = Answering(response()), request()
    before_s = time.time()
    attempt(sender, transport, one)
    attempt(sender, transport, one)
    first, second = (SendEventRequest.FromString(sent) for sent in transport.sent)
    assert first.req_guid == second.req_guid == "g"
    times = [message.sent_time.seconds + message.sent_time.nanos / 1e9 for message in (first, second)]
    assert before_s - 0.001 <= times[0] < times[1] <= time.time() + 0.001


@pytest.mark.parametrize(
    ("code", "retryable", "outcome"),
    [
        (Code.BAD_REQUEST, False, Outcome.NOT_DELIVERED),
        (Code.INTERNAL_ERROR, True, Outcome.POSSIBLY_DELIVERED),
        (Code(99), True, Outcome.POSSIBLY_DELIVERED),
    ],
)
def test_a_refusal_is_an_error_and_an_answer(
    sender: Sender, listener: Listener, code: Code, retryable: bool, outcome: Outcome
) -> None:
    answer = response(Status.ERROR, code)
    with pytest.raises(ServerError, match=r"answered ERROR: .*, why") as caught:
        attempt(sender, Answering(answer))
    assert (caught.value.response, caught.value.retryable, caught.value.outcome) == (answer, retryable, outcome)
    assert [ack.response for ack in listener.acks] == [answer]


def test_an_answer_inside_an_error_is_an_answer(sender: Sender, listener: Listener) -> None:
    answer = response(Status.ERROR, Code.INTERNAL_ERROR)
    error = ServerError("500", response=answer, retryable=True, outcome=Outcome.POSSIBLY_DELIVERED)
    with pytest.raises(ServerError) as caught:
        attempt(sender, Answering(error))
    assert caught.value is error
    assert [ack.response for ack in listener.acks] == [answer]


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionLostError("lost"),
        ServerError("503", retryable=True, outcome=Outcome.POSSIBLY_DELIVERED),
        ServerError(
            "1008",
            response=response(Status.ERROR, Code.MAX_USER_LIMIT_REACHED, ""),
            retryable=True,
            outcome=Outcome.NOT_DELIVERED,
        ),
    ],
    ids=["no answer", "no Raccoon's", "about the connection"],
)
def test_an_unrelated_answer_is_reported_to_no_listener(
    sender: Sender, figures: Figures, listener: Listener, failure: Exception
) -> None:
    with pytest.raises(type(failure)):
        attempt(sender, Answering(failure))
    assert (listener.acks, figures.timings) == ([], [])


def test_listeners(sender: Sender, listener: Listener) -> None:
    other = Listener()
    sender.listen(other)
    attempt(sender, Answering(response()))
    sender.unlisten(listener)
    sender.unlisten(listener)
    attempt(sender, Answering(response()))
    sender.end()
    assert (len(listener.acks), listener.ended) == (1, 0)
    assert (len(other.acks), other.ended) == (2, 1)


def test_no_subscription_is_lost_while_others_end_in_other_threads() -> None:
    sender, others = Sender(Figures()), [Listener() for _ in range(20)]
    for other in others:
        sender.listen(other)
    lost: list[int] = []

    def subscribe(number: int) -> None:
        for _ in range(5000):
            own = Listener()
            sender.listen(own)
            if own not in sender._listeners:
                lost.append(number)
            sender.unlisten(own)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=subscribe, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert (lost, list(sender._listeners)) == ([], others)


def test_in_a_forked_child_nobody_listens(sender: Sender, listener: Listener) -> None:
    sender.forget()
    attempt(sender, Answering(response()))
    sender.end()
    assert (listener.acks, listener.ended, listener.forgotten) == ([], 0, 1)


def test_an_attempt_that_cannot_begin_has_failed() -> None:
    class Broken(Answering):
        def start(self, request: Request, timeout_s: float) -> asyncio.Future[Response]:
            raise MemoryError

    async def main() -> None:
        sender, one = Sender(Figures()), request()
        attempt = sender.start(Broken(MemoryError()), one, 1.0)
        with pytest.raises(MemoryError):
            await ended(attempt)
        with pytest.raises(MemoryError):
            sender.answer(attempt, one, 0.0)

    asyncio.run(main())
