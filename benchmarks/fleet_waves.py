"""How a fleet comes back after its connections broke: who tries to connect when, and when all have succeeded.

Each producer waits and probes as its own Endpoint and RetryPolicy say; the servers that accept are modelled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulation import CONNECT_TIMEOUT_S, FAILURE, ROUND_TRIP_S, Clock, endpoint

from raccoon_fast.delivery.endpoints import Endpoint
from raccoon_fast.delivery.retry import RetryPolicy


@dataclass
class Listener:
    """Servers behind one address.

    Attributes:
        accepts_per_s: Connections they open in a second, handshakes included, one after the other.
        backlog: Connections that may wait for it; further ones are refused at once.
        up_s: They refuse every connection before.
    """

    accepts_per_s: float
    backlog: float
    up_s: float = 0.0
    _free_s: float = 0.0

    def connect(self, now_s: float) -> tuple[bool, float]:
        """Whether one who asks now gets a connection, and when that is known."""
        start_s = max(self._free_s, now_s)
        if now_s < self.up_s or (start_s - now_s) * self.accepts_per_s >= self.backlog:
            return False, now_s + ROUND_TRIP_S
        self._free_s = start_s + 1.0 / self.accepts_per_s  # spent, whether or not anybody still waits for it
        opened_s = self._free_s + ROUND_TRIP_S
        return (True, opened_s) if opened_s - now_s <= CONNECT_TIMEOUT_S else (False, now_s + CONNECT_TIMEOUT_S)


@dataclass
class Wave:
    """How a fleet came back.

    Attributes:
        attempts: Connection attempts by tenth of a second since the connections were lost.
        connected_s: When each got its connection, in order.
    """

    attempts: Counter[int] = field(default_factory=Counter)
    connected_s: list[float] = field(default_factory=list)

    def peak_per_s(self, since_s: float = 0.0) -> float:
        """Attempts a second in the worst tenth of one."""
        return 10.0 * max(count for tenth, count in self.attempts.items() if tenth >= since_s * 10)

    def share_s(self, share: float) -> float:
        """Seconds until that share of the fleet is connected."""
        return self.connected_s[max(0, round(share * len(self.connected_s)) - 1)]


def reconnect(producers: int, policy: RetryPolicy, listener: Listener, seed: int = 1) -> Wave:
    """Break the connections of producers that all have something in flight, at once."""
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
