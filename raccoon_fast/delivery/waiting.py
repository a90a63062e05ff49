"""Batches that wait for their next attempt."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raccoon_fast.core.batch import Batch

__all__ = ["Waiting"]


class Waiting:
    """Batches that are sent in order as soon as a server is ready, and batches that must wait until a certain time.

    Owned by the engine's loop. It mostly holds batches that were tried before; new batches wait in the accumulator.
    """

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()
        self._delayed: list[tuple[float, int, Batch]] = []
        self._order = itertools.count()
        self._deadline_s = float("inf")

    def add(self, batch: Batch) -> None:
        """Send it after the others."""
        self._watch(batch)
        self._ready.append(batch)

    def add_first(self, batch: Batch) -> None:
        """Send it before the others."""
        self._watch(batch)
        self._ready.appendleft(batch)

    def add_delayed(self, batch: Batch, until_s: float) -> None:
        """Do not send it before then."""
        self._watch(batch)
        heapq.heappush(self._delayed, (until_s, next(self._order), batch))

    @property
    def has_some(self) -> bool:
        """Whether any waits, ready or not."""
        return bool(self._ready or self._delayed)

    @property
    def has_ready(self) -> bool:
        """Whether `pop_ready` has one."""
        return bool(self._ready)

    @property
    def retry_s(self) -> float:
        """When the first delayed batch may be sent; infinity if there is none."""
        return self._delayed[0][0] if self._delayed else float("inf")

    @property
    def deadline_s(self) -> float:
        """A time before which no waiting batch expires; infinity if nothing waits."""
        return self._deadline_s if self._ready or self._delayed else float("inf")

    def pop_ready(self) -> Batch:
        """The next batch that may be sent at once."""
        return self._ready.popleft()

    def pop_ready_of(self, lane: int) -> Batch | None:
        """The next batch of a lane that may be sent at once, or None."""
        for batch in self._ready:
            if batch.settlement.lane == lane:
                self._ready.remove(batch)
                return batch
        return None

    def pop_delayed(self) -> Batch:
        """The batch to which `retry_s` refers."""
        return heapq.heappop(self._delayed)[2]

    def pop_overdue(self, now_s: float) -> list[Batch]:
        """The batches past their deadline."""
        if self.deadline_s > now_s:
            return []
        # Only here all batches are checked. The batch with that deadline may have been sent long ago.
        overdue = [batch for batch in self if batch.deadline_s <= now_s]
        self._ready = deque(batch for batch in self._ready if batch.deadline_s > now_s)
        self._delayed = [entry for entry in self._delayed if entry[2].deadline_s > now_s]
        heapq.heapify(self._delayed)
        self._deadline_s = min((batch.deadline_s for batch in self), default=float("inf"))
        return overdue

    def pop_all(self) -> list[Batch]:
        """Every one."""
        batches = list(self)
        self._ready.clear()
        self._delayed.clear()
        return batches

    def _watch(self, batch: Batch) -> None:
        if batch.deadline_s < self._deadline_s or not (self._ready or self._delayed):
            self._deadline_s = batch.deadline_s

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._ready
        for _, _, batch in self._delayed:
            yield batch
