"""HTTP/2 frames and header blocks, compared with the libraries hpack and hyperframe, and with random input."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.clients.options import Settings
from raccoon_fast.errors import RaccoonError
from raccoon_fast.net.address import parse_address
from raccoon_fast.transports.grpc.connection import HTTP2Connection
from raccoon_fast.transports.grpc.frames import (
    END_HEADERS,
    HEADERS,
    MAX_BLOCK_BYTES,
    FrameError,
    FrameReader,
    MalformedError,
    encode_frame,
    encode_header,
    encode_settings,
    read_block,
    read_settings,
)
from raccoon_fast.transports.grpc.streams import HTTP2Answer

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300).map(str.encode)
FIELDS = st.lists(st.tuples(ASCII.filter(bool), ASCII), max_size=8)
# RFC 9113, 8.2.1
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=300).map(str.encode)


@given(FIELDS, st.booleans())
def test_hpack_reads_our_blocks(fields: list[tuple[bytes, bytes]], secret: bool) -> None:
    block = b"".join(encode_header(name, value, secret=secret) for name, value in fields)
    read = list(Decoder().decode(block, raw=True))
    assert [tuple(field) for field in read] == fields
    assert all(field.indexable is not secret for field in read)  # type: ignore[attr-defined]


@given(st.lists(st.tuples(NAMES, ASCII), max_size=8), st.booleans())
def test_we_read_blocks_of_hpack(fields: list[tuple[bytes, bytes]], huffman: bool) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    assert list(read_block(encoder.encode(fields, huffman=huffman))) == fields


@given(st.binary(max_size=200))
def test_any_block_is_read_or_refused(block: bytes) -> None:
    with contextlib.suppress(FrameError, MalformedError):
        fields = read_block(block)
        assert all(type(name) is type(value) is bytes for name, value in fields)
        assert read_block(block) is fields


def test_a_block_that_decodes_beyond_the_limit() -> None:
    """Two bytes of a block can stand for as many as a table holds; without a table they stand for themselves."""
    field = encode_header(b"a", b"")
    assert len(read_block(field * (MAX_BLOCK_BYTES // 33))) == MAX_BLOCK_BYTES // 33
    with pytest.raises(FrameError):
        read_block(field * (MAX_BLOCK_BYTES // 33 + 1))


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1)), max_size=10))
def test_settings(settings: list[tuple[int, int]]) -> None:
    payload = encode_settings(settings)
    assert read_settings(payload) == settings
    frame = SettingsFrame(0)
    frame.parse_body(memoryview(payload))
    assert frame.settings == dict(settings)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=300), st.data())
def test_frames_are_recognized_wherever_they_are_split(
    kind: int, flags: int, stream: int, payload: bytes, data: Any
) -> None:
    if kind in (HEADERS, 9):  # whose blocks have rules of their own
        kind = 0
    wire = 3 * encode_frame(kind, flags, stream, payload)
    reader = FrameReader()
    frames = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        frames += list(reader.feed(wire[:size]))
        wire = wire[size:]
    assert frames == [(kind, flags, stream, payload)] * 3


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.integers(0, 255), st.data())
def test_blocks_are_put_together(parts: list[bytes], flags: int, data: Any) -> None:
    flags &= ~(END_HEADERS | 8 | 32)
    is_one = len(parts) == 1
    wire = encode_frame(HEADERS, flags | (END_HEADERS if is_one else 0), 5, parts[0])
    for number, part in enumerate(parts[1:], 2):
        wire += encode_frame(9, END_HEADERS if number == len(parts) else 0, 5, part)
    reader = FrameReader()
    size = data.draw(st.integers(0, len(wire)))
    frames = [*reader.feed(wire[:size]), *reader.feed(wire[size:])]
    assert frames == [(HEADERS, flags | (END_HEADERS if is_one else 0), 5, b"".join(parts))]


class Sink(asyncio.Transport):
    """Takes what is written, as a transport of a peer that reads everything does."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


STREAMS = st.sampled_from([1, 1, 3, 3, 5, 7, 0, 2])
BLOCKS = st.sampled_from([b"\x88", b"\x88\x00\x0bgrpc-status\x010", b"\x00\x0bgrpc-status\x010", b"\xff", b""])
SETTINGS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 100_000)), max_size=3)
FRAMES = st.one_of(
    st.builds(encode_frame, st.just(HEADERS), st.sampled_from([4, 5, 5, 0, 1, 12, 36]), STREAMS, BLOCKS),
    st.builds(encode_frame, st.just(0), st.sampled_from([0, 1, 8]), STREAMS, st.binary(max_size=40)),
    st.builds(encode_frame, st.just(8), st.just(0), STREAMS, st.integers(0, 2**31).map(struct.Struct(">I").pack)),
    st.builds(encode_frame, st.just(4), st.just(0), st.just(0), SETTINGS.map(encode_settings)),
    st.builds(encode_frame, st.just(3), st.just(0), STREAMS, st.integers(0, 20).map(struct.Struct(">I").pack)),
    st.builds(
        encode_frame,
        st.just(7),
        st.just(0),
        st.just(0),
        st.integers(0, 9).map(lambda last: struct.pack(">II", last, 0)),
    ),
    st.builds(encode_frame, st.integers(0, 10), st.integers(0, 255), STREAMS, st.binary(max_size=12)),
    st.binary(max_size=30),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 200_000), min_size=1, max_size=4))
def test_each_exchange_ends_once_for_any_input(frames: list[bytes], sizes: list[int]) -> None:
    """Nothing raises out of the protocol's callbacks, where the error would be lost."""
    outcomes: list[list[Any]] = [[] for _ in sizes]
    errors: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        link = Settings(parse_address("localhost", "gRPC"), {"logger": None}, 1.0).link
        connection = HTTP2Connection(link)
        transport = Sink()
        connection.connection_made(transport)
        connection.data_received(encode_frame(4, 0, 0))
        await connection.open(1.0)
        for size, ended in zip(sizes, outcomes, strict=True):
            connection.begin(b"\x83", bytes(size), loop.time() + 60, ended.append)
        for frame in frames:
            if connection.error is None:
                connection.data_received(frame)
        sent = bytes(transport.written)
        assert sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        at = 24
        while at < len(sent):
            at += 9 + int.from_bytes(sent[at : at + 3], "big")
        assert at == len(sent)
        connection.abort()
        assert transport.closed

    asyncio.run(main())
    assert errors == []
    for ended in outcomes:
        (outcome,) = ended
        assert isinstance(outcome, (HTTP2Answer, RaccoonError))
