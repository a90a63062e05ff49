"""Pings of our own, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools

import pytest

from raccoon_fast.transports.base import GRACE_S
from raccoon_fast.transports.pinger import Keepalive, Pinger


class Clock(asyncio.AbstractEventLoop):
    """As much of an event loop as timers need; time passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle) -> None:
        pass

    def call_at(self, when, callback, *args, context=None):
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def pass_to(self, until_s: float) -> None:
        while self._timers and self._timers[0][0] <= until_s:
            when, _, handle = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, when)
            if not handle.cancelled():
                handle._run()
        self.now_s = until_s

    @property
    def armed(self) -> bool:
        return any(not handle.cancelled() for _, _, handle in self._timers)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, message: str, *args: object) -> None:
        self.lines.append(message % args)


class Given:
    def __init__(self, monkeypatch, interval_s: float | None = 10.0, timeout_s: float = 3.0) -> None:
        self.clock = Clock()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.clock)
        self.sent: list[tuple[float, bytes]] = []
        self.missed: list[float] = []
        self.log = Log()
        self.pinger = Pinger(
            Keepalive(interval_s, timeout_s),
            lambda payload: self.sent.append((self.clock.now_s, payload)),
            lambda: self.missed.append(self.clock.now_s),
            self.log,
        )


@pytest.fixture
def given(monkeypatch) -> Given:
    return Given(monkeypatch)


def test_an_interval_after_the_last_answer(given: Given) -> None:
    given.pinger.start()
    given.clock.pass_to(9.9)
    assert given.sent == []
    given.clock.pass_to(11.0)
    given.pinger.pong(given.sent[0][1])
    given.clock.pass_to(20.9)
    assert len(given.sent) == 1
    given.clock.pass_to(21.0)
    assert [when for when, _ in given.sent] == [10.0, 21.0]
    assert given.sent[0][1] != given.sent[1][1]
    assert given.missed == []


def test_a_late_pong_is_told_once_and_no_sooner_than_due(given: Given) -> None:
    given.pinger.start()
    given.clock.pass_to(13.0)
    assert given.missed == []
    given.clock.pass_to(100.0)
    assert given.missed == [13.0 + GRACE_S]
    assert len(given.sent) == 1
    assert not given.clock.armed


def test_a_pong_in_the_last_moment_counts(given: Given) -> None:
    """After the loop was held up, timers run before the sockets are read."""
    given.pinger.start()
    given.clock.pass_to(13.0 + GRACE_S / 2)
    given.pinger.pong(given.sent[0][1])
    given.clock.pass_to(20.0)
    assert given.missed == []


@pytest.mark.parametrize("payload", [b"", b"other"])
def test_a_pong_that_answers_nothing_changes_nothing(given: Given, payload: bytes) -> None:
    given.pinger.start()
    given.pinger.pong(payload)
    given.clock.pass_to(10.0)
    given.pinger.pong(payload)
    given.clock.pass_to(14.0)
    assert given.missed == [13.0 + GRACE_S]


def test_stopped(given: Given) -> None:
    given.pinger.start()
    given.clock.pass_to(10.0)
    given.pinger.stop()
    given.pinger.stop()
    given.pinger.pong(given.sent[0][1])
    given.clock.pass_to(100.0)
    assert (len(given.sent), given.missed) == (1, [])


def test_never(monkeypatch) -> None:
    given = Given(monkeypatch, interval_s=None)
    given.pinger.start()
    given.clock.pass_to(1000.0)
    assert given.sent == []


@pytest.mark.parametrize(("until_s", "warned"), [(39.0, False), (45.0, True)])
def test_a_loop_that_was_held_up_is_told(given: Given, until_s: float, warned: bool) -> None:
    given.pinger.start()
    given.clock.now_s = until_s
    given.clock.pass_to(until_s)
    assert [line[:32] for line in given.log.lines] == ["the event loop was held up for 3"] * warned
    assert len(given.sent) == 1
