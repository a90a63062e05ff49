"""HTTP/2 below gRPC: lost connections, reset calls, and the statuses with which proxies and servers end calls."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from patience import patient
from scripted import Connection, tcp_server

from raccoon_fast import RAW, Producer, RetryPolicy
from raccoon_fast.collector import Collector

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113, 6 and 7
HEADERS, RST_STREAM, SETTINGS, GOAWAY = 1, 3, 4, 7
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 2, 7, 8, 11
QUICK = RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def streams(sock: socket.socket) -> Iterator[int]:
    """Greet as an HTTP/2 server; yields the stream of each request."""
    file = sock.makefile("rb")
    assert file.read(len(PREFACE)) == PREFACE
    sock.sendall(frame(SETTINGS))
    while head := file.read(9):
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        file.read(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags:
            sock.sendall(frame(SETTINGS, flags=1))
        elif kind == HEADERS:
            yield stream


def pipe(client: socket.socket, port: int) -> None:
    """Stand aside: the client speaks to the server on that port."""
    with socket.create_connection(("127.0.0.1", port)) as server:

        def answers() -> None:
            with contextlib.suppress(OSError):
                while data := server.recv(65536):
                    client.sendall(data)

        thread = threading.Thread(target=answers)
        thread.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # also where the client ended with a reset
        thread.join(patient(5))


def deliver(target: str, collector: Collector) -> int:
    """Send what must arrive; returns how often it was tried again."""
    options = {"serializer": RAW, "logger": None, "batch_events": 10, "timeout": 5.0, "retry": QUICK}
    with Producer(f"grpc://{target}", **options) as producer:
        receipts = producer.emit_many(("event", b"%d" % number) for number in range(100))
        assert producer.flush(patient(20)) == 0
    assert producer.report.total.acked == 100
    collector.wait_until(lambda it: {event.data for event in it.events} == {b"%d" % number for number in range(100)})
    assert {request.req_guid for request in collector.requests} == {receipt.req_guid for receipt in receipts}
    return producer.report.retries


@pytest.mark.parametrize("code", [NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM])
def test_calls_that_are_reset(code: int) -> None:
    with Collector() as collector:

        def script(connection: Connection) -> None:
            if connection.number:
                pipe(connection.sock, collector.grpc_port)
                return
            for count, stream in enumerate(streams(connection.sock), 1):
                connection.sock.sendall(frame(RST_STREAM, struct.pack(">I", code), stream=stream))
                if count == 12:
                    return

        with tcp_server(script) as target:
            assert deliver(target, collector) >= 1


@pytest.mark.parametrize(
    ("code", "words"), [(NO_ERROR, b"max_age"), (ENHANCE_YOUR_CALM, b"too_many_pings")], ids=["max_age", "pings"]
)
@pytest.mark.parametrize("last_stream", [0, (1 << 31) - 1], ids=["not seen", "perhaps seen"])
def test_connections_that_go_away(code: int, words: bytes, last_stream: int) -> None:
    connections = []
    with Collector() as collector:

        def script(connection: Connection) -> None:
            connections.append(connection.number)
            if connection.number > 1:
                pipe(connection.sock, collector.grpc_port)
                return
            next(streams(connection.sock))
            connection.sock.sendall(frame(GOAWAY, struct.pack(">II", last_stream, code) + words))

        with tcp_server(script) as target:
            deliver(target, collector)
    assert len(connections) >= 3


@pytest.mark.parametrize(
    "code", ["DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "UNKNOWN", "INTERNAL", "DATA_LOSS", "UNAVAILABLE"]
)
def test_calls_that_end_with_a_status(code: str) -> None:
    with Collector() as collector:
        collector.faults.status(503, grpc_code=code, times=5)
        assert deliver(collector.grpc_target, collector) >= 1
        assert collector.faults.fired["status"] == 5


def test_calls_that_run_out_of_time() -> None:
    with Collector() as collector:
        collector.faults.drop_acks(times=3)
        url = f"grpc://{collector.grpc_target}"
        with Producer(url, serializer=RAW, logger=None, timeout=0.2, retry=QUICK) as producer:
            receipt = producer.emit("event", b"x")
            assert receipt.result(patient(20)).status.name == "SUCCESS"
        assert [request.req_guid for request in collector.requests] == [receipt.req_guid] * 4
