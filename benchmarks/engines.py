"""Measures the cost of sending an engine's rows, with this package's sink and with typical code.

        make bench-engines                                # in a separate venv, into benchmarks/results
        python benchmarks/engines.py --quick --output D   # a short run; its figures are not usable

The rows are in the memory of 1, 2 or 4 executors. Each row becomes a JSON event of about 150 B; a request has 1,000
events. The typical code is `foreachPartition` with one httpx.Client per partition: it fills a protobuf message with
`add`, or builds JSON with base64, posts each batch, and checks the answer. All ways take turns, and a collector in a
separate process must receive every event. CPU is user and system time of the executors' Python processes, including
those that have ended. The CPU of the JVMs, which plan, store and pass on the rows, is listed separately.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from command_line import Parser
from harness import QUICK, Effort, Table
from plots import OURS, OURS_TOO, PEER, Bars, bar_chart
from processes import cpu_s
from results import Part, write_parts
from servers import Sink, sink

EXECUTORS = (1, 2, 4)
EVENTS = 1_600_000
BATCH = 1000
_PARTITIONS = 8


class Way(NamedTuple):
    """A way to turn rows into events and send them.

    Attributes:
        transport: The transport of the collector, by its name in `servers`.
        write: Sends an engine's rows to a URL; returns when all are acknowledged.
    """

    transport: str
    write: Callable[[Any, str], object]


class Engine(Protocol):
    """A running engine with its rows in memory.

    Attributes:
        rows: The number of rows.
        ways: The ways by name; the first one is the baseline.
    """

    rows: Any
    ways: Mapping[str, Way]

    def __init__(self, executors: int, events: int) -> None: ...

    def close(self) -> None:
        """Stop the engine and all its processes."""


# Spark.


class Spark:
    """Executors with one core each, in separate processes."""

    def __init__(self, executors: int, events: int) -> None:
        os.environ.update(
            SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable
        )
        from pyspark.sql import SparkSession, functions

        from raccoon_fast.integrations.spark import RaccoonDataSource

        self._folder = tempfile.mkdtemp(prefix="raccoon-fast-bench-")
        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.memory": "1g",
            "spark.executor.memory": "640m",  # together the memory that local-cluster gives the executor
            "spark.executor.memoryOverhead": "384m",
            "spark.executorEnv.PYTHONPATH": str(Path(__file__).parent),
            "spark.local.dir": self._folder,
            "spark.sql.warehouse.dir": f"{self._folder}/warehouse",
        }
        builder = SparkSession.builder.master(f"local-cluster[{executors},1,1024]").appName("raccoon_fast benchmarks")
        for name, value in settings.items():
            builder = builder.config(name, value)
        self._session = builder.getOrCreate()
        self._session.sparkContext.setLogLevel("ERROR")
        self._session.dataSource.register(RaccoonDataSource)
        self._wait_for(executors)
        number = functions.col("id")
        self.rows = (
            self._session.range(0, events, 1, _PARTITIONS)
            .select(
                number,
                functions.concat(functions.lit("/products/"), number % 1000).alias("path"),
                functions.sha2(number.cast("string"), 256).alias("visitor"),
                (number % 100 / 7).alias("seconds"),
                (number % 2 == 0).alias("is_new"),
            )
            .cache()
        )
        assert self.rows.count() == events
        self.ways = {
            "raccoon_fast, WebSocket": Way("WebSocket", _by_the_sink),
            "raccoon_fast, REST": Way("REST", _by_the_sink),
            "foreachPartition, httpx, protobuf": Way("REST", _by_hand(post_protobuf)),
            "foreachPartition, httpx, JSON": Way("REST", _by_hand(post_json)),
        }

    def _wait_for(self, executors: int) -> None:
        """Wait for all executors; otherwise the first ones to register get all the rows."""
        deadline_s = time.monotonic() + 60.0
        infos = self._session.sparkContext._jsc.sc().statusTracker().getExecutorInfos
        while len(infos()) < executors + 1:  # includes the driver
            assert time.monotonic() < deadline_s, f"not all of {executors} executors came within 60 s"
            time.sleep(0.1)

    def close(self) -> None:
        """Stop Spark and its processes."""
        self._session.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _by_the_sink(rows: Any, url: str) -> None:
    rows.write.format("raccoon").options(url=url, event_type="page", batch_events=str(BATCH)).mode("append").save()


def _by_hand(post: Callable[[Any, str, list[Any]], None]) -> Callable[[Any, str], None]:
    def write(rows: Any, url: str) -> None:
        def send(partition: Iterable[Any]) -> None:
            import itertools

            import httpx

            waiting = iter(partition)
            with httpx.Client() as client:
                while batch := list(itertools.islice(waiting, BATCH)):
                    post(client, url + "/api/v1/events", batch)

        rows.foreachPartition(send)

    return write


def post_protobuf(client: Any, url: str, rows: list[Any]) -> None:
    """Post rows as protobuf, as users of generated code do."""
    import json
    import time
    import uuid

    from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

    request = SendEventRequest(req_guid=str(uuid.uuid4()))
    request.sent_time.FromNanoseconds(time.time_ns())
    for row in rows:
        request.events.add(event_bytes=json.dumps(row.asDict()).encode(), type="page")
    answer = client.post(url, content=request.SerializeToString(), headers={"Content-Type": "application/proto"})
    answer.raise_for_status()
    assert SendEventResponse.FromString(answer.content).status == 1


def post_json(client: Any, url: str, rows: list[Any]) -> None:
    """Post rows as JSON, as the server's documentation shows."""
    import base64
    import json
    import time
    import uuid

    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    events = [
        {"event_bytes": base64.b64encode(json.dumps(row.asDict()).encode()).decode(), "type": "page"} for row in rows
    ]
    request = {
        "req_guid": str(uuid.uuid4()),
        "sent_time": {"seconds": seconds, "nanos": nanos},
        "events": events,
    }
    answer = client.post(url, json=request)
    answer.raise_for_status()
    assert answer.json()["status"] == 1


ENGINES: dict[str, Callable[[int, int], Engine]] = {"Spark": Spark}


# Measuring.


class Figures(NamedTuple):
    """The figures of one write, per second and per event."""

    events_per_s: float
    python_us: float
    jvm_us: float


def measure(engine: Engine, way: Way, server: Sink, events: int) -> Figures:
    """Write all rows once, and check that each one was received."""
    before = cpu_s()
    began_s = time.perf_counter()
    way.write(engine.rows, server.url(way.transport))
    seconds = time.perf_counter() - began_s
    after = cpu_s()
    server.expect(events)
    python_us, jvm_us = ((after[kind] - before[kind]) / events * 1e6 for kind in ("python", "java"))
    return Figures(events / seconds, python_us, jvm_us)


def run(name: str, effort: Effort) -> list[Table]:
    """The tables of one engine."""
    events = max(BATCH * _PARTITIONS, effort.count(EVENTS) // BATCH * BATCH)
    tables = [
        Table(f"{name}, CPU of the Python workers", "µs of CPU per event", "way"),
        Table(f"{name}, events acknowledged", "events/s", "way"),
        Table(f"{name}, CPU of the JVMs", "µs of CPU per event", "way", is_detail=True),
    ]
    with sink() as server:
        for executors in effort.some(EXECUTORS):
            engine = ENGINES[name](executors, events)
            try:
                measured: dict[str, list[Figures]] = {way: [] for way in engine.ways}
                for turn in range(effort.rounds + 1):
                    for way, how in engine.ways.items():
                        figures = measure(engine, how, server, events)
                        if turn:  # the first run starts the workers and loads their imports
                            measured[way].append(figures)
            finally:
                engine.close()
            for way, rounds in measured.items():
                column = f"{executors} executor" + ("s" if executors > 1 else "")
                cpu, rates, jvm = zip(*((one.python_us, one.events_per_s, one.jvm_us) for one in rounds), strict=True)
                for table, values in zip(tables, (cpu, rates, jvm), strict=True):
                    table.base = next(iter(engine.ways))
                    table.add(way, column, values)
    return tables


def chart(name: str, tables: list[Table]) -> str:
    """Charts of CPU time and rates, with one block per number of executors."""
    blocks = []
    for table in tables[:2]:
        for column in table.columns:
            bars = []
            for way, cells in table.cells.items():
                colour = OURS if way == table.base else OURS_TOO if way.startswith("raccoon_fast") else PEER
                bars.append((way, cells[column].median, colour))
            blocks.append(Bars(f"{table.unit}, {column}", bars))
    return bar_chart(f"{name}: from rows to acknowledged events", "rows of five columns, 1,000 per request", blocks)


def main() -> None:
    chosen = Parser(__doc__, "do a short run; its figures are not usable").parse()
    effort = QUICK if chosen.quick else Effort(rounds=3)
    parts = {}
    for name in ENGINES:
        tables = run(name, effort)
        parts[name.lower()] = Part(tables, chart(name, tables))
    write_parts(chosen.output, "engines", (__doc__ or "").split("\n\n")[-1].strip(), parts)


if __name__ == "__main__":
    main()
