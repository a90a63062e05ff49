"""Ray Data: a Datasink for `ds.write_datasink(RaccoonDatasink(url, …))`.

    from raccoon_fast.integrations.ray import RaccoonDatasink

    ds.write_datasink(RaccoonDatasink("ws://raccoon:8080", type_column="type"))

raccoon_fast must be installed where the tasks run. docs/pages/ray.md describes the guarantees.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.integrations.tasks import Scope, TaskReport, total, write_task
from raccoon_fast.logs import CONSOLE, resolve_logger
from raccoon_fast.tables.columns import Columns

try:
    from ray import cloudpickle
    from ray.data.block import BlockAccessor
    from ray.data.datasource import Datasink
except ImportError as error:
    raise ImportError("Ray's sink needs ray and pyarrow: pip install 'raccoon_fast[ray]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from ray.data._internal.execution.interfaces import TaskContext
    from ray.data.block import Block
    from ray.data.datasource.datasink import WriteResult

__all__ = ["RaccoonDatasink"]

# Ray's name for the id of a write, which all its tasks get.
_WRITE_ID = "write_uuid"


class RaccoonDatasink(Datasink[TaskReport]):  # type: ignore[misc]
    """Writes rows as events. A task succeeds when all of its events are acknowledged.

    Args:
        url: One server or several, as for Producer.
        event_type: The type of all events; or None, and
        type_column: The column that holds each event's type.
        data_columns: Columns that make the event's data; None for all but `type_column`.
        serializer: "json" for an object of the data columns, "raw" for the bytes of the one data column.
        job_id: A job that runs again with the same id sends the same batches under the same guids; None uses a new id
            per write. This needs the rows in the same order:
            `DataContext.get_current().execution_options.preserve_order = True`.
        max_events_per_second: The limit of the whole write; needs `parallelism`.
        parallelism: The number of tasks that run at once, such as write_datasink's `concurrency`.
        **options: As Producer: auth, tls, headers, batch_events, batch_bytes, max_in_flight, connections, buffer_bytes,
            delivery_timeout, timeout, connect_timeout, retry, wire, group, logger, and the like. Pickled to the tasks.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        event_type: str | None = None,
        type_column: str | None = None,
        data_columns: Sequence[str] | None = None,
        serializer: str = "json",
        job_id: str | None = None,
        **options: Any,
    ) -> None:
        if job_id is not None and not isinstance(job_id, str):
            raise TypeError(f"job_id takes a str, not {type(job_id).__name__}")
        columns = Columns(event_type, type_column, data_columns, serializer)
        # Writes with the same options share a worker's connections.
        key = "ray", hashlib.sha256(cloudpickle.dumps((url, options))).hexdigest()
        self._job_id = job_id
        self._logger = options.get("logger", CONSOLE)
        self._sink = SinkOptions(url, columns, key, **options)

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> TaskReport:
        """Send a task's rows, and wait until all of them are acknowledged.

        Raises:
            TaskError: An event cannot be sent, was refused, or was not acknowledged within delivery_timeout. Ray does
                not repeat a task that raises, but does repeat it if its worker dies.
            ValueError: A column is missing, has an unsuitable type, or contains a forbidden null. Not raised on the
                driver, because on_write_start gets the columns before the steps that Ray fuses with the write.
        """
        scope = Scope(self._job_id or ctx.kwargs[_WRITE_ID], 0, ctx.task_idx)
        return write_task(self._batches(blocks), self._sink, scope)

    def on_write_complete(self, write_result: WriteResult[TaskReport]) -> None:
        """Log the sum of the tasks' reports, on the driver."""
        resolve_logger(self._logger).info("a dataset is written: %s", total(write_result.write_returns))

    def on_write_failed(self, error: Exception) -> None:
        """Log the failure, on the driver. Acknowledged events stay: a server takes nothing back."""
        resolve_logger(self._logger).error(
            "a dataset is given up, and some of its events may have been delivered: %s", error
        )

    @property
    def min_rows_per_write(self) -> int:
        """The events per batch: smaller blocks are joined to full batches."""
        return self._sink.batch_events

    def _batches(self, blocks: Iterable[Block]) -> Iterator[pa.RecordBatch]:
        for block in blocks:
            table: pa.Table = BlockAccessor.for_block(block).to_arrow()
            self._sink.columns.check(table.schema)
            yield from table.to_batches()
