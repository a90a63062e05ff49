"""Producers with lanes against real collectors: trouble in one lane does not affect the others."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import patient, wait_until

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    AsyncProducer,
    BufferFull,
    ClientClosedError,
    DroppedError,
    Lane,
    Producer,
    RetryPolicy,
)
from raccoon_fast.collector import Collector

QUICK = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
OPTIONS: dict[str, Any] = {"serializer": RAW, "logger": None, "retry": QUICK, "linger": 0.001}
SCHEMES = ("ws", "http", "grpc")
needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")


def url_of(collector: Collector, scheme: str) -> str:
    return {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def new_producer() -> Iterator[Callable[..., Producer]]:
    made: list[Producer] = []

    def new(*args: Any, **options: Any) -> Producer:
        made.append(Producer(*args, **{**OPTIONS, **options}))
        return made[-1]

    yield new
    for producer in made:
        producer.close(timeout=0)


NewProducer = Callable[..., Producer]


def assert_balanced(report: Any) -> None:
    for counts in (report.total, *report.by_type.values(), *report.by_lane.values()):
        lost = sum(counts.failed.values()) + sum(counts.dropped.values()) + counts.expired
        left_out = counts.sampled + counts.filtered + counts.discarded
        assert counts.accepted == counts.acked + lost + left_out + counts.spooled + counts.queued + counts.in_flight
    for many in (report.by_type, report.by_lane):
        assert sum(counts.accepted for counts in many.values()) == report.total.accepted


def records(path: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return Counter(types for (types,) in db.execute("SELECT types FROM records"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_lane_has_its_own_batches(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    told: list[Any] = []
    lanes = {"payment": Lane(priority="high", on_delivery=told.append), "log": Lane(batch_events=3, priority="low")}
    producer = new_producer(
        url_of(collector, scheme),
        lanes=lanes,
        lane_of=lambda event_type: "log" if event_type.startswith("log.") else None,
        linger=60.0,
    )
    types = ["page", "log", "payment", "log.a", "log.b", "log.c", "page", "payment"]
    receipts = producer.emit_many([(event_type, b"%d" % number) for number, event_type in enumerate(types)])
    receipts.append(producer.emit("log", b"8"))
    assert producer.flush() == 0
    by_guid = {request.req_guid: request.event_count for request in collector.requests}
    assert sorted(by_guid.values()) == [2, 2, 2, 3]
    assert {receipt.req_guid for receipt in receipts} == set(by_guid)
    of_lane = [{event.type.partition(".")[0] for event in collector.events if event.req_guid == one} for one in by_guid]
    assert sorted(map(sorted, of_lane)) == [["log"], ["log"], ["page"], ["payment"]]
    report = producer.close()
    assert {name: counts.acked for name, counts in report.by_lane.items()} == {"default": 2, "payment": 2, "log": 5}
    assert_balanced(report)
    assert len(told) == 1  # the lane's own, once its batch was settled


def test_the_same_on_an_event_loop(collector: Collector) -> None:
    async def main() -> Any:
        lanes = {"payment": Lane(priority="high"), "log": Lane(overflow="drop_newest", sample=0.5)}
        async with AsyncProducer(
            collector.url, lanes=lanes, sample_key=lambda event: event.data, batch_events=10, **OPTIONS
        ) as producer:
            first = await producer.emit("payment", b"0")
            receipts = await producer.emit_many(
                (("log", "page", "payment")[number % 3], b"%d" % number) for number in range(300)
            )
            assert producer.emit_nowait("page", b"x") is not first
            assert (await first).status.name == "SUCCESS"
            assert all([(await receipt).status.name in ("SUCCESS", "UNSPECIFIED") for receipt in receipts])
        return producer.report

    report = asyncio.run(main())
    by_lane = report.by_lane
    assert (by_lane["default"].acked, by_lane["payment"].acked) == (101, 101)
    assert by_lane["log"].acked + by_lane["log"].sampled == 100
    assert 20 < by_lane["log"].sampled < 80
    assert_balanced(report)
    assert len(collector.events) == report.total.acked


def test_without_lanes_every_event_is_in_the_default_lane(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.url)
    producer.emit("a", b"")
    report = producer.close()
    assert report.by_lane == {"default": report.total}


def test_a_noisy_lane_evicts_and_delays_no_other(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    lanes = {
        "page": Lane(overflow="drop_oldest", buffer_bytes=20_000),
        "debug": Lane(overflow="drop_newest", buffer_bytes=20_000),
        "audit": Lane(overflow="raise", buffer_bytes=20_000, batch_bytes=5_000),
        "slow": Lane(overflow="block", block_timeout=0.05, buffer_bytes=20_000),
    }
    producer = new_producer(collector.url, lanes=lanes, buffer_bytes=200_000, batch_bytes=10_000)
    payments = [producer.emit("payment", b"%d" % number) for number in range(20)]
    receipts = {kind: [producer.emit(kind, bytes(1000)) for _ in range(200)] for kind in ("page", "debug")}
    for kind in ("audit", "slow"):
        with pytest.raises(BufferFull, match=f"the buffer of the lane {kind!r} is full: [0-9]+ of 20000 bytes"):
            [producer.emit(kind, bytes(1000)) for _ in range(200)]
    payments += [producer.emit("payment", b"%d" % number) for number in range(20, 40)]
    # The first ones may be on their way already.
    assert DroppedError in [type(receipt.exception(0)) for receipt in receipts["page"] if receipt.done()]
    assert isinstance(receipts["debug"][-1].exception(10), DroppedError)
    total = producer.stats().total
    assert set(total.dropped) == {"drop_oldest", "drop_newest"}
    by_lane = producer.stats().by_lane
    assert by_lane["page"].dropped["drop_oldest"] > 150
    assert by_lane["debug"].dropped["drop_newest"] > 150
    assert [sum(by_lane[name].dropped.values()) for name in ("default", "audit", "slow")] == [0, 0, 0]
    reasons = producer.health().reasons
    assert [name for name in lanes if f"the buffer of the lane {name!r} is nearly full" in reasons] == ["audit", "slow"]
    assert_balanced(producer.stats())
    collector.faults.accept()
    assert [receipt.result(20).status.name for receipt in payments] == ["SUCCESS"] * 40
    assert_balanced(producer.close())


def test_an_emit_that_waits_for_its_lane_continues_once_there_is_room(collector: Collector) -> None:
    collector.faults.delay(0.02)

    async def main() -> Any:
        lanes = {"a": Lane(buffer_bytes=4_000)}
        async with AsyncProducer(collector.url, lanes=lanes, buffer_bytes=40_000, batch_bytes=2_000, **OPTIONS) as one:
            await one.emit_many([("a", bytes(900)) for _ in range(30)])
            for _ in range(5):
                await one.emit_batch([("a", bytes(900))])
            with pytest.raises(BufferFull, match="of the lane 'a'"):
                [one.emit_nowait("a", bytes(900)) for _ in range(30)]
        return one.report

    report = asyncio.run(main())
    assert report.by_lane["a"].acked == report.total.accepted >= 35


def test_the_time_to_live_of_a_lane(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    lanes = {"page": Lane(ttl=0.1)}
    producer = new_producer(collector.url, lanes=lanes)
    page, payment = producer.emit("page", b"1"), producer.emit("payment", b"2")
    with pytest.raises(AckTimeoutError, match=r"expired after 0\.1 s"):
        page.result(10)
    assert not payment.done()
    collector.faults.accept()
    assert payment.result(20).status.name == "SUCCESS"
    report = producer.close()
    assert (report.by_lane["page"].expired, report.by_lane["default"].acked) == (1, 1)


def test_the_time_to_live_does_not_cut_a_running_attempt(collector: Collector, new_producer: NewProducer) -> None:
    """Cutting it would close the connection that other lanes use."""
    collector.faults.delay(1.0)
    producer = new_producer(collector.ws_url, lanes={"page": Lane(ttl=0.5)})
    assert producer.emit("page", b"1").result(20).status.name == "SUCCESS"
    assert len(collector.requests) == 1


def test_events_sampled_out(collector: Collector, new_producer: NewProducer) -> None:
    lanes = {"none": Lane(sample=0), "some": Lane(sample=0.3), "all": Lane()}
    producer = new_producer(collector.url, lanes=lanes, sample_key=lambda event: event.data)
    users = [b"user-%d" % number for number in range(500)]
    for kind in ("none", "some", "all", "some"):
        producer.emit_many([(kind, user) for user in users])
    receipt = producer.emit("none", b"x")
    assert receipt.result(0).reason == "left out by the lane's sample"
    assert producer.emit_batch([("none", b"1"), ("none", b"2")]).result(0).reason == receipt.result(0).reason
    report = producer.close()
    kept = Counter(event.data for event in collector.events if event.type == "some")
    assert 100 < len(kept) < 200
    assert set(kept.values()) == {2}  # a key's events are kept or left out together
    by_lane = report.by_lane
    assert (by_lane["none"].sampled, by_lane["none"].acked) == (503, 0)
    assert (by_lane["some"].sampled, by_lane["some"].acked) == (1000 - 2 * len(kept), 2 * len(kept))
    assert (by_lane["all"].sampled, by_lane["all"].acked) == (0, 500)
    assert report.total.lost == 0
    assert_balanced(report)


def test_a_batch_of_several_lanes_goes_with_the_highest(collector: Collector, new_producer: NewProducer) -> None:
    told: list[str] = []
    lanes = {
        "payment": Lane(priority="high", on_delivery=lambda receipt: told.append("payment")),
        "log": Lane(priority="low", on_delivery=lambda receipt: told.append("log")),
    }
    producer = new_producer(collector.url, lanes=lanes, on_delivery=lambda receipt: told.append("default"))
    for events in ([("log", b"1"), ("payment", b"2")], [("log", b"3"), ("page", b"4")], [("log", b"5")]):
        producer.emit_batch(events).result(10)
    producer.close()
    assert told == ["payment", "default", "log"]
    assert [request.event_count for request in collector.requests] == [2, 2, 1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_high_lane_goes_next(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    collector.faults.delay(0.05)
    lanes = {"payment": Lane(priority="high"), "debug": Lane(priority="low")}
    producer = new_producer(url_of(collector, scheme), lanes=lanes, batch_events=1, max_in_flight=1)
    for kind in ("debug", "page"):
        producer.emit_many([(kind, b"%d" % number) for number in range(20)])
    collector.wait_for(3)
    producer.emit_many([("payment", b"%d" % number) for number in range(5)])
    emitted = len(collector.events)
    assert producer.flush() == 0
    types = [event.type for event in collector.events]
    # The batch in flight, and the one whose attempt began before the payments were accepted, may come before them.
    last = len(types) - types[::-1].index("payment")
    assert last <= emitted + 2 + 5 + 1
    # Then the normal ones and, now and again, one of the low ones.
    assert types[last : last + 15].count("debug") <= 3
    assert Counter(types) == {"debug": 20, "page": 20, "payment": 5}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_high_lane_does_not_limit_what_others_send_to_a_far_server(
    collector: Collector, new_producer: NewProducer, scheme: str
) -> None:
    collector.faults.delay(0.3)  # so far that a busy machine's delays are small beside it
    lanes = {"payment": Lane(priority="high")}
    producer = new_producer(url_of(collector, scheme), lanes=lanes, batch_events=1, buffer_bytes=4 << 20)
    stop = threading.Event()

    def pour() -> None:
        with contextlib.suppress(ClientClosedError):
            while not stop.is_set():
                producer.emit("page", b"")

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        # Eight batches at first, of which the high lane's places stay free; more once the server proves to be far.
        wait_until(lambda: producer.stats().by_lane["default"].in_flight > 16)
    finally:
        stop.set()
        producer.close(0)
        thread.join()


def test_load_at_twice_the_server_s_capacity_does_not_delay_the_high_lane(new_producer: NewProducer) -> None:
    """The delay is measured in batches that the server takes between a payment's acceptance and the payment."""
    with Collector(acks="sync", publish_delay=0.02) as collector:  # five at a time: 250 batches a second
        lanes = {
            "payment": Lane(priority="high"),
            "page": Lane(overflow="drop_oldest", buffer_bytes=40_000),
            "debug": Lane(priority="low", overflow="drop_newest", buffer_bytes=40_000, ttl=0.3),
        }
        sizes = {"batch_events": 10, "batch_bytes": 10_000, "buffer_bytes": 400_000}
        producer = new_producer(collector.ws_url, lanes=lanes, **sizes)
        stop = threading.Event()

        def pour() -> None:
            began_s, emitted = time.monotonic(), 0
            while not stop.wait(0.002):
                due = (time.monotonic() - began_s) * 5_000  # events a second, where the server takes half of it
                while emitted < due:
                    producer.emit(("page", "debug")[emitted // 10 % 2], bytes(200))
                    emitted += 1

        def lanes_fill() -> bool:
            by_lane = producer.stats().by_lane
            return bool(by_lane["page"].dropped and (by_lane["debug"].expired or by_lane["debug"].dropped))

        thread = threading.Thread(target=pour)
        thread.start()
        try:
            wait_until(lanes_fill)
            passed = []
            for number in range(100):
                before = len(collector.requests)
                receipt = producer.emit("payment", b"%d" % number)
                receipt.result(patient(20))
                later = collector.requests[before:]
                passed.append([request.req_guid for request in later].index(receipt.req_guid))
        finally:
            stop.set()
            thread.join()
        report = producer.close()
        passed.sort()
        # Those in flight are before it. The buffers hold forty batches, and in a single queue all of them would be.
        assert passed[50] <= 12, passed
        assert passed[98] < 40, passed
        by_lane = report.by_lane
        assert by_lane["payment"].acked == 100
        assert by_lane["page"].dropped
        assert by_lane["page"].acked > by_lane["debug"].acked > 0  # which is not starved
        assert_balanced(report)


def test_a_flush_waits_for_every_lane(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.delay(0.05)
    lanes = {"a": Lane(linger=60.0), "b": Lane(linger=60.0, priority="low")}
    producer = new_producer(collector.url, lanes=lanes)
    for kind in ("a", "b", "c"):
        producer.emit(kind, b"")
    assert producer.flush(0) == 3
    assert producer.flush() == 0
    assert len(collector.events) == 3


def test_remaining_events_of_each_lane_fail_at_close(new_producer: NewProducer) -> None:
    lanes = {"a": Lane(priority="high"), "b": Lane(linger=60.0)}
    producer = new_producer("http://127.0.0.1:1", lanes=lanes)
    receipts = [producer.emit(kind, b"") for kind in ("a", "b", "c")]
    report = producer.close(timeout=0.05)
    assert [counts.failed for counts in report.by_lane.values()] == [{"closed": 1}] * 3
    assert all(receipt.done() for receipt in receipts)


@needs_flock
class TestSpool:
    def test_a_durable_lane_is_stored_and_the_others_are_not(
        self, collector: Collector, new_producer: NewProducer, tmp_path: Path
    ) -> None:
        collector.faults.delay(patient(2))
        path = tmp_path / "spool"
        producer = new_producer(collector.url, spool=path, lanes={"payment": Lane(durable=True)}, timeout=patient(10))
        producer.emit("payment", b"1")
        producer.emit("page", b"2")
        collector.wait_for(2)
        assert records(path) == {'{"payment": 1}': 1}
        assert producer.flush() == 0
        wait_until(lambda: not records(path))

    def test_expired_events_are_not_kept_on_disk(self, new_producer: NewProducer, tmp_path: Path) -> None:
        path = tmp_path / "spool"
        lanes = {"page": Lane(ttl=0.1), "log": Lane(ttl=0.1, durable=True)}
        producer = new_producer("http://127.0.0.1:1", spool=path, lanes=lanes, delivery_timeout=0.2)
        receipts = [producer.emit(kind, b"1") for kind in ("page", "log", "payment")]
        wait_until(lambda: producer.stats().by_lane["default"].spooled == 1)
        wait_until(lambda: producer.stats().total.expired == 2)
        assert all(isinstance(receipt.exception(10), AckTimeoutError) for receipt in receipts[:2])
        wait_until(lambda: records(path) == {'{"payment": 1}': 1})
        assert_balanced(producer.stats())

    def test_the_next_process_knows_the_lanes_of_adopted_records(
        self, collector: Collector, new_producer: NewProducer, tmp_path: Path
    ) -> None:
        path = tmp_path / "spool"
        first = new_producer("http://127.0.0.1:1", spool=path)
        for kind in ("page", "payment"):
            first.emit_batch([(kind, b"1")])
        assert first.close(timeout=0.05).total.spooled == 2
        time.sleep(0.1)  # the age that ends the life of the page
        told: list[str] = []
        lanes = {"page": Lane(ttl=0.1), "payment": Lane(on_delivery=lambda receipt: told.append("payment"))}
        second = new_producer(collector.url, spool=path, lanes=lanes)
        wait_until(lambda: second.stats().total.acked + second.stats().total.expired == 2)
        assert [event.type for event in collector.events] == ["payment"]
        wait_until(lambda: told == ["payment"])
        report = second.close()
        assert (report.by_lane["page"].expired, report.by_lane["payment"].acked) == (1, 1)

    def test_a_lane_moves_overflow_to_disk(
        self, collector: Collector, new_producer: NewProducer, tmp_path: Path
    ) -> None:
        collector.faults.refuse()
        lanes = {"log": Lane(overflow="spool", buffer_bytes=20_000)}
        producer = new_producer(collector.url, spool=tmp_path / "spool", lanes=lanes, buffer_bytes=200_000,
                                batch_bytes=5_000)  # fmt: skip
        payment = producer.emit("payment", b"1")
        producer.emit_many([("log", bytes(1000)) for _ in range(200)])
        report = producer.stats()
        assert (report.by_lane["log"].spooled > 100, report.by_lane["default"].spooled) == (True, 0)
        collector.faults.accept()
        payment.result(20)
        wait_until(lambda: producer.stats().total.acked == 201)
        assert_balanced(producer.close())

    def test_spooled_events_come_back_though_a_lane_is_never_empty(
        self, new_producer: NewProducer, tmp_path: Path
    ) -> None:
        path = tmp_path / "spool"
        first = new_producer("http://127.0.0.1:1", spool=path)
        first.emit_batch([("payment", b"1")])
        assert first.close(timeout=0.05).total.spooled == 1
        with Collector(acks="sync", publish_delay=0.01) as collector:
            lanes = {"payment": Lane(priority="high"), "page": Lane(overflow="drop_oldest", buffer_bytes=40_000)}
            second = new_producer(
                collector.url, spool=path, lanes=lanes, batch_events=2, batch_bytes=5_000, buffer_bytes=200_000
            )

            def is_back() -> bool:
                second.emit_many([("page", bytes(1000)) for _ in range(30)])
                return second.stats().by_lane["payment"].acked == 1

            wait_until(is_back)
            assert second.stats().by_lane["page"].dropped


PRIORITIES = st.sampled_from(["high", "normal", "low"])
LANES = st.builds(
    Lane,
    priority=PRIORITIES,
    overflow=st.sampled_from(["drop_newest", "drop_oldest", "raise"]),
    ttl=st.sampled_from([None, 0.01, 60.0]),
    sample=st.sampled_from([1.0, 0.5, 0.0]),
    batch_events=st.sampled_from([None, 1, 3]),
    buffer_bytes=st.sampled_from([None, 2_000]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["emit", "emit_many", "emit_batch", "flush", "refuse", "accept", "fail"]),
        st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=8),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def published() -> Iterator[Collector]:
    with Collector(acks="sync") as running:
        yield running


@settings(max_examples=25, deadline=None)
@given(lanes=st.dictionaries(st.sampled_from(["a", "b", "c"]), LANES, min_size=1), steps=STEPS)
def test_the_ledger_adds_up_whatever_the_lanes(
    published: Collector, lanes: dict[str, Lane], steps: list[tuple[str, list[str]]]
) -> None:
    collector = published
    collector.faults.accept()
    collector.faults.clear()
    collector.clear()
    handed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    receipts: list[Any] = []
    with Producer(
        collector.url, lanes=lanes, batch_bytes=1_000, buffer_bytes=20_000, delivery_timeout=1.0, overflow="raise",
        before_send=lambda event: None if event.data == b"drop" else event, **OPTIONS,
    ) as producer:  # fmt: skip
        for name, types in steps:
            events = [(kind, b"drop" if number % 5 == 4 else bytes(150)) for number, kind in enumerate(types)]
            if name == "flush":
                producer.flush(0.01)
            elif name == "refuse":
                collector.faults.refuse()
            elif name == "accept":
                collector.faults.accept()
            elif name == "fail":
                collector.faults.fail_publish(times=2)
            elif name == "emit_batch":
                try:
                    receipts.append(producer.emit_batch(events))
                except BufferFull:
                    refused.update(kind for kind, _ in events)
                handed.update(kind for kind, _ in events)
            else:
                for event in events:
                    try:
                        receipts += producer.emit_many([event]) if name == "emit_many" else [producer.emit(*event)]
                    except BufferFull:
                        refused[event[0]] += 1
                    handed[event[0]] += 1
            assert_balanced(producer.stats())
        collector.faults.accept()
        report = producer.close(timeout=5)
    assert_balanced(report)
    assert report.total.unsettled == 0
    assert {kind: counts.accepted for kind, counts in report.by_type.items()} == dict(handed - refused)
    assert all(receipt.done() for receipt in receipts)
    assert [accumulator.buffered for accumulator in producer._accumulators] == [0] * (1 + len(lanes))
    assert len(collector.events) >= report.total.acked
