"""What was taken to be delivered and has no outcome yet: what a flush waits for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raccoon_fast.core.batch import Accumulator, Batch
    from raccoon_fast.delivery.settlement import Settlement

__all__ = ["Outstanding"]


class Outstanding:
    """Batches in the order in which their events were accepted, by settlement: one that was split is one still.

    Owned by the engine's loop.

    Args:
        accumulator: What it holds is not settled either.
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        # Events accepted up to and with a batch, and those of the batch.
        self._batches: dict[Settlement, tuple[int, int]] = {}
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, batch: Batch) -> None:
        """It was taken just now."""
        self._batches[batch.settlement] = (self._accumulator.taken, batch.count)

    def remove(self, settlement: Settlement) -> None:
        """It is settled."""
        self._batches.pop(settlement, None)

    def unsettled(self, target: int) -> int:
        """Events among the first `target` accepted that are not settled."""
        waiting = max(0, target - self._accumulator.taken)
        return waiting + sum(count for position, count in self._batches.values() if position <= target)

    async def wait(self, target: int, timeout_s: float) -> None:
        """Until `target` events are settled, or so many seconds have passed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flush = (target, done)
        self._flushes.append(flush)
        try:
            await asyncio.wait([done], timeout=timeout_s)
        finally:
            self._flushes.remove(flush)

    def end_waits(self) -> None:
        """Wake those whose events are settled."""
        for target, done in self._flushes:
            if not done.done() and self._is_settled(target):
                done.set_result(None)

    def _is_settled(self, target: int) -> bool:
        oldest, _ = next(iter(self._batches.values()), (target + 1, 0))
        return oldest > target and self._accumulator.taken >= target
