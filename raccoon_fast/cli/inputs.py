"""The input files of `raccoon-fast send`: expands their names, and opens a reader for each."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from raccoon_fast.cli.batches import event_parser, read_batches
from raccoon_fast.cli.exits import UsageError
from raccoon_fast.cli.lines import LineReader
from raccoon_fast.cli.tables import TableReader, is_table_file, read_table_batches

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from raccoon_fast.cli.batches import Batch

__all__ = ["Input", "batches_of", "expand", "open_input", "total_size"]

Input = LineReader | TableReader


def expand(names: list[str], arguments: argparse.Namespace) -> list[str]:
    """The files to send, in order. A name that is not a file may be a pattern.

    Raises:
        UsageError: A pattern matches no file, or the arguments do not fit the files.
        FileNotFoundError: A file does not exist.
    """
    paths: list[str] = []
    for name in names:
        if name == "-" or Path(name).exists() or not glob.has_magic(name):
            paths.append(name)
            continue
        found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207 - also absolute
        if not found:
            raise UsageError(f"no file matches {name}")
        paths += found
    if (arguments.message is None) != (arguments.descriptors is None):
        raise UsageError(
            "--message and --descriptors belong together: the message's name, and the file that describes it"
        )
    if arguments.message is not None and arguments.failed is not None:
        raise UsageError("--failed keeps lines, and --message makes none")
    if len(paths) > 1:
        if "-" in paths:
            raise UsageError("- is stdin, and cannot be combined with other files")
        if arguments.from_line > 1:
            raise UsageError("--from-line needs a single file, but several are given")
    for path in paths:
        _check(path, arguments)
    return paths


def _check(path: str, arguments: argparse.Namespace) -> None:
    if path != "-":
        Path(path).stat()
    if is_table_file(path):
        if arguments.type_field is not None:
            raise UsageError(f"{path} is a table: name the column with the events' types by --type-column")
        return
    options = {"--type-column": arguments.type_column, "--columns": arguments.columns, "--message": arguments.message}
    option = next((name for name, value in options.items() if value is not None), None)
    if option is not None:
        raise UsageError(f"{option} is for tables (.parquet, .arrow, .feather, .csv), but {path} is read line by line")


def total_size(paths: list[str]) -> int | None:
    """The bytes of all files; None if unknown, as for stdin."""
    if any(path == "-" or not Path(path).is_file() for path in paths):
        return None
    return sum(Path(path).stat().st_size for path in paths)


def open_input(path: str, arguments: argparse.Namespace) -> Input:
    """Open the reader for a file.

    Raises:
        UsageError: The file cannot be opened, has another format, or lacks requested columns.
    """
    try:
        return TableReader(path, arguments) if is_table_file(path) else LineReader(path)
    except OSError as error:  # Arrow's own have neither a file name nor an error number
        raise UsageError(f"{error.filename or path}: {error.strerror or str(error).strip()}") from error


def batches_of(
    source: Input,
    arguments: argparse.Namespace,
    on_bad: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> Iterator[Batch | None]:
    """The batches of a file; see `read_batches`."""
    most, first = arguments.batch_events, arguments.from_line
    if isinstance(source, TableReader):
        return read_table_batches(source, most, on_bad, is_stopped, from_row=first)
    type_of = event_parser(arguments.type, arguments.type_field)
    return read_batches(source, type_of, most, on_bad, is_stopped, from_line=first)
