"""The pure form of Accumulator when a signal handler interrupts it before any of its lines and uses it.

A call of the compiled form cannot be interrupted.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest
from interrupts import Interrupt, ctrl_c

from raccoon_fast.core import _batch_py
from raccoon_fast.core._steps_py import LockedSteps, Steps
from raccoon_fast.errors import ClientClosedError

EVENTS = 7


@pytest.fixture(params=[Steps, LockedSteps], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GIL and without one."""
    monkeypatch.setattr(_batch_py, "new_steps", request.param)


class Given:
    """An accumulator in the middle of its work: batches are sealed by count and by bytes, and lean or not."""

    def __init__(self, buffer_bytes: int) -> None:
        self.accumulator = _batch_py.Accumulator(
            self._make_batch, serializer=None, wire="proto", max_events=3, max_bytes=150, max_event_bytes=100,
            buffer_bytes=buffer_bytes, batch_cost=100,
        )  # fmt: skip
        self.taken: deque[_batch_py.Batch] = deque()
        self.made = 0

    def _make_batch(self) -> _batch_py.Batch:
        batch = _batch_py.Batch("proto")
        self.made += 1
        batch.receipt = self.made
        return batch

    def emit_all(self) -> Iterator[str]:
        for number in range(EVENTS):
            type_ = f"type-{number}"
            self.accumulator.emit(type_, b"x" * (60 if number == 3 else 5))
            yield type_

    def take(self) -> None:
        self.accumulator.seal()
        while self.accumulator.take(self.taken) is not None:
            pass

    def types(self) -> Counter[str]:
        return Counter(event_type for batch in self.taken for event_type, _ in batch.events())

    def check(self) -> None:
        """All that was taken is counted as what it is."""
        accumulator = self.accumulator
        assert accumulator.accepted == accumulator.taken == sum(batch.count for batch in self.taken)
        assert accumulator.buffered == sum(batch.cost for batch in self.taken)
        for batch in self.taken:
            accumulator.release(batch.cost)
            twin = _batch_py.Batch("proto")
            twin.add_many(batch.events())
            assert (batch.nbytes, dict(batch.types)) == (twin.nbytes, dict(twin.types))
        assert accumulator.buffered == 0


def close(given: Given) -> None:
    given.accumulator.close()
    given.take()


def emit(given: Given) -> None:
    given.accumulator.emit("handler", b"y" * 5)


def look(given: Given) -> None:
    accumulator = given.accumulator
    waiting = accumulator.accepted - accumulator.taken
    assert sum(accumulator.waiting_types().values()) == waiting
    assert accumulator.buffered >= 12 * waiting
    assert accumulator.open_count <= waiting


ROOM = pytest.mark.parametrize("buffer_bytes", [1 << 20, 8000], ids=["roomy", "crowded"])


@ROOM
@pytest.mark.parametrize("act", [emit, look, Given.take, close])
def test_a_handler_before_any_line(buffer_bytes: int, act: Any) -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        given = Given(buffer_bytes)
        emitted = []
        interrupt = Interrupt(at, lambda given=given: act(given), _batch_py)
        try:
            with interrupt:
                for type_ in given.emit_all():
                    emitted.append(type_)  # noqa: PERF402 - it may be ended
        except ClientClosedError:
            assert act is close
        is_over = interrupt.left > 0
        if act is not close or is_over:
            given.take()
        types = given.types()
        assert types.pop("handler", 0) == (act is emit and not is_over)
        assert types == Counter(emitted)
        given.check()
    assert at > 100


@ROOM
def test_an_exception_before_any_line(buffer_bytes: int) -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        given = Given(buffer_bytes)
        emitted = []
        try:
            with Interrupt(at, ctrl_c, _batch_py):
                for type_ in given.emit_all():
                    emitted.append(type_)  # noqa: PERF402 - it may be ended
            is_over = True
        except KeyboardInterrupt:
            pass
        for number in range(5):  # whatever it left, it goes on
            given.accumulator.emit(f"later-{number}", b"")
        assert not given.accumulator._sealing
        given.take()
        types = given.types()
        assert {*types.values()} == {1}
        assert {*emitted} | {f"later-{number}" for number in range(5)} <= {*types}
        assert len(types) - len(emitted) - 5 <= 1  # the one that was interrupted
        given.check()
    assert at > 100


@ROOM
@pytest.mark.parametrize("act", ["take", "seal", "waiting_types"])
def test_an_exception_before_any_line_of_these(buffer_bytes: int, act: str) -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        given = Given(buffer_bytes)
        assert len([*given.emit_all()]) == EVENTS
        arguments = (given.taken,) if act == "take" else ()
        try:
            with Interrupt(at, ctrl_c, _batch_py):
                getattr(given.accumulator, act)(*arguments)
            is_over = True
        except KeyboardInterrupt:
            pass
        given.take()
        assert given.types() == {f"type-{number}": 1 for number in range(EVENTS)}
        given.check()
    assert at > 3


def test_other_threads_continue_after_an_exception_that_left_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_py, "_PATIENCE_S", 0.001)
    given = Given(1 << 20)
    given.accumulator._lock.acquire()  # and nobody noted that it has it
    given.accumulator.emit("a", b"")
    given.accumulator.emit("b", b"")
    given.accumulator.emit("c", b"")
    assert given.accumulator.sealed == 1  # the first one went alone
    assert given.accumulator.open_count == 2


def test_an_event_that_cannot_wait_for_the_lock_keeps_its_thread_s_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_py, "_PATIENCE_S", 0.001)
    accumulator = Given(10_000).accumulator
    accumulator.emit("a", b"1")
    with accumulator._lock:  # as another thread does that gets no processor
        accumulator.emit("a", b"2")
    accumulator.emit("a", b"3")
    accumulator.seal()
    batches, _ = accumulator.take_all()
    assert [data for batch in batches for _, data in batch.events()] == [b"1", b"2", b"3"]


def test_a_thread_that_gets_no_processor_opens_no_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_py, "_PATIENCE_S", 0.001)
    accumulator = Given(10_000).accumulator
    total, calls = accumulator._total, 0

    def total_later(numbers: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:  # it has seen that no batch is open, and is about to open one
            accumulator._holder = 0  # as in the moment before a thread has noted that it has the lock
            for data in (b"alone", b"1"):  # the first one replaces the lock
                thread = threading.Thread(target=accumulator.emit, args=("other", data))
                thread.start()
                thread.join()
        return total(numbers)

    accumulator._total = total_later
    for data in (b"1", b"2", b"3"):
        accumulator.emit("a", data)
    accumulator.seal()
    batches, types = accumulator.take_all()
    assert types == {"a": 3, "other": 2}
    assert [data for batch in batches for type_, data in batch.events() if type_ == "a"] == [b"1", b"2", b"3"]
    assert (accumulator.accepted, accumulator.open_count) == (5, 0)
