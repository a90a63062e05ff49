"""Simulated time, and the settings of every simulated producer: the defaults that the package itself resolves.

All random values come from `random`, as in RetryPolicy, so a seed determines a run.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from raccoon_fast import Producer
from raccoon_fast.delivery.endpoints import Endpoint
from raccoon_fast.delivery.retry import RetryPolicy

#: Seconds from a request's last byte to its answer, if the server needs no time.
ROUND_TRIP_S = 0.005
#: The options of a producer that gets only a URL.
DEFAULTS = Producer("ws://localhost", logger=None)._options
#: The policy of a client, which tries a request a few times and then reports to its caller.
CLIENT_RETRY = RetryPolicy()
CONNECT_TIMEOUT_S = DEFAULTS.settings.link.connect_timeout_s
FAILURE = ConnectionError("the server fails")


class Clock:
    """Runs scheduled calls in the order of their times."""

    def __init__(self, seed: int) -> None:
        random.seed(seed)
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def at(self, when_s: float, call: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._due, (when_s, next(self._order), call, args))

    def run(self, until_s: float = float("inf")) -> None:
        """Run until no call is due before `until_s`."""
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, call, args = heapq.heappop(self._due)
            call(*args)


def endpoint(policy: RetryPolicy) -> Endpoint:
    """A server as a producer sees it, with the default number of connections."""
    settings = DEFAULTS.settings
    return Endpoint(settings.link.address, [None] * DEFAULTS.connections, policy, settings.timeout_s)  # type: ignore[list-item]
