"""A WebSocket's answers are read however they arrive, and all other frames are left alone; the same in both forms."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from raccoon_fast.core._wire_py import encode_varint
from raccoon_fast.errors import DecodeError
from raccoon_fast.events import Code, Response, Status

GUID = b"5c1d9d1a-9f3a-4a53-9a3c-000000000001"
PROTO = b"\x08\x01\x10\x01\x2a\x30\x0a\x08req_guid\x12\x24" + GUID
JSON = b'{"status":1,"code":1,"data":{"req_guid":"' + GUID + b'"}}'
ANSWER = Response(Status.SUCCESS, Code.OK, 0, "", {"req_guid": GUID.decode()})


def frame(data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def refusal(reason: str) -> bytes:
    return b"\x22" + encode_varint(len(reason)) + reason.encode()


def told(items: list[Any]) -> list[Any]:
    return [(type(item), str(item)) if isinstance(item, DecodeError) else item for item in items]


@pytest.mark.parametrize(("data", "opcode"), [(PROTO, Opcode.BINARY), (JSON, Opcode.TEXT)])
def test_an_answer(impl: Any, data: bytes, opcode: Opcode) -> None:
    assert impl.frames.AnswerReader().feed(frame(data, opcode)) == [ANSWER]


def test_an_empty_message_is_an_answer_of_zeros(impl: Any) -> None:
    assert impl.frames.AnswerReader().feed(frame(b"")) == [Response(Status(0), Code(0), 0, "", {})]


@pytest.mark.parametrize("size", [2, 125, 126, 127, 255, 256, 16_000, 65_535])
def test_an_answer_of_any_size_up_to_64_kib(impl: Any, size: int) -> None:
    reason = "r" * (size - 1 - len(encode_varint(size)))
    assert len(refusal(reason)) == size
    (answer,) = impl.frames.AnswerReader().feed(frame(refusal(reason)))
    assert answer.reason == reason


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_of_any_size(impl: Any, size: int) -> None:
    ping = frame(bytes(size), Opcode.PING)
    assert impl.frames.AnswerReader().feed(ping) == [ping]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 64, 300, 10_000])
def test_frames_that_come_in_pieces(impl: Any, piece: int) -> None:
    ping = frame(b"now", Opcode.PING)
    stream = frame(PROTO) + frame(JSON, Opcode.TEXT) + ping + frame(refusal("r" * 297)) + frame(PROTO) + ping
    reader = impl.frames.AnswerReader()
    items = [item for at in range(0, len(stream), piece) for item in reader.feed(stream[at : at + piece])]
    assert items[:3] == [ANSWER, ANSWER, ping]
    assert len(items[3].reason) == 297
    assert items[4:] == [ANSWER, ping]


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(frame(PROTO, mask=True), id="masked"),
        pytest.param(frame(b"", mask=True), id="empty and masked"),
        pytest.param(frame(bytes(300), mask=True), id="long and masked"),
        pytest.param(frame(bytes(65536)), id="64 KiB"),
        pytest.param(frame(PROTO[:5], fin=False) + frame(PROTO[5:], Opcode.CONT), id="fragments"),
        pytest.param(frame(b"", Opcode.CONT), id="a fragment without a start"),
        pytest.param(frame(b"\x03\xe8", Opcode.CLOSE), id="close"),
        pytest.param(b"\x83\x00", id="an opcode without a meaning"),
    ],
)
def test_from_a_strange_frame_on_all_data_is_left_alone(impl: Any, strange: bytes) -> None:
    reader = impl.frames.AnswerReader()
    assert reader.feed(frame(PROTO) + strange + frame(PROTO)) == [ANSWER, strange + frame(PROTO)]
    assert reader.feed(frame(PROTO)) == [frame(PROTO)]
    assert reader.feed(b"") == []


def test_nothing_after_a_malformed_answer_is_read(impl: Any) -> None:
    reader = impl.frames.AnswerReader()
    answer, error = reader.feed(frame(PROTO) + frame(b"\xff") + frame(PROTO))
    assert answer == ANSWER
    assert isinstance(error, DecodeError)


def test_no_bytes_are_no_frames(impl: Any) -> None:
    assert impl.frames.AnswerReader().feed(b"") == []


@pytest.mark.parametrize("data", [bytearray(b"\x82\x00"), memoryview(b"\x82\x00"), "text", None])
def test_only_bytes_are_read(impl: Any, data: Any) -> None:
    with pytest.raises(TypeError, match=r"data should be bytes, not \w+"):
        impl.frames.AnswerReader().feed(data)


@pytest.mark.usefixtures("compiled_build")
@pytest.mark.parametrize("seed", range(20))
def test_both_forms_read_random_data_alike(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        opcode = rng.choice([*Opcode])
        frames = [
            *[frame(PROTO), frame(JSON, Opcode.TEXT), frame(refusal("r" * rng.randint(0, 400)))] * 3,
            frame(rng.randbytes(rng.randint(0, 20)), opcode, fin=opcode >= Opcode.CLOSE or rng.random() < 0.8),
            frame(rng.randbytes(3), Opcode.PING),
            rng.randbytes(rng.randint(0, 10)),
        ]
        stream = b"".join(rng.choices(frames, k=rng.randint(0, 12)))
        readers = [import_module(f"raccoon_fast.core._frames_{form}").AnswerReader() for form in ("c", "py")]
        at = 0
        while at < len(stream):
            size = rng.randint(1, 200)
            compiled, pure = (told(reader.feed(stream[at : at + size])) for reader in readers)
            assert compiled == pure
            at += size
