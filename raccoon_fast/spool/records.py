"""A record of the spool: the stored form of a batch, and its checks."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.core._request import MAX_EVENTS_BYTES, MAX_GUID_BYTES
from raccoon_fast.core.batch import Batch
from raccoon_fast.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Record", "checksum_of", "counts_of", "decode_text", "fault_of", "fault_of_events", "text_of"]

#: The start of the year 10000, UNIX time: no batch was accepted later.
_MAX_TIME_S = 253_402_300_800.0
# An event takes at least 4 bytes: a tag and a length, and the same for its type.
_MAX_EVENTS = MAX_EVENTS_BYTES // 4


class Record(NamedTuple):
    """The stored form of a batch.

    Attributes:
        req_guid: Its guid.
        wire: "proto" or "json".
        accepted_at: The UNIX time of its first event.
        types: Events by type.
        body: Its events in wire format (raccoon_fast.core.envelope, `body`).
        id: Its number in the Spool that returned it; 0 before it is stored.
    """

    req_guid: str
    wire: str
    accepted_at: float
    types: Mapping[str, int]
    body: bytes
    id: int = 0


def decode_text(data: bytes) -> str:
    """Decode text of the database; damaged text is found by its checksum."""
    return data.decode("utf-8", "replace")


def checksum_of(req_guid: str, wire: str, accepted_at: float, types: str, body: bytes) -> int:
    """The checksum of a record's other columns."""
    return zlib.crc32(body, zlib.crc32(f"{req_guid}\n{wire}\n{accepted_at!r}\n{types}".encode("utf-8", "replace")))


def text_of(types: Mapping[str, int]) -> str:
    """Encode events by type for storage."""
    return json.dumps(dict(types))


def counts_of(text: object) -> dict[str, int]:
    """Decode stored events by type.

    Returns:
        {} if the text is damaged or invalid: a count is not a whole number of 1 or more, or there are more
        events than any request has room for.
    """
    try:
        counts = json.loads(text)  # type: ignore[arg-type]
        if not isinstance(counts, dict) or not all(counts):
            return {}
        "".join(counts).encode()  # a type is UTF-8 on the wire
    except (ValueError, TypeError, RecursionError):
        return {}
    if not all(type(count) is int and count > 0 for count in counts.values()):
        return {}
    return counts if sum(counts.values()) <= _MAX_EVENTS else {}


def fault_of(columns: Sequence[Any]) -> str:
    """Why a record cannot be sent, as a clause; "" if these checks find no fault.

    Args:
        columns: req_guid, wire, accepted_at, types, checksum and body, with any content.
    """
    req_guid, wire, accepted_at, types, checksum, body = columns
    if not isinstance(body, bytes) or checksum_of(req_guid, wire, accepted_at, types, body) != checksum:
        return "its checksum does not hold"
    if wire not in ("proto", "json"):
        return "its wire format is unknown"
    if not isinstance(req_guid, str) or not 1 <= len(req_guid.encode("utf-8", "replace")) <= MAX_GUID_BYTES:
        return f"its guid has not 1 to {MAX_GUID_BYTES} bytes"
    if not isinstance(accepted_at, float) or not 0 <= accepted_at < _MAX_TIME_S:
        return "its time is out of range"
    if not 0 < sum(counts_of(types).values()) <= len(body):
        return "its counts by type make no sense"
    return ""


def fault_of_events(record: Record) -> str:
    """Why the events of a record cannot be sent, like `fault_of`; reads all of them, about 1 us each."""
    try:
        batch = Batch(record.wire)
        batch.load(record.body, record.types)
        found = Counter(event_type for event_type, _ in batch.events())
    except DecodeError:
        return "its events cannot be read"
    return "" if found == record.types else "its counts by type are not those of its events"
