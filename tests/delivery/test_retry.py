"""When a retry policy retries, and how long it waits."""

from __future__ import annotations

import statistics

import pytest

from raccoon_fast import RetryPolicy


def test_delays_grow_up_to_the_maximum() -> None:
    policy = RetryPolicy(initial=1.0, maximum=10.0, multiplier=3.0, jitter=None)
    assert [policy.delay_s(failures) for failures in range(1, 6)] == [1.0, 3.0, 9.0, 10.0, 10.0]


def test_full_jitter_is_anything_up_to_that() -> None:
    policy = RetryPolicy(initial=1.0, maximum=8.0)
    delays = [policy.delay_s(3) for _ in range(2000)]
    assert 0.0 <= min(delays) < 0.1
    assert 3.9 < max(delays) <= 4.0
    assert 1.8 < sum(delays) / len(delays) < 2.2


def test_a_delay_requested_by_a_server_is_obeyed_and_spread() -> None:
    pauses = [RetryPolicy(initial=0.1).pause_s(10.0) for _ in range(2000)]
    assert 10.0 <= min(pauses) < 10.1
    assert 14.9 < max(pauses) <= 15.0
    assert RetryPolicy(jitter=None).pause_s(10.0) == 10.0


@pytest.mark.parametrize("multiplier", [2, 2.0, 1e300])
def test_hours_of_failures_cause_no_overflow(multiplier: float) -> None:
    assert RetryPolicy(maximum=30.0, multiplier=multiplier, jitter=None).delay_s(1_000_000) == 30.0
    assert RetryPolicy(initial=0.0, multiplier=multiplier, jitter=None).delay_s(1_000_000) == 0.0


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_attempts", 0, ValueError),
        ("max_attempts", 1.5, TypeError),
        ("max_attempts", True, TypeError),
        ("initial", -1, ValueError),
        ("initial", "1", TypeError),
        ("initial", float("nan"), ValueError),
        ("maximum", float("inf"), ValueError),
        ("maximum", None, TypeError),
        ("multiplier", 0.5, ValueError),
        ("jitter", "half", ValueError),
        ("jitter", True, ValueError),
        ("total_timeout", 0, ValueError),
        ("total_timeout", "1", TypeError),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=option):
        RetryPolicy(**{option: value})  # type: ignore[arg-type]


class TestProbes:
    """Waits before a server that is down is tried again."""

    def test_without_jitter_waits_grow_by_the_policy_up_to_the_length_of_the_outage(self) -> None:
        policy = RetryPolicy(initial=0.1, multiplier=2.0, maximum=30.0, jitter=None)
        assert [policy.probe_s(failures, 0.0) for failures in (1, 2, 4, 5, 10)] == [0.1, 0.2, 0.8, 1.0, 1.0]
        assert policy.probe_s(10, 12.0) == 12.0
        assert policy.probe_s(10, 1e6) == 30.0
        assert policy.probe_s(10_000, 1e6) == 30.0

    def test_an_initial_wait_is_kept(self) -> None:
        policy = RetryPolicy(initial=5.0, jitter=None)
        assert [policy.probe_s(failures, 5.0) for failures in (1, 2, 3)] == [5.0, 10.0, 10.0]

    def test_jitter(self) -> None:
        policy = RetryPolicy(initial=0.1)
        cases = ((1, 0.0, 0.0, 0.1), (2, 0.1, 0.0, 0.2), (8, 12.0, 6.0, 22.8), (99, 1e6, 15.0, 30.0))
        for failures, down_s, least, most in cases:
            drawn = [policy.probe_s(failures, down_s) for _ in range(2_000)]
            assert least <= min(drawn) < least + 0.05 * (most - least)
            assert most - 0.05 * (most - least) < max(drawn) <= most

    @pytest.mark.parametrize("down_s", [1.0, 3.0, 12.0, 40.0])
    def test_a_server_that_is_back_is_found_within_half_of_its_outage(self, down_s: float) -> None:
        policy = RetryPolicy(initial=0.1)
        found = []
        for _ in range(2_000):
            now_s = failures = 0
            while now_s < down_s:
                failures += 1
                now_s += policy.probe_s(failures, now_s)
            found.append(now_s - down_s)
        assert statistics.median(found) <= max(1.0, down_s / 2)
