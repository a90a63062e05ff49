"""The results that the benchmarks should show on a machine with two cores. Computes from a run whether they are met."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from results import Results, grid, number
from transports import FLOOR, GO, OURS, SUBMIT

_PROTOBUF = "Protobuf envelope, batches of 1,000"
_JSON = "JSON envelope, batches of 1,000"
_EMIT = "Calls of emit, 1 thread"
_ACKS = "Decoding an answer and resolving its future"
_CPU = "CPU"


class Aim(NamedTuple):
    """A bound for a figure."""

    what: str
    measured: Callable[[Results], float]
    bound: str
    limit: float
    unit: str

    def is_met(self, value: float) -> bool:
        """Whether the value keeps the bound when rounded to three digits."""
        value = float(f"{value:.3g}")
        return value <= self.limit if self.bound == "at most" else value >= self.limit


def _ratio(group: str, title: str, column: str, over: str, under: str) -> Callable[[Results], float]:
    def measured(results: Results) -> float:
        value = results.groups[group].value
        return value(title, over, column, _CPU) / value(title, under, column, _CPU)

    return measured


def _value(group: str, title: str, row: str, column: str) -> Callable[[Results], float]:
    return lambda results: results.groups[group].value(title, row, column)


def _end_to_end(transport: str, column: str, over: str, under: str) -> Callable[[Results], float]:
    return _ratio("transports", f"{transport}, until the acknowledgement", column, over, under)


_OURS, _GOOGLE = "raccoon_fast, add_many", "google.protobuf, add"
_1000, _100, _10, _1 = "200 B x 1,000", "200 B x 100", "200 B x 10", "200 B x 1"
AIMS = (
    Aim(
        "Envelope by `add_many`, 200 B: times faster than google.protobuf",
        _ratio("envelope", _PROTOBUF, "200 B", _GOOGLE, _OURS), "at least", 25, "x",
    ),
    Aim(
        "Envelope by `add_many`, 1 kB: CPU compared with a memcpy",
        _ratio("envelope", _PROTOBUF, "1 kB", _OURS, "memcpy"), "at most", 3, "x",
    ),
    Aim(
        "Envelope by `add`, 200 B: times faster than google.protobuf",
        _ratio("envelope", _PROTOBUF, "200 B", _GOOGLE, "raccoon_fast, add"), "at least", 10, "x",
    ),
    Aim(
        "JSON envelope, 200 B: times faster than json + base64",
        _ratio("envelope", _JSON, "200 B", "json + base64", _OURS), "at least", 8, "x",
    ),
    Aim(
        "Envelope in pure Python, 200 B: CPU compared with google.protobuf",
        _ratio("envelope", _PROTOBUF, "200 B", "raccoon_fast, pure Python, add", _GOOGLE), "at most", 1, "x",
    ),
    Aim(
        "Decoding an answer and resolving its future",
        _value("acks", _ACKS, "raccoon_fast", "protobuf"), "at most", 1000, "ns",
    ),
    Aim("`emit` of bytes", _value("emit", _EMIT, "raccoon_fast, emit", "bytes"), "at most", 120, "ns"),
    Aim("`emit_many` of bytes", _value("emit", _EMIT, "raccoon_fast, emit_many", "bytes"), "at most", 40, "ns"),
    Aim(
        "`emit` of bytes: times faster than confluent-kafka's `produce`",
        _ratio("emit", _EMIT, "bytes", "confluent-kafka, produce", "raccoon_fast, emit"), "at least", 8, "x",
    ),
    Aim(
        f"WebSocket, {_1000}: CPU compared with the floor",
        _end_to_end("WebSocket", _1000, OURS, FLOOR), "at most", 2.6, "x",
    ),
    Aim(
        f"WebSocket, {_1000}: times less CPU than websockets",
        _end_to_end("WebSocket", _1000, "websockets", OURS), "at least", 2.5, "x",
    ),
    Aim(f"REST, {_1000}: CPU compared with the floor", _end_to_end("REST", _1000, OURS, FLOOR), "at most", 2.8, "x"),
    Aim(f"REST, {_1000}: times less CPU than httpx", _end_to_end("REST", _1000, "httpx", OURS), "at least", 8, "x"),
    Aim(f"REST, {_100}: times less CPU than httpx", _end_to_end("REST", _100, "httpx", OURS), "at least", 18, "x"),
    Aim(f"gRPC, {_1000}: CPU compared with the floor", _end_to_end("gRPC", _1000, OURS, FLOOR), "at most", 6.5, "x"),
    Aim(
        f"gRPC, {_1000}: CPU compared with bare grpc.aio and ready bytes",
        _end_to_end("gRPC", _1000, OURS, "grpc.aio, ready bytes"), "at most", 1, "x",
    ),
    *(
        Aim(
            f"{transport}, {column}: {ours}, times less CPU than Go",
            _end_to_end(transport, column, GO, ours), "at least", least, "x",
        )
        for transport in ("WebSocket", "REST", "gRPC")
        for column, ours, least in ((_10, OURS, 1.2), (_1, OURS, 1.0), (_10, SUBMIT, 1.0))
    ),
    *(
        Aim(
            f"{transport}, 100,000 events/s: p99 from emit to acknowledgement",
            _value("latency", f"{transport}, from emit to acknowledgement", "100,000", "p99"), "at most", 25, "ms",
        )
        for transport in ("WebSocket", "REST", "gRPC")
    ),
    *(
        Aim(
            f"{transport}, server 100 ms away: events/s",
            _value("distance", f"{transport}, by round trip", "100", "1 connection"), "at least", 400_000, "/s",
        )
        for transport in ("WebSocket", "REST", "gRPC")
    ),
    *(
        Aim(
            f"{transport}: growth of the process over ten million events",
            _value("memory", "Growth over ten million events, after the first million", transport, "MiB"),
            "at most", 8, "MiB",
        )
        for transport in ("WebSocket", "REST", "gRPC")
    ),
)  # fmt: skip


def report(results: Results) -> str:
    """A Markdown table of the aims for which this run has figures."""
    rows = [("figure", "target", "measured", "")]
    for aim in AIMS:
        try:
            value = aim.measured(results)
        except KeyError:
            continue
        verdict = "met" if aim.is_met(value) else "**missed**"
        rows.append((aim.what, f"{aim.bound} {aim.limit:g} {aim.unit}", f"{number(value)} {aim.unit}", verdict))
    return grid(rows)
