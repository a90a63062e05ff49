"""Delivers batches: sends them to servers, retries, splits and expires them; each ends in exactly one outcome.

Strategy. Batches wait in the accumulator until one can be sent, so that memory is bounded there and the overflow
policy finds them. `_pump` starts attempts as long as concurrency allows and a server is ready; each attempt's end
settles its batch or returns it, and pumps again. Between attempts nothing runs: one timer wakes the loop for the next
due action. A batch's place is its state: in the accumulator, waiting, a suspect, in an attempt, or settled.

While a server or its sink fails, it is probed with one batch at a time, other than the batch on which it failed. A
batch that fails while others get through is the suspect, not the server: see raccoon_fast.delivery.suspects.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.core.batch import types_of
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.concurrency import Concurrency
from raccoon_fast.delivery.drain import Drain
from raccoon_fast.delivery.expiries import Expiries
from raccoon_fast.delivery.failures import Failures
from raccoon_fast.delivery.linger import Linger
from raccoon_fast.delivery.outcomes import Outcomes, is_poison, reason_of
from raccoon_fast.delivery.reserve import Reserve
from raccoon_fast.delivery.retry_budget import RetryBudget
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.delivery.suspects import Suspects
from raccoon_fast.delivery.wake import Wake
from raccoon_fast.errors import DeliveryError, MessageTooLargeError, Outcome, TransportError
from raccoon_fast.events import Status
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Ending, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raccoon_fast.core.batch import Accumulator, Batch
    from raccoon_fast.delivery.endpoints import Endpoint, Endpoints
    from raccoon_fast.delivery.lanes import Group, LaneQueue, Lanes
    from raccoon_fast.delivery.ledger import Ledger
    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.delivery.sender import Sender
    from raccoon_fast.events import Response
    from raccoon_fast.logs import Log
    from raccoon_fast.spool.worker import News, Spooling
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Transport

__all__ = ["Engine", "EngineSettings"]

_CLOSE_MARGIN_S = 1.0
# After a `close` on the program's own loop: how long receipts may be settled before the program continues, and for how
# long per turn of the loop after that.
_TOLD_S = 0.25
_TURN_S = 0.02
_RETRY_POLL_S = 0.05
# Events that have waited for a shorter time are not a backlog.
_BACKLOG_S = 5.0
# The least time for an attempt (or twice the recent time of an acknowledgement, if that is longer): a shorter attempt
# could time out on a healthy server.
_FAIR_S = 1.0
_FAIR_FACTOR = 2.0
# A suspect that gets no answer within ten times the usual time is given up.
_ALONE_FACTOR = 10.0
# No attempt begins for this long after another was cancelled from outside.
_CANCELLED_S = 1.0
# The error of a request that the transport wrote again.
_RESENT = "ConnectionLostError"
# With fewer bytes in flight than this, no limit of bytes can be reached by the next batch.
_FEW_BYTES = 64 * 1024
_NEVER = float("inf")
# Looked up once: attribute access on an enum class is slow.
_SUCCESS = Status.SUCCESS
# Used as the transport's index for a suspect.
_ALONE = -1


class EngineSettings(NamedTuple):
    """The settings of an engine.

    Attributes:
        wire: "proto" or "json".
        delivery_timeout_s: The time from accepting an event to its acknowledgement, over all attempts.
        first_in_flight: The initial number of batches in flight.
        most_in_flight: The limit for a far server.
        most_bytes_in_flight: The limit of bytes for batches beyond `first_in_flight`.
        connections: The number of connections that share these limits.
        policy: The waits between attempts, and their number.
        batch_bytes: The largest size of a batch read back from the spool.
        threadsafe: Whether other threads than the loop's open and seal batches.
    """

    wire: str
    delivery_timeout_s: float
    first_in_flight: int
    most_in_flight: int
    most_bytes_in_flight: int
    connections: int
    policy: RetryPolicy
    batch_bytes: int
    threadsafe: bool


class Engine:
    """Takes batches from the accumulators of lanes and delivers them.

    Owned by one event loop. `batch_opened`, `batch_sealed` and `spill` may be called from any thread; all else is the
    loop's.

    Args:
        settings: See EngineSettings.
        lanes: Batches are taken from there; settled ones are released there.
        ledger: Counts every move.
        endpoints: The servers.
        sender: Makes the attempts.
        recycle: Gets one or more settled batches, to reuse them and to free room in their lanes.
        new_batch: As for Reserve.
        open_spooling: As for Reserve; None without a spool.
        logger: Logs when a server fails or recovers.

    Attributes:
        batch_sealed: Call it when a lane has one more batch to take.
        drain: How fast events are acknowledged.
        retries: Attempts after the first of each batch.
        is_counted: Whether `close` has given everything its outcome in the ledger; receipts may be settled later.
    """

    def __init__(
        self,
        settings: EngineSettings,
        lanes: Lanes,
        ledger: Ledger,
        endpoints: Endpoints,
        sender: Sender,
        recycle: Callable[..., None],
        new_batch: Callable[[Mapping[str, int]], Batch],
        open_spooling: Callable[[Callable[[News], None]], Spooling] | None,
        logger: Log,
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._ledger = ledger
        # Entered again and again; a loop on the main thread has a fresh one each time, which a Ctrl-C may leave open.
        self._change = ledger.change() if settings.threadsafe else None
        self._endpoints = endpoints
        self._sender = sender
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._call = self._loop.call_soon_threadsafe if settings.threadsafe else self._loop.call_soon
        self._concurrency = Concurrency(
            settings.first_in_flight,
            settings.connections,
            settings.most_in_flight,
            settings.most_bytes_in_flight,
            is_gentle=len(lanes.groups) > 1,
        )
        self._budget = RetryBudget()
        self._waiting = lanes.waiting
        self._suspects = Suspects(settings.policy)
        self._expiries = Expiries(logger, settings.delivery_timeout_s)
        self._fair_s = min(_FAIR_S, settings.delivery_timeout_s / 4.0)
        # All attempts under way, and the number of them with suspects, which take no room from the others.
        self._attempts: dict[AnyAttempt, tuple[Batch, Endpoint, int, Request, float, int]] = {}
        self._alone = 0
        # Batches acknowledged in this round of the loop, to be settled together.
        self._acked: list[tuple[Batch, Response, Endpoint, int, float]] = []
        # Transports that buffer their writes in this step.
        self._holding: list[Transport] = []
        self._in_flight_bytes = 0
        self._few_bytes = min(_FEW_BYTES, settings.most_bytes_in_flight)
        self._outcomes = Outcomes(ledger, lanes, recycle, settings.wire)
        self._failures = Failures(
            endpoints,
            ledger,
            self._outcomes,
            self._waiting,
            self._suspects,
            self._budget,
            settings.policy,
            self._has_others,
            logger,
        )
        for queue in lanes.all:
            queue.linger = Linger(queue.accumulator, queue.linger_s, self._loop, self._call)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = _NEVER
        self._pumped_s = time.monotonic()
        self._wake = Wake(self._call, self._pump)
        self.batch_sealed = self._wake.ask
        self._wake_spill = Wake(self._call, self._spill)
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()
        self._newest_s = 0.0
        self.drain = Drain(self._pumped_s)
        # Attempts after the first of each batch, by the error of the previous attempt.
        self.retried: Counter[tuple[int, str]] = Counter()
        # Collects events and bytes of each batch at its first attempt; None if no sink needs them.
        self.sizes: deque[tuple[int, int, int]] | None = None
        self.is_counted = False
        self._reserve: Reserve | None = None
        if open_spooling is not None:
            self._reserve = self._outcomes.reserve = Reserve(
                open_spooling,
                lanes,
                ledger,
                self._waiting,
                new_batch,
                lanes.settled,
                recycle,
                self._pump,
                settings.wire,
                settings.delivery_timeout_s,
                2 * settings.first_in_flight,
            )

    # From any thread

    def batch_opened(self, batch: Batch, lane: int = 0) -> None:
        """The open batch of a lane just got its first event; it may already be settled."""
        batch.accepted_s = self._newest_s = time.monotonic()
        self._lanes.all[lane].linger.opened()

    def spill(self, lane: int = 0) -> None:
        """The buffer of a lane is full: move the oldest waiting batches to the spool."""
        self._lanes.all[lane].is_spilling = True
        self._wake_spill.ask()

    # On the loop

    async def flush(self, timeout_s: float) -> int:
        """Seal open batches, and wait until all events accepted before are settled.

        Returns:
            The number of these events that are not settled yet.
        """
        deadline_s = time.monotonic() + timeout_s
        self._lanes.seal()
        self._pump()
        targets = [(queue.outstanding, queue.accumulator.accepted) for queue in self._lanes.all]
        for outstanding, target in targets:
            left_s = deadline_s - time.monotonic()
            if left_s > 0 and outstanding.unsettled(target):
                await outstanding.wait(target, left_s)
        return sum(outstanding.unsettled(target) for outstanding, target in targets)

    async def close(self, timeout_s: float) -> None:
        """Flush, then end attempts under way, fail the remainder, and close connections, all within the timeout.

        The accumulator must not accept events any more. If cancelled, it continues with its next step; after the last
        one everything has its outcome.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            if timeout_s > 0:
                await self.flush(timeout_s)
        finally:
            self._lanes.seal()
            self._closed = self._failures.is_closing = True
            if self._timer is not None:
                self._timer.cancel()
            # All at once, because there may be many.
            untaken = self._outcomes.count_untaken() if self._reserve is None else deque()
            transports = [transport for endpoint in self._endpoints.all for transport in endpoint.transports]
            transports += [endpoint.apart for endpoint in self._endpoints.all if endpoint.apart is not None]
            ending = Ending(self._attempts, transports, self._closing)
            try:
                await ending.attempts(_left_s(deadline_s))
            finally:
                # Before the connections are closed: a server that does not answer a goodbye must delay no outcome.
                try:
                    await self._end_rest(untaken, deadline_s)
                except asyncio.CancelledError:
                    ending.hurry()
                    raise
                finally:
                    self._sender.end()
                    await ending.connections(_left_s(deadline_s))

    def take_over(self, other: Engine) -> None:
        """Deliver the remaining batches of an engine whose loop has ended."""
        batches = other._leftovers()
        self.retried.update(other.retried)
        if self._reserve is not None and other._reserve is not None:
            self._reserve.spooled.update(other._reserve.spooled)
            batches += self._reserve.take_over(other._reserve)
        for batch in batches:
            queue = self._lanes.of(batch)
            queue.outstanding.add(batch, queue.accumulator.taken)
            self._waiting.add(batch)

    def fail_rest(self) -> None:
        """Fail unsettled batches, because the loop ended before `close` could."""
        untaken = self._outcomes.count_untaken()
        for batch in self._leftovers():
            self._end_closed(batch)
        self._outcomes.close_untaken(untaken, self._cause(), _NEVER)
        self._sender.end()

    def health(self) -> list[tuple[str, bool, str]]:
        """Each server: its address, whether it is healthy, and its last failure."""
        return [
            (str(endpoint.address), endpoint.healthy, str(endpoint.last_error or ""))
            for endpoint in self._endpoints.all
        ]

    @property
    def retries(self) -> int:
        """Attempts after the first of each batch."""
        return sum(self.retried.copy().values())

    @property
    def connections(self) -> int:
        """The number of open connections. Thread-safe."""
        endpoints = self._endpoints.all
        apart = [endpoint.apart for endpoint in endpoints if endpoint.apart is not None]
        return sum(one.connections for one in (*apart, *(one for each in endpoints for one in each.transports)))

    @property
    def spooled(self) -> Mapping[str, int]:
        """Events by type that were moved to the spool, counted each time. Thread-safe."""
        return {} if self._reserve is None else self._reserve.spooled.copy()

    def late_reason(self, unsettled: int, now_s: float) -> str:
        """Why waiting events will not be acknowledged in time at the present rate, or "". Thread-safe.

        Args:
            unsettled: Events that wait or are in flight.
            now_s: time.monotonic().
        """
        per_s = self.drain.per_s
        if per_s is None or now_s - self._lanes.oldest_s < _BACKLOG_S:
            return ""
        left_s = self._newest_s + self._settings.delivery_timeout_s - now_s
        if unsettled <= per_s * max(left_s, 0.0):
            return ""
        return (
            f"the backlog will not be acknowledged in time: {unsettled} events wait, the newest of them for another "
            f"{max(left_s, 0.0):.0f} s, and {per_s:.0f} events/s are acknowledged"
        )

    # Starting attempts

    def _pump(self) -> None:
        self._settle_acked()
        if self._closed:
            return
        now_s = time.monotonic()
        self._budget.tick(now_s - self._pumped_s)
        self._pumped_s = now_s
        self.drain.tick(now_s)
        self._expire(now_s)
        self._start_some(now_s)
        if self._suspects.due_s <= now_s and (well := self._endpoints.well(now_s)):
            endpoint = self._suspects.choose(well)
            self._start_alone(self._suspects.pop(), endpoint, now_s)
        if self._reserve is not None:
            self._fetch(self._reserve, now_s)
        self._arm(now_s)
        for queue in self._lanes.all:
            queue.outstanding.end_waits()

    def _start_some(self, now_s: float) -> None:
        """Send the batches that may be sent now. Small batches on one connection leave in one write."""
        try:
            while room := self._room():
                endpoint = self._endpoints.choose(now_s)
                if endpoint is None:
                    break
                if endpoint.healthy and not self._lanes.is_many and not self._waiting.has_some:
                    batches = self._take_some(states.IN_FLIGHT, self._lanes.groups[0].next_queue(), room)
                    self._budget.first_attempts(len(batches))
                    is_last = len(batches) < room  # there are no more, or they are large
                else:
                    batch = self._next(now_s) if endpoint.healthy else self._probe(endpoint, now_s)
                    if batch is None:
                        break
                    if batch.trouble is not None and not endpoint.healthy and (well := self._endpoints.well(now_s)):
                        endpoint = well[0]  # a batch that has failed is no probe while another server would accept it
                    batches = [batch]
                    is_last = False
                    self._budget.first_attempts(int(batch.trouble is None))
                for batch in batches:
                    left_s = batch.deadline_s - now_s
                    if left_s < endpoint.timeout_s and self._is_too_late(batch, endpoint, now_s):
                        self._ledger.move(batch.types, states.IN_FLIGHT, states.QUEUED)
                        self._expired(batch)
                    else:
                        self._start(batch, endpoint, left_s, now_s)
                if is_last:
                    break
        finally:
            while self._holding:
                self._holding.pop().release()

    def _room(self) -> int:
        # With several groups, the bytes in flight of lower ones leave room for the highest.
        nbytes = self._lanes.groups[0].nbytes if self._lanes.is_many else self._in_flight_bytes
        return self._concurrency.room(len(self._attempts) - self._alone, nbytes)

    def _next(self, now_s: float) -> Batch | None:
        """Take the next batch to send, and count it as in flight."""
        highest = self._lanes.groups[0]
        is_full = False  # by the limit of bytes
        for group in self._lanes.in_turn(self._concurrency.limit):
            if group is not highest and not self._concurrency.room(
                len(self._attempts) - self._alone, self._in_flight_bytes
            ):
                is_full = True
                continue
            batch = self._next_of(group, now_s)
            if batch is not None:
                return batch
        self._concurrency.is_held_back = self._lanes.is_held_back and not is_full
        return None

    def _next_of(self, group: Group, now_s: float) -> Batch | None:
        waiting = group.waiting
        if waiting.retry_s <= now_s and self._budget.take():
            batch = waiting.pop_delayed()
        elif waiting.has_ready:
            batch = waiting.pop_ready()
        else:
            return self._take(states.IN_FLIGHT, group.next_queue())
        self._ledger.move(batch.types, states.QUEUED, states.IN_FLIGHT)
        return batch

    def _probe(self, endpoint: Endpoint, now_s: float) -> Batch | None:
        """Take the batch to probe an unhealthy server with, and count it as in flight."""
        if endpoint.failed_with_batch:
            new = self._take(states.IN_FLIGHT, self._lanes.next_queue(self._concurrency.limit))
            if new is not None:
                return new  # it has not failed anywhere
        batch = self._next(now_s)  # among waiting batches, the one that failed last comes last
        if batch is None and self._suspects.due_s <= now_s and not self._endpoints.well(now_s):
            batch = self._suspects.pop()
            self._ledger.move(batch.types, states.QUEUED, states.IN_FLIGHT)
        return batch

    def _is_too_late(self, batch: Batch, endpoint: Endpoint, now_s: float) -> bool:
        """Whether an attempt would have to end before an answer is likely."""
        fair_s = max(self._fair_s, _FAIR_FACTOR * self._concurrency.mean_s)
        left_s = self._lanes.last_attempt_s(batch) - now_s
        return left_s < min(fair_s, endpoint.timeout_s, self._settings.delivery_timeout_s / 4.0)

    def _take(self, state: str, queue: LaneQueue | None) -> Batch | None:
        batches = self._take_some(state, queue, 1)
        return batches[0] if batches else None

    def _take_some(self, state: str, queue: LaneQueue | None, most: int) -> list[Batch]:
        """Take new batches while there is room: up to `most`, and fewer large ones."""
        if queue is None:
            return []
        accumulator = queue.accumulator
        batches: list[Batch] = []
        nbytes = self._in_flight_bytes
        with self._change or self._ledger.change():
            while most > 0:
                taken = accumulator.taken  # read first, because another thread may drop batches meanwhile
                batch = accumulator.take()
                if batch is None:
                    break
                receipt = batch.receipt
                if batch.settlement is None:
                    batch.settlement = Settlement(receipt, None, queue.number)
                batch.req_guid = receipt.req_guid
                batch.deadline_s = batch.accepted_s + queue.life_s
                queue.outstanding.add(batch, taken + batch.count)
                batches.append(batch)
                most -= 1
                nbytes += batch.nbytes
                if most and nbytes >= self._few_bytes:
                    most = self._concurrency.room(len(self._attempts) - self._alone + len(batches), nbytes)
            if batches:
                self._ledger.add(types_of(batches), state)
        return batches

    def _start(self, batch: Batch, endpoint: Endpoint, left_s: float, now_s: float) -> None:
        index = endpoint.begin()
        # Here and in the code below per batch, a call costs more than most called code.
        left_s += self._lanes.all[batch.settlement.lane].grace_s
        timeout_s = left_s if left_s < endpoint.timeout_s else endpoint.timeout_s  # noqa: FURB136
        self._in_flight_bytes += batch.nbytes
        if self._lanes.is_many:
            self._lanes.sent(batch)
        to = endpoint.transports[index]
        if to not in self._holding:
            self._holding.append(to)
            to.hold()
        self._send(batch, endpoint, index, to, timeout_s, now_s)

    def _start_alone(self, batch: Batch, endpoint: Endpoint, now_s: float) -> None:
        """Send a suspect alone."""
        self._ledger.move(batch.types, states.QUEUED, states.IN_FLIGHT)
        self._suspects.is_busy = True
        self._alone += 1
        timeout_s = min(endpoint.timeout_s, max(_FAIR_S, _ALONE_FACTOR * self._concurrency.mean_s))
        timeout_s = min(timeout_s, max(self._lanes.last_attempt_s(batch) - now_s, self._fair_s))
        self._send(batch, endpoint, _ALONE, endpoint.open_apart(), timeout_s, now_s)

    def _send(
        self,
        batch: Batch,
        endpoint: Endpoint,
        index: int,
        transport: Transport,
        timeout_s: float,
        now_s: float,
    ) -> None:
        if batch.trouble is not None:
            self.retried[batch.settlement.lane, reason_of(batch.trouble.error)] += 1
        if self.sizes is not None and not batch.attempts:
            self.sizes.append((batch.settlement.lane, batch.count, batch.nbytes))
        batch.attempts += 1
        request = Request(batch.req_guid, batch.envelope, self._settings.wire, batch.nbytes)
        if (trace := batch.settlement.trace) is not None:
            trace.sent(batch.count, batch.nbytes, endpoint.address)
            request.headers = trace.headers
        attempt = self._sender.start(transport, request, timeout_s)
        self._attempts[attempt] = batch, endpoint, index, request, now_s, endpoint.acked
        attempt.add_done_callback(self._ended)

    # Disk

    def _fetch(self, reserve: Reserve, now_s: float) -> None:
        """Read batches back from the spool if there is nothing newer to send; a single one to probe a server."""
        if reserve.fetch_s > now_s or not self._lanes.may_fetch():
            return
        endpoint = self._endpoints.choose(now_s)
        if endpoint is not None and (room := self._room()):
            self._lanes.fetched()
            reserve.fetch(self._settings.batch_bytes * room if endpoint.healthy else 1)

    def _spill(self) -> None:
        reserve = self._reserve
        if reserve is None or self._closed or reserve.pending or reserve.ready_s > time.monotonic():
            return
        for queue in self._lanes.all:
            if queue.is_spilling:
                queue.is_spilling = False
                self._spill_of(queue, reserve)

    def _spill_of(self, queue: LaneQueue, reserve: Reserve) -> None:
        queue.accumulator.seal()
        wanted = queue.accumulator.buffered // 4
        while wanted > 0:
            batch = self._waiting.pop_ready_of(queue.number) or self._take(states.QUEUED, queue)
            if batch is None:
                break
            wanted -= batch.cost
            reserve.set_aside(batch, self._waiting.add)

    # Ending attempts

    def _ended(self, attempt: AnyAttempt) -> None:
        flight = self._attempts.pop(attempt, None)
        if flight is None:
            return  # given up by `close`
        batch, endpoint, index, request, began_s, acked = flight
        # Attempts that end in the same round are settled together, and followed by one check for further work.
        if not self._acked:
            self._wake.ask_on_loop(self._loop.call_soon)
        if attempt.__class__ is Attempt and not (request.resends or self._sender.is_watched):
            response = attempt.response
            if response is not None and response.status is _SUCCESS:
                self._acked.append((batch, response, endpoint, index, began_s))
                return
        if attempt.cancelled():
            self._settle_acked()
            self._land(batch, endpoint, index)
            endpoint.released()
            batch.outcome = Outcome.POSSIBLY_DELIVERED
            self._failures.put_back(batch)
            # Its task was cancelled from outside. asyncio.run does so with all tasks before it closes the loop: an
            # attempt that begins meanwhile would never end.
            for each in self._endpoints.all:
                each.pause(time.monotonic() + _CANCELLED_S)
            return
        if request.resends:
            self.retried[batch.settlement.lane, _RESENT] += request.resends
        try:
            response = self._sender.answer(attempt, request, batch.accepted_s)
        except BaseException as error:  # noqa: BLE001 - a fault of ours must not cost the events
            self._settle_acked()
            self._land(batch, endpoint, index)
            self._failed(batch, endpoint, index, request, error, began_s, acked)
            if endpoint.apart is not None:
                self._close_apart(endpoint)
        else:
            self._acked.append((batch, response, endpoint, index, began_s))

    def _failed(
        self,
        batch: Batch,
        endpoint: Endpoint,
        index: int,
        request: Request,
        error: BaseException,
        began_s: float,
        acked: int,
    ) -> None:
        if isinstance(error, MessageTooLargeError):
            if error.outcome is not Outcome.NOT_DELIVERED:
                batch.outcome = error.outcome
            self._failures.well(endpoint)
            if batch.count > 1:
                self._lanes.limit_bytes(batch.nbytes // 2)  # otherwise the next one would be refused as well
            self._failures.narrow(batch, "too large", error)
            return
        if isinstance(error, DeliveryError):
            failure = error
        else:
            self._logger.error("an attempt failed unexpectedly: %r", error)
            failure = TransportError(f"the attempt failed in this process: {error!r}")
            if request.was_written:
                failure.outcome = Outcome.POSSIBLY_DELIVERED
            request.was_written = True  # something was tried, and this batch may have caused the failure
        now_s = time.monotonic()
        if index != _ALONE and not is_poison(failure):
            self._concurrency.failed(began_s, now_s)
        self._failures.failed(batch, endpoint, request, failure, began_s, acked, now_s)

    def _settle_acked(self) -> None:
        """Process the acknowledgements of this round of the loop, together if possible."""
        if not self._acked:
            return
        acked = [*self._acked]
        self._acked.clear()
        now_s = time.monotonic()
        events = 0
        well: Endpoint | None = None
        for batch, _, endpoint, index, began_s in acked:
            self._land(batch, endpoint, index)
            if endpoint is not well or not endpoint.healthy:
                self._failures.well(endpoint)
                well = endpoint
            endpoint.acked += 1
            events += batch.count
            if index != _ALONE:
                self._concurrency.acked(began_s, now_s)
            if endpoint.apart is not None:
                self._close_apart(endpoint)
        self._budget.acked(len(acked))
        self.drain.acked(events)
        self._outcomes.acked([(batch, response) for batch, response, *_ in acked])

    def _land(self, batch: Batch, endpoint: Endpoint, index: int) -> None:
        """A batch is no longer in flight."""
        if index == _ALONE:
            self._alone -= 1
            self._suspects.is_busy = False
        else:
            self._in_flight_bytes -= batch.nbytes
            if self._lanes.is_many:
                self._lanes.ended(batch)
            endpoint.end(index)

    def _has_others(self) -> bool:
        """Whether there are batches that never failed, which can show whether a server is healthy."""
        if self._attempts or self._lanes.sealed or self._lanes.open_count:
            return True
        if self._reserve is not None and self._reserve.fetch_s < _NEVER:
            return True
        return any(batch.trouble is None for batch in self._waiting)

    def _close_apart(self, endpoint: Endpoint) -> None:
        """Close the connection for suspects if no suspect is left."""
        if self._suspects or self._suspects.is_busy:
            return
        assert endpoint.apart is not None
        closing = asyncio.ensure_future(endpoint.apart.close())
        endpoint.apart = None
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # The end

    def _leftovers(self) -> list[Batch]:
        self._settle_acked()
        batches = [*self._waiting.pop_all(), *self._suspects.pop_all()]
        for batch, *_ in self._attempts.values():  # they were cancelled, but did not end
            self._ledger.move(batch.types, states.IN_FLIGHT, states.QUEUED)
            batch.outcome = Outcome.POSSIBLY_DELIVERED
            batches.append(batch)
        self._attempts.clear()
        for queue in self._lanes.all:
            while (waiting := self._take(states.QUEUED, queue)) is not None:
                batches.append(waiting)
        return batches

    async def _end_rest(self, untaken: deque[tuple[Accumulator, deque[Batch]]], deadline_s: float) -> None:
        self._expiries.tell(_NEVER)
        leftovers = self._leftovers()
        if self._reserve is None:
            for batch in leftovers:
                self._end_closed(batch)
            self.is_counted = True
            self._close_untaken(untaken, self._told_s(deadline_s))
        else:
            await self._reserve.close(leftovers, self._end_closed, _left_s(deadline_s))

    # Time

    def _expire(self, now_s: float) -> None:
        """End the batches past their deadline."""
        if self._suspects or self._waiting.has_some:
            for batch in (*self._waiting.pop_overdue(now_s), *self._suspects.pop_overdue(now_s)):
                self._expired(batch)
        for queue in self._lanes.all:
            if queue.is_durable and self._reserve is not None:
                while self._reserve.may_secure(now_s) and (new := self._take(states.QUEUED, queue)) is not None:
                    self._reserve.secure(new)
            elif queue.accumulator.sealed:
                while queue.due_s <= now_s:
                    if (overdue := self._take(states.QUEUED, queue)) is not None:
                        self._expired(overdue)
        self._expiries.tell(now_s)

    def _expired(self, batch: Batch) -> None:
        trouble = batch.trouble
        if trouble is not None and trouble.is_convicted:
            self._outcomes.refused(batch, states.QUEUED, trouble.error)
        elif self._reserve is not None and time.monotonic() < self._lanes.of(batch).last_s(batch):
            self._reserve.set_aside(batch, self._end_expired)
        else:
            self._end_expired(batch)

    def _end_expired(self, batch: Batch) -> None:
        cause = self._cause_of(batch)
        self._expiries.add(batch, cause, self._lanes.of(batch).life_s)
        self._outcomes.expired(batch, cause)

    def _told_s(self, deadline_s: float) -> float:
        """The time until which receipts are settled although no caller may be waiting for them."""
        # A caller on another thread limits its own wait.
        return _NEVER if self._settings.threadsafe else deadline_s + _TOLD_S

    def _close_untaken(self, untaken: deque[tuple[Accumulator, deque[Batch]]], until_s: float) -> None:
        self._outcomes.close_untaken(untaken, self._cause(), until_s)
        if untaken:  # no caller waits for them any more
            self._loop.call_soon(self._close_untaken, untaken, time.monotonic() + _TURN_S)

    def _end_closed(self, batch: Batch) -> None:
        self._outcomes.closed(batch, self._cause_of(batch))

    def _cause_of(self, batch: Batch) -> BaseException | None:
        """The last error of a batch, or why it was not even sent; None if no failure is known."""
        if batch.trouble is not None:
            error: BaseException = batch.trouble.error
            return error
        return self._cause()

    def _cause(self) -> BaseException | None:
        """Why batches were not sent; None if no failure is known."""
        return next((endpoint.last_error for endpoint in self._endpoints.all if not endpoint.healthy), None)

    def _arm(self, now_s: float) -> None:
        """Set the only timer for the next due action, if any."""
        new_s = self._lanes.due_s if self._lanes.is_many else self._lanes.all[0].due_s
        is_quiet = new_s == self._expiries.due_s == _NEVER and self._reserve is None
        if is_quiet and not (self._suspects or self._waiting.has_some):
            return  # usual at the end of a round: everything is in flight
        due_s = min(self._waiting.deadline_s, self._suspects.deadline_s, new_s, self._expiries.due_s)
        if self._reserve is not None and now_s < self._reserve.ready_s and self._has_to_secure():
            due_s = min(due_s, self._reserve.ready_s)
        if self._suspects:
            due_s = min(due_s, max(self._suspects.due_s, self._endpoints.next_s(now_s)))
        if self._room():
            server_s = self._endpoints.next_s(now_s)
            # With several groups, lower ones may have to wait for the end of an attempt even if there is room.
            is_held = len(self._lanes.groups) > 1 and len(self._attempts) > self._alone and server_s <= now_s
            if (self._waiting.has_ready or new_s < _NEVER) and not is_held:
                due_s = min(due_s, server_s)
            if self._reserve is not None and not is_held:
                due_s = min(due_s, max(self._reserve.fetch_s, server_s))
            # Without budget, time pays for the next retry.
            due_s = min(due_s, max(self._waiting.retry_s, now_s + _RETRY_POLL_S, server_s))
        if due_s >= self._timer_s:
            return  # it is set again when it fires
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_s = due_s
        if due_s < _NEVER:
            self._timer = self._loop.call_later(max(0.001, due_s - now_s), self._timer_fired)

    def _has_to_secure(self) -> bool:
        """Whether new batches wait until the disk may store them."""
        return any(queue.is_durable and queue.accumulator.sealed for queue in self._lanes.all)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_s = _NEVER
        self._pump()


def _left_s(deadline_s: float) -> float:
    """The time left for a step of `close`."""
    return max(0.0, deadline_s - time.monotonic()) + _CLOSE_MARGIN_S
