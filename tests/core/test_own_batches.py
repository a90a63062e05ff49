"""Threads with open batches of their own, as the compiled form has them without a GIL.

`make test-own-batches` compiles them for a Python that has one. There is only one open batch otherwise.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from patience import patient

from raccoon_fast.core.batch import Accumulator, Batch
from raccoon_fast.errors import ClientClosedError

compiled = sys.modules.get("raccoon_fast.core._batch_c")
pytestmark = pytest.mark.skipif(
    compiled is None or not compiled.HAS_OWN_BATCHES,
    reason="threads share the open batch here: see make test-own-batches",
)

MOST = 10
FULL = object()


def new_accumulator(make: Callable[[], Batch] = lambda: Batch("proto"), **options: int) -> Accumulator:
    chosen = {"max_events": MOST, "max_bytes": 10_000, "max_event_bytes": 10_000, "buffer_bytes": 1 << 20, **options}
    return Accumulator(make, serializer=None, wire="proto", **chosen)  # type: ignore[arg-type]


class Threads:
    """An accumulator of batches of MOST events, and threads A and B that emit when they are told."""

    def __init__(self, **options: int) -> None:
        self.opened: list[Batch] = []
        self.sealings = 0
        self.full: list[tuple[dict[str, int], int]] = []
        self.clock_s = 0.0
        self.accumulator = new_accumulator(self._make, **options)
        self.accumulator.on_open = self.opened.append
        self.accumulator.on_sealed = self._count
        self.accumulator.on_full = self._refuse
        self._pools = {name: ThreadPoolExecutor(1) for name in "AB"}
        self._numbers: Counter[str] = Counter()

    def _make(self) -> Batch:
        batch = Batch("proto")
        self.clock_s += 1
        batch.accepted_s = self.clock_s
        return batch

    def _count(self) -> None:
        self.sealings += 1

    def _refuse(self, types: dict[str, int], size: int) -> object:
        self.full.append((types, size))
        return FULL

    def on(self, name: str, act: Callable[[], Any]) -> Any:
        return self._pools[name].submit(act).result(patient(10))

    def emit(self, name: str, events: int = 1, size: int = 0) -> list[Any]:
        """Emit numbered events of a type that is the thread's name, in that thread."""

        def act() -> list[Any]:
            answers = []
            for _ in range(events):
                answers.append(self.accumulator.emit(name, b"%06d" % self._numbers[name] + bytes(size)))
                self._numbers[name] += answers[-1] is not FULL
            return answers

        return self.on(name, act)  # type: ignore[no-any-return]

    def give_b_its_own(self) -> None:
        """A opens a batch, and B fills it."""
        self.emit("A")
        self.emit("B", MOST - 1)
        assert self.batches() == [{"A": 1, "B": MOST - 1}]

    def batches(self) -> list[dict[str, int]]:
        """Take the sealed batches, and return their types."""
        taken = []
        while (batch := self.accumulator.take()) is not None:
            taken.append(dict(batch.types))
            self.accumulator.release(batch.cost)
        return taken

    def end(self) -> None:
        for pool in self._pools.values():
            pool.shutdown()


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.end()


def test_a_thread_that_fills_the_batch_of_others_gets_its_own(threads: Threads) -> None:
    threads.give_b_its_own()
    threads.emit("B", 3)
    threads.emit("A", 2)
    assert threads.accumulator.open_count == 5
    assert threads.accumulator.accepted == MOST + 5
    assert threads.accumulator.taken == MOST
    assert threads.accumulator.waiting_types() == {"A": 2, "B": 3}
    assert threads.accumulator.sealed == 0
    assert len(threads.opened) == 3  # on_open is told of each
    threads.emit("B", MOST - 3)
    assert threads.sealings == 2
    assert threads.batches() == [{"B": MOST}]
    assert threads.accumulator.waiting_types() == {"A": 2}


def test_a_thread_that_emits_alone_does_not(threads: Threads) -> None:
    threads.emit("B", 5 * MOST + 1)
    threads.emit("A")
    threads.accumulator.seal()
    assert threads.batches() == [{"B": MOST}] * 5 + [{"A": 1, "B": 1}]


def test_a_second_thread_gets_its_own_when_the_first_has_left_the_shared_batch(threads: Threads) -> None:
    """It would slow down all the others, which read what it changes at each event."""
    threads.give_b_its_own()
    threads.emit("B")
    threads.emit("A", MOST)
    threads.emit("A")
    threads.accumulator.emit("main", b"")
    threads.accumulator.seal()
    assert sorted(map(str, threads.batches())) == ["{'A': 10}", "{'A': 1}", "{'B': 1}", "{'main': 1}"]


def test_seal_seals_all_and_leads_back_to_the_shared_batch(threads: Threads) -> None:
    threads.give_b_its_own()
    threads.emit("B", 2)
    threads.emit("A", 2)
    assert threads.accumulator.seal() is True
    assert sorted(map(str, threads.batches())) == ["{'A': 2}", "{'B': 2}"]
    assert threads.accumulator.seal() is False
    threads.emit("B", 2)
    threads.emit("A", 2)
    threads.accumulator.seal()
    assert threads.batches() == [{"B": 2, "A": 2}]


def test_seal_leaves_what_is_younger(threads: Threads) -> None:
    threads.give_b_its_own()
    threads.emit("B")
    threads.emit("A")
    assert threads.accumulator.open_since_s == 2.0
    assert threads.accumulator.seal(1.5) is False
    assert threads.accumulator.seal(2.5) is True
    assert threads.batches() == [{"B": 1}]
    assert threads.accumulator.open_since_s == 3.0
    assert threads.accumulator.seal(3.0) is True
    assert threads.accumulator.open_since_s == float("inf")


def test_the_bytes_that_are_reserved_do_not_count(threads: Threads) -> None:
    threads.give_b_its_own()
    assert threads.accumulator.buffered == 0
    threads.emit("B")
    size = threads.opened[-1].nbytes
    assert threads.accumulator.buffered == size
    threads.emit("A")
    assert threads.accumulator.buffered == 2 * size
    threads.accumulator.seal()
    assert threads.accumulator.buffered == 2 * size
    threads.batches()
    assert threads.accumulator.buffered == 0


def test_the_buffer_is_filled_to_the_last_byte_and_never_over() -> None:
    threads = Threads(buffer_bytes=20_000)
    threads.give_b_its_own()
    random_ = random.Random(1)
    while not threads.full:
        threads.emit(random_.choice("AB"), random_.randint(1, 5), random_.randint(0, 200))
        assert threads.accumulator.buffered <= 20_000
    (types, size) = threads.full[-1]
    assert sum(types.values()) == 1
    threads.accumulator.seal()  # what one thread reserved is now for all
    while threads.emit("A", 1, 0)[0] is not FULL:
        pass
    assert 20_000 - threads.accumulator.buffered < threads.full[-1][1] < size
    assert sum(map(sum, map(dict.values, threads.batches()))) == threads.accumulator.accepted - MOST
    assert threads.accumulator.buffered == 0
    assert threads.emit("B") != [FULL]
    threads.end()


def test_a_batch_that_bytes_fill() -> None:
    threads = Threads(max_events=1000, max_bytes=1000)
    threads.emit("A")
    threads.emit("B", 10, 200)
    threads.emit("A")
    threads.accumulator.seal()
    taken = threads.batches()
    assert taken[0] == {"A": 1, "B": 4}
    assert {"A": 1} in taken  # the shared batch, which B does not use any more
    assert sum(one.get("B", 0) for one in taken) == 10
    threads.end()


def test_close_and_reset(threads: Threads) -> None:
    threads.give_b_its_own()
    threads.emit("B", 2)
    threads.accumulator.close()
    for name in "AB":
        with pytest.raises(ClientClosedError):
            threads.emit(name)
    assert threads.accumulator.open_count == 2
    threads.accumulator.reset()
    assert (threads.accumulator.accepted, threads.accumulator.open_count, threads.accumulator.buffered) == (0, 0, 0)
    assert threads.accumulator.waiting_types() == {}
    assert threads.accumulator.seal() is False


def test_limit_bytes_applies_to_all(threads: Threads) -> None:
    threads.give_b_its_own()
    threads.accumulator.limit_bytes(500)
    threads.emit("B", 4, 200)
    assert threads.batches() == [{"B": 2}]


def test_an_exception_of_on_open_reaches_the_thread_that_opened_it(threads: Threads) -> None:
    threads.give_b_its_own()

    def fail(_: Batch) -> None:
        raise OSError("no thread is left")

    threads.accumulator.on_open = fail
    with pytest.raises(OSError, match="no thread is left"):
        threads.emit("B")


def test_batches_of_one_event(threads: Threads) -> None:
    ones = Threads(max_events=1)
    for name in "ABAB":
        ones.emit(name)
    assert ones.batches() == [{"A": 1}, {"B": 1}] * 2
    ones.end()


@pytest.mark.parametrize("seed", range(20))
def test_random_calls(seed: int) -> None:
    """Nothing is lost or doubled, the counts are right after every call, and each thread's events keep their order."""
    random_ = random.Random(seed)
    threads = Threads(
        max_events=random_.choice([2, 10, 100]), max_bytes=random_.choice([300, 3000]), buffer_bytes=20_000
    )
    accumulator = threads.accumulator
    emitted: Counter[str] = Counter()
    taken: defaultdict[str, list[int]] = defaultdict(list)

    def take() -> None:
        while (batch := accumulator.take()) is not None:
            for type_, data in batch.events():
                taken[type_].append(int(data[:6]))
            accumulator.release(batch.cost)

    for _ in range(300):
        act = random_.random()
        if act < 0.8:
            name = random_.choice("AB")
            answers = threads.emit(name, random_.randint(1, 30), random_.choice([0, 0, 100, 250]))
            emitted[name] += sum(answer is not FULL for answer in answers)
            if FULL in answers:
                accumulator.seal()
                take()
        elif act < 0.9:
            accumulator.seal(random_.choice([None, threads.clock_s - 1]))
        else:
            take()
        assert accumulator.accepted == sum(emitted.values())
        assert accumulator.accepted - accumulator.taken == sum(accumulator.waiting_types().values())
        assert accumulator.buffered <= 20_000
        assert (accumulator.open_count > 0) == (accumulator.open_since_s < float("inf"))
    accumulator.seal()
    take()
    assert taken == {name: [*range(count)] for name, count in emitted.items()}
    assert accumulator.buffered == 0
    threads.end()


def test_many_threads_at_the_same_time() -> None:
    total = 20_000
    accumulator = new_accumulator(max_events=100, buffer_bytes=100_000)
    room = threading.Event()
    accumulator.on_full = lambda *_: room.wait(0.001) or True
    names = [f"thread-{number}" for number in range(8)]
    last: dict[str, int] = dict.fromkeys(names, -1)
    problems: list[str] = []

    def emit(name: str) -> None:
        for number in range(0, total, 10):
            if number % 100:
                accumulator.emit_many([(name, b"%d" % (number + one)) for one in range(10)])
            else:
                for one in range(10):
                    accumulator.emit(name, b"%d" % (number + one))

    def take() -> None:
        while any(number < total - 1 for number in last.values()) and not problems:
            if (batch := accumulator.take()) is None:
                accumulator.seal()
                continue
            for type_, data in batch.events():
                if int(data) != last[type_] + 1:
                    problems.append(f"{type_}: {int(data)} after {last[type_]}")
                last[type_] = int(data)
            if accumulator.buffered > 100_000:
                problems.append(f"{accumulator.buffered} bytes")
            accumulator.release(batch.cost)
            room.set()
            room.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=emit, args=(name,), daemon=True) for name in names]
        taker = threading.Thread(target=take, daemon=True)
        for worker in [*workers, taker]:
            worker.start()
        for worker in [*workers, taker]:
            worker.join(patient(60))
    finally:
        sys.setswitchinterval(interval)
    assert not problems
    assert last == dict.fromkeys(names, total - 1)
    assert accumulator.accepted == accumulator.taken == 8 * total
    assert accumulator.buffered == 0


def test_what_waits_is_counted_at_one_moment() -> None:
    accumulator = new_accumulator(max_events=7, buffer_bytes=1 << 30)
    is_over = threading.Event()

    def emit(name: str) -> None:
        while not is_over.is_set() and accumulator.sealed < 100_000:
            accumulator.emit(name, b"x")

    workers = [threading.Thread(target=emit, args=(name,), daemon=True) for name in "AB"]
    for worker in workers:
        worker.start()
    while accumulator.sealed < 5000:
        pass
    for _ in range(20):
        before = accumulator.accepted
        assert before <= sum(accumulator.waiting_types().values()) <= accumulator.accepted
    is_over.set()
    for worker in workers:
        worker.join(patient(10))
    assert sum(accumulator.waiting_types().values()) == accumulator.accepted
