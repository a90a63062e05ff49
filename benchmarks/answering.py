"""A server in a separate process that answers a fixed number of requests at once, so that clients' work is repeatable.

It understands only what our producers send over WebSocket, REST and gRPC: small requests that begin with their guid. A
collector answers each request as it arrives, so the number of answers that a client reads at once varies between runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from servers import process
from websockets.utils import accept_key

from raccoon_fast.collector.websocket_frames import BINARY, CLOSE, FrameReader, frame
from raccoon_fast.transports.grpc import frames as http2

_GUID_AT, _GUID_SIZE = 2, 36
_ANSWER = b"\x08\x01\x10\x01\x18\x80\xe2\xcf\xaa\x06\x2a\x30\x0a\x08req_guid\x12\x24"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n"
_BLOCK = b"\x88" + http2.encode_header(b"content-type", b"application/grpc")
_TRAILERS = http2.encode_header(b"grpc-status", b"0")


@contextmanager
def answering(transport: str, together: int) -> Iterator[str]:
    """The URL of a server for one producer.

    Args:
        transport: WebSocket, REST or gRPC.
        together: The number of requests that the server collects before it answers them.
    """
    with process(_serve, transport, together) as pipe:
        yield f"{_KINDS[transport][0]}://127.0.0.1:{pipe.recv()}"


def _serve(pipe: Connection, transport: str, together: int) -> None:
    asyncio.run(_answer(pipe, transport, together))


async def _answer(pipe: Connection, transport: str, together: int) -> None:
    waiting: list[_Answer] = []
    _, kind = _KINDS[transport]
    server = await asyncio.get_running_loop().create_server(lambda: kind(waiting, together), "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    with contextlib.suppress(EOFError):
        await asyncio.to_thread(pipe.recv)


_Answer = tuple["_Connection", bytes]


class _Connection(asyncio.Protocol):
    """One connection; the answers of all connections wait in one list."""

    transport: asyncio.Transport

    def __init__(self, waiting: list[_Answer], together: int) -> None:
        self._waiting = waiting
        self._together = together
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def asked(self, request: bytes, stream: int = 0) -> None:
        """Handle a complete request."""
        answer = self.answer(_ANSWER + request[_GUID_AT : _GUID_AT + _GUID_SIZE], stream)
        self._waiting.append((self, answer))
        if len(self._waiting) == self._together:
            written: dict[_Connection, list[bytes]] = {}
            for connection, each in self._waiting:
                written.setdefault(connection, []).append(each)
            self._waiting.clear()
            for connection, answers in written.items():
                connection.transport.write(b"".join(answers))

    def answer(self, message: bytes, stream: int) -> bytes:
        raise NotImplementedError


class _WebSocket(_Connection):
    def __init__(self, waiting: list[_Answer], together: int) -> None:
        super().__init__(waiting, together)
        self._frames: FrameReader | None = None

    def data_received(self, data: bytes) -> None:
        if self._frames is None:
            self._buffer += data
            if b"\r\n\r\n" in self._buffer:
                key = self._buffer.lower().partition(b"sec-websocket-key: ")[0]
                key = self._buffer[len(key) + 19 :].partition(b"\r\n")[0]
                lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
                accepted = f"Sec-WebSocket-Accept: {accept_key(key.decode())}"
                self.transport.write("\r\n".join((*lines, accepted, "", "")).encode())
                self._frames = FrameReader(1 << 20)
            return
        self._frames.feed(data)
        while (message := self._frames.take()) is not None:
            if message.opcode == BINARY:
                self.asked(message.data)
            elif message.opcode == CLOSE:
                self.transport.write(frame(CLOSE, message.data))
                self.transport.close()

    def answer(self, message: bytes, stream: int) -> bytes:
        return frame(BINARY, message)


class _REST(_Connection):
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if end and len(body) == int(head.rpartition(b"Content-Length: ")[2]):
            self._buffer = b""
            self.asked(body)

    def answer(self, message: bytes, stream: int) -> bytes:
        return _HEAD % len(message) + message


class _GRPC(_Connection):
    def __init__(self, waiting: list[_Answer], together: int) -> None:
        super().__init__(waiting, together)
        self._frames = http2.FrameReader()
        self._has_begun = False
        self._taken = 0

    def data_received(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            data = data.removeprefix(http2.PREFACE)
            self.transport.write(http2.encode_frame(http2.SETTINGS, 0, 0))
        for kind, _, stream, payload in self._frames.feed(data):
            if kind == http2.DATA:
                self._taken += len(payload)
                self.asked(payload[5:], stream)

    def answer(self, message: bytes, stream: int) -> bytes:
        message = b"\x00" + len(message).to_bytes(4, "big") + message
        taken = self._taken if self._taken >= 1 << 14 else 0  # a quarter of the window, as in grpc-go
        self._taken -= taken
        return b"".join(
            (
                http2.encode_frame(http2.WINDOW_UPDATE, 0, 0, taken.to_bytes(4, "big")) if taken else b"",
                http2.encode_frame(http2.HEADERS, http2.END_HEADERS, stream, _BLOCK),
                http2.encode_frame(http2.DATA, 0, stream, message),
                http2.encode_frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, _TRAILERS),
            )
        )


_KINDS: dict[str, tuple[str, type[_Connection]]] = {
    "WebSocket": ("ws", _WebSocket), "REST": ("http", _REST), "gRPC": ("grpc", _GRPC),
}  # fmt: skip
