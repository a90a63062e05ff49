"""All errors of this package, by what the caller can do about them.

    RaccoonError
    +-- SerializationError (ValueError, TypeError)  one event could not be encoded: fix the event
    +-- MessageTooLargeError (ValueError)   a request over the transport's limit: send fewer events
    +-- BufferFull                          the buffer is full: send less, or choose what to drop
    +-- DecodeError (ValueError)            received bytes are not a valid answer
    +-- DeliveryError                       a request failed; `retryable` and `outcome` say more
        +-- ServerError                     the server answered, but not with SUCCESS
        +-- EventsRejectedError             some events of a batch were refused; the error names them
        +-- DroppedError                    the overflow policy dropped the batch
        +-- TransportError (ConnectionError)
        |   +-- ConnectError                no connection could be made
        |   |   +-- TLSError                the peer is not trusted: fix the certificates; no retry
        |   +-- ConnectionLostError         the connection ended before the answer
        |   +-- ProtocolError               the answer is not a Raccoon's
        +-- AckTimeoutError (TimeoutError)  no answer in time
        +-- ClientClosedError (RuntimeError) the client was closed before the call or its answer

An invalid option or argument raises a plain TypeError or ValueError that names it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raccoon_fast.events import Response

__all__ = [
    "AckTimeoutError",
    "BufferFull",
    "ClientClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DecodeError",
    "DeliveryError",
    "DroppedError",
    "EventsRejectedError",
    "MessageTooLargeError",
    "Outcome",
    "ProtocolError",
    "RaccoonError",
    "RejectedEvent",
    "SerializationError",
    "ServerError",
    "TLSError",
    "TransportError",
]


class Outcome(enum.Enum):
    """Whether a request's events were delivered. `str()` is suitable for a log line.

    Attributes:
        NOT_DELIVERED: The server certainly does not have the events.
        POSSIBLY_DELIVERED: The server may have them: the answer is missing, or does not say.
        DELIVERED: The server has them.
    """

    NOT_DELIVERED = "not delivered"
    POSSIBLY_DELIVERED = "possibly delivered"
    DELIVERED = "delivered"

    def __str__(self) -> str:
        return self.value


class RaccoonError(Exception):
    """The base of all errors of this package. Errors can be copied and pickled, as process pools do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(cls: type[RaccoonError], args: tuple[Any, ...], attributes: dict[str, Any]) -> RaccoonError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class SerializationError(RaccoonError, ValueError, TypeError):
    """An event could not be encoded, or its serializer did not return bytes. Nothing of the request was sent.

    Producers raise a serializer's own exception unchanged instead; `JSON` raises this error itself.

    Attributes:
        index: The event's position in the given sequence, from 0; None for a single event.
        event_type: The event's type; "" if a serializer was called directly.
        path: The place of the fault in the event's data, such as "$.items[2].price"; "" if unknown.
    """

    def __init__(self, message: str, *, index: int | None, event_type: str, path: str = "") -> None:
        super().__init__(message)
        self.index = index
        self.event_type = event_type
        self.path = path


class MessageTooLargeError(RaccoonError, ValueError):
    """A request is larger than the transport or the server accepts. Never retried.

    Attributes:
        size: The bytes of the request; 0 if only the server knew.
        limit: The allowed bytes; 0 if the server did not say.
        outcome: Whether its events were delivered. The refused attempt delivered nothing, but an earlier one may have.
    """

    outcome: Outcome

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit
        self.outcome = Outcome.NOT_DELIVERED


class BufferFull(RaccoonError):
    """The producer's buffer was full and stayed full: the event was not accepted.

    Attributes:
        buffered: Bytes that wait or are in flight.
        limit: The `buffer_bytes` of the producer, or of the event's lane.
    """

    def __init__(self, message: str, *, buffered: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.buffered = buffered
        self.limit = limit


class DecodeError(RaccoonError, ValueError):
    """Bytes are not a well-formed answer."""


class DeliveryError(RaccoonError):
    """A request was not acknowledged.

    Attributes:
        req_guid: The request's guid; "" while it is not known.
        retryable: Whether the same request may succeed later.
        outcome: Whether its events were delivered.
        attempts: The number of attempts, including failed connections and the transport's own resends; 0 if the request
            only waited for its turn.
        retry_after_s: The seconds that the server asked to wait, if any.
    """

    retryable = True
    outcome = Outcome.NOT_DELIVERED

    def __init__(
        self,
        message: str,
        *,
        req_guid: str = "",
        retryable: bool | None = None,
        outcome: Outcome | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.req_guid = req_guid
        self.attempts = 0
        self.retry_after_s = retry_after_s
        if retryable is not None:
            self.retryable = retryable
        if outcome is not None:
            self.outcome = outcome


class ServerError(DeliveryError):
    """The server answered, but not with SUCCESS.

    Attributes:
        response: The decoded answer, or None if the answer was only an HTTP status or a gRPC code. Without it,
            something else may have answered, such as a proxy.
        status: The HTTP status, the gRPC code's name, or None on WebSocket.
        said: Without a response, the peer's own words: at most 200 characters of the body or of grpc-message.
    """

    def __init__(
        self,
        message: str,
        *,
        response: Response | None = None,
        status: int | str | None = None,
        req_guid: str = "",
        retryable: bool = False,
        outcome: Outcome | None = None,
        retry_after_s: float | None = None,
        said: str = "",
    ) -> None:
        super().__init__(message, req_guid=req_guid, retryable=retryable, outcome=outcome, retry_after_s=retry_after_s)
        self.response = response
        self.status = status
        self.said = said


class RejectedEvent(NamedTuple):
    """An event a server refused: its type, its bytes, and the server's reason."""

    type: str
    data: bytes
    reason: str


class EventsRejectedError(DeliveryError):
    """Some events of a batch were refused, by the server or by something in front of it; the others were acknowledged.

    Attributes:
        rejected: The events that were refused.
    """

    retryable = False

    def __init__(
        self, req_guid: str = "", rejected: Sequence[RejectedEvent] = (), *, outcome: Outcome = Outcome.NOT_DELIVERED
    ) -> None:
        reason = rejected[0].reason if rejected else ""
        super().__init__(
            f"{len(rejected)} of a batch's events could not be delivered: {reason}", req_guid=req_guid, outcome=outcome
        )
        self.rejected = list(rejected)


class DroppedError(DeliveryError):
    """The producer's buffer was full, and its overflow policy dropped this batch. It was never sent."""

    retryable = False


class TransportError(DeliveryError, ConnectionError):
    """The transport failed."""


class ConnectError(TransportError):
    """No connection could be made; this attempt delivered nothing."""


class TLSError(ConnectError):
    """The peer's certificate, or ours, was not accepted. Plain text is never used instead."""

    retryable = False


class ConnectionLostError(TransportError):
    """The connection ended before the request was answered."""

    outcome = Outcome.POSSIBLY_DELIVERED


class ProtocolError(TransportError):
    """The answer is not one of a Raccoon server."""

    outcome = Outcome.POSSIBLY_DELIVERED


class AckTimeoutError(DeliveryError, TimeoutError):
    """No answer came in time; the server may still have the events."""

    outcome = Outcome.POSSIBLY_DELIVERED


class ClientClosedError(DeliveryError, RuntimeError):
    """The client was closed before the call, or before the answer came."""

    retryable = False
