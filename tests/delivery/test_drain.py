"""Measures how fast events are acknowledged."""

from __future__ import annotations

import pytest

from raccoon_fast.delivery.drain import Drain


def test_the_rate_is_unknown_within_the_first_second() -> None:
    drain = Drain(0.0)
    drain.acked(1_000)
    drain.tick(0.5)
    assert drain.per_s is None
    drain.tick(2.0)
    assert drain.per_s == 500.0


def test_the_rate_follows_acknowledgements() -> None:
    drain = Drain(0.0)
    for second in range(1, 60):
        drain.acked(1_000 if second < 30 else 100)
        drain.tick(float(second))
        if second == 29:
            assert drain.per_s == pytest.approx(1_000)
    assert drain.per_s == pytest.approx(100, rel=0.01)


def test_a_long_silence_weighs_as_much_as_many_short_ones() -> None:
    drain = Drain(0.0)
    drain.acked(1_000)
    drain.tick(1.0)
    drain.tick(31.0)
    assert drain.per_s == pytest.approx(0.0, abs=0.1)
