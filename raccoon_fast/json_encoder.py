"""Encodes an event's data as JSON: what the library takes, and the types around it that programs have in their events.

Strategy. The library alone comes first, since most data needs nothing else. Only where it refuses something is the data
encoded again, with a hook that converts what the library does not know; only where that fails too is it walked through
for the path of what cannot be encoded.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JsonEncoder"]

_OPTION = json_codec.OPT_SERIALIZE_NUMPY
# orjson's own limit is 254 levels.
_MOST_LEVELS = 256
_MOST_PATH = 200
_UNKNOWN = object()


class _Refused(TypeError):
    """What the hook for other types says of one that is none."""


class JsonEncoder:
    """Data to bytes of JSON. Safe from any thread as long as `default` is.

    Args:
        default: Converts an object that is of no type known here into one that is; raises TypeError for any other.
        option: Flags of raccoon_fast.json_codec, such as OPT_NON_STR_KEYS.

    Attributes:
        plain: Encodes what needs no conversion and raises TypeError for the rest, which `rescue` takes; without a frame
            of Python where no option is set.
    """

    def __init__(self, default: Callable[[Any], Any] | None = None, option: int = 0) -> None:
        self._default = default
        self._option = option | _OPTION
        self.plain: Callable[[Any], bytes] = json_codec.encode if not option else self._dumps

    def __call__(self, data: Any) -> bytes:
        """Encode data.

        Raises:
            SerializationError: It holds something that JSON cannot say; `path` leads there.
        """
        try:
            return self.plain(data)
        except TypeError:
            return self.rescue(data)

    def rescue(self, data: Any, event_type: str = "", index: int | None = None) -> bytes:
        """Encode data that `plain` did not take.

        Args:
            data: As above.
            event_type: For the error: the event's type.
            index: For the error: the event's place among several.

        Raises:
            SerializationError: As above; its cause is what `default` raised.
        """
        try:
            return self._dumps(data)
        except TypeError as error:
            path, why = self._find(data, error)
            where = f"events[{index}]" if index is not None else "event"
            whose = f"{where} of type {event_type!r}: " if event_type else ""
            raise SerializationError(
                f"{whose}JSON cannot encode the data at {path}: {why}", index=index, event_type=event_type, path=path
            ) from _refusal(error).__cause__

    def _dumps(self, data: Any) -> bytes:
        return json_codec.dumps(data, self._convert, self._option)

    def _convert(self, value: Any) -> Any:
        try:
            converted = _convert(value)
            if converted is _UNKNOWN and self._default is not None:
                converted = self._default(value)
        except Exception as error:
            raise _Refused(f"{type(value).__name__}: {error}") from error
        if converted is _UNKNOWN:
            raise _Refused(f"{type(value).__name__} is no type of JSON; convert it with JSON.with_options(default=…)")
        return converted

    def _find(self, data: Any, error: TypeError) -> tuple[str, str]:
        """The path of the first thing that cannot be encoded, as JSONPath has it, and why."""
        path = "$"
        for _ in range(_MOST_LEVELS):
            for step, part in self._parts(data):
                try:
                    self._dumps(part)
                except TypeError as of_part:  # noqa: PERF203
                    path, data, error = path + step, part, of_part
                    break
            else:
                break
        return path if len(path) <= _MOST_PATH else f"{path[:_MOST_PATH]}…", _reason(error)

    def _parts(self, data: Any) -> list[tuple[str, Any]]:
        if isinstance(data, dict):
            return [(f".{key}" if str(key).isidentifier() else f"[{key!r:.80}]", part) for key, part in data.items()]
        if isinstance(data, (list, tuple)):
            return [(f"[{position}]", part) for position, part in enumerate(data)]
        if dataclasses.is_dataclass(data) and not isinstance(data, type):
            names = [field.name for field in dataclasses.fields(data) if not field.name.startswith("_")]
            return [(f".{name}", getattr(data, name)) for name in names if hasattr(data, name)]
        converted = _convert(data)
        # What became a list or a dict has parts; a path into it is one into the object.
        return self._parts(converted) if isinstance(converted, (dict, list)) else []

    def __repr__(self) -> str:
        if self._default is None and self._option == _OPTION:
            return "JSON"
        return f"JSON.with_options(default={self._default!r}, option={self._option & ~_OPTION})"


def _refusal(error: TypeError) -> BaseException:
    """Orjson wraps what the hook raises; the others let it through."""
    return error.__cause__ if isinstance(error.__cause__, _Refused) else error


def _reason(error: TypeError) -> str:
    said = str(_refusal(error))
    hint = "; use JSON.with_options(option=json_codec.OPT_NON_STR_KEYS)" if "key must be str" in said else ""
    return f"{said}{hint}"


def _convert(value: Any) -> Any:
    """What JSON has for a value that the library does not know; _UNKNOWN if nothing."""
    if isinstance(value, Decimal):
        return str(value)  # a JSON number is a float for most readers, which rounds it
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    kind = type(value)
    if hasattr(kind, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if isinstance(value, enum.Enum):
        return value.value
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()  # of arrays and scalars that the library leaves: not contiguous, or of another kind
    return _UNKNOWN
