"""A producer with a spool: unsent events survive, and are sent later under the same guid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from begun import Begun
from patience import patient, wait_until

from raccoon_fast import RAW, AckTimeoutError, AsyncProducer, ClientClosedError, Producer, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery import engine
from raccoon_fast.delivery.engine import Engine
from raccoon_fast.delivery.outcomes import Outcomes
from raccoon_fast.delivery.reserve import Reserve
from raccoon_fast.spool import worker
from raccoon_fast.spool.worker import Spooling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

QUICK = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
NewProducer = Callable[..., Producer]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def new_producer(path: Path) -> Iterator[NewProducer]:
    made: list[Producer] = []

    def new(url: Any, **options: Any) -> Producer:
        base = {"serializer": RAW, "logger": None, "retry": QUICK, "linger": 0.001, "spool": path}
        made.append(Producer(url, **{**base, **options}))
        return made[-1]

    yield new
    for producer in made:
        producer.close(timeout=0)


def assert_balanced(producer: Producer) -> None:
    for counts in [producer.stats().total, *producer.stats().by_type.values()]:
        settled = counts.acked + counts.expired + sum(counts.failed.values()) + sum(counts.dropped.values())
        settled += counts.sampled + counts.filtered + counts.discarded
        assert settled + counts.spooled + counts.queued + counts.in_flight == counts.accepted


def test_close_leaves_unacknowledged_events_to_the_next_producer(
    collector: Collector, new_producer: NewProducer
) -> None:
    collector.faults.refuse()
    first = new_producer(collector.ws_url, batch_events=3)
    receipts = first.emit_many((f"t{number % 2}", b"%d" % number) for number in range(10))
    report = first.close(timeout=0.05)
    assert (report.total.spooled, report.total.lost, report.total.unsettled) == (10, 0, 0)
    for receipt in receipts:
        assert isinstance(receipt.exception(0), ClientClosedError)
        assert "in the spool" in str(receipt.exception(0))
    collector.faults.accept()
    seen: list[str] = []
    second = new_producer(collector.ws_url, on_delivery=lambda receipt: seen.append(receipt.req_guid))
    collector.wait_for(10)
    wait_until(lambda: second.stats().total.acked == 10)
    assert Counter(event.data for event in collector.events) == Counter(b"%d" % number for number in range(10))
    assert {request.req_guid for request in collector.requests} == {receipt.req_guid for receipt in receipts}
    report = second.close()
    assert (report.total.accepted, report.total.spooled) == (10, 0)
    assert {name: counts.acked for name, counts in report.by_type.items()} == {"t0": 5, "t1": 5}
    assert sorted(seen) == sorted(receipt.req_guid for receipt in receipts)
    third = new_producer(collector.ws_url)
    assert third.close().total.accepted == 0


def test_expiring_events_are_kept_and_sent_when_the_server_is_back(
    collector: Collector, new_producer: NewProducer
) -> None:
    collector.faults.refuse()
    producer = new_producer(collector.ws_url, delivery_timeout=0.1)
    receipt = producer.emit("a", b"x")
    wait_until(lambda: producer.stats().total.spooled == 1)
    assert not receipt.done()
    assert producer.stats().total.expired == 0
    assert_balanced(producer)
    collector.faults.accept()
    assert receipt.result(patient(10)).status.name == "SUCCESS"
    assert [request.req_guid for request in collector.requests] == [receipt.req_guid]
    assert producer.close().total.acked == 1


def test_overflow_goes_to_disk(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    producer = new_producer(collector.ws_url, overflow="spool", batch_bytes=10_000, buffer_bytes=50_000)
    receipts = producer.emit_many(("a", b"%6d" % number + bytes(994)) for number in range(500))
    total = producer.stats().total
    assert total.accepted == 500
    assert total.spooled >= 400
    # And one batch, which is read back to try the server.
    assert producer._accumulator.buffered <= 50_000 + 10_000
    assert_balanced(producer)
    collector.faults.accept()
    assert producer.flush(patient(20)) == 0
    assert {receipt.result(0).status.name for receipt in receipts} == {"SUCCESS"}
    assert len({event.data for event in collector.events}) == 500
    report = producer.close()
    assert (report.total.acked, report.total.spooled) == (500, 0)


def test_a_full_spool_blocks(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    producer = new_producer(
        collector.ws_url, overflow="spool", batch_bytes=10_000, buffer_bytes=50_000, spool_bytes=60_000
    )
    done = threading.Event()

    def emit() -> None:
        for _ in range(200):
            producer.emit("a", bytes(1000))
        done.set()

    thread = threading.Thread(target=emit)
    thread.start()
    wait_until(lambda: producer.stats().total.spooled > 30)
    assert not done.wait(0.1)
    assert producer.stats().total.accepted < 120
    collector.faults.accept()
    assert done.wait(patient(10))
    thread.join()
    assert producer.flush(patient(20)) == 0
    assert producer.close().total.acked == 200


@pytest.mark.parametrize("delivery_timeout", [600.0, 0.3], ids=["close", "expiry"])
def test_a_full_spool_keeps_as_many_events_as_fit(
    collector: Collector, new_producer: NewProducer, path: Path, delivery_timeout: float
) -> None:
    collector.faults.refuse()
    producer = new_producer(
        collector.ws_url, batch_events=1, spool_bytes=105_000, delivery_timeout=delivery_timeout, linger=60.0
    )
    producer.emit_many(("a", b"%02d" % number + bytes(9998)) for number in range(15))
    if delivery_timeout < 1.0:
        wait_until(lambda: producer.stats().total.expired == 5)
    report = producer.close(timeout=0.05)
    assert (report.total.spooled, report.total.lost) == (10, 5)
    assert stored(path) == 10
    collector.faults.accept()
    second = new_producer(collector.ws_url)
    wait_until(lambda: second.stats().total.acked == 10)
    assert len({event.data for event in collector.events}) == 10


def test_a_flush_ends_with_a_batch_that_expires_while_the_spool_is_full(
    collector: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing else wakes the loop: neither the disk nor the server is tried again.
    monkeypatch.setattr(worker, "_PAUSE_S", 600.0)
    monkeypatch.setattr(worker, "_ADOPT_S", 600.0)
    collector.faults.refuse()
    retry = RetryPolicy(max_attempts=1000, initial=600.0, maximum=600.0)
    producer = new_producer(collector.ws_url, spool_bytes=10, delivery_timeout=0.2, retry=retry)
    producer.emit("a", bytes(100))
    wait_until(lambda: producer.stats().total.expired == 1)
    producer.emit("a", bytes(100))
    began_s = time.monotonic()
    assert producer.flush(patient(10)) == 0
    assert time.monotonic() - began_s < patient(8)
    assert producer.stats().total.expired == 2


def test_overflow_to_disk_needs_a_spool() -> None:
    with pytest.raises(ValueError, match="needs spool"):
        Producer("ws://localhost", overflow="spool")
    with pytest.raises(ValueError, match="needs spool"):
        Producer("ws://localhost", durable=True)
    with pytest.raises(ValueError, match="existing directory"):
        Producer("ws://localhost", spool="/missing/directory/spool")
    with pytest.raises(TypeError, match="path of a file"):
        Producer("ws://localhost", spool=5)  # type: ignore[arg-type]


def stored(path: Path) -> int:
    """How many records the file has, as another process sees it; -1 while there is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            (count,) = db.execute("SELECT count(*) FROM records").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return -1


PRODUCER = """
import sys, time
from raccoon_fast import RAW, Producer
producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=0.001, batch_events=5, spool=sys.argv[2],
                    durable=True, batch_bytes=10_000, buffer_bytes=100_000)
producer.emit_many(("a", b"%d" % number) for number in range(1000))
time.sleep(60)
"""


def test_durable_survives_kill_9_with_the_guids(collector: Collector, new_producer: NewProducer, path: Path) -> None:
    collector.faults.drop_acks()
    process = subprocess.Popen([sys.executable, "-c", PRODUCER, collector.ws_url, str(path)])
    try:
        collector.wait_for(40)
    finally:
        process.kill()
        process.wait()
    sent = {request.req_guid: request.event_count for request in collector.requests}
    events = {event.data for event in collector.events}
    collector.faults.clear()
    collector.clear()
    producer = new_producer(collector.ws_url)
    wait_until(lambda: producer.stats().total.unsettled == 0 and producer.stats().total.acked > 0)
    again = {request.req_guid: request.event_count for request in collector.requests}
    assert sent.items() <= again.items()
    assert events <= {event.data for event in collector.events}
    assert_balanced(producer)


def test_durable_stores_every_batch_also_while_none_can_be_sent(
    collector: Collector, new_producer: NewProducer, path: Path
) -> None:
    collector.faults.refuse()
    program = """
import sys, time
from raccoon_fast import RAW, Producer
producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=60.0, batch_events=10,
                    spool=sys.argv[2], durable=True)
producer.emit_many(("a", b"%d" % number) for number in range(1000))
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program, collector.ws_url, str(path)])
    try:
        wait_until(lambda: stored(path) == 100)
    finally:
        process.kill()
        process.wait()
    collector.faults.accept()
    producer = new_producer(collector.ws_url)
    wait_until(lambda: producer.stats().total.acked == 1000)
    assert {event.data for event in collector.events} == {b"%d" % number for number in range(1000)}


def test_durable_holds_a_few_batches_in_memory_and_the_others_on_disk(
    collector: Collector, new_producer: NewProducer, path: Path
) -> None:
    collector.faults.refuse()
    producer = new_producer(
        collector.ws_url,
        durable=True,
        max_in_flight=2,
        batch_bytes=10_000,
        buffer_bytes=200_000,
        batch_events=5,
        linger=60.0,
    )
    receipts = producer.emit_many(("a", b"%4d" % number + bytes(996)) for number in range(1000))
    wait_until(lambda: stored(path) == 200)
    wait_until(lambda: producer.stats().total.spooled >= 950)
    assert_balanced(producer)
    collector.faults.accept()
    assert producer.flush(patient(20)) == 0
    assert {receipt.result(0).status.name for receipt in receipts} == {"SUCCESS"}
    assert len({event.data for event in collector.events}) == collector.event_count == 1000
    assert producer.close().total.spooled == 0


def test_durable_removes_acknowledged_records(collector: Collector, new_producer: NewProducer, path: Path) -> None:
    producer = new_producer(collector.ws_url, durable=True, batch_events=7)
    producer.emit_many(("a", b"%d" % number) for number in range(1000))
    assert producer.close().total.acked == 1000
    assert len({event.data for event in collector.events}) == collector.event_count == 1000
    assert new_producer(collector.ws_url).close().total.accepted == 0
    assert [file.name for file in path.parent.iterdir()] == ["spool"]


def test_durable_batches_at_fault_go_with_their_records(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.reject_events("bad")
    producer = new_producer(collector.ws_url, durable=True, linger=60.0)
    producer.emit_many(("bad" if number == 5 else "good", b"%d" % number) for number in range(20))
    assert producer.flush(patient(10)) == 0
    total = producer.close().total
    assert (total.acked, total.failed) == (19, {"BAD_REQUEST": 1})
    assert new_producer(collector.ws_url).close().total.accepted == 0


def test_another_wire_format_is_converted(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    first = new_producer(collector.ws_url, wire="json")
    receipt = first.emit("a", b"\x00\xff")
    first.close(timeout=0.01)
    collector.faults.accept()
    new_producer(f"grpc://{collector.grpc_target}")
    collector.wait_for(1)
    assert [(event.type, event.data) for event in collector.events] == [("a", b"\x00\xff")]
    assert collector.requests[0].req_guid == receipt.req_guid


def test_a_damaged_record_does_not_stop_the_others(collector: Collector, new_producer: NewProducer, path: Path) -> None:
    collector.faults.refuse()
    first = new_producer(collector.ws_url, batch_events=2)
    first.emit_many(("a", b"%d" % number) for number in range(6))
    first.close(timeout=0.01)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET body = x'00' WHERE id = (SELECT min(id) + 1 FROM records)")
    db.close()
    collector.faults.accept()
    producer = new_producer(collector.ws_url)
    wait_until(lambda: producer.stats().total.spooled == 0 and producer.stats().total.acked == 4)
    assert producer.stats().total.failed == {"damaged": 2}
    assert_balanced(producer)


def test_a_spool_that_cannot_be_opened_stops_nothing(
    collector: Collector, new_producer: NewProducer, tmp_path: Path
) -> None:
    errors: list[str] = []

    class Logger:
        def info(self, text: str, *args: object) -> None:
            pass

        def error(self, text: str, *args: object) -> None:
            errors.append(text % args)

    producer = new_producer(collector.ws_url, spool=tmp_path, durable=True, logger=Logger())
    assert producer.emit("a", b"x").result(patient(10)).status.name == "SUCCESS"
    producer.close()
    assert any("cannot be used" in error for error in errors)


def test_events_expire_when_the_spool_cannot_be_opened(
    collector: Collector, new_producer: NewProducer, tmp_path: Path
) -> None:
    collector.faults.refuse()
    producer = new_producer(collector.ws_url, spool=tmp_path, delivery_timeout=0.1)
    assert isinstance(producer.emit("a", b"x").exception(patient(10)), AckTimeoutError)
    assert producer.stats().total.expired == 1
    assert_balanced(producer)


@pytest.mark.parametrize("is_open", [False, True], ids=["from the start", "later"])
def test_batches_are_sent_unstored_while_another_program_locks_the_file(
    collector: Collector, new_producer: NewProducer, path: Path, is_open: bool
) -> None:
    new_producer(collector.ws_url, durable=True).close()
    producer = None
    if is_open:
        producer = new_producer(collector.ws_url, durable=True, linger=60.0)
        producer.emit("a", b"stored")
        assert producer.flush(patient(10)) == 0
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        producer = producer or new_producer(collector.ws_url, durable=True, linger=60.0)
        receipt = producer.emit("a", b"unstored")
        report = producer.close()
    assert (report.total.acked, report.total.spooled, report.total.lost) == (1 + is_open, 0, 0)
    assert receipt.result(0).status.name == "SUCCESS"


def test_a_locked_disk_is_logged_once_and_used_again(
    collector: Collector, new_producer: NewProducer, path: Path
) -> None:
    errors: list[str] = []

    class Logger:
        def info(self, text: str, *args: object) -> None:
            pass

        def error(self, text: str, *args: object) -> None:
            errors.append(text % args)

    new_producer(collector.ws_url, durable=True).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        producer = new_producer(collector.ws_url, durable=True, logger=Logger())
        for number in range(100):
            assert producer.emit("a", b"%d" % number).result(patient(20)).status.name == "SUCCESS"
        db.execute("ROLLBACK")
    assert len(errors) == 1
    assert "locked" in errors[0]
    collector.faults.drop_acks()

    def is_stored() -> bool:
        producer.emit("a", b"more")
        return stored(path) > 0

    wait_until(is_stored)


def test_what_waits_for_a_locked_disk_is_stored_once_it_is_free(
    collector: Collector, new_producer: NewProducer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_ADOPT_S", 600.0)
    collector.faults.drop_acks()
    options: dict[str, Any] = {"durable": True, "overflow": "drop_newest", "timeout": 600.0, "batch_events": 1}
    options |= {"batch_bytes": 1000, "buffer_bytes": 100_000}
    producer = new_producer(collector.ws_url, **options)
    producer.emit("a", b"first")
    wait_until(lambda: stored(path) == 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        while not producer.stats().total.dropped:
            producer.emit("a", b"x")
        wait_until(lambda: producer.stats().total.in_flight > 1 and producer._engine._waiting.has_ready)
        db.execute("ROLLBACK")
    # Nothing else happens now: no event, no answer, and no look for the records of dead processes.
    wait_until(lambda: stored(path) > 1)
    wait_until(lambda: producer._accumulator.sealed == 0)


def test_a_daemon_that_closes_all_descriptors_has_a_spool(collector: Collector, path: Path) -> None:
    program = """
import os, sys
from raccoon_fast import RAW, Producer
producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=0.001, spool=sys.argv[2], durable=True)
producer.emit("parent", b"x").result(20)
if os.fork() == 0:
    os.setsid()
    os.closerange(3, 256)
    producer.emit("daemon", b"y").result(20)
    assert producer.spool_owner
    report = producer.close()
    os._exit(0 if report.total.acked == 1 else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
producer.emit("parent", b"z").result(20)
assert producer.close().total.acked == 2
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, collector.ws_url, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(60))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(event.type for event in collector.events) == ["daemon", "parent", "parent"]


def test_a_server_is_probed_from_the_spool_with_one_batch_at_a_time(
    collector: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    fetch = Spooling.fetch

    def noted(self: Spooling, max_bytes: int, then: Any) -> None:
        asked.append(max_bytes)
        fetch(self, max_bytes, then)

    monkeypatch.setattr(Spooling, "fetch", noted)
    collector.faults.refuse()
    producer = new_producer(collector.ws_url, batch_events=10, delivery_timeout=0.2)
    producer.emit_many(("a", b"%d" % number) for number in range(500))
    wait_until(lambda: producer.stats().total.spooled == 500)
    asked.clear()
    most = 0
    while len(asked) < 3:
        total = producer.stats().total
        most = max(most, total.queued + total.in_flight)
    assert {*asked[:3]} == {1}
    assert most <= 10
    collector.faults.accept()
    wait_until(lambda: producer.stats().total.acked == 500, 30)
    assert max(asked) > 1
    assert collector.event_count == 500


def test_a_full_buffer_spills_a_quarter(
    collector: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spills: list[tuple[int, int]] = []
    spilled: list[int] = []
    spill, set_aside = Engine._spill, Reserve.set_aside

    def noted_spill(self: Engine) -> None:
        buffered, before = producer._accumulator.buffered, sum(spilled)
        spill(self)
        if (size := sum(spilled) - before) > 0:
            spills.append((buffered, size))

    def noted(self: Reserve, batch: Batch, otherwise: Any) -> None:
        spilled.append(batch.cost)
        set_aside(self, batch, otherwise)

    monkeypatch.setattr(Engine, "_spill", noted_spill)
    monkeypatch.setattr(Reserve, "set_aside", noted)
    collector.faults.refuse()
    producer = new_producer(
        collector.ws_url, overflow="spool", batch_bytes=10_000, buffer_bytes=400_000, linger=60.0, max_in_flight=1
    )
    for number in range(1000):
        producer.emit("a", b"%04d" % number + bytes(996))
    assert len(spills) >= 5
    for buffered, size in spills:
        assert buffered // 4 <= size < buffered // 4 + 14_000


def test_two_producers_on_one_path(collector: Collector, new_producer: NewProducer) -> None:
    collector.faults.refuse()
    producers = [new_producer(collector.ws_url) for _ in range(2)]
    for number, producer in enumerate(producers):
        producer.emit_many((f"p{number}", b"%d" % event) for event in range(50))
    assert producers[0].close(timeout=0.01).total.spooled == 50
    # The other may have taken them over meanwhile.
    assert producers[1].close(timeout=0.01).total.spooled in (50, 100)
    collector.faults.accept()
    both = [new_producer(collector.ws_url) for _ in range(2)]
    wait_until(lambda: sum(producer.stats().total.acked for producer in both) == 100)
    assert collector.event_count == 100


def test_an_async_producer(collector: Collector, path: Path) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"serializer": RAW, "logger": None, "retry": QUICK, "spool": path}
        collector.faults.refuse()
        first = AsyncProducer(collector.ws_url, **options)
        receipt = await first.emit("a", b"x")
        report = await first.close(timeout=0.05)
        assert report.total.spooled == 1
        assert isinstance(receipt.exception(), ClientClosedError)
        await asyncio.to_thread(collector.faults.accept)
        async with AsyncProducer(collector.ws_url, **options) as second:
            while second.stats().total.acked == 0:
                await asyncio.sleep(0.001)
        assert second.report.total.acked == 1

    begun = Begun()
    asyncio.run(main())
    assert [event.data for event in collector.events] == [b"x"]
    wait_until(lambda: not begun.threads("raccoon"))  # the thread of the disk may outlast a short timeout of `close`


@pytest.mark.parametrize("durable", [False, True])
def test_a_batch_stored_only_after_the_close_is_whole(
    collector: Collector, new_producer: NewProducer, path: Path, durable: bool
) -> None:
    gate = threading.Event()
    collector.faults.refuse()

    async def main() -> None:
        producer = AsyncProducer(
            collector.ws_url, serializer=RAW, logger=None, linger=0.001, spool=path, durable=durable
        )
        producer._disk.submit(lambda _: gate.wait(patient(20)), None)
        receipt = await producer.emit("a", b"late")
        receipt.add_done_callback(lambda _: gate.set())
        while durable and not producer._engine._reserve.pending:
            await asyncio.sleep(0.001)
        await producer.close(timeout=0)
        assert isinstance(receipt.exception(), ClientClosedError)

    with mock.patch.object(engine, "_CLOSE_MARGIN_S", 0.1):
        asyncio.run(asyncio.wait_for(main(), patient(20)))
    collector.faults.accept()
    second = new_producer(collector.ws_url)
    wait_until(lambda: second.stats().total.acked == 1)
    assert [event.data for event in collector.events] == [b"late"]


@pytest.mark.parametrize("durable", [False, True])
def test_close_leaves_the_parts_of_a_split_batch_to_the_next_producer(
    collector: Collector, new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    split = Outcomes.split

    def into_unanswered(self: Outcomes, batch: Batch) -> list[Batch]:
        collector.faults.drop_acks()
        return split(self, batch)

    monkeypatch.setattr(Outcomes, "split", into_unanswered)
    collector.faults.reject_events("a", times=1)
    delivered: list[str] = []
    first = new_producer(
        collector.ws_url, durable=durable, linger=60.0, on_delivery=lambda receipt: delivered.append(receipt.req_guid)
    )
    (receipt,) = first.emit_many(("a", b"%d" % number) for number in range(4))
    first.flush(0)
    collector.wait_for(4)
    report = first.close(timeout=0.05)
    assert (report.total.spooled, report.total.lost) == (4, 0)
    assert isinstance(receipt.exception(patient(10)), ClientClosedError)
    assert delivered == [receipt.req_guid]
    collector.faults.clear()
    second = new_producer(collector.ws_url)
    wait_until(lambda: second.stats().total.acked == 4)
    assert second.close().total.accepted == 4


def test_a_forked_child_leaves_the_parent_s_records_alone(collector: Collector, path: Path) -> None:
    program = """
import os, sys
from raccoon_fast import RAW, Producer
producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=60.0, spool=sys.argv[2], durable=True)
producer.emit("parent", b"x")
child = os.fork()
if child == 0:
    producer.emit("child", b"y")
    assert producer.close().total.acked == 1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert producer.close().total.acked == 1
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, collector.ws_url, path],
        capture_output=True,
        text=True,
        timeout=patient(30),
        env={**os.environ},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(event.type for event in collector.events) == ["child", "parent"]
