"""Sends rows of a table, until the acknowledgement: 19 columns of real flights that an application holds in Arrow.

A Producer sends over WebSocket to a collector in another process. The other ways first turn each row into a dict with
`to_pylist`, and then into JSON with orjson. httpx posts batches of 1,000 over REST, eight at a time; confluent-kafka
sends to its built-in mock cluster. "A raw column" is a column with finished JSON; `emit_many` gets the same JSON. The
figures are CPU of the client process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from harness import Clocks, Effort, LeftOut, Stopwatch, Timing, fresh, in_turns
from servers import Sink, sink

BASE = "raccoon_fast, emit_table"
PYLIST = "to_pylist, raccoon_fast, emit_many"
HTTPX = "to_pylist, orjson, httpx"
KAFKA = "to_pylist, orjson, confluent-kafka"
READY = "raccoon_fast, emit_many of bytes"
FORMS = {"JSON": (BASE, PYLIST, HTTPX, KAFKA), "protobuf": (BASE,), "a raw column": (BASE, READY)}
COLUMN = "19 columns"
_BATCH = 1000
_ROWS = 100_000
_ROUNDS = 5


def run(effort: Effort, left_out: LeftOut) -> list[Any]:
    if not left_out.find("pyarrow", "pyarrow"):
        return []
    kafka = left_out.find("confluent-kafka", "confluent_kafka")
    tables = []
    with sink() as server:
        for form, names in FORMS.items():
            clocks = Clocks(f"Rows of a table, {form}", "way", BASE)
            measures = {
                name: functools.partial(_measure, server, form, name, effort)
                for name in names
                if kafka or name != KAFKA
            }
            for name, timings in in_turns(effort, measures).items():
                clocks.add(name, COLUMN, timings)
            tables += [clocks.cpu, clocks.wall]
    return tables


def _measure(server: Sink, form: str, name: str, effort: Effort) -> list[Timing]:
    rows = effort.count(_ROWS)
    timings: list[Timing] = fresh(_rounds, form, name, server.url("REST"), server.url("WebSocket"), rows)
    if name != KAFKA:
        server.expect(rows * (_ROUNDS + 1))
    return timings


def _rounds(form: str, name: str, rest_url: str, websocket_url: str, rows: int) -> list[Timing]:
    send, close = _sender(form, name, rest_url, websocket_url, rows)
    send()
    timings = []
    for _ in range(_ROUNDS):
        stopwatch = Stopwatch()
        send()
        timings.append(stopwatch.per(rows))
    close()
    return timings


def _flights(rows: int) -> list[bytes]:
    from raccoon_fast.cli.flights import read_flights

    lines = read_flights()
    return (lines * (rows // len(lines) + 1))[:rows]


def _sender(
    form: str, name: str, rest_url: str, websocket_url: str, rows: int
) -> tuple[Callable[[], None], Callable[[], object]]:
    import orjson
    import pyarrow as pa

    lines = _flights(rows)
    table = pa.Table.from_pylist([orjson.loads(line) for line in lines])
    if name == HTTPX:
        return _httpx(table, rest_url)
    if name == KAFKA:
        return _kafka(table)
    from raccoon_fast import JSON, RAW, Producer

    producer: Any = Producer(websocket_url, serializer=JSON if name == PYLIST else RAW, logger=None)
    if name == PYLIST:

        def emit() -> None:
            producer.emit_many([("flight", row) for row in table.to_pylist()])
    elif name == READY:
        events = [("flight", line) for line in lines]

        def emit() -> None:
            producer.emit_many(events)
    else:
        options: dict[str, Any] = {}
        if form == "protobuf":
            from raccoon_fast.cli.flights import _flight_class

            options["message"] = _flight_class()
            times = table["time_hour"].cast(pa.timestamp("s", "UTC"))
            table = table.set_column(table.schema.get_field_index("time_hour"), "time_hour", times)
        elif form == "a raw column":
            options["serializer"] = "raw"
            table = pa.table({"payload": pa.array(lines, pa.binary())})

        def emit() -> None:
            producer.emit_table(table, event_type="flight", **options)

    def send() -> None:
        emit()
        assert producer.flush(60) == 0

    def close() -> None:
        total = producer.close().total
        assert total.acked == total.accepted

    return send, close


def _httpx(table: Any, url: str) -> tuple[Callable[[], None], Callable[[], object]]:
    import asyncio

    import httpx
    import orjson
    from clients import HEADERS, PATH, _check, _message

    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient()

    async def send_all() -> None:
        events = [("flight", orjson.dumps(row)) for row in table.to_pylist()]
        room = asyncio.Semaphore(8)

        async def one(batch: list[tuple[str, bytes]]) -> None:
            async with room:
                req_guid, body = _message(batch)
                answer = await client.post(url + PATH, content=body, headers=HEADERS)
                answer.raise_for_status()
                _check(req_guid, answer.content)

        await asyncio.gather(*(one(events[start : start + _BATCH]) for start in range(0, len(events), _BATCH)))

    return lambda: loop.run_until_complete(send_all()), lambda: loop.run_until_complete(client.aclose())


def _kafka(table: Any) -> tuple[Callable[[], None], Callable[[], object]]:
    import orjson
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": "none",
            "test.mock.num.brokers": 1,
            "log_level": 0,
            "linger.ms": 5,
            "queue.buffering.max.messages": 10_000_000,
        }
    )

    def send() -> None:
        for row in table.to_pylist():
            producer.produce("flight", orjson.dumps(row))
        assert producer.flush(60) == 0

    return send, lambda: None
