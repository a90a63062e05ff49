"""Seals the open batch when its first event has waited for `linger`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from raccoon_fast.core.batch import Accumulator

__all__ = ["Linger"]


class Linger:
    """Seals an accumulator's open batch when it has waited long enough. Without a GIL, there may be several.

    Owned by the engine's loop; `opened` may be called from any thread.

    Args:
        accumulator: The accumulator to watch.
        linger_s: How long a batch may wait for more events.
        loop: The engine's loop.
        call: Its call_soon, or call_soon_threadsafe if other threads open batches.
    """

    def __init__(
        self, accumulator: Accumulator, linger_s: float, loop: asyncio.AbstractEventLoop, call: Callable[..., object]
    ) -> None:
        self._accumulator = accumulator
        self._linger_s = linger_s
        self._loop = loop
        self._call = call
        self._looks = 0
        self._asked_after = -1
        self._is_timed = False

    def opened(self) -> None:
        """A batch got its first event."""
        # As in Wake.ask: nothing is lost if a signal handler or a finalizer runs between two steps.
        looks = self._looks
        if self._asked_after != looks:
            try:  # noqa: SIM105 - as in Wake.ask
                self._call(self._set)
            except RuntimeError:
                pass
            self._asked_after = looks

    def _set(self) -> None:
        if not self._is_timed:
            self._is_timed = True
            self._loop.call_later(self._linger_s, self._look)

    def _look(self) -> None:
        self._is_timed = False
        self._looks += 1  # from here on, opening a batch asks again
        now_s = time.monotonic()
        self._accumulator.seal(now_s - self._linger_s)
        left_s = self._accumulator.open_since_s + self._linger_s - now_s
        if left_s < math.inf:
            self._is_timed = True
            self._loop.call_later(max(0.0, left_s), self._look)
