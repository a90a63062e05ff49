"""Encodes an event's data as JSON: types that the library supports, and other types common in events.

Strategy. Most data only needs the library, so it is tried first. Only if it refuses something, the data is
encoded again, with a hook that converts unknown types. Only if that fails too, the data is searched
for the path of the value that cannot be encoded.
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
    """Raised by the hook for values of unsupported types."""


class JsonEncoder:
    """Encodes data as JSON bytes. Thread-safe if `default` is.

    Args:
        default: Converts an object of an unsupported type into a supported one; raises TypeError if it cannot.
        option: Flags of raccoon_fast.json_codec, such as OPT_NON_STR_KEYS.

    Attributes:
        plain: Encodes data that needs no conversion and raises TypeError for other data, which `rescue` takes; without
            a Python frame if no option is set.
    """

    def __init__(self, default: Callable[[Any], Any] | None = None, option: int = 0) -> None:
        self._default = default
        self._option = option | _OPTION
        self.plain: Callable[[Any], bytes] = json_codec.encode if not option else self._dumps

    def __call__(self, data: Any) -> bytes:
        """Encode data.

        Raises:
            SerializationError: The data contains a value that JSON cannot represent; `path` leads to it.
        """
        try:
            return self.plain(data)
        except TypeError:
            return self.rescue(data)

    def rescue(self, data: Any, event_type: str = "", index: int | None = None) -> bytes:
        """Encode data that `plain` refused.

        Args:
            data: The data.
            event_type: The event's type, for the error.
            index: The event's position among several, for the error.

        Raises:
            SerializationError: See `__call__`; its cause is the exception of `default`.
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
            raise _Refused(f"{type(value).__name__} has no JSON form; convert it with JSON.with_options(default=…)")
        return converted

    def _find(self, data: Any, error: TypeError) -> tuple[str, str]:
        """The JSONPath of the first value that cannot be encoded, and the reason."""
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
        # A value converted to a list or a dict has parts; a path into it is a path into the object.
        return self._parts(converted) if isinstance(converted, (dict, list)) else []

    def __repr__(self) -> str:
        if self._default is None and self._option == _OPTION:
            return "JSON"
        return f"JSON.with_options(default={self._default!r}, option={self._option & ~_OPTION})"


def _refusal(error: TypeError) -> BaseException:
    """Orjson wraps exceptions of the hook; the other libraries do not."""
    return error.__cause__ if isinstance(error.__cause__, _Refused) else error


def _reason(error: TypeError) -> str:
    said = str(_refusal(error))
    hint = "; use JSON.with_options(option=json_codec.OPT_NON_STR_KEYS)" if "key must be str" in said else ""
    return f"{said}{hint}"


def _convert(value: Any) -> Any:
    """The JSON form of a value that the library does not support; _UNKNOWN if there is none."""
    if isinstance(value, Decimal):
        return str(value)  # most readers parse a JSON number as float, which rounds it
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
        return value.tolist()  # arrays and scalars that the library refuses: not contiguous, or of another kind
    return _UNKNOWN
