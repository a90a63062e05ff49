"""A batch's receipt is settled together with the last part of the batch."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from raccoon_fast.delivery.receipts import Receipt
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import DroppedError, EventsRejectedError, Outcome
from raccoon_fast.events import Code, Response, Status

ACK = Response(Status.SUCCESS, Code.OK, 0, "", {})


@pytest.fixture
def settlement() -> Settlement:
    future: Future[Any] = Future()
    return Settlement(Receipt("g", future, None), future)  # type: ignore[arg-type]


def test_a_whole_batch(settlement: Settlement) -> None:
    assert settlement.acked(ACK)
    assert settlement.receipt.result(0) is ACK  # type: ignore[call-arg]


def test_parts(settlement: Settlement) -> None:
    settlement.split(2)
    settlement.split(2)
    assert [settlement.acked(ACK), settlement.acked(ACK)] == [False, False]
    assert not settlement.receipt.done()
    assert settlement.acked(ACK)
    assert settlement.receipt.done()
    assert settlement.extra_requests == 4


def test_refused_events_are_collected(settlement: Settlement) -> None:
    settlement.split(3)
    settlement.rejected([("a", b"1")], "why")
    settlement.acked(ACK)
    settlement.rejected([("b", b"2")], "what")
    error = settlement.receipt.exception()
    assert isinstance(error, EventsRejectedError)
    assert error.rejected == [("a", b"1", "why"), ("b", b"2", "what")]
    assert error.req_guid == "g"


def test_a_failed_part_fails_the_batch(settlement: Settlement) -> None:
    settlement.split(2)
    failure = DroppedError("dropped")
    settlement.failed(failure)
    settlement.rejected([("a", b"1")], "why")
    assert settlement.receipt.exception() is failure


def test_possibly_delivered_stays_possibly_delivered(settlement: Settlement) -> None:
    settlement.split(2)
    settlement.rejected([("a", b"1")], "why", Outcome.POSSIBLY_DELIVERED)
    settlement.rejected([("b", b"2")], "what")
    error = settlement.receipt.exception()
    assert isinstance(error, EventsRejectedError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED
