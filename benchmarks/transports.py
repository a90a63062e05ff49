"""Sends batches to a collector that counts and discards them: this package, and typical code with other libraries.

The figures are user and system time of the whole client process, from the events until their acknowledgement. The
collector runs in a separate process, and its count proves that every event arrived. "Go" is a client in Go that works
like Raccoon's own. "sendall" is the floor: a blocking socket writes the same bytes, encoded in advance, to a process
that discards them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import clients
import go_program
from harness import Effort, LeftOut, Stopwatch, Table, Timing, fresh, in_turns
from payloads import FLIGHTS, SIZES, events_of
from servers import Sink, discarder, sink

WORKLOADS = (
    ("200 B", 1000),
    ("200 B", 100),
    ("200 B", 10),
    ("200 B", 1),
    *((size, 1000) for size in SIZES if size not in ("200 B", "10 kB")),
    ("10 kB", 100),
    *((flights, 1000) for flights in FLIGHTS),
)
AIMED_AT = WORKLOADS[:4]
OURS, OURS_ASYNC, FLOOR = "raccoon_fast Producer", "raccoon_fast AsyncProducer", "sendall (floor)"
SUBMIT = "raccoon_fast client, submit"
GO = "Go"


class Client(NamedTuple):
    """A way to send events.

    Attributes:
        opened: The function in the module `clients` that opens it.
        package: The package that it needs; "" if that is always installed.
        is_variant: Whether it runs only with the first workload.
    """

    opened: Callable[..., Any]
    package: str = ""
    is_variant: bool = False


_OURS = {
    OURS: Client(clients.producer),
    OURS_ASYNC: Client(clients.async_producer),
    SUBMIT: Client(clients.submit),
    FLOOR: Client(clients.sendall),
}
CLIENTS: dict[str, dict[str, Client]] = {
    "REST": {
        **_OURS,
        "httpx": Client(clients.httpx, "httpx"),
        "aiohttp": Client(clients.aiohttp, "aiohttp"),
        "requests": Client(clients.requests, "requests"),
        GO: Client(go_program.running),
        "httpx, on uvloop": Client(clients.on_uvloop(clients.httpx), "httpx", is_variant=True),
        "aiohttp, on uvloop": Client(clients.on_uvloop(clients.aiohttp), "aiohttp", is_variant=True),
    },
    "WebSocket": {
        **_OURS,
        "websockets": Client(clients.websockets, "websockets"),
        "picows": Client(clients.picows, "picows"),
        GO: Client(go_program.running),
        "websockets, on uvloop": Client(clients.on_uvloop(clients.websockets), "websockets", is_variant=True),
        "picows, on uvloop": Client(clients.on_uvloop(clients.picows), "picows", is_variant=True),
    },
    "gRPC": {
        **_OURS,
        "grpc.aio": Client(clients.grpc_aio, "grpc"),
        GO: Client(go_program.running),
        "grpc.aio, ready bytes": Client(clients.grpc_aio_ready_bytes, "grpc"),
    },
}
# Requests until a client is connected, and as many again to measure the time per request. Then whole runs warm it up:
# at least one, because memory is new, and one second of them for workloads with aims, because kernel time still falls.
_WARM_UP = 16
_WARM_S = 1.0
_RUNS = 2
_RUN_S = 0.2
_MOST_REQUESTS = 4000


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    tables = []
    with sink() as server, discarder() as address, go_program.built() as executable:
        if executable is None:
            left_out.notes.append("Go or a library of its client is not installed, so the client in Go is left out.")
        for transport, all_clients in CLIENTS.items():
            here = {
                name: client
                for name, client in all_clients.items()
                if (not client.package or left_out.find(client.package, client.package)) and (executable or name != GO)
            }
            url = server.url(transport)
            where = dict.fromkeys(here, url) | {FLOOR: address, GO: (executable, transport, url)}
            cpu = Table(f"{transport}, until the acknowledgement", "ns of CPU per event", "client", OURS)
            rate = Table(f"{transport}, until the acknowledgement", "events/s", "client", OURS)
            for workload in effort.some(WORKLOADS):
                measures = {
                    name: functools.partial(_measure, server, where[name], transport, name, workload, effort)
                    for name, client in here.items()
                    if workload == WORKLOADS[0] or not client.is_variant
                }
                turns = effort if workload in AIMED_AT else replace(effort, processes=min(2, effort.processes))
                payload, batch = workload
                for name, timings in in_turns(turns, measures).items():
                    cpu.add(name, f"{payload} x {batch:,}", [timing.cpu_ns for timing in timings])
                    rate.add(name, f"{payload} x {batch:,}", [1e9 / timing.wall_ns for timing in timings])
            tables += [cpu, rate]
    return tables


def _measure(
    server: Sink, where: Any, transport: str, name: str, workload: tuple[str, int], effort: Effort
) -> list[Timing]:
    timings, events = fresh(_time_client, transport, name, where, workload, effort)
    if name != FLOOR:
        server.expect(events)
    return timings


def _time_client(
    transport: str, name: str, where: Any, workload: tuple[str, int], effort: Effort
) -> tuple[list[Timing], int]:
    """The timings of runs in a separate process, and the number of events that it sent in all."""
    payload, batch = workload
    timings = []
    with CLIENTS[transport][name].opened(where, events_of(payload, batch)) as send:
        send(_WARM_UP)
        start_s = time.perf_counter()
        send(_WARM_UP)
        request_s = (time.perf_counter() - start_s) / _WARM_UP
        requests = effort.count(min(_MOST_REQUESTS, max(_WARM_UP, int(_RUN_S / request_s))))
        sent = 2 * _WARM_UP
        warm_s = _WARM_S * effort.share if workload in AIMED_AT else 0.0
        while sent == 2 * _WARM_UP or time.perf_counter() - start_s < warm_s:
            send(requests)
            sent += requests
        for _ in range(_RUNS):
            stopwatch = Stopwatch(getattr(send, "cpu_ns", time.process_time_ns))
            send(requests)
            timings.append(stopwatch.per(requests * batch))
    return timings, (sent + _RUNS * requests) * batch
