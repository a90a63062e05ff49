"""How an event's data becomes bytes: `PROTO`, `JSON`, `RAW`, or any callable `object -> bytes`.

The bytes are opaque to Raccoon (proto field Event.event_bytes): whoever reads them from its sink decides what they
are. This is apart from the envelope around them, which a client's `wire` option chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    #: What a serializer takes, and so what a client or producer of it takes as an event's data; anything, if not said.
    Data_contra = TypeVar("Data_contra", contravariant=True, default=Any)
else:
    from typing import TypeVar

    Data_contra = TypeVar("Data_contra", contravariant=True)

__all__ = ["JSON", "PROTO", "RAW", "Data_contra", "Serializer", "resolve_serializer"]

Serializer: TypeAlias = Callable[[Data_contra], bytes]


class _Message(Protocol):
    """A protobuf message, of whatever library."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


_Bytes: TypeAlias = bytes | bytearray | memoryview


class _Builtin(Generic[Data_contra]):
    """A serializer with a name. `load` makes the bare function, so that a library it needs is imported on first use."""

    __slots__ = ("_name", "load")

    def __init__(self, name: str, load: Callable[[], Serializer[Any]]) -> None:
        self._name = name
        self.load = load

    def __call__(self, data: Data_contra, /) -> bytes:
        return self.load()(data)

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> Any:
        return self._name  # pickled by reference: another process gets its own


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
        """The same serializer, for further types.

        Args:
            default: Called with an object that JSON does not take; returns one that it does, or raises TypeError. Runs
                in the thread that emits, so it must be thread-safe where several do.
            option: Flags of raccoon_fast.json_codec, such as OPT_NON_STR_KEYS; where orjson is installed, any of its
                flags.

        Raises:
            TypeError: An argument is not what it should be.
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
"""Takes dict, list, str, int (64 bit), float, bool, None, and objects that are common in events.

| of | becomes |
| --- | --- |
| dataclass, attrs class, pydantic model | an object of its fields |
| datetime, date, time | RFC 3339 text |
| Decimal, UUID | text |
| Enum | its value |
| set, frozenset | an array, in no order |
| bytes, bytearray, memoryview | base64 text |
| numpy scalar or array | a number, or arrays of numbers |

Writes compact UTF-8 with the fastest library that is installed, see `raccoon_fast.json_codec`. NaN and infinities
become null, a UTC offset of zero is "Z". For anything else it raises SerializationError, a TypeError and a
ValueError, which names the event's type, its index and the path in its data; `JSON.with_options(default=…)` takes more.
"""

RAW: _Builtin[_Bytes] = _Builtin("RAW", lambda: _take_bytes)
"""Takes bytes, bytearray or memoryview and sends them as they are; raises TypeError for anything else."""


def resolve_serializer(value: object) -> Serializer[Any]:
    """Turns the `serializer` option into the function that is called once an event.

    Args:
        value: PROTO, JSON, RAW, or a callable that takes an event's data and returns bytes.

    Returns:
        The bare function; for JSON a JsonEncoder.

    Raises:
        TypeError: `value` cannot be called.
    """
    if isinstance(value, _Builtin):
        return value.load()
    if not callable(value):
        raise TypeError(f"serializer must be PROTO, JSON, RAW or a callable object -> bytes, not {value!r}")
    return value
