"""Events, answers and acknowledgements."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

__all__ = ["Ack", "App", "Code", "Event", "Response", "SendResult", "Status"]


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    _Data_co = TypeVar("_Data_co", covariant=True, default=Any)

    class Event(NamedTuple, Generic[_Data_co]):  # noqa: D101 - see below
        type: str
        data: _Data_co

else:  # before Python 3.11 a NamedTuple has no parameters

    class Event(NamedTuple):
        """One event.

        Attributes:
            type: Routes the event on the server; not empty (proto field Event.type).
            data: Data that the client's serializer accepts; it becomes Event.event_bytes.
        """

        type: str
        data: Any


_INT_FORMATS = tuple("bcdeEfFgGnoxX%")  # Format Specification Mini-Language: types of numbers


class _OpenEnum(enum.IntEnum):
    """proto3 enums are open: an unknown number is kept, under a name made from it."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member

    def __str__(self) -> str:
        return self.name  # IntEnum's own is "Status.SUCCESS" before Python 3.11, and "1" from there on

    def __format__(self, spec: str) -> str:
        return format(int(self) if spec[-1:] in _INT_FORMATS else self.name, spec)


class Status(_OpenEnum):
    """SendEventResponse.status; the wire's STATUS_ prefix is left out. `str()` is the name.

    Attributes:
        UNSPECIFIED: The server set none.
        SUCCESS: The server has the events. Its settings decide what that means; see `server_acks` of Producer.
        ERROR: The server does not have all events; `Response.code` says why.
    """

    UNSPECIFIED = 0
    SUCCESS = 1
    ERROR = 2


class Code(_OpenEnum):
    """SendEventResponse.code; the wire's CODE_ prefix is left out. `str()` is the name.

    Attributes:
        UNSPECIFIED: The server set none.
        OK: The code of SUCCESS.
        BAD_REQUEST: The request could not be decoded; a retry would fail too.
        INTERNAL_ERROR: The events could not be published.
        MAX_CONNECTION_LIMIT_REACHED: The server is at its limit of WebSocket connections.
        MAX_USER_LIMIT_REACHED: The server already has a WebSocket connection with this user_id.
    """

    UNSPECIFIED = 0
    OK = 1
    BAD_REQUEST = 2
    INTERNAL_ERROR = 3
    MAX_CONNECTION_LIMIT_REACHED = 4
    MAX_USER_LIMIT_REACHED = 5


class Response(NamedTuple):
    """A server's answer to one request (message SendEventResponse).

    Attributes:
        status: SUCCESS, or another status.
        code: The reason for the status.
        sent_time: UNIX seconds of the server's clock.
        reason: The server's text for an error; often empty.
        data: Holds the request's guid under "req_guid".
    """

    status: Status
    code: Code
    sent_time: int = 0
    reason: str = ""
    data: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple default; never written to

    @property
    def req_guid(self) -> str:
        """The guid of the answered request; empty if the server could not read it."""
        return self.data.get("req_guid", "")


class SendResult(NamedTuple):
    """The result of `send`.

    Attributes:
        req_guid: The guid of the request.
        response: The server's answer; its status is SUCCESS.
    """

    req_guid: str
    response: Response


class Ack(NamedTuple):
    """One acknowledgement, as `acks()` yields it.

    Attributes:
        req_guid: The request's guid.
        response: The server's answer, SUCCESS or not.
        sent_ms: Milliseconds from `send` or `submit`, or from the first event of a producer's batch, until the
            answered attempt was written.
        ack_ms: Milliseconds from that write until its answer.
    """

    req_guid: str
    response: Response
    sent_ms: float
    ack_ms: float


class App(NamedTuple):
    """The user's application, added to User-Agent (`app=`, or a client's `set_app`).

    Attributes:
        id: Identifies the running instance.
        name: The application's name.
        version: The application's version.
    """

    id: str
    name: str
    version: str
