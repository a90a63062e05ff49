"""Delivers a request: attempts, the waits between them, and deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from raccoon_fast.errors import (
    AckTimeoutError,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DeliveryError,
    MessageTooLargeError,
    Outcome,
    ServerError,
)
from raccoon_fast.events import Code, Response
from raccoon_fast.transports.base import worse

if TYPE_CHECKING:
    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.delivery.sender import Sender
    from raccoon_fast.transports.base import Request, Transport

__all__ = ["MAX_ATTEMPTS", "Delivery", "is_unwritten"]

#: The default if the policy does not say.
MAX_ATTEMPTS = 3
# A server keeps the id of a silently broken connection until its read deadline (60 s by default) and
# refuses it meanwhile. The first retries come soon, because after a reset it is refused only for an instant.
_DUPLICATE_ID_FIRST_S = 0.05
_DUPLICATE_ID_MOST_S = 5.0
_DUPLICATE_ID_LIMIT_S = 75.0


class Delivery:
    """Delivers requests over one transport.

    Owned by one event loop: everything here is called on it.

    Args:
        transport: Makes single attempts.
        policy: When to make another attempt.
        timeout_s: Seconds for one attempt.
        sender: Makes the attempts.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, timeout_s: float, sender: Sender) -> None:
        self._transport = transport
        self._policy = policy
        self._timeout_s = timeout_s
        self._sender = sender
        self._loop = asyncio.get_running_loop()
        self._in_flight: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = asyncio.Event()
        # No request is sent before this time, because the server asked to wait (Retry-After).
        self._paused_until_s = 0.0
        # Failed connects in a row of all requests, and when the next retry may connect.
        self._connect_failures = 0
        self._connect_after_s = 0.0

    async def deliver(self, request: Request, timeout_s: float | None = None) -> Response:
        """Send a request until it is acknowledged or fails.

        Args:
            request: A request that is not in flight yet.
            timeout_s: Seconds for all attempts and the waits between them, besides the policy's own limits.

        Returns:
            The answer; its status is SUCCESS.

        Raises:
            DeliveryError: With `req_guid`, `attempts` (the transport's own resends among them), and the `outcome` of
                all attempts together. A request that was never written costs no attempt: it waits for its turn until
                the deadline or, without one, as long as all attempts may take.
            MessageTooLargeError: The server does not accept a message of this size.
            ValueError: A request of this guid is in flight already.
        """
        if request.trace is None:
            return await self._deliver_once(request, timeout_s)
        with request.trace:
            return await self._deliver_once(request, timeout_s)

    async def _deliver_once(self, request: Request, timeout_s: float | None) -> Response:
        req_guid = request.req_guid
        if self._closing.is_set():
            raise ClientClosedError("the client was closed", req_guid=req_guid)
        if req_guid in self._in_flight:
            raise ValueError(f"request {req_guid!r} is in flight already: wait for its outcome or use another guid")
        self._in_flight.add(req_guid)
        self._idle.clear()
        try:
            return await self._deliver(request, timeout_s)
        finally:
            self._in_flight.discard(req_guid)
            if not self._in_flight:
                self._idle.set()

    async def close(self, timeout_s: float) -> int:
        """Wait for requests in flight, then fail the rest with ClientClosedError and close the transport.

        Returns:
            The number of failed requests.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        unsettled = len(self._in_flight)
        self._closing.set()
        try:
            await self._transport.close()
            # Attempts end with their connections, waits end with the event: this takes almost no time.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), 1.0)
        finally:
            self._sender.end()
        return unsettled

    async def _deliver(self, request: Request, timeout_s: float | None) -> Response:
        policy = self._policy
        max_attempts = policy.max_attempts or MAX_ATTEMPTS
        submitted_s = time.monotonic()
        bounds = [bound for bound in (timeout_s, policy.total_timeout) if bound is not None]
        deadline_s = self._loop.time() + min(bounds) if bounds else float("inf")
        # Without another limit, an unwritten request waits for its turn no longer than all attempts may take.
        patience_s = min(deadline_s, self._loop.time() + max_attempts * self._timeout_s)
        attempts = resends = unwritten = 0
        outcome = Outcome.NOT_DELIVERED
        refused_since_s: float | None = None
        refusals = 0
        wait_until_s = 0.0
        error: DeliveryError | None = None
        while True:
            await self._wait(max(wait_until_s, self._paused_until_s), deadline_s, error, request)
            attempts += 1
            began_s = self._loop.time()
            try:
                response = await self._sender.send(
                    self._transport, request, min(self._timeout_s, deadline_s - began_s), submitted_s
                )
            except MessageTooLargeError as refused:
                refused.size = refused.size or request.size
                refused.outcome = worse(outcome, refused.outcome)
                raise
            except DeliveryError as failed:
                error = failed
            else:
                self._connect_failures = 0
                return response
            waited = is_unwritten(error, request)
            outcome = worse(outcome, error.outcome)
            resends += request.resends
            attempts -= waited
            error.req_guid, error.attempts, error.outcome = request.req_guid, attempts + resends, outcome
            now_s = self._loop.time()
            if self._closing.is_set():
                raise self._closed(request, outcome) from error
            if not error.retryable:
                raise error
            if _is_duplicate_id(error):
                refused_since_s = now_s if refused_since_s is None else refused_since_s
                if now_s - refused_since_s > _DUPLICATE_ID_LIMIT_S:
                    raise error
                attempts -= 1  # nothing was tried: the server refused the connection
                refusals += 1
                wait_until_s = now_s + min(_DUPLICATE_ID_MOST_S, _DUPLICATE_ID_FIRST_S * 2 ** min(refusals - 1, 16))
                continue
            if waited:
                unwritten += 1
                wait_until_s = now_s + policy.delay_s(unwritten)
                if wait_until_s >= patience_s:
                    raise error
                continue
            if attempts >= max_attempts:
                raise error
            wait_until_s = now_s + policy.delay_s(attempts)
            if error.retry_after_s is not None:
                self._paused_until_s = max(self._paused_until_s, now_s + policy.pause_s(error.retry_after_s))
                wait_until_s = 0.0
            elif isinstance(error, ConnectError):
                # Many requests wait for one server: they retry together, at one pace, not each at its own.
                if began_s >= self._connect_after_s:
                    self._connect_failures += 1
                    self._connect_after_s = now_s + policy.delay_s(self._connect_failures)
                wait_until_s = self._connect_after_s

    async def _wait(self, until_s: float, deadline_s: float, error: DeliveryError | None, request: Request) -> None:
        """Wait until that time; give up at once if the deadline is earlier."""
        delay_s = until_s - self._loop.time()
        if until_s >= deadline_s or self._loop.time() >= deadline_s:
            if error is not None:
                raise error
            raise AckTimeoutError(
                f"not sent: the server asked to wait {max(delay_s, 0.0):.3g} s more, longer than the request's timeout",
                req_guid=request.req_guid,
                outcome=Outcome.NOT_DELIVERED,
            )
        if delay_s > 0.0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay_s)
        if self._closing.is_set():
            raise self._closed(request, error.outcome if error is not None else Outcome.NOT_DELIVERED) from error

    @staticmethod
    def _closed(request: Request, outcome: Outcome) -> ClientClosedError:
        return ClientClosedError(
            f"the client was closed before the request was acknowledged: {outcome}",
            req_guid=request.req_guid,
            outcome=outcome,
        )


def is_unwritten(error: DeliveryError, request: Request) -> bool:
    """Whether the attempt failed while the request waited for its turn, which costs no attempt.

    A connection that cannot be made costs an attempt, as does a refused handshake: the server was tried.
    """
    if request.was_written or error.outcome is not Outcome.NOT_DELIVERED:
        return False
    return isinstance(error, (ConnectionLostError, AckTimeoutError))


def _is_duplicate_id(error: DeliveryError) -> bool:
    return (
        isinstance(error, ServerError)
        and error.response is not None
        and error.response.code is Code.MAX_USER_LIMIT_REACHED
    )
