"""HTTP/2 servers for tests: a strict one based on the library h2, and one that sends whatever a test wants."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from scripted import Connection, SendEventRequest, answer, tcp_server

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# :status 200, and grpc-status "0" as a literal (RFC 7541, appendix A and 6.2.2)
BLOCK = b"\x88\x00\x0ccontent-type\x10application/grpc"
TRAILERS = b"\x00\x0bgrpc-status\x010"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def message(body: bytes, *, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


@dataclass
class Call:
    """A complete request."""

    peer: Peer
    stream: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def request(self) -> Any:
        flag, size = struct.unpack_from(">BI", self.body)
        assert (flag, size) == (0, len(self.body) - 5)
        return SendEventRequest.FromString(self.body[5:])

    def respond(self, status: int = 0, details: str = "", body: bytes | None = None) -> None:
        h2_connection = self.peer.h2
        h2_connection.send_headers(self.stream, HEAD)
        if status == 0:
            h2_connection.send_data(self.stream, message(answer(self.request.req_guid)) if body is None else body)
        trailers = [("grpc-status", str(status)), ("grpc-message", details)]
        h2_connection.send_headers(self.stream, trailers, end_stream=True)


@dataclass
class Peer:
    """One connection of the strict server."""

    connection: Connection
    h2: h2.connection.H2Connection
    #: Bytes by which the windows are reopened at a time; None reopens them for all received bytes at once.
    trickle: int | None = None
    open_streams: int = 0
    most_streams: int = 0
    resets: list[int] = field(default_factory=list)

    def flush(self) -> None:
        self.connection.sock.sendall(self.h2.data_to_send())


def _open_windows(peer: Peer, event: h2.events.DataReceived) -> None:
    left = event.flow_controlled_length
    step = peer.trickle or left
    while left:
        more = min(step, left)
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            peer.h2.acknowledge_received_data(more, event.stream_id)
        peer.flush()
        left -= more


@contextlib.contextmanager
def strict_server(
    on_call: Callable[[Call], None] = Call.respond,
    settings: dict[int, int] | None = None,
    trickle: int | None = None,
    on_event: Callable[[Peer, Any], None] | None = None,
) -> Iterator[tuple[str, list[Peer]]]:
    """Yields host:port and the server's connections. At the end it fails if a client has violated HTTP/2.

    Args:
        on_call: Called for each complete request, in the connection's thread.
        settings: Initial settings in addition to h2's own.
        trickle: See Peer.
        on_event: Called with every event of h2 before it is handled.
    """
    peers: list[Peer] = []
    faults: list[Exception] = []
    lock = threading.Lock()

    def script(connection: Connection) -> None:
        strict = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="ascii"))
        if settings is not None:
            strict.local_settings = h2.settings.Settings(client=False, initial_values=settings)
            strict.max_inbound_frame_size = strict.local_settings.max_frame_size
        strict.initiate_connection()
        peer = Peer(connection, strict, trickle)
        with lock:
            peers.append(peer)
        peer.flush()
        calls: dict[int, Call] = {}
        while data := connection.sock.recv(65536):
            try:
                events = strict.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                faults.append(error)
                return
            for event in events:
                if on_event is not None:
                    on_event(peer, event)
                if isinstance(event, h2.events.RequestReceived):
                    calls[event.stream_id] = Call(peer, event.stream_id, list(event.headers), b"")
                    peer.open_streams += 1
                    peer.most_streams = max(peer.most_streams, peer.open_streams)
                elif isinstance(event, h2.events.DataReceived):
                    calls[event.stream_id].body += event.data
                    _open_windows(peer, event)
                elif isinstance(event, h2.events.StreamEnded):
                    on_call(calls[event.stream_id])
                    peer.open_streams -= 1
                elif isinstance(event, h2.events.StreamReset):
                    peer.resets.append(event.error_code)
                    peer.open_streams -= 1
            peer.flush()

    with tcp_server(script) as target:
        yield target, peers
    assert faults == []


def greet(connection: Connection, settings: bytes = b"") -> None:
    """Act as a server without h2: read the preface, send SETTINGS."""
    read(connection, len(PREFACE))
    connection.sock.sendall(frame(SETTINGS, settings))


def read(connection: Connection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_frame(connection: Connection) -> tuple[int, int, int, bytes]:
    """The type, flags, stream and payload of the next frame."""
    head = read(connection, 9)
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    return kind, flags, stream, read(connection, int.from_bytes(head[:3], "big"))


def read_call(connection: Connection) -> tuple[int, str]:
    """The stream and guid of the next request."""
    bodies: dict[int, bytes] = {}
    while True:
        kind, flags, stream, payload = read_frame(connection)
        if kind == DATA:
            bodies[stream] = bodies.get(stream, b"") + payload
            if flags & 1:
                return stream, SendEventRequest.FromString(bodies[stream][5:]).req_guid
