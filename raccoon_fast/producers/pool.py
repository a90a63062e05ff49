"""Delivered batches, whose memory further batches use."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.core.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raccoon_fast.producers.options import ProducerOptions

__all__ = ["Pool"]

# A batch takes more memory than its events.
_BATCH_BYTES = 2048
_MOST_BYTES = 8 << 20


class Pool:
    """Batches that were delivered, for reuse: fresh memory costs a page fault per 4 kB. Thread-safe.

    These attributes change for every batch. They are not the producer's own, because without a GIL a forked child could
    find that object locked.

    Args:
        options: The producer's, whose wire format and sizes the batches have.

    Attributes:
        batches: The batches.
        cost: The cost of the last batch put there.
        last_made: A new batch starts with room for a little more than this one held, so that it need not grow step by
            step.
    """

    __slots__ = ("_most_bytes", "_options", "batches", "cost", "last_made")

    def __init__(self, options: ProducerOptions) -> None:
        self._options = options
        self._most_bytes = min(options.buffer_bytes // 8, _MOST_BYTES)
        self.batches: deque[Batch] = deque()
        self.cost = 0
        self.last_made = Batch(options.wire)

    def take(self) -> Batch:
        """An empty batch: one of the pool, or a new one."""
        try:
            batch = self.batches.pop()
        except IndexError:
            usual_bytes = self.last_made.nbytes or 4096  # any moment's value will do: another thread may be filling it
            batch = Batch(self._options.wire, min(usual_bytes * 17 // 16, self._options.batch_bytes))
        self.last_made = batch
        return batch

    def give(self, delivered: Iterable[Batch]) -> None:
        """Keep delivered batches, up to an eighth of the buffer or 8 MiB.

        Small blocks are not kept, because they would keep the memory around them from being returned.
        """
        batches = self.batches
        for batch in delivered:
            cost = batch.cost
            pooled_bytes = (len(batches) + 1) * (cost + _BATCH_BYTES)
            if pooled_bytes <= self._most_bytes and not (batch.is_lean or batch.envelope.exported):
                batch.clear()
                batches.append(batch)
                self.cost = cost
            elif cost > 4 * self.cost and not batch.is_lean:
                # Batches have become larger: smaller ones make way.
                for _ in range((len(batches) + 1) // 2):
                    with contextlib.suppress(IndexError):  # another thread took it
                        batches.popleft()
