"""Encodes a user's events as a request that is ready to be stamped and sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.core._request import check_events, pair_of
from raccoon_fast.core.envelope import MAX_GUID_BYTES, JsonEnvelope, ProtoEnvelope
from raccoon_fast.errors import MessageTooLargeError, SerializationError
from raccoon_fast.guids import new_guid
from raccoon_fast.serializers import is_raw
from raccoon_fast.tables.options import table_reader
from raccoon_fast.transports.base import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raccoon_fast.events import Event
    from raccoon_fast.net.address import Address
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.tables.columns import Columns
    from raccoon_fast.transports.tracing import Tracing

__all__ = ["RequestBuilder", "resolve_guid"]

_ENVELOPES: dict[str, type[ProtoEnvelope] | type[JsonEnvelope]] = {"proto": ProtoEnvelope, "json": JsonEnvelope}


class RequestBuilder:
    """Serializes events into an envelope. Thread-safe if the serializer is.

    Args:
        serializer: Turns an event's data into bytes.
        wire: "proto" or "json": the envelope around the events.
        max_bytes: The transport's limit for a request; None for no limit.
        tracing: Starts a trace per request to `address`, if tracing is on.
        address: The server.

    Raises:
        ValueError: `wire` is neither.
    """

    def __init__(
        self,
        serializer: Serializer[Any],
        wire: str,
        max_bytes: int | None,
        tracing: Tracing | None = None,
        address: Address | None = None,
    ) -> None:
        if wire not in _ENVELOPES:
            raise ValueError(f'wire must be "proto" or "json", not {wire!r}')
        self._serializer = serializer
        self._is_raw = is_raw(serializer)
        self._wire = wire
        self._new_envelope = _ENVELOPES[wire]
        self._max_bytes = max_bytes
        self._tracing = tracing
        self._address = address

    def build_table(self, table: Any, columns: Columns, req_guid: str | None) -> Request:
        """Make a request of a table's rows, like `build`.

        Raises:
            TypeError, ValueError: `table` or `req_guid` is invalid.
            SerializationError: A row cannot be an event; the message names its column and position.
            MessageTooLargeError: As `build`.
        """
        req_guid = resolve_guid(req_guid)
        envelope = self._new_envelope()
        row = 0
        for batch in table_reader(table, columns):
            for types, data in columns.events(batch, row):
                self._check_size(envelope.nbytes + sum(map(len, data)), envelope.count + len(data))
                for event in zip(types, data, strict=True):
                    envelope.add(*event)
            row += batch.num_rows
        if not envelope.count:
            raise ValueError("the table has no rows: a request needs at least one event")
        return self._finished(envelope, req_guid)

    def build(self, events: Iterable[Event[Any] | tuple[str, Any]], req_guid: str | None) -> Request:
        """Make a request of events. A call that raises keeps nothing.

        Args:
            events: Event(type, data) or (type, data) pairs, at least one.
            req_guid: The caller's guid, or None for a fresh one (uuid4 text).

        Raises:
            TypeError, ValueError: `events` or `req_guid` is invalid.
            SerializationError: The serializer failed on an event; its index and type are named.
            MessageTooLargeError: The message would be over the transport's limit.
        """
        req_guid = resolve_guid(req_guid)
        envelope = self._new_envelope()
        if self._is_raw and events.__class__ is list:
            self._add_list(envelope, events)
        else:
            check_events(events)
            for index, event in enumerate(events):
                self._add(envelope, index, event)
        if not envelope.count:
            raise ValueError("events is empty: a request needs at least one event")
        return self._finished(envelope, req_guid)

    def _check_size(self, size: int, count: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise MessageTooLargeError(
                f"the request is {size} bytes, but the server accepts {self._max_bytes}; send fewer of its "
                f"{count} events at once",
                size=size,
                limit=self._max_bytes,
            )

    def _finished(self, envelope: ProtoEnvelope | JsonEnvelope, req_guid: str) -> Request:
        size = envelope.nbytes_for(req_guid)
        if self._max_bytes is not None:
            self._check_size(size, envelope.count)
        request = Request(req_guid, envelope, self._wire, size)
        if self._tracing is not None and self._address is not None:
            request.trace = self._tracing.of_request(req_guid, envelope.count, size, self._address)
            request.headers = None if request.trace is None else request.trace.headers
        return request

    def _add_list(self, envelope: ProtoEnvelope | JsonEnvelope, events: list[Any]) -> None:
        """Add events of bytes; unusual ones, such as pairs that are lists, one by one."""
        index = envelope.add_run(events, 0)
        while index < len(events):
            try:
                event = events[index]
            except IndexError:  # another thread has removed it
                return
            self._add(envelope, index, event)
            index = envelope.add_run(events, index + 1)

    def _add(self, envelope: ProtoEnvelope | JsonEnvelope, index: int, event: object) -> None:
        event_type, data = pair_of(index, event)
        try:
            payload = self._serializer(data)
            envelope.add(event_type, payload)
        except MessageTooLargeError:
            raise
        except Exception as error:
            raise SerializationError(
                f"events[{index}] of type {event_type!r}: {error}",
                index=index,
                event_type=event_type,
                path=getattr(error, "path", ""),
            ) from error


def resolve_guid(req_guid: str | None) -> str:
    """The caller's guid, or a fresh one (uuid4 text).

    Raises:
        TypeError, ValueError: The guid is invalid.
    """
    if req_guid is None:
        return new_guid()
    if not isinstance(req_guid, str):
        raise TypeError(f"req_guid takes a str, not {type(req_guid).__name__}")
    if not req_guid or len(req_guid.encode()) > MAX_GUID_BYTES:
        raise ValueError(f"req_guid must be 1 to {MAX_GUID_BYTES} bytes of UTF-8, not {req_guid[:60]!r}")
    return req_guid
