"""The client's own pings, on a clock that the test controls."""

from __future__ import annotations

import asyncio
import heapq
import itertools

import pytest

from raccoon_fast.transports.base import GRACE_S
from raccoon_fast.transports.pinger import Keepalive, Pinger, PolitePinger


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


def test_a_late_pong_is_reported_once_and_not_early(given: Given) -> None:
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
def test_a_blocked_loop_is_reported(given: Given, until_s: float, warned: bool) -> None:
    given.pinger.start()
    given.clock.now_s = until_s
    given.clock.pass_to(until_s)
    assert [line[:32] for line in given.log.lines] == ["the event loop was blocked for 3"] * warned
    assert len(given.sent) == 1


class TestPolite:
    """Within what grpc-go's enforcement policy allows."""

    @pytest.fixture
    def polite(self, monkeypatch) -> Given:
        given = Given(monkeypatch)
        given.answered_s, given.is_busy = 0.0, True
        given.pinger = PolitePinger(
            Keepalive(10.0, 3.0),
            lambda payload: given.sent.append((given.clock.now_s, payload)),
            lambda: given.missed.append(given.clock.now_s),
            given.log,
            lambda: given.answered_s,
            lambda: given.is_busy,
        )
        given.pinger.start()
        return given

    def pass_to(self, given: Given, until_s: float) -> list[float]:
        """Answer every ping; returns when they were sent."""
        while given.clock.now_s < until_s:
            given.clock.pass_to(given.clock.now_s + 0.5)
            if given.sent:
                given.pinger.pong(given.sent[-1][1])
        return [when for when, _ in given.sent]

    @pytest.mark.parametrize(("is_busy", "apart_s"), [(True, 300.0), (False, 7200.0)])
    def test_a_server_that_says_nothing_is_asked_seldom(self, polite: Given, is_busy: bool, apart_s: float) -> None:
        polite.is_busy = is_busy
        sent = self.pass_to(polite, 10.0 + 2 * apart_s + 100.0)
        assert sent[0] == 10.0
        assert [after - before for before, after in itertools.pairwise(sent)] == pytest.approx([apart_s] * 2, abs=10.0)
        assert min(after - before for before, after in itertools.pairwise(sent)) >= apart_s

    def test_once_after_each_answer(self, polite: Given) -> None:
        sent = []
        for _ in range(5):
            polite.answered_s = polite.clock.now_s
            sent = self.pass_to(polite, polite.clock.now_s + 50.0)
        assert sent == [10.0, 60.0, 110.0, 160.0, 210.0]

    def test_an_answer_in_the_millisecond_of_the_ping(self, polite: Given) -> None:
        """The clock of uvloop shows the same time for both."""
        assert self.pass_to(polite, 10.0) == [10.0]
        polite.answered_s = 10.0
        assert self.pass_to(polite, 60.0) == [10.0, 20.0]

    def test_no_ping_while_answers_come(self, polite: Given) -> None:
        for _ in range(20):
            polite.answered_s = polite.clock.now_s
            assert self.pass_to(polite, polite.clock.now_s + 9.0) == []

    def test_a_late_pong(self, polite: Given) -> None:
        polite.clock.pass_to(100.0)
        assert polite.missed == [13.0 + GRACE_S]
