"""Makes a server's port available as a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from patience import patient

__all__ = ["forwarded"]


@contextlib.contextmanager
def forwarded(path: Path, port: int) -> Iterator[list[bytes]]:
    """A Unix socket that forwards connections to a port here; yields a list with the first bytes of each connection."""
    loop = asyncio.new_event_loop()
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool) -> None:
        is_first = keep
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_first:
                    heads.append(data)
                    is_first = False
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        for task in (pump(reader, there[1], keep=True), pump(there[0], writer, keep=False)):
            tasks.add(asyncio.ensure_future(task))

    async def end() -> None:
        server.close()
        await asyncio.wait(tasks, timeout=patient(5.0))

    server = loop.run_until_complete(asyncio.start_unix_server(accept, path))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield heads
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(patient(10))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
