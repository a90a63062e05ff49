"""A filter before the server refuses one payload: other events are delivered, and the server counts as healthy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from filter_proxy import CLOSE, EVIL, RESET, SWALLOW, FilterProxy
from patience import patient, wait_until
from trial import Lines, port_of

from raccoon_fast import RAW, AsyncProducer, Counts, EventsRejectedError, Producer
from raccoon_fast.collector import Collector
from raccoon_fast.errors import Outcome
from raccoon_fast.spool.view import SpoolView
from raccoon_fast.transports.grpc.connection import HTTP2Connection
from raccoon_fast.transports.rest.connection import HTTPConnection
from raccoon_fast.transports.websocket.connection import WebSocketConnection

pytestmark = pytest.mark.slow

EVENTS, CULPRIT = 4_000, 700
WAYS = [
    *(("http", how) for how in (400, 403, 406, 500, 502, 503, RESET, CLOSE, SWALLOW)),
    *((scheme, how) for scheme in ("ws", "grpc") for how in (RESET, CLOSE, SWALLOW)),
]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@contextlib.contextmanager
def filtered(collector: Collector, scheme: str, how: str | int, servers: int = 1) -> Iterator[list[str]]:
    """URLs of that many servers, all behind filters; they are one collector."""
    with contextlib.ExitStack() as stack:
        proxies = [
            stack.enter_context(FilterProxy(port_of(collector, scheme), how, is_websocket=scheme == "ws"))
            for _ in range(servers)
        ]
        yield [f"{scheme}://127.0.0.1:{proxy.port}" for proxy in proxies]


def emit(producer: Producer) -> Any:
    """Emit the events; returns the receipt of the batch that has the culprit."""
    receipts = [
        producer.emit("page", EVIL if number == CULPRIT else b"%d" % number + bytes(100)) for number in range(EVENTS)
    ]
    return receipts[CULPRIT]


def acked(producer: Producer) -> int:
    return producer.stats().total.acked


def closed(producer: Producer) -> Counts:
    """The counts after a `close` that leaves nothing unsettled; on a busy machine it may return before that."""
    wait_until(lambda: not producer.close(timeout=0.0).total.unsettled)
    return producer.report.total


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize(("scheme", "how"), WAYS)
def test_all_other_events_get_through(
    collector: Collector, scheme: str, how: str | int, durable: bool, servers: int, tmp_path: Path
) -> None:
    options = {"spool": tmp_path / "spool.db", "durable": True} if durable else {}
    with filtered(collector, scheme, how, servers) as urls:
        log = Lines()
        producer = Producer(urls, serializer=RAW, logger=log, batch_events=50, timeout=0.5, **options)
        receipt = emit(producer)
        wait_until(lambda: acked(producer) == EVENTS - 1, 60.0)
        # The server is not blamed, and new events pass.
        wait_until(lambda: producer.health().ok)
        for number in range(100):
            producer.emit("page", b"later %d" % number)
        wait_until(lambda: acked(producer) == EVENTS - 1 + 100)
        assert producer.stats().total.expired == 0
        total = closed(producer)
        assert total.lost + total.spooled == 1
        if not durable:
            error = receipt.exception(0)
            assert str(error.__cause__ or error.rejected[0].reason) in str(error)
        # On a busy machine other batches may be late, and be named too.
        said = [line for line in log.lines if "fails while others get through" in line]
        assert sum(receipt.req_guid in line for line in said) == 1


@pytest.mark.parametrize("how", [RESET, SWALLOW])
def test_with_a_fixed_id_the_suspect_shares_the_only_websocket(collector: Collector, how: str) -> None:
    """A server refuses a second connection of one id."""
    with filtered(collector, "ws", how) as urls:
        producer = Producer(urls, serializer=RAW, logger=None, batch_events=50, timeout=0.5, user_id="fixed")
        emit(producer)
        wait_until(lambda: acked(producer) == EVENTS - 1, 60.0)
        assert closed(producer).lost == 1


@pytest.mark.parametrize("how", [403, RESET])
def test_an_async_producer(collector: Collector, how: str | int) -> None:
    async def main(urls: list[str]) -> None:
        async with AsyncProducer(urls, serializer=RAW, logger=None, batch_events=50, timeout=0.5) as producer:
            for number in range(EVENTS):
                await producer.emit("page", EVIL if number == CULPRIT else b"%d" % number + bytes(100))
            await producer.flush(0)
            while producer.stats().total.acked < EVENTS - 1:
                await asyncio.sleep(0.05)
            await producer.close(0)

    with filtered(collector, "http", how) as urls:
        asyncio.run(asyncio.wait_for(main(urls), patient(60)))


@pytest.mark.parametrize("how", [403, 451])
def test_an_event_refused_by_a_permanent_status_is_named_at_once(collector: Collector, how: int) -> None:
    with filtered(collector, "http", how) as urls, Producer(urls, serializer=RAW, logger=None) as producer:
        error = emit(producer).exception(patient(30))
        assert isinstance(error, EventsRejectedError)
        assert [event.data for event in error.rejected] == [EVIL]
        assert error.outcome is Outcome.NOT_DELIVERED
        assert f"answered {how}" in error.rejected[0].reason
        assert producer.flush(patient(10)) == 0
        assert producer.stats().total.failed == {str(how): 1}


@pytest.mark.parametrize(("scheme", "how"), [("http", RESET), ("grpc", CLOSE), ("ws", RESET), ("http", 502)])
def test_a_batch_that_may_still_get_through_ends_at_its_deadline(
    collector: Collector, scheme: str, how: str | int
) -> None:
    with filtered(collector, scheme, how) as urls:
        producer = Producer(urls, serializer=RAW, logger=None, timeout=1.0, delivery_timeout=patient(5.0))
        error = emit(producer).exception(patient(30))
        assert isinstance(error, EventsRejectedError)
        assert [event.data for event in error.rejected] == [EVIL]
        assert error.outcome is Outcome.POSSIBLY_DELIVERED
        (reason,) = producer.close().total.failed
        assert reason == ("502" if how == 502 else "ConnectionLostError")


@pytest.mark.parametrize(("scheme", "how"), [("http", 403), ("grpc", RESET), ("ws", CLOSE)])
def test_a_refused_batch_goes_to_quarantine_with_a_spool(
    collector: Collector, scheme: str, how: str | int, tmp_path: Path
) -> None:
    path = tmp_path / "spool.db"
    with filtered(collector, scheme, how) as urls:
        producer = Producer(
            urls, serializer=RAW, logger=None, timeout=1.0, delivery_timeout=patient(5.0), spool=path, durable=True
        )
        error = emit(producer).exception(patient(30))
        assert isinstance(error, EventsRejectedError)
        report = producer.close()
        assert (report.total.acked, report.total.lost, report.total.spooled) == (EVENTS - 1, 1, 0)
    with SpoolView(path) as view:
        content, reasons = view.quarantine()
    assert content.types == {"page": 1}
    assert list(reasons.values()) == [1]


@pytest.mark.parametrize(
    ("scheme", "connection"),
    [("http", HTTPConnection), ("ws", WebSocketConnection), ("grpc", HTTP2Connection)],
)
def test_a_batch_that_cannot_even_be_written(collector: Collector, scheme: str, connection: type) -> None:
    begin = connection.begin  # type: ignore[attr-defined]

    def failing(self: Any, *args: Any, **options: Any) -> Any:
        message = next(arg for arg in (*args, *options.values()) if hasattr(arg, "envelope"))
        if EVIL in bytes(message.envelope.body()):
            raise OSError(14, "Bad address")
        return begin(self, *args, **options)

    url = f"{scheme}://127.0.0.1:{port_of(collector, scheme)}"
    with mock.patch.object(connection, "begin", failing):
        producer = Producer(url, serializer=RAW, logger=None, batch_events=200)
        emit(producer)
        wait_until(lambda: acked(producer) == EVENTS - 1, 30.0)
        wait_until(lambda: producer.health().ok)
        assert closed(producer).failed == {"closed": 1}


def test_an_outage_convicts_nobody(collector: Collector) -> None:
    """Batches that fail because the server is down are delivered whole when it is back."""
    log = Lines()
    producer = Producer(collector.url, serializer=RAW, logger=log, batch_events=100)
    producer.emit("page", b"first").result(timeout=patient(10))
    collector.faults.status(502)
    receipts = [producer.emit("page", b"%d" % number) for number in range(2_000)]
    wait_until(lambda: collector.faults.fired.get("status", 0) >= 6)
    collector.faults.clear()
    assert producer.flush(patient(30)) == 0
    assert producer.close().total.acked == 2_001
    guids = {receipt.req_guid for receipt in receipts}
    assert guids <= {request.req_guid for request in collector.requests}  # none was sent in parts
    assert not any("while others get through" in line for line in log.lines)
