"""Batches that wait come out in their order, and when they are due."""

from __future__ import annotations

from typing import Any

from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery.waiting import Waiting


def batch(deadline_s: float = 100.0) -> Any:
    one = Batch("proto")
    one.deadline_s = deadline_s
    return one


def test_nothing_waits_at_first() -> None:
    waiting = Waiting()
    assert (waiting.has_ready, waiting.retry_s, waiting.deadline_s) == (False, float("inf"), float("inf"))
    assert waiting.pop_overdue(1e9) == []
    assert waiting.pop_all() == []


def test_ready_ones_keep_their_order_but_for_those_put_first() -> None:
    waiting = Waiting()
    first, second, third = batch(), batch(), batch()
    waiting.add(second)
    waiting.add(third)
    waiting.add_first(first)
    assert [waiting.pop_ready() for _ in range(3)] == [first, second, third]
    assert not waiting.has_ready


def test_delayed_ones_come_by_time() -> None:
    waiting = Waiting()
    late, early, as_early = batch(), batch(), batch()
    waiting.add_delayed(late, 3.0)
    waiting.add_delayed(early, 1.0)
    waiting.add_delayed(as_early, 1.0)
    assert (waiting.retry_s, waiting.has_ready) == (1.0, False)
    assert [waiting.pop_delayed() for _ in range(3)] == [early, as_early, late]


def test_overdue_ones_leave_both() -> None:
    waiting = Waiting()
    ready, overdue, delayed, overdue_delayed = batch(10.0), batch(2.0), batch(10.0), batch(1.0)
    waiting.add(overdue)
    waiting.add(ready)
    waiting.add_delayed(overdue_delayed, 5.0)
    waiting.add_delayed(delayed, 6.0)
    assert waiting.deadline_s == 1.0
    assert waiting.pop_overdue(2.0) == [overdue, overdue_delayed]
    assert waiting.pop_overdue(2.0) == []
    assert (waiting.retry_s, waiting.deadline_s) == (6.0, 10.0)
    assert waiting.pop_all() == [ready, delayed]
