"""The answer to a WebSocket handshake, split at every position."""

from __future__ import annotations

import pytest

from raccoon_fast.transports.websocket.handshake import HandshakeReader

CHUNKED = b"Transfer-Encoding: chunked\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def read(data: bytes, piece: int) -> tuple[HandshakeReader, tuple[bytes, bytes] | None]:
    reader = HandshakeReader()
    for at in range(0, len(data), piece):
        answer = reader.feed(data[at : at + piece])
        if answer is not None:
            head, rest = answer
            return reader, (head, rest + data[at + piece :])
    return reader, None


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("before", [b"", HINTS, b"HTTP/1.1 100 Continue\r\n\r\n" * 3])
@pytest.mark.parametrize("rest", [b"", b"\x89\x04\r\n\r\n"])
def test_a_101(before: bytes, rest: bytes, piece: int) -> None:
    reader, answer = read(before + ACCEPTED + rest, piece)
    assert answer == (ACCEPTED, rest)
    assert reader.status == 0


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize(
    ("said", "body", "is_whole"),
    [
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy", b"busy", True),
        (b"HTTP/1.1 503 Busy\r\nRetry-After:\r\n 7\r\nContent-Length: 4\r\n\r\nbusy", b"busy", True),
        (b"HTTP/1.0 503 Busy\r\nretry-after: 7\r\n\r\nbusy", b"busy", False),
        (
            b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
            b"busy",
            True,
        ),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n", b"", False),
    ],
)
def test_a_refusal(said: bytes, body: bytes, is_whole: bool, piece: int) -> None:
    reader, answer = read(said, piece)
    assert answer is None
    assert (reader.status, reader.retry_after, reader.body, reader.is_whole) == (503, "7", body, is_whole)


def test_a_refusal_without_end_is_bounded() -> None:
    reader, _ = read(b"HTTP/1.1 403 No\r\n\r\n" + b"x" * 100_000, 4096)
    assert (reader.is_whole, reader.body) == (True, b"x" * 1024)


def test_a_refusal_that_cannot_be_read_on_keeps_its_status() -> None:
    reader, _ = read(b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 1000)
    assert (reader.status, reader.is_whole) == (502, True)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0\r\n", b"\x00" * 12, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 101 x\nUpgrade: y\n\n"]
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_bytes_that_are_not_http(said: bytes, piece: int) -> None:
    reader, answer = read(said, piece)
    assert answer is None
    assert reader.foreign
    assert said.startswith(reader.foreign)
    assert reader.status == 0


def test_headers_without_end() -> None:
    reader, answer = read(b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 20_000, 4096)
    assert answer is None
    assert len(reader.foreign) > 64 * 1024
    assert reader.status == 0


def test_a_status_line_that_ends_with_the_status_gets_the_space_that_the_grammar_wants() -> None:
    assert read(b"HTTP/1.1 101\r\nUpgrade: websocket\r\n\r\nrest", 1000)[1] == (
        b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n",
        b"rest",
    )
