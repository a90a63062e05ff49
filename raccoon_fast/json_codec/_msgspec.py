"""JSON by msgspec."""

from __future__ import annotations

import re
from collections.abc import Callable
from json import JSONDecodeError
from typing import Any

from msgspec import DecodeError
from msgspec import Raw as Fragment
from msgspec.json import Encoder, decode

__all__ = [
    "NAME",
    "OPT_APPEND_NEWLINE",
    "OPT_NON_STR_KEYS",
    "OPT_SERIALIZE_NUMPY",
    "Fragment",
    "dumps",
    "encode",
    "loads",
]

NAME = "msgspec"
_PLACE = re.compile(r" \(byte (\d+)\)$")
OPT_APPEND_NEWLINE = 1
# Keys of other types are always written, and numpy objects go to `default`.
OPT_NON_STR_KEYS = 0
OPT_SERIALIZE_NUMPY = 0


def _plain(value: Any) -> Any:
    """Converts a subclass of str or int to str or int; msgspec handles subclasses of dict and list itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


_encode = Encoder(enc_hook=_plain).encode


def encode(value: Any) -> bytes:
    """See `_stdlib.encode`."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise TypeError(str(error)) from error


def dumps(value: Any, default: Callable[[Any], Any] | None = None, option: int = 0) -> bytes:
    """See `_stdlib.dumps`."""
    if default is None:
        data = encode(value)
    else:

        def convert(part: Any) -> Any:
            return _plain(part) if isinstance(part, (str, int)) else default(part)

        try:
            data = Encoder(enc_hook=convert).encode(value)
        except (UnicodeEncodeError, RecursionError, OverflowError) as error:
            raise TypeError(str(error)) from error
    return data + b"\n" if option & OPT_APPEND_NEWLINE else data


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """See `_stdlib.loads`."""
    try:
        return decode(data)
    except (DecodeError, UnicodeError, RecursionError) as error:
        raise _decode_error(data, str(error)) from error


def _decode_error(data: bytes | bytearray | memoryview | str, said: str) -> JSONDecodeError:
    """The error with its place in the text, from the byte position that may end msgspec's message."""
    text = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
    place = _PLACE.search(said)
    end = int(place[1]) if place else len(text) if "truncated" in said else 0
    if "trailing characters" in said:  # it names the following byte
        end -= 1
    before = text[:end].decode(errors="replace")
    return JSONDecodeError(_PLACE.sub("", said), text.decode(errors="replace"), len(before))
