"""The other ends, each in a process of its own: a collector that counts and drops, and a socket that discards."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from harness import CONTEXT

from raccoon_fast.collector import Collector


class Sink:
    """A collector in another process, and what it received."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.rest_url, self.websocket_url, self.grpc_url = pipe.recv()
        self._expected = 0

    def url(self, transport: str) -> str:
        """For a Producer."""
        return {"REST": self.rest_url, "WebSocket": self.websocket_url, "gRPC": self.grpc_url}[transport]

    def expect(self, events: int) -> None:
        """Assert that so many events came since the last time, neither less nor more."""
        self._expected += events
        self._pipe.send(self._expected)
        received = self._pipe.recv()
        assert received == self._expected, f"{received} of {self._expected} events came"


@contextmanager
def sink(kind: str = "null") -> Iterator[Sink]:
    """A collector; `kind` is its sink."""
    with _process(_collect, kind) as pipe:
        yield Sink(pipe)


@contextmanager
def discarder() -> Iterator[tuple[str, int]]:
    """The address of a socket that reads what comes and drops it; one connection after the other."""
    with _process(_discard) as pipe:
        yield pipe.recv()


@contextmanager
def _process(target: object, *args: object) -> Iterator[Connection]:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(theirs, *args))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # which ends it
        process.join(10)
        process.kill()


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
