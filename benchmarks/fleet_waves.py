"""Simulates how a fleet reconnects after its connections broke: when each producer tries and when all are connected.

Each producer waits and probes as its own Endpoint and RetryPolicy decide; the accepting servers are a model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulation import CONNECT_TIMEOUT_S, FAILURE, ROUND_TRIP_S, Clock, endpoint

from raccoon_fast.delivery.endpoints import Endpoint
from raccoon_fast.delivery.retry import RetryPolicy


@dataclass
class Listener:
    """The servers behind one address.

    Attributes:
        accepts_per_s: Connections opened per second, one after the other, including handshakes.
        backlog: The number of connections that may wait; further ones are refused at once.
        up_s: The time when the servers start; they refuse connections before.
    """

    accepts_per_s: float
    backlog: float
    up_s: float = 0.0
    _free_s: float = 0.0

    def connect(self, now_s: float) -> tuple[bool, float]:
        """Connect now. Returns whether the connection succeeds, and when that is known."""
        start_s = max(self._free_s, now_s)
        if now_s < self.up_s or (start_s - now_s) * self.accepts_per_s >= self.backlog:
            return False, now_s + ROUND_TRIP_S
        self._free_s = start_s + 1.0 / self.accepts_per_s  # used even if the client no longer waits for it
        opened_s = self._free_s + ROUND_TRIP_S
        return (True, opened_s) if opened_s - now_s <= CONNECT_TIMEOUT_S else (False, now_s + CONNECT_TIMEOUT_S)


@dataclass
class Wave:
    """The result of a simulated reconnection.

    Attributes:
        attempts: Connection attempts per tenth of a second after the connections were lost.
        connected_s: The times when producers connected, in order.
    """

    attempts: Counter[int] = field(default_factory=Counter)
    connected_s: list[float] = field(default_factory=list)

    def peak_per_s(self, since_s: float = 0.0) -> float:
        """Attempts per second in the worst tenth of a second."""
        return 10.0 * max(count for tenth, count in self.attempts.items() if tenth >= since_s * 10)

    def share_s(self, share: float) -> float:
        """Seconds until that share of the fleet is connected."""
        return self.connected_s[max(0, round(share * len(self.connected_s)) - 1)]


def reconnect(producers: int, policy: RetryPolicy, listener: Listener, seed: int = 1) -> Wave:
    """Break the connections of all producers at once, while each has a request in flight."""
    clock, wave = Clock(seed), Wave()

    def attempt(server: Endpoint) -> None:
        transport = server.begin()
        wave.attempts[int(clock.now_s * 10)] += 1
        is_open, known_s = listener.connect(clock.now_s)
        clock.at(known_s, ended, server, transport, clock.now_s, is_open)

    def ended(server: Endpoint, transport: int, began_s: float, is_open: bool) -> None:
        server.end(transport)
        if is_open:
            wave.connected_s.append(clock.now_s)
        else:
            fail(server, began_s)

    def fail(server: Endpoint, began_s: float) -> None:
        server.failed(FAILURE, began_s, clock.now_s)
        clock.at(server.ready_s(clock.now_s), attempt, server)

    for _ in range(producers):
        fail(endpoint(policy), 0.0)
    clock.run()
    return wave
