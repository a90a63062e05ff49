"""Frames are split correctly, however they arrive; other frames than answers are left alone."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from raccoon_fast.transports.websocket.frames import FrameCutter


def frame(size: int, opcode: Opcode = Opcode.BINARY, *, mask: bool = False) -> bytes:
    return Frame(opcode, bytes(size)).serialize(mask=mask)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535])
def test_a_frame_of_any_size_up_to_64_kib(size: int) -> None:
    (cut,) = FrameCutter().cut(frame(size))
    whole, header_size = cut
    assert whole == frame(size)
    assert len(whole) - header_size == size


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 64, 300, 10_000])
def test_frames_that_come_in_pieces(piece: int) -> None:
    frames = [frame(size) for size in (0, 5, 125, 126, 300, 7)] + [frame(3, Opcode.PING)]
    stream = b"".join(frames)
    cutter = FrameCutter()
    cut = [whole for at in range(0, len(stream), piece) for whole, _ in cutter.cut(stream[at : at + piece])]
    assert cut == frames


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(frame(5, mask=True), id="masked"),
        pytest.param(frame(300, mask=True), id="long and masked"),
        pytest.param(frame(65536), id="64 KiB"),
    ],
)
def test_from_a_strange_frame_on_nothing_is_cut(strange: bytes) -> None:
    cutter = FrameCutter()
    assert cutter.cut(frame(5) + strange + frame(6)) == [(frame(5), 2), (strange + frame(6), 0)]
    assert cutter.cut(frame(7)) == [(frame(7), 0)]


def test_no_bytes_are_no_frames() -> None:
    assert FrameCutter().cut(b"") == []
