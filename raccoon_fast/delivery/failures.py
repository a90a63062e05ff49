"""Judges failed attempts: whether the batch or the server is at fault, and what follows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.attempts import is_unwritten
from raccoon_fast.delivery.outcomes import is_poison, reason_of
from raccoon_fast.delivery.suspects import Trouble
from raccoon_fast.errors import ConnectError, Outcome, ServerError
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.core.batch import Batch
    from raccoon_fast.delivery.endpoints import Endpoint, Endpoints
    from raccoon_fast.delivery.lanes import GroupedWaiting
    from raccoon_fast.delivery.ledger import Ledger
    from raccoon_fast.delivery.outcomes import Outcomes
    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.delivery.retry_budget import RetryBudget
    from raccoon_fast.delivery.suspects import Suspects
    from raccoon_fast.delivery.waiting import Waiting
    from raccoon_fast.errors import DeliveryError
    from raccoon_fast.logs import Log
    from raccoon_fast.transports.base import Request

__all__ = ["Failures"]


class Failures:
    """Decides who is charged with a failure, and where the batch goes next.

    Owned by the engine's loop.

    Args:
        endpoints: The servers.
        ledger: Counts every move.
        outcomes: Ends batches.
        waiting: Gets the batches to retry.
        suspects: Gets the batches to retry alone.
        budget: Counts failed publishes.
        policy: The waits between attempts, and their number.
        has_others: Whether there are batches that never failed, which can show whether a server is healthy.
        logger: Logs when a server fails or recovers, and batches that fail while others get through.

    Attributes:
        is_closing: Whether connections are being closed; their failures are not logged then.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        ledger: Ledger,
        outcomes: Outcomes,
        waiting: Waiting | GroupedWaiting,
        suspects: Suspects,
        budget: RetryBudget,
        policy: RetryPolicy,
        has_others: Callable[[], bool],
        logger: Log,
    ) -> None:
        self.is_closing = False
        self._endpoints = endpoints
        self._ledger = ledger
        self._outcomes = outcomes
        self._waiting = waiting
        self._suspects = suspects
        self._budget = budget
        self._policy = policy
        self._has_others = has_others
        self._logger = logger

    def well(self, endpoint: Endpoint) -> None:
        """A server answered as a healthy one does."""
        was_healthy = endpoint.healthy
        endpoint.succeeded(was_healthy or self._endpoints.alone(endpoint))
        if endpoint.healthy and not was_healthy:
            self._logger.info("%s is healthy again", endpoint.address)

    def narrow(self, batch: Batch, reason: str, error: Exception) -> None:
        """A server refuses some events of a batch, or its size: its halves are sent next."""
        for part in reversed(self._outcomes.narrow(batch, reason, str(error))):
            self._waiting.add_first(part)

    def put_back(self, batch: Batch) -> None:
        """Return a batch that was in flight, to be sent again."""
        self._ledger.move(batch.types, states.IN_FLIGHT, states.QUEUED)
        if batch.trouble is not None and batch.trouble.is_suspect:
            self._suspects.add(batch, time.monotonic())
        else:
            self._waiting.add(batch)

    def failed(
        self,
        batch: Batch,
        endpoint: Endpoint,
        request: Request,
        error: DeliveryError,
        began_s: float,
        acked: int,
        now_s: float,
    ) -> None:
        """An attempt failed.

        Args:
            batch: The batch.
            endpoint: The server.
            request: The request of the attempt.
            error: The error.
            began_s: When the attempt began.
            acked: The number of batches that the server had acknowledged then.
            now_s: The current time.monotonic().
        """
        if error.outcome is not Outcome.NOT_DELIVERED:
            batch.outcome = error.outcome
        if is_unwritten(error, request):
            batch.attempts -= 1
        error.__traceback__ = None  # its frames would keep the batch's buffer alive
        error.req_guid, error.attempts, error.outcome = batch.req_guid, batch.attempts, batch.outcome
        trouble = batch.trouble
        if trouble is None:
            seen = {**{one: one.acked for one in self._endpoints.all}, endpoint: acked}
            trouble = batch.trouble = Trouble(error, seen)
        trouble.error = error
        if is_poison(error):
            self.well(endpoint)
            self.narrow(batch, "BAD_REQUEST", error)
            return
        max_attempts = self._policy.max_attempts
        if max_attempts is not None and batch.attempts >= max_attempts:
            self._outcomes.failed(batch, states.IN_FLIGHT, reason_of(error), error)
            self._charge(endpoint, error, began_s, now_s)
            return
        response = error.response if isinstance(error, ServerError) else None
        if response is not None and response.req_guid and error.retry_after_s is None:
            # The server is healthy, its sink is not: this batch waits, and the budget limits the retries.
            self._ledger.move(batch.types, states.IN_FLIGHT, states.QUEUED)
            self._waiting.add_delayed(batch, now_s + self._policy.delay_s(batch.attempts))
            self._charge(endpoint, error, began_s, now_s)
            return
        may_be_batch = request.was_written and response is None and not isinstance(error, ConnectError)
        is_charged, is_over = True, False
        if may_be_batch:
            others_passed = trouble.others_passed(endpoint)
            if trouble.is_suspect:
                is_over = trouble.failed_alone(error, endpoint) and self._tell_apart(batch, trouble, now_s)
                is_charged = not (others_passed or trouble.is_convicted)
            elif trouble.failed(error, endpoint, others_passed or not self._has_others()):
                is_charged = not others_passed
        if not is_over:
            self.put_back(batch)
        if is_charged or error.retry_after_s is not None:
            self._charge(endpoint, error, began_s, now_s, with_batch=may_be_batch)
        elif not endpoint.healthy:
            endpoint.released()

    def _charge(
        self, endpoint: Endpoint, error: DeliveryError, began_s: float, now_s: float, *, with_batch: bool = False
    ) -> None:
        """The server, its sink or the way to it failed."""
        was_healthy = endpoint.healthy
        if isinstance(error, ServerError) and error.response is not None and error.response.req_guid:
            self._budget.failed()
            endpoint.unpublished(error, began_s, now_s)
        else:
            endpoint.failed(error, began_s, now_s, with_batch=with_batch)
        if error.retry_after_s is not None:
            endpoint.pause(now_s + self._policy.pause_s(error.retry_after_s))
        if was_healthy and not endpoint.healthy and not self.is_closing:
            log = self._logger.warning if error.retryable else self._logger.error
            log("%s fails: %s; its events wait", endpoint.address, error)

    def _tell_apart(self, batch: Batch, trouble: Trouble, now_s: float) -> bool:
        """Send the halves of a convicted batch, or end it; returns False if it should wait unchanged."""
        if not trouble.is_told:
            trouble.is_told = True
            self._logger.error(
                "a batch of %s (%s) fails while others get through: %s; it is split and sent apart from "
                "them, to find the events that the server refuses",
                counted(batch.count, "event"),
                batch.settlement.receipt.req_guid,
                trouble.error,
            )
        if self._outcomes.can_split(batch):
            for part in self._outcomes.split(batch):
                part.trouble = trouble.of_part()
                self._suspects.add(part, now_s)
            return True
        if batch.count > 1 or trouble.error.retryable:
            return False  # it may still get through before its deadline
        self._outcomes.refused(batch, states.IN_FLIGHT, trouble.error)
        return True
