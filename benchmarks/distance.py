"""Measures how much a Producer sends to a distant server, by default and with a fixed number of batches in flight.

A proxy in a separate process delays every byte by half of the round trip; it uses CPU of the same machine. `emit_many`
emits events of 200 B as fast as the producer accepts them. Acknowledged events are counted after the connections have
come up to speed, in several rounds of one process.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

from harness import Effort, LeftOut, Stopwatch, Table, fresh, in_turns
from servers import far, sink

ROUND_TRIPS_MS = (0, 10, 100, 300)
BATCH = 1000
#: Options of the producer, by column.
WAYS: dict[str, dict[str, int]] = {
    "1 connection": {},
    "4 connections": {"connections": 4},
    "1 connection, max_in_flight=8": {"max_in_flight": 8},
}
TRANSPORTS = ("REST", "WebSocket", "gRPC")
_SPEED_UP_S, _SPEED_UP_ROUND_TRIPS = 1.0, 12
_ROUNDS, _ROUND_S = 3, 0.6


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    tables = []
    with sink() as server:
        for transport in TRANSPORTS:
            rate = Table(f"{transport}, by round trip", "events/s", "round trip, ms")
            cpu = Table(f"{transport}, by round trip", "ns of CPU per event", "round trip, ms", is_detail=True)
            for round_trip_ms in ROUND_TRIPS_MS[:2] if effort.is_quick else ROUND_TRIPS_MS:
                measures = {
                    way: functools.partial(_measure, server.url(transport), round_trip_ms / 1000.0, options, effort)
                    for way, options in WAYS.items()
                }
                for way, measured in in_turns(replace(effort, processes=1), measures).items():
                    rates, cpus = zip(*measured, strict=True)
                    rate.add(f"{round_trip_ms}", way, rates)
                    cpu.add(f"{round_trip_ms}", way, cpus)
            tables += [rate, cpu]
    return tables


def _measure(url: str, round_trip_s: float, options: dict[str, int], effort: Effort) -> list[tuple[float, float]]:
    parts = urlsplit(url)
    assert parts.port is not None
    with far(parts.port, round_trip_s) as port:
        where = parts._replace(netloc=f"127.0.0.1:{port}").geturl()
        return fresh(_send, where, round_trip_s, options, effort.share)


def _send(url: str, round_trip_s: float, options: dict[str, int], share: float) -> list[tuple[float, float]]:
    from raccoon_fast import RAW, ClientClosedError, Producer

    events = [("event", bytes(200))] * BATCH
    is_over = threading.Event()

    def work() -> None:
        with contextlib.suppress(ClientClosedError):
            while not is_over.is_set():
                producer.emit_many(events)

    measured = []
    with Producer(url, serializer=RAW, logger=None, **options) as producer:
        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(_SPEED_UP_S * share + _SPEED_UP_ROUND_TRIPS * round_trip_s)
        for _ in range(_ROUNDS):
            stopwatch, before = Stopwatch(), producer.report.total.acked
            time.sleep(max(_ROUND_S * share, 2.0 * round_trip_s, _SPEED_UP_S / 10.0))
            timing = stopwatch.per(max(producer.report.total.acked - before, 1))
            measured.append((1e9 / timing.wall_ns, timing.cpu_ns))
        is_over.set()
        report = producer.close(0)  # waiting would take as long as the simulated distance
        worker.join()
    total = report.total
    assert {*total.failed} <= {"closed"}, total
    assert not total.dropped, total
    assert not total.expired, total
    return measured
