"""gRPC cases that the recorded requests do not cover, sent by a client that writes HTTP/2 itself."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from raccoon_fast.collector import Collector, grpc_connection
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/raystack.raccoon.v1beta1.EventService/SendEvent"),
    ("content-type", "application/grpc"),
    ("x-user-id", "u"),
]


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[Any] = []
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def until(self, kind: type[h2.events.Event]) -> Any:
        """The next event of a kind; that the connection ended is a ConnectionError."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError
            self.events = self.h2.receive_data(data)
            with contextlib.suppress(ConnectionError):  # the server may have said its last and left
                self.flush()


@pytest.fixture
def connect(peer: Any) -> Callable[[Collector], Client]:
    return lambda collector: Client(peer.tcp(collector.grpc_port))


def test_too_many_pings_end_the_connection(connect: Any, new_collector: NewCollector) -> None:
    client = connect(new_collector())
    for _ in range(4):
        client.h2.ping(b"12345678")
    client.flush()
    event = client.until(h2.events.ConnectionTerminated)
    assert (event.error_code, event.additional_data) == (11, b"too_many_pings")


def test_a_client_that_leaves_with_its_request_is_heard(
    connect: Any, new_collector: NewCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer has no recipient any more, and nothing fails because of that."""
    collector = new_collector()
    client = connect(collector)
    request = SendEventRequest(req_guid="1", events=[{"type": "page", "event_bytes": b"{}"}]).SerializeToString()
    client.h2.send_headers(1, HEADERS)
    client.h2.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
    client.h2.close_connection()
    client.flush()
    collector.wait_for(1)
    while client.socket.recv(65536):  # until the server leaves too
        pass
    assert caplog.messages == []


@pytest.mark.parametrize("timeout", ["100m", "0S"])
def test_half_a_message_ends_with_the_deadline(timeout: str, connect: Any, new_collector: NewCollector) -> None:
    client = connect(new_collector())
    client.h2.send_headers(1, [*HEADERS, ("grpc-timeout", timeout)])
    client.h2.send_data(1, b"\0\0\0\0\x09half")
    client.flush()
    headers = dict(client.until(h2.events.ResponseReceived).headers)
    assert (headers[":status"], headers["grpc-status"]) == ("200", "4")


def test_half_a_message_without_a_deadline_is_bounded_in_time(
    connect: Any, new_collector: NewCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_connection, "_MESSAGE_S", 0.1)
    client = connect(new_collector())
    client.h2.send_headers(1, HEADERS)
    client.flush()
    assert dict(client.until(h2.events.ResponseReceived).headers)["grpc-status"] == "4"


def test_a_client_that_says_nothing_is_bounded_in_time(
    peer: Any, new_collector: NewCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_connection, "_PREFACE_S", 0.1)
    connection = peer.tcp(new_collector().grpc_port)
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):  # the server's preface, then the end; else a TimeoutError
            pass


def test_an_answer_waits_for_the_client_s_window(connect: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    collector.faults.bad_answer(b"x" * 200_000)
    client = connect(collector)
    client.h2.send_headers(1, HEADERS)
    client.h2.send_data(1, b"\0\0\0\0\0", end_stream=True)
    client.flush()
    size = 0
    while size < 5 + 200_000:
        event = client.until(h2.events.DataReceived)
        size += len(event.data)
        client.h2.acknowledge_received_data(event.flow_controlled_length, 1)
        client.flush()


def test_a_call_that_is_cancelled_leaves_the_others(peer: Any, connect: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", publish_delay=0.2)
    client = connect(collector)
    for stream_id in (1, 3):
        client.h2.send_headers(stream_id, HEADERS)
        client.h2.send_data(stream_id, b"\0\0\0\0\0", end_stream=True)
    client.flush()
    collector.wait_until(lambda it: it.request_count == 2)
    client.h2.reset_stream(1)
    client.flush()
    assert client.until(h2.events.TrailersReceived).stream_id == 3
    assert peer.call(collector).code == 1


def test_compressed_messages_are_unimplemented(peer: Any, new_collector: NewCollector) -> None:
    with grpc.insecure_channel(new_collector().grpc_target, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary(dict(HEADERS)[":path"])
        with pytest.raises(grpc.RpcError) as caught:
            call(peer.request(events=100), metadata=[("x-user-id", "u")], timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
