"""Simulates the load of a fleet of producers on its servers, and compares it with a few real producers.

        python benchmarks/fleet.py                    # writes fleet.json, tables and charts into benchmarks/results
        python benchmarks/fleet.py --quick --output D # only the smallest fleets, without real producers

The producers follow the policies of this package. The same seed gives the same figures on every machine.
docs/pages/capacity.md lists the assumptions and conclusions.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

from command_line import Parser
from fleet_batches import requests
from fleet_load import NOT_PUBLISHED, REFUSED, RETRY_AFTER, Caller, Load, Sender, Server, Tally, send
from fleet_reality import compare
from fleet_waves import Listener, Wave, reconnect
from harness import CONTEXT, Effort, Table
from plots import Lines, line_chart
from results import Part, write_parts
from simulation import CLIENT_RETRY, DEFAULTS, Clock

from raccoon_fast.collector import Collector
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.delivery.retry_budget import RetryBudget

FLEETS = (10, 1_000, 100_000)
#: The default of the collector, which is also that of a Raccoon server.
MAX_CONNECTIONS: int = Collector.__init__.__kwdefaults__["max_connections"]
PING_S: float = Collector.__init__.__kwdefaults__["ping_interval"]

# Steady state.

RATES = (1, 10, 100, 1_000, 10_000, 100_000)
LINGERS_S = (DEFAULTS.linger_s, 0.05, 0.5)


def connections(fleets: Sequence[int]) -> Table:
    table = Table(f"Connections, with up to {MAX_CONNECTIONS:,} per server", "", "producers")
    for producers in fleets:
        opened = producers * DEFAULTS.connections
        servers = math.ceil(opened / MAX_CONNECTIONS)
        row = f"{producers:,}"
        table.add(row, "WebSocket connections", [opened])
        table.add(row, "REST connections, maximum", [opened * DEFAULTS.most_in_flight])
        table.add(row, "servers", [servers])
        table.add(row, "servers, with one spare", [servers + 1])
        table.add(row, "pings/s, both directions", [opened / PING_S + opened / (DEFAULTS.ping_interval_s or math.inf)])
    return table


def batching(rates: Sequence[int]) -> Table:
    table = Table("Requests per second of one producer", "", "events/s")
    for rate in rates:
        for linger_s in LINGERS_S:
            column = f"linger {linger_s:g} s" + (", the default" if linger_s == DEFAULTS.linger_s else "")
            table.add(f"{rate:,}", column, [requests(rate, linger_s, min(100_000, 500 + 100 * rate))])
    return table


def batching_chart(table: Table) -> str:
    lines = {
        column: [(float(rate.replace(",", "")), cells[column].median) for rate, cells in table.cells.items()]
        for column in table.columns
    }
    panel = Lines("", "events/s of a producer", "requests/s", lines, log_y=True)
    return line_chart("Requests per second by linger", "requests/s", [panel], in_a_row=1)


# Reconnecting.

POLICIES = {
    "full jitter, the default": DEFAULTS.retry,
    "no jitter": dataclasses.replace(DEFAULTS.retry, jitter=None),
    "every second": RetryPolicy(initial=1.0, multiplier=1.0, jitter=None),
    "full jitter from 5 s": dataclasses.replace(DEFAULTS.retry, initial=5.0),
}
_ACCEPTS_PER_S = 1_000.0  # per server, including TLS
_BACKLOG = 4_096.0
_DRAWS = 25


class Outage(NamedTuple):
    """Connections that break at the same time, and the servers that remain to accept them.

    Attributes:
        draws: The number of simulations with random waits of their own. The peak of one small fleet is mostly chance.
    """

    name: str
    producers: int
    servers: int
    down_s: float
    draws: int = 1

    def waves(self, policy: str) -> list[Wave]:
        return [self._wave(policy, seed) for seed in range(1, self.draws + 1)]

    def _wave(self, policy: str, seed: int) -> Wave:
        listener = Listener(_ACCEPTS_PER_S * self.servers, _BACKLOG * self.servers, self.down_s)
        return reconnect(self.producers, POLICIES[policy], listener, seed)


OUTAGES = (
    Outage("10 producers, server down for 10 s", 10, 1, 10.0, draws=_DRAWS),
    Outage("1,000 producers, server down for 10 s", 1_000, 1, 10.0, draws=_DRAWS),
    Outage("100,000 producers, all 5 servers down for 10 s", 100_000, 5, 10.0),
    Outage("100,000 producers, 1 of 5 servers restarts: 20,000 move to the other 4", 20_000, 4, 0.0),
)


def wave_tables(outages: Sequence[Outage], waves: dict[tuple[Outage, str], list[Wave]]) -> list[Table]:
    """The medians of all draws."""
    tables = []
    for outage in outages:
        table = Table(outage.name, "", "policy")
        for policy in POLICIES:
            drawn = waves[outage, policy]
            table.add(policy, "attempts per producer", [wave.attempts.total() / outage.producers for wave in drawn])
            table.add(policy, "attempts/s, worst 0.1 s", [wave.peak_per_s() for wave in drawn])
            table.add(
                policy, "attempts/s, worst 0.1 s after the outage", [wave.peak_per_s(outage.down_s) for wave in drawn]
            )
            table.add(policy, "s until half are connected", [wave.share_s(0.5) for wave in drawn])
            table.add(policy, "s until 99 % are connected", [wave.share_s(0.99) for wave in drawn])
        tables.append(table)
    return tables


def wave_chart(outages: Sequence[Outage], waves: dict[tuple[Outage, str], list[Wave]]) -> str:
    """The first draw of each."""
    panels = []
    for outage in outages:
        series = {}
        for policy in POLICIES:
            attempts = waves[outage, policy][0].attempts
            width = 10 if outage.down_s else 2
            counts = [sum(attempts[tenth + part] for part in range(width)) for tenth in range(0, 600, width)]
            seconds = [(at * width / 10, count * 10 / width) for at, count in enumerate(counts) if count]
            series[policy] = [point for point in seconds if point[0] <= (40 if outage.down_s else 8)]
        panels.append(
            Lines(
                outage.name.split(":")[0],
                "seconds since the connections broke",
                "attempts/s",
                series,
                log_x=False,
                log_y=True,
                marks=False,
            )
        )
    return line_chart("Reconnecting after an outage", "connection attempts per second", panels, in_a_row=2)


# Overload.

_BEGIN_S, _END_S, _STOP_S = 10, 70, 170
_USUAL = 0.75  # share of the server's capacity in normal operation; twice that during the overload


class Overload(NamedTuple):
    """A fleet that sends one and a half times the server's capacity for one minute."""

    name: str
    producers: int
    requests_per_s: float
    batch_bytes: int = 20_000
    answer: str = REFUSED
    policy: str = "full jitter, the default"
    has_budget: bool = True
    is_client: bool = False

    def run(self) -> OverloadResult:
        clock, tally = Clock(1), Tally()
        capacity = self.producers * self.requests_per_s / _USUAL
        server = Server(capacity, self.answer)
        fleet: list[Sender] | list[Caller]
        if self.is_client:
            fleet = [Caller(clock, server, tally, CLIENT_RETRY) for _ in range(self.producers)]
        else:
            fleet = [
                Sender(clock, server, tally, POLICIES[self.policy], self._budget(), self.batch_bytes)
                for _ in range(self.producers)
            ]
        send(clock, fleet, Load(self.requests_per_s, 2 * self.requests_per_s, _BEGIN_S, _END_S, _STOP_S))
        assert tally.waiting == 0
        assert tally.outcomes.total() == tally.offered
        percent = 100.0 / capacity
        series = {
            line: [(float(second), counts[second] * percent) for second in range(_STOP_S)]
            for line, counts in tally.series.items()
        }
        acked = sum(tally.acked[second] for second in range(_BEGIN_S, _END_S)) / (_END_S - _BEGIN_S)
        figures = {
            "attempts per request in the overload": tally.amplification(_BEGIN_S, _END_S),
            "goodput in the overload, % of capacity": acked * percent,
            "s from its end until 99 % have an outcome": max(0.0, tally.settled_s(_END_S, 0.99) - _END_S),
            **{
                f"{outcome}, %": tally.outcomes[outcome] / tally.offered * 100.0
                for outcome in ("expired", "dropped", "failed")
            },
            "waiting requests per producer, maximum": tally.most_waiting / self.producers,
            "MiB per producer, maximum": tally.most_buffered / (1 << 20),
        }
        return OverloadResult(series, figures)

    def _budget(self) -> RetryBudget:
        return RetryBudget() if self.has_budget else RetryBudget(reserve=math.inf)


class OverloadResult(NamedTuple):
    """The lines of a chart, in per cent of the capacity, and figures by name."""

    series: dict[str, list[tuple[float, float]]]
    figures: dict[str, float]


OVERLOADS = (
    Overload("10 producers of 20/s, 503", 10, 20.0, batch_bytes=200_000),
    Overload("1,000 of 0.5/s, 503", 1_000, 0.5),
    Overload("100,000 of 0.01/s, 503", 100_000, 0.01),
    Overload("100,000 of 0.01/s, 503, jitter from 5 s", 100_000, 0.01, policy="full jitter from 5 s"),
    Overload("1,000 of 0.5/s, 503, Retry-After: 10", 1_000, 0.5, answer=RETRY_AFTER),
    Overload("1,000 clients of 0.5/s, 503", 1_000, 0.5, is_client=True),
    Overload("1,000 of 0.5/s, INTERNAL_ERROR", 1_000, 0.5, answer=NOT_PUBLISHED),
    Overload("100 of 5/s, INTERNAL_ERROR", 100, 5.0, answer=NOT_PUBLISHED),
    Overload("100 of 5/s, INTERNAL_ERROR, no budget", 100, 5.0, answer=NOT_PUBLISHED, has_budget=False),
)


def overload_table(results: dict[Overload, OverloadResult]) -> Table:
    table = Table("One minute at 1.5 times the server's capacity", "", "fleet")
    for overload, result in results.items():
        for column, value in result.figures.items():
            table.add(overload.name, column, [value])
    return table


def overload_chart(results: dict[Overload, OverloadResult]) -> str:
    panels = [
        Lines(overload.name, "seconds", "% of capacity", result.series, log_x=False, marks=False)
        for overload, result in results.items()
    ]
    title = "A server under 1.5 times its capacity, from 10 s to 70 s"
    return line_chart(title, "% of capacity", panels, in_a_row=2)


# Running all parts.


def simulate(*, is_quick: bool) -> dict[str, Part]:
    """Return tables and charts; no figure in them depends on the machine."""
    outages, overloads = (OUTAGES[:1], OVERLOADS[:1]) if is_quick else (OUTAGES, OVERLOADS)
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), CONTEXT) as pool:
        # Starts the longest simulation first.
        running = {one: pool.submit(one.run) for one in sorted(overloads, key=lambda one: -one.producers)}
        breaking = {(outage, policy): pool.submit(outage.waves, policy) for outage in outages for policy in POLICIES}
        batched = batching(RATES[:2] if is_quick else RATES)
        waves = {key: future.result() for key, future in breaking.items()}
        loads = {one: running[one].result() for one in overloads}
    return {
        "connections": Part([connections(FLEETS)]),
        "requests": Part([batched], batching_chart(batched)),
        "waves": Part(wave_tables(outages, waves), wave_chart(outages, waves)),
        "overload": Part([overload_table(loads)], overload_chart(loads)),
    }


def main() -> None:
    chosen = Parser(__doc__, "simulate only the smallest fleets, without real producers").parse()
    parts = simulate(is_quick=chosen.quick)
    if not chosen.quick:
        parts["reality"] = Part([compare(Effort())])
    write_parts(chosen.output, "fleet", (__doc__ or "").split("\n\n")[0], parts)


if __name__ == "__main__":
    main()
