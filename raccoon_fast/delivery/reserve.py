"""Manages the batches on disk: those without room in memory, and with durable=True all of them."""

from __future__ import annotations

import functools
import time
from collections import Counter
from typing import TYPE_CHECKING

from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import ClientClosedError, DeliveryError, Outcome, RaccoonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from raccoon_fast.delivery.lanes import GroupedWaiting, Lanes
    from raccoon_fast.delivery.ledger import Ledger
    from raccoon_fast.delivery.waiting import Waiting
    from raccoon_fast.spool.store import Record
    from raccoon_fast.spool.worker import News, Spooling

__all__ = ["Reserve"]


class Reserve:
    """Moves batches between memory and the spool.

    Owned by the engine's loop. A batch's record outlives the batch in memory, and is removed when its events are
    settled.

    Args:
        open_spooling: Makes the Spooling, given its `turned`.
        lanes: Batches moved to disk are released there; batches read back are counted again.
        ledger: Counts every move.
        waiting: Gets the batches that may be sent.
        new_batch: Makes a batch with a settlement and a receipt, in the lane of events of these types, for a record of
            an earlier process.
        settled: Called with settlements whose last part was lost on disk.
        recycle: Gets the batches that were moved to disk.
        wake: Called when there may be something to send.
        wire: The wire format for sending; records in the other format are converted.
        delivery_timeout_s: The time limit from a batch's return to memory.
        max_waiting: The largest number of stored batches that also wait in memory; further ones wait on disk only.

    Attributes:
        spooled: Events by type that were moved to disk only, counted each time.
    """

    def __init__(
        self,
        open_spooling: Callable[[Callable[[News], None]], Spooling],
        lanes: Lanes,
        ledger: Ledger,
        waiting: Waiting | GroupedWaiting,
        new_batch: Callable[[Mapping[str, int]], Batch],
        settled: Callable[[Settlement], None],
        recycle: Callable[[Batch], None],
        wake: Callable[[], None],
        wire: str,
        delivery_timeout_s: float,
        max_waiting: int,
    ) -> None:
        self._lanes = lanes
        self._ledger = ledger
        self._waiting = waiting
        self._new_batch = new_batch
        self._settled = settled
        self._recycle = recycle
        self._wake = wake
        self._wire = wire
        self._delivery_timeout_s = delivery_timeout_s
        self._max_waiting = max_waiting
        self.spooled: Counter[str] = Counter()
        # The records of batches in memory, and the settlements of batches on disk only.
        self._numbers: dict[Batch, int] = {}
        self._settlements: dict[int, Settlement] = {}
        # Batches being written to disk.
        self._pending: set[Batch] = set()
        self._is_fetching = False
        self._fail_closed: Callable[[Batch], None] | None = None
        self._spooling = open_spooling(self._turned)

    @property
    def fetch_s(self) -> float:
        """When there may be batches to fetch; infinity if there are none, or a fetch is in progress."""
        return self._spooling.ready_s if self._spooling.available and not self._is_fetching else float("inf")

    @property
    def pending(self) -> int:
        """Batches being written to disk."""
        return len(self._pending)

    @property
    def ready_s(self) -> float:
        """When the disk may store more: a moment after it failed."""
        return self._spooling.ready_s

    def may_secure(self, now_s: float) -> bool:
        """Whether `secure` may take one more: not too many at once.

        While the disk fails, no more than are sent, but one whenever the disk may be tried again.
        """
        if not self._spooling.is_failing:
            return self.pending < self._max_waiting
        return self.pending + len(self._waiting) < self._max_waiting or not (self.pending or now_s < self.ready_s)

    def secure(self, batch: Batch) -> None:
        """Store a batch before it is sent; if the disk fails, it is sent anyway."""
        self._pending.add(batch)
        self._spooling.store(batch, self._secured)

    def set_aside(self, batch: Batch, otherwise: Callable[[Batch], None]) -> None:
        """Move a waiting batch to disk only; if the disk fails, `otherwise` gets it."""
        number = self._numbers.pop(batch, None)
        if number is None:
            self._pending.add(batch)
            self._spooling.store(batch, functools.partial(self._stored, otherwise))
        else:
            self._is_aside(batch, number)

    def fetch(self, max_bytes: int) -> None:
        """Read the oldest batches back: up to `max_bytes`, or one."""
        self._is_fetching = True
        self._spooling.fetch(max_bytes, self._fetched)

    def split(self, batch: Batch) -> None:
        """A batch was split into parts without records: its record is removed with the last part."""
        number = self._numbers.pop(batch, None)
        if number is not None:
            batch.settlement.records += (number,)

    def quarantine(self, batch: Batch, reason: str) -> None:
        """Keep a batch in the spool's quarantine: its record, or else (for a part of a batch) its events.

        Call it before the batch is settled; it does not change the ledger or the receipt.

        Args:
            batch: The batch; it may be recycled as soon as this returns.
            reason: The reason as a clause: "it was refused by every server".
        """
        number = self._numbers.pop(batch, None)
        if number is None:
            self._spooling.put_quarantined(batch, reason)
        else:
            self._spooling.quarantine([number], reason)

    def settled(self, batch: Batch, is_last: bool) -> None:
        """A batch, or the last part of one, has its outcome."""
        numbers = [self._numbers.pop(batch)] if batch in self._numbers else []
        if is_last:
            numbers += batch.settlement.records
        if numbers:
            self._spooling.remove(numbers)

    async def close(self, batches: Iterable[Batch], otherwise: Callable[[Batch], None], timeout_s: float) -> None:
        """Leave everything to the next process, and release the spool; at once if cancelled.

        Args:
            batches: The batches that wait in memory.
            otherwise: Gets the batches that are not on disk in time.
            timeout_s: Seconds for the requested disk work.
        """
        for batch in batches:
            self.set_aside(batch, otherwise)
        self._fail_closed = otherwise
        self._remove_split()
        try:
            await self._spooling.close(timeout_s)
        finally:
            pending, self._pending = self._pending, set()
            for batch in pending:
                batch.outcome = Outcome.POSSIBLY_DELIVERED  # by the next process, if the write succeeds
                otherwise(batch)
            left, self._settlements = self._settlements, {}
            for settlement in left.values():  # once per record: the parts of a batch share one
                settlement.failed(
                    ClientClosedError(
                        "the producer was closed; the batch is in the spool, and is sent by the next process",
                        req_guid=settlement.receipt.req_guid,
                        outcome=Outcome.POSSIBLY_DELIVERED,
                    )
                )

    def take_over(self, other: Reserve) -> list[Batch]:
        """Take over the batches of an instance whose loop has ended.

        Returns:
            The batches that were being written to disk; they are in memory only.
        """
        pending, other._pending = [*other._pending], set()
        self._numbers |= other._numbers
        self._settlements |= other._settlements
        other._numbers, other._settlements = {}, {}
        self._spooling.take_over(other._spooling, self._turned)
        return pending

    def _secured(self, batch: Batch, number: int | None) -> None:
        if batch not in self._pending:
            return  # too late
        self._pending.discard(batch)
        if self._fail_closed is not None:
            self._keep(self._fail_closed, batch, number)
            return
        if number is not None and len(self._waiting) >= self._max_waiting:
            self._is_aside(batch, number)
        else:
            if number is not None:
                self._numbers[batch] = number
            self._waiting.add(batch)
        self._wake()

    def _stored(self, otherwise: Callable[[Batch], None], batch: Batch, number: int | None) -> None:
        if batch not in self._pending:
            return  # too late
        self._pending.discard(batch)
        self._keep(otherwise, batch, number)

    def _keep(self, otherwise: Callable[[Batch], None], batch: Batch, number: int | None) -> None:
        if number is None:
            otherwise(batch)
        else:
            self._is_aside(batch, number)

    def _is_aside(self, batch: Batch, number: int) -> None:
        self._spooling.give_back([number])
        self._settlements[number] = batch.settlement
        self._ledger.move(batch.types, states.QUEUED, states.SPOOLED)
        self.spooled.update(batch.types)
        self._lanes.release(batch)
        self._recycle(batch)

    def _fetched(self, records: list[Record]) -> None:
        self._is_fetching = False
        if self._fail_closed is not None:
            return  # they stay where they are
        for record in records:
            settlement = self._settlements.pop(record.id, None) or self._settlement_of(record)
            try:
                batch = self._load(record)
            except (RaccoonError, ValueError, TypeError) as error:
                self._ledger.move(record.types, states.SPOOLED, states.DAMAGED)
                self._fail(settlement, f"the batch was read from the spool and cannot be sent: {error}")
                self._spooling.quarantine([record.id], f"it cannot be sent: {error}")
                continue
            batch.settlement, batch.receipt = settlement, settlement.receipt
            self._numbers[batch] = record.id
            batch.deadline_s = min(batch.deadline_s, self._lanes.of(batch).last_s(batch))
            self._lanes.hold(batch)
            self._ledger.move(record.types, states.SPOOLED, states.QUEUED)
            self._waiting.add(batch)
        self._wake()

    def _load(self, record: Record) -> Batch:
        batch = Batch(record.wire)
        batch.load(record.body, record.types)
        if record.wire != self._wire:
            events = batch.events()
            batch = Batch(self._wire)
            batch.add_many(events)
        now_s = time.monotonic()
        batch.req_guid = record.req_guid
        batch.accepted_s = now_s - max(0.0, time.time() - record.accepted_at)
        batch.deadline_s = now_s + self._delivery_timeout_s
        batch.outcome = Outcome.POSSIBLY_DELIVERED  # its past failures are not stored
        return batch

    def _settlement_of(self, record: Record) -> Settlement:
        settlement: Settlement = self._new_batch(record.types).settlement
        settlement.receipt.req_guid = record.req_guid
        return settlement

    def _turned(self, news: News) -> None:
        self._ledger.add(news.adopted, states.SPOOLED)
        self.spooled.update(news.adopted)
        for number, types in news.lost.items():
            self._ledger.move(types, states.SPOOLED, states.DAMAGED)
            settlement = self._settlements.pop(number, None)
            if settlement is not None:
                self._fail(settlement, "the batch was on disk only, and its record in the spool is lost or damaged")
        if news.gone:
            gone = {*news.gone}
            self._numbers = {batch: number for batch, number in self._numbers.items() if number not in gone}
        self._remove_split()
        self._wake()

    def _remove_split(self) -> None:
        """At `close`, remove the records of split batches once each remaining part has its own."""
        if self._fail_closed is None or self._pending:
            return
        numbers: list[int] = []
        for settlement in self._settlements.values():
            numbers += settlement.records
            settlement.records = ()
        if numbers:
            self._spooling.remove(numbers)

    def _fail(self, settlement: Settlement, why: str) -> None:
        error = DeliveryError(why, req_guid=settlement.receipt.req_guid, outcome=Outcome.POSSIBLY_DELIVERED)
        if settlement.failed(error):
            self._settled(settlement)
