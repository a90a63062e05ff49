"""A server or its sink fails for a while and recovers: waiting events are delivered soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from patience import patient, wait_until
from trial import Lines, port_of

from raccoon_fast import RAW, AckTimeoutError, ClientClosedError, Producer
from raccoon_fast.collector import Collector

pytestmark = pytest.mark.slow

OUTAGE_S = 1.5


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(acks="sync") as running:
        yield running


@pytest.fixture
def url(collector: Collector, scheme: str) -> str:
    return f"{scheme}://127.0.0.1:{port_of(collector, scheme)}"


def attempts(collector: Collector) -> int:
    return collector.faults.fired.get("fail_publish", 0)


def test_a_burst_while_the_sink_fails(collector: Collector, url: str) -> None:
    collector.faults.fail_publish()
    log = Lines()
    with Producer(url, serializer=RAW, logger=log, batch_events=100) as producer:
        for number in range(60_000):
            producer.emit("page", b"%d" % number)
        wait_until(lambda: not producer.health().ok)
        assert any("INTERNAL_ERROR" in reason for reason in producer.health().reasons)
        time.sleep(OUTAGE_S)
        # 600 batches wait; few of them were spent on finding out that the sink fails.
        assert attempts(collector) < 40
        collector.faults.clear()
        assert producer.flush(patient(20)) == 0
        assert producer.health().ok
        total = producer.stats().total
    assert (total.acked, total.lost) == (60_000, 0)
    assert len([line for line in log.lines if "its events wait" in line]) == 1


def test_a_trickle_while_the_sink_fails(collector: Collector, url: str) -> None:
    stop = threading.Event()
    with Producer(url, serializer=RAW, logger=None, linger=0.001) as producer:

        def trickle() -> None:
            while not stop.wait(0.002):
                producer.emit("page", b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        wait_until(lambda: producer.stats().total.acked > 100)
        collector.faults.fail_publish()
        time.sleep(OUTAGE_S)
        assert attempts(collector) < 40
        collector.faults.clear()
        healed = producer.stats().total
        wait_until(lambda: producer.stats().total.acked >= healed.accepted)
        stop.set()
        thread.join()
        assert producer.flush(patient(20)) == 0
        total = producer.stats().total
    assert total.acked == total.accepted


def test_retries_are_not_held_back_once_they_succeed(collector: Collector, url: str) -> None:
    """A sink that fails half of the time leaves many batches that need a retry."""
    collector.faults.fail_publish(0.5)
    with Producer(url, serializer=RAW, logger=None, batch_events=10) as producer:
        for number in range(4_000):
            producer.emit("page", b"%d" % number)
        wait_until(lambda: attempts(collector) > 150, 60)
        collector.faults.clear()
        # Far more of the 400 batches wait for a retry than time alone would pay for.
        assert producer.flush(patient(20)) == 0
        assert producer.stats().total.acked == 4_000


def test_the_next_url_is_used_while_a_sink_fails(collector: Collector, url: str, scheme: str) -> None:
    with Collector(acks="sync") as other:
        collector.faults.fail_publish()
        urls = [url, f"{scheme}://127.0.0.1:{port_of(other, scheme)}"]
        with Producer(urls, serializer=RAW, logger=None, batch_events=100) as producer:
            for number in range(10_000):
                producer.emit("page", b"%d" % number)
            assert producer.flush(patient(20)) == 0
            first, second = producer.health().servers
            assert (first.ok, second.ok) == (False, True)
        assert other.event_count == 10_000
        assert attempts(collector) < 40


class TestExpiry:
    def expire(self, collector: Collector, url: str, logger: object) -> tuple[Producer, object]:
        collector.faults.fail_publish()
        producer = Producer(url, serializer=RAW, logger=logger, batch_events=10, delivery_timeout=patient(1.0))  # type: ignore
        receipts = [producer.emit("page", b"%d" % number) for number in range(1_000)]
        return producer, receipts[0]

    def test_an_expiry_is_logged_when_it_happens(self, collector: Collector, url: str) -> None:
        log = Lines()
        producer, receipt = self.expire(collector, url, log)
        with producer:
            wait_until(lambda: any(f"expired after {patient(1.0):g} s" in line for line in log.lines))
            wait_until(lambda: producer.stats().total.expired == 1_000)
            error = receipt.exception(0)  # type: ignore[attr-defined]
            assert isinstance(error, AckTimeoutError)
            assert error.attempts >= 1
            assert "INTERNAL_ERROR" in str(error)
            assert error.__cause__ is not None
            assert str(error.__cause__) in str(error)
        # One warning at once, and one at the end for all that followed.
        warnings = [line for line in log.lines if "expired after" in line]
        assert len(warnings) <= 2
        assert sum(int(line.split()[0].replace(",", "")) for line in warnings) == 1_000
        assert "last failure: " in warnings[0]

    def test_events_failed_by_close_name_the_last_failure_too(self, collector: Collector, url: str) -> None:
        collector.faults.fail_publish()
        producer = Producer(url, serializer=RAW, logger=None)
        receipt = producer.emit("page", b"x")
        wait_until(lambda: attempts(collector) >= 2)
        producer.close(timeout=0.0)
        error = receipt.exception(0)
        assert isinstance(error, ClientClosedError)
        assert error.attempts >= 2
        assert "INTERNAL_ERROR" in str(error)
        assert str(error.__cause__) in str(error)

    def test_an_unsent_event_names_the_failure_of_its_server(self, collector: Collector, scheme: str) -> None:
        port = port_of(collector, scheme)
        collector.close()
        producer = Producer(f"{scheme}://127.0.0.1:{port}", serializer=RAW, logger=None, batch_events=10)
        receipts = [producer.emit("page", b"%d" % number) for number in range(1_000)]
        wait_until(lambda: not producer.health().ok)
        producer.close(timeout=0.0)
        error = receipts[-1].exception(0)
        assert error is not None
        assert "cannot connect" in str(error)


def test_a_backlog_that_will_expire_is_unhealthy(collector: Collector, url: str) -> None:
    with Producer(
        url, serializer=RAW, logger=None, batch_events=10, max_in_flight=1, delivery_timeout=30.0
    ) as producer:
        producer.emit("page", b"x").result(timeout=patient(10))
        collector.faults.delay(0.2)
        for number in range(20_000):  # at 50 a second
            producer.emit("page", b"%d" % number)
        wait_until(
            lambda: any("will not be acknowledged in time" in reason for reason in producer.health().reasons), 30
        )
        collector.faults.clear()
        assert producer.flush(patient(20)) == 0
        assert producer.health().ok


def test_a_batch_near_its_deadline_does_not_fail_a_healthy_server(collector: Collector, url: str) -> None:
    log = Lines()
    with Producer(url, serializer=RAW, logger=log, batch_events=10, max_in_flight=1, delivery_timeout=4.0) as producer:
        producer.emit("page", b"x").result(timeout=patient(10))
        collector.faults.delay(0.2)
        for number in range(1_000):
            producer.emit("page", b"%d" % number)
        wait_until(lambda: producer.stats().total.unsettled == 0)
        assert producer.stats().total.expired > 0
        assert producer.stats().retries == 0
    assert not any("fails" in line for line in log.lines)
    assert not any("reconnected" in line for line in log.lines)
