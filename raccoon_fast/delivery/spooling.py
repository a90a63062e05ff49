"""The engine's side of the spool: what blocks is done on a thread of its own, and its end comes back to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raccoon_fast.delivery.spool import Record, SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raccoon_fast.core.batch import Batch
    from raccoon_fast.delivery.callbacks import CallbackThread
    from raccoon_fast.delivery.spool import Spool
    from raccoon_fast.logs import Log

__all__ = ["Spooling"]

_ADOPT_S = 10.0
# A disk that refuses is told of, and asked again, so much later.
_PAUSE_S = 1.0
_TELL_S = 60.0


@dataclass
class _Turn:
    """What the thread is asked for in one go: many batches share one transaction."""

    stores: list[tuple[Batch, Callable[[Batch, int | None], None]]] = field(default_factory=list)
    removes: list[int] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    # Numbers of records, or a record that is not stored yet, each with a reason.
    quarantines: list[tuple[list[int] | Record, str]] = field(default_factory=list)
    fetch: tuple[int, Callable[[list[Record]], None]] | None = None
    adopts: bool = False

    def __bool__(self) -> bool:
        return bool(self.stores or self.removes or self.returns or self.quarantines or self.fetch or self.adopts)


class Spooling:
    """Stores, fetches and removes records, one turn after the other.

    Owned by the engine's loop; the spool itself is touched by the thread only. What is asked for while a turn is under
    way is the next turn.

    Args:
        spool: Nobody else's.
        thread: Runs one call after the other.
        turned: Called on the loop after each turn, with the events by type of records that are ours from now on, of a
            process that is no more, and with those of records that were lost.
        logger: Told of what the disk refuses, once a minute.

    Attributes:
        available: Records that `fetch` would find.
    """

    def __init__(
        self,
        spool: Spool,
        thread: CallbackThread,
        turned: Callable[[Mapping[str, int], Mapping[str, int]], None],
        logger: Log,
    ) -> None:
        self.available = 0
        self._spool = spool
        self._thread = thread
        self._turned = turned
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._next = _Turn(adopts=True)
        self._idle = asyncio.Event()
        self._is_busy = False
        self._is_closed = False
        self._refused_s = float("-inf")
        self._told_s = float("-inf")
        self._adopt_timer: asyncio.TimerHandle | None = None
        self._kick()

    @property
    def ready_s(self) -> float:
        """When the disk may be asked again: a moment after it refused something."""
        return self._refused_s + _PAUSE_S

    def store(self, batch: Batch, then: Callable[[Batch, int | None], None]) -> None:
        """Store a batch, and call `then` with it and its record's number, None where the disk refused.

        The batch must stay as it is until then.
        """
        self._next.stores.append((batch, then))
        self._kick()

    def remove(self, numbers: list[int]) -> None:
        """Delete records, some time soon."""
        self._next.removes += numbers
        self._kick()

    def give_back(self, numbers: list[int]) -> None:
        """Let records be fetched again."""
        self._next.returns += numbers
        self._kick()

    def quarantine(self, numbers: list[int], reason: str) -> None:
        """Move records into quarantine, some time soon: they are kept there, and not sent again.

        Args:
            numbers: The records'.
            reason: Why, as a clause: "it was refused by every server".
        """
        self._next.quarantines.append((numbers, reason))
        self._kick()

    def put_quarantined(self, batch: Batch, reason: str) -> None:
        """Store a batch in quarantine, some time soon. It may be changed as soon as this returns."""
        self._next.quarantines.append((_record(batch), reason))
        self._kick()

    def fetch(self, max_bytes: int, then: Callable[[list[Record]], None]) -> None:
        """Hand out the oldest records, `max_bytes` of them or one, to `then`."""
        self._next.fetch = (max_bytes, then)
        self._kick()

    async def close(self, timeout_s: float) -> None:
        """Finish what was asked for, for at most so long, and let go of the records."""
        if self._adopt_timer is not None:
            self._adopt_timer.cancel()
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        finally:
            self._is_closed = True
            self._thread.submit(_close, self._spool)

    def _kick(self) -> None:
        if self._is_busy or not self._next:
            return
        self._is_busy = True
        self._idle.clear()
        turn, self._next = self._next, _Turn()
        self._thread.submit(self._work, turn)
        if self._is_closed:
            self._thread.submit(_close, self._spool)  # which the turn opened once more

    # On the thread

    def _work(self, turn: _Turn) -> None:
        spool = self._spool
        adopted: Counter[str] = Counter()
        numbers: list[int] | None = None
        records: list[Record] = []
        error: SpoolError | None = None
        if turn.stores:
            try:
                numbers = spool.put([_record(batch) for batch, _ in turn.stores])
            except SpoolError as refused:
                error = refused
        try:
            for what, reason in turn.quarantines:  # before the removes, which may delete what a part is kept of
                if isinstance(what, Record):
                    spool.put_quarantined(what, reason)
                else:
                    spool.quarantine(what, reason)
            if turn.removes:
                spool.remove(turn.removes)
            spool.give_back(turn.returns)
            if turn.adopts:
                adopted = spool.adopt()
            if turn.fetch is not None:
                records = spool.take(turn.fetch[0])
        except SpoolError as refused:
            error = refused
        outcome = (turn, numbers, records, adopted, spool.pop_lost(), error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._worked, *outcome)

    # On the loop

    def _worked(
        self,
        turn: _Turn,
        numbers: list[int] | None,
        records: list[Record],
        adopted: Mapping[str, int],
        lost: Mapping[str, int],
        error: SpoolError | None,
    ) -> None:
        self._is_busy = False
        self.available = self._spool.available
        now_s = time.monotonic()
        if error is not None:
            self._refused_s = now_s
            if now_s >= self._told_s + _TELL_S:
                self._told_s = now_s
                self._logger.error("%s", error)
        if turn.adopts:
            self._adopt_timer = self._loop.call_later(_ADOPT_S, self._adopt)
        for position, (batch, then) in enumerate(turn.stores):
            then(batch, None if numbers is None else numbers[position])
        if turn.fetch is not None:
            turn.fetch[1](records)
        self._turned(adopted, lost)
        self._kick()
        if not self._is_busy:
            self._idle.set()

    def _adopt(self) -> None:
        self._next.adopts = True
        self._kick()


def _record(batch: Batch) -> Record:
    age_s = time.monotonic() - batch.accepted_s
    return Record(batch.req_guid, batch.wire, time.time() - age_s, batch.types, batch.envelope.body())


def _close(spool: Spool) -> None:
    spool.close()
