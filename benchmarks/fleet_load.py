"""Simulates a fleet whose server is overloaded or fails: counts attempts, acknowledgements and waiting requests.

A simulated producer combines the same parts as `raccoon_fast.delivery.engine` (RetryPolicy, RetryBudget, Concurrency,
Endpoint, Waiting), without bytes, sockets and an event loop, so that 100,000 producers fit into memory.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from simulation import DEFAULTS, FAILURE, ROUND_TRIP_S, Clock, endpoint

from raccoon_fast.delivery.attempts import MAX_ATTEMPTS
from raccoon_fast.delivery.concurrency import Concurrency
from raccoon_fast.delivery.engine import _RETRY_POLL_S
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.delivery.retry_budget import RetryBudget
from raccoon_fast.delivery.waiting import Waiting

#: How a server refuses a request: a proxy answers for it, or the server itself cannot publish to its sink.
REFUSED, RETRY_AFTER, NOT_PUBLISHED = "503", "503, Retry-After", "INTERNAL_ERROR"


@dataclass
class Server:
    """Handles a limited number of requests per second, queues a few, and refuses the rest, which also costs work.

    Attributes:
        capacity: Requests per second.
        answer: The answer to refused requests.
        retry_after_s: The value of Retry-After, in seconds; used with RETRY_AFTER.
        queue: The number of requests that may wait; a Raccoon server's channel holds 100 batches.
        refusal_cost: The work for a refusal, as a share of the work for a request.
    """

    capacity: float
    answer: str = REFUSED
    retry_after_s: float = 10.0
    queue: float = 100.0
    refusal_cost: float = 0.1
    _free_s: float = 0.0

    def take(self, now_s: float) -> tuple[bool, float]:
        """Handle a request that arrives now. Returns whether it is accepted, and when the answer is sent."""
        start_s = max(self._free_s, now_s)
        if (start_s - now_s) * self.capacity >= self.queue:
            self._free_s = start_s + self.refusal_cost / self.capacity
            return False, now_s + ROUND_TRIP_S
        self._free_s = start_s + 1.0 / self.capacity
        return True, self._free_s + ROUND_TRIP_S


@dataclass
class FaultyServer:
    """Accepts every request, except a given share of those that arrive in a period."""

    share: float
    until_s: float
    answer: str
    retry_after_s: float = 0.0

    def take(self, now_s: float) -> tuple[bool, float]:
        return now_s >= self.until_s or random.random() >= self.share, now_s + ROUND_TRIP_S


@dataclass
class Tally:
    """Counts the outcomes of a fleet's requests; each request has one of `outcomes` or is still waiting.

    Attributes:
        first: First attempts, by second.
        attempts: All attempts, by second.
        acked: Acknowledgements, by second.
        outcomes: Requests by outcome: acked, expired, dropped (no room in the buffer), failed.
        settled: For each request, when it was offered and when it ended.
        offered: The number of requests offered.
        waiting: The number of requests without an outcome.
        most_waiting: The highest value of `waiting`.
        most_buffered: The highest number of bytes in one producer's buffer.
    """

    first: Counter[int] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    acked: Counter[int] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    settled: list[tuple[float, float]] = field(default_factory=list)
    offered: int = 0
    waiting: int = 0
    most_waiting: int = 0
    most_buffered: int = 0

    @property
    def series(self) -> dict[str, Counter[int]]:
        """The counts over time, for charts."""
        return {"requests": self.first, "attempts": self.attempts, "acknowledged": self.acked}

    def offer(self) -> None:
        """Count an offered request."""
        self.offered += 1
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

    def attempt(self, now_s: float, is_first: bool) -> None:
        """Count an attempt."""
        self.attempts[int(now_s)] += 1
        if is_first:
            self.first[int(now_s)] += 1

    def end(self, outcome: str, accepted_s: float, now_s: float) -> None:
        """Count a request's outcome."""
        self.outcomes[outcome] += 1
        self.waiting -= 1
        self.settled.append((accepted_s, now_s))
        if outcome == "acked":
            self.acked[int(now_s)] += 1

    def amplification(self, begin_s: int, end_s: int) -> float:
        """Attempts per first attempt between two times."""
        seconds = range(begin_s, end_s)
        return sum(self.attempts[second] for second in seconds) / sum(self.first[second] for second in seconds)

    def settled_s(self, before_s: float, share: float) -> float:
        """The time when this share of the requests offered before `before_s` had ended."""
        ended = sorted(ended_s for accepted_s, ended_s in self.settled if accepted_s < before_s)
        return ended[max(0, round(share * len(ended)) - 1)]


class Parcel:
    """A batch without its bytes, with the attributes that Waiting and the engine use."""

    __slots__ = ("accepted_s", "attempts", "deadline_s")

    def __init__(self, accepted_s: float, deadline_s: float) -> None:
        self.accepted_s = accepted_s
        self.deadline_s = deadline_s
        self.attempts = 0


class _Waiting(Waiting):
    """Like Waiting, but checks all batches only when one may be overdue, because many wait here."""

    def __init__(self) -> None:
        super().__init__()
        self._earliest_s = float("inf")

    def add(self, batch: Any) -> None:
        self._earliest_s = min(self._earliest_s, batch.deadline_s)
        super().add(batch)

    def add_delayed(self, batch: Any, until_s: float) -> None:
        self._earliest_s = min(self._earliest_s, batch.deadline_s)
        super().add_delayed(batch, until_s)

    @property
    def deadline_s(self) -> float:
        return self._earliest_s

    def pop_overdue(self, now_s: float) -> list[Any]:
        if now_s < self._earliest_s:
            return []
        overdue = super().pop_overdue(now_s)
        self._earliest_s = super().deadline_s
        return overdue


class Sender:
    """One producer that takes the same steps as the engine. A full buffer drops new batches.

    Args:
        clock: The simulation's clock.
        server: The server that receives all requests.
        tally: The fleet's counts.
        policy: The waits between attempts.
        budget: The producer's retry budget.
        batch_bytes: The size of each batch.
    """

    __slots__ = (
        "_batch_bytes", "_budget", "_clock", "_concurrency", "_endpoint", "_held", "_in_flight", "_policy", "_pumped_s",
        "_queued", "_server", "_tally", "_timer_s", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        server: Server | FaultyServer,
        tally: Tally,
        policy: RetryPolicy,
        budget: RetryBudget,
        batch_bytes: int,
    ) -> None:
        self._clock, self._server, self._tally = clock, server, tally
        self._policy, self._budget, self._batch_bytes = policy, budget, batch_bytes
        self._concurrency = Concurrency(
            DEFAULTS.first_in_flight, 1, DEFAULTS.most_in_flight, DEFAULTS.buffer_bytes // 4
        )
        self._endpoint = endpoint(policy)
        self._waiting = _Waiting()
        self._queued: deque[Parcel] = deque()
        self._in_flight = 0
        self._held = 0
        self._pumped_s = 0.0
        self._timer_s = float("inf")

    def offer(self) -> None:
        """Accept a batch that is full or has lingered."""
        now_s, tally = self._clock.now_s, self._tally
        tally.offer()
        if self._held + self._batch_bytes > DEFAULTS.buffer_bytes:
            tally.end("dropped", now_s, now_s)
            return
        self._held += self._batch_bytes
        tally.most_buffered = max(tally.most_buffered, self._held)
        self._queued.append(Parcel(now_s, now_s + DEFAULTS.delivery_timeout_s))
        self._pump()

    def _pump(self) -> None:
        now_s = self._clock.now_s
        self._budget.tick(now_s - self._pumped_s)
        self._pumped_s = now_s
        self._expire(now_s)
        while self._has_room() and self._endpoint.ready_s(now_s) <= now_s:
            parcel = self._next(now_s) if self._endpoint.healthy else self._probe(now_s)
            if parcel is None:
                break
            self._start(parcel, now_s)
        self._arm(now_s)

    def _has_room(self) -> int:
        return self._concurrency.room(self._in_flight, self._in_flight * self._batch_bytes)

    def _expire(self, now_s: float) -> None:
        for parcel in self._waiting.pop_overdue(now_s):
            self._end("expired", parcel)
        while not self._waiting.has_ready and self._queued:
            parcel = self._queued.popleft()
            if parcel.deadline_s <= now_s:
                self._end("expired", parcel)
            else:
                self._waiting.add(parcel)

    def _next(self, now_s: float) -> Any:
        if self._waiting.retry_s <= now_s and self._budget.take():
            return self._waiting.pop_delayed()
        if self._waiting.has_ready:
            return self._waiting.pop_ready()
        return self._queued.popleft() if self._queued else None

    def _probe(self, now_s: float) -> Any:
        if self._endpoint.failed_with_batch and self._queued:
            return self._queued.popleft()
        return self._next(now_s)

    def _start(self, parcel: Parcel, now_s: float) -> None:
        is_first = parcel.attempts == 0
        if is_first:
            self._budget.first_attempts()
        self._tally.attempt(now_s, is_first)
        parcel.attempts += 1
        transport = self._endpoint.begin()
        self._in_flight += 1
        is_taken, answered_s = self._server.take(now_s)
        self._clock.at(answered_s, self._ended, parcel, transport, now_s, is_taken)

    def _ended(self, parcel: Parcel, transport: int, began_s: float, is_taken: bool) -> None:
        self._in_flight -= 1
        self._endpoint.end(transport)
        now_s = self._clock.now_s
        if is_taken:
            self._endpoint.succeeded(alone=True)
            self._concurrency.acked(began_s, now_s)
            self._budget.acked()
            self._end("acked", parcel)
        else:
            self._turned_away(parcel, began_s, now_s)
        self._pump()

    def _turned_away(self, parcel: Parcel, began_s: float, now_s: float) -> None:
        self._concurrency.failed(began_s, now_s)
        if self._server.answer == NOT_PUBLISHED:  # the server itself named the request, so the server is well
            self._budget.failed()
            self._endpoint.unpublished(FAILURE, began_s, now_s)
            self._waiting.add_delayed(parcel, now_s + self._policy.delay_s(parcel.attempts))
            return
        self._waiting.add(parcel)
        self._endpoint.failed(FAILURE, began_s, now_s, with_batch=True)
        if self._server.answer == RETRY_AFTER:
            self._endpoint.pause(now_s + self._policy.pause_s(self._server.retry_after_s))

    def _end(self, outcome: str, parcel: Parcel) -> None:
        self._held -= self._batch_bytes
        self._tally.end(outcome, parcel.accepted_s, self._clock.now_s)

    def _arm(self, now_s: float) -> None:
        due_s = self._waiting.deadline_s
        if self._has_room():
            server_s = self._endpoint.ready_s(now_s)
            if self._waiting.has_ready:
                due_s = min(due_s, server_s)
            # The engine looks again every _RETRY_POLL_S. Looks that would find nothing are skipped here.
            poll_s = max(_RETRY_POLL_S, 1.0 - self._budget._tokens)
            due_s = min(due_s, max(self._waiting.retry_s, now_s + poll_s, server_s))
        if due_s != self._timer_s:
            self._timer_s = due_s
            if due_s < float("inf"):
                self._clock.at(max(due_s, now_s + 0.001), self._timer_fired, due_s)

    def _timer_fired(self, due_s: float) -> None:
        if due_s == self._timer_s:  # otherwise the timer was set again in the meantime
            self._timer_s = float("inf")
            self._pump()


class Caller:
    """A program with a client: the client tries a request as often as its policy says, then gives up."""

    __slots__ = ("_clock", "_policy", "_server", "_tally")

    def __init__(self, clock: Clock, server: Server | FaultyServer, tally: Tally, policy: RetryPolicy) -> None:
        self._clock, self._server, self._tally, self._policy = clock, server, tally, policy

    def offer(self) -> None:
        """Send a request."""
        self._tally.offer()
        self._attempt(self._clock.now_s, 1)

    def _attempt(self, accepted_s: float, attempts: int) -> None:
        self._tally.attempt(self._clock.now_s, attempts == 1)
        is_taken, answered_s = self._server.take(self._clock.now_s)
        self._clock.at(answered_s, self._ended, accepted_s, attempts, is_taken)

    def _ended(self, accepted_s: float, attempts: int, is_taken: bool) -> None:
        if is_taken or attempts == MAX_ATTEMPTS:
            self._tally.end("acked" if is_taken else "failed", accepted_s, self._clock.now_s)
        else:
            self._clock.at(self._clock.now_s + self._policy.delay_s(attempts), self._attempt, accepted_s, attempts + 1)


@dataclass(frozen=True)
class Load:
    """Requests per second of each producer: `peak` from `begin` to `end`, otherwise `usual`; none after `stop`."""

    usual: float
    peak: float
    begin_s: float
    end_s: float
    stop_s: float


def send(clock: Clock, fleet: list[Sender] | list[Caller], load: Load) -> None:
    """Let the fleet send until every request has an outcome."""

    def turn(sender: Sender | Caller) -> None:
        sender.offer()
        later(sender)

    def later(sender: Sender | Caller) -> None:
        # A change of the rate takes effect at once: times drawn for the old rate are drawn again.
        when_s = clock.now_s
        for rate, until_s in ((load.usual, load.begin_s), (load.peak, load.end_s), (load.usual, load.stop_s)):
            if when_s < until_s:
                when_s += random.expovariate(rate)
                if when_s < until_s:
                    clock.at(when_s, turn, sender)
                    return
                when_s = until_s

    for sender in fleet:
        later(sender)
    clock.run()
