"""Apache Spark: a Python Data Source for `df.write.format("raccoon")` and `df.writeStream.format("raccoon")`.

    from raccoon_fast.integrations.spark import RaccoonDataSource

    spark.dataSource.register(RaccoonDataSource)
    df.write.format("raccoon").options(url="ws://raccoon:8080", type_column="type").mode("append").save()

raccoon_fast must be installed on the executors. docs/pages/spark.md describes the options and the guarantees.
"""

from __future__ import annotations

import difflib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raccoon_fast import option_text
from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.integrations.tasks import Scope, TaskReport, total, write_task
from raccoon_fast.logs import CONSOLE, resolve_logger
from raccoon_fast.tables.columns import Columns
from raccoon_fast.tls import TLS

try:
    import pyarrow as pa
    from pyspark import TaskContext
    from pyspark.sql import datasource
    from pyspark.sql.pandas.types import to_arrow_schema
except ImportError as error:
    raise ImportError("Spark's sink needs pyspark 4 and pyarrow: pip install 'raccoon_fast[spark]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pyspark.sql.types import StructType

__all__ = ["Committed", "RaccoonDataSource"]

# Spark 4.0 has none for streams, and passes rows.
_StreamBase: Any = getattr(datasource, "DataSourceStreamArrowWriter", datasource.DataSourceStreamWriter)
_TAKES_ROWS = _StreamBase is datasource.DataSourceStreamWriter

# Each option and its parser.
_COLUMNS: dict[str, Callable[[str], Any]] = {
    "event_type": str,
    "type_column": str,
    "data_columns": option_text.names,
    "serializer": str,
}
_SINK: dict[str, Callable[[str], Any]] = {
    "url": option_text.names,
    "batch_bytes": option_text.whole_number,
    "batch_events": option_text.whole_number,
    "buffer_bytes": option_text.whole_number,
    "connect_timeout": option_text.seconds,
    "connections": option_text.whole_number,
    "delivery_timeout": option_text.seconds,
    "group": str,
    "group_header": str,
    "id_header": str,
    "max_events_per_second": option_text.number,
    "max_in_flight": option_text.whole_number,
    "parallelism": option_text.whole_number,
    "timeout": option_text.seconds,
    "wire": str,
}
# Spark treats the first two as secrets by their names, wherever it shows options.
_OWN = ("token", "password", "user", "ca", "cert", "key", "job_id")
_HEADER = "header."
# Options that Spark adds to a stream's own.
_SPARKS = ("checkpointlocation", "queryname")


class RaccoonDataSource(datasource.DataSource):  # type: ignore[misc]
    """Writes rows as events; registered by `spark.dataSource.register(RaccoonDataSource)`. It cannot read.

    Args:
        options: As text. `url`, several separated by commas; `type_column` or `event_type`; `data_columns`, separated
            by commas; `serializer`, json or raw; `token`, or `user` and `password`; `ca`, `cert`, `key`, paths of PEM
            files on driver and executors; `header.NAME`; `max_events_per_second` with `parallelism`; `job_id`; and of
            a Producer's `batch_events`, `batch_bytes`, `max_in_flight`, `connections`, `buffer_bytes`,
            `delivery_timeout`, `timeout`, `connect_timeout`, `wire`, `group`, `id_header`, `group_header`.

    Raises:
        TypeError, ValueError: An option is unknown or invalid; the message names it.
    """

    @classmethod
    def name(cls) -> str:
        """The format's name."""
        return "raccoon"

    def __init__(self, options: Mapping[str, str]) -> None:
        self._job_id = options.get("job_id")
        self._sink = _sink_options(options)

    def writer(self, schema: StructType, overwrite: bool) -> _BatchWriter:
        """For `df.write`. Called on the driver, once per write."""
        self._check(schema, overwrite)
        return _BatchWriter(self._sink, self._job_id or str(uuid.uuid4()))

    def streamWriter(self, schema: StructType, overwrite: bool) -> _StreamWriter:  # noqa: N802 - pyspark's name
        """For `df.writeStream`. Called on the driver, once per epoch."""
        if self._job_id is not None:
            raise ValueError("job_id is for df.write: a stream's guids come from its checkpoint's id and the epoch")
        self._check(schema, overwrite)
        return _StreamWriter(self._sink, to_arrow_schema(schema))

    def _check(self, schema: StructType, overwrite: bool) -> None:
        if overwrite:
            raise ValueError('events can only be appended: .mode("append"), or .outputMode("append")')
        self._sink.columns.check(to_arrow_schema(schema))


@dataclass
class Committed(datasource.WriterCommitMessage):  # type: ignore[misc]
    """The message of a successful task to the driver.

    Attributes:
        query: The streaming query's id, or the job's.
        report: The task's report.
    """

    query: str
    report: TaskReport


class _BatchWriter(datasource.DataSourceArrowWriter):  # type: ignore[misc]
    """Pickled to each task of one write."""

    def __init__(self, sink: SinkOptions, job_id: str) -> None:
        self._sink = sink
        self._job_id = job_id

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Committed:
        return _write(iterator, self._sink, Scope(self._job_id, 0, _context().partitionId()))

    def commit(self, messages: Sequence[Committed | None]) -> None:
        _log_commit(f"job {self._job_id}", messages)

    def abort(self, messages: Sequence[Committed | None]) -> None:
        _log_abort(f"job {self._job_id}", messages)


class _StreamWriter(_StreamBase):  # type: ignore[misc]
    """Pickled to each task of one epoch; another instance commits and aborts."""

    def __init__(self, sink: SinkOptions, schema: pa.Schema) -> None:
        self._sink = sink
        self._schema = schema

    def write(self, iterator: Iterator[Any]) -> Committed:
        context = _context()
        query, epoch = (context.getLocalProperty(name) for name in ("sql.streaming.queryId", "streaming.sql.batchId"))
        if query is None or epoch is None:
            raise RuntimeError("Spark did not tell this task its query and epoch, which its guids are made of")
        batches = _batches_of(iterator, self._schema, self._sink.batch_events) if _TAKES_ROWS else iterator
        return _write(batches, self._sink, Scope(query, int(epoch), context.partitionId()))

    def commit(self, messages: Sequence[Committed | None], batchId: int) -> None:  # noqa: N803 - pyspark's name
        _log_commit(f"{_query_of(messages)}, epoch {batchId}", messages)

    def abort(self, messages: Sequence[Committed | None], batchId: int) -> None:  # noqa: N803
        _log_abort(f"{_query_of(messages)}, epoch {batchId}", messages)


def _sink_options(options: Mapping[str, str]) -> SinkOptions:
    for name in options:
        if name not in (*_COLUMNS, *_SINK, *_OWN, *_SPARKS) and not name.startswith(_HEADER):
            near = difflib.get_close_matches(name, [*_COLUMNS, *_SINK, *_OWN], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown option {name!r}{hint}")
    columns, sink = _read(options, _COLUMNS), _read(options, _SINK)
    if "url" not in sink:
        raise ValueError("url is missing: the server's address, such as ws://raccoon:8080")
    if any("@" in url for url in sink["url"]):
        raise ValueError("url must not hold a password, which plans may show: give user and password")
    headers = {name.removeprefix(_HEADER): text for name, text in options.items() if name.startswith(_HEADER)}
    if headers:
        sink["headers"] = headers
    key = tuple(sorted(options.items()))
    return SinkOptions(columns=Columns(**columns), key=key, **sink, **_credentials(options))


def _read(options: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    values = {}
    for name, read in readers.items():
        if name in options:
            values[name] = _read_one(name, options[name], read)
    return values


def _read_one(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _credentials(options: Mapping[str, str]) -> dict[str, Any]:
    credentials: dict[str, Any] = {}
    if "token" in options and "user" in options:
        raise ValueError("give token, or user and password, not both")
    if ("user" in options) != ("password" in options):
        raise ValueError("user and password belong together: give both, or neither")
    if "token" in options:
        credentials["auth"] = options["token"]
    elif "user" in options:
        credentials["auth"] = options["user"], options["password"]
    files = {name: options[name] for name in ("ca", "cert", "key") if name in options}
    if files:
        credentials["tls"] = TLS(**files)
    return credentials


def _context() -> TaskContext:
    context = TaskContext.get()
    assert context is not None
    return context


def _batches_of(rows: Iterable[Any], schema: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row.asDict(recursive=True))
        if len(waiting) == size:
            yield pa.RecordBatch.from_pylist(waiting, schema)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema)


def _write(batches: Iterable[pa.RecordBatch], sink: SinkOptions, scope: Scope) -> Committed:
    return Committed(scope.query, write_task(batches, sink, scope))


def _query_of(messages: Sequence[Committed | None]) -> str:
    return next((f"query {message.query}" for message in messages if message is not None), "a query")


def _log_commit(what: str, messages: Sequence[Committed | None]) -> None:
    done = total(message.report for message in messages if message is not None)
    resolve_logger(CONSOLE).info("%s is written: %s", what, done)


def _log_abort(what: str, messages: Sequence[Committed | None]) -> None:
    done = total(message.report for message in messages if message is not None)
    resolve_logger(CONSOLE).error(
        "%s is given up: %d of %d tasks did not succeed; of the others %s",
        what,
        len(messages) - done.tasks,
        len(messages),
        done,
    )
