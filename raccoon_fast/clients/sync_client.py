"""What the three sync clients have in common: an async client on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from raccoon_fast.clients.async_client import DEFAULT_CLOSE_S, AsyncClient
from raccoon_fast.clients.options import positive, refuse_pickling, whole
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.ack_streams import AckStream
from raccoon_fast.delivery.callbacks import CallbackThread
from raccoon_fast.delivery.loop_thread import LoopThread
from raccoon_fast.delivery.receipts import Receipt
from raccoon_fast.errors import ClientClosedError, Outcome
from raccoon_fast.events import SendResult
from raccoon_fast.threads import new_lock, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from raccoon_fast.events import App, Event, Response
    from raccoon_fast.transports.base import Request

__all__ = ["Client"]

_A = TypeVar("_A", bound=AsyncClient)


class _Running(Generic[_A]):
    """What a client has once it is in use, in one process: the loop's thread, and on it the async client."""

    def __init__(self, client: _A) -> None:
        self.client = client
        logger = client._settings.logger  # noqa: SLF001 - two halves of one class
        self.callbacks = CallbackThread(logger)
        self.thread = LoopThread(logger)


class Client(Generic[_A]):
    """Base of RestClient, WebSocketClient and GrpcClient.

    Safe to use from many threads. The first use starts a daemon thread with an event loop (uvloop where there is one),
    on which an async client does all the work; `close` ends it. A client made before a fork works in the child, where
    it starts anew with connections of its own: what the parent had in flight stays the parent's.

    A client still open when the interpreter, or a process of multiprocessing, exits is closed then, waiting as `close`
    does.

    Under gevent's monkey patching who waits lets the other greenlets run, and callbacks run on a greenlet.
    """

    def __init__(self, make: Callable[[], _A]) -> None:
        self._make = make  # a closure: what would print its arguments prints the url's password
        self._made: _A | None = make()  # here, so that a wrong option is an error here
        self._app: tuple[App | None] | None = None
        self._running: _Running[_A] | None = None
        self._closed = False
        self._lock = new_lock()
        lifetime.made(self)

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    def send(
        self,
        events: Iterable[Event | tuple[str, Any]],
        *,
        req_guid: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one request and wait for its acknowledgement.

        Args:
            events: Event(type, data) or (type, data) pairs, at least one.
            req_guid: The request's guid, kept over retries; generated (uuid4 text) when None.
            timeout: Seconds for all attempts together; None leaves that to the client's `timeout` and `retry`.

        Returns:
            The guid, and the server's answer; its status is SUCCESS.

        Raises:
            ServerError: The server answered otherwise.
            TransportError, AckTimeoutError: No answer; `outcome` says what is known of the events.
            MessageTooLargeError: The request is larger than the server takes.
            SerializationError: An event could not be serialized; nothing was sent.
            ClientClosedError: The client is closed.
            TypeError, ValueError: An argument is not what it should be.
            KeyboardInterrupt: As anywhere; the request is abandoned, and the server may have it all the same.
        """
        timeout_s = None if timeout is None else positive("timeout", timeout)
        running = self._started()
        request = running.client._builder.build(events, req_guid)  # noqa: SLF001
        future = running.thread.submit(_deliver(running.client, request, timeout_s))
        try:
            return SendResult(request.req_guid, result_of(future))
        except concurrent.futures.CancelledError:
            raise _abandoned(request) from None
        except BaseException:
            future.cancel()
            raise

    def submit(self, events: Iterable[Event | tuple[str, Any]], *, req_guid: str | None = None) -> Receipt:
        """Send one request in the background.

        The request is held in memory until it is settled; events are serialized before this returns.

        Args:
            events: As `send`.
            req_guid: As `send`.

        Returns:
            A receipt, at once. A failure is logged too, so that it shows if nobody asks the receipt.

        Raises:
            SerializationError, MessageTooLargeError, ClientClosedError, TypeError, ValueError: As `send`.
        """
        running = self._started()
        request = running.client._builder.build(events, req_guid)  # noqa: SLF001
        future = running.thread.submit(_deliver(running.client, request, None))
        logger = running.client._settings.logger  # noqa: SLF001
        # Not `request`: a future keeps its callbacks, a receipt's refer back to it, and so a garbage collection would
        # have to come before the request's buffer is freed.
        guid = request.req_guid

        def log_failure(done: concurrent.futures.Future[Response]) -> None:
            if not done.cancelled() and done.exception() is not None:
                logger.warning("request %s was not acknowledged: %s", guid, done.exception())

        future.add_done_callback(log_failure)
        return Receipt(guid, future, running.callbacks)

    def acks(self, maxsize: int = 10_000) -> AckStream:
        """Subscribe to the acknowledgements of all requests from now on, SUCCESS or not.

        Args:
            maxsize: How many may wait to be taken; over it the oldest is dropped and counted, never waited for.
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

        async def set_app() -> None:
            running.client.set_app(app)

        result_of(running.thread.submit(set_app()))
        self._app = (app,)

    def close(self, timeout: float = DEFAULT_CLOSE_S) -> None:
        """Wait for what is in flight, then fail the rest with ClientClosedError, close the connections, end the thread.

        Idempotent. Afterwards everything but `close` raises ClientClosedError.

        Args:
            timeout: Seconds to wait for what is in flight; 0 does not wait.
        """
        if timeout != 0:
            positive("timeout", timeout)
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is None:
            return
        lifetime.ended(self)
        try:
            # The margin is for closing connections, which is bounded on its own.
            result_of(running.thread.submit(running.client.close(timeout)), timeout + 5.0)
        finally:
            running.callbacks.stop(1.0)
            running.thread.stop(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _started(self) -> _Running[_A]:
        running = self._running
        if running is not None and not self._closed:
            return running
        with self._lock:
            if self._closed:
                raise ClientClosedError("the client was closed")
            if self._running is not None:
                return self._running
            client, self._made = self._made or self._make(), None
            if self._app is not None:
                client.set_app(self._app[0])
            self._running = running = _Running(client)
            lifetime.began(self)
            return running

    def _after_fork(self) -> None:
        self._lock = new_lock()  # another thread may have held it, and does not exist here
        if self._running is not None:
            # The parent's: its loop's descriptors are shared with the parent, and must not be closed, nor even
            # unregistered, from here.
            lifetime.inherit(self._running)
            self._running = None


async def _deliver(client: AsyncClient, request: Request, timeout_s: float | None) -> Response:
    try:
        return await client._started().deliver(request, timeout_s)  # noqa: SLF001
    except asyncio.CancelledError:
        # The thread ends, or the caller was interrupted and does not look at this any more.
        raise _abandoned(request) from None


def _abandoned(request: Request) -> ClientClosedError:
    return ClientClosedError(
        "the client was closed before the request was acknowledged",
        req_guid=request.req_guid,
        outcome=Outcome.POSSIBLY_DELIVERED,
    )
