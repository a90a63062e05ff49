"""Tables of every library, sent by producers and clients to a server and compared there."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from raccoon_fast import (
    JSON,
    RAW,
    AsyncProducer,
    AsyncRestClient,
    Event,
    Lane,
    Producer,
    RestClient,
    WebSocketClient,
)
from raccoon_fast.collector import Collector
from raccoon_fast.errors import BufferFull, MessageTooLargeError, SerializationError

ROWS = [{"n": 1, "s": "a"}, {"n": 2, "s": None}, {"n": 3, "s": 'ü"'}]
SENT = [("t", b'{"n":1,"s":"a"}'), ("t", b'{"n":2,"s":null}'), ("t", '{"n":3,"s":"ü\\""}'.encode())]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def got(collector: Collector) -> list[tuple[str, bytes]]:
    return [(event.type, event.data) for event in collector.events]


def emit(collector: Collector, table: Any, *, is_async: bool = False, options: Any = None, **arguments: Any) -> Any:
    """The producer's report, and what emit_table returned or raised."""
    outcome: list[Any] = []
    options = {"logger": None, "serializer": RAW, **(options or {})}
    if not is_async:
        with Producer(collector.ws_url, **options) as producer:
            try:
                outcome.append(producer.emit_table(table, **arguments))
            except Exception as error:  # noqa: BLE001 - the tests look at it
                outcome.append(error)
        return producer.report, outcome[0]

    async def main() -> Any:
        async with AsyncProducer(collector.ws_url, **options) as producer:
            try:
                outcome.append(await producer.emit_table(table, **arguments))
            except Exception as error:  # noqa: BLE001 - the tests look at it
                outcome.append(error)
        return producer.report

    return asyncio.run(main()), outcome[0]


both = pytest.mark.parametrize("is_async", [False, True])


def of_pandas() -> Any:
    return pytest.importorskip("pandas").DataFrame(ROWS)


def of_polars() -> Any:
    return pytest.importorskip("polars").DataFrame(ROWS)


def of_duckdb() -> Any:
    return pytest.importorskip("duckdb").sql("select * from (values (1, 'a'), (2, null), (3, 'ü\"')) as t(n, s)")


def of_a_reader() -> Any:
    table = pa.Table.from_pylist(ROWS)
    return pa.RecordBatchReader.from_batches(table.schema, iter([table.to_batches()[0][:1], table.to_batches()[0][1:]]))


class OnlyAnArray:
    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return pa.RecordBatch.from_pylist(ROWS).__arrow_c_array__(requested_schema)


class OnlyAStream:
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.Table.from_pylist(ROWS).__arrow_c_stream__(requested_schema)


TABLES = {
    "pandas": of_pandas,
    "polars": of_polars,
    "duckdb": of_duckdb,
    "reader": of_a_reader,
    "table": lambda: pa.Table.from_pylist(ROWS),
    "batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "array": OnlyAnArray,
    "stream": OnlyAStream,
}


@both
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_library_arrives(collector: Collector, kind: str, is_async: bool) -> None:
    report, receipts = emit(collector, TABLES[kind](), is_async=is_async, event_type="t")
    assert got(collector) == SENT
    assert (report.total.accepted, report.total.acked) == (3, 3)
    assert len(receipts) == 1
    assert receipts[0].done()


def test_an_index_of_pandas_is_a_column_if_it_has_a_name(collector: Collector) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    emit(collector, frame.iloc[[0, 2, 1]], event_type="t")
    assert got(collector) == [SENT[0], SENT[2], SENT[1]]
    collector.clear()
    emit(collector, frame.set_index("s"), event_type="t", data_columns=["s"])
    assert [data for _, data in got(collector)] == [b'{"s":"a"}', b'{"s":null}', '{"s":"ü\\""}'.encode()]


@both
def test_raw_columns_and_types_of_a_column(collector: Collector, is_async: bool) -> None:
    table = pa.table({"kind": ["x", "y", "x"], "payload": [b"1", b"", b"3"], "other": [1, 2, 3]})
    # The producer's own serializer is not asked.
    options = {"serializer": JSON}
    emit(
        collector,
        table,
        is_async=is_async,
        options=options,
        type_column="kind",
        data_columns=["payload"],
        serializer="raw",
    )
    assert got(collector) == [("x", b"1"), ("y", b""), ("x", b"3")]


@both
def test_receipts_are_those_of_the_batches(collector: Collector, is_async: bool) -> None:
    report, receipts = emit(
        collector,
        pa.table({"n": range(25_000)}),
        is_async=is_async,
        options={"batch_events": 1000, "linger": 60},
        event_type="t",
    )
    assert len(receipts) == len({receipt.req_guid for receipt in receipts}) == 25
    assert report.total.acked == 25_000
    assert sorted(json.loads(data)["n"] for _, data in got(collector)) == [*range(25_000)]  # in any order
    assert emit(collector, pa.table({"n": pa.array([], pa.int64())}), is_async=is_async, event_type="t")[1] == []


@both
def test_before_send_sees_rows_and_may_change_them(collector: Collector, is_async: bool) -> None:
    seen: list[Event] = []

    def hook(event: Event) -> Any:
        seen.append(event)
        if event.data["n"] == 2:
            return None
        event.data["when"] = event.data["when"].year
        return Event("u", event.data) if event.data["n"] == 3 else event

    when = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)
    table = pa.table({"n": [1, 2, 3], "when": pa.array([when] * 3, pa.timestamp("ns", "UTC"))})
    report, receipts = emit(collector, table, is_async=is_async, options={"before_send": hook}, event_type="t")
    assert got(collector) == [("t", b'{"n":1,"when":2020}'), ("u", b'{"n":3,"when":2020}')]
    assert [event.type for event in seen] == ["t"] * 3
    assert type(seen[0].data) is dict
    assert (report.total.accepted, report.total.filtered) == (3, 1)
    assert len(receipts) == 2


@both
def test_before_send_gets_bytes_of_a_raw_column(collector: Collector, is_async: bool) -> None:
    table = pa.table({"b": [b"1", b"2"]})
    emit(
        collector,
        table,
        is_async=is_async,
        options={"before_send": lambda event: Event(event.type, event.data + b"!")},
        event_type="t",
        serializer="raw",
    )
    assert got(collector) == [("t", b"1!"), ("t", b"2!")]


@both
def test_the_result_of_before_send_must_fit(collector: Collector, is_async: bool) -> None:
    report, error = emit(
        collector,
        pa.table({"n": [1, 2]}),
        is_async=is_async,
        options={"before_send": lambda event: event if event.data["n"] == 1 else ("t", object())},
        event_type="t",
    )
    assert isinstance(error, SerializationError)
    assert error.index == 1
    assert report.total.accepted == 1


@both
def test_lanes_and_samples_apply_to_each_event(collector: Collector, is_async: bool) -> None:
    table = pa.table({"kind": ["a", "b", "c"] * 100, "n": range(300)})
    lanes = {"a": Lane(priority="high"), "b": Lane(sample=0.0)}
    report, receipts = emit(collector, table, is_async=is_async, options={"lanes": lanes}, type_column="kind")
    assert {lane: counts.acked for lane, counts in report.by_lane.items()} == {"default": 100, "a": 100, "b": 0}
    assert report.total.sampled == 100
    assert len(receipts) == 3
    collector.clear()
    report, _ = emit(
        collector,
        table,
        is_async=is_async,
        options={"lanes": {"a": Lane(sample=0.5)}, "sample_key": lambda event: event.data["n"] % 6},
        type_column="kind",
    )
    # All events of one key are kept, or none.
    kept = {json.loads(data)["n"] % 6 for event_type, data in got(collector) if event_type == "a"}
    assert report.total.sampled == 100 - 50 * len(kept)


@both
def test_lanes_without_samples_are_routed_by_the_core(collector: Collector, is_async: bool) -> None:
    table = pa.table({"kind": ["a", "b", "a"], "n": [1, 2, 3]})
    report, _ = emit(collector, table, is_async=is_async, options={"lanes": {"a": Lane()}}, type_column="kind")
    assert {lane: counts.acked for lane, counts in report.by_lane.items()} == {"default": 1, "a": 2}


@both
@pytest.mark.parametrize(
    ("column", "kind", "why"),
    [
        ([0, 2_932_896, 2_932_897], pa.date32(), "JSON's dates are of the years 1 to 9999"),
        ([0, 253_402_300_799, 253_402_300_800], pa.timestamp("s"), "JSON's dates are of the years 1 to 9999"),
        ([0, None, -(2**62)], pa.timestamp("ms"), "JSON's dates are of the years 1 to 9999"),
        ([{}, {"x": 1}, [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()), "cannot be JSON: .*k"),
        ([[], [0], [2**40]], pa.list_(pa.timestamp("s")), "cannot be JSON"),
    ],
)
def test_a_row_that_is_not_an_event_is_named(
    collector: Collector, column: Any, kind: pa.DataType, why: str, is_async: bool
) -> None:
    if pa.types.is_map(kind):
        column = [[*row.items()] if isinstance(row, dict) else row for row in column]
    table = pa.table({"n": [1, 2, 3, 4], "c": pa.array([*column, column[0]], kind)})
    report, error = emit(collector, pa.concat_tables([table[:2]] * 3 + [table]), is_async=is_async, event_type="t")
    assert isinstance(error, SerializationError)
    with pytest.raises(SerializationError, match=f"^column 'c', row 8: .*{why}"):
        raise error
    assert (error.index, error.path, error.event_type) == (8, "c", "t")
    # Those before it were accepted, and no other.
    assert report.total.acked == 8
    assert len(got(collector)) == 8


def test_the_first_of_several_wrong_rows_is_named(collector: Collector) -> None:
    table = pa.table({"d": pa.array([0, 0, 5_000_000], pa.date32()), "e": pa.array([0, 5_000_000, 0], pa.date32())})
    report, error = emit(collector, table, event_type="t")
    assert (error.index, error.path) == (1, "e")
    assert report.total.acked == 1


@both
def test_an_event_that_cannot_be_accepted_is_named(collector: Collector, is_async: bool) -> None:
    table = pa.table({"t": ["a", "b", "", "c"], "b": [b"1", b"2", b"3", b"4"]})
    report, error = emit(collector, table, is_async=is_async, type_column="t", serializer="raw")
    assert isinstance(error, ValueError)
    assert str(error).startswith("row 2 of the table: ")
    assert report.total.acked == 2
    large = pa.table({"b": [b"1", b"x" * (9 << 20)]})
    _, error = emit(collector, large, is_async=is_async, event_type="t", serializer="raw", options={"wire": "proto"})
    if isinstance(error, Exception):
        assert isinstance(error, MessageTooLargeError)
        assert str(error).startswith("row 1 of the table: ")


@both
@pytest.mark.parametrize("overflow", ["raise", "drop_newest", "drop_oldest", "block"])
def test_overflow_applies_to_each_event(collector: Collector, overflow: str, is_async: bool) -> None:
    options = {"buffer_bytes": 1 << 16, "batch_bytes": 1 << 12, "overflow": overflow, "linger": 60}
    table = pa.table({"b": [b"x" * 1000] * 2000})
    report, result = emit(collector, table, is_async=is_async, options=options, event_type="t", serializer="raw")
    if overflow == "block":
        assert report.total.acked == 2000
    elif overflow == "raise":
        # A server that is fast may have taken them all.
        if isinstance(result, Exception):
            assert isinstance(result, BufferFull)
            assert str(result).startswith("row ")
        assert report.total.acked == report.total.accepted
    else:
        assert report.total.accepted == 2000 == report.total.acked + sum(report.total.dropped.values())


@both
@pytest.mark.parametrize(
    ("table", "arguments", "error", "message"),
    [
        ([("t", b"")], {"event_type": "t"}, TypeError, "a table has __arrow_c_stream__ or .*, and list has neither"),
        (pa.chunked_array([[1]]), {"event_type": "t"}, TypeError, "ChunkedArray is no table"),
        (pa.array([1]), {"event_type": "t"}, TypeError, "is no table"),
        (pa.table({"n": [1]}), {}, ValueError, "give type_column"),
        (pa.table({"n": [1]}), {"event_type": "t", "data_columns": ["x"]}, ValueError, "column 'x' is not there"),
        (pa.table({"b": [b"1"]}), {"event_type": "t"}, ValueError, "column 'b' cannot be JSON"),
    ],
)
def test_a_value_that_is_not_a_table_is_refused(
    collector: Collector, table: Any, arguments: Any, error: Any, message: str, is_async: bool
) -> None:
    report, raised = emit(collector, table, is_async=is_async, **arguments)
    with pytest.raises(error, match=message):
        raise raised
    assert report.total.accepted == 0


@both
def test_a_closed_producer_takes_no_table(collector: Collector, is_async: bool) -> None:
    async def main() -> None:
        producer: Any = AsyncProducer(collector.ws_url) if is_async else Producer(collector.ws_url)
        closing = producer.close()
        if is_async:
            await closing
        if is_async:
            with pytest.raises(RuntimeError, match="closed"):
                await producer.emit_table(pa.table({"n": []}), event_type="t")
        else:
            with pytest.raises(RuntimeError, match="closed"):
                producer.emit_table(pa.table({"n": []}), event_type="t")

    asyncio.run(main())


def test_a_stream_is_read_while_sending(collector: Collector) -> None:
    read: list[int] = []
    schema = pa.schema([("n", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(3):
            read.append(number)
            yield pa.record_batch([[number]], schema=schema)
        raise OSError("the disk is gone")

    report, error = emit(collector, pa.RecordBatchReader.from_batches(schema, batches()), event_type="t")
    assert isinstance(error, OSError)
    assert "the disk is gone" in str(error)
    # What came before was accepted.
    assert report.total.acked == 3
    assert read == [0, 1, 2]


@pytest.mark.parametrize("client_class", [RestClient, WebSocketClient, AsyncRestClient])
def test_clients_send_a_table_as_one_request(collector: Collector, client_class: Any) -> None:
    url = collector.ws_url if client_class is WebSocketClient else collector.url

    async def main() -> None:
        client = client_class(url, logger=None)
        is_async = client_class is AsyncRestClient

        async def send(table: Any, **arguments: Any) -> Any:
            result = client.send_table(table, **arguments)
            return await result if is_async else result

        result = await send(pa.Table.from_pylist(ROWS), event_type="t", req_guid="mine", timeout=10)
        assert result.req_guid == "mine"
        assert result.response.status.name == "SUCCESS"
        assert got(collector) == SENT
        with pytest.raises(ValueError, match="the table has no rows"):
            await send(pa.table({"n": []}), event_type="t")
        with pytest.raises(SerializationError, match="column 'd', row 1: "):
            await send(pa.table({"d": pa.array([0, 5_000_000], pa.date32())}), event_type="t")
        with pytest.raises(ValueError, match="give type_column"):
            await send(pa.table({"n": [1]}))
        assert len(collector.events) == 3
        closing = client.close()
        if is_async:
            await closing

    asyncio.run(main())


def test_a_table_given_as_events_names_the_right_method() -> None:
    producer: Any = Producer("null://")
    with pytest.raises(TypeError, match="emit_table of a producer and send_table of a client take it"):
        producer.emit_batch(of_pandas())
    producer.close()


def test_without_pyarrow_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from raccoon_fast import Producer\n"
        "producer = Producer('null://')\n"
        "try: producer.emit_table(object(), event_type='t')\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "tables need pyarrow" in result.stdout
    assert "pip install 'raccoon_fast[arrow]'" in result.stdout


def test_pyarrow_is_imported_for_tables_only() -> None:
    program = "import sys, raccoon_fast; raccoon_fast.Producer('null://').close(); print('pyarrow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_all_take_the_same_arguments() -> None:
    names = [*inspect.signature(Producer.emit_table).parameters]
    assert [*inspect.signature(AsyncProducer.emit_table).parameters] == names
    for cls in (RestClient, AsyncRestClient):
        assert [*inspect.signature(cls.send_table).parameters] == [*names, "req_guid", "timeout"]
