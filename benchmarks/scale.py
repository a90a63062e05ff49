"""Measures the cost of an event as the number of events, types, threads, connections and processes grows.

A Producer with default options sends batches of 1,000 events of 200 B over WebSocket. Its events come from `emit_many`
as fast as it accepts them. CPU is that of the client process; memory is the peak minus the memory before the producer
was created. Each figure comes from a separate process, and the collector's count proves that every event arrived.
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from typing import NamedTuple

from harness import Effort, LeftOut, Stopwatch, Table, fresh, in_turns
from memory import peak_mib
from servers import Sink, sink

BATCH = 1000
DIMENSIONS = {
    "events": (10_000, 100_000, 1_000_000, 10_000_000),
    "types": (1, 10, 100, 1_000, 10_000),
    "threads": (1, 2, 4, 8, 16),
    "connections": (1, 4, 16, 64),
    "processes": (1, 2, 4),
}
COLUMNS = ("CPU, ns per event", "events/s", "memory, MiB")
_EVENTS = 500_000


class Load(NamedTuple):
    """The load of one process."""

    events: int = _EVENTS
    types: int = 1
    threads: int = 1
    connections: int = 1


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    tables = []
    with sink() as server:
        for dimension, sizes in DIMENSIONS.items():
            table = Table(f"By number of {dimension}", "", dimension)
            measures = {
                f"{size:,}": functools.partial(_measure, server, dimension, size, effort) for size in effort.some(sizes)
            }
            for size, results in in_turns(effort, measures).items():
                for column, values in zip(COLUMNS, zip(*results, strict=True), strict=True):
                    table.add(size, column, values)
            tables.append(table)
    return tables


def _measure(server: Sink, dimension: str, size: int, effort: Effort) -> list[tuple[float, float, float]]:
    processes = size if dimension == "processes" else 1
    load = Load() if dimension == "processes" else Load(**{dimension: size})
    events = max(1, effort.count(load.events) // BATCH // load.threads) * BATCH * load.threads
    load = load._replace(events=events)
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        results = [*pool.map(lambda _: fresh(_send, server.websocket_url, load), range(processes))]
    server.expect((events + BATCH) * processes)
    cpu_ns, rates, grown_mib = zip(*results, strict=True)
    return [(sum(cpu_ns) / processes, sum(rates), sum(grown_mib))]


def _send(url: str, load: Load) -> tuple[float, float, float]:
    from raccoon_fast import RAW, Producer

    events = [(f"type-{number % load.types}", bytes(200)) for number in range(max(BATCH, load.types))]
    loops = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    turns = load.events // BATCH // load.threads

    def work() -> None:
        for turn in range(turns):
            producer.emit_many(loops[turn % len(loops)])

    before_mib = peak_mib()
    with Producer(url, serializer=RAW, logger=None, connections=load.connections) as producer:
        producer.emit_many(loops[0])
        assert producer.flush(60) == 0
        stopwatch = Stopwatch()
        workers = [threading.Thread(target=work) for _ in range(load.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert producer.flush(120) == 0
        timing = stopwatch.per(load.events)
    assert producer.report.total.acked == load.events + BATCH
    return timing.cpu_ns, 1e9 / timing.wall_ns, peak_mib() - before_mib
