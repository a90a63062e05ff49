"""Measures latency in a program with a thread that computes, and how much that thread loses to the producer.

The thread computes without pause, and emits 50,000 events of 200 B per second when they are due. Another thread that
needs the GIL waits up to `sys.getswitchinterval()` for it, 5 ms by default. A batch needs the GIL to be sealed,
written, answered and reported. Latency counts from the time when an event is due until its delivery callback runs;
percentiles cover all events of a run. The work of the computing thread is compared with its work beside an `emit` that
does nothing. confluent-kafka sends to librdkafka's mock broker, which runs in the same process but needs no GIL; a
second thread polls for its callbacks, and one event in fifty has one.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from emit import KAFKA
from harness import Effort, LeftOut, Table, fresh, in_turns
from payloads import TYPE
from servers import sink

RATE = 50_000
PERCENTILES = {"p50": 0.5, "p99": 0.99}
#: In seconds; the first one is the interpreter's default.
SWITCH_INTERVALS = (0.005, 0.001, 0.0002)
TRANSPORTS = ("WebSocket", "REST", "gRPC")
_SECONDS, _WARM_UP_S = 2.0, 0.5
_ONE_IN = 50
_DATA = bytes(200)


class Work(NamedTuple):
    """The work of one thread during a run.

    Attributes:
        units: Units computed per second.
        due_s: When the first event was due.
        emitted: The number of events.
    """

    units: float
    due_s: float
    emitted: int


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    has_kafka = left_out.find("confluent-kafka", "confluent_kafka")
    seconds = max(0.05, _SECONDS * effort.share)
    tables = []
    with sink() as server:
        for interval_s in effort.some(SWITCH_INTERVALS):
            cases: dict[str, tuple[Callable[..., Any], str]] = {
                f"raccoon_fast, {transport}": (_ours, server.url(transport)) for transport in effort.some(TRANSPORTS)
            }
            if has_kafka:
                cases[KAFKA] = (_kafka, "")
            measures = {
                name: functools.partial(_measure, make, url, interval_s, seconds) for name, (make, url) in cases.items()
            }
            named = f"switch interval {interval_s * 1000:g} ms"
            latency = Table(f"From emit to acknowledgement, {named}", "ms", "producer")
            kept = Table(f"Work of the computing thread, {named}", "%", "producer")
            for name, runs in in_turns(effort, measures).items():
                *percentiles, shares = zip(*runs, strict=True)
                for percentile, values in zip(PERCENTILES, percentiles, strict=True):
                    latency.add(name, percentile, values)
                kept.add(name, "compared with an empty emit", shares)
            tables += [latency, kept]
    return tables


def _measure(make: Callable[..., Any], url: str, interval_s: float, seconds: float) -> list[tuple[float, ...]]:
    return [fresh(_run, make, url, interval_s, seconds)]


def _run(make: Callable[..., Any], url: str, interval_s: float, seconds: float) -> tuple[float, ...]:
    """The percentiles in milliseconds, and the share of the work that was still done, in percent."""
    sys.setswitchinterval(interval_s)
    alone = _work(lambda: None, seconds)
    with make(url) as (emit, settle):
        _work(emit, min(_WARM_UP_S, seconds))
        settle(None)
        beside = _work(emit, seconds)
        latencies_s = sorted(settle(beside))
    assert latencies_s
    found = [latencies_s[int(share * (len(latencies_s) - 1))] * 1000.0 for share in PERCENTILES.values()]
    return (*found, 100.0 * beside.units / alone.units)


def _work(emit: Callable[[], object], seconds: float) -> Work:
    """Compute for this many seconds, and emit meanwhile."""
    units = emitted = number = 0
    now = time.perf_counter
    due_s = now()
    while (gone_s := now() - due_s) < seconds:
        for _ in range(50):
            number = (number * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        units += 1
        while emitted < int(gone_s * RATE):
            emit()
            emitted += 1
    return Work(units / gone_s, due_s, emitted)


_Made = tuple[Callable[[], object], Callable[[Any], list[float]]]


@contextlib.contextmanager
def _ours(url: str) -> Iterator[_Made]:
    from raccoon_fast import RAW, Producer

    acked_s: dict[Any, float] = {}
    receipts: list[Any] = []

    def on_delivery(receipt: Any) -> None:
        acked_s[receipt] = time.perf_counter()

    with Producer(url, serializer=RAW, logger=None, on_delivery=on_delivery) as producer:
        one = producer.emit

        def emit() -> None:
            receipts.append(one(TYPE, _DATA))

        def settle(work: Work | None) -> list[float]:
            assert producer.flush(30) == 0
            batches = len({*receipts})
            while len(acked_s) < batches:  # flush returns before the last callbacks
                time.sleep(0.001)
            latencies_s = [] if work is None else _latencies_s(map(acked_s.get, receipts), work, 1)
            receipts.clear()
            acked_s.clear()
            return latencies_s

        yield emit, settle


@contextlib.contextmanager
def _kafka(url: str) -> Iterator[_Made]:
    from confluent_kafka import Producer

    options = {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 5}
    producer = Producer(options)
    acked_s: list[float] = []
    count = 0
    is_over = threading.Event()

    def on_delivery(error: object, message: object) -> None:
        assert error is None, error
        acked_s.append(time.perf_counter())

    def poll() -> None:
        while not is_over.is_set():
            producer.poll(0.1)

    def emit() -> None:
        nonlocal count
        if count % _ONE_IN:
            producer.produce(TYPE, _DATA)
        else:
            producer.produce(TYPE, _DATA, on_delivery=on_delivery)
        count += 1

    def settle(work: Work | None) -> list[float]:
        nonlocal count
        assert producer.flush(30) == 0
        while len(acked_s) < -(-count // _ONE_IN):  # the events whose callbacks the other thread polled
            time.sleep(0.001)
        latencies_s = [] if work is None else _latencies_s(acked_s, work, _ONE_IN)
        acked_s.clear()
        count = 0
        return latencies_s

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        yield emit, settle
    finally:
        is_over.set()
        poller.join()


def _latencies_s(acked_s: Any, work: Work, one_in: int) -> list[float]:
    """The latencies in seconds; event number i was due i / RATE seconds after the first."""
    return [acked - work.due_s - number * one_in / RATE for number, acked in enumerate(acked_s)]
