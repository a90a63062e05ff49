"""JSON with the fastest installed library: orjson, else msgspec, else the standard library's json.

msgspec is a dependency of the package because it has wheels for every supported Python, including free-threaded builds;
orjson has none for those. `pip install 'raccoon_fast[fast]'` adds orjson. A 300-byte event of 19 members
takes about 400 ns with orjson, 440 ns with msgspec, and more than ten times as long with json.

All three write the same bytes for dicts with str keys, lists, tuples, str, int, float, bool, None, datetime, date,
time, UUID, Enum and dataclasses: compact UTF-8, NaN and infinities as null, a UTC offset of zero as "Z". Exceptions:
msgspec writes the exponent of floats from 1e16 on without a plus sign, and it writes dataclass fields whose
names start with an underscore, which the others leave out; orjson 3.13 omits a zero in a time (not a datetime) of
10 to 99 milliseconds after a second. Values that only some of them support (sets, bytes, Decimal, keys of other types,
integers beyond 64 bits) are refused by the others, or passed to `default`.
"""

from __future__ import annotations

from json import JSONDecodeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raccoon_fast.json_codec._stdlib import (
        NAME,
        OPT_APPEND_NEWLINE,
        OPT_NON_STR_KEYS,
        OPT_SERIALIZE_NUMPY,
        Fragment,
        dumps,
        encode,
        loads,
    )
else:
    _names = (
        "NAME",
        "OPT_APPEND_NEWLINE",
        "OPT_NON_STR_KEYS",
        "OPT_SERIALIZE_NUMPY",
        "Fragment",
        "dumps",
        "encode",
        "loads",
    )
    try:
        from raccoon_fast.json_codec import _orjson as _codec
    except ImportError:
        try:
            from raccoon_fast.json_codec import _msgspec as _codec
        except ImportError:
            from raccoon_fast.json_codec import _stdlib as _codec
    globals().update({name: getattr(_codec, name) for name in _names})

__all__ = [
    "NAME",
    "OPT_APPEND_NEWLINE",
    "OPT_NON_STR_KEYS",
    "OPT_SERIALIZE_NUMPY",
    "Fragment",
    "JSONDecodeError",
    "dumps",
    "encode",
    "loads",
]
