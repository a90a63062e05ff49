"""What is accepted is the sum of all else, in total and by type."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.ledger import Counts, Ledger

STATES = [
    states.QUEUED,
    states.IN_FLIGHT,
    states.ACKED,
    states.EXPIRED,
    states.SPOOLED,
    states.FAILED + "closed",
    states.FAILED + "BAD_REQUEST",
    states.DROPPED + "drop_oldest",
]
TYPES = st.dictionaries(st.sampled_from("abc"), st.integers(1, 100), min_size=1)


def total_of(counts: Counts) -> int:
    settled = counts.acked + counts.expired + sum(counts.failed.values()) + sum(counts.dropped.values())
    return settled + counts.spooled + counts.queued + counts.in_flight


@given(st.lists(st.tuples(TYPES, st.lists(st.sampled_from(STATES), min_size=1, max_size=6))), TYPES)
def test_it_always_balances(batches: list[tuple[dict[str, int], list[str]]], waiting: dict[str, int]) -> None:
    ledger = Ledger()
    for types, way in batches:
        ledger.add(types, way[0])
        for before, after in pairwise(way):
            ledger.move(types, before, after)
    total = ledger.total(sum(waiting.values()))
    by_type = ledger.by_type(waiting)
    assert total_of(total) == total.accepted == sum(sum(t.values()) for t, _ in batches) + sum(waiting.values())
    assert {name: total_of(counts) for name, counts in by_type.items()} == {
        name: counts.accepted for name, counts in by_type.items()
    }
    assert sum(counts.accepted for counts in by_type.values()) == total.accepted
    for name in ("acked", "expired", "spooled", "queued", "in_flight"):
        assert sum(getattr(counts, name) for counts in by_type.values()) == getattr(total, name)


def test_what_is_lost_and_what_is_not_settled() -> None:
    counts = Counts(10, acked=1, failed={"closed": 2}, dropped={"drop_oldest": 1}, expired=1, queued=3, in_flight=2)
    assert (counts.lost, counts.unsettled) == (4, 5)
