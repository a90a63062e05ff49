"""Expired events are logged at once, and later ones at intervals."""

from __future__ import annotations

from trial import Lines

from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery.expiries import Expiries
from raccoon_fast.errors import Outcome


def batch_of(events: int, outcome: Outcome = Outcome.NOT_DELIVERED) -> Batch:
    batch = Batch("proto")
    batch.add_many([("t", b"x")] * events)
    batch.outcome = outcome
    return batch


def test_the_first_at_once_and_then_every_ten_seconds() -> None:
    log = Lines()
    expiries = Expiries(log, 120.0)  # type: ignore[arg-type]
    expiries.tell(0.0)
    assert (log.lines, expiries.due_s) == ([], float("inf"))
    expiries.add(batch_of(3), ConnectionError("refused"))
    expiries.tell(100.0)
    assert log.lines.pop() == (
        "3 events expired after 120 s without an acknowledgement (0 possibly delivered); last failure: refused"
    )
    expiries.add(batch_of(2), None)
    expiries.add(batch_of(5, Outcome.POSSIBLY_DELIVERED), None)
    assert expiries.due_s == 110.0
    expiries.tell(109.9)
    assert log.lines == []
    expiries.tell(110.0)
    assert log.lines == [
        "7 events expired after 120 s without an acknowledgement (5 possibly delivered); "
        "the server acknowledged too few events in that time"
    ]
    expiries.tell(float("inf"))
    assert len(log.lines) == 1
