"""Reports a producer's ledger to metrics sinks; the only place that reads it for them."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.stats.ledger import LaneReading, Reading
from raccoon_fast.stats.sink import ledger_of

if TYPE_CHECKING:
    from raccoon_fast.producers.base import BaseProducer

__all__ = ["ProducerMeter"]

# The most batch sizes kept between two readings, in case the sink never reads.
_MOST_SIZES = 65536


class ProducerMeter:
    """Lets a producer's sink read it from its first event until it is closed. Holds no reference to the producer.

    Args:
        producer: The producer whose `stats` is the sink; if the sink reads no ledgers, the meter does nothing.

    Attributes:
        sizes: Collects the lane, events and bytes of each batch at its first attempt; None if no sink needs them.
    """

    def __init__(self, producer: BaseProducer) -> None:
        self._sink = ledger_of(producer._options.settings.stats)  # noqa: SLF001 - the producer's own half
        self._producer = weakref.ref(producer)
        self._ending: BaseProducer | None = None
        self._is_watched = self._is_over = False
        self.sizes: deque[tuple[int, int, int]] | None = None if self._sink is None else deque(maxlen=_MOST_SIZES)

    def begin(self) -> None:
        """Events come; idempotent."""
        if self._sink is not None and not (self._is_watched or self._is_over):
            self._is_watched = True
            self._sink.watch(self)

    def end(self, producer: BaseProducer) -> None:
        """Called when the producer is closed or about to be freed and its counts are final. Idempotent."""
        if self._sink is not None and self._is_watched:
            self._is_watched, self._is_over = False, True
            self._ending = producer  # an object about to be freed is not found by its weak reference
            self._sink.unwatch(self)
            self._ending = None

    def forget(self) -> None:
        """In a forked child: the sink has forgotten the parent's producers as well."""
        self._is_watched = self._is_over = False
        if self.sizes is not None:
            self.sizes.clear()

    def read(self, *, by_type: bool) -> Reading | None:
        """See Source."""
        producer = self._ending or self._producer()
        return None if producer is None else _read(producer, self._taken_sizes(), by_type=by_type)

    def _taken_sizes(self) -> list[tuple[int, int, int]]:
        taken: list[tuple[int, int, int]] = []
        with contextlib.suppress(IndexError):  # another reader took the last one
            while self.sizes:
                taken.append(self.sizes.popleft())
        return taken


def _read(producer: BaseProducer, sizes: list[tuple[int, int, int]], *, by_type: bool) -> Reading:
    engine, spool = producer._engine, producer._spool  # noqa: SLF001 - as in ProducerMeter
    endpoints: dict[str, bool] = {}
    for address, is_well, _ in [] if engine is None else engine.health():
        endpoints[address] = is_well and endpoints.get(address, True)
    return Reading(
        lanes=_read_lanes(producer, sizes, by_type=by_type),
        spool_bytes=0 if spool is None else spool.nbytes,
        connections=0 if engine is None else engine.connections,
        endpoints=endpoints,
    )


def _read_lanes(producer: BaseProducer, sizes: list[tuple[int, int, int]], *, by_type: bool) -> list[LaneReading]:
    engine = producer._engine  # noqa: SLF001 - as in ProducerMeter
    report = producer.stats()
    spooled = {} if engine is None else engine.spooled
    retried = {} if engine is None else engine.retried.copy()
    readings = []
    for number, (lane, accumulator) in enumerate(zip(producer._lanes, producer._accumulators, strict=True)):  # noqa: SLF001
        own = {one: events for one, events in spooled.items() if producer._lane_of_type(one) == number}  # noqa: SLF001
        types = {one: counts for one, counts in report.by_type.items() if producer._lane_of_type(one) == number}  # noqa: SLF001
        readings.append(
            LaneReading(
                lane=lane.name,
                counts=types if by_type else {"": report.by_lane[lane.name]},
                spooled=own if by_type else {"": sum(own.values())},
                retries={reason: count for (of, reason), count in retried.items() if of == number},
                buffered_bytes=accumulator.buffered,
                buffer_limit_bytes=lane.buffer_bytes,
                batches=[(events, nbytes) for of, events, nbytes in sizes if of == number],
            )
        )
    return readings
