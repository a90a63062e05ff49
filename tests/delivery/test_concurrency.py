"""The number of batches in flight follows latency and errors."""

from __future__ import annotations

import heapq

import pytest

from raccoon_fast.delivery.concurrency import Concurrency


def ack(concurrency: Concurrency, latency_s: float, count: int = 1, now_s: float = 0.0) -> float:
    for _ in range(count):
        concurrency.acked(now_s, now_s + latency_s)
        now_s += latency_s
    return now_s


def test_it_starts_at_the_maximum_and_never_exceeds_it() -> None:
    concurrency = Concurrency(8)
    assert concurrency.limit == 8
    ack(concurrency, 0.01, 100)
    assert concurrency.limit == 8


def test_an_error_halves_the_bound_down_to_one() -> None:
    concurrency = Concurrency(8)
    limits = []
    for now_s in range(5):
        concurrency.failed(now_s, now_s + 0.5)
        limits.append(concurrency.limit)
    assert limits == [4, 2, 1, 1, 1]


def test_errors_of_one_flight_count_once() -> None:
    concurrency = Concurrency(8)
    for _ in range(8):
        concurrency.failed(1.0, 2.0)
    assert concurrency.limit == 4


def test_acknowledgements_raise_the_bound_by_one_per_round() -> None:
    concurrency = Concurrency(8)
    concurrency.failed(0.0, 1.0)
    now_s = ack(concurrency, 0.01, 5, now_s=2.0)
    assert concurrency.limit == 5
    ack(concurrency, 0.01, 100, now_s)
    assert concurrency.limit == 8


def test_growing_latency_lowers_the_bound() -> None:
    concurrency = Concurrency(8)
    now_s = ack(concurrency, 0.01, 10)
    ack(concurrency, 0.2, 5, now_s)
    assert concurrency.limit == 4


def test_a_server_that_became_slower_for_good_is_not_starved() -> None:
    concurrency = Concurrency(8)
    now_s = ack(concurrency, 0.01, 10)
    ack(concurrency, 0.2, 500, now_s)
    assert concurrency.limit == 8


def test_milliseconds_are_noise() -> None:
    concurrency = Concurrency(8)
    now_s = ack(concurrency, 0.0002, 10)
    ack(concurrency, 0.008, 10, now_s)
    assert concurrency.limit == 8


KB = 1000


def most(concurrency: Concurrency, nbytes: int) -> int:
    """How many batches of so many bytes get to be in flight."""
    batches = 0
    while concurrency.room(batches, batches * nbytes):
        batches += 1
    return batches


def test_bytes_in_flight_are_bounded_for_a_gigabit_per_second() -> None:
    concurrency = Concurrency(8)
    for latency_s, batches in ((0.001, 3), (0.005, 4), (0.010, 7), (0.050, 8)):
        ack(concurrency, latency_s, 100)
        assert most(concurrency, 200 * KB) == batches, latency_s


def test_small_batches_and_a_few_large_ones_are_always_in_flight() -> None:
    concurrency = Concurrency(8)
    ack(concurrency, 0.0001, 100)
    assert most(concurrency, 20 * KB) == 8
    assert most(concurrency, 4_000 * KB) == 3
    assert most(Concurrency(2), 4_000 * KB) == 2


def test_each_connection_has_its_share() -> None:
    concurrency = Concurrency(32, connections=4)
    ack(concurrency, 0.001, 100)
    assert most(concurrency, 200 * KB) == 12


def test_errors_leave_less_room() -> None:
    concurrency = Concurrency(8)
    concurrency.failed(0.0, 1.0)
    assert (concurrency.room(0, 0), concurrency.room(3, 3), concurrency.room(5, 5)) == (4, 1, 0)


class Link:
    """A way of so long there and back, with a server at its end that takes one batch after the other."""

    def __init__(self, concurrency: Concurrency, round_trip_s: float, events_per_s: float, nbytes: int = 200 * KB):
        self.concurrency = concurrency
        self.round_trip_s = round_trip_s
        self.service_s = 1000 / events_per_s
        self.nbytes = nbytes
        self.now_s = self.free_s = 0.0
        self.in_flight: list[tuple[float, float]] = []  # when it is acknowledged, when it began

    def run(self, seconds: float, most: int = 1_000_000) -> list[float]:
        """Send all the time, `most` at once; returns the latencies."""
        latencies = []
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            while len(self.in_flight) < most and self.concurrency.room(
                len(self.in_flight), len(self.in_flight) * self.nbytes
            ):
                self.free_s = max(self.free_s, self.now_s + self.round_trip_s / 2) + self.service_s
                heapq.heappush(self.in_flight, (self.free_s + self.round_trip_s / 2, self.now_s))
            self.now_s, began_s = heapq.heappop(self.in_flight)
            self.concurrency.acked(began_s, self.now_s)
            latencies.append(self.now_s - began_s)
        return latencies

    @property
    def least_s(self) -> float:
        return self.round_trip_s + self.service_s


def adaptive(connections: int = 1, *, is_gentle: bool = False) -> Concurrency:
    return Concurrency(8 * connections, connections, 128, 16 << 20, is_gentle=is_gentle)


class TestFarServers:
    @pytest.mark.parametrize("is_gentle", [False, True])
    @pytest.mark.parametrize("round_trip_s", [0.03, 0.1, 0.3])
    def test_the_number_in_flight_fills_the_link(self, round_trip_s: float, is_gentle: bool) -> None:
        link = Link(adaptive(is_gentle=is_gentle), round_trip_s, 400_000.0)
        link.run((60 if is_gentle else 20) * round_trip_s)
        events_per_s = 1000 * len(link.run(2.0)) / 2.0
        wanted = min(400_000.0, 80 * 1000 / round_trip_s)  # 16 MiB of 200 kB
        assert events_per_s > 0.9 * wanted

    @pytest.mark.parametrize("is_gentle", [False, True])
    @pytest.mark.parametrize("round_trip_s", [0.1, 0.3])
    @pytest.mark.parametrize("events_per_s", [100_000.0, 200_000.0])
    def test_a_server_is_not_overrun(self, round_trip_s: float, events_per_s: float, is_gentle: bool) -> None:
        link = Link(adaptive(is_gentle=is_gentle), round_trip_s, events_per_s)
        link.run(40 * round_trip_s)
        assert max(link.run(100 * round_trip_s)) < (1.5 if is_gentle else 2.0) * link.least_s

    def test_a_gentle_number_grows_in_small_steps(self) -> None:
        grown = []
        for is_gentle in (False, True):
            link = Link(adaptive(is_gentle=is_gentle), 0.1, 1e6)
            link.run(1.0)
            grown.append(link.concurrency.limit)
        assert grown[1] <= 16 < grown[0]

    def test_the_number_grows_for_batches_that_wait_beside_places_kept_free(self) -> None:
        link = Link(adaptive(), 0.1, 1e6)
        link.concurrency.is_held_back = True
        link.run(2.0, most=6)
        assert link.concurrency.limit > 8

    @pytest.mark.parametrize("round_trip_s", [0.0, 0.001, 0.01, 0.1, 0.3])
    def test_a_slow_server_gets_little_more_than_with_a_fixed_bound(self, round_trip_s: float) -> None:
        """The server is busy with eight; below that, the bound falls as for every server."""
        links = [Link(concurrency, round_trip_s, 20_000.0) for concurrency in (adaptive(), Concurrency(8))]
        for link in links:
            link.run(20.0)
        ours, fixed = (sum(latencies) / len(latencies) for latencies in (link.run(60.0) for link in links))
        assert ours < 1.3 * fixed

    @pytest.mark.parametrize("round_trip_s", [0.0, 0.001, 0.003])
    @pytest.mark.parametrize("nbytes", [2 * KB, 200 * KB])
    def test_a_nearby_server_gets_no_more_in_flight(self, round_trip_s: float, nbytes: int) -> None:
        link = Link(adaptive(), round_trip_s, 1_000_000.0, nbytes)
        link.run(5.0)
        assert link.concurrency.limit == 8

    def test_the_bound_does_not_grow_without_a_backlog(self) -> None:
        link = Link(adaptive(), 0.1, 1e6)
        link.run(5.0, most=7)
        assert link.concurrency.limit == 8

    def test_bytes_and_batches_stay_within_their_limits(self) -> None:
        for nbytes, batches in ((2 * KB, 128), (1_000 * KB, 17)):
            link = Link(adaptive(), 0.5, 1e6, nbytes)
            link.run(20.0)
            assert most(link.concurrency, nbytes) == batches

    def test_a_small_buffer_takes_nothing_from_the_first(self) -> None:
        assert most(Concurrency(8, most=128, most_bytes=100 * KB), 60 * KB) == 8

    def test_a_fixed_number_is_kept(self) -> None:
        link = Link(Concurrency(8), 0.1, 1e6)
        link.run(5.0)
        assert link.concurrency.limit == 8

    def test_single_delays_change_nothing(self) -> None:
        link = Link(adaptive(), 0.1, 1e6)
        link.run(3.0)
        before = link.concurrency.limit
        for _ in range(50):
            link.run(0.1)
            link.concurrency.acked(link.now_s - 0.25, link.now_s)
        assert link.concurrency.limit >= before > 60

    def test_errors_halve_the_bound_and_it_recovers(self) -> None:
        link = Link(adaptive(), 0.1, 400_000.0)
        link.run(5.0)
        before = link.concurrency.limit
        link.concurrency.failed(link.now_s, link.now_s)
        assert link.concurrency.limit == before // 2
        link.run(3.0)
        assert link.concurrency.limit > 0.8 * before

    def test_a_link_that_became_longer_for_good(self) -> None:
        link = Link(adaptive(), 0.05, 400_000.0)
        link.run(3.0)
        link.round_trip_s = 0.15
        link.run(60.0)
        assert 1000 * len(link.run(3.0)) / 3.0 > 300_000

    def test_a_server_that_became_slower_gets_fewer_again(self) -> None:
        link = Link(adaptive(), 0.1, 400_000.0)
        link.run(5.0)
        link.service_s = 1000 / 50_000.0
        link.run(5.0)
        assert link.concurrency.limit <= 9
