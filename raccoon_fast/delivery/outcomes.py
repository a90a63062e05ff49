"""Ends batches: updates the ledger, settles receipts, and finds the events that a server refuses."""

from __future__ import annotations

import functools
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.core.batch import Batch, types_of
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.settlement import fail_later
from raccoon_fast.errors import AckTimeoutError, ClientClosedError, DeliveryError, Outcome, ServerError
from raccoon_fast.events import Code, Status
from raccoon_fast.transports.base import GRPC_UNREAD
from raccoon_fast.transports.null import DISCARDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raccoon_fast.core.batch import Accumulator
    from raccoon_fast.delivery.lanes import Lanes
    from raccoon_fast.delivery.ledger import Ledger
    from raccoon_fast.delivery.reserve import Reserve
    from raccoon_fast.events import Response

__all__ = ["Outcomes", "is_poison", "reason_of"]

# The most requests for narrowing a batch down to the events at fault; beyond it, the remaining events are all refused.
_MAX_EXTRA_REQUESTS = 64
# How often the clock is read.
_CLOSED_AT_ONCE = 1000
#: The namespace of the guids of a batch's halves.
_PARTS = uuid.UUID("2d0d3c0e-7a4b-5d3f-9a52-6b0f6a1c8e11")


class Outcomes:
    """Ends batches, each with exactly one outcome. Owned by the engine's loop.

    Args:
        ledger: Counts every move.
        lanes: Ended batches are released there; they learn of every settlement.
        recycle: Gets one batch or several that ended, and room in its lane.
        wire: The wire format of the parts into which a batch is split.

    Attributes:
        reserve: Learns of ended batches, if there is a spool.
    """

    def __init__(
        self,
        ledger: Ledger,
        lanes: Lanes,
        recycle: Callable[..., None],
        wire: str,
    ) -> None:
        self.reserve: Reserve | None = None
        self._ledger = ledger
        self._lanes = lanes
        self._recycle = recycle
        self._wire = wire

    def acked(self, answered: Sequence[tuple[Batch, Response]]) -> None:
        """Acknowledge these batches (or discard them, for null://), with one move in the ledger for all."""
        acked = [batch for batch, response in answered if response is not DISCARDED]
        if acked:
            self._ledger.move(types_of(acked), states.IN_FLIGHT, states.ACKED)
        if len(acked) < len(answered):
            discarded = [batch for batch, response in answered if response is DISCARDED]
            self._ledger.move(types_of(discarded), states.IN_FLIGHT, states.DISCARDED)
        left = iter(answered)
        raised: BaseException | None = None
        while True:
            try:
                for batch, response in left:
                    settlement = batch.settlement
                    queue = self._lanes.all[settlement.lane]
                    is_last = settlement.acked(response)
                    if is_last:
                        queue.outstanding.remove(settlement)
                    if self.reserve is not None:
                        self.reserve.settled(batch, is_last)
                    queue.accumulator.release(batch.cost)
                break
            except BaseException as error:  # noqa: BLE001 - of one batch, or a Ctrl-C: the others are settled all the same
                raised = raised or error
        self._recycle(*[batch for batch, _ in answered])
        if raised is not None:
            raise raised

    def failed(self, batch: Batch, state: str, reason: str, error: BaseException) -> None:
        """The batch, which was in `state`, will not be delivered."""
        self._ledger.move(batch.types, state, states.EXPIRED if reason == states.EXPIRED else states.FAILED + reason)
        self._settled(batch, batch.settlement.failed(error))

    def closed(self, batch: Batch, cause: BaseException | None) -> None:
        """The producer was closed before the batch was delivered; `cause` is its last known failure."""
        self.failed(batch, states.QUEUED, "closed", _closed_error(batch.req_guid, batch.outcome, batch.attempts, cause))

    def count_untaken(self) -> deque[tuple[Accumulator, deque[Batch]]]:
        """Count the events left in the accumulators as failed, because the producer is closed.

        Returns:
            The batches of each, with receipts that are not settled yet; see `close_untaken`.
        """
        untaken: deque[tuple[Accumulator, deque[Batch]]] = deque()
        for queue in self._lanes.all:
            with self._ledger.change():
                batches, types = queue.accumulator.take_all()
                if batches:
                    self._ledger.add(types, states.FAILED + "closed")
                    untaken.append((queue.accumulator, batches))
        return untaken

    def close_untaken(
        self, untaken: deque[tuple[Accumulator, deque[Batch]]], cause: BaseException | None, until_s: float
    ) -> None:
        """Settle the receipts of such batches, and remove each settled one.

        Args:
            untaken: There may be very many, so each costs only the necessary work.
            cause: Why they were not sent, if known.
            until_s: time.monotonic() when to stop, done or not.
        """
        while untaken and time.monotonic() < until_s:
            accumulator, batches = untaken[0]
            freed = 0
            for _ in range(min(len(batches), _CLOSED_AT_ONCE)):
                batch = batches.popleft()
                freed += batch.cost
                receipt = batch.receipt
                make = functools.partial(_closed_error, receipt.req_guid, Outcome.NOT_DELIVERED, 0, cause)
                if batch.settlement is None:
                    fail_later(receipt, make)
                else:  # its span must end
                    batch.settlement.failed(make())
            accumulator.release(freed)
            if not batches:
                untaken.popleft()

    def expired(self, batch: Batch, cause: BaseException | None) -> None:
        """The batch expired; `cause` is its last known failure."""
        error = AckTimeoutError(
            f"the batch expired after {self._lanes.of(batch).life_s:g} s without an acknowledgement "
            f"({batch.outcome}){_last(cause)}",
            req_guid=batch.req_guid,
            outcome=batch.outcome,
        )
        error.attempts, error.__cause__ = batch.attempts, cause
        self.failed(batch, states.QUEUED, states.EXPIRED, error)

    def refused(self, batch: Batch, state: str, error: DeliveryError) -> None:
        """The batch, which was in `state`, failed with `error` while others get through."""
        reason = reason_of(error)
        self._ledger.move(batch.types, state, states.FAILED + reason)
        if self.reserve is not None:
            self.reserve.quarantine(batch, str(error))
        self._settled(batch, batch.settlement.rejected(batch.events(), str(error), batch.outcome))

    def narrow(self, batch: Batch, reason: str, said: str) -> list[Batch]:
        """Find the events that a server refuses: each half is sent under a new guid.

        Returns:
            The halves, in order; none if this batch has ended.
        """
        if not self.can_split(batch):
            self._ledger.move(batch.types, states.IN_FLIGHT, states.FAILED + reason)
            self._settled(batch, batch.settlement.rejected(batch.events(), said, batch.outcome))
            return []
        return self.split(batch)

    def can_split(self, batch: Batch) -> bool:
        """Whether the batch has several events, and may cost further requests to narrow it down."""
        return batch.count > 1 and batch.settlement.extra_requests < _MAX_EXTRA_REQUESTS

    def split(self, batch: Batch) -> list[Batch]:
        """Replace a batch that is in flight by its halves, which are queued."""
        events = batch.events()
        middle = len(events) // 2
        self._ledger.move(batch.types, states.IN_FLIGHT, states.QUEUED)
        batch.settlement.split(2)
        if self.reserve is not None:
            self.reserve.split(batch)
        # Derived, so that a batch emitted again under its guid is split into the same requests.
        parts = [self._part(batch, "0", events[:middle]), self._part(batch, "1", events[middle:])]
        accumulator = self._lanes.of(batch).accumulator
        accumulator.hold(sum(accumulator.weigh(part) for part in parts) - batch.cost)
        return parts

    def _part(self, batch: Batch, name: str, events: list[tuple[str, bytes]]) -> Batch:
        part = Batch(self._wire)
        part.add_many(events)
        part.settlement = batch.settlement
        part.req_guid = str(uuid.uuid5(_PARTS, f"{batch.req_guid}/{name}"))
        part.accepted_s, part.deadline_s = batch.accepted_s, batch.deadline_s
        part.outcome = batch.outcome
        return part

    def _settled(self, batch: Batch, last: bool) -> None:
        if last:
            self._lanes.settled(batch.settlement)
        if self.reserve is not None:
            self.reserve.settled(batch, last)
        self._lanes.release(batch)
        self._recycle(batch)


def _closed_error(req_guid: str, outcome: Outcome, attempts: int, cause: BaseException | None) -> ClientClosedError:
    error = ClientClosedError(
        f"the producer was closed before the batch was acknowledged ({outcome}){_last(cause)}",
        req_guid=req_guid,
        outcome=outcome,
    )
    error.attempts, error.__cause__ = attempts, cause
    return error


def _last(cause: BaseException | None) -> str:
    return f"; last failure: {cause}" if cause is not None else ""


def is_poison(error: DeliveryError) -> bool:
    """Whether a Raccoon server could not decode the request, and never will: its verdict on the events.

    Only the server's own answer counts. A proxy's 400 means that something is wrong between client and server; so does
    INVALID_ARGUMENT, which a Raccoon never answers. The events then wait.
    """
    if not isinstance(error, ServerError) or error.retryable:
        return False
    if error.response is not None:
        return error.response.status is Status.ERROR and error.response.code is Code.BAD_REQUEST
    # Over gRPC the framework answers for the server. If a proxy answers with an HTTP status instead of a gRPC status,
    # `said` starts with that status.
    return error.status == "INTERNAL" and error.said.startswith(GRPC_UNREAD)


def reason_of(error: DeliveryError) -> str:
    """The ledger's reason for a failed batch: the server's code, or the kind of error."""
    if isinstance(error, ServerError):
        if error.response is not None:
            return error.response.code.name
        if error.status is not None:
            return str(error.status)
    return type(error).__name__
