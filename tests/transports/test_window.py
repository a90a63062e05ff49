"""After a failed publish one request is sent at a time, then gradually more."""

from __future__ import annotations

from raccoon_fast.transports.window import Window


def test_the_window_opens_by_one_per_acknowledgement() -> None:
    window = Window(3)
    window.succeeded()
    assert window.limit == 3
    window.failed()
    limits = []
    for _ in range(200):
        window.succeeded()
        limits.append(window.limit)
    assert limits == [1] * 63 + [2] * 64 + [3] * 73


def test_a_failure_restarts_the_count() -> None:
    window = Window(2)
    window.failed()
    for _ in range(63):
        window.succeeded()
    window.failed()
    for _ in range(63):
        window.succeeded()
    assert window.limit == 1
    window.succeeded()
    assert window.limit == 2


def test_the_smallest_window() -> None:
    window = Window(1)
    window.failed()
    for _ in range(100):
        window.succeeded()
    assert window.limit == 1


def test_the_window_says_when_it_needs_acknowledgements() -> None:
    window = Window(2)
    assert not window.is_narrow
    window.failed()
    assert window.is_narrow
    for _ in range(64):
        window.succeeded()
    assert not window.is_narrow
    window = Window(1)
    window.failed()
    assert not window.is_narrow
