from __future__ import annotations

import gzip
import io
import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import patient

from raccoon_fast.cli import lines
from raccoon_fast.cli.lines import InputError, LineReader


@pytest.fixture
def read(tmp_path):
    def read(data: bytes) -> list[tuple[int, bytes]]:
        path = tmp_path / "input"
        path.write_bytes(data)
        with LineReader(str(path)) as reader:
            found = [tuple(line) for line in reader]
            assert reader.position == reader.size == len(data)
        return found

    return read


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"x", [(1, b"x")]),
        (b"one\ntwo\n", [(1, b"one"), (2, b"two")]),
        (b"one\r\n\r\ntwo", [(1, b"one"), (2, b""), (3, b"two")]),
        (b"\n\n", [(1, b""), (2, b"")]),
    ],
)
def test_lines(read, data, expected):
    assert read(data) == expected
    assert read(gzip.compress(data)) == expected


def test_gzip_of_several_members_with_zeros_after_them(read):
    data = gzip.compress(b"one\ntw") + gzip.compress(b"") + gzip.compress(b"o\n") + b"\0" * 512
    assert read(data) == [(1, b"one"), (2, b"two")]


TEXTS = st.lists(st.sampled_from([b"\n", b"\r\n", b"ab", b"{}", b"\x1f", b"\x8b", b" "]), max_size=30).map(b"".join)


@settings(max_examples=150)
@given(
    TEXTS.filter(lambda text: not text.startswith(b"\x1f\x8b")), st.integers(1, 9), st.booleans(), st.integers(0, 30)
)
def test_where_chunks_end_does_not_matter(tmp_path_factory, text, chunk_bytes, packed, cut):
    path = tmp_path_factory.getbasetemp() / "chunks"
    path.write_bytes(gzip.compress(text[:cut]) + gzip.compress(text[cut:]) if packed else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK_BYTES", chunk_bytes)
        with LineReader(str(path)) as reader:
            found = list(reader)
    expected = io.BytesIO(text).read().split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert found == [(number, line.rstrip(b"\r")) for number, line in enumerate(expected, 1)]


def test_a_line_over_the_limit_comes_cut_short_and_the_next_is_whole(read, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 64)
    found = read(b"first\n" + b"x" * 1000 + b"\nlast\n" + b"y" * 1000)
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert (found[0][1], found[2][1]) == (b"first", b"last")
    assert all(100 < len(found[index][1]) <= 200 for index in (1, 3))


@pytest.mark.parametrize("cut", [5, 12, 40, -9, -1])
def test_torn_gzip_is_reported_after_its_last_whole_line(tmp_path, cut):
    random.seed(1)
    text = b"".join(b'{"n":%d}\n' % random.getrandbits(64) for _ in range(50))
    path = tmp_path / "torn.gz"
    path.write_bytes(gzip.compress(text)[:cut])
    found = []
    with (
        LineReader(str(path)) as reader,
        pytest.raises(InputError, match=r"torn\.gz: cannot be read past line \d+: ") as caught,
    ):
        found.extend(reader)
    # The last line may be whole or half: nothing says which.
    assert text.startswith(b"\n".join(line.text for line in found))
    assert f"past line {len(found)}:" in str(caught.value)


def test_broken_gzip_is_reported(tmp_path):
    path = tmp_path / "broken.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(range(64)))
    with LineReader(str(path)) as reader, pytest.raises(InputError, match="past line 0"):
        list(reader)


def test_a_pipe_that_pauses_says_so(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    with LineReader(str(fifo)) as reader:
        assert reader.size is None
        found = iter(reader)
        os.write(writer, b"one\ntw")
        assert next(found) == (1, b"one")
        began_s = time.monotonic()
        assert next(found) is None
        assert next(found) is None
        assert time.monotonic() - began_s < patient(5)
        os.write(writer, b"o\n")
        assert next(line for line in found if line) == (2, b"two")
    os.close(writer)


def test_is_same_file(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"")
    os.link(path, other)
    with LineReader(str(path)) as reader:
        assert reader.is_same_file(str(other))
        other.unlink()
        assert not reader.is_same_file(str(other))
        other.write_bytes(b"")
        assert not reader.is_same_file(str(other))
