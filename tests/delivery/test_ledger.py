"""The number of accepted events equals the sum of all other counts, in total and by type."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import patient

from raccoon_fast.counts import Counts
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.ledger import Ledger

STATES = [
    states.QUEUED,
    states.IN_FLIGHT,
    states.ACKED,
    states.EXPIRED,
    states.SPOOLED,
    states.FAILED + "closed",
    states.FAILED + "BAD_REQUEST",
    states.DROPPED + "drop_oldest",
    states.SAMPLED,
    states.FILTERED,
    states.DISCARDED,
]
TYPES = st.dictionaries(st.sampled_from("abc"), st.integers(1, 100), min_size=1)


def total_of(counts: Counts) -> int:
    settled = counts.acked + counts.expired + sum(counts.failed.values()) + sum(counts.dropped.values())
    left_out = counts.sampled + counts.filtered + counts.discarded
    return settled + left_out + counts.spooled + counts.queued + counts.in_flight


@given(st.lists(st.tuples(TYPES, st.lists(st.sampled_from(STATES), min_size=1, max_size=6))), TYPES)
def test_the_ledger_always_balances(batches: list[tuple[dict[str, int], list[str]]], waiting: dict[str, int]) -> None:
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
    for name in ("acked", "expired", "spooled", "queued", "in_flight", "sampled", "filtered", "discarded"):
        assert sum(getattr(counts, name) for counts in by_type.values()) == getattr(total, name)


def test_lost_and_unsettled_events() -> None:
    counts = Counts(10, acked=1, failed={"closed": 2}, dropped={"drop_oldest": 1}, expired=1, queued=3, in_flight=2)
    assert (counts.lost, counts.unsettled) == (4, 5)


def test_a_move_that_was_left_counts_once_at_every_line() -> None:
    """A signal handler may read the counts during a move, and its thread cannot wait for the end of the move."""
    ledger = _with_a_move_left()
    seen: list[Counts] = []

    def at_each_line(frame: FrameType, event: str, _: object) -> object:
        if frame.f_code.co_name in ("_make_one_left", "_move", "_apply") and event == "line":
            seen.append(ledger.total(0))
        return at_each_line

    _traced(at_each_line, lambda: (ledger.add({"c": 1}, states.ACKED), ledger.make_moves()))
    assert len(seen) > 10
    assert {(one.accepted, one.acked) for one in seen} == {(2, 2), (3, 3)}


def test_an_exception_in_the_midst_of_a_move_that_was_left() -> None:
    """A signal handler raises KeyboardInterrupt at each line in turn; nothing is counted twice, and nothing is lost."""
    raised = 0
    for number in range(1, 100):
        ledger = _with_a_move_left()
        lines = 0

        def at_each_line(frame: FrameType, event: str, _: object, last: int = number) -> object:
            nonlocal lines
            if frame.f_code.co_name == "_make_one_left" and event == "line":
                lines += 1
                if lines == last:
                    raise KeyboardInterrupt
            return at_each_line

        try:
            _traced(at_each_line, lambda to=ledger: (to.add({"c": 1}, states.ACKED), to.make_moves()))
        except KeyboardInterrupt:
            raised += 1
        else:
            break
        assert ledger.total(0) == Counts(accepted=3, acked=3)
        ledger.add({"a": 1}, states.ACKED)
        ledger.make_moves()
        assert ledger.total(0) == Counts(accepted=4, acked=4)
        assert not ledger._left
    assert raised > 5


def _with_a_move_left() -> Ledger:
    """Two events, of two types, are acknowledged by a move that is not made yet: this is the main thread."""
    ledger = Ledger()
    ledger.add({"a": 1, "b": 1}, states.IN_FLIGHT)
    ledger.make_moves()
    ledger.move({"a": 1, "b": 1}, states.IN_FLIGHT, states.ACKED)
    assert len(ledger._left) == 1
    return ledger


def test_a_change_that_an_interrupt_ended_holds_nobody_up() -> None:
    ledger = Ledger()
    ledger.change().__enter__()  # and never left
    asked: list[int] = []
    ledger.consistent(lambda: asked.append(1))
    assert asked == [1]
    with ledger.change():
        ledger.consistent(lambda: asked.append(2))  # it cannot end: it is read all the same
    assert asked == [1, 2]
    assert not ledger._changes


def test_moves_of_the_main_thread_do_not_pile_up() -> None:
    ledger = Ledger()
    for number in range(1000):
        ledger.add({"a": 1}, states.ACKED)
        assert len(ledger._left) <= 100, number
    assert ledger.total(0) == Counts(accepted=1000, acked=1000)


def _traced(trace: Callable[..., object], act: Callable[[], object]) -> None:
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)


def test_readers_wait_for_a_change_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    waiting = ["event"]
    looks = 0
    entered, looked = threading.Event(), threading.Event()

    def change() -> None:
        with ledger.change():
            waiting.clear()
            entered.set()
            assert looked.wait(patient(10))
            ledger.add({"page": 1}, "acked")

    def look(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 200:
            looked.set()
            changer.join()

    monkeypatch.setattr("raccoon_fast.delivery.ledger.time.sleep", look)
    changer = threading.Thread(target=change)
    changer.start()
    assert entered.wait(patient(10))
    assert ledger.consistent(lambda: ledger.total(len(waiting))).accepted == 1
    changer.join()


def test_changes_wait_for_a_reader_that_found_no_moment_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    waits: list[bool] = []
    reader = states.Active(ledger._readers)

    def read(_: float) -> None:
        waits.append(bool(ledger._changes))
        if len(waits) == 3:
            reader.__exit__()

    monkeypatch.setattr("raccoon_fast.delivery.ledger.time.sleep", read)
    reader.__enter__()
    with ledger.change():
        assert waits == []  # it would wait for itself
    changed = threading.Thread(target=ledger.change().__enter__)  # of another thread, when it waits
    reader.thread = -1
    changed.start()
    changed.join(patient(10))
    assert waits == [False] * 3


def test_moves_are_left_to_a_reader_that_found_no_moment_without_one() -> None:
    ledger = Ledger()
    seen: list[Counts] = []

    def read() -> Counts:
        _in_thread(lambda: ledger.add({"page": 1}, states.ACKED))  # one after the other
        seen.append(ledger.totals(0))
        return seen[-1]

    assert ledger.consistent(read) == Counts(accepted=states._TRIES + 1, acked=states._TRIES + 1)
    assert len(seen) == states._TRIES + 1
    assert len(ledger._left) == 1
    assert not ledger._writers
    assert not ledger._readers


@pytest.mark.parametrize("threads", [1, 8])
def test_every_reader_sees_each_event_once(threads: int) -> None:
    """While threads take events without a pause, a reader could find no moment without a change."""
    ledger = Ledger()
    waiting, stop = deque(range(100)), threading.Event()

    def take() -> None:
        while not stop.is_set():
            with ledger.change():
                one = waiting.popleft()
                ledger.add({"page": 1}, states.IN_FLIGHT)
            ledger.move({"page": 1}, states.IN_FLIGHT, states.ACKED)
            with ledger.change():  # it comes back
                ledger.move({"page": 1}, states.ACKED, states.SAMPLED)
                ledger.add({"page": -1}, states.SAMPLED)
                waiting.append(one)

    takers = [threading.Thread(target=take) for _ in range(threads)]
    for taker in takers:
        taker.start()
    try:
        for _ in range(50):
            counts = ledger.consistent(lambda: ledger.totals(len(waiting)))
            assert counts.accepted == 100
            assert min(counts.queued, counts.in_flight, counts.acked) >= 0
    finally:
        stop.set()
        for taker in takers:
            taker.join()


def test_readers_wait_for_a_move_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GIL, both threads run at the same time; the next move of the same events is left meanwhile."""
    ledger = Ledger()
    _in_thread(lambda: ledger.add({"page": 1}, states.QUEUED))
    moving, go_on = threading.Event(), threading.Event()
    plain = states._apply

    def apply(rows: Any, *arguments: Any) -> None:
        if rows is ledger._rows:
            moving.set()
            assert go_on.wait(patient(10))
        plain(rows, *arguments)

    def look(_: float) -> None:
        go_on.set()
        mover.join()

    monkeypatch.setattr(states, "_apply", apply)
    monkeypatch.setattr("raccoon_fast.delivery.ledger.time.sleep", look)
    mover = threading.Thread(target=ledger.move, args=({"page": 1}, states.QUEUED, states.IN_FLIGHT))
    mover.start()
    try:
        assert moving.wait(patient(10))
        ledger.move({"page": 1}, states.IN_FLIGHT, states.ACKED)
        assert ledger.consistent(lambda: ledger.totals(0)) == Counts(accepted=1, acked=1)
    finally:
        go_on.set()
        mover.join()


def test_readers_do_not_wait_for_an_interrupted_change_of_their_own_thread() -> None:
    ledger = Ledger()
    with ledger.change():
        assert ledger.consistent(lambda: 3) == 3


@pytest.mark.parametrize("kind", ["totals", "total"])
def test_readers_see_no_move_without_the_one_before_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Between two steps of a reader, a batch is sent, and a busy ledger is left the move that acknowledges it."""
    ledger = Ledger()
    _in_thread(lambda: ledger.add({"page": 1}, states.QUEUED))
    reads = 0

    def send_and_settle() -> None:
        ledger.move({"page": 1}, states.QUEUED, states.IN_FLIGHT)
        assert not ledger._left
        ledger._writers[True] = [0]  # another thread writes
        ledger.move({"page": 1}, states.IN_FLIGHT, states.ACKED)
        assert len(ledger._left) == 1

    def snapshot(items: deque[Any]) -> list[Any]:
        nonlocal reads
        reads += 1
        if reads == 1:
            _in_thread(send_and_settle)
        return [*items]

    monkeypatch.setattr(states, "snapshot", snapshot)
    read = ledger.totals if kind == "totals" else ledger.total
    assert ledger.consistent(lambda: read(0)) == Counts(accepted=1, acked=1)


def _in_thread(act: Callable[[], object]) -> None:
    """Run it on a thread that is not the main one, whose moves are made at once."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(patient(10))
