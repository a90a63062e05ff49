"""Trace context on requests, and spans, with OpenTelemetry's API and SDK and servers that read the headers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from patience import wait_until
from program import run
from scripted import SendEventRequest, answer

from raccoon_fast import (
    RAW,
    AsyncProducer,
    AsyncRestClient,
    AsyncWebSocketClient,
    ConnectError,
    GrpcClient,
    Producer,
    RestClient,
    RetryPolicy,
    WebSocketClient,
)
from raccoon_fast.collector import Collector

OPTIONS: dict[str, Any] = {"serializer": RAW, "logger": None}
EVENTS = [("page", b"x")] * 3
_EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module")
def tracer() -> trace.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
    trace.set_tracer_provider(provider)  # once per process
    return trace.get_tracer("test")


@pytest.fixture
def exporter(tracer: trace.Tracer) -> InMemorySpanExporter:
    _EXPORTER.clear()
    return _EXPORTER


class Peer:
    """A server of REST and gRPC that notes the headers of each request.

    Attributes:
        url: For REST.
        target: For gRPC.
        seen: Headers, in order.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = SendEventRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                peer.seen.append({name.lower(): value for name, value in self.headers.items()})
                body = answer(request.req_guid)
                self.send_response(200)
                self.send_header("Content-Type", "application/proto")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

        def call(message: bytes, context: grpc.ServicerContext) -> bytes:
            peer.seen.append({key: str(value) for key, value in context.invocation_metadata()})
            return answer(SendEventRequest.FromString(message).req_guid)

        handler = grpc.unary_unary_rpc_method_handler(call)
        service = grpc.method_handlers_generic_handler("raystack.raccoon.v1beta1.EventService", {"SendEvent": handler})
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2), handlers=[service])
        self.target = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Peer:
        self._thread.start()
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as running:
        yield running


def traceparent(span: trace.Span) -> str:
    return header_of(span.get_span_context())


def header_of(context: trace.SpanContext) -> str:
    """As https://www.w3.org/TR/trace-context/#traceparent-header has it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target)


@pytest.mark.parametrize("how", ["rest", "grpc", "httpx", "channel"])
def test_a_client_s_request_carries_the_current_span(peer: Peer, tracer: trace.Tracer, how: str) -> None:
    options = {**OPTIONS, "propagate": True}
    client: Any = {
        "rest": lambda: RestClient(peer.url, **options),
        "grpc": lambda: GrpcClient(peer.target, **options),
        "httpx": lambda: RestClient(peer.url, transport=httpx.AsyncHTTPTransport, **options),
        "channel": lambda: GrpcClient(peer.target, channel=channel, **options),
    }[how]()
    with client:
        client.send(EVENTS)
        with tracer.start_as_current_span("checkout") as span:
            client.send(EVENTS)
            client.submit(EVENTS).result(10)
        client.send(EVENTS)
    assert [headers.get("traceparent") for headers in peer.seen] == [None, *[traceparent(span)] * 2, None]


@pytest.mark.parametrize("scheme", ["rest", "grpc"])
def test_a_producer_s_batch_carries_the_span_of_its_first_event(peer: Peer, tracer: trace.Tracer, scheme: str) -> None:
    url = peer.url if scheme == "rest" else f"grpc://{peer.target}"
    with Producer(url, propagate=True, linger=30, **OPTIONS) as producer:
        with tracer.start_as_current_span("first") as first:
            producer.emit("page", b"x")
        with tracer.start_as_current_span("second"):
            producer.emit("page", b"x")
        producer.flush()
        producer.emit("page", b"x")
        producer.flush()
    assert [headers.get("traceparent") for headers in peer.seen] == [traceparent(first), None]


def test_an_async_producer_and_client_do_so_too(peer: Peer, tracer: trace.Tracer) -> None:
    async def send() -> list[str]:
        async with (
            AsyncProducer(peer.url, propagate=True, **OPTIONS) as producer,
            AsyncRestClient(peer.url, propagate=True, **OPTIONS) as client,
        ):
            with tracer.start_as_current_span("emit") as one:
                await producer.emit("page", b"x")
            await producer.flush()
            with tracer.start_as_current_span("send") as other:
                await client.send(EVENTS)
        return [traceparent(one), traceparent(other)]

    expected = asyncio.run(send())
    assert [headers["traceparent"] for headers in peer.seen] == expected


def test_a_request_keeps_its_context_over_retries(tracer: trace.Tracer) -> None:
    """The server refuses the first attempts; then one with the same header arrives."""
    seen: list[str | None] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("traceparent"))
        if len(seen) < 3:
            return httpx.Response(503)
        return httpx.Response(200, content=answer(SendEventRequest.FromString(request.content).req_guid))

    retry = RetryPolicy(initial=0.01, maximum=0.02)
    transport = httpx.MockTransport(respond)
    with (
        Producer("http://x", propagate=True, transport=transport, retry=retry, **OPTIONS) as producer,
        tracer.start_as_current_span("emit") as span,
    ):
        producer.emit("page", b"x")
        assert producer.flush() == 0
    assert seen == [traceparent(span)] * 3


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_a_client_s_request_is_a_span(exporter: InMemorySpanExporter, tracer: trace.Tracer, scheme: str) -> None:
    with Collector() as collector:
        makers: dict[str, Any] = {
            "ws": lambda: WebSocketClient(collector.ws_url, spans=True, **OPTIONS),
            "http": lambda: RestClient(collector.url, spans=True, **OPTIONS),
            "grpc": lambda: GrpcClient(collector.grpc_target, spans=True, **OPTIONS),
        }
        with makers[scheme]() as client, tracer.start_as_current_span("checkout") as parent:
            result = client.send(EVENTS, req_guid="guid-1")
        port = collector.grpc_port if scheme == "grpc" else collector.port
    assert result.req_guid == "guid-1"
    wait_until(lambda: len(exporter.get_finished_spans()) == 2)
    span = next(one for one in exporter.get_finished_spans() if one.name == "send raccoon")
    assert span.kind is trace.SpanKind.CLIENT
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.status.is_ok
    assert dict(span.attributes) == {
        "messaging.system": "raccoon",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": "guid-1",
        "messaging.batch.message_count": 3,
        "messaging.message.body.size": span.attributes["messaging.message.body.size"],
        "server.address": "127.0.0.1",
        "server.port": port,
    }


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_a_batch_is_a_span_linked_to_the_first_event_s(
    exporter: InMemorySpanExporter, tracer: trace.Tracer, scheme: str
) -> None:
    with Collector() as collector:
        port = collector.grpc_port if scheme == "grpc" else collector.port
        with Producer(f"{scheme}://127.0.0.1:{port}", spans=True, linger=30, **OPTIONS) as producer:
            with tracer.start_as_current_span("first") as first:
                receipt = producer.emit("page", b"x")
            producer.emit("page", b"x")
            producer.flush()
    wait_until(lambda: len(exporter.get_finished_spans()) == 2)
    span = next(one for one in exporter.get_finished_spans() if one.name == "send raccoon")
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [first.get_span_context().span_id]
    assert span.attributes["messaging.message.id"] == receipt.req_guid
    assert span.attributes["messaging.batch.message_count"] == 2
    assert span.attributes["server.port"] == port
    assert span.status.is_ok


def test_with_both_a_batch_carries_its_own_span(
    exporter: InMemorySpanExporter, tracer: trace.Tracer, peer: Peer
) -> None:
    with Producer(peer.url, spans=True, propagate=True, **OPTIONS) as producer:
        producer.emit("page", b"x")
    wait_until(lambda: len(exporter.get_finished_spans()) == 1)
    context = exporter.get_finished_spans()[0].context
    assert peer.seen[0]["traceparent"] == header_of(context)


def test_a_failure_ends_its_span_as_an_error(exporter: InMemorySpanExporter) -> None:
    retry = RetryPolicy(max_attempts=1)
    secret = "http://user:hunter2-secret@127.0.0.1:1"
    with RestClient(secret, spans=True, retry=retry, **OPTIONS) as client, pytest.raises(ConnectError):
        client.send(EVENTS)
    producer = Producer(secret, spans=True, **OPTIONS)
    producer.emit("page", b"x")
    producer.close(0)
    wait_until(lambda: len(exporter.get_finished_spans()) == 2)
    one, other = exporter.get_finished_spans()
    assert one.attributes["error.type"] == "ConnectError"
    assert other.attributes["error.type"] == "ClientClosedError"
    assert not one.status.is_ok
    assert not other.status.is_ok
    assert "hunter2" not in f"{one.to_json()}{other.to_json()}"


def test_a_fault_of_the_sdk_is_logged_once_and_costs_no_event(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import Tracer

    def fail(*args: object, **options: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Tracer, "start_span", fail)
    lines: list[str] = []

    class Log:
        def info(self, msg: str, *args: object) -> None:
            if "tracing" in msg:
                lines.append(msg % args)

        warning = error = info

    with Collector() as collector:
        with Producer(collector.url, spans=True, serializer=RAW, logger=Log(), batch_events=1) as producer:
            producer.emit_many(EVENTS)
            assert producer.flush() == 0
        assert collector.event_count == 3
    assert lines == ["tracing failed: OSError('no room'); further failures are not logged"]


def test_a_websocket_alone_cannot_propagate() -> None:
    for make in (WebSocketClient, AsyncWebSocketClient, Producer, AsyncProducer):
        with pytest.raises(ValueError, match="a WebSocket carries no headers for a message; use REST or gRPC"):
            make("ws://localhost", propagate=True, **OPTIONS)
    Producer(["ws://localhost", "http://localhost"], propagate=True, **OPTIONS).close()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"propagate": 1}, TypeError, "propagate takes True or False"),
        ({"spans": "yes"}, TypeError, "spans takes True or False"),
        (
            {"propagate": True, "headers": {"Traceparent": "x"}},
            ValueError,
            "headers: 'Traceparent' is set by propagate",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RestClient("http://localhost", **OPTIONS, **options)


def test_without_the_package_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from raccoon_fast import Producer
for option in ("propagate", "spans"):
    try:
        Producer("http://localhost", **{option: True})
    except ImportError as error:
        print(error)
Producer("http://localhost").close()
"""
    assert run(program) == [
        f"{option}=True needs one more package: pip install 'raccoon_fast[opentelemetry]'"
        for option in ("propagate", "spans")
    ]
