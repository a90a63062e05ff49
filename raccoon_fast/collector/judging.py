"""Checks events: an event is bad if its data does not match its type's JSON Schema or protobuf message.

A bad event is received, acknowledged and published like any other, but counted and shown separately.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from raccoon_fast import json_codec
from raccoon_fast.collector.records import Batch, ReceivedEvent
from raccoon_fast.proto_pool import parse

__all__ = ["MAX_BAD_EVENTS", "BadEvent", "EventJudge", "Fault"]

#: The number of bad events kept; all are counted.
MAX_BAD_EVENTS = 1000
_MAX_REASON_LENGTH = 500


class Fault(NamedTuple):
    """What is wrong with an event.

    Attributes:
        path: Where the fault is: a JSON path ("$.items[2].price") or a field name; "$" for the whole value.
        reason: What is wrong there.
    """

    path: str
    reason: str


class BadEvent(NamedTuple):
    """An event whose data does not match its type.

    Attributes:
        event: The event.
        path: See Fault.path.
        reason: See Fault.reason.
    """

    event: ReceivedEvent
    path: str
    reason: str

    def __str__(self) -> str:
        """One line: type, guid, path and reason."""
        return f"{self.event.type!r} of request {self.event.req_guid}: at {self.path}: {self.reason}"


Check = Callable[[bytes], "Fault | None"]


class EventJudge:
    """Checks events on the collector's event loop; any thread may read the results.

    Args:
        schemas: JSON Schemas by event type: the path of a file, or the schema itself.
        messages: Protobuf message classes by event type.

    Raises:
        ImportError: jsonschema is not installed.
        OSError: A schema's file cannot be read.
        TypeError, ValueError: An argument is invalid.
    """

    def __init__(
        self,
        schemas: Mapping[str, str | os.PathLike[str] | Mapping[str, Any]] | None = None,
        messages: Mapping[str, Any] | None = None,
    ) -> None:
        self._checks: dict[str, Check] = {}
        self._lock = threading.Lock()
        self._bad: deque[BadEvent] = deque(maxlen=MAX_BAD_EVENTS)
        self._count = 0
        for event_type, message_class in (messages or {}).items():
            self._checks[event_type] = _message_check(message_class)
        if schemas is not None and not isinstance(schemas, Mapping):
            raise TypeError(f"schemas must map event types to JSON Schemas, not {schemas!r}")
        for event_type, schema in (schemas or {}).items():
            if not isinstance(event_type, str):
                raise TypeError(f"schemas must map event types to JSON Schemas, not {event_type!r}")
            if event_type in self._checks:
                raise ValueError(f"{event_type!r} has both a JSON Schema and a protobuf message: give only one")
            self._checks[event_type] = _schema_check(event_type, schema)

    @property
    def bad_events(self) -> list[BadEvent]:
        """The last bad events, oldest first."""
        with self._lock:
            return list(self._bad)

    @property
    def bad_count(self) -> int:
        """The number of bad events."""
        return self._count

    def judge(self, batch: Batch) -> dict[int, Fault]:
        """Check the events of a published batch.

        Returns:
            The faults by index of the bad event.
        """
        faults: dict[int, Fault] = {}
        if not self._checks:
            return faults
        if batch.types and self._checks.keys().isdisjoint(batch.types):
            return faults
        for index, event in enumerate(batch.events()):
            fault = self.fault_of(event.type, event.data)
            if fault is not None:
                faults[index] = fault
                with self._lock:
                    self._count += 1
                    self._bad.append(BadEvent(event, *fault))
        return faults

    def fault_of(self, event_type: str, data: bytes) -> Fault | None:
        """The fault of an event's data; None if it is good, or its type has no schema or message."""
        check = self._checks.get(event_type)
        return None if check is None else check(data)

    def clear(self) -> None:
        """Forget the bad events."""
        with self._lock:
            self._bad.clear()
            self._count = 0


def _message_check(message_class: Any) -> Check:
    name = message_class.DESCRIPTOR.full_name

    def check(data: bytes) -> Fault | None:
        try:
            message = parse(message_class, data)
        except DecodeError as error:
            return Fault("$", f"is not a {name}: {error}")
        if not message.IsInitialized():
            missing = message.FindInitializationErrors()
            return Fault(missing[0], f"is required by {name}, but missing")
        unknown = UnknownFieldSet(message)
        return Fault(f"field {unknown[0].field_number}", f"is not a field of {name}") if len(unknown) else None

    return check


def _schema_check(event_type: str, schema: str | os.PathLike[str] | Mapping[str, Any]) -> Check:
    try:
        import jsonschema
        from jsonschema.exceptions import SchemaError, best_match
    except ImportError as error:
        raise ImportError("JSON Schemas need another package: pip install jsonschema") from error
    loaded: Any = schema
    if isinstance(schema, (str, os.PathLike)):
        path = Path(schema)
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"schemas: {path} (for {event_type!r}) is not JSON: {error}") from None
    validator_class = jsonschema.validators.validator_for(loaded, default=jsonschema.Draft202012Validator)
    try:
        validator_class.check_schema(loaded)
    except SchemaError as error:
        raise ValueError(f"schemas: the schema of {event_type!r} is not a JSON Schema: {error.message}") from None
    validator = validator_class(loaded)

    def check(data: bytes) -> Fault | None:
        try:
            value = json_codec.loads(data)
        except json_codec.JSONDecodeError as error:
            return Fault("$", f"is not JSON: {error}")
        worst = best_match(validator.iter_errors(value))
        return None if worst is None else Fault(worst.json_path, worst.message[:_MAX_REASON_LENGTH])

    return check
