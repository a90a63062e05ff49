"""HTTP/2's frames (RFC 9113, 4 and 6) and header blocks (RFC 7541), as far as a client of unary calls needs them.

Neither side uses HPACK's dynamic table: we tell the server not to (SETTINGS_HEADER_TABLE_SIZE of 0), and our own blocks
do not refer to earlier ones. So a block always has the same meaning, and need not be decoded again. A server that uses
the table nevertheless gets one on its next connection.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
from typing import TYPE_CHECKING

from hpack import Decoder
from hpack.exceptions import HPACKError, InvalidTableIndex, InvalidTableSizeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "ErrorCode",
    "Fields",
    "FrameError",
    "FrameReader",
    "MalformedError",
    "TableError",
    "TableReader",
    "encode_frame",
    "encode_header",
    "encode_settings",
    "read_block",
    "read_settings",
    "strip_padding",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: A frame's length in two parts, its type, its flags and its stream.
FRAME_HEAD = struct.Struct(">BHBBI")
DEFAULT_FRAME_SIZE = 16_384
DEFAULT_WINDOW = 65_535
MAX_WINDOW = MAX_STREAM = 2**31 - 1
#: The most bytes of names and values in one answer's header block; protects from a peer that sends headers without end.
MAX_BLOCK_BYTES = 64 * 1024
#: The size of HPACK's dynamic table if no setting says otherwise (RFC 9113, 6.5.2).
TABLE_BYTES = 4096
# The most frames of one header block; protects from a peer that sends empty frames without end (RFC 9113, 10.5).
_MOST_CONTINUATIONS = 128

#: Names, in lower case, and values, in their order.
Fields = tuple[tuple[bytes, bytes], ...]

# Types of frames (RFC 9113, 6), and their flags.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

# Parameters of SETTINGS (RFC 9113, 6.5.2).
(HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE) = (
    range(1, 7)
)

_OF_BLOCKS = (HEADERS, CONTINUATION)
# RFC 9113, 8.2.1: no control characters, spaces, upper case or colons in a name; no NUL, LF or CR in a value.
_IS_NAME = re.compile(rb"[!-9;-@\[-~]+").fullmatch
_ENDS_VALUE = re.compile(rb"[\x00\n\r]").search
_IS_STATUS = re.compile(rb"[1-9][0-9][0-9]").fullmatch
_OF_TABLES = (InvalidTableIndex, InvalidTableSizeError)
_SETTING = struct.Struct(">HI")


class ErrorCode(enum.IntEnum):
    """Reasons of RST_STREAM and GOAWAY (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13

    @classmethod
    def name_of(cls, number: int) -> str:
        """The code's name, or its number if it has no name."""
        try:
            return cls(number).name
        except ValueError:
            return f"error code {number}"


class FrameError(ValueError):
    """The peer's data is not HTTP/2.

    Attributes:
        code: The code for the GOAWAY that reports it.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class TableError(FrameError):
    """A header block refers to a dynamic table that does not exist, or is smaller."""


class MalformedError(ValueError):
    """An answer in well-formed frames violates HTTP: an error of its stream only (RFC 9113, 8.1.1)."""


class FrameReader:
    """Cuts received data into frames, and joins the parts of header blocks. Not thread-safe."""

    __slots__ = ("_block", "_block_flags", "_block_frames", "_block_stream", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        # The parts of an incomplete block, and its stream; stream 0 means that there is none.
        self._block_stream = 0
        self._block_flags = 0
        self._block_frames = 0
        self._block = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether the data so far ended with a whole frame, and no header block is incomplete."""
        return not (self._rest or self._block_stream)

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Take received data. The caller must exhaust the iterator.

        Yields:
            Type, flags, stream and payload of each complete frame. HEADERS have their whole block, without padding and
            priority; CONTINUATION frames are never yielded.

        Raises:
            FrameError: A frame is too large, too small for its padding, or interrupts the frames of a block.
        """
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= FRAME_HEAD.size:
            high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data, at)
            length = high << 16 | low
            if length > DEFAULT_FRAME_SIZE:
                raise FrameError(f"a frame of {length} bytes", ErrorCode.FRAME_SIZE_ERROR)
            start = at + FRAME_HEAD.size
            if start + length > size:
                break
            at = start + length
            payload = data[start:at]
            stream &= MAX_STREAM
            if kind in _OF_BLOCKS or self._block_stream:
                block = self._block_received(kind, flags, stream, payload)
                if block is None:
                    continue
                kind, flags, payload = HEADERS, *block
            yield kind, flags, stream, payload
        self._rest = data[at:]

    def _block_received(self, kind: int, flags: int, stream: int, payload: bytes) -> tuple[int, bytes] | None:
        """Flags and bytes of a block; None while it is incomplete."""
        if kind == HEADERS and not self._block_stream:
            payload = strip_padding(payload, flags)
            if flags & END_HEADERS:
                return flags, payload
            self._block_stream, self._block_flags, self._block_frames, self._block = stream, flags, 0, bytearray()
        elif kind != CONTINUATION or not stream or stream != self._block_stream:
            raise FrameError(f"a frame of type {kind} on stream {stream}, where a header block goes on or never began")
        self._block += payload
        self._block_frames += 1
        if self._block_frames > _MOST_CONTINUATIONS:
            raise FrameError(f"a header block of over {_MOST_CONTINUATIONS} frames", ErrorCode.ENHANCE_YOUR_CALM)
        if len(self._block) > MAX_BLOCK_BYTES:
            raise FrameError(f"a header block of over {MAX_BLOCK_BYTES} bytes", ErrorCode.ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            return None
        self._block_stream = 0
        return self._block_flags, bytes(self._block)


def encode_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame; its payload has less than 2**24 bytes."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def frame_end(data: bytes, at: int) -> int:
    """The end of the frame that begins at `at`; beyond the end of `data` if the frame is incomplete."""
    if at + FRAME_HEAD.size > len(data):
        return len(data) + 1
    return at + FRAME_HEAD.size + int.from_bytes(data[at : at + 3], "big")


def encode_settings(settings: Iterable[tuple[int, int]]) -> bytes:
    """The payload of SETTINGS."""
    return b"".join(_SETTING.pack(*setting) for setting in settings)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a payload.

    Raises:
        FrameError: Its length is not a multiple of six bytes.
    """
    if len(payload) % _SETTING.size:
        raise FrameError(f"SETTINGS of {len(payload)} bytes", ErrorCode.FRAME_SIZE_ERROR)
    return list(_SETTING.iter_unpack(payload))


def strip_padding(payload: bytes, flags: int) -> bytes:
    """The payload of DATA or HEADERS without padding and priority.

    Raises:
        FrameError: They are longer than the payload.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if flags & HAS_PRIORITY:
        start += 5
    if start > end:
        raise FrameError("a frame has more padding than payload")
    return payload[start:end]


def encode_header(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """One literal field of a header block; if `secret`, intermediaries must not index it (RFC 7541, 6.2.3)."""
    return b"".join((b"\x10" if secret else b"\x00", _length(len(name)), name, _length(len(value)), value))


def _length(value: int) -> bytes:
    """A string's length without Huffman coding: an integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes((value,))
    octets = [127]
    value -= 127
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


@functools.lru_cache(maxsize=64)
def read_block(block: bytes) -> Fields:
    """The fields of a header block, in order.

    Raises:
        TableError: It refers to a dynamic table.
        FrameError: It violates RFC 7541, or exceeds MAX_BLOCK_BYTES when decoded, counting 32 extra bytes per field
            (RFC 9113, 6.5.2).
        MalformedError: It has fields that an answer may not have.
    """
    return _decode(_new_decoder(0), block)


class TableReader:
    """Decodes the header blocks of a connection, in order, which may refer to earlier ones. Not thread-safe."""

    def __init__(self) -> None:
        self._decoder = _new_decoder(TABLE_BYTES)

    def read_block(self, block: bytes) -> Fields:
        """As the function, with a dynamic table of TABLE_BYTES."""
        return _decode(self._decoder, block)


def _new_decoder(table_bytes: int) -> Decoder:
    decoder = Decoder(max_header_list_size=MAX_BLOCK_BYTES)
    decoder.max_allowed_table_size = decoder.header_table_size = table_bytes
    return decoder


def _decode(decoder: Decoder, block: bytes) -> Fields:
    try:
        fields = tuple((name, value) for name, value in decoder.decode(block, raw=True))
    except HPACKError as error:
        said = f"a header block that cannot be read: {error or type(error).__name__}"
        kind = TableError if isinstance(error, _OF_TABLES) else FrameError
        raise kind(said, ErrorCode.COMPRESSION_ERROR) from error
    _check_fields(fields)
    return fields


def _check_fields(fields: Fields) -> None:
    """Check that an answer's head or trailers may have these fields (RFC 9113, 8.2.1 and 8.3).

    Connection-specific fields (8.2.2) are allowed: some proxies leave them in, and they have no effect here.

    Raises:
        MalformedError: They may not have them.
    """
    for number, (name, value) in enumerate(fields):
        if name[:1] == b":":
            if name != b":status" or number:
                raise MalformedError(f"a pseudo-header field {_shown(name)} in the wrong place")
            if not _IS_STATUS(value) or value == b"101":  # HTTP/2 cannot switch protocols (8.6)
                raise MalformedError(f"a status of {_shown(value)}")
        elif not _IS_NAME(name):
            raise MalformedError(f"a header field named {_shown(name)}")
        if _ENDS_VALUE(value):
            raise MalformedError(f"a line break or NUL in {_shown(name)}")


def _shown(octets: bytes) -> str:
    return repr(octets[:40].decode("latin-1"))
