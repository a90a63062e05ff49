"""Overdue requests end once: not before their deadline, and not before the sockets were read."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from patience import patient

from raccoon_fast.delivery.loop_thread import new_event_loop
from raccoon_fast.transports.deadline_timer import DeadlineTimer

# The resolution of uvloop's timers.
EARLY_S = 0.001


class Watched:
    """A timer on the running loop, and what it was called with; `nexts` is what it is answered."""

    def __init__(self, nexts: Iterable[float | None] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.now_s = self.loop.time()
        self.calls_s: list[float] = []
        self._nexts = iter(nexts)
        self.timer = DeadlineTimer(self._expire)

    def _expire(self, now_s: float) -> float | None:
        self.calls_s.append(now_s)
        return next(self._nexts, None)

    async def until_called(self, times: int) -> None:
        async def until() -> None:
            while len(self.calls_s) < times:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(until(), patient(10))


@pytest.fixture(params=[asyncio.new_event_loop, new_event_loop], ids=["asyncio", "usual"])
def run(request: pytest.FixtureRequest) -> Any:
    def run_(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = request.param()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    return run_


def test_the_timer_fires_after_its_deadline(run: Any) -> None:
    async def main() -> None:
        watched = Watched()
        watched.timer.watch(watched.now_s + 0.02)
        await watched.until_called(1)
        assert watched.calls_s[0] >= watched.now_s + 0.02
        await asyncio.sleep(0.05)
        assert len(watched.calls_s) == 1

    run(main)


def test_the_earliest_of_several_deadlines_counts(run: Any) -> None:
    async def main() -> None:
        watched = Watched()
        for deadline_s in (30.0, 0.02, 60.0):
            watched.timer.watch(watched.now_s + deadline_s)
        await watched.until_called(1)
        assert watched.now_s + 0.02 <= watched.calls_s[0] < watched.now_s + 30.0

    run(main)


def test_the_deadline_expire_returns_is_watched_next(run: Any) -> None:
    async def main() -> None:
        now_s = asyncio.get_running_loop().time()
        watched = Watched([now_s + 0.03, now_s + 0.06, None])
        watched.timer.watch(now_s + 0.01)
        await watched.until_called(3)
        due_s = [now_s + 0.01, now_s + 0.03, now_s + 0.06]
        assert all(called_s >= one_s for called_s, one_s in zip(watched.calls_s, due_s, strict=True))

    run(main)


def test_the_timer_can_be_restarted_after_firing_and_after_stopping(run: Any) -> None:
    async def main() -> None:
        watched = Watched()
        watched.timer.watch(watched.now_s)
        await watched.until_called(1)
        watched.timer.watch(watched.now_s)
        watched.timer.stop()
        watched.timer.stop()
        watched.timer.watch(watched.now_s)
        await watched.until_called(2)

    run(main)


def test_a_stopped_timer_does_not_fire(run: Any) -> None:
    async def main() -> None:
        # Before the deadline, and in the grace that follows it.
        for waited_s in (0.0, 0.002):
            watched = Watched()
            watched.timer.watch(watched.now_s + EARLY_S)
            await asyncio.sleep(waited_s)
            watched.timer.stop()
            was_called = len(watched.calls_s)
            await asyncio.sleep(0.03)
            assert len(watched.calls_s) == was_called

    run(main)


def test_sockets_are_read_before_timers_fire_after_a_blocked_loop(run: Any) -> None:
    """An answer that has arrived is not late, although its deadline passed meanwhile."""

    async def main() -> None:
        order: list[str] = []
        loop = asyncio.get_running_loop()
        (first, first_peer), (second, second_peer) = socket.socketpair(), socket.socketpair()
        for one in (first, second):
            one.setblocking(False)

        def hold_up() -> None:
            loop.remove_reader(first)
            second_peer.send(b"answer")
            time.sleep(0.05)

        def read() -> None:
            loop.remove_reader(second)
            order.append("read")

        with first, first_peer, second, second_peer:
            loop.add_reader(first, hold_up)
            loop.add_reader(second, read)
            DeadlineTimer(lambda _: order.append("expired")).watch(loop.time() + 0.02)
            first_peer.send(b"now")
            while len(order) < 2:
                await asyncio.sleep(0.001)
        assert order == ["read", "expired"]

    run(main)
