"""The steps of the pure accumulator without a GIL."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from itertools import chain

import pytest

from raccoon_fast.core import _batch_py
from raccoon_fast.core._steps_py import LockedSteps, Steps, new_steps
from raccoon_fast.threads import at_once


def test_an_exception_ends_a_step_and_releases_its_lock() -> None:
    steps = LockedSteps()
    items = deque([1])
    for _ in range(2):
        with pytest.raises(IndexError):
            steps.at_once(map(deque.append, (items,), (2,)), map(deque.pop, (deque[int](),)))
        assert not steps._lock.locked()
    assert steps.items(items) == [1, 2, 2]
    at_once(steps.step(map(items.append, (3,))))
    assert steps.items(items) == [1, 2, 2, 3]
    assert not steps._lock.locked()


@pytest.mark.parametrize("kind", [Steps, LockedSteps])
def test_an_item_that_is_not_there_is_never_shown(kind: type[Steps] | type[LockedSteps]) -> None:
    """Without a GIL its repr would run signal handlers while the lock is held."""

    class Item:
        def __repr__(self) -> str:
            assert kind is Steps
            return "item"

    steps = kind()
    first, second = Item(), Item()
    items, others = deque([first, second]), deque[Item]()
    steps.at_once(*steps.remove(items, first), map(others.append, (first,)))
    assert (list(items), list(others)) == ([second], [first])
    with pytest.raises((IndexError, ValueError)):
        steps.at_once(*steps.remove(items, first), map(others.append, (first,)))
    assert (list(items), list(others)) == ([second], [first])


def test_an_exception_while_it_waits_for_the_lock() -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    steps = LockedSteps()
    with steps._lock, pytest.MonkeyPatch.context() as patched:
        patched.setattr("raccoon_fast.core._steps_py._ACQUIRE", interrupted)
        with pytest.raises(KeyboardInterrupt):
            steps.total([1])
        assert steps._lock.locked()  # by the other one
    assert steps.total([1, 2]) == 3


def test_the_steps_of_this_interpreter() -> None:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert type(new_steps()) is (Steps if has_gil else LockedSteps)


@pytest.mark.parametrize("steps", dict.fromkeys([new_steps().__class__, LockedSteps]))
def test_threads_see_whole_steps(steps: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of events and bytes agree at all times, and each event is taken once."""
    monkeypatch.setattr(_batch_py, "new_steps", steps)
    accumulator = _batch_py.Accumulator(
        lambda: _batch_py.Batch("proto"), serializer=None, wire="proto", max_events=3, max_bytes=1000,
        max_event_bytes=1000, buffer_bytes=1 << 30,
    )  # fmt: skip
    is_over = threading.Event()
    errors: list[Exception] = []

    def emit(thread: int) -> None:
        for number in range(1000):
            accumulator.emit(f"{thread}", b"%d" % number)
            if number % 20 == 0:
                accumulator.seal()

    def look() -> None:
        before = 0
        while not is_over.is_set():
            accepted = accumulator.accepted
            assert accepted >= before
            before = accepted
            assert accumulator.buffered >= 0
            assert sum(accumulator.waiting_types().values()) <= accumulator.accepted

    def guarded(work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - of any kind
            errors.append(error)

    emitters = [threading.Thread(target=guarded, args=(emit, thread)) for thread in range(4)]
    looker = threading.Thread(target=guarded, args=(look,))
    for one in (*emitters, looker):
        one.start()
    taken: list[_batch_py.Batch] = []
    while any(one.is_alive() for one in emitters):
        if (batch := accumulator.take()) is not None:
            taken.append(batch)
            accumulator.release(batch.nbytes)
        taken += (batches := accumulator.take_all()[0])
        for batch in batches:
            accumulator.release(batch.nbytes)
    is_over.set()
    looker.join()
    accumulator.seal()
    taken += (batches := accumulator.take_all()[0])
    for batch in batches:
        accumulator.release(batch.nbytes)
    assert errors == []
    counted = Counter(chain.from_iterable(batch.events() for batch in taken))
    assert counted == {(f"{thread}", b"%d" % number): 1 for thread in range(4) for number in range(1000)}
    assert (accumulator.accepted, accumulator.taken, accumulator.buffered) == (4000, 4000, 0)
