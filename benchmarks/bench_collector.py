"""How many events a second the collector takes in over WebSocket.

    python benchmarks/bench_collector.py [seconds]

A client process sends ready-made, masked frames (batches of 1000 events of 200 bytes, protobuf) over one connection, 8
unanswered at most, and does nothing else: what is measured is the collector, with the kernel, on a machine that runs
both. Each sink gets a fresh pair of processes; the rounds are interleaved and the median is shown.
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

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest

EVENTS = 1000
EVENT_BYTES = 200
IN_FLIGHT = 8
ROUNDS = 5


def masked_frame(payload: bytes) -> bytes:
    key = os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return struct.pack("!BBQ", 0x82, 0xFF, len(payload)) + key + masked.to_bytes(len(payload), "big")


def frames() -> list[bytes]:
    events = [{"type": "page", "event_bytes": os.urandom(EVENT_BYTES)} for _ in range(EVENTS)]
    requests = (SendEventRequest(req_guid=f"{i:036}", events=events) for i in range(16))
    return [masked_frame(request.SerializeToString()) for request in requests]


def serve(pipe: Connection, sink: str) -> None:
    with Collector(sink=sink) as collector:
        pipe.send(collector.port)
        pipe.recv()
        pipe.send(collector.event_count)


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


def measure(sink: str, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, sink))
    server.start()
    events, took = send(ours.recv(), seconds)
    ours.send(None)
    received = ours.recv()
    server.join()
    assert received == events, f"{received} of {events} events came"
    return events / took


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    rates: dict[str, list[float]] = {"null": [], "memory": []}
    for _ in range(ROUNDS):
        for sink, measured in rates.items():
            measured.append(measure(sink, seconds))
    print(f"batches of {EVENTS} events of {EVENT_BYTES} B, protobuf over WebSocket, {IN_FLIGHT} in flight")
    for sink, measured in rates.items():
        print(f"  sink {sink:6}  {statistics.median(measured):>11,.0f} events/s")


if __name__ == "__main__":
    main()
