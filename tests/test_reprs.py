"""The reprs of the package's objects show state, address and counts, and never a secret."""

from __future__ import annotations

import asyncio
import gc

import pytest

import raccoon_fast
from raccoon_fast import RAW, AsyncProducer, DogStatsD, OpenTelemetry, Producer, Prometheus, StatsD
from raccoon_fast.collector import Collector
from raccoon_fast.net.address import parse_address

SECRET = "s3cret"
SCHEMES = {"Rest": "http", "WebSocket": "ws", "Grpc": "grpc"}
PATHS = {"Rest": "/api/v1/events", "WebSocket": "/api/v1/events", "Grpc": ""}


def url_with_secrets(scheme: str) -> str:
    query = "" if scheme == "grpc" else f"/api/v1/events?token={SECRET}"
    return f"{scheme}://user:{SECRET}@127.0.0.1:9{query}"


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_client(kind):
    options = {"serializer": RAW, "headers": {"X-Api-Key": SECRET}}
    client = getattr(raccoon_fast, f"{kind}Client")(url_with_secrets(SCHEMES[kind]), **options)
    address = f"{SCHEMES[kind]}://127.0.0.1:9{PATHS[kind]}"
    assert repr(client) == f"<{kind}Client {address} open>"
    client.close()
    assert repr(client) == f"<{kind}Client {address} closed>"


@pytest.mark.parametrize("kind", SCHEMES)
def test_an_async_client(kind):
    async def shown() -> tuple[str, str]:
        client = getattr(raccoon_fast, f"Async{kind}Client")(url_with_secrets(SCHEMES[kind]), serializer=RAW)
        before = repr(client)
        await client.close()
        return before, repr(client)

    address = f"{SCHEMES[kind]}://127.0.0.1:9{PATHS[kind]}"
    assert asyncio.run(shown()) == (
        f"<Async{kind}Client {address} open>",
        f"<Async{kind}Client {address} closed>",
    )


def test_a_producer():
    with Collector() as collector:
        url = collector.url.replace("://", f"://user:{SECRET}@")
        with Producer([url, url_with_secrets("ws")], serializer=RAW) as producer:
            producer.emit_many(("page", b"") for _ in range(3))
            producer.flush(10)
            addresses = f"{collector.url}/api/v1/events, ws://127.0.0.1:9/api/v1/events"
            counts = "3 accepted, 3 acknowledged, 0 lost, 0 unsettled"
            assert repr(producer) == f"<Producer {addresses} open: {counts}>"
    assert repr(producer) == f"<Producer {addresses} closed: {counts}>"


def test_an_async_producer():
    async def shown() -> str:
        async with AsyncProducer(url_with_secrets("http"), serializer=RAW, logger=None) as producer:
            await producer.emit("page", b"")
            text = repr(producer)
            await producer.close(0)
            return text

    counts = "1 accepted, 0 acknowledged, 0 lost, 1 unsettled"
    assert asyncio.run(shown()) == f"<AsyncProducer http://127.0.0.1:9/api/v1/events open: {counts}>"


@pytest.mark.parametrize("kind", [Producer, AsyncProducer, raccoon_fast.RestClient, raccoon_fast.AsyncRestClient])
def test_an_object_whose_constructor_failed(kind):
    """A debugger shows it while you inspect the error."""
    refused = kind.__new__(kind)
    with pytest.raises(TypeError):
        refused.__init__("http://127.0.0.1:9", nonsense=1)
    assert repr(refused) == f"<{kind.__name__} not made>"


def test_a_receipt():
    with Collector() as collector, Producer(collector.url, serializer=RAW, linger=30) as producer:
        receipt = producer.emit("page", b"")
        assert repr(receipt) == f"<Receipt {receipt.req_guid} pending>"
        producer.flush(10)
        assert repr(receipt) == f"<Receipt {receipt.req_guid} acknowledged>"
    with Producer("http://127.0.0.1:9", serializer=RAW, logger=None) as producer:
        receipt = producer.emit("page", b"")
        producer.close(0)
        assert repr(receipt) == f"<Receipt {receipt.req_guid} failed: {type(receipt.exception()).__name__}>"


def test_an_async_receipt_that_is_shown_is_still_reported_by_asyncio():
    told: list[str] = []

    async def shown() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        future: asyncio.Future[raccoon_fast.Response] = asyncio.get_running_loop().create_future()
        receipt = raccoon_fast.AsyncReceipt("g", future)
        future.set_exception(raccoon_fast.ClientClosedError("closed"))
        text = repr(receipt)
        del receipt, future
        gc.collect()
        return text

    assert asyncio.run(shown()) == "<AsyncReceipt g failed: ClientClosedError>"
    assert told == ["Future exception was never retrieved"]


def test_a_stream_of_acks():
    with Collector() as collector, Producer(collector.url, serializer=RAW) as producer, producer.acks(2) as acks:
        assert repr(acks) == "<AckStream open: 0 waiting, 0 dropped>"
        for _ in range(3):
            producer.emit("page", b"")
            producer.flush(10)
        assert repr(acks) == "<AckStream open: 2 waiting, 1 dropped>"
    assert repr(acks) == "<AckStream ended: 2 waiting, 1 dropped>"


def test_a_sink():
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry")
    with StatsD("127.0.0.1", 9, tags={"a": "b"}) as sink:
        assert repr(sink) == "<StatsD to statsd at 127.0.0.1:9 open: 0 samples waiting, 0 dropped>"
    assert repr(sink) == "<StatsD to statsd at 127.0.0.1:9 closed: 0 samples waiting, 0 dropped>"
    for sink in (DogStatsD("127.0.0.1", 9), Prometheus(), OpenTelemetry()):
        assert repr(sink).endswith(" open: 0 samples waiting, 0 dropped>")
        sink.close()


def test_an_address_and_a_link_hold_no_secret():
    assert repr(parse_address(url_with_secrets("http"), "REST")) == "<Address http://127.0.0.1:9/api/v1/events>"
    client = raccoon_fast.AsyncRestClient(url_with_secrets("http"), headers={"X-Api-Key": SECRET})
    assert SECRET not in repr(client._settings.link)
