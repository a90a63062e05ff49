"""The three servers together, on one event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from raccoon_fast.collector.acceptor import Acceptor
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.grpc_server import GrpcServer
from raccoon_fast.collector.intake import Intake
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.records import Source
from raccoon_fast.collector.rest import RestApp
from raccoon_fast.collector.sinks import Sink
from raccoon_fast.collector.sockets import bind, bind_when_free, is_loopback, reset
from raccoon_fast.collector.websocket import EVENTS_PATH, Registry, WebSocketConnection

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.app import Inspection, Inspector

__all__ = ["Server"]

_EVENTS_URL = EVENTS_PATH.encode("ascii")
_IDLE_S = 3600  # the server keeps an idle connection for ever; here it holds a file descriptor of someone's program
_GRACE_S = 0.1
_POLL_S = 0.001

_log = logging.getLogger("raccoon_fast.collector")


class Server:
    """REST and WebSocket on one port, gRPC on another; made and used on one running event loop.

    Uvicorn's protocol and configuration are used, its `Server` is not: that one polls ten times a second whether to
    end, takes 200 ms for it, and cannot stop listening and start again.
    """

    def __init__(
        self,
        options: Options,
        sink: Sink,
        ledger: Ledger,
        faults: FaultTable,
        inspection: Inspection | None = None,
    ) -> None:
        self._options = options
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_handle_loop_error)
        self._intake = Intake(options, sink, ledger, faults)
        self._state = ServerState()
        registry = Registry(self._intake)
        self._inspector: Inspector | None = None
        if inspection is not None:
            from raccoon_fast.collector.inspector.app import Inspector

            self._inspector = Inspector(inspection, self, options, ledger, registry, faults)
        self._app = RestApp(self._intake, self._inspector)
        self._config = Config(
            self._app,
            http=_HttpConnection,
            ws=functools.partial(WebSocketConnection, self._intake, registry),  # type: ignore[arg-type]
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_S,
        )
        self._config.load()
        self._ssl = _ssl_context(options)
        self._acceptor: Acceptor | None = None
        self._reserved: socket.socket | None = None
        self._grpc = GrpcServer(self._intake)
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
                await self._grpc.start(self._options.grpc_port)
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
                "the inspector listens on %s: whoever reaches port %d sees all events, and can switch faults on",
                address,
                self.port,
            )

    async def close(self) -> None:
        """Publish what was taken, answer what can be answered, end all connections.

        As the server does on SIGTERM, WebSocket connections end without a close frame.
        """
        if self._inspector is not None:
            await self._inspector.close()
        await self._stop_listening()
        for reserved in (self._reserved, self._grpc_reserved):
            if reserved is not None:
                reserved.close()
        self._intake.publisher.finish()
        requests = list(self._state.tasks)
        if requests:
            await asyncio.wait(requests, timeout=_GRACE_S)
        await self._grpc.stop(_GRACE_S)
        for connection in list(self._state.connections):
            connection.transport.close()
        await self._until_disconnected()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._until_disconnected()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._intake.publisher.finish()  # what came in meanwhile
        self._sink.close()

    async def close_connections(self) -> None:
        """End every connection, by a reset where it was open."""
        if self._acceptor is not None:
            await self._acceptor.abort_opening()
        for connection in list(self._state.connections):
            reset(connection.transport)
        if not self.is_refusing:
            await self._grpc.restart()

    async def refuse(self) -> None:
        """Stop listening, and keep the ports: nobody else is given them meanwhile."""
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
        await self._grpc.start(self.grpc_port)
        self._reserved = self._grpc_reserved = None
        self.is_refusing = False

    def _listen(self, listening: socket.socket) -> None:
        self._acceptor = Acceptor(listening, self._new_connection, self._ssl)

    async def _until_disconnected(self) -> None:
        """Wait until connections that were told to end have ended, a peer that takes its time not for long."""
        deadline_s = self._loop.time() + _GRACE_S
        while self._state.connections and self._loop.time() < deadline_s:  # noqa: ASYNC110 - the set is uvicorn's
            await asyncio.sleep(_POLL_S)

    async def _stop_listening(self) -> None:
        if self._acceptor is not None:
            await self._acceptor.close()
            self._acceptor = None

    def _new_connection(self) -> HttpToolsProtocol:
        return _HttpConnection(self._app, config=self._config, server_state=self._state, app_state={})


class _HttpConnection(HttpToolsProtocol):
    """Uvicorn's HTTP connection, logging with us and showing its transport to the application.

    A request of events that can be answered at once is, in the step that reads its end: uvicorn makes a task of each
    request, and gives it its body and takes its answer in messages, which costs more than all that is done with it.
    """

    def __init__(self, app: RestApp, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.logger = _log
        self.access_log = False
        self._app = app
        # Who sent such a request, and what is there of its body.
        self._source: Source | None = None
        self._chunks: list[bytes] = []

    def on_headers_complete(self) -> None:
        is_plain = (
            self.url == _EVENTS_URL
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
        )
        self._source = self._app.source_at_once(self.headers) if is_plain else None
        if self._source is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._source is None:
            super().on_body(body)
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._source is None:
            super().on_message_complete()
            return
        data = b"".join(self._chunks)
        self._chunks.clear()
        if not self.transport.is_closing():
            self.transport.write(self._app.answer_at_once(self._source, data))
            self.on_response_complete()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {"transport": transport}


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


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Let those errors pass that are nobody's fault here.

    Grpc wakes every event loop that uses it through one socket, and complains where another was faster; and a client
    may end a TLS connection as it likes.
    """
    error = context.get("exception")
    if isinstance(error, BlockingIOError) and "PollerCompletionQueue" in repr(context):
        return
    if isinstance(error, OSError) and "transport" in context:
        _log.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)
