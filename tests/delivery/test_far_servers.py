"""A producer with a distant server: answers take long, however many are under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import wait_until

from raccoon_fast import RAW, Producer
from raccoon_fast.collector import Collector

pytestmark = pytest.mark.timeout(120)

SCHEMES = ("ws", "http", "grpc")
FIRST = 8
# So far that what this machine takes for a batch is little beside it.
_FAR_S = 0.2


def far_producer(collector: Collector, scheme: str, **options: Any) -> Producer:
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    return Producer(url, serializer=RAW, logger=None, batch_events=1, timeout=60.0, **options)


def most_in_flight(producer: Producer, is_over: Callable[[], bool]) -> int:
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, producer.stats().total.in_flight)
        return is_over()

    wait_until(look, 60)
    return most


def wait_until_more(producer: Producer) -> None:
    """Emit until more is in flight than at first, however slow this machine is."""

    def look() -> bool:
        if producer.stats().total.queued < 100:
            producer.emit_many([("event", b"data")] * 100)
        return producer.stats().total.in_flight > 2 * FIRST

    wait_until(look, 90)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_are_in_flight_than_to_a_server_nearby(scheme: str) -> None:
    with Collector(sink="null") as collector, far_producer(collector, scheme) as producer:
        collector.faults.delay(_FAR_S)
        wait_until_more(producer)
        collector.faults.clear()
        assert producer.flush(60) == 0
        assert producer.report.total.acked == producer.report.total.accepted
        assert producer._engine._in_flight_bytes == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_number_that_is_set_is_kept(scheme: str) -> None:
    with Collector(sink="null") as collector, far_producer(collector, scheme, max_in_flight=FIRST) as producer:
        collector.faults.delay(0.02)
        producer.emit_many([("event", b"data")] * 400)
        assert most_in_flight(producer, lambda: producer.report.total.acked == 400) == FIRST


def test_after_a_failed_publish_a_websocket_carries_one_at_a_time() -> None:
    """A server that dedups by connection and acknowledges after publishing may crash by more."""
    with Collector(sink="memory", acks="sync") as collector, far_producer(collector, "ws") as producer:
        collector.faults.delay(_FAR_S)
        wait_until_more(producer)
        producer.emit_many([("event", b"data")] * 500)
        (endpoint,) = producer._engine._endpoints.all
        connection = endpoint.transports[0]._dialer.connection
        collector.faults.fail_publish(times=1)
        wait_until(lambda: connection.window.limit == 1, 30)
        wait_until(lambda: len(connection.acks) == 1, 30)
        over = []
        for _ in range(200):
            in_flight = len(connection.acks)
            over.append(in_flight - connection.window.limit)  # which grows by one with each 64 acknowledgements
            time.sleep(0.005)
        assert max(over) <= 0
        collector.faults.clear()
        assert producer.flush(60) == 0
        assert producer.report.total.acked == producer.report.total.accepted
