"""DATA frames bypass h2, and all other frames do not."""

from __future__ import annotations

import socket
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf.message import Message

from raccoon_fast.collector.grpc_frames import FrameSplitter
from raccoon_fast.collector.messages import SendEventRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/raystack.raccoon.v1beta1.EventService/SendEvent"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("x-user-id", "u"),
]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def test_frames_are_recognized_wherever_they_are_split() -> None:
    settings, ping = frame(4, 0, 0), frame(6, 0, 0, bytes(8))
    head, more, other = frame(1, 0, 3, b"h"), frame(9, 4, 3, b"m"), frame(1, 4, 1, b"h")
    data, last, padded = frame(0, 0, 1, b"abc"), frame(0, 1, 1, b"de"), frame(0, 8, 1, b"\1x\0")
    unknown, empty = frame(0, 0, 5, b"for h2"), frame(0, 1, 1)
    for_h2 = [PREFACE, settings, other, padded, head, more, ping, unknown, empty, last[:0] + b"\0\0\0" + last[3:9]]
    # Between the parts of a block of headers a DATA frame is an error, which h2 finds.
    wire = PREFACE + settings + other + data + padded + head + data + more + ping + unknown + empty + data + last
    for size in (1, 2, 7, 10, 100, len(wire)):
        splitter = FrameSplitter({1})
        parts = [it for at in range(0, len(wire), size) for it in splitter.split(wire[at : at + size])]
        assert [(bytes(part), is_last) for stream_id, part, is_last in parts if stream_id] == [
            (b"abc", False),
            (b"abc", False),
            (b"de", True),
        ]
        seen = b"".join(bytes(part) for stream_id, part, _ in parts if not stream_id)
        assert seen == b"".join(for_h2[:5]) + data + b"".join(for_h2[5:])


def test_a_frame_that_is_too_large_is_h2_s() -> None:
    splitter = FrameSplitter({1})
    start = (16385).to_bytes(3, "big") + bytes([0, 0, 0, 0, 0, 1])
    assert [(it, bytes(part)) for it, part, _ in splitter.split(PREFACE + start + b"x")] == [
        (0, PREFACE + start + b"x")
    ]


class Client:
    """A client by h2 itself, which keeps to the windows and complains of what breaks HTTP/2."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self._received = bytearray()

    @property
    def kinds(self) -> set[int]:
        """The kinds of all frames that came: h2 says nothing of those on streams that have ended."""
        kinds, at = set(), 0
        while at < len(self._received):
            kinds.add(self._received[at + 3])
            at += 9 + int.from_bytes(self._received[at : at + 3], "big")
        return kinds

    def call(self, message: Message, *, is_last_empty: bool, has_length: bool = False) -> list[h2.events.Event]:
        """What comes until the call's end, and until a ping after it is answered."""
        stream_id = self._h2.get_next_available_stream_id()
        body = message.SerializeToString()
        body = b"\0" + len(body).to_bytes(4, "big") + body
        length = [("content-length", str(len(body)))] if has_length else []
        self._h2.send_headers(stream_id, [*HEADERS, *length])
        self.events = []
        while body:
            size = min(len(body), self._h2.local_flow_control_window(stream_id), 16384)
            if not size:
                self._read()
                continue
            self._h2.send_data(stream_id, body[:size], end_stream=size == len(body) and not is_last_empty)
            body = body[size:]
            self._socket.sendall(self._h2.data_to_send())
        if is_last_empty:
            self._h2.end_stream(stream_id)
        self._h2.ping(bytes(8))
        while not self._has(h2.events.StreamEnded) or not self._has(h2.events.PingAckReceived):
            self._read()
        return self.events

    def _has(self, kind: type[h2.events.Event]) -> bool:
        return any(isinstance(it, kind) for it in self.events)

    def _read(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
        data = self._socket.recv(65536)
        assert data, "the connection was closed"
        self._received += data
        self.events += self._h2.receive_data(data)


@pytest.mark.slow
@pytest.mark.parametrize("is_last_empty", [False, True])
@pytest.mark.parametrize("acks", ["async", "sync"])
def test_windows_open_again_and_streams_end_in_order(
    acks: str, is_last_empty: bool, peer: Any, new_collector: Any
) -> None:
    collector = new_collector(acks=acks, sink="null")
    client = Client(peer.tcp(collector.grpc_port))
    for size in (0, 10, 17_000, 3_000_000, *[300_000] * 80):  # in all more than the connection's window
        message = SendEventRequest(req_guid="g", events=[{"type": "t", "event_bytes": bytes(size)}])
        events = client.call(message, is_last_empty=is_last_empty)
        trailers = next(dict(it.headers) for it in events if isinstance(it, h2.events.TrailersReceived))
        assert trailers[b"grpc-status"] == b"0"
    assert collector.event_count == 84
    # No GOAWAY, and no RST_STREAM but where the answer came before the client ended its call.
    assert client.kinds - ({3} if is_last_empty else set()) == {0, 1, 4, 6, 8}


@pytest.mark.parametrize("is_last_empty", [False, True])
def test_a_request_with_a_content_length(is_last_empty: bool, peer: Any, new_collector: Any) -> None:
    """A proxy that buffers the whole request sends one, such as Envoy with its buffer filter."""
    collector = new_collector(acks="sync", sink="null")
    client = Client(peer.tcp(collector.grpc_port))
    for size in (10, 40_000, 300_000):
        message = SendEventRequest(req_guid="g", events=[{"type": "t", "event_bytes": bytes(size)}])
        events = client.call(message, is_last_empty=is_last_empty, has_length=True)
        trailers = next(dict(it.headers) for it in events if isinstance(it, h2.events.TrailersReceived))
        assert trailers[b"grpc-status"] == b"0"
    assert collector.event_count == 3
