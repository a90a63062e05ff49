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
