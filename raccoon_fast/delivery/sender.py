"""Makes one attempt: stamps and sends the request, and reports its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from raccoon_fast.errors import Outcome, ServerError
from raccoon_fast.events import Ack, Code, Response, Status
from raccoon_fast.stats import ACK_TT_MS, OFF, SENT_TT_MS
from raccoon_fast.texts import one_line
from raccoon_fast.transports.attempt import Attempt

if TYPE_CHECKING:
    from raccoon_fast.stats import MetricsSink
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Request, Transport

__all__ = ["AckListener", "Sender"]

# Looked up once: attribute access on an enum class is slow.
_SUCCESS = Status.SUCCESS


class AckListener(Protocol):
    """Called with every answer, on the event loop; must not block."""

    def publish(self, ack: Ack) -> None:
        """An answer came."""

    def end(self) -> None:
        """Called when no further answer will come."""

    def forget(self) -> None:
        """Called in a forked child, where no answer will come: end, without what was received in the parent."""


class Sender:
    """Makes single attempts, and reports their answers to stats and listeners.

    Owned by one event loop; `listen` and `unlisten` are thread-safe.

    Args:
        stats: Gets sent_tt_ms and ack_tt_ms of every answer.

    Attributes:
        is_watched: Whether anybody may want to know of single answers. After the first `listen` it stays true: another
            thread may listen while one unlistens, and answers only take longer.
    """

    def __init__(self, stats: MetricsSink) -> None:
        self._stats = stats
        # A dict, because each change of it is one atomic step.
        self._listeners: dict[AckListener, None] = {}
        self._has_ended = False
        self.is_watched = stats is not OFF

    def listen(self, listener: AckListener) -> None:
        """Report every answer to `listener` from now on; after `end`, only end it."""
        self._listeners[listener] = None
        self.is_watched = True
        if self._has_ended:
            listener.end()

    def unlisten(self, listener: AckListener) -> None:
        """Undo `listen`."""
        self._listeners.pop(listener, None)

    def forget(self) -> None:
        """In a forked child: end and forget the parent's listeners."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners:
            listener.forget()

    def end(self) -> None:
        """Tell the listeners that no further attempt is made. Idempotent, thread-safe."""
        self._has_ended = True
        for listener in [*self._listeners]:
            listener.end()

    async def send(self, transport: Transport, request: Request, timeout_s: float, since_s: float) -> Response:
        """Make one attempt.

        Args:
            transport: The transport to send on.
            request: The request; it is stamped with the time here.
            timeout_s: Seconds for the attempt.
            since_s: The time.monotonic() at which the caller passed the request, for sent_ms.

        Returns:
            An answer whose status is SUCCESS.

        Raises:
            DeliveryError: As Transport.send; ServerError for any other answer.
        """
        _stamp(request)
        try:
            response = await transport.send(request, timeout_s)
        except ServerError as error:
            self._answered(request, error.response, since_s)
            raise
        return self._accepted(request, response, since_s)

    def start(self, transport: Transport, request: Request, timeout_s: float) -> AnyAttempt:
        """Begin an attempt, without a task if the transport needs none. Once it is done, `answer` must be called.

        Args:
            transport: The transport to send on. A caller that cancels the attempt must close it next.
            request: As `send`.
            timeout_s: As `send`.
        """
        try:
            seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
            request.envelope.stamp(request.req_guid, seconds, nanos)
            request.was_written = False
            request.resends = 0
            return transport.start(request, timeout_s)
        except BaseException as error:  # noqa: BLE001 - our own fault must not cost the events: it is the outcome
            failed = Attempt()
            failed.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return failed

    def answer(self, attempt: AnyAttempt, request: Request, since_s: float) -> Response:
        """The result of a finished attempt; returns and raises as `send`."""
        try:
            response = attempt.result()
        except ServerError as error:
            self._answered(request, error.response, since_s)
            raise
        return self._accepted(request, response, since_s)

    def _accepted(self, request: Request, response: Response, since_s: float) -> Response:
        if self._listeners or self._stats is not OFF:
            self._answered(request, response, since_s)
        if response.status is not _SUCCESS:
            raise _refusal(response)
        return response

    def _answered(self, request: Request, response: Response | None, since_s: float) -> None:
        if response is None or response.req_guid != request.req_guid:
            return  # about the connection, or an answer that names no request
        sent_ms = (request.written_s - since_s) * 1000.0
        ack_ms = (time.monotonic() - request.written_s) * 1000.0
        self._stats.timing(SENT_TT_MS, sent_ms)
        self._stats.timing(ACK_TT_MS, ack_ms)
        if self._listeners:
            ack = Ack(request.req_guid, response, sent_ms, ack_ms)
            for listener in [*self._listeners]:
                listener.publish(ack)


def _stamp(request: Request) -> None:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    request.envelope.stamp(request.req_guid, seconds, nanos)
    request.was_written = False
    request.resends = 0


def _refusal(response: Response) -> ServerError:
    """The error for an answer that is not SUCCESS; only with BAD_REQUEST the request itself is at fault."""
    reason = one_line(response.reason)
    why = f"{response.code.name}, {reason}" if reason else response.code.name
    return ServerError(
        f"the server answered {response.status.name}: {why}",
        response=response,
        retryable=response.code is not Code.BAD_REQUEST,
        # A failed publish may have published part of the batch.
        outcome=Outcome.NOT_DELIVERED if response.code is Code.BAD_REQUEST else Outcome.POSSIBLY_DELIVERED,
    )
