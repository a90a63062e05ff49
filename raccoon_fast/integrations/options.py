"""The options of an engine's sink: checked once on the driver, and sent to the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.clients.options import positive, whole
from raccoon_fast.producers.producer import Producer
from raccoon_fast.serializers import RAW

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from raccoon_fast.tables.columns import Columns

__all__ = ["SinkOptions"]

# Options of Producer that a sink does not take, and why.
_REFUSED = {
    "block_timeout": "it follows from delivery_timeout",
    "durable": "the engine keeps the data and sends it again",
    "linger": "all batches of a task except the last are full",
    "on_delivery": "the task waits for its receipts",
    "overflow": "a task waits for room and drops nothing",
    "spool": "the engine keeps the data and sends it again",
    "spool_bytes": "the engine keeps the data and sends it again",
    "user_id": "each worker has its own connection, and a server accepts one per id; use group",
}


class SinkOptions:
    """Options of a sink. Pickled to the workers; `repr` shows no secret.

    Args:
        url: As Producer.
        columns: The columns of an event.
        key: Sinks with the same key share their producer in a worker process.
        batch_events: As Producer.
        batch_bytes: As Producer.
        buffer_bytes: As Producer, per worker process.
        delivery_timeout: As Producer; after it the task fails, and the engine may run it again.
        max_events_per_second: The limit of the whole job; None for no limit.
        parallelism: The number of tasks that run at once; they share max_events_per_second evenly.
        **options: As Producer, except those that a sink sets itself.

    Attributes:
        columns: As given.
        key: As given.
        batch_events: Events per batch; fewer than requested if a worker may not send as many per second.
        batch_bytes: As given.
        delivery_timeout: As given.
        shape: The values that decide which events a batch has, and their bytes.
        worker_rate: The events per second of one worker; None for no limit.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        columns: Columns,
        key: Hashable,
        *,
        batch_events: int = 1000,
        batch_bytes: int = 1 << 20,
        buffer_bytes: int = 16 << 20,
        delivery_timeout: float = 120.0,
        max_events_per_second: float | None = None,
        parallelism: int | None = None,
        **options: Any,
    ) -> None:
        for option, why in _REFUSED.items():
            if option in options:
                raise TypeError(f"{option} is not an option of a sink: {why}")
        self.columns = columns
        self.key = key
        self.batch_events = whole("batch_events", batch_events)
        self.batch_bytes = batch_bytes
        self.delivery_timeout = positive("delivery_timeout", delivery_timeout)
        self.worker_rate = _worker_rate(max_events_per_second, parallelism)
        if self.worker_rate is not None:
            self.batch_events = min(self.batch_events, max(1, int(self.worker_rate)))
        self.shape = f"{columns!r}, {self.batch_events} events, {self.batch_bytes} bytes"
        self._producer_options = {
            "url": url,
            "batch_events": batch_events,
            "batch_bytes": batch_bytes,
            "buffer_bytes": buffer_bytes,
            "delivery_timeout": delivery_timeout,
            **options,
        }
        self.new_producer()  # this checks the other options, and starts nothing

    def new_producer(self) -> Producer:
        """Make a producer for the calling process; it starts with its first batch."""
        # block_timeout: longer than the batches that fill the buffer, so that their error says what is wrong.
        return Producer(**self._producer_options, serializer=RAW, block_timeout=2 * self.delivery_timeout)

    def __repr__(self) -> str:
        return f"<SinkOptions {', '.join(sorted(self._producer_options))}>"


def _worker_rate(max_events_per_second: float | None, parallelism: int | None) -> float | None:
    if max_events_per_second is None:
        if parallelism is not None:
            whole("parallelism", parallelism)
        return None
    if not isinstance(max_events_per_second, (int, float)) or isinstance(max_events_per_second, bool):
        raise TypeError(f"max_events_per_second takes a number, not {max_events_per_second!r}")
    if not 0 < max_events_per_second < float("inf"):
        raise ValueError(f"max_events_per_second must be above 0 and finite, not {max_events_per_second!r}")
    if parallelism is None:
        raise ValueError(
            "max_events_per_second needs parallelism: how many tasks of the job run at once (executors times their "
            "cores), which share it"
        )
    return max_events_per_second / whole("parallelism", parallelism)
