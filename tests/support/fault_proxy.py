"""A TCP proxy with faults that a test can change while the proxy runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from patience import patient

from raccoon_fast.collector.sockets import reset

UP, DOWN = "up", "down"


class FaultProxy:
    """A proxy in front of a server on this machine. Its attributes may be set at any time.

    Attributes:
        port: The proxy's port.
        target_port: The server's port; a change applies to the next connections.
        delay_s: The delay of every piece of data, in seconds.
        bytes_per_s: The speed limit of each direction; None for no limit.
        swallowed: The directions whose data is dropped: UP (to the server) and DOWN.
        cut_after: By direction, the bytes after which a connection is reset.
        connections: The number of connections accepted so far.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.swallowed: set[str] = set()
        self.cut_after: dict[str, int] = {}
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():
            return
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Remove all faults, also from open connections."""
        self.delay_s, self.bytes_per_s = 0.0, None
        self.swallowed, self.cut_after = set(), {}

    def cut(self) -> None:
        """Reset every connection."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Refuse new connections, and reset the open ones."""
        self._call(self._close)

    def accept(self) -> None:
        """Listen again on the same port. Idempotent."""
        self._call(self._listen)

    def _call(self, function: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(function(), self._loop).result(patient(10))

    async def _listen(self) -> None:
        if self._server is not None:
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        for writer in [*self._writers]:
            reset(writer.transport)

    async def _end(self) -> None:
        await self._close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self._writers.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(server_writer)
            try:
                ways = (self._pass(UP, reader, server_writer), self._pass(DOWN, server_reader, writer))
                with contextlib.suppress(OSError):
                    await asyncio.gather(*ways)
            finally:
                self._writers.discard(server_writer)
                reset(server_writer.transport)
        except OSError:
            pass  # the server is down: the accepted connection is reset
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            reset(writer.transport)

    async def _pass(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while chunk := await reader.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(chunk) / self.bytes_per_s)
            if way in self.swallowed:
                continue
            limit = self.cut_after.get(way)
            if limit is not None and passed + len(chunk) > limit:
                writer.write(chunk[: max(0, limit - passed)])
                await writer.drain()
                raise ConnectionResetError
            writer.write(chunk)
            await writer.drain()
            passed += len(chunk)
        raise ConnectionResetError  # ends both directions together
