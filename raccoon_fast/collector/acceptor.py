"""Accepts connections on one listening socket, including TLS handshakes."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

__all__ = ["Acceptor"]

_BACKLOG = 2048
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE_S = 0.1

_log = logging.getLogger("raccoon_fast.collector")


class Connection(Protocol):
    """An asyncio.Protocol with its transport; None until it is open."""

    transport: asyncio.Transport | None


class Acceptor:
    """Listens until closed, on the running event loop.

    An event loop's own server forgets an accepted connection whose handshake is not complete, so that nobody can
    end it before the loop closes (which crashes uvloop). Here each such connection is a task.

    Args:
        listening: A bound socket; `close` closes it.
        new_protocol: Makes a connection's protocol.
        context: For TLS; None accepts plain text.
    """

    def __init__(
        self, listening: socket.socket, new_protocol: Callable[[], Connection], context: ssl.SSLContext | None
    ) -> None:
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        self._listening = listening
        self._new_protocol = new_protocol
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], Connection] = {}
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening, self._accept)

    async def close(self) -> None:
        """Stop listening, and end connections that are not open yet. Idempotent."""
        if self._resume is not None:
            self._resume.cancel()
        if self._listening.fileno() != -1:
            self._loop.remove_reader(self._listening)
            self._listening.close()
        await self.abort_opening()

    async def abort_opening(self) -> None:
        """End connections whose handshake is not complete."""
        opening = list(self._opening.items())
        for task, protocol in opening:
            # Without TLS it opens at once. If cancelled then, uvloop would close it without telling the protocol.
            if self._context is not None and protocol.transport is None:
                task.cancel()
        if opening:
            await asyncio.wait([task for task, _ in opening])

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                _log.error("cannot accept a connection: %s", error)
                self._loop.remove_reader(self._listening)
                self._resume = self._loop.call_later(
                    _EXHAUSTED_PAUSE_S, self._loop.add_reader, self._listening, self._accept
                )
            return  # otherwise the peer was gone before the accept
        connection.setblocking(False)
        protocol = self._new_protocol()
        task = self._loop.create_task(self._open(connection, protocol))
        self._opening[task] = protocol
        task.add_done_callback(functools.partial(self._opened, connection))

    async def _open(self, connection: socket.socket, protocol: Connection) -> None:
        try:
            new_protocol = functools.partial(cast, "asyncio.Protocol", protocol)
            await self._loop.connect_accepted_socket(new_protocol, connection, ssl=self._context)
        except OSError as error:  # a client may fail or abort its handshake; that is not the server's fault
            _log.debug("a connection was not opened: %r", error)
            connection.close()

    def _opened(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if task.cancelled():  # maybe before it began
            connection.close()
