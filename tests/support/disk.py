"""Parts for a Spooling under test: a thread that runs calls inline, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InlineThread:
    """Replaces the CallbackThread: runs calls at once, or when `run` is called."""

    def __init__(self) -> None:
        self.is_held = False
        self._waiting: list[tuple[Callable[..., object], Any]] = []

    def submit(self, callback: Callable[..., object], argument: Any) -> None:
        if self.is_held:
            self._waiting.append((callback, argument))
        else:
            callback(argument)

    def run(self) -> None:
        self.is_held = False
        waiting, self._waiting = self._waiting, []
        for callback, argument in waiting:
            callback(argument)


class Timer:
    """Replaces asyncio.TimerHandle."""

    def __init__(self, due_s: float, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """A monotonic clock with its own `call_later`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._timers: list[Timer] = []

    def __call__(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        self._timers.append(Timer(self.now_s + delay_s, callback))
        return self._timers[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the calls that are due by then."""
        self.now_s += seconds
        due = [timer for timer in self._timers if timer.due_s <= self.now_s]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            if not timer.is_cancelled:
                timer.callback()
