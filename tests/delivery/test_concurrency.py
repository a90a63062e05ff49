"""The number in flight follows what latency and errors say."""

from __future__ import annotations

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


def test_an_error_halves_it_and_one_is_the_least() -> None:
    concurrency = Concurrency(8)
    limits = []
    for now_s in range(5):
        concurrency.failed(now_s, now_s + 0.5)
        limits.append(concurrency.limit)
    assert limits == [4, 2, 1, 1, 1]


def test_what_was_in_flight_together_fails_once() -> None:
    concurrency = Concurrency(8)
    for _ in range(8):
        concurrency.failed(1.0, 2.0)
    assert concurrency.limit == 4


def test_acknowledgements_raise_it_again_by_one_for_each_round() -> None:
    concurrency = Concurrency(8)
    concurrency.failed(0.0, 1.0)
    now_s = ack(concurrency, 0.01, 5, now_s=2.0)
    assert concurrency.limit == 5
    ack(concurrency, 0.01, 100, now_s)
    assert concurrency.limit == 8


def test_latency_that_grows_lowers_it() -> None:
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


def test_no_more_bytes_are_in_flight_than_carry_a_gigabit() -> None:
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
