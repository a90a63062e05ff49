"""Lines of a file, a pipe or stdin, plain or gzip, in bounded memory."""

from __future__ import annotations

import io
import itertools
import os
import select
import stat
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

__all__ = ["MAX_LINE_BYTES", "InputError", "Line", "LineReader"]

#: Protects the memory from a file without line ends; larger than a gRPC server's message limit (4 MiB).
MAX_LINE_BYTES = 16 << 20

_CHUNK_BYTES = 1 << 18
_LINGER_S = 0.2
_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1; no JSON text starts with this
_GZIP_WBITS = 31


class InputError(Exception):
    """Reading the input failed; the message names the file and the line."""


class Line(NamedTuple):
    """A line and its number, from 1.

    Attributes:
        number: Blank lines count too.
        text: The line without its line end. If longer than MAX_LINE_BYTES, the start of a line that is too long.
    """

    number: int
    text: bytes


class LineReader:
    """Reads lines once, from the start.

    Args:
        path: A file, or "-" for stdin. Gzip is recognized from the first bytes.

    Attributes:
        name: The name for messages.
        size: The stored size in bytes; None if unknown, as for a pipe.
        position: Stored bytes read so far.
        lines: Lines read so far.
        unit: What its events come from.

    Raises:
        OSError: The file cannot be opened.
    """

    unit = "line"

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        self._file = io.FileIO(0, closefd=False) if path == "-" else io.FileIO(path)
        status = os.fstat(self._file.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.position = 0
        self.lines = 0

    def is_same_file(self, path: str) -> bool:
        """Whether `path` is the file being read."""
        return Path(path).exists() and os.path.samestat(os.fstat(self._file.fileno()), Path(path).stat())

    def __iter__(self) -> Iterator[Line | None]:
        """Yields the lines, and None at most every 0.2 s while a pipe has nothing to read: time to send what was read.

        Raises:
            InputError: The gzip data is broken or ends early, or reading failed.
        """
        number = 0
        rest = b""
        skipping = False  # the remainder of a line that was too long
        try:
            for chunk in self._unpacked():
                if chunk is None:
                    yield None
                    continue
                *lines, rest = (rest + chunk).split(b"\n")
                for text in lines:
                    if skipping:
                        skipping = False
                        continue
                    number += 1
                    self.lines = number
                    yield Line(number, text.rstrip(b"\r"))
                if len(rest) > MAX_LINE_BYTES and not skipping:
                    number += 1
                    self.lines = number
                    yield Line(number, rest)
                    skipping = True
                if skipping:
                    rest = b""
            if rest:
                self.lines = number + 1
                yield Line(number + 1, rest.rstrip(b"\r"))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self.name}: cannot be read past line {number}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def _unpacked(self) -> Iterator[bytes | None]:
        """Yields the chunks of the text, and None for a pause."""
        chunks = self._chunks()
        first = b""
        for chunk in chunks:
            if chunk is None:
                yield None
                continue
            first += chunk
            if len(first) >= len(_GZIP_MAGIC):
                break
        stored = itertools.chain([first], chunks)
        yield from _gunzip(stored) if first.startswith(_GZIP_MAGIC) else stored

    def _chunks(self) -> Iterator[bytes | None]:
        # Windows cannot wait for a pipe: there a batch is sent only when it is full.
        pauses = self.size is None and sys.platform != "win32"
        pause_s = time.monotonic() + _LINGER_S
        while True:
            if pauses and not select.select([self._file], [], [], max(0.0, pause_s - time.monotonic()))[0]:
                pause_s = time.monotonic() + _LINGER_S
                yield None
                continue
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                return
            self.position += len(chunk)
            yield chunk


def _gunzip(chunks: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """Unpacks one or more gzip members, and ignores zeros after them, as gzip does."""
    unzip = zlib.decompressobj(_GZIP_WBITS)
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        left = chunk
        while left:
            if unzip.eof:
                left = left.lstrip(b"\0")
                if not left:
                    break
                unzip = zlib.decompressobj(_GZIP_WBITS)
            yield unzip.decompress(left, _CHUNK_BYTES)
            left = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
    if not unzip.eof:
        raise EOFError("the gzip data ends early")
