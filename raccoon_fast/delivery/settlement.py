"""The outcome of an emitted batch, which may have been split since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from raccoon_fast.delivery.promise import Promise
from raccoon_fast.errors import EventsRejectedError, Outcome, RejectedEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raccoon_fast.delivery.receipts import AsyncReceipt, Receipt
    from raccoon_fast.events import Response
    from raccoon_fast.transports.tracing import Trace

__all__ = ["Settlement", "fail_later"]

# Looked up once: attribute access on an enum class is slow.
_NOT_DELIVERED = Outcome.NOT_DELIVERED


class Settable(Protocol):
    """The interface common to Promise and asyncio.Future."""

    def set_result(self, result: Any, /) -> None:
        """Settle it."""

    def set_exception(self, exception: Any, /) -> None:
        """Settle it with a failure."""

    def exception(self) -> BaseException | None:
        """The failure, if it has one."""


class Settlement:
    """Collects the outcomes of a batch's parts, and settles its receipt with the last one.

    Used by one thread at a time: the one that took the batch from the accumulator.

    Args:
        receipt: The receipt that `emit` returned.
        future: The receipt's future; None takes it from the receipt.
        lane: See the attribute.

    Attributes:
        extra_requests: The number of requests that splitting has cost so far.
        lane: The number of the batch's lane.
        records: Record numbers in the spool, to remove with the last part.
        trace: The batch's trace, if tracing is on; ended with the last part.
    """

    __slots__ = (
        "_error", "_future", "_outcome", "_parts", "_rejected", "_response", "extra_requests", "lane", "receipt",
        "records", "trace",
    )  # fmt: skip

    def __init__(self, receipt: Receipt | AsyncReceipt, future: Settable | None = None, lane: int = 0) -> None:
        self.receipt = receipt
        self.extra_requests = 0
        self.lane = lane
        self.records: tuple[int, ...] = ()
        self.trace: Trace | None = None
        self._future: Settable = receipt._future if future is None else future  # noqa: SLF001 - made by a producer
        self._parts = 1
        self._rejected: tuple[RejectedEvent, ...] = ()
        self._response: Response | None = None
        self._error: BaseException | None = None
        self._outcome = _NOT_DELIVERED

    def split(self, parts: int) -> None:
        """One part was split into several."""
        self._parts += parts - 1
        self.extra_requests += parts

    def acked(self, response: Response) -> bool:
        """A part was acknowledged. Returns whether it was the last."""
        if self._parts == 1 and self._error is None and not self._rejected and self.trace is None:
            self._parts = 0
            self._future.set_result(response)
            return True
        self._response = response
        return self._end_part()

    def failed(self, error: BaseException) -> bool:
        """A part will not be delivered, for a reason other than its events. Returns whether it was the last."""
        self._error = error
        return self._end_part()

    def abandoned(self, error: BaseException) -> None:
        """None of its parts will be delivered. May be called again after an exception of a signal handler."""
        self._parts = 1
        self.failed(error)

    def rejected(
        self, events: Sequence[tuple[str, bytes]], reason: str, outcome: Outcome = Outcome.NOT_DELIVERED
    ) -> bool:
        """The server, or something in front of it, refuses these events. Returns whether they were the last part."""
        self._rejected += tuple(RejectedEvent(event_type, data, reason) for event_type, data in events)
        if outcome is not Outcome.NOT_DELIVERED:
            self._outcome = outcome
        return self._end_part()

    def _end_part(self) -> bool:
        self._parts -= 1
        if self._parts:
            return False
        if self._error is None and self._rejected:
            self._error = EventsRejectedError(self.receipt.req_guid, self._rejected, outcome=self._outcome)
        if self.trace is not None:
            self.trace.end(self._error)
        if self._error is not None:
            self._future.set_exception(self._error)
            self._future.exception()  # the program need not read it: the ledger counts it, and on_delivery reports it
        else:
            self._future.set_result(self._response)
        return True


def fail_later(receipt: Receipt | AsyncReceipt, make: Callable[[], BaseException]) -> None:
    """Settle the receipt of a whole batch with a failure, which is created on demand if possible."""
    future: Any = receipt._future  # noqa: SLF001 - made by a producer
    if isinstance(future, Promise):
        future.set_exception_later(make)
    else:
        future.set_exception(make())
        future.exception()
