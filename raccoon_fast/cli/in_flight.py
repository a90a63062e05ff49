"""Batches in flight: limits their number, and reports the outcome of each."""

from __future__ import annotations

import concurrent.futures
import queue
import time
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from raccoon_fast.errors import ClientClosedError, EventsRejectedError, Outcome, RaccoonError
from raccoon_fast.producers.reports import ServerHealth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raccoon_fast.cli.batches import Batch
    from raccoon_fast.delivery.receipts import Receipt
    from raccoon_fast.producers.producer import Producer

__all__ = ["InFlight", "Settled"]

# How long outcomes may take to come from the producer's callback thread once it is closed.
_CALLBACKS_S = 1.0


class Settled(NamedTuple):
    """A batch and its outcome.

    Attributes:
        batch: The batch as it was submitted.
        req_guid: The guid of the request, or of the failed one if there were several; "" if none was sent.
        error: Why the batch was not fully acknowledged; None if it was.
        seconds: The time from its submission to its outcome.
    """

    batch: Batch
    req_guid: str
    error: BaseException | None
    seconds: float

    @property
    def failed(self) -> list[tuple[str, Any]]:
        """The number of its events that were not acknowledged."""
        if isinstance(self.error, EventsRejectedError):
            return [(event.type, event.data) for event in self.error.rejected]
        return [] if self.error is None else self.batch.events


class InFlight:
    """Passes batches to a producer; for use from one thread.

    Args:
        producer: Used only here, and left open.
        batch_events: The producer's option: a batch of this many events is sealed by its last event.
        size: The largest number of batches in flight.
    """

    def __init__(self, producer: Producer, batch_events: int, size: int) -> None:
        self._producer = producer
        self._batch_events = batch_events
        self._size = size
        self._settled: queue.SimpleQueue[tuple[int, str, BaseException | None, float]] = queue.SimpleQueue()
        self._pending: dict[int, Batch] = {}

    @property
    def full(self) -> bool:
        """Whether `take` must return an outcome before the next submission."""
        return len(self._pending) >= self._size

    @property
    def empty(self) -> bool:
        """Whether every outcome has been taken."""
        return not self._pending

    @property
    def server(self) -> ServerHealth:
        """The health of the producer's server; of several, a healthy one, or else the first."""
        servers = self._producer.health().servers or [ServerHealth("", True, "")]
        return next((server for server in servers if server.ok), servers[0])

    def submit(self, batch: Batch) -> None:
        """Sends a batch in the background; a batch that cannot be sent is settled at once."""
        began_s = time.perf_counter()
        # Kept by key: a future and its callbacks refer to each other, and would live until a garbage
        # collection, with many batches of lines.
        key = id(batch)
        left = 0
        worst: tuple[str, BaseException | None] | None = None

        def settle(receipt: Receipt) -> None:
            nonlocal left, worst
            try:
                error = receipt.exception()
            except concurrent.futures.CancelledError as cancelled:
                error = cancelled
            if worst is None or error is not None:
                worst = receipt.req_guid, error
            left -= 1
            if not left:
                self._settled.put((key, *worst, time.perf_counter() - began_s))

        self._pending[key] = batch
        try:
            # Several receipts if the events need more space in wire format than the producer's batch has.
            receipts = self._producer.emit_many(batch.events)
            left = len(receipts)
            for receipt in receipts:
                receipt.add_done_callback(settle)
            if len(batch.events) < self._batch_events or len(receipts) > 1:
                self._producer.flush(0)
        except RaccoonError as error:
            self._settled.put((key, "", error, time.perf_counter() - began_s))

    @overload
    def take(self, timeout_s: None) -> Settled: ...
    @overload
    def take(self, timeout_s: float) -> Settled | None: ...
    def take(self, timeout_s: float | None) -> Settled | None:
        """Returns the next outcome, or None if there is none within `timeout_s`; 0 does not wait."""
        try:
            key, req_guid, error, seconds = self._settled.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None
        return Settled(self._pending.pop(key), req_guid, error, seconds)

    def abandon(self) -> Iterator[Settled]:
        """Closes the producer without waiting for answers, and yields the outcomes of all batches in flight."""
        self._producer.close(timeout=0)
        while self._pending and (settled := self.take(_CALLBACKS_S)) is not None:
            yield settled
        while self._pending:
            _, batch = self._pending.popitem()
            error = ClientClosedError("the client was closed before the answer", outcome=Outcome.POSSIBLY_DELIVERED)
            yield Settled(batch, "", error, 0.0)
