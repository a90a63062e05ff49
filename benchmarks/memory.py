"""Measures memory: allocations per event, memory held by waiting events, and growth over ten million events.

memray counts the allocations of all allocators in a client that is warmed up, from the events until their
acknowledgement: 200 B events in batches of 1,000. The memory held by waiting events is the growth of a process after
200,000 events of 200 B, each with its own bytes, were emitted while no server was reachable.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transports
from harness import Effort, LeftOut, Table, fresh, in_turns
from payloads import TYPE, events_of
from servers import Sink, sink

BATCH = 1000
_COUNTED_REQUESTS = 20
_WAITING = 200_000
_MILLION = 1_000_000
_MILLIONS = 10
# These are variants of other rows, or the floor, or allocate outside a Python process.
_NOT_COUNTED = (transports.OURS_ASYNC, transports.FLOOR, transports.GO)
_STATM = Path("/proc/self/statm")


def rss_mib() -> float:
    """Resident memory in MiB; without /proc, the peak so far."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    return peak_mib()


def peak_mib() -> float:
    """The peak of this process's resident memory, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    with sink() as server:
        tables = _allocations(server, effort, left_out) if left_out.find("memray", "memray") else []
        return [*tables, _waiting(effort, left_out), *_resident(server, effort)]


def _allocations(server: Sink, effort: Effort, left_out: LeftOut) -> list[Table]:
    in_bytes = Table("Allocated until the acknowledgement", "bytes per event", "client", transports.OURS)
    in_calls = Table("Allocated until the acknowledgement", "allocations per event", "client", transports.OURS)
    for transport, all_clients in transports.CLIENTS.items():
        names = [
            name
            for name, client in all_clients.items()
            if name not in _NOT_COUNTED and not client.is_variant
            if not client.package or left_out.find(client.package, client.package)
        ]
        for name in effort.some(names):
            size, calls, events = fresh(_allocated, transport, name, server.url(transport), effort)
            server.expect(events)
            in_bytes.add(name, transport, [size])
            in_calls.add(name, transport, [calls])
    return [in_bytes, in_calls]


def _allocated(transport: str, name: str, url: str, effort: Effort) -> tuple[float, float, int]:
    """Bytes and allocations per event, and the number of events sent in all."""
    import memray

    client = transports.CLIENTS[transport][name].opened
    requests = effort.count(_COUNTED_REQUESTS)
    with tempfile.TemporaryDirectory() as folder, client(url, events_of("200 B", BATCH)) as send:
        send(_COUNTED_REQUESTS)
        file = Path(folder, "allocations")
        with memray.Tracker(file, trace_python_allocators=True):
            send(requests)
        size = calls = 0
        with memray.FileReader(file) as reader:
            for record in reader.get_allocation_records():
                size += record.size
                calls += record.size > 0
    return size / requests / BATCH, calls / requests / BATCH, (requests + _COUNTED_REQUESTS) * BATCH


def _waiting(effort: Effort, left_out: LeftOut) -> Table:
    table = Table("Memory held by waiting events of 200 B", "bytes per event", "held by", "raccoon_fast Producer")
    cases: dict[str, Callable[[], Any]] = {"raccoon_fast Producer": _ours, "a list of (type, bytes)": _list}
    if left_out.find("confluent-kafka", "confluent_kafka"):
        cases["confluent-kafka Producer"] = _kafka
    events = effort.count(_WAITING)
    measures = {name: functools.partial(_held, case, events) for name, case in cases.items()}
    for name, sizes in in_turns(effort, measures).items():
        table.add(name, f"{_WAITING:,} events", sizes)
    return table


def _held(case: Callable[[], Any], events: int) -> list[float]:
    return [fresh(_grown, case, events) * 2**20 / events]


def _grown(case: Callable[[], Any], events: int) -> float:
    with case() as hand_over:
        for _ in range(1000):
            hand_over(TYPE, os.urandom(200))
        before_mib = rss_mib()
        for _ in range(events):
            hand_over(TYPE, os.urandom(200))
        return rss_mib() - before_mib


@contextmanager
def _ours() -> Iterator[Callable[[str, bytes], object]]:
    from raccoon_fast import RAW, Producer

    producer = Producer("ws://127.0.0.1:1", serializer=RAW, logger=None, overflow="raise")
    yield producer.emit
    total = producer.report.total
    assert total.unsettled == total.accepted > 0, total
    producer.close(0)


@contextmanager
def _list() -> Iterator[Callable[[str, bytes], object]]:
    waiting: list[tuple[str, bytes]] = []
    yield lambda type_, data: waiting.append((type_, data))


@contextmanager
def _kafka() -> Iterator[Callable[[str, bytes], object]]:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "log_level": 0,
            "queue.buffering.max.messages": 2 * _WAITING,
            "queue.buffering.max.kbytes": 1 << 20,
        }
    )
    yield producer.produce
    producer.purge()
    producer.flush(10)


def _resident(server: Sink, effort: Effort) -> list[Table]:
    over = Table("Resident memory, by millions of events", "MiB", "transport", is_detail=True)
    grown = Table("Growth over ten million events, after the first million", "MiB", "transport")
    step = effort.count(_MILLION) // BATCH * BATCH or BATCH
    for transport in effort.some(("WebSocket", "REST", "gRPC")):
        sizes = fresh(_run_long, server.url(transport), step)
        server.expect(step * _MILLIONS)
        for millions, size in enumerate(sizes, 1):
            over.add(transport, str(millions), [size])
        grown.add(transport, "MiB", [max(sizes[1:]) - sizes[0]])
    return [grown, over]


def _run_long(url: str, step: int) -> list[float]:
    from raccoon_fast import RAW, Producer

    events = events_of("200 B", BATCH)
    sizes = []
    with Producer(url, serializer=RAW, logger=None) as producer:
        for _ in range(_MILLIONS):
            for _ in range(step // BATCH):
                producer.emit_many(events)
            sizes.append(rss_mib())
        assert producer.flush(120) == 0
    assert producer.report.total.acked == step * _MILLIONS
    return sizes
