"""The servers, each in a separate process: a collector that counts and drops events, and a socket that discards bytes.

Also has a proxy that simulates a long distance to a port of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from harness import CONTEXT

from raccoon_fast.collector import Collector


class Sink:
    """A collector in another process, with the number of events that it received."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.rest_url, self.websocket_url, self.grpc_url = pipe.recv()
        self._expected = 0

    def url(self, transport: str) -> str:
        """The URL for a producer."""
        return {"REST": self.rest_url, "WebSocket": self.websocket_url, "gRPC": self.grpc_url}[transport]

    def expect(self, events: int) -> None:
        """Assert that exactly this many events arrived since the last call."""
        self._expected += events
        self._pipe.send(self._expected)
        received = self._pipe.recv()
        assert received == self._expected, f"{received} of {self._expected} events came"


@contextmanager
def sink(kind: str = "null") -> Iterator[Sink]:
    """Start a collector with the sink `kind`."""
    with process(_collect, kind) as pipe:
        yield Sink(pipe)


@contextmanager
def discarder() -> Iterator[tuple[str, int]]:
    """The address of a socket that reads and discards everything; it serves one connection after the other."""
    with process(_discard) as pipe:
        yield pipe.recv()


@contextmanager
def far(port: int, round_trip_s: float) -> Iterator[int]:
    """The port of a proxy to a port of this machine that delays all bytes by half of the round trip in each direction.

    Its bandwidth is unlimited: bytes never wait for other bytes.
    """
    with process(_delay, port, round_trip_s / 2.0) as pipe:
        yield pipe.recv()


@contextmanager
def process(target: object, *args: object) -> Iterator[Connection]:
    """Run `target` in a process that ends when its pipe closes; the pipe is its first argument."""
    ours, theirs = CONTEXT.Pipe()
    started = CONTEXT.Process(target=target, args=(theirs, *args))
    started.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # this ends the process
        started.join(10)
        started.kill()


def _collect(pipe: Connection, kind: str) -> None:
    with Collector(sink=kind) as collector:
        pipe.send((collector.url, collector.ws_url, f"grpc://{collector.grpc_target}"))
        with contextlib.suppress(EOFError):
            while True:
                expected = pipe.recv()
                with contextlib.suppress(TimeoutError):
                    collector.wait_for(expected, timeout=30)
                pipe.send(collector.event_count)


def _discard(pipe: Connection) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_read, args=(server,), daemon=True).start()
    pipe.send(server.getsockname())
    with contextlib.suppress(EOFError):
        pipe.recv()


def _read(server: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    while True:
        connection, _ = server.accept()
        with connection:
            while connection.recv_into(buffer):
                pass


def _delay(pipe: Connection, port: int, delay_s: float) -> None:
    asyncio.run(_relay(pipe, port, delay_s))


async def _relay(pipe: Connection, port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()

    def accepted() -> asyncio.Protocol:
        client, server = _Way(delay_s), _Way(delay_s)
        client.other, server.other = server, client
        client.connecting = asyncio.ensure_future(loop.create_connection(lambda: server, "127.0.0.1", port))
        return client

    listener = await loop.create_server(accepted, "127.0.0.1", 0)
    pipe.send(listener.sockets[0].getsockname()[1])
    with contextlib.suppress(EOFError):
        await asyncio.to_thread(pipe.recv)


class _Way(asyncio.Protocol):
    """One end of a connection: received bytes leave at the other end after the delay."""

    def __init__(self, delay_s: float) -> None:
        self.other: _Way
        self.connecting: asyncio.Future[object] | None = None
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._on_the_way: deque[tuple[float, bytes | None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.other.arrive()  # the data that waited for the connection

    def data_received(self, data: bytes) -> None:
        self._send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._send(None)

    def _send(self, data: bytes | None) -> None:
        self._on_the_way.append((self._loop.time() + self._delay_s, data))
        if len(self._on_the_way) == 1:
            self._loop.call_later(self._delay_s, self.arrive)

    def arrive(self) -> None:
        way, transport = self._on_the_way, self.other._transport
        if transport is None:
            return
        while way and way[0][0] <= self._loop.time():
            data = way.popleft()[1]
            if data is None:
                transport.close()
            elif not transport.is_closing():
                transport.write(data)
        if way:
            self._loop.call_at(way[0][0], self.arrive)
