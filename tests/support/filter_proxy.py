"""A filter (a WAF, an IDS) in front of a server: refuses requests that contain certain bytes, and forwards the rest."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from patience import patient

EVIL = b"EVIL"
#: Ways to refuse, besides an HTTP status: reset the connection, close it, or forward nothing more.
RESET, CLOSE, SWALLOW = "reset", "close", "swallow"

_NO_LINGER = struct.pack("ii", 1, 0)  # makes close() reset the connection


class FilterProxy:
    """Inspects what clients send; WebSocket frames are unmasked first (RFC 6455, 5.3).

    Args:
        target_port: The server's port on this machine.
        how: RESET, CLOSE, SWALLOW, or an HTTP status.
        is_websocket: Whether clients send WebSocket frames.

    Attributes:
        port: The filter's port.
        refused: The number of refusals.
    """

    def __init__(self, target_port: int, how: str | int, *, is_websocket: bool = False) -> None:
        self.refused = 0
        self._target_port = target_port
        self._how = how
        self._is_websocket = is_websocket
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = self._start(self._accept)

    def __enter__(self) -> FilterProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._listener)
        self._accepting.join(patient(10))  # it adds no more sockets
        self._listener.close()
        for one in self._sockets:
            self._end(one)
            one.close()

    @staticmethod
    def _start(function: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                self._sockets.add(client)
                server = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets.add(server)
            except OSError:
                return
            self._start(self._pass_up, client, server)
            self._start(self._pass_down, server, client)

    def _pass_up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for chunk, plain in self._frames(client) if self._is_websocket else self._chunks(client):
                if EVIL in plain:
                    self._refuse(client)
                    break
                server.sendall(chunk)
        self._end(client, server)

    def _pass_down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(65536):
                client.sendall(chunk)
        self._end(client, server)

    def _refuse(self, client: socket.socket) -> None:
        self.refused += 1
        if self._how == RESET:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            client.close()
        elif self._how == SWALLOW:
            while client.recv(65536):
                pass
        elif self._how != CLOSE:
            client.sendall(b"HTTP/1.1 %d Refused\r\nContent-Length: 7\r\nConnection: close\r\n\r\nno way\n" % self._how)

    def _end(self, *ends: socket.socket) -> None:
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _chunks(client: socket.socket) -> Iterator[tuple[bytes, bytes]]:
        tail = b""
        while chunk := client.recv(65536):
            yield chunk, tail + chunk
            tail = chunk[-len(EVIL) :]

    @staticmethod
    def _frames(client: socket.socket) -> Iterator[tuple[bytes, bytes]]:
        with client.makefile("rb") as file:
            handshake = b""
            while not handshake.endswith(b"\r\n\r\n"):
                line = file.readline()
                if not line:
                    return
                handshake += line
            yield handshake, handshake
            while head := file.read(2):
                length = head[1] & 0x7F
                if length > 125:
                    extended = file.read(2 if length == 126 else 8)
                    head, length = head + extended, int.from_bytes(extended, "big")
                key, masked = file.read(4), file.read(length)
                pattern = int.from_bytes((key * (length // 4 + 1))[:length], "big")
                yield head + key + masked, (int.from_bytes(masked, "big") ^ pattern).to_bytes(length, "big")
