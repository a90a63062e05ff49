"""The engine's side of the spool: blocking work runs on a separate thread, and results return to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.spool.records import fault_of_events
from raccoon_fast.spool.store import Record, SpoolDamaged, SpoolError, SpoolFull
from raccoon_fast.timeouts import timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.callbacks import CallbackThread
    from raccoon_fast.core.batch import Batch
    from raccoon_fast.logs import Log
    from raccoon_fast.spool.store import Spool

__all__ = ["News", "Spooling"]

_ADOPT_S = 10.0
# After how many seconds a failing disk is tried again, and how often its failure is logged.
_PAUSE_S = 1.0
_TELL_S = 60.0
# The most batches for the quarantine that wait for a failing disk.
_MAX_QUARANTINES = 1000


@dataclass
class _Turn:
    """The work of one turn of the thread: many batches share a transaction. The thread removes finished work."""

    stores: list[tuple[Batch, Callable[[Batch, int | None], None]]] = field(default_factory=list)
    removes: list[int] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    # Record numbers, or records not stored yet, each with a reason.
    quarantines: list[tuple[list[int] | Record, str]] = field(default_factory=list)
    fetch: tuple[int, Callable[[list[Record]], None]] | None = None
    adopts: bool = False
    closes: bool = False

    def __bool__(self) -> bool:
        asked = (self.stores, self.removes, self.returns, self.quarantines, self.fetch, self.adopts, self.closes)
        return any(asked)


@dataclass
class _Done:
    """The result of a turn."""

    # Of the first stores; there was no room for the others, or the disk failed.
    numbers: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    adopted: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    available: int = 0
    freed: bool = False
    error: SpoolError | None = None


class News(NamedTuple):
    """News about records, beside the requested results.

    Attributes:
        adopted: Events by type of records taken over from a dead process.
        lost: Events by type, by record number, of records that were only on disk and are lost.
        gone: Numbers of records that are no longer on disk but whose batches are in memory.
    """

    adopted: Mapping[str, int]
    lost: Mapping[int, Mapping[str, int]]
    gone: list[int]


class Spooling:
    """Stores, fetches and removes records, one turn after the other.

    Owned by the engine's loop; only the thread uses the spool itself. Work requested during a turn
    goes into the next turn. After the disk has failed, it is left alone for a moment: batches to
    store are refused at once, and everything else waits.

    Args:
        spool: The records.
        thread: Runs blocking work.
        turned: Called after each turn, and after batches were refused at once.
        logger: Logs failures of the disk, once a minute.
        clock: A function like time.monotonic.
        call_later: A function like the loop's.

    Attributes:
        available: The number of records that `fetch` would find.
        is_failing: Whether the last turn failed.
    """

    def __init__(
        self,
        spool: Spool,
        thread: CallbackThread,
        turned: Callable[[News], None],
        logger: Log,
        *,
        clock: Callable[[], float] = time.monotonic,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        self.available = 0
        self.is_failing = False
        self._spool = spool
        self._thread = thread
        self._turned = turned
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._call_later = call_later or self._loop.call_later
        self._next = _Turn(adopts=True)
        self._idle = asyncio.Event()
        self._is_busy = False
        self._is_closing = False
        self._is_closed = False
        self._is_refusing = False
        # When the disk last failed, for lack of room and for any other reason.
        self._full_s = self._refused_s = float("-inf")
        self._told_s = float("-inf")
        # Turns that ended after the loop was gone.
        self._unheard: list[tuple[_Turn, _Done]] = []
        self._adopt_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._kick()

    @property
    def ready_s(self) -> float:
        """When the disk may store again: a moment after it failed."""
        return max(self._refused_s, self._full_s) + _PAUSE_S

    def store(self, batch: Batch, then: Callable[[Batch, int | None], None]) -> None:
        """Store a batch, and call `then` with it and its record's number, or None if the disk failed.

        The batch must not change until then.
        """
        self._next.stores.append((batch, then))
        self._kick()

    def remove(self, numbers: list[int]) -> None:
        """Delete records soon."""
        self._next.removes += numbers
        self._kick()

    def give_back(self, numbers: list[int]) -> None:
        """Make records available to `fetch` again."""
        self._next.returns += numbers
        self._kick()

    def quarantine(self, numbers: list[int], reason: str) -> None:
        """Move records into quarantine soon: they are kept there and not sent again.

        Args:
            numbers: The record numbers.
            reason: The reason as a clause: "it was refused by every server".
        """
        self._next.quarantines.append((numbers, reason))
        self._kick()

    def put_quarantined(self, batch: Batch, reason: str) -> None:
        """Store a batch in quarantine soon. It may be changed as soon as this returns."""
        self._next.quarantines.append((_record(batch), reason))
        self._kick()

    def fetch(self, max_bytes: int, then: Callable[[list[Record]], None]) -> None:
        """Pass the oldest records to `then`: up to `max_bytes`, or one record."""
        self._next.fetch = (max_bytes, then)
        self._kick()

    async def close(self, timeout_s: float) -> None:
        """Finish the requested work within a time limit, and release the records.

        A failing or full disk is tried once more; then the remaining work is left to the next process.
        """
        self._is_closing = True
        self._is_refusing = False
        for timer in (self._adopt_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._next.adopts = False
        self._next.closes = True
        self._full_s = self._refused_s = float("-inf")
        self._kick()
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                async with timeout(timeout_s):
                    await self._idle.wait()
        finally:
            self._is_closed = True
            self._thread.submit(_close, self._spool)

    def take_over(self, other: Spooling, then: Callable[[News], None]) -> None:
        """Continue for another instance whose loop has ended: do its requested work, except stores.

        Args:
            other: The other instance, on the same spool and thread.
            then: Called on the loop with the news that the other found after its loop ended. What it stored or fetched
                in that time is undone: a stored batch is still in memory, and a fetched record can be fetched again.
        """

        def on_thread(_: object) -> None:  # after the turn in progress
            rest, other._next = other._next, _Turn()
            heard = other._unheard
            for turn, done in heard:
                rest.removes += turn.removes + done.numbers
                rest.quarantines += turn.quarantines
                rest.returns += [record.id for record in done.records]
            with contextlib.suppress(RuntimeError):  # this loop has ended too
                self._loop.call_soon_threadsafe(on_loop, rest, [done for _, done in heard])

        def on_loop(rest: _Turn, heard: list[_Done]) -> None:
            self._next.removes += rest.removes
            self._next.quarantines += rest.quarantines
            self._next.returns += rest.returns
            for done in heard:
                then(News(done.adopted, done.lost, done.gone))
            self._kick()

        self._thread.submit(on_thread, None)

    def _kick(self) -> None:
        if self._is_busy or not self._next:
            return
        now_s = self._clock()
        if now_s < self.ready_s and self._next.stores and not self._is_refusing:
            self._is_refusing = True
            self._idle.clear()
            self._loop.call_soon(self._refuse)  # not at once: the caller may request more work
        if now_s < self._refused_s + _PAUSE_S:
            if self._retry_timer is None and not self._is_closing:
                self._retry_timer = self._call_later(self._refused_s + _PAUSE_S - now_s, self._retry)
            return
        turn, self._next = self._next, _Turn()
        if self._is_refusing:
            turn.stores, self._next.stores = self._next.stores, turn.stores
        if turn.closes and turn.stores:
            turn.closes, self._next.closes = False, True  # afterwards: stored batches may call for more work
        if not turn:
            return
        self._is_busy = True
        self._idle.clear()
        self._thread.submit(self._work, turn)
        if self._is_closed:
            self._thread.submit(_close, self._spool)  # the turn has opened it again

    def _retry(self) -> None:
        self._retry_timer = None
        self._kick()

    def _refuse(self) -> None:
        if not self._is_refusing:
            return  # `close` tries the disk once more
        self._is_refusing = False
        stores, self._next.stores = self._next.stores, []
        for batch, then in stores:
            then(batch, None)
        self._turned(News({}, {}, []))
        self._rest()

    def _rest(self) -> None:
        if not (self._is_busy or self._is_refusing):
            self._idle.set()

    # On the thread

    def _work(self, turn: _Turn) -> None:
        spool, done = self._spool, _Done()
        spool.give_back(turn.returns)
        turn.returns = []
        for step in (self._store, self._quarantine, self._remove, self._adopt, self._fetch):
            try:
                try:
                    step(turn, done)
                except SpoolDamaged:
                    step(turn, done)  # with a new file
            except SpoolFull as error:  # noqa: PERF203
                done.error = error  # the next steps need no room, and may free some
            except Exception as error:  # noqa: BLE001 - a turn that never ends would end all spooling
                done.error = error if isinstance(error, SpoolError) else SpoolError(f"the spool failed: {error!r}")
                break
        if turn.closes:
            spool.close()
        done.lost, done.gone, done.available = spool.pop_lost(), spool.pop_gone(), spool.available
        try:
            self._loop.call_soon_threadsafe(self._worked, turn, done)
        except RuntimeError:  # the loop is closed
            self._unheard.append((turn, done))

    def _store(self, turn: _Turn, done: _Done) -> None:
        done.numbers = []
        left = [_record(batch) for batch, _ in turn.stores]
        size = len(left)
        while left:
            records = left[:size]
            try:
                done.numbers += self._spool.put(records)
            except SpoolFull:
                if len(records) == 1:
                    raise
                size = len(records) // 2  # the first ones may still fit
            else:
                del left[:size]

    def _quarantine(self, turn: _Turn, done: _Done) -> None:
        # Before the removes, which may delete records of which a part is kept.
        while turn.quarantines:
            what, reason = turn.quarantines[0]
            try:
                if isinstance(what, Record):
                    self._spool.put_quarantined(what, reason)
                else:
                    self._spool.quarantine(what, reason)
            except SpoolFull as error:
                done.error = error  # it stays where it is
            del turn.quarantines[0]

    def _remove(self, turn: _Turn, done: _Done) -> None:
        if turn.removes:
            self._spool.remove(turn.removes)
            turn.removes = []
            done.freed = True

    def _adopt(self, turn: _Turn, done: _Done) -> None:
        if turn.adopts:
            done.adopted = self._spool.adopt()
            turn.adopts = False

    def _fetch(self, turn: _Turn, done: _Done) -> None:
        if turn.fetch is not None:
            done.records = self._spool.take(turn.fetch[0], fault_of_events)

    # On the loop

    def _worked(self, turn: _Turn, done: _Done) -> None:
        self.available = done.available
        self._look_at(done)
        if not self._is_closing:
            # Unfinished work comes first in the next turn; nothing is forgotten.
            self._next.removes[:0] = turn.removes
            self._next.quarantines[:0] = turn.quarantines
            del self._next.quarantines[_MAX_QUARANTINES:]
            self._next.adopts |= turn.adopts
            if self._adopt_timer is None:
                self._adopt_timer = self._call_later(_ADOPT_S, self._adopt_again)
        try:
            for (batch, then), number in itertools.zip_longest(turn.stores, done.numbers):
                then(batch, number)
            if turn.fetch is not None:
                turn.fetch[1](done.records)
            self._turned(News(done.adopted, done.lost, done.gone))
        finally:
            self._is_busy = False  # only now, so that all the work that these calls requested is one turn
            self._kick()
            self._rest()

    def _look_at(self, done: _Done) -> None:
        now_s = self._clock()
        if done.freed:
            self._full_s = float("-inf")
        error = done.error
        self.is_failing = error is not None
        if error is None:
            return
        if not self._is_closing:
            if isinstance(error, SpoolFull):
                self._full_s = now_s
            else:
                self._refused_s = now_s
        if now_s >= self._told_s + _TELL_S:
            self._told_s = now_s
            self._logger.error("%s", error)

    def _adopt_again(self) -> None:
        self._adopt_timer = None
        self._next.adopts = True
        self._kick()


def _record(batch: Batch) -> Record:
    age_s = time.monotonic() - batch.accepted_s
    return Record(batch.req_guid, batch.wire, time.time() - age_s, batch.types, batch.envelope.body())


def _close(spool: Spool) -> None:
    spool.close()
