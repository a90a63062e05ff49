"""The pure-Python form of Slices, Field and encode_rows, with their contracts."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from raccoon_fast import json_codec
from raccoon_fast.core._column_kinds import check_field, check_slices, refuse_offset
from raccoon_fast.core.wire import encode_varint

__all__ = ["Field", "Slices", "encode_rows"]

Buffer: TypeAlias = Any
"""Anything with the buffer protocol, such as pyarrow.Buffer."""

_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


class Slices:
    """The bytes of many events, one after the other in one buffer, like a binary column in Arrow.

    Args:
        data: The buffer, or None for no bytes at all. It is read as long as this object lives.
        offsets: Where each slice begins and, after these, where the last slice ends: native integers.
        first: The index of the first slice's offset in `offsets`.
        count: The number of slices.
        width: Bytes of an offset, 4 or 8.

    Attributes:
        at: The index of the next slice, for the code that reads them in order. It starts at 0.

    Raises:
        ValueError: There are not enough offsets. (A slice outside the data raises only when it is read.)
        TypeError, BufferError: An argument has a wrong type, or is no usable buffer.
    """

    __slots__ = ("_count", "_data", "_first", "_offsets", "at")

    def __init__(self, data: Buffer | None, offsets: Buffer, first: int, count: int, width: int) -> None:
        check_slices(first, count, width)
        view = memoryview(offsets).cast("B")
        if len(view) // width - 1 < first + count:
            raise ValueError(
                f"{len(view)} bytes of offsets are too few for {count} slices of {width} bytes from {first} on"
            )
        self._data = memoryview(b"" if data is None else data).cast("B")
        self._offsets = _numbers(view, width, is_signed=True)
        self._first = first
        self._count = count
        self.at = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < self._count:
            raise IndexError(f"there are {self._count} slices, and none is number {index}")
        return _slice(self._data, self._offsets, self._first + index)

    def part(self, start: int, stop: int) -> Slices:
        """Return the slices from `start` to before `stop`, which share the buffers.

        Raises:
            IndexError: There are not so many slices.
        """
        self._check_range(start, stop)
        return Slices(self._data, self._offsets, self._first + start, stop - start, self._offsets.itemsize)

    def nbytes(self, start: int, stop: int) -> int:
        """Return how many bytes the slices from `start` to before `stop` have together.

        Raises:
            IndexError: There are not so many slices.
            ValueError: The first or the last one is outside the data.
        """
        self._check_range(start, stop)
        return len(_between(self._data, self._offsets, self._first + start, self._first + stop))

    def joined(self) -> bytes:
        """Return all slices together.

        Raises:
            ValueError: The first or the last one is outside the data.
        """
        return _between(self._data, self._offsets, self._first, self._first + self._count).tobytes()

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self._count:
            raise IndexError(f"there are {self._count} slices, and none from {start} to {stop}")


class Field:
    """One column of the rows that `encode_rows` writes: Arrow's buffers, and how to write a value.

    | kind | values in the column | written as |
    | --- | --- | --- |
    | integer | integers | decimal digits |
    | boolean | bits | true or false |
    | string | text | a JSON string |
    | text | text that is JSON already | the same text |
    | varint | integers | a varint of 64 bits |
    | zigzag | signed integers | a zigzag varint |
    | fixed | 4 or 8 bytes | the same bytes, little-endian |
    | flag | bits | a varint |
    | bytes | bytes | their length, then the bytes |
    | moment | 64-bit integers, time since 1970 | the length of a google.protobuf.Timestamp, then the Timestamp |
    | finished | bytes | the same bytes |

    Args:
        kind: See above.
        before: Bytes to write before each value.
        rows: The number of values.
        values: Arrow's buffer of values; with offsets, its buffer of data.
        offsets: Arrow's buffer of offsets, for text and bytes.
        validity: Arrow's bitmap of the values that are not null; None if there are no nulls.
        first: The index of the first value in the buffers.
        width: Bytes of an integer, or of an offset.
        is_signed: Whether the integers are signed.
        null: Bytes to write for a null, after `before`. If empty, nothing is written for a null.
        skips_zero: Whether nothing, not even `before`, is written for a value that is zero or empty.
        per_second: The unit of a moment: how many make a second.

    Raises:
        TypeError, ValueError, BufferError: An argument is invalid, or a buffer is too short.
    """

    __slots__ = ("_before", "_first", "_null", "_read", "_skips_zero", "_validity", "_write", "rows")

    def __init__(
        self,
        kind: str,
        before: bytes,
        rows: int,
        *,
        values: Buffer | None = None,
        offsets: Buffer | None = None,
        validity: Buffer | None = None,
        first: int = 0,
        width: int = 0,
        is_signed: bool = True,
        null: bytes = b"",
        skips_zero: bool = False,
        per_second: int = 1,
    ) -> None:
        check_field(kind, before, rows, first, width, null, per_second, values, offsets, is_signed)
        self.rows = rows
        self._first = first
        self._before = before
        self._null = before + null if null else b""
        self._skips_zero = skips_zero
        end = first + rows
        self._read = _reader(kind, end, values, offsets, width, is_signed)
        self._write = _WRITERS[kind]
        if kind == "fixed":
            self._write = functools.partial(int.to_bytes, length=width, byteorder="little")
        elif kind == "moment":
            self._write = functools.partial(_moment, per_second=per_second)
        self._validity = None
        if validity is not None:
            self._validity = memoryview(validity).cast("B")
            if (end + 7) // 8 > len(self._validity):
                raise ValueError(f"{len(self._validity)} bytes of validity are too few for {end} bits")

    def encoded(self, rows: int) -> Iterator[bytes]:
        """Yield the bytes to write for each of the first `rows` rows."""
        for place in range(self._first, self._first + rows):
            if self._validity is not None and not _bit(self._validity, place):
                yield self._null
                continue
            value = self._read(place)
            yield b"" if self._skips_zero and not value else self._before + self._write(value)


def encode_rows(fields: Iterable[Field], rows: int, end: bytes = b"") -> Slices:
    """Write each row: for each field its `before` and its value, then `end`.

    Args:
        fields: The fields, in the order in which to write them.
        rows: The number of rows.
        end: Bytes to write after each row.

    Returns:
        One slice per row.

    Raises:
        ValueError: A field has fewer rows, or an offset is outside its data.
        MemoryError: There is not enough memory for the rows.
    """
    columns = [*fields]
    for field in columns:
        if field.rows < rows:
            raise ValueError(f"a field has {field.rows} rows, and {rows} are asked for")
    if rows < 0:
        raise ValueError(f"rows should be 0 or more, not {rows}")
    parts = [field.encoded(rows) for field in columns]
    encoded = [b"".join(values) + end for values in zip(*parts, strict=True)] if parts else [end] * rows
    ends = [0]
    for row in encoded:
        ends.append(ends[-1] + len(row))
    offsets = b"".join([place.to_bytes(8, sys.byteorder) for place in ends])
    return Slices(b"".join(encoded), offsets, 0, rows, 8)


def _reader(kind: str, end: int, values: Buffer, offsets: Buffer, width: int, is_signed: bool) -> Callable[[int], Any]:
    """Return a function that reads the value at an index below `end`."""
    data = memoryview(b"" if values is None else values).cast("B")
    if offsets is not None:
        view = memoryview(offsets).cast("B")
        if len(view) // width - 1 < end:
            raise ValueError(f"{len(view)} bytes of offsets are too few for {end} values of {width} bytes")
        return functools.partial(_slice, data, _numbers(view, width, is_signed=True))
    if kind in ("boolean", "flag"):
        if (end + 7) // 8 > len(data):
            raise ValueError(f"{len(data)} bytes of values are too few for {end} bits")
        return functools.partial(_bit, data)
    if end > len(data) // width:
        raise ValueError(f"{len(data)} bytes of values are too few for {end} of {width} bytes")
    return _numbers(data, width, is_signed=is_signed and kind != "fixed").__getitem__


def _numbers(data: memoryview, width: int, *, is_signed: bool) -> memoryview:
    """View `data` as integers of `width` bytes. Bytes left over at the end are dropped."""
    code: Any = _CODES[width] if is_signed else _CODES[width].upper()
    return data[: len(data) // width * width].cast(code)


def _slice(data: memoryview, offsets: memoryview, place: int) -> bytes:
    return _between(data, offsets, place, place + 1).tobytes()


def _between(data: memoryview, offsets: memoryview, first: int, last: int) -> memoryview:
    start, end = offsets[first], offsets[last]
    if not 0 <= start <= end <= len(data):
        refuse_offset(start, end, len(data))
    return data[start:end]


def _bit(bits: memoryview, place: int) -> int:
    return bits[place >> 3] >> (place & 7) & 1


def _varint(value: int) -> bytes:
    return encode_varint(value & 0xFFFFFFFFFFFFFFFF)


def _moment(value: int, per_second: int) -> bytes:
    seconds, part = divmod(value, per_second)
    nanos = part * (1_000_000_000 // per_second)
    time = (b"\x08" + _varint(seconds) if seconds else b"") + (b"\x10" + _varint(nanos) if nanos else b"")
    return bytes([len(time)]) + time


def _string(value: bytes) -> bytes:
    # Keep bytes that are not UTF-8. The compiled form does so too: it does not check whether text is UTF-8.
    text = json_codec.encode(value.decode("latin-1"))
    return text if value.isascii() else text.decode().encode("latin-1")


def _as_it_is(value: bytes) -> bytes:
    return value


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "integer": lambda value: b"%d" % value,
    "boolean": lambda value: b"true" if value else b"false",
    "string": _string,
    "text": _as_it_is,
    "varint": _varint,
    "zigzag": lambda value: _varint(value << 1 ^ value >> 63),
    "fixed": _as_it_is,
    "flag": lambda value: b"\x01" if value else b"\x00",
    "bytes": lambda value: encode_varint(len(value)) + value,
    "moment": _as_it_is,
    "finished": _as_it_is,
}
