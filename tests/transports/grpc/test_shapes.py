"""Answers recognized by their bytes mean the same as when they are read frame by frame."""

from __future__ import annotations

import pytest

from raccoon_fast.transports.grpc import frames as wire
from raccoon_fast.transports.grpc.shapes import AnswerShape

BLOCK = b"\x88" + wire.encode_header(b"content-type", b"application/grpc")
TRAILERS = wire.encode_header(b"grpc-status", b"0")
MESSAGE = b"\x00\x00\x00\x00\x05hello"


def answer(
    stream: int, message: bytes = MESSAGE, *, block: bytes = BLOCK, trailers: bytes = TRAILERS, flags: int = 0
) -> bytes:
    return b"".join((
        wire.encode_frame(wire.HEADERS, wire.END_HEADERS, stream, block),
        wire.encode_frame(wire.DATA, flags, stream, message),
        wire.encode_frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, stream, trailers),
    ))  # fmt: skip


def test_an_answer_of_the_same_shape_is_recognized_at_any_offset() -> None:
    shape = AnswerShape.of(answer(5))
    assert shape is not None
    data = b"before" + answer(0x1234567, MESSAGE[::-1]) + b"after"
    assert shape.stream_at(data, 6) == 0x1234567
    known = shape.answer_at(data, 6, 1.5)
    assert known.body == MESSAGE[::-1]
    assert known.fields == wire.read_block(BLOCK)
    assert known.trailers == wire.read_block(TRAILERS)
    assert known.written_s == 1.5
    assert (shape.nbytes, shape.body_bytes) == (len(answer(5)), len(MESSAGE))


def test_a_shape_is_learnt_behind_connection_frames() -> None:
    before = wire.encode_frame(wire.WINDOW_UPDATE, 0, 0, b"\x00\x00\x40\x00") + wire.encode_frame(
        wire.PING, 0, 0, bytes(8)
    )
    shape = AnswerShape.of(before + answer(7))
    assert shape is not None
    assert shape.stream_at(answer(9), 0) == 9


def test_a_differing_byte_outside_the_message_makes_another_shape() -> None:
    shape = AnswerShape.of(answer(5))
    assert shape is not None
    data = answer(7)
    body = data.index(MESSAGE)
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
            assert shape.stream_at(changed, 0) == (7 if body <= at < body + len(MESSAGE) else 0)


def test_part_of_an_answer_has_no_shape() -> None:
    shape = AnswerShape.of(answer(5))
    assert shape is not None
    for size in range(len(answer(7))):
        assert shape.stream_at(answer(7)[:size], 0) == 0
        assert AnswerShape.of(answer(7)[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(answer(5, block=b"\x8d"), id="status 404"),
        pytest.param(answer(5, trailers=wire.encode_header(b"grpc-status", b"13")), id="gRPC status 13"),
        pytest.param(answer(5, trailers=wire.encode_header(b"x", b"y")), id="no gRPC status"),
        pytest.param(answer(5, block=BLOCK + wire.encode_header(b"content-length", b"10")), id="a content-length"),
        pytest.param(answer(5, b"\x01" + MESSAGE + b"\x00", flags=wire.PADDED), id="padded"),
        pytest.param(answer(5, block=b"\xbe"), id="of a dynamic table"),
        pytest.param(answer(5)[: -len(TRAILERS) - 9] + answer(7)[-len(TRAILERS) - 9 :], id="another's trailers"),
        pytest.param(wire.encode_frame(wire.PING, 0, 0, bytes(8)), id="no answer"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_only_ordinary_answers_have_a_shape(data: bytes) -> None:
    assert AnswerShape.of(data) is None
