"""Delivers a request: attempts, the waits between them, and deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, NamedTuple

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
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.timeouts import timeout
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import worse

if TYPE_CHECKING:
    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.delivery.sender import Sender
    from raccoon_fast.delivery.submissions import Submission
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Request, Transport

__all__ = ["MAX_ATTEMPTS", "Delivery", "abandoned", "is_unwritten"]

#: The default if the policy does not say.
MAX_ATTEMPTS = 3
# A server keeps the id of a silently broken connection until its read deadline (60 s by default) and
# refuses it meanwhile. The first retries come soon, because after a reset it is refused only for an instant.
_DUPLICATE_ID_FIRST_S = 0.05
_DUPLICATE_ID_MOST_S = 5.0
_DUPLICATE_ID_LIMIT_S = 75.0
# Looked up once: attribute access on an enum class is slow.
_SUCCESS = Status.SUCCESS


class _First(NamedTuple):
    """The first attempt of a submission, which has failed.

    Attributes:
        error: What `Sender.answer` raised.
        began_s: The loop's time at which it began.
        submitted_s: time.monotonic() at that moment.
    """

    error: BaseException
    began_s: float
    submitted_s: float


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
        self._now_s = self._loop.time
        self._first_timeout_s = min(timeout_s, policy.total_timeout or timeout_s)
        # By guid; None for a request that a coroutine delivers.
        self._in_flight: dict[str, Submission | None] = {}
        # Coroutines of submissions whose first attempt failed.
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.Future[None] | None = None
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
        try:
            self._enter(request, None)
        except Exception as error:
            if request.trace is not None:
                request.trace.end(error)
            raise
        try:
            return await self._deliver_traced(request, timeout_s)
        finally:
            self._leave(request)

    def begin(self, submission: Submission) -> None:
        """Begin to deliver a request, like `deliver`, without a task unless its first attempt fails.

        Args:
            submission: Gets the answer or what `deliver` raises.

        Raises:
            ClientClosedError, ValueError: As `deliver`; the submission is not settled then.
        """
        request = submission.request
        assert request is not None
        self._enter(request, submission)
        began_s = self._now_s()
        if request.trace is not None or began_s < self._paused_until_s:
            self._continue(submission, request, None)
            return
        submitted_s = time.monotonic()
        attempt = self._sender.start(self._transport, request, self._first_timeout_s)
        attempt.add_done_callback(functools.partial(self._first_ended, submission, began_s, submitted_s))

    def hold(self) -> None:
        """Let the requests of the next calls of `begin` leave together, at `release` in the same step of the loop."""
        self._transport.hold()

    def release(self) -> None:
        """Send what was begun since `hold`. Idempotent."""
        self._transport.release()

    def abandon(self) -> None:
        """Settle the submissions in flight with ClientClosedError: the loop has ended."""
        for submission in [*self._in_flight.values()]:
            if submission is not None and not submission.done():
                submission.fail(abandoned(submission.req_guid))
        self._in_flight.clear()

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no request is in flight, at most this long. One task waits at a time."""
        if self._in_flight:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=max(0.0, timeout_s))

    async def close(self) -> int:
        """Fail requests in flight with ClientClosedError and close the transport.

        Returns:
            The number of failed requests.
        """
        unsettled = len(self._in_flight)
        self._closing.set()
        closing = asyncio.ensure_future(self._transport.close())
        try:
            # Attempts end with their connections, waits end with the event: this takes almost no time.
            await self.wait_idle(1.0)
            await closing
        finally:
            closing.cancel()  # if this was cancelled, connections close at once
            self._sender.end()
        return unsettled

    @property
    def is_settled(self) -> bool:
        """Whether `close` has given every request its outcome; connections may be closed later. Thread-safe."""
        return self._closing.is_set() and not self._in_flight

    def _enter(self, request: Request, submission: Submission | None) -> None:
        req_guid = request.req_guid
        if self._closing.is_set():
            raise ClientClosedError("the client was closed", req_guid=req_guid)
        if req_guid in self._in_flight:
            raise ValueError(f"request {req_guid!r} is in flight already: wait for its outcome or use another guid")
        self._in_flight[req_guid] = submission

    def _leave(self, request: Request) -> None:
        self._in_flight.pop(request.req_guid, None)
        if self._idle is not None and not self._in_flight and not self._idle.done():
            self._idle.set_result(None)

    def _first_ended(self, submission: Submission, began_s: float, submitted_s: float, attempt: AnyAttempt) -> None:
        request = submission.request
        if request is None:
            return  # abandoned
        if attempt.__class__ is Attempt and not self._sender.is_watched:
            response = attempt.response
            if response is not None and response.status is _SUCCESS:
                self._succeeded(submission, request, response)
                return
        try:
            response = self._sender.answer(attempt, request, submitted_s)
        except asyncio.CancelledError:  # the loop ends: a task might not run any more
            self._leave(request)
            submission.fail(abandoned(request.req_guid))
        except BaseException as error:  # noqa: BLE001 - any error is the outcome of the attempt
            self._continue(submission, request, _First(error, began_s, submitted_s))
        else:
            self._succeeded(submission, request, response)

    def _succeeded(self, submission: Submission, request: Request, response: Response) -> None:
        self._connect_failures = 0
        self._leave(request)
        submission.succeed(response)

    def _continue(self, submission: Submission, request: Request, first: _First | None) -> None:
        task = self._loop.create_task(self._deliver_submission(submission, request, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_submission(self, submission: Submission, request: Request, first: _First | None) -> None:
        try:
            response = await self._deliver_traced(request, None, first)
        except GeneratorExit:
            raise  # the loop is closed, and `abandon` settles it
        except asyncio.CancelledError:
            error: BaseException = abandoned(request.req_guid)
        except BaseException as failed:  # noqa: BLE001 - any error is the outcome of the request
            error = failed
        else:
            self._succeeded(submission, request, response)
            return
        self._leave(request)
        submission.fail(error)

    async def _deliver_traced(self, request: Request, timeout_s: float | None, first: _First | None = None) -> Response:
        if request.trace is None:
            return await self._deliver(request, timeout_s, first)
        with request.trace:
            return await self._deliver(request, timeout_s, first)

    async def _deliver(self, request: Request, timeout_s: float | None, first: _First | None) -> Response:
        policy = self._policy
        max_attempts = policy.max_attempts or MAX_ATTEMPTS
        submitted_s, start_s = (
            (time.monotonic(), self._loop.time()) if first is None else (first.submitted_s, first.began_s)
        )
        bounds = [bound for bound in (timeout_s, policy.total_timeout) if bound is not None]
        deadline_s = start_s + min(bounds) if bounds else float("inf")
        # Without another limit, an unwritten request waits for its turn no longer than all attempts may take.
        patience_s = min(deadline_s, start_s + max_attempts * self._timeout_s)
        attempts = resends = unwritten = 0
        outcome = Outcome.NOT_DELIVERED
        refused_since_s: float | None = None
        refusals = 0
        wait_until_s = 0.0
        error: DeliveryError | None = None
        while True:
            if first is None:
                await self._wait(max(wait_until_s, self._paused_until_s), deadline_s, error, request)
            attempts += 1
            began_s = self._loop.time() if first is None else first.began_s
            try:
                if first is None:
                    response = await self._sender.send(
                        self._transport, request, min(self._timeout_s, deadline_s - began_s), submitted_s
                    )
                else:
                    failure, first = first.error, None
                    raise failure
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
                async with timeout(delay_s):
                    await self._closing.wait()
            if error is not None and self._loop.time() >= deadline_s:
                raise error  # a busy loop woke it late: a further attempt would have no time
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


def abandoned(req_guid: str) -> ClientClosedError:
    """The error of a request in flight whose loop ends."""
    return ClientClosedError(
        "the client was closed before the request was acknowledged",
        req_guid=req_guid,
        outcome=Outcome.POSSIBLY_DELIVERED,
    )


def _is_duplicate_id(error: DeliveryError) -> bool:
    return (
        isinstance(error, ServerError)
        and error.response is not None
        and error.response.code is Code.MAX_USER_LIMIT_REACHED
    )
