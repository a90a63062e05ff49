"""The steps of the pure-Python accumulator, each of which other threads see as a whole.

With a GIL, a call into C is such a step. Without one, a lock keeps the steps of several threads apart. It is taken and
released in C, so that no signal handler or finalizer ever runs while it is held.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress
from typing import Any

from raccoon_fast.threads import at_once

__all__ = ["LockedSteps", "Steps", "new_steps"]

_ACQUIRE, _RELEASE = threading.Lock().__class__.acquire, threading.Lock().__class__.release


class Steps:
    """The steps where there is a GIL."""

    at_once = staticmethod(at_once)
    total: Callable[[Iterable[int]], int] = sum
    items: Callable[[Iterable[Any]], list[Any]] = list
    append: Callable[[deque[Any], Any], None] = staticmethod(deque.append)

    def step(self, calls: Iterator[object]) -> Iterator[object]:
        """Return an iterator for `threads.at_once`."""
        return calls

    def remove(self, items: deque[Any], item: Any) -> tuple[Iterator[object], ...]:
        """Return calls for `at_once`, which raise ValueError or IndexError if the item is not there."""
        return (map(deque.remove, (items,), (item,)),)


class LockedSteps:
    """The same where there is no GIL."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def at_once(self, *calls: Iterable[object]) -> None:
        """Like `threads.at_once`; and no other thread's step runs meanwhile."""
        lock, held = self._lock, deque[bool]()
        taken = map(_ACQUIRE, (lock,)), map(held.append, (True,))
        try:
            at_once(*taken, *calls, map(_RELEASE, (lock,)), map(deque.clear, (held,)))
        except BaseException:
            # No signal handler runs between the exception and the release.
            if held:
                lock.release()
            raise

    def total(self, numbers: Iterable[int]) -> int:
        """Return the sum."""
        total: int = self._result(sum, numbers)
        return total

    def items(self, items: Iterable[Any]) -> list[Any]:
        """Return the items in a list."""
        result: list[Any] = self._result(list, items)
        return result

    def append(self, to: deque[Any], item: Any) -> None:
        """Append to a deque."""
        at_once(self.step(map(deque.append, (to,), (item,))))

    def step(self, calls: Iterator[object]) -> Iterator[object]:
        """Return an iterator for `threads.at_once`. The calls must not raise."""
        return chain(map(_ACQUIRE, (self._lock,)), calls, map(_RELEASE, (self._lock,)))

    def remove(self, items: deque[Any], item: Any) -> tuple[Iterator[object], ...]:
        """Return calls for `at_once`, which raise IndexError if the item is not there.

        `deque.remove` would put the item into the text of its error, and `repr` runs signal handlers.
        """
        found: deque[Any] = deque()
        return (
            map(deque.extend, (found,), (compress((item,), map(deque.count, (items,), (item,))),)),
            map(deque.remove, (items,), map(deque.popleft, (found,))),
        )

    def _result(self, function: Callable[[Any], Any], argument: Any) -> Any:
        results: deque[Any] = deque()
        self.at_once(map(deque.append, (results,), map(function, (argument,))))
        return results[0]


def new_steps() -> Steps | LockedSteps:
    """Return the steps for this interpreter."""
    has_gil: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return Steps() if has_gil else LockedSteps()
