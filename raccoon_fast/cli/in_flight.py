"""Requests in flight: never more than so many, and each one's outcome as it comes."""

from __future__ import annotations

import concurrent.futures
import queue
import time
from typing import TYPE_CHECKING, NamedTuple, overload

from raccoon_fast.errors import ClientClosedError, Outcome, RaccoonError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raccoon_fast.cli.batches import Batch
    from raccoon_fast.cli.connect import Client
    from raccoon_fast.delivery.receipts import Receipt

__all__ = ["InFlight", "Settled"]


class Settled(NamedTuple):
    """A batch and what became of it.

    Attributes:
        batch: As it was submitted.
        req_guid: The request's guid; "" where none was sent.
        error: Why it was not acknowledged; None where it was.
        seconds: From its submission until then.
    """

    batch: Batch
    req_guid: str
    error: BaseException | None
    seconds: float


class InFlight:
    """Submits batches over a client; used from one thread.

    Args:
        client: Open; left open.
        size: How many requests may be in flight.
    """

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._size = size
        self._settled: queue.SimpleQueue[tuple[int, str, BaseException | None, float]] = queue.SimpleQueue()
        self._pending: dict[int, Batch] = {}

    @property
    def full(self) -> bool:
        """Whether an outcome has to be taken before the next submission."""
        return len(self._pending) >= self._size

    @property
    def empty(self) -> bool:
        """Whether every outcome has been taken."""
        return not self._pending

    def submit(self, batch: Batch) -> None:
        """Sends a batch in the background; one that cannot be sent at all is settled at once."""
        began_s = time.perf_counter()
        # By its key, not by itself: a future and its callbacks refer to each other, and so live until a garbage
        # collection, which would hold many batches of lines.
        key = id(batch)

        def settle(receipt: Receipt) -> None:
            seconds = time.perf_counter() - began_s
            try:
                error = receipt.exception()
            except concurrent.futures.CancelledError as cancelled:
                error = cancelled
            self._settled.put((key, receipt.req_guid, error, seconds))

        self._pending[key] = batch
        try:
            self._client.submit(batch.events).add_done_callback(settle)
        except RaccoonError as error:
            self._settled.put((key, "", error, time.perf_counter() - began_s))

    @overload
    def take(self, timeout_s: None) -> Settled: ...
    @overload
    def take(self, timeout_s: float) -> Settled | None: ...
    def take(self, timeout_s: float | None) -> Settled | None:
        """Returns the next outcome; or None if there is none within `timeout_s`, where 0 does not wait."""
        try:
            key, req_guid, error, seconds = self._settled.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None
        return Settled(self._pending.pop(key), req_guid, error, seconds)

    def abandon(self) -> Iterator[Settled]:
        """Closes the client without waiting, and yields the outcome of all that was in flight."""
        self._client.close(timeout=0)
        while (settled := self.take(0)) is not None:
            yield settled
        while self._pending:
            _, batch = self._pending.popitem()
            error = ClientClosedError("the client was closed before the answer", outcome=Outcome.POSSIBLY_DELIVERED)
            yield Settled(batch, "", error, 0.0)
