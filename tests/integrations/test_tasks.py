"""An engine's task, run without the engine."""

from __future__ import annotations

import pickle
import time
import uuid
from typing import Any

import pyarrow as pa
import pytest
from encoded import encoded
from hypothesis import given
from hypothesis import strategies as st
from patience import patient

from raccoon_fast import AckTimeoutError, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.integrations import workers
from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.integrations.tasks import Scope, TaskError, TaskReport, cut, req_guid, total, write_task
from raccoon_fast.tables.columns import Columns

SCOPE = Scope("query", 3, 5)
EVENTS = [("a", b"1"), ("a", b"2")]


def sink(url: str, columns: Columns | None = None, **options: Any) -> SinkOptions:
    key = uuid.uuid4()
    retry = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
    options = {"batch_events": 10, "logger": None, "retry": retry, **options}
    return SinkOptions(url, columns or Columns("number"), key, **options)


def numbers(count: int, start: int = 0) -> pa.RecordBatch:
    return pa.record_batch({"n": range(start, start + count)})


def received(collector: Collector) -> list[tuple[str, bytes]]:
    return [(event.req_guid, event.data) for event in collector.events]


def test_a_task_is_written_and_reported(collector: Collector) -> None:
    options = sink(collector.ws_url)
    report = write_task([numbers(15), numbers(0, 15), numbers(8, 15)], options, SCOPE)
    assert (report.events, report.batches, report.tasks) == (23, 3, 1)
    assert report.data_bytes == sum(len(event.data) for event in collector.events)
    events = [("number", b'{"n":%d}' % n) for n in range(23)]
    guids = [req_guid(SCOPE, number, options, encoded(events[number * 10 :][:10])) for number in range(3)]
    assert sorted(received(collector)) == sorted((guids[n // 10], data) for n, (_, data) in enumerate(events))


def test_the_same_rows_make_the_same_requests_however_they_are_divided(collector: Collector) -> None:
    options = sink(collector.ws_url)
    write_task([numbers(23)], options, SCOPE)
    first = sorted(received(collector))
    collector.clear()
    write_task([numbers(1), numbers(12, 1), numbers(10, 13)], options, SCOPE)
    assert sorted(received(collector)) == first


def test_guids_tell_tasks_and_options_apart() -> None:
    options = sink("ws://h")
    scopes = [SCOPE, SCOPE._replace(query="q"), SCOPE._replace(epoch=4), SCOPE._replace(partition=6)]
    guids = {req_guid(scope, number, options, encoded(EVENTS)) for scope in scopes for number in range(10)}
    guids |= {
        req_guid(SCOPE, 0, other, encoded(EVENTS))
        for other in (
            sink("ws://h", batch_events=11),
            sink("ws://h", batch_bytes=1000),
            sink("ws://h", Columns("other")),
            sink("ws://h", Columns(type_column="t")),
            sink("ws://h", Columns("number", data_columns=["n"])),
            sink("ws://h", Columns("number", serializer="raw")),
        )
    }
    assert len(guids) == 46
    assert (
        req_guid(SCOPE, 0, options, encoded(EVENTS))
        == req_guid(SCOPE, 0, sink("http://h2", timeout=5), encoded(EVENTS))
        in guids
    )


@pytest.mark.parametrize(
    "events",
    [
        EVENTS[::-1],
        EVENTS[:1],
        [("a", b"1"), ("a", b"3")],
        [("a", b"1"), ("b", b"2")],
        [("a", b"1"), ("a", b"2"), ("a", b"")],
    ],
)
def test_no_guid_names_other_events(events: list[tuple[str, bytes]]) -> None:
    options = sink("ws://h")
    assert req_guid(SCOPE, 0, options, encoded(events)) != req_guid(SCOPE, 0, options, encoded(EVENTS))


@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=40),
    max_events=st.integers(1, 10),
    max_bytes=st.integers(1, 1000),
    data=st.data(),
)
def test_cuts_depend_only_on_the_rows(sizes: list[int], max_events: int, max_bytes: int, data: st.DataObject) -> None:
    columns = Columns("a", serializer="raw")
    rows = [bytes([index]) * size for index, size in enumerate(sizes)]
    whole = [[*request] for request in cut(columns, [pa.record_batch({"b": rows})], max_events, max_bytes)]
    assert [data for request in whole for _, data in request] == rows
    for request, following in zip(whole, [*whole[1:], None], strict=True):
        size = sum(len(data) + 64 for _, data in request)
        assert len(request) <= max_events
        assert size <= max_bytes or len(request) == 1
        if following is not None:  # there was no room for one more
            assert len(request) == max_events or size + len(following[0][1]) + 64 > max_bytes
    at = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    parts = [rows[start:end] for start, end in zip([0, *at], [*at, len(rows)], strict=True)]
    batches = [pa.record_batch({"b": pa.array(part, pa.binary())}) for part in parts]
    assert [[*request] for request in cut(columns, batches, max_events, max_bytes)] == whole


def test_large_rows_do_not_pile_up() -> None:
    columns = Columns("a", serializer="raw")
    taken = 0

    def batches() -> Any:
        nonlocal taken
        for _ in range(10):
            taken += 1
            yield pa.record_batch({"b": [bytes(1000)]})

    requests = cut(columns, batches(), 1000, 3000)
    assert len(next(requests)) == 2
    assert taken == 3


def test_an_event_that_is_refused_fails_the_task(collector: Collector) -> None:
    collector.faults.reject_events("bad")
    rows = pa.record_batch({"t": ["bad" if n == 37 else "good" for n in range(50)], "n": range(50)})
    with pytest.raises(TaskError) as caught:
        write_task([rows], sink(collector.url, Columns(type_column="t")), SCOPE)
    error = caught.value
    assert (error.event_type, error.sample, error.scope) == ("bad", b'{"n":37}', SCOPE)
    assert "partition 5 of query, epoch 3" in str(error)
    assert "1 of a batch's events could not be delivered" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.sample) == (str(error), error.sample)


def test_a_missing_server_fails_the_task_in_time(collector: Collector) -> None:
    collector.faults.drop_acks()
    options = sink(collector.url, delivery_timeout=0.5, timeout=0.2, batch_bytes=1000, buffer_bytes=2000)
    began_s = time.monotonic()
    with pytest.raises(
        TaskError, match=r"AckTimeoutError: the batch expired after 0\.5 s without an acknowledgement \(possibly"
    ) as caught:
        write_task([numbers(1000)], options, SCOPE)
    assert isinstance(caught.value.__cause__, AckTimeoutError)
    assert caught.value.acknowledged == 0
    assert time.monotonic() - began_s < patient(10)
    collector.faults.clear()
    assert write_task([numbers(1000)], options, SCOPE).events == 1000


def test_an_event_no_server_takes_fails_the_task(collector: Collector) -> None:
    rows = pa.record_batch({"b": [b"x", bytes(5000)]})
    columns = Columns("large", serializer="raw")
    with pytest.raises(TaskError, match="MessageTooLargeError") as caught:
        write_task([rows], sink(collector.url, columns, batch_bytes=1000, buffer_bytes=4000), SCOPE)
    assert caught.value.sample == bytes(300)


def test_an_error_of_the_engine_passes_through_unchanged(collector: Collector) -> None:
    def batches() -> Any:
        yield numbers(20)
        raise KeyError("a row")

    with pytest.raises(KeyError, match="a row"):
        write_task(batches(), sink(collector.url), SCOPE)


def test_an_empty_task_starts_nothing() -> None:
    options = sink("ws://127.0.0.1:1")
    report = write_task([numbers(0)], options, SCOPE)
    assert (report.events, report.batches, report.tasks) == (0, 0, 1)
    assert options.key not in workers._workers


def test_total() -> None:
    reports = [TaskReport(10, 2, 300, 1.5), TaskReport(5, 1, 200, 2.5)]
    sum_ = total(reports)
    assert sum_ == TaskReport(15, 3, 500, 2.5, tasks=2)
    assert str(sum_) == "15 events (500 bytes) acknowledged, in 3 batches of 2 tasks; the longest took 2.5 s"
    assert total([]) == TaskReport(tasks=0)
