"""Received events and requests, as tests and demos see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from raccoon_fast import json_codec

__all__ = ["GRPC", "REST", "WEBSOCKET", "Batch", "Counts", "ReceivedEvent", "ReceivedRequest", "Request", "Source"]

_Message = TypeVar("_Message", bound=Message)

REST = "rest"
WEBSOCKET = "websocket"
GRPC = "grpc"


class ReceivedEvent(NamedTuple):
    """One event that was published to the sink.

    Attributes:
        req_guid: The guid of the request that brought it.
        type: Event.type.
        data: Event.event_bytes.
        protocol: "rest", "websocket" or "grpc".
        sent_time: The request's sent_time in UNIX seconds; None if it had none.
        connection_id: The client's id header; "" without one.
        group: The client's group header; "--default--" without one.
    """

    req_guid: str
    type: str
    data: bytes
    protocol: str
    sent_time: float | None
    connection_id: str
    group: str

    def json(self) -> Any:
        """Decode the data as JSON.

        Raises:
            ValueError: The data is not JSON.
        """
        try:
            return json_codec.loads(self.data)
        except json_codec.JSONDecodeError as error:
            raise ValueError(f"the data of the event of type {self.type!r} is not JSON: {error}") from None

    def message(self, message_class: Callable[[], _Message]) -> _Message:
        """Decode the data as a protobuf message of `message_class`.

        Raises:
            ValueError: The data is not such a message.
        """
        message = message_class()
        try:
            message.ParseFromString(self.data)
        except (DecodeError, UnicodeDecodeError) as error:  # the second: of protobuf's pure-Python form
            name = message.DESCRIPTOR.full_name
            raise ValueError(f"the data of the event of type {self.type!r} is not a {name}: {error}") from None
        return message


class ReceivedRequest(NamedTuple):
    """One request that could be decoded, published or not; a resend counts again.

    Attributes:
        req_guid: The request's guid.
        event_count: The number of events.
        protocol: "rest", "websocket" or "grpc".
        headers: The headers with names in lower case: HTTP headers, WebSocket handshake headers, or gRPC metadata.
        sent_time: Its sent_time in UNIX seconds; None if it had none.
        received_time: When the collector read it, in UNIX seconds of this machine's clock.
        connection_id: The client's id header; "" without one.
        group: The client's group header; "--default--" without one.
    """

    req_guid: str
    event_count: int
    protocol: str
    headers: Mapping[str, str]
    sent_time: float | None
    received_time: float
    connection_id: str
    group: str

    @property
    def user_agent(self) -> str:
        """The User-Agent header; "" without one."""
        return self.headers.get("user-agent", "")


class Counts(NamedTuple):
    """Requests received and events published."""

    requests: int
    events: int


class Source(NamedTuple):
    """A sender: one WebSocket connection, or one REST or gRPC request."""

    protocol: str
    connection_id: str
    group: str
    headers: Mapping[str, str]

    @property
    def user_agent(self) -> str:
        """The User-Agent header; "" without one."""
        return self.headers.get("user-agent", "")


class Request(NamedTuple):
    """A decoded request that is not accepted yet.

    Attributes:
        message: The SendEventRequest.
        types: For the inspector: the number of events and the index of the last one, by event type. Otherwise empty.
    """

    message: Any
    types: Mapping[str, tuple[int, int]]

    @property
    def req_guid(self) -> str:
        """The request's guid."""
        req_guid: str = self.message.req_guid
        return req_guid


@dataclass(frozen=True, slots=True)
class Batch:
    """An accepted request.

    Attributes:
        message: The SendEventRequest.
        source: The sender.
        received_time: When the collector read it, in UNIX seconds.
        types: See Request.types.
    """

    message: Any
    source: Source
    received_time: float
    types: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def sent_time(self) -> float | None:
        """The client's sent_time in UNIX seconds."""
        if not self.message.HasField("sent_time"):
            return None
        timestamp = self.message.sent_time
        return float(timestamp.seconds) + float(timestamp.nanos) / 1e9

    def events(self) -> Iterator[ReceivedEvent]:
        """The events, one by one."""
        message, (protocol, connection_id, group, _) = self.message, self.source
        req_guid, sent_time = message.req_guid, self.sent_time
        for event in message.events:
            yield ReceivedEvent(req_guid, event.type, event.event_bytes, protocol, sent_time, connection_id, group)

    def summary(self) -> ReceivedRequest:
        """The request without its events."""
        return ReceivedRequest(
            self.message.req_guid,
            len(self.message.events),
            self.source.protocol,
            self.source.headers,
            self.sent_time,
            self.received_time,
            self.source.connection_id,
            self.source.group,
        )
