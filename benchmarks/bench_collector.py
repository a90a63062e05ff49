"""How many events a second the collector takes in over WebSocket.

    python benchmarks/bench_collector.py [seconds]

A client process sends ready-made, masked frames (batches of 1000 events of 200 bytes, protobuf) over one connection, 8
unanswered at most, and does nothing else: what is measured is the collector, with the kernel, on a machine that runs
both. Each set of options gets a fresh pair of processes; the rounds are interleaved. Shown are medians: events a
second, the CPU time the collector's process spends on an event, and the ratio of that to the first set's of the same
round, which says more than the rate on a machine that others use.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import struct
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest

EVENTS = 1000
EVENT_BYTES = 200
TYPES = ("page", "click", "search")
IN_FLIGHT = 8
ROUNDS = 5
OPTIONS: dict[str, dict[str, Any]] = {
    "null": {"sink": "null"},
    "null, inspected": {"sink": "null", "inspect": True},
    "memory": {"sink": "memory"},
}


def masked_frame(payload: bytes) -> bytes:
    key = os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return struct.pack("!BBQ", 0x82, 0xFF, len(payload)) + key + masked.to_bytes(len(payload), "big")


def frames() -> list[bytes]:
    events = [{"type": TYPES[i % len(TYPES)], "event_bytes": os.urandom(EVENT_BYTES)} for i in range(EVENTS)]
    requests = (SendEventRequest(req_guid=f"{i:036}", events=events) for i in range(16))
    return [masked_frame(request.SerializeToString()) for request in requests]


def serve(pipe: Connection, options: dict[str, Any]) -> None:
    with Collector(**options) as collector:
        start_s = time.process_time()
        pipe.send(collector.port)
        pipe.recv()
        pipe.send((collector.event_count, time.process_time() - start_s))


def send(port: int, seconds: float) -> tuple[int, float]:
    """Events acknowledged, and the seconds that took."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        ready = frames()
        sent = acked_bytes = 0
        ack_bytes = 2 + 60  # the header, and an answer with a guid of 36 characters
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            while sent - acked_bytes // ack_bytes < IN_FLIGHT:
                connection.sendall(ready[sent % len(ready)])
                sent += 1
            acked_bytes += len(connection.recv(65536))
        while acked_bytes < sent * ack_bytes:
            acked_bytes += len(connection.recv(65536))
        return sent * EVENTS, time.perf_counter() - start


def measure(options: dict[str, Any], seconds: float) -> tuple[float, float]:
    """Events a second, and the collector's CPU seconds an event."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, options))
    server.start()
    events, took = send(ours.recv(), seconds)
    ours.send(None)
    received, cpu_s = ours.recv()
    server.join()
    assert received == events, f"{received} of {events} events came"
    return events / took, cpu_s / events


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    rounds = [[measure(options, seconds) for options in OPTIONS.values()] for _ in range(ROUNDS)]
    print(f"batches of {EVENTS} events of {EVENT_BYTES} B, protobuf over WebSocket, {IN_FLIGHT} in flight")
    for index, name in enumerate(OPTIONS):
        rate = statistics.median(measured[index][0] for measured in rounds)
        cpu_ns = statistics.median(measured[index][1] for measured in rounds) * 1e9
        ratio = statistics.median(measured[index][1] / measured[0][1] for measured in rounds)
        print(f"  sink {name:16}  {rate:>11,.0f} events/s  {cpu_ns:5.0f} ns CPU an event  {ratio:5.3f}")


if __name__ == "__main__":
    main()
