"""The base of the three async clients."""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from raccoon_fast.client_info import user_agent
from raccoon_fast.clients.hints import question_seconds
from raccoon_fast.clients.options import positive, refuse_pickling, whole
from raccoon_fast.clients.requests import RequestBuilder
from raccoon_fast.delivery.ack_streams import AsyncAckStream
from raccoon_fast.delivery.attempts import Delivery
from raccoon_fast.delivery.receipts import AsyncReceipt
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.errors import ClientClosedError, DeliveryError
from raccoon_fast.events import SendResult
from raccoon_fast.serializers import Data_contra
from raccoon_fast.tables.options import table_columns
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Self

    from raccoon_fast.clients.options import Settings
    from raccoon_fast.events import App, Event, Response
    from raccoon_fast.transports.base import Transport

__all__ = ["DEFAULT_CLOSE_S", "AsyncClient"]

#: Default seconds that `close` waits for requests in flight.
DEFAULT_CLOSE_S = 5.0


class AsyncClient(abc.ABC, Generic[Data_contra]):
    """Base of AsyncRestClient, AsyncWebSocketClient and AsyncGrpcClient.

    Bound to the event loop of its first use. Creating a client opens nothing: connections are opened when needed.
    """

    def __init__(self, settings: Settings, wire: str, max_request_bytes: int | None) -> None:
        self._settings = settings
        self._sender = Sender(settings.stats)
        self._builder = RequestBuilder(
            settings.serializer, wire, max_request_bytes, settings.tracing, settings.link.address
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: Transport | None = None
        self._delivery: Delivery | None = None
        self._tasks: set[asyncio.Task[Response]] = set()
        self._closed = False
        question_seconds(settings.logger, timeout=settings.timeout_s, connect_timeout=settings.link.connect_timeout_s)

    @abc.abstractmethod
    def _make_transport(self) -> Transport: ...

    def __repr__(self) -> str:
        if "_closed" not in self.__dict__:
            return f"<{type(self).__name__} not made>"  # its options were refused
        return f"<{type(self).__name__} {self._settings.link.address} {'closed' if self._closed else 'open'}>"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    async def send(
        self,
        events: Iterable[Event[Data_contra] | tuple[str, Data_contra]],
        *,
        req_guid: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one request and wait for its acknowledgement.

        Cancelling abandons the request: no further attempt is made, but the server may already have it.

        Args:
            events: Event(type, data) or (type, data) pairs, at least one.
            req_guid: The request's guid, kept over retries; generated (uuid4 text) when None.
            timeout: Seconds for all attempts together; None uses the limits of the client's `timeout` and `retry`.

        Returns:
            The guid, and the server's answer; its status is SUCCESS.

        Raises:
            ServerError: The server did not answer with SUCCESS.
            TransportError, AckTimeoutError: No answer; `outcome` says whether the events may have arrived.
            MessageTooLargeError: The request is larger than the server accepts.
            SerializationError: An event could not be serialized; nothing was sent.
            ClientClosedError: The client is closed.
            TypeError, ValueError: An argument is invalid.
        """
        timeout_s = None if timeout is None else positive("timeout", timeout)
        request = self._builder.build(events, req_guid)
        response = await self._started().deliver(request, timeout_s)
        return SendResult(request.req_guid, response)

    async def send_table(
        self,
        table: Any,
        *,
        event_type: str | None = None,
        type_column: str | None = None,
        data_columns: Sequence[str] | None = None,
        serializer: str = "json",
        message: Any = None,
        req_guid: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Send the rows of a table as one request and wait for its acknowledgement. Needs `raccoon_fast[arrow]`.

        Args:
            table: As Producer.emit_table, with at least one row. For more rows than a request may carry, slice it, or
                use a producer.
            event_type: As Producer.emit_table.
            type_column: As Producer.emit_table.
            data_columns: As Producer.emit_table.
            serializer: As Producer.emit_table; the client's own serializer is not used.
            message: As Producer.emit_table.
            req_guid: As `send`.
            timeout: As `send`.

        Returns:
            As `send`.

        Raises:
            ImportError: pyarrow is not installed.
            SerializationError: A row cannot become an event; `path` is its column and `index` the row. Nothing was
                sent.
            Exception: As `send`.
        """
        columns = table_columns(event_type, type_column, data_columns, serializer, message)
        timeout_s = None if timeout is None else positive("timeout", timeout)
        request = self._builder.build_table(table, columns, req_guid)
        response = await self._started().deliver(request, timeout_s)
        return SendResult(request.req_guid, response)

    def submit(
        self, events: Iterable[Event[Data_contra] | tuple[str, Data_contra]], *, req_guid: str | None = None
    ) -> AsyncReceipt:
        """Send one request in the background; called on the client's event loop.

        The request is held in memory until it is settled.

        Args:
            events: As `send`.
            req_guid: As `send`.

        Returns:
            A receipt: `await` it for the Response. A failure is logged too, so that it shows even if nobody awaits it.

        Raises:
            SerializationError, MessageTooLargeError, ClientClosedError, TypeError, ValueError: As `send`, at once.
        """
        request = self._builder.build(events, req_guid)
        task = asyncio.ensure_future(self._started().deliver(request))
        self._tasks.add(task)
        task.add_done_callback(self._submitted_done)
        return AsyncReceipt(request.req_guid, task)

    def acks(self, maxsize: int = 10_000) -> AsyncAckStream:
        """Subscribe to the acknowledgements of all requests from now on, SUCCESS or not.

        Args:
            maxsize: The largest number of waiting acknowledgements; beyond it the oldest is dropped and counted. Never
                blocks.
        """
        self._started()
        stream = AsyncAckStream(whole("maxsize", maxsize), self._sender.unlisten)
        self._sender.listen(stream)
        return stream

    def set_app(self, app: App | None) -> None:
        """Name the user's application in User-Agent from the next request (WebSocket: connection) on.

        Called on the client's event loop, unless it has not been used yet.

        Raises:
            TypeError: `app` is not an App of three strings.
            ClientClosedError: The client is closed.
        """
        if self._closed or self._transport is not None:
            self._started()
        self._settings.link.user_agent = user_agent(app)

    async def close(self, timeout: float = DEFAULT_CLOSE_S) -> None:
        """Wait for requests in flight, then fail the rest with ClientClosedError and close the connections.

        Idempotent. Afterwards everything but `close` raises ClientClosedError. If cancelled, it fails the rest at once.

        Args:
            timeout: Seconds to wait for requests in flight; 0 does not wait.
        """
        if timeout != 0:
            positive("timeout", timeout)
        if self._closed:
            return
        self._closed = True
        if self._delivery is not None:
            now_s = asyncio.get_running_loop().time
            deadline_s = now_s() + timeout
            try:
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=timeout)
                await self._delivery.wait_idle(deadline_s - now_s())
            finally:
                unsettled = await self._delivery.close()
                if unsettled:
                    self._settings.logger.error("closed with %s not acknowledged", counted(unsettled, "request"))

    async def __aenter__(self) -> Self:
        self._started()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _started(self) -> Delivery:
        if self._closed:
            raise ClientClosedError("the client was closed")
        loop = asyncio.get_running_loop()
        if self._delivery is None or self._loop is not loop:
            if self._delivery is not None:
                raise RuntimeError("this client belongs to another event loop: create one client per loop")
            settings = self._settings
            self._loop = loop
            self._transport = self._make_transport()
            self._delivery = Delivery(self._transport, settings.retry, settings.timeout_s, self._sender)
        return self._delivery

    def _submitted_done(self, task: asyncio.Task[Response]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            guid = error.req_guid if isinstance(error, DeliveryError) else ""
            self._settings.logger.warning("request %s was not acknowledged: %s", guid, error)
