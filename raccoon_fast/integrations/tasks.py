"""One task of an engine: sends its rows as batches, each under a guid that is the same in every run of the task."""

from __future__ import annotations

import contextlib
import time
import uuid
import zlib
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.errors import EventsRejectedError, RaccoonError
from raccoon_fast.integrations.workers import Scope, borrow
from raccoon_fast.producers.encoded_rows import EncodedRows, Run
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from raccoon_fast.core.columns import Slices
    from raccoon_fast.delivery.receipts import Receipt
    from raccoon_fast.integrations.options import SinkOptions
    from raccoon_fast.integrations.workers import Worker
    from raccoon_fast.tables.columns import Columns

__all__ = ["Scope", "TaskError", "TaskReport", "cut", "req_guid", "total", "write_task"]

#: The namespace of the guids of tasks' batches.
_BATCHES = uuid.UUID("8f0a2f56-0d0b-5f43-b7c5-5b0a3d1f6a27")
# The approximate overhead of an event on the wire.
_EVENT_BYTES = 64
# Every batch has an outcome within delivery_timeout; after this much longer something is broken.
_MARGIN_S = 30.0
_SAMPLE_BYTES = 300


class TaskError(RaccoonError):
    """Not all events of a task were acknowledged; the cause says more.

    Attributes:
        scope: The task's.
        acknowledged: The number of its acknowledged events; unsettled events do not count.
        req_guid: The guid of the batch that failed.
        event_type: The type of an event of that batch, of a refused one if it is known.
        sample: Up to 300 bytes of that event.
    """

    def __init__(
        self, scope: Scope, acknowledged: int, req_guid: str, event_type: str, sample: bytes, why: BaseException
    ) -> None:
        super().__init__(
            f"partition {scope.partition} of {scope.query}, epoch {scope.epoch}: after {acknowledged} events that were "
            f"acknowledged batch {req_guid} was not. {type(why).__name__}: {why}. "
            f"An event of that batch, of type {event_type!r}: {sample!r}"
        )
        self.scope = scope
        self.acknowledged = acknowledged
        self.req_guid = req_guid
        self.event_type = event_type
        self.sample = sample


@dataclass
class TaskReport:
    """The report of a fully acknowledged task, or the sum of several reports from `total`.

    Attributes:
        events: Events.
        batches: Requests that carried them.
        data_bytes: The events' own bytes.
        seconds: The time from its first row to its last acknowledgement; the longest of several tasks.
        tasks: The number of tasks.
    """

    events: int = 0
    batches: int = 0
    data_bytes: int = 0
    seconds: float = 0.0
    tasks: int = 1

    def __str__(self) -> str:
        batches, tasks = counted(self.batches, "batch", "batches"), counted(self.tasks, "task")
        return (
            f"{counted(self.events, 'event')} ({self.data_bytes:,} bytes) acknowledged, in {batches} of {tasks}; "
            f"the longest took {self.seconds:.1f} s"
        )


class _Sent(NamedTuple):
    """A batch in flight: its receipt, the number and bytes of its events, and its first event."""

    receipt: Receipt
    events: int
    data_bytes: int
    first: tuple[str, bytes]


def write_task(batches: Iterable[pa.RecordBatch], options: SinkOptions, scope: Scope) -> TaskReport:
    """Send a task's rows, and wait until all of them are acknowledged.

    Args:
        batches: The task's rows. The same rows in the same order make the same requests, however they are divided.
        options: Of the sink.
        scope: Of the task.

    Raises:
        TaskError: An event cannot be sent, was refused, or was not acknowledged within delivery_timeout. The others may
            have been delivered.
        Exception: Any exception of the engine's iterator; ValueError for a forbidden null.
    """
    began_s = time.monotonic()
    report = TaskReport()
    sent: deque[_Sent] = deque()
    with contextlib.ExitStack() as stack:
        worker: Worker | None = None
        for number, events in enumerate(cut(options.columns, batches, options.batch_events, options.batch_bytes)):
            if worker is None:  # an empty task needs no connection
                worker = stack.enter_context(borrow(options, scope))
            worker.wait(len(events))
            sent.append(_send(worker, events, req_guid(scope, number, options, events), scope, report))
            while sent and sent[0].receipt.done():
                _settle(sent.popleft(), options, scope, report)
        while sent:
            _settle(sent.popleft(), options, scope, report)
    report.seconds = time.monotonic() - began_s
    return report


def req_guid(scope: Scope, number: int, options: SinkOptions, events: EncodedRows) -> str:
    """The guid of a task's batch, counted from 0.

    The guid depends on the events. So a reader that drops known guids never drops other events, even if a task that
    runs again gets its rows in another order.
    """
    types: list[str] = []
    for run in events.runs:
        types += [run.types] * len(run.slices) if isinstance(run.types, str) else run.types
    digest = zlib.crc32("\n".join(types).encode())
    for run in events.runs:
        digest = zlib.crc32(run.slices.joined(), digest)
    slot = f"{scope.query}/{scope.epoch}/{scope.partition}/{number}"
    return str(uuid.uuid5(_BATCHES, f"{slot}/{options.shape}/{digest}"))


def total(reports: Iterable[TaskReport]) -> TaskReport:
    """The sum of several tasks' reports."""
    sum_ = TaskReport(tasks=0)
    for report in reports:
        sum_.events += report.events
        sum_.batches += report.batches
        sum_.data_bytes += report.data_bytes
        sum_.seconds = max(sum_.seconds, report.seconds)
        sum_.tasks += report.tasks
    return sum_


def cut(columns: Columns, batches: Iterable[pa.RecordBatch], max_events: int, max_bytes: int) -> Iterator[EncodedRows]:
    """Divide rows into requests, only by their number and their bytes.

    Args:
        columns: Makes events from the rows.
        batches: The rows.
        max_events: The largest number of events per request.
        max_bytes: The largest number of bytes per request, counting 64 bytes of overhead per event; a larger event has
            its own request.
    """
    runs: list[Run] = []
    events = nbytes = 0
    for batch in batches:
        for types, slices, _ in columns.parts(batch):
            start = 0
            while start < len(slices):
                fitting = _fitting(slices, start, max_events - events, max_bytes - nbytes)
                stop = start + (fitting if events else max(1, fitting))
                if stop > start:
                    runs.append(Run(types if isinstance(types, str) else types[start:stop], slices.part(start, stop)))
                    events += stop - start
                    nbytes += slices.nbytes(start, stop) + _EVENT_BYTES * (stop - start)
                    start = stop
                if start < len(slices) or events == max_events:
                    yield EncodedRows(runs)
                    runs = []
                    events = nbytes = 0
    if runs:
        yield EncodedRows(runs)


def _fitting(slices: Slices, start: int, most: int, max_bytes: int) -> int:
    """How many events from `start` on fit into a request: up to `most`, and of up to so many bytes together."""
    most = min(most, len(slices) - start)

    def size(count: int) -> int:
        return slices.nbytes(start, start + count) + _EVENT_BYTES * count

    return most if size(most) <= max_bytes else bisect_right(range(1, most), max_bytes, key=size)


def _send(worker: Worker, events: EncodedRows, guid: str, scope: Scope, report: TaskReport) -> _Sent:
    first = next(iter(events))
    try:
        receipt = worker.producer.emit_batch(events, req_guid=guid)
    except Exception as error:
        raise _task_error(scope, report, guid, first, error) from error
    return _Sent(receipt, len(events), events.nbytes, first)


def _settle(sent: _Sent, options: SinkOptions, scope: Scope, report: TaskReport) -> None:
    try:
        error = sent.receipt.exception(options.delivery_timeout + _MARGIN_S)
    except TimeoutError as still_on_its_way:
        error = still_on_its_way
    if error is not None:
        first = sent.first
        if isinstance(error, EventsRejectedError) and error.rejected:
            first = error.rejected[0].type, error.rejected[0].data
        raise _task_error(scope, report, sent.receipt.req_guid, first, error) from error
    report.events += sent.events
    report.data_bytes += sent.data_bytes
    report.batches += 1


def _task_error(
    scope: Scope, report: TaskReport, guid: str, event: tuple[str, bytes], error: BaseException
) -> TaskError:
    event_type, data = event
    return TaskError(scope, report.events, guid, event_type, data[:_SAMPLE_BYTES], error)
