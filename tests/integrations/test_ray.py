"""Ray writes events: a real cluster of worker processes, against a collector."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from numbered_flights import judge, judge_a_kill, one_worker_killed, write_flights

from raccoon_fast.collector import Collector
from raccoon_fast.integrations.ray import RaccoonDatasink
from raccoon_fast.integrations.tasks import TaskError

FLIGHTS = 300_000


def rows(ray: Any, blocks: int = 1, **columns: list[Any]) -> Any:
    return ray.data.from_arrow(pa.table(columns)).repartition(blocks)


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_rows_arrive_as_events(
    ray: Any, collector: Collector, tmp_path: Path, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    count = write_flights(tmp_path, 3, 2500)
    ray.data.read_json(str(tmp_path)).write_datasink(RaccoonDatasink(url, type_column="origin"))
    assert judge(collector.events, count) == 0
    assert {event.type for event in collector.events} == {"EWR", "JFK", "LGA"}
    assert f"a dataset is written: {count:,} events" in capsys.readouterr().err


def test_columns_are_chosen_and_raw_bytes_are_sent_as_they_are(ray: Any, collector: Collector) -> None:
    dataset = rows(ray, t=["a", "b"], n=[1, None], b=[b"\x00\xff", b""], s=["é", "ü"])
    dataset.write_datasink(RaccoonDatasink(collector.ws_url, type_column="t", data_columns=["s", "n"]))
    dataset.write_datasink(RaccoonDatasink(collector.ws_url, event_type="raw", data_columns=["b"], serializer="raw"))
    assert sorted((event.type, event.data) for event in collector.events) == [
        ("a", '{"s":"é","n":1}'.encode()),
        ("b", '{"s":"ü","n":null}'.encode()),
        ("raw", b""),
        ("raw", b"\x00\xff"),
    ]


@pytest.mark.parametrize("batch_format", ["pandas", "numpy", "pyarrow"])
def test_rows_are_taken_in_any_format(ray: Any, collector: Collector, batch_format: str) -> None:
    # Steps that Ray runs in the same tasks as the write, and that change the columns.
    dataset = rows(ray, t=["a", "b"], n=[1, 2]).map_batches(lambda batch: batch, batch_format=batch_format)
    dataset.drop_columns(["t"]).write_datasink(RaccoonDatasink(collector.ws_url, event_type="number"))
    assert sorted(event.data for event in collector.events) == [b'{"n":1}', b'{"n":2}']


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"url": "ftp://h"}, ValueError, "url must start with one of"),
        ({"event_type": None}, ValueError, "give type_column"),
        ({"serializer": "proto"}, ValueError, "serializer must be one of json, raw"),
        ({"data_columns": "n"}, TypeError, "data_columns takes the names of columns"),
        ({"batch_event": 5}, TypeError, "batch_event"),
        ({"linger": 1}, TypeError, "linger is not an option of a sink"),
        ({"job_id": 7}, TypeError, "job_id takes a str, not int"),
        ({"max_events_per_second": 10}, ValueError, "needs parallelism"),
    ],
)
def test_wrong_options_are_found_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RaccoonDatasink(**{"url": "ws://h", "event_type": "a", **options})


def test_a_missing_column_fails_the_task(ray: Any, collector: Collector) -> None:
    with pytest.raises(ValueError, match="column 'kind' is not there; the columns are t, n"):
        rows(ray, t=["a"], n=[1]).write_datasink(RaccoonDatasink(collector.ws_url, type_column="kind"))
    assert collector.request_count == 0


def test_a_failed_task_says_why_with_a_sample(
    ray: Any, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.faults.reject_events("bad")
    dataset = rows(ray, t=["bad" if n == 7 else "good" for n in range(20)], n=list(range(20)))
    with pytest.raises(TaskError) as caught:
        dataset.write_datasink(RaccoonDatasink(collector.ws_url, type_column="t"))
    assert (caught.value.event_type, caught.value.sample) == ("bad", b'{"n":7}')
    assert "1 of a batch's events could not be delivered" in str(caught.value)
    assert "a dataset is given up" in (said := capsys.readouterr().err)
    assert "1 of a batch's events could not be delivered" in said


def test_many_tasks_share_few_connections(ray: Any) -> None:
    with Collector(max_connections=2) as collector:
        sink = RaccoonDatasink(collector.ws_url, event_type="number", batch_events=100)
        ray.data.range(8000, override_num_blocks=80).write_datasink(sink)
        assert collector.event_count == 8000
        assert len({event.connection_id for event in collector.events}) <= 2


def test_the_job_s_rate_is_kept(ray: Any, collector: Collector) -> None:
    rate = {"max_events_per_second": 8000, "parallelism": 2, "batch_events": 500}
    sink = RaccoonDatasink(collector.ws_url, event_type="number", **rate)
    ray.data.range(20_000, override_num_blocks=4).write_datasink(sink, concurrency=2)
    times = sorted(request.received_time for request in collector.requests)
    # What each of the two workers sends first goes at once.
    assert times[-1] - times[0] >= (20_000 - 2 * 500) / 8000 - 0.1


def test_no_plan_shows_a_secret(ray: Any, collector: Collector) -> None:
    dataset = rows(ray, n=[1, 2])
    sink = RaccoonDatasink(collector.url, event_type="a", auth="s3cret-token", headers={"X-Team": "s3cret-team"})
    dataset.write_datasink(sink)
    assert collector.requests[-1].headers["authorization"] == "Bearer s3cret-token"
    said = f"{sink!r} {sink.get_name()} {vars(sink)} {dataset._write_ds!r} {dataset._write_ds.stats()}"
    assert "Write" in said
    assert "s3cret" not in said


def test_a_job_that_is_run_again_sends_the_same_guids(ray: Any, collector: Collector) -> None:
    options = ray.data.DataContext.get_current().execution_options
    options.preserve_order = True
    try:
        for job_id in ("mine", "mine", "another"):
            sink = RaccoonDatasink(collector.ws_url, event_type="number", batch_events=500, job_id=job_id)
            ray.data.range(6000, override_num_blocks=6).write_datasink(sink)
    finally:
        options.preserve_order = False
    guids = [request.req_guid for request in collector.requests]
    assert set(guids[:12]) == set(guids[12:24])
    assert len({*guids}) == 24
    by_guid: dict[str, set[bytes]] = {}
    for event in collector.events:
        by_guid.setdefault(event.req_guid, set()).add(event.data)
    assert {len(data) for data in by_guid.values()} == {500}


def test_a_worker_that_is_killed_loses_nothing(ray: Any, tmp_path: Path) -> None:
    """300,000 flights by two workers, one of which is killed in the middle of a task."""
    assert write_flights(tmp_path, 12) == FLIGHTS

    def kill(pid: int) -> None:
        assert b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)

    with Collector() as collector:
        rate = {"max_events_per_second": 60_000, "parallelism": 2}
        sink = RaccoonDatasink(collector.ws_url, type_column="origin", **rate)
        with one_worker_killed(collector, kill) as killed:
            ray.data.read_json(str(tmp_path), override_num_blocks=12).write_datasink(sink)
        judge_a_kill(collector, killed, FLIGHTS)
