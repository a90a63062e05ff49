"""Waiting batches are returned in order, once they are due."""

from __future__ import annotations

import random
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


def test_ready_batches_keep_their_order_except_those_put_first() -> None:
    waiting = Waiting()
    first, second, third = batch(), batch(), batch()
    waiting.add(second)
    waiting.add(third)
    waiting.add_first(first)
    assert [waiting.pop_ready() for _ in range(3)] == [first, second, third]
    assert not waiting.has_ready


def test_delayed_batches_come_by_time() -> None:
    waiting = Waiting()
    late, early, as_early = batch(), batch(), batch()
    waiting.add_delayed(late, 3.0)
    waiting.add_delayed(early, 1.0)
    waiting.add_delayed(as_early, 1.0)
    assert (waiting.retry_s, waiting.has_ready) == (1.0, False)
    assert [waiting.pop_delayed() for _ in range(3)] == [early, as_early, late]


def test_overdue_batches_leave_both_queues() -> None:
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


def test_the_deadline_covers_ready_and_delayed_batches() -> None:
    waiting = Waiting()
    waiting.add(batch(5.0))
    waiting.add_first(batch(4.0))
    waiting.add_delayed(batch(3.0), 1.0)
    assert waiting.deadline_s == 3.0
    while waiting.has_ready:
        waiting.pop_ready()
    waiting.pop_delayed()
    waiting.add(batch(7.0))
    assert waiting.deadline_s == 7.0


def test_random_batches_are_overdue_after_their_deadline() -> None:
    draw = random.Random(1)
    waiting = Waiting()
    held: list[Any] = []
    for now_s in range(2000):
        one = batch(now_s + draw.uniform(-2.0, 30.0))
        held.append(one)
        add = draw.choice([waiting.add, waiting.add_first, lambda one: waiting.add_delayed(one, draw.random())])
        add(one)
        while held and draw.random() < 0.5:
            held.remove(waiting.pop_ready() if waiting.has_ready else waiting.pop_delayed())
        assert waiting.deadline_s <= min((one.deadline_s for one in held), default=float("inf"))
        overdue = waiting.pop_overdue(now_s)
        assert {*map(id, overdue)} == {id(one) for one in held if one.deadline_s <= now_s}
        held = [one for one in held if one.deadline_s > now_s]
        assert len(waiting) == len(held)


class Watched:
    """A batch that counts how often it is asked for its deadline."""

    asked = 0

    @property
    def deadline_s(self) -> float:
        Watched.asked += 1
        return 100.0


def test_batches_that_wait_for_a_failed_server_are_not_scanned_again() -> None:
    waiting = Waiting()
    for number in range(1000):
        waiting.add_delayed(Watched(), float(number))  # type: ignore[arg-type]
    before = Watched.asked
    for _ in range(1000):
        assert waiting.deadline_s == 100.0
        assert waiting.pop_overdue(50.0) == []
        waiting.pop_delayed()
    assert Watched.asked == before
