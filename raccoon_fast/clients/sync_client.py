"""The base of the three sync clients: runs an async client on a separate thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from raccoon_fast import forks
from raccoon_fast.callbacks import CallbackThread
from raccoon_fast.client_info import user_agent
from raccoon_fast.clients.async_client import DEFAULT_CLOSE_S, AsyncClient
from raccoon_fast.clients.options import positive, refuse_pickling, whole
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.ack_streams import AckStream
from raccoon_fast.delivery.attempts import abandoned
from raccoon_fast.delivery.loop_thread import HELD_UP, LoopThread
from raccoon_fast.delivery.receipts import Receipt
from raccoon_fast.delivery.submissions import Submissions
from raccoon_fast.errors import AckTimeoutError, ClientClosedError, Outcome
from raccoon_fast.events import SendResult
from raccoon_fast.serializers import Data_contra
from raccoon_fast.tables.options import table_columns
from raccoon_fast.threads import require_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

    from raccoon_fast.events import App, Event, Response
    from raccoon_fast.transports.base import Request

__all__ = ["Client"]

_A = TypeVar("_A", bound="AsyncClient[Any]")
# Added to a caller's timeout, so that the loop can report the timeout itself and close connections.
_MARGIN_S = 0.02
_CLOSE_MARGIN_S = 0.4


class _Running(Generic[_A]):
    """The parts of a client in use, in one process: the loop's thread, and the async client on it."""

    def __init__(self, client: _A) -> None:
        self.client = client
        logger = client._settings.logger  # noqa: SLF001 - two halves of one class
        self.callbacks = CallbackThread(logger)
        self.thread = LoopThread(logger)
        self.has_started = False
        self.submissions = Submissions(self.thread, client._started, logger)  # noqa: SLF001
        self.thread.at_end = self.submissions.end


class Client(Generic[_A, Data_contra]):
    """Base of RestClient, WebSocketClient and GrpcClient.

    Thread-safe. The first use starts a daemon thread with an event loop (uvloop if it is installed),
    on which an async client does all the work; `close` ends it. A client created before a fork works in the child,
    where it starts afresh with its own connections: the parent keeps its requests in flight.

    If a client is still open when the interpreter or a multiprocessing process exits, it is closed then, and waits as
    `close` does.

    Under gevent's monkey patching a waiting call lets the other greenlets run, and callbacks run on a greenlet.
    """

    if not TYPE_CHECKING:  # before Python 3.13 a TypeVar has no default

        @classmethod
        def __class_getitem__(cls, parameters: Any) -> Any:
            if cls is Client and not isinstance(parameters, tuple):
                parameters = (parameters, Any)
            return super().__class_getitem__(parameters)

    def __init__(self, make: Callable[[], _A]) -> None:
        self._make = make  # a closure: printing its arguments would print the url's password
        self._made: _A | None = make()  # called here, so that a wrong option is an error here
        self._shown = str(self._made._settings.link.address)  # noqa: SLF001 - two halves of one class
        self._app: tuple[App | None] | None = None
        # At most one, under the key True: dict.setdefault makes two threads agree on it without a lock.
        self._running: dict[bool, _Running[_A]] = {}
        self._closed = False
        lifetime.made(self)

    def __repr__(self) -> str:
        if "_closed" not in self.__dict__:
            return f"<{type(self).__name__} not made>"  # its options were refused
        return f"<{type(self).__name__} {self._shown} {'closed' if self._closed else 'open'}>"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    def send(
        self,
        events: Iterable[Event[Data_contra] | tuple[str, Data_contra]],
        *,
        req_guid: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one request and wait for its acknowledgement.

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
            KeyboardInterrupt: The request is abandoned, but the server may already have it.
        """
        timeout_s = None if timeout is None else positive("timeout", timeout)
        running = self._started()
        request = running.client._builder.build(events, req_guid)  # noqa: SLF001
        return self._send(running, request, timeout_s)

    def send_table(
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
        running = self._started()
        request = running.client._builder.build_table(table, columns, req_guid)  # noqa: SLF001
        return self._send(running, request, timeout_s)

    def _send(self, running: _Running[_A], request: Request, timeout_s: float | None) -> SendResult:
        call = running.thread.submit(_deliver, running.client, request, timeout_s)
        try:
            return SendResult(request.req_guid, call.result(None if timeout_s is None else timeout_s + _MARGIN_S))
        except concurrent.futures.CancelledError:
            raise abandoned(request.req_guid) from None
        except concurrent.futures.TimeoutError:
            if call.done():
                raise  # the request's own AckTimeoutError
            call.cancel()
            raise AckTimeoutError(
                f"not acknowledged within {timeout_s:g} s: {HELD_UP}",
                req_guid=request.req_guid,
                outcome=Outcome.POSSIBLY_DELIVERED,
            ) from None
        except BaseException:
            call.cancel()
            raise

    def submit(
        self, events: Iterable[Event[Data_contra] | tuple[str, Data_contra]], *, req_guid: str | None = None
    ) -> Receipt:
        """Send one request in the background.

        The request is held in memory until it is settled; events are serialized before this returns.

        Args:
            events: As `send`.
            req_guid: As `send`.

        Returns:
            A receipt, at once. A failure is logged too, so that it shows even if nobody reads the receipt.

        Raises:
            SerializationError, MessageTooLargeError, ClientClosedError, TypeError, ValueError: As `send`.
        """
        running = self._started()
        request = running.client._builder.build(events, req_guid)  # noqa: SLF001
        return Receipt(request.req_guid, running.submissions.submit(request), running.callbacks)

    def acks(self, maxsize: int = 10_000) -> AckStream:
        """Subscribe to the acknowledgements of all requests from now on, SUCCESS or not.

        Args:
            maxsize: The largest number of waiting acknowledgements; beyond it the oldest is dropped and counted. Never
                blocks.
        """
        whole("maxsize", maxsize)
        running = self._started()

        sender = running.client._sender  # noqa: SLF001
        stream = AckStream(maxsize, sender.unlisten)
        sender.listen(stream)
        return stream

    def set_app(self, app: App | None) -> None:
        """Name the user's application in User-Agent from the next request (WebSocket: connection) on.

        Raises:
            TypeError: `app` is not an App of three strings.
            ClientClosedError: The client is closed.
        """
        running = self._started()
        running.client._settings.link.user_agent = user_agent(app)  # noqa: SLF001 - two halves of one class
        self._app = (app,)

    def close(self, timeout: float = DEFAULT_CLOSE_S) -> None:
        """Wait for requests in flight, fail the rest with ClientClosedError, close connections and end the thread.

        Idempotent. Afterwards everything but `close` raises ClientClosedError.

        Args:
            timeout: Seconds to wait for requests in flight; 0 does not wait.
        """
        if timeout != 0:
            positive("timeout", timeout)
        self._begin_close(timeout)()

    def _begin_close(self, timeout_s: float) -> Callable[[], object]:
        forks.check()
        self._closed = True
        running = self._running.pop(True, None)
        if running is None:
            return _nothing
        deadline_s = time.monotonic() + timeout_s
        try:
            closing = running.thread.submit(running.client.close, timeout_s)
        except BaseException:
            self._end_close(running, 0.0)
            raise

        def wait() -> None:
            end_s = deadline_s + _CLOSE_MARGIN_S
            try:
                closing.result(max(0.0, end_s - time.monotonic()))
            except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                pass  # the remainder ends with the loop
            finally:
                self._end_close(running, max(_MARGIN_S, end_s - time.monotonic()))

        return wait

    def _end_close(self, running: _Running[_A], timeout_s: float) -> None:
        lifetime.ended(self)
        running.callbacks.stop(timeout_s)
        running.thread.stop(timeout_s)
        running.client._sender.end()  # noqa: SLF001 - before the first request nothing else does
        delivery = running.client._delivery  # noqa: SLF001 - two halves of one class
        is_settled = delivery is not None and delivery.is_settled
        if not is_settled and not running.thread.is_over and not running.thread.is_current():
            running.client._settings.logger.error(HELD_UP)  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _started(self) -> _Running[_A]:
        if not forks.PAGE[0] or not forks.IS_WIPED:  # else a system call
            forks.check()
        running = self._running.get(True)
        if self._closed:
            raise ClientClosedError("the client was closed")
        if running is None or running.thread.is_over:
            if running is not None and self._running.pop(True, None) is running:
                running.client._settings.logger.error("the event loop had stopped; a new one is started")  # noqa: SLF001
            require_threads()
            client, self._made = self._made or self._make(), None
            if self._app is not None:
                client.set_app(self._app[0])
            mine = _Running(client)
            running = self._running.setdefault(True, mine)
            if running is not mine:  # another thread was faster, or a signal handler
                mine.thread.stop(0.0)
            elif self._closed:  # meanwhile
                self._running.pop(True, None)
                mine.thread.stop(0.0)
                raise ClientClosedError("the client was closed")
            lifetime.began(self)
        if not running.has_started:
            running.thread.start()
            running.has_started = True
        return running

    def _after_fork(self) -> None:
        # The parent's loop: its descriptors are shared with the parent, and must not be closed or even
        # unregistered here.
        lifetime.inherit(*self._running.values())
        for running in self._running.values():
            running.client._sender.forget()  # noqa: SLF001
        self._running.clear()


async def _deliver(client: AsyncClient[Any], request: Request, timeout_s: float | None) -> Response:
    try:
        return await client._started().deliver(request, timeout_s)  # noqa: SLF001
    except asyncio.CancelledError:
        # The thread ends, or the caller was interrupted and no longer reads this.
        raise abandoned(request.req_guid) from None


def _nothing() -> None:
    pass
