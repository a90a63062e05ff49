"""Batches that fail while others get through: each is sent alone until it gets through or its bad events are found.

Strategy. A filter in front of a server (a WAF, an IDS) may refuse one batch because of its content. Such a batch must
not make the server look unhealthy, or harm other batches. A failed batch is first sent again like any other. When
it fails again, and the same server acknowledged other batches in between, it is a suspect: it is sent alone over a
separate connection, at growing intervals, to each healthy server in turn. A suspect that fails alone is
convicted, and its halves are sent alone in turn, so that all events but those at fault are delivered. What another
server acknowledged says nothing: a server that refuses everything must not convict a batch.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from raccoon_fast.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raccoon_fast.core.batch import Batch
    from raccoon_fast.delivery.endpoints import Endpoint
    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.errors import DeliveryError

__all__ = ["Suspects", "Trouble"]

# The failures that make a batch a suspect, and the failures alone that convict it. An answer that asks for less load
# (429, 5xx) may concern the server as well as the batch, so more of them are needed.
_TO_SUSPECT, _TO_SUSPECT_UNDER_LOAD = 2, 4
_TO_CONVICT, _TO_CONVICT_UNDER_LOAD = 2, 3
_LOAD_CODES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


class Trouble:
    """The record of a batch that failed.

    Args:
        error: The error of its first attempt.
        acked: For each server, the number of batches that it had acknowledged when that attempt began or, for servers
            other than the attempt's, when it failed.

    Attributes:
        error: The error of its last attempt.
        failures: Attempts that failed while others got through, including the first failure.
        failures_alone: By server, the failed attempts since it has been sent alone.
        is_suspect: Whether it is sent alone.
        is_convicted: Whether it failed alone often enough to be the cause itself, or is a part of such a batch.
        is_told: Whether this was logged.
    """

    __slots__ = (
        "_acked", "_passing", "error", "failures", "failures_alone", "is_convicted", "is_suspect", "is_told",
    )  # fmt: skip

    def __init__(self, error: DeliveryError, acked: dict[Endpoint, int]) -> None:
        self.error = error
        self.failures = 0
        self.failures_alone: dict[Endpoint, int] = {}
        self.is_suspect = self.is_convicted = self.is_told = False
        self._acked = acked
        self._passing: set[Endpoint] = set()

    def others_passed(self, endpoint: Endpoint) -> bool:
        """Whether a server acknowledged others since this batch last failed there, or else since its first failure."""
        passed = endpoint.acked > self._acked[endpoint]
        self._acked[endpoint] = endpoint.acked
        if passed:
            self._passing.add(endpoint)
        return passed

    def failed(self, error: DeliveryError, endpoint: Endpoint, counts: bool) -> bool:
        """The batch failed among others, and may be the cause.

        Args:
            error: The error.
            endpoint: The server.
            counts: Whether others got through meanwhile, or no other batch could.

        Returns:
            Whether it is a suspect from now on.
        """
        if self.failures == 0 or (counts and endpoint in self._passing):
            self.failures += 1
        needed = _TO_SUSPECT_UNDER_LOAD if is_about_load(error) else _TO_SUSPECT
        self.is_suspect = self.failures >= needed
        return self.is_suspect

    def failed_alone(self, error: DeliveryError, endpoint: Endpoint) -> bool:
        """The batch failed alone at a server, and may be the cause if others get through there.

        Returns:
            Whether it is convicted.
        """
        if endpoint not in self._passing:
            return False
        self.failures_alone[endpoint] = self.failures_alone.get(endpoint, 0) + 1
        needed = _TO_CONVICT_UNDER_LOAD if is_about_load(error) else _TO_CONVICT
        if self.is_convicted:
            needed -= 1  # a part of a convicted batch
        if sum(self.failures_alone.values()) < needed:
            return False
        self.is_convicted = True
        return True

    def of_part(self) -> Trouble:
        """The record for a part of this batch."""
        trouble = Trouble(self.error, self._acked.copy())
        trouble.is_suspect = trouble.is_convicted = trouble.is_told = True
        trouble._passing.update(self._passing)
        return trouble


def is_about_load(error: DeliveryError) -> bool:
    """Whether the answer says that the server or a proxy is overloaded."""
    status = error.status if isinstance(error, ServerError) else None
    return status in _LOAD_CODES or (isinstance(status, int) and (status == 429 or status >= 500))


class Suspects:
    """The suspects that wait for their next attempt; they are sent one at a time.

    Owned by the engine's loop.

    Args:
        policy: The waits between the attempts of one suspect.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._waiting: list[tuple[float, int, Batch]] = []
        self._order = itertools.count()
        self._deadline_s = float("inf")
        #: Whether one is being sent.
        self.is_busy = False

    def add(self, batch: Batch, now_s: float) -> None:
        """Send it alone after its wait; at once if it has not failed alone yet."""
        failures = sum(batch.trouble.failures_alone.values())
        self._deadline_s = min(self._deadline_s, batch.deadline_s)
        due_s = now_s + (self._policy.delay_s(failures) if failures else 0.0)
        heapq.heappush(self._waiting, (due_s, next(self._order), batch))

    @property
    def due_s(self) -> float:
        """When the next one may be sent; infinity if there is none, or one is being sent."""
        return self._waiting[0][0] if self._waiting and not self.is_busy else float("inf")

    @property
    def deadline_s(self) -> float:
        """A time before which no waiting suspect expires; infinity if none waits."""
        return self._deadline_s if self._waiting else float("inf")

    def pop(self) -> Batch:
        """The suspect to which `due_s` refers."""
        return heapq.heappop(self._waiting)[2]

    def choose(self, endpoints: list[Endpoint]) -> Endpoint:
        """The server for this suspect: the first of those where it failed alone least often."""
        failures = self._waiting[0][2].trouble.failures_alone
        return min(endpoints, key=lambda one: failures.get(one, 0))

    def pop_overdue(self, now_s: float) -> list[Batch]:
        """The suspects past their deadline."""
        if self.deadline_s > now_s:
            return []
        overdue = [batch for batch in self if batch.deadline_s <= now_s]
        self._waiting = [entry for entry in self._waiting if entry[2].deadline_s > now_s]
        heapq.heapify(self._waiting)
        self._deadline_s = min((batch.deadline_s for batch in self), default=float("inf"))
        return overdue

    def pop_all(self) -> list[Batch]:
        """Every one."""
        batches = list(self)
        self._waiting.clear()
        return batches

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Batch]:
        for _, _, batch in self._waiting:
            yield batch
