"""Measures the time from `emit` to the acknowledgement at fixed rates, as an application sees it.

The load is open-loop: event number i is due at start + i / rate, however late the events before it are. Latency counts
from the time when the event is due, not from when the generator emitted it (no coordinated omission), until
`on_delivery` is called with its batch. The Producer has default options (linger 5 ms), events have 200 B, and the
collector runs in a separate process. Percentiles cover all events of a run; a figure is the median of the runs.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

from harness import Effort, LeftOut, Table, fresh, in_turns
from payloads import TYPE
from servers import Sink, sink

TRANSPORTS = ("WebSocket", "REST", "gRPC")
RATES = (1_000, 10_000, 100_000, 300_000)
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_SECONDS = 2.0
_WARM_UP_S = 0.5
_TICK_S = 0.0005


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    tables = []
    with sink() as server:
        for transport in effort.some(TRANSPORTS):
            table = Table(f"{transport}, from emit to acknowledgement", "ms", "events/s")
            measures = {
                f"{rate:,}": functools.partial(_measure, server, transport, rate, effort) for rate in effort.some(RATES)
            }
            for rate, runs in in_turns(effort, measures).items():
                for name, values in zip((*PERCENTILES, "achieved, %"), zip(*runs, strict=True), strict=True):
                    table.add(rate, name, values)
            tables.append(table)
    return tables


def _measure(server: Sink, transport: str, rate: int, effort: Effort) -> list[tuple[float, ...]]:
    seconds = max(0.05, _SECONDS * effort.share)
    latencies, events = fresh(_run_at, server.url(transport), rate, seconds)
    server.expect(events)
    return [latencies]


def _run_at(url: str, rate: int, seconds: float) -> tuple[tuple[float, ...], int]:
    """The percentiles in milliseconds with the achieved share of the rate, and the number of events sent."""
    from raccoon_fast import RAW, Producer

    acked_s: dict[Any, float] = {}
    done = threading.Event()

    def on_delivery(receipt: Any) -> None:
        acked_s[receipt] = time.perf_counter()
        done.set()

    with Producer(url, serializer=RAW, logger=None, on_delivery=on_delivery) as producer:
        warm_up = _emit_at(producer, rate, _WARM_UP_S)
        assert producer.flush(30) == 0
        start_s, firsts, events = _emit_at(producer, rate, seconds)
        taken_s = time.perf_counter() - start_s
        assert producer.flush(30) == 0
    # `close` has run the remaining callbacks.
    bounds = [first for _, first in firsts[1:]] + [events]
    latencies_s = [
        acked_s[receipt] - start_s - number / rate
        for (receipt, first), end in zip(firsts, bounds, strict=True)
        for number in range(first, end)
    ]
    assert len(latencies_s) == events
    latencies_s.sort()
    percentiles = [latencies_s[int(share * (events - 1))] * 1000 for share in PERCENTILES.values()]
    return (*percentiles, events / rate / taken_s * 100), events + warm_up[2]


def _emit_at(producer: Any, rate: int, seconds: float) -> tuple[float, list[tuple[Any, int]], int]:
    """When the first event was due, the receipts with the number of their first event, and the number of events."""
    emit = producer.emit
    data = bytes(200)
    total = int(rate * seconds)
    firsts = []
    last = None
    sent = 0
    start_s = time.perf_counter()
    while sent < total:
        due = min(total, 1 + int((time.perf_counter() - start_s) * rate))
        while sent < due:
            receipt = emit(TYPE, data)
            if receipt is not last:
                firsts.append((receipt, sent))
                last = receipt
            sent += 1
        time.sleep(max(_TICK_S, start_s + sent / rate - time.perf_counter()))
    return start_s, firsts, sent
