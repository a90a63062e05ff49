"""Spark writes events: real sessions, with several Python workers, against a collector."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from encoded import encoded
from numbered_flights import judge, judge_a_kill, one_worker_killed, write_flights
from patience import patient

from raccoon_fast.collector import Collector
from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.integrations.tasks import Scope, req_guid
from raccoon_fast.tables.columns import Columns

FLIGHTS = 300_000


@pytest.fixture(scope="module")
def spark(new_spark: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    logs = tmp_path_factory.mktemp("event-log")
    options = {"dir": str(logs), "enabled": "true", "compress": "false", "rolling.enabled": "false"}
    return new_spark("local[2]", **{f"spark.eventLog.{name}": value for name, value in options.items()})


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 files, each a partition of 25,000 rows."""
    folder = tmp_path_factory.mktemp("flights")
    assert write_flights(folder, 12) == FLIGHTS
    return folder


Heard = Callable[..., None]


@pytest.fixture
def heard(driver_log: Path) -> Heard:
    """Waits until all of it is in the driver's log."""
    before = len(driver_log.read_bytes())

    def heard(*texts: str) -> None:
        deadline_s = time.monotonic() + patient(20)
        while not all(text in driver_log.read_bytes()[before:].decode() for text in texts):
            assert time.monotonic() < deadline_s, driver_log.read_bytes()[before:].decode()
            time.sleep(0.05)

    return heard


def read(spark: Any, folder: Path) -> Any:
    from pyspark.sql import functions

    return spark.read.json(str(folder)).withColumn("type", functions.concat(functions.lit("flight-"), "origin"))


def save(rows: Any, **options: Any) -> None:
    texts = {name: str(value) for name, value in options.items()}
    rows.write.format("raccoon").options(**texts).mode("append").save()


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_rows_arrive_as_events(spark: Any, collector: Collector, tmp_path: Path, scheme: str, heard: Heard) -> None:
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    count = write_flights(tmp_path / "in", 3, 2500)
    rows = read(spark, tmp_path / "in")
    save(rows, url=url, type_column="type", batch_events=1000, job_id="job")
    assert judge(collector.events, count) == 0
    assert {event.type for event in collector.events} == {"flight-EWR", "flight-JFK", "flight-LGA"}
    partitions = rows.rdd.getNumPartitions()
    options = SinkOptions(url, Columns(type_column="type"), None)
    batches: dict[str, list[tuple[str, bytes]]] = {}
    for event in collector.events:
        batches.setdefault(event.req_guid, []).append((event.type, event.data))
    scopes = [Scope("job", 0, partition) for partition in range(partitions)]
    for guid, events in batches.items():
        assert guid in {req_guid(scope, number, options, encoded(events)) for scope in scopes for number in range(8)}
    heard(f"job job is written: {count:,} events", f"of {partitions} tasks")


def test_columns_are_chosen_and_raw_bytes_are_sent_as_they_are(spark: Any, collector: Collector) -> None:
    schema = "t string, n int, b binary, s string"
    rows = spark.createDataFrame([("a", 1, b"\x00\xff", "é"), ("b", None, b"", "ü")], schema)
    save(rows.coalesce(1), url=collector.ws_url, type_column="t", data_columns="s, n")
    save(rows.coalesce(1), url=collector.ws_url, event_type="raw", data_columns="b", serializer="raw")
    save(rows.coalesce(1), url=collector.ws_url, event_type="text", data_columns="s", serializer="raw")
    assert [(event.type, event.data.decode("latin")) for event in collector.events] == [
        ("a", '{"s":"é","n":1}'.encode().decode("latin")),
        ("b", '{"s":"ü","n":null}'.encode().decode("latin")),
        ("raw", "\x00\xff"),
        ("raw", ""),
        ("text", "é".encode().decode("latin")),
        ("text", "ü".encode().decode("latin")),
    ]


def test_an_empty_write_connects_to_nothing(spark: Any) -> None:
    save(spark.range(0), url="ws://127.0.0.1:1", event_type="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_type": "a"}, "url is missing"),
        ({"url": "ftp://h", "event_type": "a"}, "url must start with one of"),
        ({"url": "ws://user:secret@h", "event_type": "a"}, "must not hold a password"),
        ({"url": "ws://h"}, "give type_column"),
        ({"url": "ws://h", "type_column": "kind"}, "column 'kind' is not there; the columns are id, name"),
        ({"url": "ws://h", "type_column": "id"}, "type_column 'id' must be of strings, not int64"),
        ({"url": "ws://h", "event_type": "a", "data_columns": "id,x"}, "column 'x' is not there"),
        ({"url": "ws://h", "event_type": "a", "serializer": "raw"}, "serializer=raw sends one column"),
        ({"url": "ws://h", "event_type": "a", "serializer": "raw", "data_columns": "id"}, "'id' is int64"),
        ({"url": "ws://h", "event_type": "a", "serializer": "proto"}, "serializer must be one of json, raw"),
        ({"url": "ws://h", "event_type": "a", "batch_event": "5"}, "did you mean batch_events"),
        ({"url": "ws://h", "event_type": "a", "batch_events": "many"}, "batch_events must be a whole number"),
        ({"url": "ws://h", "event_type": "a", "delivery_timeout": "-1"}, "delivery_timeout must be above 0"),
        ({"url": "ws://h", "event_type": "a", "max_events_per_second": "10"}, "needs parallelism"),
        ({"url": "ws://h", "event_type": "a", "user": "me"}, "user and password belong together"),
        ({"url": "ws://h", "event_type": "a", "ca": "/no/such/file"}, "no such file"),
    ],
)
def test_wrong_options_are_found_on_the_driver(spark: Any, options: dict[str, str], message: str) -> None:
    from pyspark.errors import AnalysisException

    ran = spark.sparkContext.accumulator(0)
    rows = spark.createDataFrame([(1, "x")], "id long, name string")
    counted = rows.rdd.map(lambda row: (ran.add(1), row)[1]).toDF(rows.schema)
    with pytest.raises(AnalysisException) as caught:
        save(counted, **options)
    assert message in str(caught.value)
    assert ran.value == 0


def test_events_can_only_be_appended(spark: Any, collector: Collector) -> None:
    writer = spark.range(5).write.format("raccoon").options(url=collector.ws_url, event_type="a")
    with pytest.raises(Exception, match="can only be appended"):
        writer.mode("overwrite").save()
    assert collector.request_count == 0


def test_a_failed_task_says_why_with_a_sample(spark: Any, collector: Collector, heard: Heard) -> None:
    from pyspark.errors import PySparkException

    collector.faults.reject_events("bad")
    rows = spark.createDataFrame([("bad" if n == 7 else "good", n) for n in range(20)], "t string, n long").coalesce(1)
    with pytest.raises(PySparkException) as caught:
        save(rows, url=collector.ws_url, type_column="t")
    said = str(caught.value)
    assert "partition 0 of " in said
    assert "1 of a batch's events could not be delivered" in said
    assert "of type 'bad': b'{\"n\":7}'" in said
    heard("is given up: 1 of 1 tasks did not succeed; of the others 0 events")


def test_a_null_type_is_named(spark: Any, collector: Collector) -> None:
    from pyspark.errors import PySparkException

    rows = spark.createDataFrame([("a", 1), (None, 2)], "t string, n long").coalesce(1)
    with pytest.raises(PySparkException, match="column 't', row 1: must not be null"):
        save(rows, url=collector.ws_url, type_column="t")
    assert collector.request_count == 0


def test_many_tasks_share_few_connections(spark: Any) -> None:
    with Collector(max_connections=2) as collector:
        save(spark.range(0, 8000, 1, 80), url=collector.ws_url, event_type="number")
        assert collector.event_count == 8000
        assert len({event.connection_id for event in collector.events}) <= 2


def test_the_job_s_rate_is_kept(spark: Any, collector: Collector) -> None:
    rows = spark.range(0, 20_000, 1, 4)
    save(rows, url=collector.ws_url, event_type="number", max_events_per_second=8000, parallelism=2, batch_events=500)
    times = sorted(request.received_time for request in collector.requests)
    # What each of the two workers sends first goes at once.
    assert times[-1] - times[0] >= (20_000 - 2 * 500) / 8000 - 0.1


def test_no_plan_shows_a_secret(spark: Any, collector: Collector) -> None:
    rows = spark.range(3)
    save(rows, url=collector.url, event_type="a", user="someone", password="s3cret-pass")
    save(rows, url=collector.url, event_type="a", token="s3cret-token", **{"header.X-Team": "blue"})
    requests = collector.requests
    assert {request.headers["authorization"] for request in requests} >= {"Bearer s3cret-token"}
    assert requests[-1].headers["x-team"] == "blue"
    (log,) = Path(spark.conf.get("spark.eventLog.dir")).iterdir()
    said = log.read_text()
    assert "AppendData" in said
    assert "s3cret" not in said


def test_a_worker_that_is_killed_loses_nothing(new_spark: Callable[..., Any], flights: Path) -> None:
    """300,000 flights by two executors, one of which is killed, Python worker and JVM, in the middle of a task."""
    cluster = {"spark.executor.memory": "512m", "spark.executor.memoryOverhead": "512m"}
    session = new_spark("local-cluster[2,1,1024]", **cluster)
    rows = read(session, flights)
    partitions = rows.rdd.getNumPartitions()

    def kill(pid: int) -> None:
        executor = parent(parent(pid))
        assert "CoarseGrainedExecutorBackend" in command(executor)
        os.kill(executor, signal.SIGKILL)

    with Collector() as collector:
        rate = {"max_events_per_second": 60_000, "parallelism": 2}
        with one_worker_killed(collector, kill) as killed:
            save(rows, url=collector.ws_url, type_column="type", **rate)
        judge_a_kill(collector, killed, FLIGHTS)
        assert len({request.req_guid for request in collector.requests}) == 25 * partitions


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
