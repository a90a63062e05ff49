"""Servers that follow a test's script exactly, for behaviour that real servers do not show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from patience import patient
from websockets.http11 import Request as HandshakeRequest
from websockets.server import ServerProtocol
from websockets.sync.server import serve

import raccoon_fast
from raccoon_fast.collector.sockets import LINGER_ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.frames import Frame

_desc = Path(raccoon_fast.__file__).parent / "collector" / "raccoon.desc"
_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(_desc.read_bytes()).file:
    _pool.Add(_file)


def _message(name: str):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"raystack.raccoon.v1beta1.{name}"))


SendEventRequest = _message("SendEventRequest")
SendEventResponse = _message("SendEventResponse")


def answer(req_guid: str | None, *, status: int = 1, code: int = 1, reason: str = "") -> bytes:
    """A Raccoon server's answer as protobuf; with None as guid it has no data map."""
    data = {} if req_guid is None else {"req_guid": req_guid}
    response = SendEventResponse(status=status, code=code, sent_time=1_700_000_000, reason=reason, data=data)
    return response.SerializeToString()


async def ended(attempt):
    """The result of an attempt: its answer, or the exception that it raises."""
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    attempt.add_done_callback(lambda _: end.set_result(None))
    await end
    return attempt.result()


class Connection:
    """One accepted TCP connection for HTTP scripts. `number` counts connections from 0 in the order of accept."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._buffer = b""

    def read_head(self) -> tuple[bytes, dict[bytes, bytes]]:
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        return lines[0], {k.lower(): v for k, _, v in (line.partition(b": ") for line in lines[1:])}

    def read_request(self) -> tuple[dict[bytes, bytes], bytes]:
        """The headers and body of the next request."""
        _, headers = self.read_head()
        length = int(headers.get(b"content-length", b"0"))
        while len(self._buffer) < length:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._buffer += data
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return headers, body

    def read_message(self):
        return SendEventRequest.FromString(self.read_request()[1])

    def respond(self, body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> None:
        self.sock.sendall(
            b"HTTP/1.1 %s\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n%s\r\n%s"
            % (status, len(body), headers, body)
        )

    def wait_closed(self) -> None:
        """Wait until the client closes the connection."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self.sock.close()


@contextlib.contextmanager
def tcp_server(script: Callable[[Connection], None]) -> Iterator[str]:
    """Run `script` in a separate thread for each connection; yields host:port."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def run(connection: Connection) -> None:
        with contextlib.suppress(OSError, EOFError):
            script(connection)
        connection.sock.close()

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(sock)
            thread = threading.Thread(target=run, args=(Connection(sock, len(threads)),))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # close() alone does not wake a blocked accept().
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(patient(5))
        for sock in open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(patient(5))
            assert not thread.is_alive(), "a script hangs"


@contextlib.contextmanager
def websocket_server(script: Callable[..., None], **options: object) -> Iterator[str]:
    """Run `script(websocket, number)` in a separate thread for each WebSocket; yields ws://host:port."""
    numbers = iter(range(1_000_000))

    def handler(websocket) -> None:
        with contextlib.suppress(Exception):
            script(websocket, next(numbers))

    with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(patient(5))


def speak_websocket(
    connection: Connection,
    received: Callable[[Frame, ServerProtocol], None],
    write: Callable[[bytes], None] | None = None,
) -> None:
    """Act as a WebSocket server byte by byte: `received` gets each frame and may answer by protocol or socket."""
    protocol = ServerProtocol()
    write = write or connection.sock.sendall
    while True:
        data = connection.sock.recv(65536)
        if not data:
            return
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, HandshakeRequest):
                protocol.send_response(protocol.accept(event))
            else:
                received(event, protocol)
        for reply in protocol.data_to_send():
            if not reply:
                return
            write(reply)


def guid_of(frame: bytes) -> str:
    return SendEventRequest.FromString(frame).req_guid
