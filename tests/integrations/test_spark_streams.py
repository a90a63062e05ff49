"""Spark streams events: it is stopped and killed within an epoch, and restarted from the checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stream_flights
from numbered_flights import judge, write_flights
from patience import patient

from raccoon_fast.collector import Collector

PROGRAM = Path(stream_flights.__file__)


@pytest.fixture(scope="module")
def spark(new_spark: Callable[..., Any]) -> Any:
    return new_spark("local[2]")


def start(spark: Any, collector: Collector, folder: Path, checkpoint: Path, **options: str) -> Any:
    rows = spark.readStream.schema(stream_flights.SCHEMA).option("maxFilesPerTrigger", 1).json(str(folder))
    options = {"url": collector.ws_url, "event_type": "flight", "checkpointLocation": str(checkpoint), **options}
    return rows.writeStream.format("raccoon").options(**options).start()


def test_a_stream_that_is_stopped_and_started_again_loses_nothing(
    spark: Any, collector: Collector, tmp_path: Path
) -> None:
    count = write_flights(tmp_path / "in", 6, 10_000)
    slowly = {"max_events_per_second": "10000", "parallelism": "1", "batch_events": "500"}
    query = start(spark, collector, tmp_path / "in", tmp_path / "checkpoint", **slowly)
    collector.wait_for(12_000, patient(60))  # in the middle of the second epoch
    query.stop()
    stopped_at = collector.event_count
    assert stopped_at < count
    query = start(spark, collector, tmp_path / "in", tmp_path / "checkpoint", batch_events="500")
    query.processAllAvailable()
    query.stop()
    assert judge(collector.events, count) > 0
    # The epoch that was under way went out again under its guids, and on another connection.
    by_guid: dict[str, set[str]] = {}
    for request in collector.requests:
        by_guid.setdefault(request.req_guid, set()).add(request.connection_id)
    assert len(by_guid) == count / 500
    assert max(map(len, by_guid.values())) == 2


def test_the_same_rows_have_guids_of_their_own_in_each_epoch(spark: Any, collector: Collector, tmp_path: Path) -> None:
    write_flights(tmp_path / "in", 1, 1_000)
    shutil.copy(tmp_path / "in" / "part-000.json", tmp_path / "in" / "part-001.json")
    query = start(spark, collector, tmp_path / "in", tmp_path / "checkpoint", batch_events="500")
    query.processAllAvailable()
    query.stop()
    assert collector.event_count == 2_000
    guids = [request.req_guid for request in collector.requests]
    assert len({*guids}) == len(guids) == 4


def test_a_job_id_is_not_a_stream_s(spark: Any, collector: Collector, tmp_path: Path) -> None:
    write_flights(tmp_path / "in", 1, 10)
    query = start(spark, collector, tmp_path / "in", tmp_path / "checkpoint", job_id="mine")
    with pytest.raises(Exception, match=r"job_id is for df\.write"):
        query.processAllAvailable()
    assert collector.request_count == 0


def test_a_driver_that_is_killed_loses_nothing(collector: Collector, tmp_path: Path) -> None:
    """300,000 flights in 12 epochs."""
    count = write_flights(tmp_path / "in", 12)
    command = [sys.executable, PROGRAM, collector.ws_url, tmp_path / "in", tmp_path / "checkpoint"]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    environment["PYTHONPATH"] = str(PROGRAM.parent)
    with (tmp_path / "log").open("wb") as log:
        run = {"env": environment, "stdout": log, "stderr": log, "start_new_session": True}
        killed = subprocess.Popen(command, **run)
        try:
            collector.wait_for(55_000, patient(120))  # in the middle of the third epoch
        finally:
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
        # The Python workers have a process group of their own, and go with the JVM.
        collector.wait_until(lambda it: not it.connections, 30)
        assert collector.event_count < count
        again = subprocess.Popen(command, **run)
        watchdog = threading.Timer(200, os.killpg, (again.pid, signal.SIGKILL))
        watchdog.start()
        assert again.wait() == 0, (tmp_path / "log").read_text()
        watchdog.cancel()
    assert judge(collector.events, count) > 0
