"""Notes, tables and a progress bar; with rich if it is installed and a terminal is present, otherwise plain.

Output works with any encoding: characters that the terminal lacks are replaced. Control
characters in foreign text, such as the name of an event type, are written as escapes.
"""

from __future__ import annotations

import codecs
import importlib.util
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from raccoon_fast.cli.exits import UsageError
from raccoon_fast.texts import UNSAFE, counted, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

__all__ = [
    "Progress",
    "adapt_streams",
    "can_ask",
    "confirm",
    "open_progress",
    "write_json",
    "write_line",
    "write_note",
    "write_picture",
    "write_table",
]

_REDRAW_S = 0.25
#: ASCII replacements for our own characters, for terminals that lack them.
_STAND_INS = {
    "µ": "u",
    "…": "...",
    "─": "-",
    "│": "|",
    "└": "+",
    "┴": "+",
    "░": ".",
    "▒": "-",
    "▓": "=",
    "█": "#",
}
_ERRORS = "raccoon_fast.cli"
_NOT_ASCII = re.compile("[^\x00-\x7e]")
_COLOURS = {"green": 32, "yellow": 33, "red": 31, "dim": 2}  # ECMA-48, Select Graphic Rendition


def adapt_streams() -> None:
    """Lets stdout and stderr accept any text, even if they are closed, or their encoding lacks some of its letters."""
    codecs.register_error(_ERRORS, _stand_in)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed when the process started
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    escaped = codecs.lookup_error("backslashreplace")
    if not any(character in _STAND_INS for character in lacking):
        return escaped(error)
    return "".join(
        _STAND_INS.get(character) or character.encode("ascii", "backslashreplace").decode() for character in lacking
    ), error.end


def write_line(text: str, colours: Mapping[str, str] | None = None) -> None:
    """Writes one line to stdout, at once.

    Args:
        text: The line without its line end.
        colours: Words of the line by colour name, for terminals with colours.
    """
    text = shown(text)
    if colours and _has_colours(sys.stdout):
        for word, colour in colours.items():
            text = text.replace(word, f"\x1b[{_COLOURS[colour]}m{word}\x1b[0m", 1)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(text: str) -> None:
    """Writes a line of JSON to stdout at once; control and unsupported characters become JSON escapes."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write((UNSAFE if is_utf8 else _NOT_ASCII).sub(_json_escape, text) + "\n")
    sys.stdout.flush()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")  # RFC 8259, section 7
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def write_note(text: str) -> None:
    """Writes one line to stderr, at once."""
    sys.stderr.write(shown(text) + "\n")
    sys.stderr.flush()


def can_ask() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Asks on the terminal; True for yes.

    Raises:
        UsageError: There is no terminal to ask on.
    """
    if not can_ask():
        raise UsageError(f"{question} There is no terminal to ask on: pass --yes")
    sys.stderr.write(f"{shown(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def write_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Writes a table to stdout. With a header, the columns after the first are numbers; without one, all are text."""
    numbers = bool(header)
    rows = [[*map(shown, row)] for row in rows]
    if _has_rich(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*([""] * (len(rows[0]) - len(header))), show_header=numbers)
        for index, name in enumerate(header):
            table.add_column(name, justify="right" if index else "left")
        for row in rows:
            table.add_row(*map(Text, row))  # Text: a server's words are not markup
        Console().print(table)
        return
    lines = [header, *rows] if numbers else rows
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            f"{cell:>{width}}" if numbers and column else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        write_line("  ".join(cells).rstrip())


def write_picture(lines: Sequence[str], colours: Mapping[str, str]) -> None:
    """Writes lines to stdout, with coloured characters if the terminal has colours.

    Args:
        lines: Lines of a fixed width.
        colours: By character, as #rrggbb.
    """
    if not _has_rich(sys.stdout):
        for line in lines:
            write_line(line)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        text = Text(line, no_wrap=True)
        for character, colour in colours.items():
            text.highlight_regex(f"{re.escape(character)}+", colour)
        console.print(text)


def open_progress(total_bytes: int | None) -> Progress:
    """Makes a progress display for reading; use it in `with`.

    Args:
        total_bytes: The input's size; None if unknown.
    """
    if _has_rich(sys.stderr):
        return _RichProgress(total_bytes)
    return _LineProgress(total_bytes) if sys.stderr.isatty() else Progress()


class Progress:
    """Shows only notes; used if stderr is not a terminal."""

    def update(self, position: int, events: int) -> None:
        """Shows that the input is read up to `position`, in bytes, and `events` are settled."""

    def note(self, text: str) -> None:
        """Writes a permanent line to stderr."""
        write_note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class _LineProgress(Progress):
    """One line on a terminal, rewritten in place."""

    def __init__(self, total_bytes: int | None) -> None:
        self._total = total_bytes
        self._next_s = 0.0

    def update(self, position: int, events: int) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _REDRAW_S
            share = f"{position / self._total:4.0%}  " if self._total else ""
            self._write(f"{share}{counted(events, 'event')}")

    def note(self, text: str) -> None:
        self._write("")
        write_note(text)

    def __exit__(self, *exc_info: object) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")  # ECMA-48: erase to the end of the line
        sys.stderr.flush()


class _RichProgress(Progress):
    """A progress bar drawn by rich."""

    def __init__(self, total_bytes: int | None) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[events]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_bytes, events=counted(0, "event"))

    def update(self, position: int, events: int) -> None:
        self._bar.update(self._task, completed=position, events=counted(events, "event"))

    def note(self, text: str) -> None:
        self._bar.console.print(shown(text), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()


def _has_colours(stream: TextIO) -> bool:
    # https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _has_rich(stream: TextIO) -> bool:
    return stream.isatty() and importlib.util.find_spec("rich") is not None
