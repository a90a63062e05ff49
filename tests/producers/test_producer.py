"""The Producer against real collectors: batching, outcomes, overflow and the ledger."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from begun import Begun
from fault_proxy import FaultProxy
from patience import patient, wait_until
from trial import port_of

from raccoon_fast import (
    JSON,
    RAW,
    AckTimeoutError,
    BufferFull,
    ClientClosedError,
    ConnectError,
    DroppedError,
    EventsRejectedError,
    MessageTooLargeError,
    Outcome,
    Producer,
    RetryPolicy,
)
from raccoon_fast.collector import Collector
from raccoon_fast.core.batch import Batch

QUICK = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
SCHEMES = ("ws", "http", "grpc")


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
        options = {"serializer": RAW, "logger": None, "retry": QUICK, "linger": 0.001, **options}
        made.append(Producer(*args, **options))
        return made[-1]

    yield new
    for producer in made:
        producer.close(timeout=0)


NewProducer = Callable[..., Producer]


def balance(counts: Any) -> int:
    settled = counts.acked + sum(counts.failed.values()) + sum(counts.dropped.values()) + counts.expired
    settled += counts.sampled + counts.filtered + counts.discarded
    return int(settled + counts.spooled + counts.queued + counts.in_flight)


def assert_balanced(producer: Producer) -> None:
    report = producer.stats()
    assert balance(report.total) == report.total.accepted
    for counts in report.by_type.values():
        assert balance(counts) == counts.accepted
    assert sum(counts.accepted for counts in report.by_type.values()) == report.total.accepted


@pytest.mark.parametrize("scheme", SCHEMES)
def test_events_arrive_as_emitted(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    producer = new_producer(url_of(collector, scheme), batch_events=100)
    sent = [(f"type-{number % 3}", b"%d" % number) for number in range(1050)]
    receipts = producer.emit_many(sent[:1000])
    receipts += [producer.emit(*event) for event in sent[1000:]]
    report = producer.close()
    assert Counter((event.type, event.data) for event in collector.events) == Counter(sent)
    assert {receipt.result(0).status.name for receipt in receipts} == {"SUCCESS"}
    assert (report.total.accepted, report.total.acked) == (1050, 1050)
    assert {name: counts.acked for name, counts in report.by_type.items()} == {f"type-{n}": 350 for n in range(3)}
    assert {request.req_guid for request in collector.requests} == {receipt.req_guid for receipt in receipts}


def test_a_batch_is_sealed_by_count(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, batch_events=10, linger=60.0)
    receipts = producer.emit_many(("a", b"x") for _ in range(20))
    assert [receipt.result(patient(10)).status.name for receipt in receipts] == ["SUCCESS"] * 2
    producer.emit("a", b"x")
    assert producer.stats().total.queued == 1
    assert [request.event_count for request in collector.requests] == [10, 10]


def test_a_batch_is_sealed_by_bytes(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, batch_bytes=1000, linger=60.0)
    producer.emit_many(("a", bytes(400)) for _ in range(5))
    producer.flush()
    assert [request.event_count for request in collector.requests] == [2, 2, 1]


def test_a_batch_is_sealed_by_linger(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, linger=0.01)
    assert producer.emit("a", b"x").result(patient(10)).status.name == "SUCCESS"
    assert producer.emit("a", b"y").result(patient(10)).status.name == "SUCCESS"
    assert [request.event_count for request in collector.requests] == [1, 1]


def test_a_batch_may_be_sent_before_its_opening_is_reported(collector: Collector, new_producer: NewProducer) -> None:
    """This happens when the linger of the previous batch ends at that very moment."""
    producer = new_producer(collector.ws_url, linger=60.0)
    producer.emit("a", b"first")
    assert producer.flush() == 0
    told = producer._accumulator.on_open

    def on_open(batch: Any) -> None:
        receipt = batch.receipt
        producer._accumulator.seal()
        wait_until(receipt.done)
        told(batch)

    producer._accumulator.on_open = on_open
    assert producer.emit("a", b"x").result(0).status.name == "SUCCESS"
    assert producer.emit("a", b"y").result(0).status.name == "SUCCESS"


def test_events_of_a_batch_share_its_receipt(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, linger=60.0)
    first, second = producer.emit("a", b"1"), producer.emit("b", b"2")
    assert first is second
    assert producer.flush() == 0
    assert first.done()
    assert producer.emit("a", b"3") is not first


def test_wire_json_and_the_json_serializer(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, wire="json", serializer=JSON)
    producer.emit("a", {"n": 1})
    producer.flush()
    assert [event.data for event in collector.events] == [b'{"n":1}']


def test_a_serializer_s_error_reaches_the_caller(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, serializer=JSON)
    with pytest.raises(TypeError):
        producer.emit("a", object())
    with pytest.raises(TypeError):
        producer.emit_many([("a", 1), ("a", object()), ("a", 2)])
    report = producer.close()
    assert (report.total.accepted, report.total.acked) == (1, 1)


def test_an_event_over_the_limit_is_refused_at_once(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(f"grpc://{collector.grpc_target}")
    with pytest.raises(MessageTooLargeError) as caught:
        producer.emit("a", bytes(4 << 20))
    assert caught.value.size > caught.value.limit > 3 << 20
    assert producer.emit("a", bytes(2 << 20)).result(patient(20)).status.name == "SUCCESS"
    assert producer.stats().total.accepted == 1


def test_emit_after_close(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url)
    producer.emit("a", b"x")
    report = producer.close()
    with pytest.raises(ClientClosedError):
        producer.emit("a", b"x")
    with pytest.raises(ClientClosedError):
        producer.emit_many([("a", b"x")])
    assert producer.close() is report is producer.report
    assert producer.flush() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_comes_back(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    collector.faults.refuse()
    producer = new_producer(url_of(collector, scheme))
    receipt = producer.emit("a", b"x")
    wait_until(lambda: not producer.health().ok)
    assert not receipt.done()
    assert "no server is healthy" in producer.health().reasons[0]
    collector.faults.accept()
    assert receipt.result(patient(10)).status.name == "SUCCESS"
    assert producer.health().ok
    assert_balanced(producer)


def test_a_batch_that_is_not_acknowledged_in_time_expires(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.drop_acks()
    producer = new_producer(collector.ws_url, delivery_timeout=0.3, timeout=0.1)
    error = producer.emit("a", b"x").exception(patient(10))
    assert isinstance(error, AckTimeoutError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED
    assert producer.stats().total.expired == 1
    assert_balanced(producer)
    collector.faults.refuse()
    producer = new_producer(collector.ws_url, delivery_timeout=0.3, timeout=0.1)  # which has no connection yet
    error = producer.emit("b", b"x").exception(patient(10))
    assert isinstance(error, AckTimeoutError)
    assert error.outcome is Outcome.NOT_DELIVERED
    assert producer.stats().total.expired == 1
    assert_balanced(producer)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_events_at_fault_are_found_and_the_others_delivered(
    collector: Collector, new_producer: NewProducer, scheme: str
) -> None:
    collector.faults.reject_events("bad")
    producer = new_producer(url_of(collector, scheme), linger=60.0)
    events = [("bad" if number in (17, 80) else "good", b"%d" % number) for number in range(100)]
    (receipt,) = producer.emit_many(events)
    assert producer.flush(patient(20)) == 0
    error = receipt.exception(0)
    assert isinstance(error, EventsRejectedError)
    assert sorted((event.type, event.data) for event in error.rejected) == [("bad", b"17"), ("bad", b"80")]
    assert all(event.reason for event in error.rejected)
    assert sorted(int(event.data) for event in collector.events) == [n for n in range(100) if n not in (17, 80)]
    total = producer.stats().total
    assert (total.acked, sum(total.failed.values())) == (98, 2)
    guids = [request.req_guid for request in collector.requests]
    assert len(set(guids)) == len(guids)
    assert_balanced(producer)


def test_finding_events_at_fault_costs_a_bounded_number_of_requests(
    collector: Collector, new_producer: NewProducer
) -> None:
    collector.faults.reject_events("bad")
    producer = new_producer(collector.url, linger=60.0)
    producer.emit_many(("bad", b"x") for _ in range(1000))
    assert producer.flush(patient(20)) == 0
    assert collector.faults.fired["reject_events"] <= 70
    assert producer.stats().total.failed == {"BAD_REQUEST": 1000}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_too_large_is_split(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    collector.faults.too_large(3000)
    producer = new_producer(url_of(collector, scheme), linger=60.0)
    (receipt,) = producer.emit_many([("a", bytes(1000))] * 8)
    assert producer.flush(patient(20)) == 0
    assert receipt.result(0).status.name == "SUCCESS"
    assert collector.event_count == 8
    large, small = producer.emit_many([("a", bytes(4000)), ("a", b"x")])
    assert producer.flush(patient(20)) == 0
    assert isinstance(large.exception(0), EventsRejectedError)
    assert small.exception(0) is None
    assert collector.event_count == 9
    assert producer.stats().total.failed == {"too large": 1}
    assert_balanced(producer)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_discovered_size_limit_is_obeyed(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    collector.faults.too_large(3000)
    producer = new_producer(url_of(collector, scheme), linger=60.0)
    producer.emit_many([("a", bytes(500))] * 40)
    assert producer.flush(patient(20)) == 0
    refused = collector.faults.fired["too_large"]
    assert refused
    producer.emit_many([("a", bytes(500))] * 40)
    assert producer.flush(patient(20)) == 0
    assert collector.faults.fired["too_large"] == refused
    assert producer.close().total.acked == 80
    assert collector.event_count == 80


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_of_the_caller_s_keeps_its_guid(collector: Collector, new_producer: NewProducer, scheme: str) -> None:
    producer = new_producer(url_of(collector, scheme), batch_events=10, linger=60.0)
    producer.emit("open", b"")
    events = [("a", b"%d" % number) for number in range(25)]
    receipt = producer.emit_batch(iter(events), req_guid="mine")
    assert receipt.req_guid == "mine"
    assert receipt.result(patient(10)).status.name == "SUCCESS"
    assert [(event.req_guid, event.type, event.data) for event in collector.events] == [("mine", *it) for it in events]
    fresh = producer.emit_batch(events)
    assert len(fresh.req_guid) == 36
    assert producer.flush() == 0
    assert [request.event_count for request in collector.requests] == [25, 25, 1]
    assert producer.close().total.acked == 51


def test_a_batch_of_the_caller_s_is_refused_whole(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.url, serializer=JSON, batch_bytes=10_000, buffer_bytes=20_000)
    with pytest.raises(ValueError, match="at least one event"):
        producer.emit_batch([])
    with pytest.raises(TypeError, match="req_guid takes a str, not int"):
        producer.emit_batch([("a", 1)], req_guid=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="req_guid must be 1 to 1024"):
        producer.emit_batch([("a", 1)], req_guid="")
    with pytest.raises(TypeError, match=r"events\[1\] of type .a.: JSON cannot encode the data at \$: object"):
        producer.emit_batch([("a", 1), ("a", object())])
    with pytest.raises(MessageTooLargeError, match="fewer of its 3 events"):
        producer.emit_batch([("a", "x" * 8000)] * 3)
    assert producer.emit_batch([("a", 1)]).result(patient(10)).status.name == "SUCCESS"
    assert [event.data for event in collector.events] == [b"1"]
    assert producer.close().total.accepted == 1
    with pytest.raises(ClientClosedError):
        producer.emit_batch([("a", 1)])


def test_a_batch_emitted_again_is_split_into_the_same_requests(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.reject_events("bad")
    producer = new_producer(collector.url)
    events = [("bad" if number in (3, 70) else "good", b"%d" % number) for number in range(100)]
    seen = []
    for _ in range(2):
        collector.clear()
        error = producer.emit_batch(events, req_guid="mine").exception(patient(10))
        assert isinstance(error, EventsRejectedError)
        assert sorted(event.data for event in error.rejected) == [b"3", b"70"]
        seen.append(sorted((event.req_guid, event.data) for event in collector.events))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 98


def test_failed_publishing_is_tried_again(new_producer: NewProducer) -> None:
    with Collector(acks="sync") as collector:
        collector.faults.fail_publish(times=3)
        producer = new_producer(collector.ws_url, batch_events=10)
        producer.emit_many(("a", b"x") for _ in range(100))
        report = producer.close()
        assert report.total.acked == 100
        assert report.retries == 3


def test_a_server_that_acknowledges_on_receipt_does_not_tell_of_failed_publishing(
    collector: Collector, new_producer: NewProducer
) -> None:
    collector.faults.fail_publish()
    producer = new_producer(collector.ws_url)
    producer.emit("a", b"x")
    report = producer.close()
    collector.wait_until(lambda it: it.faults.fired.get("fail_publish") == 1)
    assert (report.total.acked, collector.event_count, report.server_acks) == (1, 0, "received")


def test_max_attempts_ends_a_batch(new_producer: NewProducer) -> None:
    with Collector(acks="sync") as collector:
        collector.faults.fail_publish()
        producer = new_producer(collector.ws_url, retry=RetryPolicy(max_attempts=2, initial=0.01))
        error = producer.emit("a", b"x").exception(patient(10))
        assert error is not None
        assert error.attempts == 2
        assert producer.stats().total.failed == {"INTERNAL_ERROR": 1}


def test_a_policy_without_a_bound_gives_nothing_up(new_producer: NewProducer, collector: Collector) -> None:
    collector.faults.status(503, times=10)
    producer = new_producer(collector.url, retry=RetryPolicy(initial=0.001))
    assert producer.emit("a", b"x").result(patient(20)).status.name == "SUCCESS"
    assert producer.stats().retries == 10


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_far_server_uses_all_of_max_in_flight(scheme: str, collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.delay(0.3)
    producer = new_producer(url_of(collector, scheme), batch_events=50, batch_bytes=4_000_000)
    producer.emit_many([("a", bytes(5000))] * 50 * 24)
    wait_until(lambda: producer.stats().total.in_flight == 8 * 50)
    collector.faults.clear()
    assert producer.flush(patient(20)) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_events_wait_for_an_authorization_that_cannot_be_had(
    scheme: str, collector: Collector, new_producer: NewProducer
) -> None:
    calls = 0

    def token() -> str:
        nonlocal calls
        calls += 1
        if calls in (2, 3, 5):
            raise LookupError("the issuer of tokens is away")
        return "Bearer t"

    producer = new_producer(url_of(collector, scheme), auth=token, batch_events=1)
    for number in range(10):
        producer.emit("a", b"%d" % number)
        assert producer.flush(patient(20)) == 0
    assert producer.stats().total.acked == 10
    assert {event.data for event in collector.events} == {b"%d" % number for number in range(10)}


# Events of 1000 bytes in a buffer of 50,000, for which they take some bytes more, and their batches do.
FITTING = range(36, 50)


class TestOverflow:
    """At the bound of buffer_bytes, with a server that does not answer."""

    @pytest.fixture
    def stalled(self) -> Iterator[Collector]:
        with Collector() as collector:
            collector.faults.drop_acks()
            yield collector

    def fill(self, producer: Producer, data: bytes = bytes(1000)) -> int:
        with pytest.raises(BufferFull):
            producer.emit_many(("a", data) for _ in range(1000))
        return producer.stats().total.accepted

    def test_raise(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(stalled.url, overflow="raise", batch_bytes=10_000, buffer_bytes=50_000, timeout=60)
        accepted = self.fill(producer)
        assert accepted in FITTING
        with pytest.raises(BufferFull) as caught:
            producer.emit("a", bytes(1000))
        assert caught.value.limit == 50_000
        assert 48_000 < caught.value.buffered < 53_000
        assert producer.stats().total.accepted == accepted
        assert not producer.health().ok
        assert_balanced(producer)

    @pytest.mark.parametrize("overflow", ["block", "raise"])
    def test_an_open_batch_makes_room_for_a_large_event(
        self, collector: Collector, new_producer: NewProducer, overflow: str
    ) -> None:
        producer = new_producer(
            collector.ws_url, overflow=overflow, linger=600, batch_bytes=50_000, buffer_bytes=100_000
        )
        producer.emit("a", bytes(45_000))  # waits for its linger
        while True:
            try:
                receipt = producer.emit("a", bytes(75_000))
                break
            except BufferFull:
                assert overflow == "raise"
                wait_until(lambda: collector.event_count == 1)
        assert producer.flush() == 0
        assert receipt.result(0)

    def test_drop_newest(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(
            stalled.url, overflow="drop_newest", batch_bytes=10_000, buffer_bytes=50_000, timeout=60
        )
        receipts = [producer.emit("a", bytes(1000)) for _ in range(100)]
        assert isinstance(receipts[-1].exception(0), DroppedError)
        assert not receipts[0].done()
        total = producer.stats().total
        assert (total.accepted, [*total.dropped]) == (100, ["drop_newest"])
        assert 100 - total.lost in FITTING
        assert_balanced(producer)

    def test_drop_oldest(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(
            stalled.url,
            overflow="drop_oldest",
            batch_events=5,
            batch_bytes=10_000,
            buffer_bytes=50_000,
            timeout=60,
            max_in_flight=1,
        )
        receipts = [producer.emit("a", b"%4d" % number + bytes(996)) for number in range(100)]
        wait_until(lambda: producer.stats().total.in_flight == 5)
        assert receipts[-1].done() is False
        dropped = [isinstance(receipt.exception(0), DroppedError) for receipt in receipts if receipt.done()]
        assert dropped
        assert all(dropped)
        total = producer.stats().total
        assert total.accepted == 100
        assert total.dropped == {"drop_oldest": len(dropped)}
        stalled.faults.clear()
        assert_balanced(producer)

    def test_a_batch_is_dropped_by_one_thread(
        self, stalled: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While it counts the batch, no other thread can find, count and reuse it."""
        options = {"batch_events": 1, "batch_bytes": 1000, "buffer_bytes": 20_000, "max_in_flight": 1, "timeout": 60}
        producer = new_producer(stalled.url, overflow="drop_oldest", **options)
        adding = producer._ledger.adding
        others: list[int] = []

        def count(*arguments: Any) -> Any:
            others.append(len(producer._dropping[0].uncounted))
            return adding(*arguments)

        monkeypatch.setattr(producer._ledger, "adding", count)
        for _ in range(100):
            producer.emit("a", bytes(500))
        assert others
        assert set(others) == {0}
        producer.close(0)
        assert producer.stats().total.dropped == {"drop_oldest": len(others)}

    def test_a_batch_built_by_the_caller(self, stalled: Collector, new_producer: NewProducer) -> None:
        options = {"batch_bytes": 10_000, "buffer_bytes": 20_000, "timeout": 60, "block_timeout": 0.05}
        events = [("a", bytes(1000)), ("b", bytes(1000))]
        raising, blocking, dropping, oldest = (
            new_producer(stalled.url, overflow=overflow, **options)
            for overflow in ("raise", "block", "drop_newest", "drop_oldest")
        )
        for producer in (raising, blocking):
            with pytest.raises(BufferFull):
                [producer.emit_batch(events) for _ in range(20)]
            assert producer.stats().total.accepted in range(8, 19, 2)
        receipts = [dropping.emit_batch(events) for _ in range(20)]
        assert isinstance(receipts[-1].exception(0), DroppedError)
        assert dropping.stats().by_type["b"].dropped == {"drop_newest": 20 - dropping.stats().total.unsettled // 2}
        receipts = [oldest.emit_batch(events) for _ in range(30)]
        assert oldest.stats().total.dropped
        for producer in (raising, blocking, dropping, oldest):
            assert_balanced(producer)

    def test_block_until_there_is_room(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(stalled.url, batch_bytes=10_000, buffer_bytes=50_000, timeout=0.2)
        done = threading.Event()

        def emit() -> None:
            for _ in range(100):
                producer.emit("a", bytes(1000))
            done.set()

        thread = threading.Thread(target=emit)
        thread.start()
        wait_until(lambda: producer._room.waiting == 1)
        assert producer.stats().total.accepted in FITTING
        assert not done.wait(0.05)
        stalled.faults.clear()
        assert done.wait(patient(10))
        thread.join()
        assert producer.flush() == 0
        assert producer.stats().total.acked == 100

    def test_block_ends_at_its_timeout(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(stalled.url, batch_bytes=10_000, buffer_bytes=50_000, timeout=60, block_timeout=0.05)
        assert self.fill(producer) in FITTING
        assert_balanced(producer)

    def blocked(self, producer: Producer) -> tuple[threading.Thread, list[BaseException]]:
        """A thread whose `emit` waits for room, and what has ended it by closing."""
        ended: list[BaseException] = []

        def emit() -> None:
            try:
                for _ in range(100):
                    producer.emit("a", bytes(1000))
            except ClientClosedError as error:
                ended.append(error)

        thread = threading.Thread(target=emit)
        thread.start()
        wait_until(lambda: producer._room.waiting == 1)
        return thread, ended

    def test_close_ends_a_blocked_emit(self, stalled: Collector, new_producer: NewProducer) -> None:
        producer = new_producer(stalled.url, batch_bytes=10_000, buffer_bytes=50_000, timeout=60)
        thread, ended = self.blocked(producer)
        report = producer.close(timeout=0)
        thread.join(patient(10))
        assert len(ended) == 1
        assert report.total.failed["closed"] in FITTING
        assert_balanced(producer)

    def test_a_blocked_emit_is_woken_as_close_begins(
        self, stalled: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`close` waits for requests in flight, so it makes no room yet."""
        monkeypatch.setattr("raccoon_fast.producers.producer._SPILL_AGAIN_S", 600.0)
        monkeypatch.setattr("raccoon_fast.threads.SLICE_S", 600.0)
        options = {"batch_bytes": 10_000, "buffer_bytes": 50_000, "timeout": 600.0, "block_timeout": 600.0}
        producer = new_producer(stalled.ws_url, **options)
        emitting, ended = self.blocked(producer)
        closing = threading.Thread(target=producer.close, args=(600.0,))
        closing.start()
        wait_until(lambda: ended)
        assert closing.is_alive()
        stalled.faults.clear()
        stalled.faults.close_connections()
        closing.join(patient(15))
        emitting.join(patient(15))
        assert not closing.is_alive()
        assert_balanced(producer)

    def test_a_flush_ends_when_all_its_events_are_dropped(self, new_producer: NewProducer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        once = RetryPolicy(max_attempts=1, initial=600.0, maximum=600.0, jitter=None)
        options = {"batch_bytes": 50_000, "buffer_bytes": 100_000, "linger": 600.0, "retry": once}
        producer = new_producer(f"http://127.0.0.1:{port}", overflow="drop_oldest", **options)
        first = producer.emit("a", b"x")
        producer.flush(patient(10))
        assert isinstance(first.exception(0), ConnectError)  # and the server is not tried again from here on
        receipts = [producer.emit("a", bytes(1000)) for _ in range(3)]
        assert producer.flush(0.1) == 3
        (lane,) = producer._engine._lanes.all
        wait_until(lambda: not lane.outstanding._flushes)
        unsettled: list[int] = []
        flushing = threading.Thread(target=lambda: unsettled.append(producer.flush(600.0)))
        flushing.start()
        wait_until(lambda: lane.outstanding._flushes)
        for _ in range(60):
            producer.emit("a", bytes(1000))
        loop = producer._thread.loop  # has seen then what these have sealed; those that follow seal nothing
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(patient(10))
        assert flushing.is_alive()
        while not receipts[-1].done():
            producer.emit("a", bytes(1000))
        flushing.join(patient(15))
        assert unsettled == [0]


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_as_many_connections_as_were_asked_for(scheme: str, new_producer: NewProducer) -> None:
    with Collector(sink="null") as collector, FaultProxy(port_of(collector, scheme)) as proxy:
        collector.faults.delay(0.02)
        producer = new_producer(f"{scheme}://127.0.0.1:{proxy.port}", connections=3, batch_events=1)
        producer.emit_many([("a", b"x")] * 60)
        assert producer.flush(patient(30)) == 0
        assert proxy.connections == 3
        producer.close()


def test_close_is_bounded_and_reports_remaining_events(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.drop_acks()
    producer = new_producer(collector.ws_url, batch_events=2)
    receipts = producer.emit_many(("a", b"x") for _ in range(7))
    start_s = time.monotonic()
    report = producer.close(timeout=0.2)
    assert time.monotonic() - start_s < patient(3)
    assert report.total.failed == {"closed": 7}
    errors = [receipt.exception(0) for receipt in receipts]
    assert {type(error) for error in errors} == {ClientClosedError}
    assert {getattr(error, "outcome", None) for error in errors} == {Outcome.POSSIBLY_DELIVERED}


def test_callbacks_run_on_one_thread_and_may_fail(collector: Collector, new_producer: NewProducer) -> None:
    threads: set[str] = set()
    seen: list[str] = []

    def on_delivery(receipt: Any) -> None:
        threads.add(threading.current_thread().name)
        seen.append(receipt.req_guid)
        raise RuntimeError("a user's mistake")

    producer = new_producer(collector.ws_url, batch_events=1, on_delivery=on_delivery)
    receipts = producer.emit_many(("a", b"x") for _ in range(5))
    producer.close()
    assert sorted(seen) == sorted(receipt.req_guid for receipt in receipts)
    assert threads == {"raccoon_fast-callbacks"}


def test_a_callback_may_emit(collector: Collector, new_producer: NewProducer) -> None:
    producer: Producer

    def on_delivery(receipt: Any) -> None:
        if collector.event_count < 3:
            producer.emit("again", b"x")

    producer = new_producer(collector.ws_url, on_delivery=on_delivery)
    producer.emit("a", b"x")
    collector.wait_for(3)


def test_acks(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, batch_events=1)
    with producer.acks() as acks:
        receipts = producer.emit_many(("a", b"x") for _ in range(3))
        producer.close()
        assert {ack.req_guid for ack in acks} == {receipt.req_guid for receipt in receipts}


def test_acks_of_an_unused_producer_end_with_it_and_a_closed_one_refuses(
    collector: Collector, new_producer: NewProducer
) -> None:
    producer = new_producer(collector.ws_url)
    acks = producer.acks()
    producer.close()
    assert acks.get(patient(5)) is None
    with pytest.raises(ClientClosedError, match="was closed"):
        producer.acks()


def test_the_producer_fails_over_among_servers_and_back(new_producer: NewProducer) -> None:
    with Collector() as first, Collector() as second:
        first.faults.refuse()
        producer = new_producer([first.ws_url, f"grpc://{second.grpc_target}"])
        assert producer.emit("a", b"1").result(patient(10)).status.name == "SUCCESS"
        assert (first.event_count, second.event_count) == (0, 1)
        assert producer.health().ok
        first.faults.accept()

        def back() -> bool:
            producer.emit("a", b"2").result(patient(10))
            return first.event_count >= 5

        wait_until(back)
        assert all(server.ok for server in producer.health().servers)


def test_many_threads(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, batch_events=50, buffer_bytes=1 << 20, batch_bytes=1 << 18)

    def emit(thread: int) -> None:
        for number in range(500):
            producer.emit(f"t{thread}", b"%d" % number)

    threads = [threading.Thread(target=emit, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = producer.close()
    assert report.total.acked == 8000
    received = Counter((event.type, event.data) for event in collector.events)
    assert received == Counter((f"t{t}", b"%d" % n) for t in range(16) for n in range(500))


def test_a_producer_that_emits_nothing_starts_nothing(collector: Collector, new_producer: NewProducer) -> None:
    begun = Begun()
    producer = new_producer(collector.ws_url)
    assert begun.threads() == []
    assert producer.health().ok
    assert producer.flush() == 0
    assert producer.close().total.accepted == 0


def test_a_blocked_loop_is_unhealthy(collector: Collector, new_producer: NewProducer) -> None:
    producer = new_producer(collector.ws_url, timeout=0.05)
    producer.emit("page", b"1")
    assert producer.flush() == 0
    release = threading.Event()
    producer._thread.loop.call_soon_threadsafe(release.wait)
    try:
        receipt = producer.emit("page", b"2")
        assert producer.health().ok
        wait_until(lambda: not producer.health().ok)
        assert "nothing was settled for" in producer.health().reasons[0]
    finally:
        release.set()
    assert receipt.result(patient(10))
    assert producer.health().ok


def test_a_poll_after_a_pause_blames_nobody(
    collector: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two polls the program was idle for longer than an attempt may take; then an event came."""
    producer = new_producer(collector.ws_url, linger=600)
    monkeypatch.setattr(type(producer._options), "stall_s", 0.2)
    producer.emit("page", b"1")
    assert producer.flush() == 0
    assert producer.health().ok
    time.sleep(0.3)
    producer.emit("page", b"2")
    assert producer.health().ok
    wait_until(lambda: not producer.health().ok)  # this event waits for its linger
    assert "nothing was settled for" in producer.health().reasons[0]
    assert producer.flush() == 0
    assert producer.health().ok


class DropsBeside:
    """An accumulator of which another thread drops the oldest batch whenever one was taken."""

    def __init__(self, accumulator: Any, drop: Callable[[], object]) -> None:
        self._accumulator = accumulator
        self._drop = drop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accumulator, name)

    def take(self) -> Any:
        batch = self._accumulator.take()
        self._drop()
        return batch


def test_a_flush_waits_for_a_batch_beside_which_others_are_dropped(
    collector: Collector, new_producer: NewProducer
) -> None:
    collector.faults.delay(0.5)
    producer = new_producer(collector.ws_url, overflow="drop_oldest", batch_events=1, max_in_flight=1)
    producer.emit("page", b"0")
    wait_until(lambda: producer.stats().total.in_flight == 1)
    receipt = producer.emit("page", b"1")
    assert producer._engine is not None
    queue = producer._engine._lanes.all[0]
    with ThreadPoolExecutor(1) as pool:
        flush = pool.submit(producer.flush, patient(20))
        wait_until(lambda: queue.outstanding._flushes)
        producer.emit_many([("page", b"later")] * 5)
        queue.accumulator = DropsBeside(queue.accumulator, producer._dropping[0].drop)  # type: ignore[assignment]
        assert flush.result(patient(30)) == 0
        assert receipt.done()


def test_nothing_is_left_after_close(collector: Collector, new_producer: NewProducer) -> None:
    begun = Begun()
    for scheme in SCHEMES:
        producer = new_producer(url_of(collector, scheme), on_delivery=lambda receipt: None)
        producer.emit("a", b"x")
        producer.close()
    assert begun.threads("raccoon") == []


def test_waiting_threads_are_woken_once_an_eighth_of_the_buffer_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each released batch would wake them, which costs as much as the batch."""
    with Producer("ws://127.0.0.1:1", buffer_bytes=8_000_000, logger=None) as producer:
        woken: list[int] = []
        monkeypatch.setattr(producer, "_room_made", lambda: woken.append(producer._accumulator.buffered))
        producer._accumulator.hold(8_000_000)
        for _ in range(5):
            producer._accumulator.release(300_000)
            producer._recycle(Batch("proto"))
        assert woken == [6_800_000, 6_500_000]
