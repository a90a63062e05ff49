"""Compares fifty real producers and an embedded collector with fifty simulated producers in the same failures.

Each failure runs in a separate process, with the producers on one event loop and the collector in its thread. The
compared values are counts and waits of seconds, which a busy machine changes little.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from fleet_load import NOT_PUBLISHED, REFUSED, FaultyServer, Load, Sender, Tally, send
from fleet_waves import Listener, reconnect
from harness import Effort, Table, fresh
from simulation import DEFAULTS, Clock

from raccoon_fast import RAW, AsyncProducer
from raccoon_fast.collector import Collector
from raccoon_fast.delivery.retry_budget import RetryBudget
from raccoon_fast.stats import TOTAL_CONN_ERR

PRODUCERS = 50
DOWN_S = 5.0
_REQUESTS_PER_S = 4.0
_SEEDS = 100


class Seen(NamedTuple):
    """Failed attempts per producer or request, and when half and all of them succeeded."""

    failed: float
    half_s: float
    all_s: float


def compare(effort: Effort) -> Table:
    """A table of real values, simulated values, and the range of 90 % of the simulations."""
    table = Table(f"{PRODUCERS} real and {PRODUCERS} simulated producers, failures of {DOWN_S:g} s", "", "failure")
    for trouble, (one, real, simulated) in TROUBLES.items():
        seen = [fresh(real) for _ in range(effort.processes)]
        expected = [simulated(seed) for seed in range(_SEEDS)]
        measures = (f"failed attempts per {one}", "s until half succeeded", "s until all succeeded")
        for place, measure in enumerate(measures):
            row, ordered = f"{trouble}: {measure}", sorted(values[place] for values in expected)
            table.add(row, "real", [values[place] for values in seen])
            table.add(row, "simulated", ordered)
            table.add(row, "simulated, 5th percentile", [ordered[_SEEDS // 20]])
            table.add(row, "simulated, 95th percentile", [ordered[-_SEEDS // 20 - 1]])
    return table


# The server is down.


class _Errors:
    """Counts connection errors in a producer's statistics: failed and broken connections."""

    def __init__(self) -> None:
        self.count_of: dict[str, int] = {}

    def count(self, name: str, n: int) -> None:
        self.count_of[name] = self.count_of.get(name, 0) + n

    def timing(self, name: str, ms: float) -> None:
        pass


def restart() -> Seen:
    """Measure real producers: the connections are reset, and the port is closed for a while."""
    return asyncio.run(_restart())


async def _restart() -> Seen:
    errors = _Errors()
    with Collector(sink="null") as collector:
        collector.faults.delay(0.3)  # so that each producer has a batch in flight, as in the simulation
        producers = [
            AsyncProducer(collector.ws_url, serializer=RAW, logger=None, stats=errors) for _ in range(PRODUCERS)
        ]
        emitting = [asyncio.ensure_future(_emit_steadily(producer)) for producer in producers]
        await asyncio.to_thread(collector.wait_until, lambda one: one.connections == PRODUCERS)
        await asyncio.sleep(1.0)  # until every producer has a batch in flight
        collector.faults.refuse()
        collector.faults.close_connections()
        began_s = time.monotonic()
        await asyncio.sleep(DOWN_S)
        collector.faults.accept()
        await asyncio.to_thread(collector.wait_until, lambda one: one.connections >= PRODUCERS / 2, 60)
        half_s = time.monotonic() - began_s
        await asyncio.to_thread(collector.wait_until, lambda one: one.connections == PRODUCERS, 60)
        all_s = time.monotonic() - began_s
        # The first errors are the connections that were reset.
        failed = errors.count_of[TOTAL_CONN_ERR] - PRODUCERS
        for task in emitting:
            task.cancel()
        await asyncio.gather(*(producer.close(0) for producer in producers))
    return Seen(failed / PRODUCERS, half_s, all_s)


async def _emit_steadily(producer: AsyncProducer) -> None:
    while True:
        await producer.emit("event", b"data")
        await asyncio.sleep(0.1)


def simulated_restart(seed: int) -> Seen:
    """Simulate it."""
    wave = reconnect(PRODUCERS, DEFAULTS.retry, Listener(1e6, 1e6, DOWN_S), seed)
    return Seen(wave.attempts.total() / PRODUCERS - 1.0, wave.share_s(0.5), wave.share_s(1.0))


# The server refuses requests.


def refused() -> Seen:
    """Measure real producers: every request is answered with 503 for a while."""
    return asyncio.run(_trouble("status", 503))


def not_published() -> Seen:
    """Measure real producers: the server cannot publish any request for a while, and says so."""
    return asyncio.run(_trouble("fail_publish", 1.0))


async def _trouble(fault: str, how: float) -> Seen:
    with Collector(sink="null", acks="sync") as collector:
        producers = [AsyncProducer(collector.url, serializer=RAW, logger=None) for _ in range(PRODUCERS)]
        for producer in producers:
            assert (await (await producer.emit("event", b"first"))).status
        getattr(collector.faults, fault)(how)
        began_s = time.monotonic()
        emitting = [asyncio.ensure_future(_emit_for(producer, DOWN_S)) for producer in producers]
        await asyncio.sleep(DOWN_S)
        collector.faults.clear()
        settled = [one for settled in await asyncio.gather(*emitting) for one in settled]
        ended_s = sorted(ended_s - began_s for ended_s in await asyncio.gather(*settled))
        failed = collector.faults.fired[fault]
        await asyncio.gather(*(producer.close() for producer in producers))
    return Seen(failed / len(ended_s), _share(ended_s, 0.5), _share(ended_s, 1.0))


async def _emit_for(producer: AsyncProducer, seconds: float) -> Sequence[asyncio.Future[float]]:
    """Emit at random times; returns when each event was settled."""
    settled = []
    until_s = time.monotonic() + seconds
    while True:
        await asyncio.sleep(random.expovariate(_REQUESTS_PER_S))
        if time.monotonic() >= until_s:
            return settled
        settled.append(asyncio.ensure_future(_settled_s(await producer.emit("event", b"data"))))


async def _settled_s(receipt: Any) -> float:
    await receipt
    return time.monotonic()


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, round(share * len(ordered)) - 1)]


def simulated_trouble(answer: str, seed: int) -> Seen:
    """Simulate it."""
    clock, tally = Clock(seed), Tally()
    server = FaultyServer(1.0, DOWN_S, answer)
    fleet = [Sender(clock, server, tally, DEFAULTS.retry, RetryBudget(), 100) for _ in range(PRODUCERS)]
    send(clock, fleet, Load(_REQUESTS_PER_S, _REQUESTS_PER_S, 0.0, 0.0, DOWN_S))
    failed = tally.attempts.total() - tally.outcomes["acked"]
    return Seen(failed / tally.offered, tally.settled_s(DOWN_S, 0.5), tally.settled_s(DOWN_S, 1.0))


def _simulated_refused(seed: int) -> Seen:
    return simulated_trouble(REFUSED, seed)


def _simulated_not_published(seed: int) -> Seen:
    return simulated_trouble(NOT_PUBLISHED, seed)


TROUBLES = {
    "connections reset, port closed": ("producer", restart, simulated_restart),
    "every answer 503": ("request", refused, _simulated_refused),
    "every answer INTERNAL_ERROR": ("request", not_published, _simulated_not_published),
}
