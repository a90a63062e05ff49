"""JSON by orjson."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orjson import (
    OPT_APPEND_NEWLINE,
    OPT_NON_STR_KEYS,
    OPT_SERIALIZE_NUMPY,
    OPT_UTC_Z,
    Fragment,
    loads,
)
from orjson import dumps as _dumps

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

NAME = "orjson"


# Positional arguments: a functools.partial with an option costs seven times as much as this frame.
def encode(value: Any) -> bytes:
    """See `_stdlib.encode`."""
    return _dumps(value, None, OPT_UTC_Z)


def dumps(value: Any, default: Callable[[Any], Any] | None = None, option: int = 0) -> bytes:
    """See `_stdlib.dumps`."""
    return _dumps(value, default, option | OPT_UTC_Z)
