"""Which lane sends next: priority, a guaranteed share, fairness among equals, and places left free."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.delivery.concurrency import Concurrency
from raccoon_fast.delivery.lanes import SHARE, GroupedWaiting, LaneQueue, Lanes

HIGH, NORMAL, LOW = range(3)
LIMIT = 8


class Backlog:
    """An accumulator as far as the lanes look at it."""

    def __init__(self) -> None:
        self.batches: deque[Any] = deque()
        self.buffered = 0

    @property
    def sealed(self) -> int:
        return len(self.batches)

    @property
    def oldest_s(self) -> float:
        return self.batches[0].accepted_s if self.batches else float("inf")


class House:
    """Lanes, and a server that answers the batch that is longest in flight."""

    def __init__(self, *ranks: int, **options: Any) -> None:
        self.backlogs = [Backlog() for _ in ranks]
        self.lanes = Lanes(
            [
                LaneQueue(backlog, rank=rank, linger_s=0.1, delivery_timeout_s=60.0, **options)  # type: ignore[arg-type]
                for backlog, rank in zip(self.backlogs, ranks, strict=True)
            ]
        )
        self.in_flight: deque[Any] = deque()
        self.sent: Counter[int] = Counter()

    def add(self, lane: int, batches: int = 1, nbytes: int = 1000) -> None:
        for _ in range(batches):
            self.backlogs[lane].batches.append(self.batch(lane, nbytes))
            self.backlogs[lane].buffered += nbytes

    def batch(self, lane: int, nbytes: int = 1000) -> Any:
        settlement = SimpleNamespace(lane=lane)
        return SimpleNamespace(settlement=settlement, nbytes=nbytes, accepted_s=1.0, deadline_s=61.0)

    def fill(self, limit: int = LIMIT) -> list[int]:
        """Send whatever may be sent; the lanes, in order."""
        lanes = []
        while len(self.in_flight) < limit:
            queue = self.lanes.next_queue(limit)
            if queue is None:
                break
            batch = self.backlogs[queue.number].batches.popleft()
            self.backlogs[queue.number].buffered -= batch.nbytes
            self.lanes.sent(batch)
            self.in_flight.append(batch)
            self.sent[queue.number] += batch.nbytes
            lanes.append(queue.number)
        return lanes

    def answer(self) -> None:
        self.lanes.ended(self.in_flight.popleft())

    def run(self, batches: int, limit: int = LIMIT) -> None:
        self.sent.clear()
        for _ in range(batches):
            self.fill(limit)
            self.answer()


def test_a_single_lane_gets_every_slot() -> None:
    house = House(NORMAL)
    house.add(0, 20)
    assert house.fill() == [0] * LIMIT


def test_high_goes_before_normal_and_that_before_low() -> None:
    house = House(LOW, HIGH, NORMAL)
    for lane in range(3):
        house.add(lane, 2)
    assert house.fill() == [1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(("limit", "most"), [(8, 6), (4, 3), (2, 1), (1, 1), (16, 12)])
def test_lower_lanes_leave_slots_free(limit: int, most: int) -> None:
    house = House(HIGH, NORMAL)
    house.add(1, 20)
    assert len(house.fill(limit)) == most
    house.add(0)
    assert house.fill(limit) == ([0] if limit > 1 else [])


def test_low_lanes_take_no_slot_that_normal_lanes_leave_free() -> None:
    house = House(HIGH, NORMAL, LOW)
    house.add(1, 200)
    house.add(2, 200)
    assert len(house.fill()) == 6
    house.run(100)
    assert len(house.in_flight) == 5
    house = House(HIGH, NORMAL, LOW)
    house.add(2, 20)
    assert house.fill() == [2] * 4


@pytest.mark.parametrize("sizes", [(1000, 1000), (10_000, 500), (500, 10_000)])
@pytest.mark.parametrize("limit", [1, 8])
def test_a_lower_lane_has_its_share_while_higher_lanes_have_a_backlog(sizes: tuple[int, int], limit: int) -> None:
    house = House(HIGH, LOW)
    house.add(0, 20_000, sizes[0])
    house.add(1, 20_000, sizes[1])
    house.run(8_000, limit)
    assert house.sent[1] / house.sent.total() == pytest.approx(SHARE / (1 + SHARE), rel=0.2)


def test_each_lower_lane_has_its_share() -> None:
    house = House(HIGH, NORMAL, LOW)
    for lane in range(3):
        house.add(lane, 5_000)
    house.run(4_000)
    for lane in (1, 2):
        assert house.sent[lane] / house.sent.total() >= 0.8 * SHARE
    assert house.sent[0] / house.sent.total() > 0.85


def test_no_burst_follows_a_long_wait_nor_a_long_wait_a_burst() -> None:
    house = House(HIGH, LOW)
    house.add(0, 30_000)
    house.run(20_000)  # with no low one there to save anything up
    house.add(1, 5_000)
    house.run(400)
    assert house.sent[1] <= 0.1 * house.sent[0]
    house = House(HIGH, LOW)
    house.add(1, 30_000)
    house.run(20_000)  # more than its share, as nobody else wanted it
    house.add(0, 60_000)
    house.add(1, 10_000)
    house.run(40_000)
    assert house.sent[1] > 0


def test_a_backlog_is_its_own_lane_s_trouble() -> None:
    house = House(NORMAL, NORMAL)
    house.add(0, 1_000)
    house.run(100)
    house.add(1, 10)
    lanes = []
    for _ in range(20):
        house.answer()
        lanes += house.fill()
    assert Counter(lanes)[1] == 10  # as one in two, though the other one waits longer


def test_large_batches_have_no_more_than_small_ones() -> None:
    house = House(NORMAL, NORMAL)
    house.add(0, 1_000, 10_000)
    house.add(1, 10_000, 1_000)
    house.run(3_000)
    assert house.sent[0] == pytest.approx(house.sent[1], rel=0.05)


@pytest.mark.slow
@given(
    ranks=st.lists(st.sampled_from([HIGH, NORMAL, LOW]), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 100_000), min_size=5, max_size=5),
    limit=st.integers(1, 20),
)
def test_no_lane_starves(ranks: list[int], sizes: list[int], limit: int) -> None:
    house = House(*ranks)
    for lane in range(len(ranks)):
        house.add(lane, 3_000, sizes[lane])
    house.run(2_500, limit)
    # A lane is served at least once for so many bytes of all others: its size, over its share of its group's share.
    needed = max(sizes) * len(ranks) * 2 * (1 + 1 / SHARE)
    if house.sent.total() > 2 * needed:
        assert set(house.sent) == set(range(len(ranks)))
    if len(ranks) > 1:
        assert [group.in_flight for group in house.lanes.groups] == [
            sum(ranks[batch.settlement.lane] == rank for batch in house.in_flight) for rank in sorted({*ranks})
        ]


def test_a_durable_lane_s_new_batches_are_stored_first() -> None:
    house = House(HIGH, is_durable=True)
    house.add(0)
    assert house.fill() == []
    assert house.lanes.due_s == float("inf")


def test_how_long_a_batch_lives() -> None:
    def queue(ttl_s: float | None) -> LaneQueue:
        return LaneQueue(Backlog(), linger_s=0.1, delivery_timeout_s=60.0, ttl_s=ttl_s)  # type: ignore[arg-type]

    batch: Any = SimpleNamespace(accepted_s=100.0)
    assert [(one.life_s, one.grace_s, one.last_s(batch)) for one in map(queue, (None, 5.0, 600.0))] == [
        (60.0, 0.0, float("inf")), (5.0, 55.0, 105.0), (60.0, 0.0, 700.0),
    ]  # fmt: skip


def test_a_retry_keeps_its_lane() -> None:
    house = House(LOW, HIGH, NORMAL)
    waiting = house.lanes.waiting
    assert isinstance(waiting, GroupedWaiting)
    first, second, third = (house.batch(lane) for lane in range(3))
    waiting.add(first)
    waiting.add_first(second)
    waiting.add_delayed(third, 7.0)
    assert [len(group.waiting) for group in house.lanes.groups] == [1, 1, 1]
    assert (waiting.has_ready, waiting.retry_s, waiting.deadline_s, len(waiting)) == (True, 7.0, 61.0, 3)
    assert [*waiting] == [second, third, first]
    assert house.lanes.groups[0].waiting.pop_ready() is second
    assert waiting.pop_ready_of(1) is None
    assert waiting.pop_ready_of(0) is first
    assert waiting.pop_overdue(60.0) == []
    assert waiting.pop_overdue(61.0) == [third]
    waiting.add(first)
    assert waiting.pop_all() == [first]
    assert not len(waiting)


def test_the_spool_is_asked_though_a_lane_is_never_empty() -> None:
    house = House(HIGH, NORMAL)
    assert house.lanes.may_fetch()
    house.add(1, 1_000)
    house.fill()
    assert not house.lanes.may_fetch()
    house.run(20)
    assert house.lanes.may_fetch()
    house.lanes.fetched()
    assert not house.lanes.may_fetch()
    alone = House(NORMAL)
    alone.add(0, 1_000)
    alone.run(100)
    assert not alone.lanes.may_fetch()


class Server:
    """A server with several workers at the end of a link, in simulated time; the lanes send as an engine does."""

    def __init__(self, workers: int, service_s: float, round_trip_s: float, *, most: int | None = None) -> None:
        self.house = House(HIGH, NORMAL, LOW)
        self.concurrency = Concurrency(8, 1, 128, 16 << 20, is_gentle=True) if most is None else Concurrency(most)
        self.service_s, self.round_trip_s = service_s, round_trip_s
        self.free_s = [0.0] * workers  # when each worker is free
        self.rng = random.Random(1)
        self.in_flight: list[tuple[float, int, float, Any]] = []  # when it is acknowledged, a number, when it began
        self.count = 0

    def fill(self, now_s: float, *, has_backlog: bool) -> None:
        lanes = self.house.lanes
        while self.concurrency.room(len(self.in_flight), lanes.groups[0].nbytes):
            for lane in (1, 2) if has_backlog else ():
                self.house.add(lane, 20 - len(self.house.backlogs[lane].batches), 10_000)
            queue = lanes.next_queue(self.concurrency.limit)
            self.concurrency.is_held_back = lanes.is_held_back
            if queue is None:
                break
            batch = queue.accumulator.batches.popleft()  # type: ignore[attr-defined]
            lanes.sent(batch)
            self.count += 1
            begins_s = max(heapq.heappop(self.free_s), now_s + self.round_trip_s / 2)
            ends_s = begins_s + self.service_s * self.rng.uniform(1.0, 1.1)
            heapq.heappush(self.free_s, ends_s)
            heapq.heappush(self.in_flight, (ends_s + self.round_trip_s / 2, self.count, now_s, batch))

    def run(self, seconds: float, high_per_s: float, *, has_backlog: bool) -> tuple[float, float]:
        """The high lane's p99 in seconds, and batches per second."""
        now_s = next_s = 0.0
        latencies_s, acked = [], 0
        while now_s < seconds:
            self.fill(now_s, has_backlog=has_backlog)
            if self.in_flight and self.in_flight[0][0] <= next_s:
                now_s, _, began_s, batch = heapq.heappop(self.in_flight)
                self.house.lanes.ended(batch)
                self.concurrency.acked(began_s, now_s)
                acked += 1
                if batch.settlement.lane == 0:
                    latencies_s.append(now_s - batch.accepted_s)
            else:
                now_s = next_s
                batch = self.house.batch(0, 100)
                batch.accepted_s = now_s
                self.house.backlogs[0].batches.append(batch)
                next_s += self.rng.expovariate(high_per_s)
        return sorted(latencies_s)[len(latencies_s) * 99 // 100], acked / seconds


@pytest.mark.parametrize("high_share", [0.02, 0.2])
@pytest.mark.parametrize(
    ("workers", "service_s", "round_trip_s"),
    [(5, 0.02, 0.001), (5, 0.05, 0.001), (5, 0.2, 0.001), (20, 0.02, 0.001), (50, 0.05, 0.001), (5, 0.01, 0.1)],
)
def test_a_backlog_of_lower_lanes_at_most_doubles_the_p99_of_the_high_lane(
    workers: int, service_s: float, round_trip_s: float, high_share: float
) -> None:
    """A Raccoon server has five workers by default."""
    per_s = workers / (1.05 * service_s)
    alone_s, _ = Server(workers, service_s, round_trip_s).run(30, high_share * per_s, has_backlog=False)
    p99_s, served_per_s = Server(workers, service_s, round_trip_s).run(30, high_share * per_s, has_backlog=True)
    assert p99_s <= 2.0 * alone_s
    assert served_per_s >= 0.9 * per_s


@pytest.mark.parametrize("workers", [1, 2])
def test_max_in_flight_bounds_the_delay_at_a_server_with_few_workers(workers: int) -> None:
    per_s = workers / 0.021
    alone_s, _ = Server(workers, 0.02, 0.001).run(30, 0.1 * per_s, has_backlog=False)
    usual_s, _ = Server(workers, 0.02, 0.001).run(30, 0.1 * per_s, has_backlog=True)
    p99_s, served_per_s = Server(workers, 0.02, 0.001, most=workers + 1).run(30, 0.1 * per_s, has_backlog=True)
    assert p99_s <= 2.0 * alone_s < usual_s / 2
    assert served_per_s >= 0.85 * per_s


def test_places_kept_free_do_not_keep_the_number_in_flight_small() -> None:
    server = Server(1000, 0.0, 0.1)
    server.fill(0.0, has_backlog=True)
    assert len(server.in_flight) == 6
    assert server.concurrency.is_held_back
    server.run(5.0, 1.0, has_backlog=True)
    assert server.concurrency.limit == 128
    quiet = Server(1000, 0.0, 0.1)
    quiet.run(5.0, 1.0, has_backlog=False)
    assert quiet.concurrency.limit == 8
