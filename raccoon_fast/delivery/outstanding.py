"""Accepted batches without an outcome, for which a flush waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raccoon_fast.core.batch import Accumulator, Batch
    from raccoon_fast.delivery.settlement import Settlement

__all__ = ["Outstanding"]


class Outstanding:
    """Batches in the order in which their events were accepted, by settlement: a split batch is still one.

    Owned by the engine's loop.

    Args:
        accumulator: The accumulator, whose batches are not settled either.
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        # For each batch: how many events had been accepted up to its end, and how many it has.
        self._batches: dict[Settlement, tuple[int, int]] = {}
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, batch: Batch, position: int) -> None:
        """Add a batch that was just taken.

        Args:
            batch: The batch.
            position: How many events had been accepted up to its end. If it is too small, a flush may wait for a batch
                more than it has to; if it is too large, for one too few.
        """
        self._batches[batch.settlement] = (position, batch.count)

    def remove(self, settlement: Settlement) -> None:
        """Remove a settled batch."""
        self._batches.pop(settlement, None)

    def unsettled(self, target: int) -> int:
        """The number of unsettled events among the first `target` accepted ones."""
        waiting = max(0, target - self._accumulator.taken)
        return waiting + sum(count for position, count in self._batches.values() if position <= target)

    async def wait(self, target: int, timeout_s: float) -> None:
        """Wait until `target` events are settled, or this many seconds have passed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flush = (target, done)
        self._flushes.append(flush)
        try:
            await asyncio.wait([done], timeout=timeout_s)
        finally:
            self._flushes.remove(flush)

    def end_waits(self) -> None:
        """Wake the waiters whose events are settled."""
        for target, done in self._flushes:
            if not done.done() and self._is_settled(target):
                done.set_result(None)

    def _is_settled(self, target: int) -> bool:
        oldest, _ = next(iter(self._batches.values()), (target + 1, 0))
        return oldest > target and self._accumulator.taken >= target
