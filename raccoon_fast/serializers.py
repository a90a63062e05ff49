"""Serializers turn an event's data into bytes: `PROTO`, `JSON`, `RAW`, or any callable `object -> bytes`.

The bytes are opaque to Raccoon (proto field Event.event_bytes): the readers of its sink decide what they
are. The envelope around them is separate; a client's `wire` option selects it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    #: The type that a serializer accepts, and so the type of an event's data in its client or producer. Any by default.
    Data_contra = TypeVar("Data_contra", contravariant=True, default=Any)
else:
    from typing import TypeVar

    Data_contra = TypeVar("Data_contra", contravariant=True)

__all__ = ["JSON", "PROTO", "RAW", "Data_contra", "Serializer", "is_raw", "resolve_serializer"]

Serializer: TypeAlias = Callable[[Data_contra], bytes]


class _Message(Protocol):
    """A protobuf message of any library."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


_Bytes: TypeAlias = bytes | bytearray | memoryview


class _Builtin(Generic[Data_contra]):
    """A named serializer. `load` makes the bare function, so that its library is imported on first use."""

    __slots__ = ("_name", "load")

    def __init__(self, name: str, load: Callable[[], Serializer[Any]]) -> None:
        self._name = name
        self.load = load

    def __call__(self, data: Data_contra, /) -> bytes:
        return self.load()(data)

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> Any:
        return self._name  # pickled by reference: another process gets its own object


def _encode_message(message: Any) -> bytes:
    try:
        serialize = message.SerializeToString
    except AttributeError:
        raise TypeError(
            f"PROTO takes a protobuf message, not {type(message).__name__}: "
            "use serializer=JSON for dicts and the like, serializer=RAW for bytes"
        ) from None
    data: bytes = serialize()
    return data


def _take_bytes(data: Any) -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    hint = ": encode it first, text.encode()" if isinstance(data, str) else ""
    raise TypeError(f"RAW takes bytes, bytearray or memoryview, not {type(data).__name__}{hint}")


class _Json(_Builtin[Any]):
    """See JSON."""

    __slots__ = ("_default", "_option")

    def __init__(self, default: Callable[[Any], Any] | None = None, option: int = 0) -> None:
        super().__init__("JSON", self._load)
        self._default = default
        self._option = option

    def with_options(self, *, default: Callable[[Any], Any] | None = None, option: int = 0) -> _Json:
        """A JSON serializer that accepts further types.

        Args:
            default: Called with an object that JSON does not support; returns a supported one, or raises TypeError.
                Runs in the thread that emits, so it must be thread-safe if several threads emit.
            option: Flags of raccoon_fast.json_codec, such as OPT_NON_STR_KEYS; if orjson is installed, any of its
                flags.

        Raises:
            TypeError: An argument is invalid.
        """
        if default is not None and not callable(default):
            raise TypeError(f"default takes a callable, not {default!r}")
        if not isinstance(option, int):
            raise TypeError(f"option takes flags of raccoon_fast.json_codec, such as OPT_NON_STR_KEYS, not {option!r}")
        return _Json(default, option)

    def _load(self) -> Serializer[Any]:
        from raccoon_fast.json_encoder import JsonEncoder

        return JsonEncoder(self._default, self._option)

    def __repr__(self) -> str:
        if self._default is None and not self._option:
            return "JSON"
        return f"JSON.with_options(default={self._default!r}, option={self._option})"

    def __reduce__(self) -> Any:
        if self._default is None and not self._option:
            return "JSON"
        return _Json, (self._default, self._option)


PROTO: _Builtin[_Message] = _Builtin("PROTO", lambda: _encode_message)
"""Takes a protobuf message (anything with SerializeToString); raises TypeError for anything else."""

JSON: _Json = _Json()
"""Takes dict, list, str, int (64 bit), float, bool, None, and other types that are common in events.

| type | becomes |
| --- | --- |
| dataclass, attrs class, pydantic model | an object of its fields |
| datetime, date, time | RFC 3339 text |
| Decimal, UUID | text |
| Enum | its value |
| set, frozenset | an array in any order |
| bytes, bytearray, memoryview | base64 text |
| numpy scalar or array | a number, or arrays of numbers |

Writes compact UTF-8 with the fastest installed library, see `raccoon_fast.json_codec`. NaN and infinities
become null, a UTC offset of zero is "Z". For other types it raises SerializationError, a TypeError and a
ValueError that names the event's type, its index and the path in its data; `JSON.with_options(default=…)` adds types.
"""

RAW: _Builtin[_Bytes] = _Builtin("RAW", lambda: _take_bytes)
"""Takes bytes, bytearray or memoryview and sends them unchanged; raises TypeError for anything else."""


def is_raw(serializer: Serializer[Any]) -> bool:
    """Whether a result of `resolve_serializer` is that of RAW, which returns bytes as they are."""
    return serializer is _take_bytes


def resolve_serializer(value: object) -> Serializer[Any]:
    """Turns the `serializer` option into the function that is called once per event.

    Args:
        value: PROTO, JSON, RAW, or a callable that takes an event's data and returns bytes.

    Returns:
        The bare function; for JSON a JsonEncoder.

    Raises:
        TypeError: `value` is not callable.
    """
    if isinstance(value, _Builtin):
        return value.load()
    if not callable(value):
        raise TypeError(f"serializer must be PROTO, JSON, RAW or a callable object -> bytes, not {value!r}")
    return value
