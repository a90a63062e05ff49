"""Drops the oldest batches of a lane to make room for newer events."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.delivery.ledger import DROPPED, Ledger
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import DroppedError
from raccoon_fast.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raccoon_fast.core.batch import Accumulator, Batch

__all__ = ["Dropping"]


class Dropping:
    """The batches that `overflow="drop_oldest"` drops from one lane. Thread-safe, and without a lock.

    A Ctrl-C may come between any two steps: a batch is in one deque or the other, and the next call continues with it.

    Args:
        accumulator: The lane's accumulator.
        ledger: Counts the dropped events.
        recycle: Gets each dropped batch once it is settled.
    """

    def __init__(self, accumulator: Accumulator, ledger: Ledger, recycle: Callable[[Batch], None]) -> None:
        self._accumulator = accumulator
        self._ledger = ledger
        self._recycle = recycle
        #: Batches that are not counted yet.
        self.uncounted: deque[Batch] = deque()
        self._unsettled: deque[Batch] = deque()

    def drop(self) -> bool:
        """Drop the batch that has waited longest. Returns False if everything is in flight."""
        accumulator = self._accumulator
        while True:
            with self._ledger.change():
                before = accumulator.taken
                accumulator.take(self.uncounted)
                has_dropped = self._count()
            if has_dropped or accumulator.taken != before:  # or another thread has dropped it
                break
            if not accumulator.seal():
                return False
        self._settle()
        return True

    def finish(self) -> None:
        """Continue where an exception of a signal handler ended `drop`."""
        if self.uncounted or self._unsettled:
            with self._ledger.change():
                self._count()
            self._settle()

    def _count(self) -> bool:
        has_dropped = False
        mine: deque[Batch] = deque()
        try:
            for batch in _claimed(self.uncounted, mine):
                at_once(
                    map(mine.remove, (batch,)),
                    map(deque.append, (self._unsettled,), (batch,)),
                    self._ledger.adding(batch.types, DROPPED + "drop_oldest"),
                )
                has_dropped = True
        finally:
            self.uncounted.extend(mine)
        self._ledger.make_moves()
        return has_dropped

    def _settle(self) -> None:
        mine: deque[Batch] = deque()
        try:
            for batch in _claimed(self._unsettled, mine):
                if not batch.receipt.done():
                    error = DroppedError(
                        "dropped to make room for newer events because the buffer was full",
                        req_guid=batch.receipt.req_guid,
                    )
                    (batch.settlement or Settlement(batch.receipt)).abandoned(error)
                at_once(map(mine.remove, (batch,)), self._accumulator.releasing(batch.cost))
                self._recycle(batch)
        finally:
            self._unsettled.extend(mine)


def _claimed(batches: deque[Batch], mine: deque[Batch]) -> Iterator[Batch]:
    """Yield the batches one by one. Each is in `mine` alone by then, so that no other thread counts or reuses it.

    The caller removes each from `mine`. If an exception of a signal handler ends the caller's loop, a batch may still
    be there.
    """
    while batches or mine:
        if mine:
            yield mine[0]
        else:
            with contextlib.suppress(IndexError):  # another thread took it
                at_once(map(deque.append, (mine,), map(deque.popleft, (batches,))))
