"""Measures what a call of `emit` costs the calling thread while a background thread sends, beside other producers.

A Producer sends over WebSocket to a collector in another process. confluent-kafka's `produce` sends to its built-in
mock cluster; segment-analytics' `track(send=False)` sends nothing. An event is 200 B of bytes, or a flight as a dict or
as a protobuf message. orjson encodes the dicts, here and for Kafka; Segment takes dicts. A round emits as many events
as fit into the queue, and is timed with the CPU clocks of its threads. Then, without timing, the events are flushed,
and the benchmark checks that all were acknowledged and received.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from harness import PURE, Clocks, Effort, LeftOut, Table, Timing, fresh, in_turns, optional, time_cases
from payloads import TYPE, events_of, flight_dicts, flight_messages
from servers import Sink, sink

FORMS = ("bytes", "dict", "protobuf")
BASE = "raccoon_fast, emit"
MANY = "raccoon_fast, emit_many"
KAFKA = "confluent-kafka, produce"
SEGMENT = "segment-analytics, track(send=False)"
# The application's loop over this many events is timed; a round has several loops.
_LOOP = 1000
_EVENTS = {BASE: 100_000, MANY: 100_000, KAFKA: 100_000, SEGMENT: 2_000}
_PURE_EVENTS = 20_000

Hand = Callable[[list[tuple[str, Any]]], object]


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    kafka = left_out.find("confluent-kafka", "confluent_kafka")
    segment = left_out.find("segment-analytics-python", "segment.analytics")
    tables = []
    with sink() as server:
        for threads in effort.some((1, 4)):
            clocks = Clocks(f"Calls of emit, {threads} thread{'s' * (threads > 1)}", "call", BASE)
            for form in effort.some(FORMS):
                cases = [(BASE, False), (MANY, False)]
                if threads == 1:
                    cases += [(BASE, True), (MANY, True)]
                cases += [(KAFKA, False)] * kafka + [(SEGMENT, False)] * (segment and form == "dict")
                measures = {
                    name.replace("raccoon_fast", "raccoon_fast, pure Python") if is_pure else name: functools.partial(
                        _measure, server, name, is_pure, form, threads, effort
                    )
                    for name, is_pure in cases
                }
                for name, timings in in_turns(effort, measures).items():
                    clocks.add(name, form, timings)
            tables += [clocks.cpu, clocks.wall]
    return [*tables, *serializers(effort, left_out)]


def serializers(effort: Effort, left_out: LeftOut) -> list[Table]:
    """Compare the JSON encoders that `JSON` could use."""
    left_out.find("msgspec", "msgspec")
    clocks = Clocks("Encoding a flight's dict as JSON", "encoder", "orjson")
    for name, timings in time_cases(serializer_cases, (), _LOOP, effort).items():
        clocks.add(name, "flights", timings)
    return [clocks.cpu, clocks.wall]


def serializer_cases() -> dict[str, Callable[[], object]]:
    import json

    flights = flight_dicts(_LOOP)
    encoders = {"orjson": orjson.dumps, "json": lambda flight: json.dumps(flight, separators=(",", ":")).encode()}
    msgspec = optional("msgspec.json")
    if msgspec is not None:
        encoders["msgspec"] = msgspec.Encoder().encode
    for encode in encoders.values():
        assert [json.loads(encode(flight)) for flight in flights] == flights

    def case(encode: Callable[[Any], bytes]) -> None:
        for flight in flights:
            encode(flight)

    return {name: functools.partial(case, encode) for name, encode in encoders.items()}


def _measure(server: Sink, name: str, is_pure: bool, form: str, threads: int, effort: Effort) -> list[Timing]:
    full = _PURE_EVENTS if is_pure else _EVENTS[name]
    events = max(1, effort.count(full) // _LOOP // threads) * _LOOP * threads
    env = PURE if is_pure else {}
    timings = fresh(_time_rounds, name, form, threads, events, server.websocket_url, effort, env=env)
    if name.startswith("raccoon_fast"):
        server.expect(events * (1 + effort.rounds))
    return timings


def _time_rounds(name: str, form: str, threads: int, events: int, url: str, effort: Effort) -> list[Timing]:
    if form == "bytes":
        loop = events_of("200 B", _LOOP)
    else:
        loop = [(TYPE, flight) for flight in (flight_dicts if form == "dict" else flight_messages)(_LOOP)]
    with _producer(name, form, events, url) as (hand, settle):
        timings = []
        for _ in range(1 + effort.rounds):
            timings.append(_time_round(hand, loop, threads, events))
            settle()
    return timings[1:]


def _time_round(hand: Hand, loop: list[tuple[str, Any]], threads: int, events: int) -> Timing:
    turns = events // threads // len(loop)
    assert turns * threads * len(loop) == events
    cpu_ns: list[int] = []
    barrier = threading.Barrier(threads)

    def work() -> None:
        barrier.wait()
        start_ns = time.thread_time_ns()
        for _ in range(turns):
            hand(loop)
        cpu_ns.append(time.thread_time_ns() - start_ns)

    workers = [threading.Thread(target=work) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    start_ns = time.perf_counter_ns()
    work()
    for worker in workers:
        worker.join()
    wall_ns = time.perf_counter_ns() - start_ns
    assert len(cpu_ns) == threads
    return Timing(sum(cpu_ns) / events, wall_ns / events)


@contextmanager
def _producer(name: str, form: str, events: int, url: str) -> Iterator[tuple[Hand, Callable[[], None]]]:
    """Yield a function that emits a list of events, and one that asserts that all events of the round were accepted."""
    if name == KAFKA:
        yield from _kafka(form, events)
    elif name == SEGMENT:
        yield from _segment()
    else:
        yield from _ours(name, form, events, url)


def _ours(name: str, form: str, events: int, url: str) -> Iterator[tuple[Hand, Callable[[], None]]]:
    from raccoon_fast import JSON, PROTO, RAW, Producer

    serializer = {"bytes": RAW, "dict": JSON, "protobuf": PROTO}[form]
    with Producer(url, serializer=serializer, logger=None) as producer:
        emit = producer.emit
        rounds = 0

        def one_by_one(loop: list[tuple[str, Any]]) -> None:
            for type_, data in loop:
                emit(type_, data)

        def settle() -> None:
            nonlocal rounds
            rounds += 1
            assert producer.flush(60) == 0
            assert producer.stats().total.acked == rounds * events

        yield (producer.emit_many if name.endswith("emit_many") else one_by_one), settle


def _kafka(form: str, events: int) -> Iterator[tuple[Hand, Callable[[], None]]]:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": "none",
            "test.mock.num.brokers": 1,
            "log_level": 0,
            "linger.ms": 5,
            # The queue holds a whole round, so `produce` never waits.
            "queue.buffering.max.messages": 2 * events,
            "queue.buffering.max.kbytes": 1 << 20,
        }
    )
    produce = producer.produce

    def send_bytes(loop: list[tuple[str, Any]]) -> None:
        for topic, data in loop:
            produce(topic, data)

    def send_dicts(loop: list[tuple[str, Any]]) -> None:
        for topic, data in loop:
            produce(topic, orjson.dumps(data))

    def send_messages(loop: list[tuple[str, Any]]) -> None:
        for topic, data in loop:
            produce(topic, data.SerializeToString())

    def settle() -> None:
        assert producer.flush(60) == 0

    yield {"bytes": send_bytes, "dict": send_dicts, "protobuf": send_messages}[form], settle


def _segment() -> Iterator[tuple[Hand, Callable[[], None]]]:
    from segment.analytics.client import Client

    client = Client("key", send=False)

    def track(loop: list[tuple[str, Any]]) -> None:
        for event, properties in loop:
            taken, _ = client.track("user", event, properties)
            assert taken

    yield track, lambda: None
