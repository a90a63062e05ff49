"""Runs the three servers together on one event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

from raccoon_fast.collector.acceptor import Acceptor
from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.grpc_server import GrpcServer
from raccoon_fast.collector.http_connection import Connections, HttpConnection
from raccoon_fast.collector.intake import Intake
from raccoon_fast.collector.judging import EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.rest import RestApp
from raccoon_fast.collector.sinks import Sink
from raccoon_fast.collector.sockets import bind, bind_when_free, is_loopback, reset
from raccoon_fast.collector.websocket import Registry, WebSocketConnection

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.app import Inspection, Inspector

__all__ = ["Server"]

_GRACE_S = 0.1
_POLL_S = 0.001

_log = logging.getLogger("raccoon_fast.collector")


class Server:
    """REST and WebSocket on one port, gRPC on another; made and used on one running event loop."""

    def __init__(
        self,
        options: Options,
        sink: Sink,
        ledger: Ledger,
        faults: FaultTable,
        judge: EventJudge,
        inspection: Inspection | None = None,
    ) -> None:
        self._options = options
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_handle_loop_error)
        self._intake = Intake(options, sink, ledger, faults, judge)
        self._connections = Connections()
        self._registry = registry = Registry(self._intake)
        self._inspector: Inspector | None = None
        if inspection is not None:
            from raccoon_fast.collector.inspector.app import Inspector

            self._inspector = Inspector(inspection, self, options, ledger, registry, faults)
        self._app = RestApp(self._intake)
        self._upgrade = functools.partial(WebSocketConnection, self._intake, registry, self._connections)
        self._ssl = _ssl_context(options)
        self._acceptor: Acceptor | None = None
        self._reserved: socket.socket | None = None
        self._grpc = GrpcServer(self._intake, _grpc_context(options))
        self._grpc_reserved: socket.socket | None = None
        self.port = 0
        self.is_refusing = False

    @property
    def grpc_port(self) -> int:
        """The port gRPC listens on."""
        return self._grpc.port

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: A port is taken, the host unknown, or the sink's file cannot be opened.
        """
        self._sink.open()
        try:
            listening = bind(self._options.host, self._options.port)
            try:
                self._grpc.start(self._options.grpc_port)
                self._listen(listening)
            except BaseException:
                listening.close()
                raise
            address, self.port = listening.getsockname()[:2]
        except BaseException:
            await self._grpc.stop()
            self._sink.close()
            raise
        if self._inspector is not None and not is_loopback(address):
            _log.warning(
                "the inspector listens on %s: anyone who can reach port %d sees all events, and can switch faults on",
                address,
                self.port,
            )

    async def close(self) -> None:
        """Publish accepted requests, answer pending ones if possible, and end all connections.

        WebSocket connections end without a close frame, as on the server's SIGTERM.
        """
        self._registry.close()
        if self._inspector is not None:
            await self._inspector.close()
        await self._stop_listening()
        for reserved in (self._reserved, self._grpc_reserved):
            if reserved is not None:
                reserved.close()
        self._intake.publisher.finish()
        requests = list(self._connections.requests)
        if requests:
            await asyncio.wait(requests, timeout=_GRACE_S)
        await self._grpc.stop(_GRACE_S)
        for connection in list(self._connections.open):
            connection.transport.close()
        await self._until_disconnected()
        for connection in list(self._connections.open):
            connection.transport.abort()
        await self._until_disconnected()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._intake.publisher.finish()  # requests that arrived in the meantime
        self._sink.close()

    async def close_connections(self) -> None:
        """End every connection; open ones with a reset."""
        if self._acceptor is not None:
            await self._acceptor.abort_opening()
        for connection in list(self._connections.open):
            if isinstance(connection, WebSocketConnection):
                self._intake.faults.hit("close_connections", Target(connection.source, requests=0))
            reset(connection.transport)
        await self._grpc.abort_opening()
        self._grpc.reset_connections()

    async def refuse(self) -> None:
        """Stop listening, but keep the ports reserved."""
        if self.is_refusing:
            return
        self.is_refusing = True
        await self._stop_listening()
        self._reserved = await bind_when_free(self._options.host, self.port)
        await self._grpc.stop()
        self._grpc_reserved = await bind_when_free(self._options.host, self.grpc_port)

    async def accept(self) -> None:
        """Listen again."""
        if not self.is_refusing:
            return
        assert self._reserved is not None
        assert self._grpc_reserved is not None
        self._listen(self._reserved)
        self._grpc_reserved.close()
        self._grpc.start(self.grpc_port)
        self._reserved = self._grpc_reserved = None
        self.is_refusing = False

    def _listen(self, listening: socket.socket) -> None:
        self._acceptor = Acceptor(listening, self._new_connection, self._ssl)

    async def _until_disconnected(self) -> None:
        """Wait until closing connections have ended, but only briefly for a slow peer."""
        deadline_s = self._loop.time() + _GRACE_S
        while self._connections.open and self._loop.time() < deadline_s:  # noqa: ASYNC110 - closed by their peers
            await asyncio.sleep(_POLL_S)

    async def _stop_listening(self) -> None:
        if self._acceptor is not None:
            await self._acceptor.close()
            self._acceptor = None

    def _new_connection(self) -> HttpConnection:
        return HttpConnection(
            self._app, self._connections, self._upgrade, self._inspector, is_tls=self._ssl is not None
        )


def _ssl_context(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.tls_cert, options.tls_key)
    if options.tls_client_ca is not None:
        context.load_verify_locations(options.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _grpc_context(options: Options) -> ssl.SSLContext | None:
    context = _ssl_context(options)
    if context is not None:
        context.set_alpn_protocols(["h2"])
    return context


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of a client's connection at debug level, such as a TLS connection that ended early."""
    error = context.get("exception")
    if isinstance(error, OSError) and "transport" in context:
        _log.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)
