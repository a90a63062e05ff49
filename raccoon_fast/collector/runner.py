"""Runs one server on its event loop from start to end, in a thread or in the foreground."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from raccoon_fast.collector.server import Server
from raccoon_fast.timeouts import timeout

__all__ = ["Runner"]

_ACTION_TIMEOUT_S = 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# On Windows a signal does not wake a waiting event loop. Its handler runs when something else wakes the loop.
_WAKE_S = 0.5 if sys.platform == "win32" else None


class Runner:
    """Makes a Server on a separate loop and runs it once. Thread-safe. Faults also use it to control the network.

    Args:
        make_server: Called on the loop.
    """

    def __init__(self, make_server: Callable[[], Server]) -> None:
        self._make_server = make_server
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread_id = 0
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._is_over = False
        self._ended = threading.Event()

    @property
    def server(self) -> Server:
        """The server, once it listens.

        RuntimeError: The server does not listen yet.
            RuntimeError: It does not listen yet.
        """
        if self._server is None:
            raise RuntimeError("the collector was not started; use `with Collector() as collector:` or start()")
        return self._server

    def start(self) -> None:
        """Run in a thread; returns once the server listens.

        Raises:
            RuntimeError: The runner has already run.
            Exception: The error that kept the server from listening.
        """
        loop = self._claim_loop()
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()

        def serve() -> None:
            try:
                self._run(loop, lambda: opened.set_result(None))
            except BaseException as error:
                if not opened.done():
                    opened.set_exception(error)
                else:
                    raise

        self._thread = threading.Thread(target=serve, name="raccoon-collector", daemon=True)
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self.close()
            raise

    def run(self, ready: Callable[[], object]) -> None:
        """Run in this thread until `close`; in the main thread SIGINT and SIGTERM also end it.

        Args:
            ready: Called once the server listens.

        Raises:
            RuntimeError: The runner has already run.
            Exception: The error that kept the server from listening.
        """
        self._run(self._claim_loop(), ready)

    def close(self) -> None:
        """End the server and wait until it has stopped. Idempotent; a call from `ready` returns at once."""
        loop = self._loop
        if loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is already closed
            loop.call_soon_threadsafe(self._stop.set)
        if threading.get_ident() == self._loop_thread_id:
            return
        self._ended.wait()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_refusing(self) -> bool:
        """Whether the server runs but does not listen."""
        return not self._ended.is_set() and self._server is not None and self._server.is_refusing

    def close_connections(self) -> None:
        """End every live connection."""
        self._call(self.server.close_connections)

    def refuse(self) -> None:
        """Stop listening."""
        self._call(self.server.refuse)

    def accept(self) -> None:
        """Listen again."""
        self._call(self.server.accept)

    def _call(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._lock:
            if self._loop is None or self._is_over:
                raise RuntimeError("the collector is closed")
            future = asyncio.run_coroutine_threadsafe(action(), self._loop)
        try:
            future.result(_ACTION_TIMEOUT_S)
        except concurrent.futures.CancelledError:
            raise RuntimeError("the collector was closed") from None

    def _claim_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is not None:
                raise RuntimeError(
                    "a Collector serves only once; create another one (with port=… and grpc_port=… to keep the address)"
                )
            self._loop = _new_event_loop()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], object]) -> None:
        self._loop_thread_id = threading.get_ident()
        try:
            loop.run_until_complete(self._serve(ready))
        finally:
            with self._lock:
                self._is_over = True
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._ended.set()

    async def _serve(self, ready: Callable[[], object]) -> None:
        with _signals(self._stop):
            server = self._make_server()
            await server.open()
            self._server = server
            try:
                ready()
                while not self._stop.is_set():
                    with contextlib.suppress(asyncio.TimeoutError):
                        async with timeout(_WAKE_S):
                            await self._stop.wait()
            finally:
                await server.close()


async def _end_tasks() -> None:
    """Cancel the remaining tasks. Some are actions that other threads submitted while the server was closing."""
    await asyncio.sleep(0)  # an action becomes a task one turn after it was submitted
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `stop`; works only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()  # not asyncio's default on Windows, which lacks add_reader
