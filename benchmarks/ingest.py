"""Measures how many events per second the embedded collector receives over WebSocket: the upper limit of other results.

A client process writes prepared, masked frames over one connection, with at most eight unanswered, and does nothing
else. Batches have 1,000 events of 200 B. The sink "null" counts and discards events; "memory" keeps them.
"""

from __future__ import annotations

import functools
import os
import socket
import struct

from harness import Effort, LeftOut, Stopwatch, Table, fresh, in_turns
from payloads import GUID, events_of, google_request
from servers import sink

BATCH = 1000
IN_FLIGHT = 8
_REQUESTS = 1500
_ANSWER_BYTES = 2 + 60  # the frame's header, and an answer with a guid of 36 characters


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    table = Table("The collector, over WebSocket", "events/s", "sink")
    measures = {kind: functools.partial(_measure, kind, effort) for kind in ("null", "memory")}
    for kind, rates in in_turns(effort, measures).items():
        table.add(kind, "200 B x 1,000", rates)
    return [table]


def _measure(kind: str, effort: Effort) -> list[float]:
    requests = effort.count(_REQUESTS)
    with sink(kind) as server:
        wall_ns = fresh(_send, server.websocket_url, requests)
        server.expect(requests * BATCH)
    return [1e9 / wall_ns]


def _send(url: str, requests: int) -> float:
    host, _, port = url.removeprefix("ws://").rpartition(":")
    frame = _masked_frame(google_request(GUID, events_of("200 B", BATCH)))
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        stopwatch = Stopwatch()
        acked_bytes = 0
        for sent in range(requests):
            while sent - acked_bytes // _ANSWER_BYTES >= IN_FLIGHT:
                acked_bytes += len(connection.recv(65536))
            connection.sendall(frame)
        while acked_bytes < requests * _ANSWER_BYTES:
            acked_bytes += len(connection.recv(65536))
        return stopwatch.per(requests * BATCH).wall_ns


def _masked_frame(payload: bytes) -> bytes:
    key = os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return struct.pack("!BBQ", 0x82, 0xFF, len(payload)) + key + masked.to_bytes(len(payload), "big")
