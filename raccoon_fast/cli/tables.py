"""Rows of a Parquet, Arrow, Feather or CSV file as batches of events, in bounded memory."""

from __future__ import annotations

import contextlib
import io
import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.batches import MAX_BATCH_BYTES, Batch
from raccoon_fast.cli.exits import UsageError
from raccoon_fast.cli.lines import InputError
from raccoon_fast.errors import SerializationError
from raccoon_fast.tables.options import table_columns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from raccoon_fast.tables.columns import Columns

__all__ = ["TableReader", "is_table_file", "read_table_batches"]

_ROWS = 10_000
_CSV_BLOCK_BYTES = 1 << 20
_IPC = (".arrow", ".feather", ".ipc")
_CSV = (".csv", ".tsv")
_PACKED = ".gz"
_PADDED = r"^\s*(\+|-?0)[0-9]+\s*$"
_LONG = r"^\s*-?[0-9]{16,}\s*$"  # a double keeps any integer of 15 digits


def is_table_file(path: str) -> bool:
    """Whether a file is a table, by its suffix."""
    return _suffix(path) in (".parquet", *_IPC, *_CSV)


class TableReader:
    """Reads the rows of a file once, from the start.

    Args:
        path: The file. Its suffix gives its format: .parquet, .arrow, .feather, .ipc, .csv or .tsv; for the last two
            also .csv.gz and .tsv.gz.
        arguments: The command's arguments, which say which columns make an event.

    Attributes:
        name: The name for messages.
        unit: The word for one input item.
        size: The stored size in bytes.
        lines: Rows read so far.

    Raises:
        OSError: The file cannot be opened or is broken; Arrow's errors do not name it.
        UsageError: pyarrow is not installed, the file has another format, or requested columns are missing.
    """

    unit = "row"

    def __init__(self, path: str, arguments: argparse.Namespace) -> None:
        self.name = path
        self._status = Path(path).stat()
        self.size = self._status.st_size
        self.lines = 0
        self._batches_read = 0
        self._makes_messages = arguments.message is not None
        try:
            message = None if arguments.message is None else _message(arguments.message, arguments.descriptors)
            self.columns: Columns = table_columns(
                arguments.type, arguments.type_column, arguments.columns, "json", message
            )
            self._file = _open_file(path)
            self._tell: Callable[[], float] = self._file.tell
            with contextlib.ExitStack() as on_error:
                on_error.callback(self._file.close)
                schema, self._batches = self._open(path)
                self.columns.check(schema)
                on_error.pop_all()
        except ImportError as error:
            raise UsageError(str(error)) from error
        except ValueError as error:  # Arrow's errors are ValueErrors
            raise UsageError(f"{path}: {error}") from error

    @property
    def position(self) -> int:
        """The approximate stored bytes read so far; also after the file is closed."""
        return int(self._tell())

    def is_same_file(self, path: str) -> bool:
        """Whether `path` is the file being read."""
        return Path(path).exists() and os.path.samestat(self._status, Path(path).stat())

    def batches(self) -> Iterator[Any]:
        """Yields Arrow's record batches.

        Raises:
            InputError: The file is broken.
        """
        try:
            for batch in self._batches:
                yield batch
                self._batches_read += 1
                self.lines += batch.num_rows
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name}: cannot be read past row {self.lines}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        position = self.position
        self._tell = lambda: position
        self._file.close()

    def _open(self, path: str) -> tuple[Any, Iterator[Any]]:
        """The schema and the batches."""
        suffix = _suffix(path)
        if suffix in _CSV:
            return self._open_csv(path, "\t" if suffix == ".tsv" else ",")
        return self._open_parquet() if suffix == ".parquet" else self._open_ipc()

    def _open_parquet(self) -> tuple[Any, Iterator[Any]]:
        from pyarrow import parquet

        file = parquet.ParquetFile(self._file, pre_buffer=False)
        rows = file.metadata.num_rows
        self._tell = lambda: self.lines / max(1, rows) * self.size
        return file.schema_arrow, file.iter_batches(_ROWS, columns=self.columns.names(file.schema_arrow))

    def _open_ipc(self) -> tuple[Any, Iterator[Any]]:
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(self._file)
        except pa.ArrowInvalid:  # the other form of it
            self._file.seek(0)
            stream = pa.ipc.open_stream(self._file)
            return stream.schema, stream
        batches = reader.num_record_batches
        self._tell = lambda: self._batches_read / max(1, batches) * self.size
        return reader.schema, (reader.get_batch(number) for number in range(batches))

    def _open_csv(self, path: str, delimiter: str) -> tuple[Any, Iterator[Any]]:
        import pyarrow as pa
        from pyarrow import csv

        def read(file: Any, types: dict[str, Any]) -> Any:
            return csv.open_csv(
                pa.CompressedInputStream(file, "gzip") if path.endswith(_PACKED) else file,
                csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                csv.ConvertOptions(column_types=types),
            )

        # The fields of messages have types of their own.
        types = {} if self._makes_messages else _text_columns(path, read)
        reader = read(self._file, types)
        return reader.schema, reader


def _text_columns(path: str, read: Callable[[Any, dict[str, Any]], Any]) -> dict[str, Any]:
    """The columns whose values are identifiers, such as 00501 or 12345678901234567890: a number would change them.

    The first block decides, as it does for the other types.
    """
    import pyarrow as pa
    from pyarrow import compute

    # A file per reader, and none is closed here: readers read ahead on Arrow's threads.
    schema = read(pa.OSFile(path), {}).schema
    numbers = [field.name for field in schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
    if not numbers:
        return {}
    found = {}
    sample = read(pa.OSFile(path), dict.fromkeys(numbers, pa.string())).read_next_batch()
    for field, column in zip(schema, sample.columns, strict=True):
        if field.name in numbers:
            is_changed = compute.any(compute.match_substring_regex(column, _PADDED)).as_py()
            if not is_changed and pa.types.is_floating(field.type):
                long = column.filter(compute.match_substring_regex(column, _LONG)).to_pylist()
                is_changed = any(Decimal(text) != Decimal(float(text)) for text in long)
            if is_changed:
                found[field.name] = pa.string()
    return found


def _open_file(path: str) -> Any:
    """Open a file for Arrow.

    Arrow also reads on its own threads. If they used a Python file while the process exits, after an error or an
    interruption, the process would abort.

    Raises:
        OSError: The file cannot be opened; `filename` names it, as in Python's own errors.
    """
    import pyarrow as pa

    try:
        return pa.OSFile(path)
    except OSError:
        io.FileIO(path).close()  # raises the system's error, where Arrow's has no file name
        raise


def read_table_batches(
    reader: TableReader,
    max_events: int,
    on_bad_row: Callable[[str], None],
    is_stopped: Callable[[], bool],
    *,
    from_row: int = 1,
) -> Iterator[Batch]:
    """Reads batches of at most `max_events` and MAX_BATCH_BYTES, like `read_batches`, from rows counted from 1."""
    batch = Batch()
    try:
        for row, event_type, data in _rows(reader, on_bad_row, from_row):
            if batch.events and (batch.nbytes + len(data) > MAX_BATCH_BYTES or len(batch.events) == max_events):
                yield batch
                batch = Batch()
                if is_stopped():
                    return
            batch.events.append((event_type, data))
            batch.nbytes += len(data)
            batch.last_line = row
    except InputError:
        if batch.events:
            yield batch
        raise
    if batch.events:
        yield batch


def _rows(reader: TableReader, on_bad_row: Callable[[str], None], from_row: int) -> Iterator[tuple[int, str, bytes]]:
    """The rows that are events, with their row numbers."""
    for batch in reader.batches():
        first = reader.lines  # before it
        start = max(0, from_row - 1 - first)
        while start < batch.num_rows:
            number = first + start
            try:
                for types, data in reader.columns.events(batch[start:], number):
                    for event_type, encoded in zip(types, data, strict=True):
                        number += 1
                        if event_type:
                            yield number, event_type, encoded
                        else:
                            on_bad_row(f"{reader.name}:{number}: the type is empty")
                break
            except SerializationError as error:
                row = (error.index or 0) + 1
                on_bad_row(f"{reader.name}:{row}: column {error.path!r} {error.__cause__}")
                start = row - first


def _message(name: str, path: str) -> Any:
    """A message's descriptor, of a FileDescriptorSet.

    Raises:
        UsageError: The file is none, or has no such message.
    """
    from google.protobuf.message import DecodeError

    from raccoon_fast.proto_pool import new_pool

    try:
        pool = new_pool(Path(path).read_bytes())
    except (DecodeError, TypeError) as error:
        raise UsageError(
            f"{path} has no descriptors, as protoc --include_imports -oFILE writes them: {error}"
        ) from error
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        raise UsageError(f"{path} has no message {name}") from None


def _suffix(path: str) -> str:
    return Path(path.removesuffix(_PACKED)).suffix.lower() if path.endswith(_PACKED) else Path(path).suffix.lower()
