"""Batches that wait for an engine, by lane: whose turn it is, and how long they may wait.

Strategy. Each lane has its own accumulator. Lanes of one priority form a group, and share the batches that wait for
another attempt. A group precedes lower groups. So that a lower group does not starve, it earns credit while it waits:
5 % of the bytes that precede it; as soon as the credit pays for a batch, it is its turn. Within a group the lane goes
first that has sent the least (start-time fair queueing: P. Goyal et al., SIGCOMM 1996), so that a backlog only affects
its own lane.

A batch of high priority would still have to wait for batches in flight. So lower groups leave some places free: one in
four of those that may be in flight, but at least one, for each group above.

With a single lane, the default, there is only one accumulator, and one queue of batches that wait for another attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.delivery.outstanding import Outstanding
from raccoon_fast.delivery.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from raccoon_fast.core.batch import Accumulator, Batch
    from raccoon_fast.delivery.linger import Linger
    from raccoon_fast.delivery.settlement import Settlement

__all__ = ["Group", "GroupedWaiting", "LaneQueue", "Lanes"]

#: The least share of the bytes sent that a waiting lower group gets.
SHARE = 0.05
# The most credit of a group, so that no burst follows a long wait. It owes no more than its last batch.
_MOST_CREDIT = 1 << 20
# One in this many places in flight is kept free for each group above.
_KEPT_FREE = 4


class LaneQueue:
    """The engine's view of one lane. Owned by the engine's loop, except the accumulator.

    Args:
        accumulator: The accumulator of the lane's events.
        rank: 0 for the highest priority.
        linger_s: How long a batch may wait for more events.
        delivery_timeout_s: The time from accepting an event to its acknowledgement, over all attempts.
        ttl_s: How long an event may wait to be sent; None for `delivery_timeout_s`.
        is_durable: Whether every batch is stored before it is sent.

    Attributes:
        life_s: How long an event may wait, by either limit.
        grace_s: How much longer an attempt under way may take.
        outstanding: The batches for which a flush waits.
        linger: Seals its open batch; set by the engine.
        served: The bytes that it has sent, in the group's accounting.
        is_spilling: Whether its buffer is full, so that the oldest batches go to the spool.
        number: Its index among the lanes.
    """

    linger: Linger
    number: int = 0

    def __init__(
        self,
        accumulator: Accumulator,
        *,
        rank: int = 0,
        linger_s: float,
        delivery_timeout_s: float,
        ttl_s: float | None = None,
        is_durable: bool = False,
    ) -> None:
        self.accumulator = accumulator
        self.rank = rank
        self.linger_s = linger_s
        self.is_durable = is_durable
        self.life_s = delivery_timeout_s if ttl_s is None else min(ttl_s, delivery_timeout_s)
        self.grace_s = delivery_timeout_s - self.life_s
        self.outstanding = Outstanding(accumulator)
        self.served = 0.0
        self.is_spilling = False
        self._ttl_s = ttl_s

    @property
    def due_s(self) -> float:
        """When the next batch that may be sent expires; infinity if there is none."""
        return float("inf") if self.is_durable else self.accumulator.oldest_s + self.life_s

    def last_s(self, batch: Batch) -> float:
        """When the life of a batch ends, even if a spool could keep it; infinity if it has no such limit."""
        return float("inf") if self._ttl_s is None else batch.accepted_s + self._ttl_s


class Group:
    """The lanes of one priority. Owned by the engine's loop.

    Attributes:
        queues: The lanes.
        waiting: Their batches that wait for another attempt.
        in_flight: Their batches in flight.
        nbytes: The bytes of these.
        sent_last: The number of batches of all groups sent when its last one was sent.
        credit: The bytes that it may send before the groups above it; negative if it sent too much.
    """

    def __init__(self, queues: Sequence[LaneQueue]) -> None:
        self.queues = list(queues)
        self.waiting = Waiting()
        self.in_flight = 0
        self.nbytes = 0
        self.sent_last = 0
        self.credit = 0.0
        self._served = 0.0
        # The bytes of its last batch.
        self._usual_bytes = 0

    def next_queue(self) -> LaneQueue | None:
        """The lane whose new batch is sent next, or None; batches of durable lanes are stored first."""
        chosen: LaneQueue | None = None
        for queue in self.queues:
            is_next = chosen is None or queue.served < chosen.served
            if is_next and queue.accumulator.sealed and not queue.is_durable:
                chosen = queue
        return chosen

    @property
    def is_due(self) -> bool:
        """Whether its credit pays for its next batch, if the size is known."""
        usual_bytes = self._usual_bytes
        if not usual_bytes:
            buffered = sum(queue.accumulator.buffered for queue in self.queues)
            usual_bytes = buffered // (1 + sum(queue.accumulator.sealed for queue in self.queues))
        return self.credit > 0 and self.credit >= min(usual_bytes, _MOST_CREDIT)

    @property
    def has_some(self) -> bool:
        """Whether a batch waits that may be sent now."""
        return self.waiting.has_ready or self.next_queue() is not None

    def sent(self, queue: LaneQueue, nbytes: int) -> None:
        """One of its batches is sent."""
        self.in_flight += 1
        self.nbytes += nbytes
        self._usual_bytes = nbytes
        # A group that had nothing to send meanwhile has saved no credit.
        self._served = max(self._served, queue.served)
        queue.served = self._served + nbytes


class Lanes:
    """All lanes of an engine.

    Owned by the engine's loop; the values of the accumulators may be read from any thread.

    Args:
        queues: At least one; a batch's `settlement.lane` is an index into them.

    Attributes:
        all: The lanes.
        is_many: Whether there are several.
        waiting: All batches that wait for another attempt.
        is_held_back: Whether, in the last turn, a batch waited only because of the places that are kept free.
    """

    is_held_back = False

    def __init__(self, queues: Sequence[LaneQueue]) -> None:
        self.all = list(queues)
        for number, queue in enumerate(self.all):
            queue.number = number
        self.is_many = len(self.all) > 1
        ranks = sorted({queue.rank for queue in self.all})
        self.groups = [Group([queue for queue in self.all if queue.rank == rank]) for rank in ranks]
        self._group_of = [self.groups[ranks.index(queue.rank)] for queue in self.all]
        # Batches sent, now and when the spool was last read.
        self._sent = self._fetched = 0
        self.waiting: Waiting | GroupedWaiting = self.groups[0].waiting
        if len(self.groups) > 1:
            self.waiting = GroupedWaiting([group.waiting for group in self.groups], self._waiting_of)

    # All accumulators together

    @property
    def sealed(self) -> int:
        """Batches to take."""
        return sum(queue.accumulator.sealed for queue in self.all)

    @property
    def open_count(self) -> int:
        """Events in batches that are not sealed yet."""
        return sum(queue.accumulator.open_count for queue in self.all)

    @property
    def oldest_s(self) -> float:
        """When the oldest waiting batch got its first event; infinity if there is none."""
        return min(queue.accumulator.oldest_s for queue in self.all)

    @property
    def due_s(self) -> float:
        """When the next new batch expires; infinity if there is none that may be sent."""
        return min(queue.due_s for queue in self.all)

    def seal(self) -> None:
        """Seal every open batch."""
        for queue in self.all:
            queue.accumulator.seal()

    def limit_bytes(self, max_bytes: int) -> None:
        """See Accumulator.limit_bytes."""
        for queue in self.all:
            queue.accumulator.limit_bytes(max_bytes)

    # Per batch

    def of(self, batch: Batch) -> LaneQueue:
        """A batch's lane."""
        lane: int = batch.settlement.lane
        return self.all[lane]

    def hold(self, batch: Batch) -> None:
        """Count a batch that came from elsewhere in its lane's buffer."""
        accumulator = self.of(batch).accumulator
        accumulator.hold(accumulator.weigh(batch))

    def release(self, batch: Batch) -> None:
        """Give back the room of a batch."""
        self.of(batch).accumulator.release(batch.cost)

    def settled(self, settlement: Settlement) -> None:
        """The last part of a batch has its outcome; no flush waits for it any longer."""
        self.all[settlement.lane].outstanding.remove(settlement)

    def last_attempt_s(self, batch: Batch) -> float:
        """When an attempt to send a batch must end."""
        last_s: float = batch.deadline_s + self.all[batch.settlement.lane].grace_s
        return last_s

    # The next turn

    def in_turn(self, limit: int) -> list[Group]:
        """The groups that may send one more batch, in order.

        Args:
            limit: The number of batches that may be in flight.
        """
        groups = self.groups
        if len(groups) == 1:
            return groups
        self.is_held_back = False
        kept_free = max(1, limit // _KEPT_FREE)
        first: list[Group] = []
        rest = [groups[0]]
        in_flight = sum(group.in_flight for group in groups)
        for above, group in enumerate(groups[1:], 1):
            in_flight -= groups[above - 1].in_flight
            if in_flight >= max(1, limit - above * kept_free):
                self.is_held_back = any(lower.has_some for lower in groups[above:])
                break  # lower groups would take the places that this group leaves free
            (first if group.is_due else rest).append(group)
        if len(first) > 1:
            first.sort(key=lambda group: group.sent_last)  # in turn, otherwise small batches would keep the places
        return [*first, *rest]

    def next_queue(self, limit: int) -> LaneQueue | None:
        """The lane from which the next new batch comes, or None; `limit` as above."""
        for group in self.in_turn(limit):
            queue = group.next_queue()
            if queue is not None:
                return queue
        return None

    def sent(self, batch: Batch) -> None:
        """An attempt begins."""
        if not self.is_many:
            return
        nbytes = batch.nbytes
        group = self._group_of[batch.settlement.lane]
        group.sent(self.of(batch), nbytes)
        self._sent += 1
        group.sent_last = self._sent
        for lower in self.groups[self.groups.index(group) + 1 :]:
            if lower.has_some:
                lower.credit = min(lower.credit + SHARE * nbytes, _MOST_CREDIT)
        if group is not self.groups[0]:
            group.credit = max(group.credit - nbytes, -nbytes)

    def ended(self, batch: Batch) -> None:
        """The attempt is over."""
        if self.is_many:
            group = self._group_of[batch.settlement.lane]
            group.in_flight -= 1
            group.nbytes -= batch.nbytes

    def may_fetch(self) -> bool:
        """Whether to fetch batches from the spool: when nothing newer waits.

        With several lanes, also once in twenty batches, so that a lane that is never empty does not keep the others'
        batches on the disk.
        """
        if self.waiting.has_ready:
            return False
        return not self.sealed or (self.is_many and self._sent - self._fetched >= 1 / SHARE)

    def fetched(self) -> None:
        """Note that the spool was read."""
        self._fetched = self._sent

    def _waiting_of(self, batch: Batch) -> Waiting:
        lane: int = batch.settlement.lane
        return self._group_of[lane].waiting


class GroupedWaiting:
    """The batches of all groups that wait for another attempt, with the methods of Waiting.

    Args:
        parts: One per group, the highest first.
        part_of: Returns the part to which a batch belongs.
    """

    def __init__(self, parts: Sequence[Waiting], part_of: Callable[[Batch], Waiting]) -> None:
        self._parts = list(parts)
        self._part_of = part_of

    def add(self, batch: Batch) -> None:
        """See Waiting.add."""
        self._part_of(batch).add(batch)

    def add_first(self, batch: Batch) -> None:
        """See Waiting.add_first."""
        self._part_of(batch).add_first(batch)

    def add_delayed(self, batch: Batch, until_s: float) -> None:
        """See Waiting.add_delayed."""
        self._part_of(batch).add_delayed(batch, until_s)

    @property
    def has_some(self) -> bool:
        """See Waiting.has_some."""
        return any(part.has_some for part in self._parts)

    @property
    def has_ready(self) -> bool:
        """See Waiting.has_ready."""
        return any(part.has_ready for part in self._parts)

    @property
    def retry_s(self) -> float:
        """See Waiting.retry_s."""
        return min(part.retry_s for part in self._parts)

    @property
    def deadline_s(self) -> float:
        """See Waiting.deadline_s."""
        return min(part.deadline_s for part in self._parts)

    def pop_ready_of(self, lane: int) -> Batch | None:
        """See Waiting.pop_ready_of."""
        found = (part.pop_ready_of(lane) for part in self._parts)
        return next((batch for batch in found if batch is not None), None)

    def pop_overdue(self, now_s: float) -> list[Batch]:
        """See Waiting.pop_overdue."""
        return [batch for part in self._parts for batch in part.pop_overdue(now_s)]

    def pop_all(self) -> list[Batch]:
        """See Waiting.pop_all."""
        return [batch for part in self._parts for batch in part.pop_all()]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Batch]:
        for part in self._parts:
            yield from part
