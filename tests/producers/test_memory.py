"""`buffer_bytes` limits the memory for events, whatever the sizes of events and batches."""

from __future__ import annotations

import sys
import sysconfig
import time
from collections.abc import Iterator
from typing import Any

import pytest
from program import finish, start

from raccoon_fast import RAW, AsyncProducer, Lane, Producer, has_extensions
from raccoon_fast.collector import Collector
from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery.ledger import OTHER_TYPES, Ledger

MIB = 1 << 20
# More than `buffer_bytes`, by which the process may grow.
PROMISED = 32 * MIB
# By which it may grow in tests of one kind of load.
SPARE = 16 * MIB

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")

# Without a GIL, CPython 3.13 uses the memory of a freed object again only after each running thread has gone on. Beside
# a thread that waits for a CPU, 100 freed events of 400 kB take 40 MB, in programs without a producer too. There, all
# large events are the same object, so that only the producer's memory is measured.
IMPORTS = f"""
import asyncio, functools, os, pathlib, time
from raccoon_fast import RAW, AsyncProducer, BufferFull, Producer
data_of = {"functools.cache(bytes)" if sysconfig.get_config_var("Py_GIL_DISABLED") else "bytes"}
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


# Fills the buffer, as nothing listens there, and prints by how much the process grew, and what it counts.
FILL = """
options = dict(serializer=RAW, logger=None, overflow="raise", buffer_bytes=limit, batch_events=count, linger=60)
if is_called_back: options["on_delivery"] = lambda receipt: None
def rss(): return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
kept = []
def events(first):
    for number in range(first, first + count):
        type_ = f"type-{number}" if is_typed else "a"
        yield type_, data_of(size) if size > 1000 else os.urandom(size)
def show(producer): print(rss() - before, producer._accumulator.buffered, len(kept), flush=True)
if is_async:
    async def main():
        global before
        producer = AsyncProducer("ws://127.0.0.1:9", wire=wire, **options)
        await producer.emit("a", b"x")
        before = rss()
        try:
            for number in range(10**9):
                producer_events = [*events(number * count)]
                for type_, data in producer_events: receipt = producer.emit_nowait(type_, data)
                if keeps: kept.append(receipt)
        except BufferFull:
            show(producer)
        await producer.close(0)
    asyncio.run(main())
else:
    producer = Producer("ws://127.0.0.1:9", wire=wire, **options)
    producer.emit("a", b"x")
    before = rss()
    try:
        for number in range(10**9):
            if is_batch: receipt = producer.emit_batch(events(number * count))
            else: receipt = producer.emit_many([*events(number * count)])
            if keeps: kept.append(receipt)
    except BufferFull:
        show(producer)
    producer.close(0)
"""


@pytest.mark.parametrize(
    ("size", "count", "how"),
    [
        (1, 1, {}),
        (20, 1, {}),
        (20, 1, {"is_batch": True}),
        (20, 1, {"is_async": True}),
        (20, 1, {"is_called_back": True}),
        (20, 1, {"keeps": True}),
        (20, 1, {"wire": "json"}),
        (20, 10, {"is_typed": True}),
        (1, 1000, {"limit": 8 * MIB}),
        (20, 1000, {"is_typed": True}),
        (600, 7, {"is_async": True}),
        (10_000, 3, {}),
        (1_000_000, 1, {}),
        (1_000_000, 1, {"is_batch": True, "wire": "json"}),
    ],
)
def test_memory_is_bounded_by_the_buffer(size: int, count: int, how: dict[str, Any]) -> None:
    chosen = {"is_batch": False, "is_async": False, "is_called_back": False, "is_typed": False, "keeps": False}
    values = {**chosen, "wire": "proto", "limit": 32 * MIB, "size": size, "count": count, **how}
    limit = int(values["limit"])
    [line] = finish(start(IMPORTS + "".join(f"{name} = {value!r}\n" for name, value in values.items()) + FILL), 120)
    grown, buffered, kept = map(int, line.split())
    assert limit * 0.9 < buffered < limit * 1.1
    # What the caller keeps is the caller's, but most of a receipt is counted as long as its batch waits.
    assert grown < limit + SPARE
    assert kept or not values["keeps"]
    if size <= 20 and count == 1:
        assert grown > limit // 2  # and it is not counted as several times what it is


# Emits one load after the other, each until the buffer was filled with it more than once, and prints the most by which
# the process grew in each.
CHANGE = """
import collections, itertools, random, threading
from raccoon_fast import Lane
def status(name): return int(pathlib.Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) << 10
overflow = "block" if url else "drop_oldest"
options = dict(serializer=RAW, logger=None, buffer_bytes=limit, batch_events=count or 1, linger=60, wire=wire)
types = [f"type-{number}" for number in range(lanes)]
if lanes: options["lanes"] = {type_: Lane() for type_ in types}
producer = Producer(url or "ws://127.0.0.1:9", overflow=overflow, **options)
producer.emit("a", b"x")
time.sleep(0.1)
kept = collections.deque(maxlen=keeps)
before = status("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
# Threads that take turns all stay until the last has ended, so that none gets the memory of another's ended thread.
turn, ended = threading.Lock(), threading.Barrier(threads)
def fill(size, nbytes):
    if not takes_turns: return emit(size, nbytes)
    with turn: emit(size, nbytes * threads)
    ended.wait()
def emit(size, nbytes):
    next_types = itertools.cycle(types or ["a"])
    while nbytes > 0:
        # Some loads are of one event at a time, some of batches of any number.
        number = count or min(random.randint(1, 1000), 1 + 200_000 // (size + 50))
        events = [(next(next_types), data_of(size))] * number
        if count: kept.extend(producer.emit_many(events))
        else: kept.append(producer.emit_batch(events))
        nbytes -= (size + 20) * len(events) + (800 if len(events) == 1 else 0)
for size in sizes:
    each = limit * 5 // 4 // threads
    many = [threading.Thread(target=fill, args=(size, each)) for _ in range(threads)]
    for one in many: one.start()
    for one in many: one.join()
    print(status("VmHWM") - before, flush=True)
producer.close(0)
"""
SMALL_TO_LARGE = [20, 10_000, 1_000_000]
RANDOM = [20, 200_000, 3000, 400_000, 100, 100_000, 1_000_000]
SMALL = [20, 3000, 100, 20_000, 100, 3000]
# Without a GIL, what a thread made and another no longer uses is freed once the first thread runs again.
RETURNED_BY_OTHERS = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a waiting thread frees nothing that it made"
)
# A receipt that the program keeps, with its outcome.
RECEIPT_BYTES = 1500


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        (SMALL_TO_LARGE, {}),
        (SMALL_TO_LARGE, {"is_sent": "ws"}),
        (SMALL_TO_LARGE, {"is_sent": "http", "threads": 2}),
        (SMALL_TO_LARGE, {"is_sent": "ws", "threads": 2}),
        (SMALL_TO_LARGE[::-1], {}),
        (SMALL_TO_LARGE[::-1], {"is_sent": "http", "threads": 2}),
        (RANDOM, {}),
        (RANDOM, {"wire": "json"}),
        (RANDOM, {"count": 0}),
        (RANDOM, {"threads": 4}),
        pytest.param([3000, 20_000], {"threads": 2, "takes_turns": True, "limit": 128 * MIB}, marks=RETURNED_BY_OTHERS),
        (RANDOM, {"keeps": 5000}),
        (SMALL, {"count": 7}),
        (SMALL_TO_LARGE, {"lanes": 8, "limit": 96 * MIB}),
        pytest.param(RANDOM, {"limit": 128 * MIB}, marks=pytest.mark.slow),
        pytest.param(RANDOM, {"limit": 128 * MIB, "threads": 4}, marks=pytest.mark.slow),
    ],
)
def test_memory_is_bounded_while_the_load_changes(sizes: list[int], how: dict[str, Any], collector: Collector) -> None:
    url = {"ws": collector.ws_url, "http": collector.url}.get(how.get("is_sent", ""), "")
    usual = {"limit": 32 * MIB, "count": 1, "threads": 1, "takes_turns": False, "keeps": 0, "lanes": 0, "wire": "proto"}
    values = {**usual, **how, "url": url}
    program = "".join(f"{name} = {value!r}\n" for name, value in {**values, "sizes": sizes}.items()) + CHANGE
    grown = [*map(int, finish(start(IMPORTS + program), 240))]
    assert len(grown) == len(sizes)
    its_own = max(sizes) * int(values["threads"])  # the event that each thread emits
    its_own += int(values["keeps"]) * RECEIPT_BYTES
    margin = int(values["limit"]) + PROMISED + its_own - max(grown)
    print(f"margin: {margin / 1e6:.1f} MB")
    assert margin > 0, [*zip(sizes, grown, strict=True)]


BURSTS = """
import resource
producer = Producer(url, serializer=RAW, logger=None, batch_events=1000, buffer_bytes=16 << 20)
def burst():
    for _ in range(batches): producer.emit_many([("page", bytes(size))] * 1000)
    assert producer.flush(60) == 0
for _ in range(3): burst()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): burst()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10 / batches)
producer.close()
"""
REQUESTS = """
import collections, resource
from raccoon_fast import RestClient, WebSocketClient
client = (RestClient if url.startswith("http") else WebSocketClient)(url, serializer=RAW, logger=None)
def send(requests):
    receipts = collections.deque()
    for _ in range(requests):
        if len(receipts) == 6: receipts.popleft().result(60)
        receipts.append(client.submit([("page", bytes(size))] * 1000))
    for receipt in receipts: receipt.result(60)
send(30)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
send(100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)
client.close()
"""


# The third size fills the buffer more than once in each burst.
@pytest.mark.parametrize(("size", "batches"), [(200, 15), (400, 15), (200, 120)])
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_bursts_use_the_memory_of_earlier_ones(size: int, batches: int, scheme: str) -> None:
    if not has_extensions():
        pytest.skip("in the pure form a batch is made of small objects")
    with Collector(sink="null") as collector:
        url = collector.url if scheme == "http" else collector.ws_url
        program = f"url, size, batches = {url!r}, {size}, {batches}\n" + BURSTS
        [line] = finish(start(IMPORTS + program), 120)
    # Of each batch; new memory would take a page fault per 4 kB, 50 or 100.
    assert float(line) < 10


@pytest.mark.parametrize("size", [400, 1000])
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_requests_use_the_memory_of_earlier_ones(size: int, scheme: str) -> None:
    if not has_extensions():
        pytest.skip("in the pure form a request is made of small objects")
    with Collector(sink="null") as collector:
        url = collector.url if scheme == "http" else collector.ws_url
        [line] = finish(start(IMPORTS + f"url, size = {url!r}, {size}\n" + REQUESTS), 120)
    # Of each request; new memory would take 100 or 250.
    assert float(line) < 20


def test_small_batches_kept_for_reuse_make_way_for_large_ones() -> None:
    producer = Producer("ws://127.0.0.1:9", serializer=RAW, logger=None, buffer_bytes=8 * MIB)

    def recycle(size: int) -> int:
        batch = Batch("proto")
        batch.add("a", bytes(size))
        producer._recycle(batch)
        return len(producer._pool.batches)

    assert [recycle(10_000) for _ in range(20)] == [*range(1, 21)]
    assert [recycle(2 * MIB) for _ in range(5)] == [10, 5, 2, 1, 0]
    assert recycle(10_000) == 1
    producer.close(0)


@pytest.mark.parametrize("is_async", [False, True])
def test_close_gives_up_very_many_batches_in_time(is_async: bool) -> None:
    program = """
options = dict(serializer=RAW, logger=None, overflow="raise", buffer_bytes=1 << 30, batch_events=1)
def show(report, began_s, flushed_s, unsettled):
    total = report.total
    print(unsettled, total.accepted, total.failed, total.unsettled, flush=True)
    print(time.monotonic() - flushed_s < patience_s, flushed_s - began_s < patience_s, flush=True)
if is_async:
    async def main():
        producer = AsyncProducer("ws://127.0.0.1:9", **options)
        for _ in range(100_000): receipt = producer.emit_nowait("a", b"x")
        began_s = time.monotonic()
        unsettled = await producer.flush(0.5)
        flushed_s = time.monotonic()
        report = await producer.close(0.5)
        show(report, began_s, flushed_s, unsettled)
        while not receipt.done(): await asyncio.sleep(0.001)
        print(repr(receipt.exception()))
    asyncio.run(main())
else:
    producer = Producer("ws://127.0.0.1:9", **options)
    for _ in range(100_000): receipt = producer.emit("a", b"x")
    began_s = time.monotonic()
    unsettled = producer.flush(0.5)
    flushed_s = time.monotonic()
    show(producer.close(0.5), began_s, flushed_s, unsettled)
    print(repr(receipt.exception(30)))
"""
    # Limits are far above what it takes, and below what settling them one by one beforehand did.
    chosen = f"is_async, patience_s = {is_async}, 5.0\n"
    counts, times, error = finish(start(IMPORTS + chosen + program), 120)
    assert counts == "100000 100000 {'closed': 100000} 0"
    assert times == "True True"
    assert "the producer was closed before the batch was acknowledged (not delivered); last failure: " in error


class Untold(dict[Any, Any]):
    """A dict that counts how often all of it is looked at."""

    looks = 0

    def copy(self) -> Any:
        Untold.looks += 1
        return super().copy()

    def __iter__(self) -> Any:
        Untold.looks += 1
        return super().__iter__()

    def items(self) -> Any:
        Untold.looks += 1
        return super().items()

    def values(self) -> Any:
        Untold.looks += 1
        return super().values()


@pytest.mark.parametrize("kind", [Producer, AsyncProducer])
def test_health_does_not_look_at_each_type(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = kind("ws://127.0.0.1:9", serializer=RAW, logger=None)
    monkeypatch.setattr(producer._ledger, "_rows", Untold(producer._ledger._rows))
    for number in range(100):
        producer._ledger.add({f"type-{number}": 2}, "acked")
    monkeypatch.setattr(Untold, "looks", 0)
    monkeypatch.setattr(producer, "stats", lambda: pytest.fail("stats() is asked, which counts by type"))
    assert producer.health().ok
    assert producer._total().acked == 200
    assert Untold.looks == 0
    monkeypatch.undo()
    assert producer.stats().total == producer._total()


def test_types_beyond_the_bound_are_counted_together() -> None:
    ledger = Ledger(max_types=2)
    ledger.add({"a": 1}, "queued")
    ledger.add({"b": 2, "c": 3, "d": 4}, "queued")
    ledger.move({"b": 2, "c": 3, "d": 4}, "queued", "in_flight")
    ledger.move({"a": 1}, "queued", "in_flight")
    ledger.move({"d": 4, "a": 1}, "in_flight", "acked")
    counts = ledger.by_type({"c": 5, "e": 6, "a": 7})
    assert {name: (one.accepted, one.acked, one.in_flight, one.queued) for name, one in counts.items()} == {
        "a": (8, 1, 0, 7),
        "b": (2, 0, 2, 0),
        OTHER_TYPES: (18, 4, 3, 11),
    }
    assert ledger.totals(18) == ledger.total(18)


def test_types_beyond_the_bound_are_counted_together_in_moves_that_are_left() -> None:
    ledger = Ledger(max_types=2)  # this is the main thread, which leaves its moves
    ledger.add({"a": 1, "b": 2, "c": 3}, "queued")
    ledger.move({"b": 2, "c": 3}, "queued", "acked")
    assert {*ledger.by_type({})} == {"a", "b", OTHER_TYPES}
    assert ledger.totals(0) == ledger.total(0)
    assert len(ledger._left) == 2
    ledger.add({"d": 4}, "queued")
    ledger.make_moves()
    assert not ledger._left
    by_type = ledger.by_type({})
    assert len(by_type) == 3
    assert {*by_type} > {OTHER_TYPES}
    assert sum(one.queued for one in by_type.values()) == 5
    assert sum(one.acked for one in by_type.values()) == 5
    for one in by_type.values():
        assert min(one.queued, one.acked) >= 0
        assert one.accepted == one.queued + one.acked
    assert ledger.totals(0) == ledger.total(0)


def test_events_go_out_under_their_own_type(collector: Collector) -> None:
    with Producer(collector.ws_url, serializer=RAW, logger=None, max_types=3, batch_events=4) as producer:
        producer.emit_many((f"type-{number}", b"x") for number in range(10))
        report = producer.close()
    assert {event.type for event in collector.events} == {f"type-{number}" for number in range(10)}
    acked = {name: one.acked for name, one in report.by_type.items()}
    assert acked == {"type-0": 1, "type-1": 1, "type-2": 1, OTHER_TYPES: 7}
    assert report.total.acked == 10


def test_lanes_are_not_asked_about_the_name_for_further_types() -> None:
    asked: list[str] = []

    def lane_of(event_type: str) -> str:
        asked.append(event_type)
        return "noisy"

    options: dict[str, Any] = {"max_types": 3, "lanes": {"noisy": Lane()}, "lane_of": lane_of}
    with Producer("null://", serializer=RAW, logger=None, **options) as producer:
        producer.emit_many((f"type-{number}", b"x") for number in range(10))
        assert producer.flush() == 0
        by_lane = producer.stats().by_lane
    assert asked == [f"type-{number}" for number in range(10)]
    assert (by_lane["noisy"].accepted, by_lane["default"].accepted) == (3, 7)


def test_a_spool_and_a_restart_count_the_same(collector: Collector, tmp_path: Any) -> None:
    options: dict[str, Any] = {"serializer": RAW, "logger": None, "max_types": 3, "spool": tmp_path / "spool"}
    collector.faults.refuse()
    first = Producer(collector.ws_url, batch_events=4, **options)
    first.emit_many((f"type-{number}", b"x") for number in range(10))
    report = first.close(0.1)
    for one in (report.total, *report.by_type.values()):
        assert one.accepted == one.spooled
    assert report.by_type[OTHER_TYPES].spooled == 7
    collector.faults.accept()
    second = Producer(collector.ws_url, **options)
    deadline_s = time.monotonic() + 30
    while second.stats().total.acked < 10 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    report = second.close()
    assert report.total.acked == report.total.accepted == 10
    for one in report.by_type.values():
        assert one.acked == one.accepted
    assert sum(one.acked for one in report.by_type.values()) == 10
    assert len(report.by_type) == 4
