"""Lets an event loop run something soon, and only once even if it is asked several times."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Wake"]


class Wake:
    """One action that a loop runs on request. `ask` may be called from any thread.

    There is no flag that is set before or after calling the loop: a signal handler that runs in between and
    waits for the action would wait for the code that it interrupts. Instead the requested run is recorded.

    Args:
        call: The loop's call_soon, or call_soon_threadsafe if other threads ask.
        target: The action.
    """

    __slots__ = ("_asked_after", "_call", "_runs", "_target")

    def __init__(self, call: Callable[..., object], target: Callable[[], object]) -> None:
        self._call = call
        self._target = target
        self._runs = 0
        self._asked_after = -1

    def ask(self) -> None:
        """Request the action after this call."""
        runs = self._runs
        if self._asked_after != runs:
            try:  # noqa: SIM105 - run for each batch: contextlib's way costs three calls
                self._call(self._run)
            except RuntimeError:
                pass  # the loop is closed: a signal handler closed the producer
            self._asked_after = runs

    def ask_on_loop(self, call_soon: Callable[..., object]) -> None:
        """Like `ask`, but on the loop itself, and cheaper."""
        runs = self._runs
        if self._asked_after != runs:
            call_soon(self._run)
            self._asked_after = runs

    def _run(self) -> None:
        self._runs += 1
        self._target()
