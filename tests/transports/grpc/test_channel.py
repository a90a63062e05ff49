"""gRPC over the user's own channels: round_robin, interceptors, credentials, and the errors' names."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from certificates import Files, make_certificates
from patience import patient, wait_until
from scripted import SendEventRequest, answer

from raccoon_fast import (
    RAW,
    TLS,
    AckTimeoutError,
    AsyncGrpcClient,
    AsyncProducer,
    ConnectError,
    ConnectionLostError,
    DeliveryError,
    GrpcClient,
    MessageTooLargeError,
    Outcome,
    Producer,
    ProtocolError,
    RaccoonError,
    RetryPolicy,
)
from raccoon_fast.collector import Collector

EVENTS = [("page", b"{}")]
OPTIONS: dict[str, Any] = {"serializer": RAW, "logger": None, "retry": RetryPolicy(max_attempts=1), "timeout": 10.0}
SERVICE = "raystack.raccoon.v1beta1.EventService"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@contextlib.contextmanager
def server(behaviour: Callable[[Any, grpc.ServicerContext], bytes]) -> Iterator[str]:
    """A gRPC server whose method is `behaviour(message, context) -> bytes`; yields host:port."""
    handler = grpc.unary_unary_rpc_method_handler(
        lambda data, context: behaviour(SendEventRequest.FromString(data), context)
    )
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        instance = grpc.server(threads)
        instance.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"SendEvent": handler}),))
        port = instance.add_insecure_port("127.0.0.1:0")
        instance.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            instance.stop(0).wait()


def failure_of(target: str, **options: Any) -> Exception:
    """What sending over a channel fails with."""
    options = {**OPTIONS, "channel": grpc.aio.insecure_channel, **options}
    with GrpcClient(target, **options) as client, pytest.raises(RaccoonError) as caught:
        client.send(EVENTS)
    return caught.value


def test_a_sync_client(collector: Collector) -> None:
    targets: list[str] = []

    def make(target: str) -> grpc.aio.Channel:
        targets.append(target)
        return grpc.aio.insecure_channel(target)

    with GrpcClient(f"grpc://{collector.grpc_target}", channel=make, user_id="me", **OPTIONS) as client:
        for _ in range(3):
            client.send(EVENTS)
        receipts = [client.submit(EVENTS) for _ in range(20)]
        assert all(receipt.result(patient(10)).status == 1 for receipt in receipts)
    assert targets == [collector.grpc_target]
    assert collector.event_count == 23


@pytest.mark.parametrize("make", ["lambda", "function of the module"])
def test_an_async_client(collector: Collector, make: str) -> None:
    channel: Any = grpc.aio.insecure_channel
    if make == "lambda":
        channel = lambda: grpc.aio.insecure_channel(collector.grpc_target)  # noqa: E731

    async def main() -> None:
        async with AsyncGrpcClient(collector.grpc_target, channel=channel, **OPTIONS) as client:
            await client.send(EVENTS)

    asyncio.run(main())
    assert collector.event_count == 1


def test_round_robin_over_three_servers() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Collector()) for _ in range(3)]
        target = "ipv4:" + ",".join(one.grpc_target for one in servers)
        producer = Producer(
            "grpc://three.test",
            serializer=RAW,
            logger=None,
            batch_events=10,
            channel=lambda: grpc.aio.insecure_channel(target, options=[("grpc.lb_policy_name", "round_robin")]),
        )
        with producer:

            def emit() -> bool:
                for _ in range(500):
                    producer.emit("t", b"x")
                assert producer.flush(patient(20)) == 0
                return all(one.event_count for one in servers)

            wait_until(emit, 30.0)
            report = producer.close()
        assert report.total.acked == report.total.accepted == sum(one.event_count for one in servers)


def test_an_interceptor_sees_each_call(collector: Collector) -> None:
    seen: list[str] = []

    class Tracing(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(details.method)
            details.metadata.add("traceparent", "00-1-2-01")
            return await continuation(details, request)

    with GrpcClient(
        collector.grpc_target,
        channel=lambda target: grpc.aio.insecure_channel(target, interceptors=[Tracing()]),
        **OPTIONS,
    ) as client:
        client.send(EVENTS)
    assert [method if isinstance(method, str) else method.decode() for method in seen] == [f"/{SERVICE}/SendEvent"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_call_credentials(files: Files) -> None:
    """They are sent over TLS only, in addition to our own metadata."""
    with Collector(tls_cert=files.server, tls_key=files.server) as collector:

        def make(target: str) -> grpc.aio.Channel:
            secure = grpc.ssl_channel_credentials(Path(files.ca).read_bytes())
            token = grpc.access_token_call_credentials("secret")
            return grpc.aio.secure_channel(target, grpc.composite_channel_credentials(secure, token))

        with GrpcClient(f"grpcs://localhost:{collector.grpc_port}", channel=make, **OPTIONS) as client:
            client.send(EVENTS)
        assert collector.event_count == 1


def test_metadata_matches_the_own_transport() -> None:
    seen: list[dict[str, Any]] = []

    def behaviour(message: Any, context: grpc.ServicerContext) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        return answer(message.req_guid)

    options = {**OPTIONS, "user_id": "me", "group": "us", "headers": {"X-Key": " v "}, "auth": "token"}
    with server(behaviour) as target:
        for channel in (None, grpc.aio.insecure_channel):
            with GrpcClient(target, channel=channel, **options) as client:
                client.send(EVENTS)
    own, theirs = ({name: value for name, value in one.items() if name != "user-agent"} for one in seen)
    assert own == theirs
    assert own["x-user-id"] == "me"


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK],
    ids=lambda code: code.name,
)
def test_each_status_is_named_as_by_the_own_transport(code: grpc.StatusCode) -> None:
    def behaviour(message: Any, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "so: it is 100% \u00fc")
        raise AssertionError

    errors: list[Any] = []
    with server(behaviour) as target:
        for channel in (None, grpc.aio.insecure_channel):
            with GrpcClient(target, channel=channel, **OPTIONS) as client, pytest.raises(DeliveryError) as caught:
                client.send(EVENTS)
            errors.append(caught.value)
    own, theirs = errors
    assert type(own) is type(theirs)
    assert str(own) == str(theirs)
    assert (own.outcome, own.retryable, getattr(own, "status", "")) == (
        theirs.outcome,
        theirs.retryable,
        getattr(theirs, "status", ""),
    )


def test_an_invalid_answer_is_a_protocol_error() -> None:
    for body in (b"\xff", answer("another guid")):
        with server(lambda message, context, body=body: body) as target:
            assert isinstance(failure_of(target), ProtocolError)


def test_a_message_too_large_for_the_server() -> None:
    def behaviour(message: Any, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max (5 vs. 4)")
        raise AssertionError

    with server(behaviour) as target:
        assert isinstance(failure_of(target), MessageTooLargeError)


def test_an_answer_that_does_not_come(collector: Collector) -> None:
    collector.faults.delay(5.0)
    error: Any = failure_of(collector.grpc_target, timeout=0.3)
    assert isinstance(error, AckTimeoutError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED


def test_no_server_listens() -> None:
    error: Any = failure_of("127.0.0.1:1")
    assert isinstance(error, ConnectError)
    assert "failed to connect" in str(error)
    assert error.outcome is Outcome.NOT_DELIVERED
    assert error.retryable


def test_an_interceptor_that_fails(collector: Collector) -> None:
    class Broken(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            raise KeyError("no token")

    def make(target: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(target, interceptors=[Broken()])

    error = failure_of(collector.grpc_target, channel=make)
    assert isinstance(error, ConnectionLostError)
    assert "the channel to grpc://127.0.0.1" in str(error)
    assert "no token" in str(error)


@pytest.mark.parametrize(
    ("made", "said", "retryable"),
    [(lambda: None, "must return a grpc.aio.Channel, not None", False), (lambda: 1 / 0, "ZeroDivisionError", True)],
)
def test_a_callable_that_does_not_return_a_channel(made: Any, said: str, retryable: bool) -> None:
    error: Any = failure_of("127.0.0.1:1", channel=made)
    assert isinstance(error, ConnectError)
    assert said in str(error)
    assert error.retryable is retryable


def test_a_server_that_comes_back(collector: Collector) -> None:
    """A producer's channel connects again by itself."""
    quick = RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1)
    fast = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    with Producer(
        f"grpc://{collector.grpc_target}",
        serializer=RAW,
        logger=None,
        retry=quick,
        channel=lambda target: grpc.aio.insecure_channel(target, options=fast),
    ) as producer:
        producer.emit("t", b"1")
        assert producer.flush(patient(20)) == 0
        collector.faults.refuse()
        collector.faults.close_connections()
        producer.emit("t", b"2")
        wait_until(lambda: not producer.health().ok)
        collector.faults.accept()
        assert producer.flush(patient(30)) == 0
        assert producer.close().total.acked == 2


def test_per_url_in_a_list(collector: Collector) -> None:
    made: list[str] = []

    def make(target: str) -> grpc.aio.Channel:
        made.append(target)
        return grpc.aio.insecure_channel(target)

    urls = [f"grpc://{collector.grpc_target}", collector.url]

    async def main() -> None:
        for channel in (make, [make, None]):
            async with AsyncProducer(urls, serializer=RAW, logger=None, channel=channel) as producer:
                await producer.emit("t", b"x")

    asyncio.run(main())
    assert made == [collector.grpc_target] * 2
    assert collector.event_count == 2


@pytest.mark.parametrize(
    ("urls", "options", "error"),
    [
        ("ws://h", {"channel": grpc.aio.insecure_channel}, "channel is for gRPC"),
        (["grpc://h", "ws://h"], {"channel": [grpc.aio.insecure_channel]}, "one entry per url"),
        (["grpc://h", "ws://h"], {"channel": [None, grpc.aio.insecure_channel]}, "ws://h/api/v1/events is not"),
        ("grpcs://h", {"channel": grpc.aio.insecure_channel, "tls": TLS()}, "tls and channel are both given"),
        ("grpc://h", {"channel": grpc.aio.insecure_channel, "proxy": "http://h"}, "proxy and channel are both given"),
        ("grpc://h", {"channel": "h:1"}, "one entry per url"),
        ("grpc://h", {"channel": 5}, "channel takes a callable"),
    ],
)
def test_wrong_options(urls: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Producer(urls, **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_its_own(collector: Collector) -> None:
    program = """
import os, sys
import grpc.aio
from raccoon_fast import RAW, Producer
made = []
def make(target):
    made.append(os.getpid())
    return grpc.aio.insecure_channel(target)
producer = Producer(sys.argv[1], serializer=RAW, logger=None, channel=make)
pid = os.fork()
producer.emit("t", b"x")
assert producer.flush(20) == 0
producer.close()
assert made == [os.getpid()]
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
else:
    os._exit(0)
"""
    command = [sys.executable, "-c", program, f"grpc://{collector.grpc_target}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(50), check=False)
    assert done.returncode == 0, done.stderr
    assert collector.event_count == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_after_use_gets_an_error_about_grpcio(collector: Collector) -> None:
    """It would hang, or crash the child."""
    program = """
import os, sys
import grpc.aio
from raccoon_fast import RAW, ConnectError, GrpcClient
client = GrpcClient(sys.argv[1], serializer=RAW, logger=None, channel=grpc.aio.insecure_channel)
client.send([("t", b"x")])
pid = os.fork()
if pid == 0:
    try:
        client.send([("t", b"y")])
    except ConnectError as error:
        os._exit(7 if "grpcio was in use when this process was forked" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
client.send([("t", b"z")])
client.close()
"""
    command = [sys.executable, "-c", program, collector.grpc_target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert collector.event_count == 2
