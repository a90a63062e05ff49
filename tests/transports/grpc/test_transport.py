"""gRPC: metadata, deadlines, and what each status means."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time

import grpc
import pytest
from patience import patient
from scripted import SendEventRequest, answer, tcp_server

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    App,
    AsyncGrpcClient,
    Code,
    ConnectError,
    ConnectionLostError,
    GrpcClient,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
    RetryPolicy,
    ServerError,
)
from raccoon_fast.collector import Collector
from raccoon_fast.transports.grpc.transport import says_too_large

ONCE = RetryPolicy(max_attempts=1)
SOON = RetryPolicy(max_attempts=3, initial=0.01)
EVENTS = [("page", b"{}")]
SERVICE = "raystack.raccoon.v1beta1.EventService"


def client(target: str, **options) -> GrpcClient:
    options = {"serializer": RAW, "logger": None, "retry": ONCE, "timeout": 10.0, **options}
    return GrpcClient(target, **options)


@contextlib.contextmanager
def server(behaviour, service: str = SERVICE):
    """A gRPC server whose method is `behaviour(message, context) -> bytes`; yields host:port."""
    handler = grpc.unary_unary_rpc_method_handler(
        lambda data, context: behaviour(SendEventRequest.FromString(data), context)
    )
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        instance = grpc.server(threads)
        instance.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"SendEvent": handler}),))
        port = instance.add_insecure_port("127.0.0.1:0")
        instance.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            instance.stop(0).wait()


def test_each_client_has_its_own_connection():
    peers = set()

    def behaviour(message, context):
        peers.add(context.peer())
        return answer(message.req_guid)

    with server(behaviour) as target, client(target) as one, client(target) as other:
        one.send(EVENTS)
        other.send(EVENTS)
    assert len(peers) == 2


def test_sends_its_identity_as_metadata():
    seen = []

    def behaviour(message, context):
        seen.append((dict(context.invocation_metadata()), context.time_remaining(), message))
        return answer(message.req_guid)

    options = {"user_id": "u1", "group": "g1", "headers": {"X-Trace": "t"}, "app": App("i", "shop", "2"), "auth": "tok"}
    with server(behaviour) as target, client(target, **options) as rpc:
        assert rpc.send([("page", b"one"), ("click", b"two")], req_guid="g").req_guid == "g"
    metadata, remaining_s, message = seen[0]
    assert (metadata["x-user-id"], metadata["x-user-group"], metadata["x-trace"]) == ("u1", "g1", "t")
    assert metadata["authorization"] == "Bearer tok"
    assert metadata["user-agent"].startswith("raccoon_fast/")
    assert metadata["user-agent"].endswith(" shop/2 (i)")
    assert 10 < remaining_s <= 70.1  # a deadline, and not before ours
    assert [(event.type, event.event_bytes) for event in message.events] == [("page", b"one"), ("click", b"two")]


def test_an_id_is_sent_even_if_the_user_gives_none():
    with Collector() as collector, client(collector.grpc_target) as rpc:
        assert rpc.send(EVENTS).response.status == 1


def test_the_app_may_change():
    seen = []

    def behaviour(message, context):
        seen.append(dict(context.invocation_metadata())["user-agent"])
        return answer(message.req_guid)

    with server(behaviour) as target, client(target) as rpc:
        rpc.send(EVENTS)
        rpc.set_app(App("i", "shop", "3"))
        rpc.send(EVENTS)
    assert seen[1].endswith(" shop/3 (i)")
    assert "shop" not in seen[0]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_transient_codes_are_retried(code):
    messages = []

    def behaviour(message, context):
        messages.append(message)
        if len(messages) == 1:
            context.abort(grpc.StatusCode[code], "try later")
        return answer(message.req_guid)

    with server(behaviour) as target, client(target, retry=SOON) as rpc:
        rpc.send(EVENTS)
    first, second = messages
    assert first.req_guid == second.req_guid
    assert first.sent_time.ToNanoseconds() < second.sent_time.ToNanoseconds()


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNKNOWN", "connection id header missing"),
        ("INTERNAL", "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"),
        ("INVALID_ARGUMENT", "no"),
        ("UNAUTHENTICATED", "no"),
        ("PERMISSION_DENIED", "no"),
        ("UNIMPLEMENTED", "unknown service"),
    ],
)
def test_other_codes_are_final(code, details):
    calls = []

    def behaviour(message, context):
        calls.append(message)
        context.abort(grpc.StatusCode[code], details)

    with (
        server(behaviour) as target,
        client(target, retry=SOON) as rpc,
        pytest.raises(ServerError, match=details) as no,
    ):
        rpc.send(EVENTS)
    assert no.value.status == code
    assert not no.value.retryable
    assert len(calls) == 1


def test_another_services_name_is_unimplemented():
    """Older servers use another package."""
    with (
        server(lambda message, context: answer("g"), service="odpf.raccoon.EventService") as target,
        client(target, retry=SOON) as rpc,
        pytest.raises(ServerError, match="UNIMPLEMENTED") as no,
    ):
        rpc.send(EVENTS)
    assert no.value.attempts == 1


def test_a_failed_publish_is_an_error_in_a_successful_call_and_is_tried_again():
    with Collector(acks="sync") as collector, client(collector.grpc_target, retry=SOON) as rpc:
        collector.faults.fail_publish(times=1)
        rpc.send(EVENTS)
        collector.faults.fail_publish()
        with pytest.raises(ServerError) as no:
            rpc.send(EVENTS)
    assert no.value.attempts == 3
    assert no.value.response.code is Code.INTERNAL_ERROR
    assert no.value.outcome is Outcome.POSSIBLY_DELIVERED


class TestSize:
    def test_over_4_mib_is_refused_before_sending(self):
        with Collector() as collector, client(collector.grpc_target) as rpc:
            with pytest.raises(MessageTooLargeError) as large:
                rpc.send([("a", b"x" * 4_194_304)])
            assert collector.request_count == 0
        assert large.value.limit == 4_194_304
        assert large.value.size > 4_194_304

    def test_the_most_that_fits_is_taken(self):
        with Collector() as collector, client(collector.grpc_target) as rpc:
            with pytest.raises(MessageTooLargeError) as large:
                rpc.send([("a", b"x" * 4_194_304)], req_guid="g")
            fits = 4_194_304 - (large.value.size - 4_194_304)
            rpc.send([("a", b"x" * fits)], req_guid="g")
            assert collector.event_count == 1

    def test_a_server_with_a_lower_limit_is_believed_at_once(self):
        calls = []

        def behaviour(message, context):
            calls.append(message)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (99 vs. 9)")

        with server(behaviour) as target, client(target, retry=SOON) as rpc, pytest.raises(MessageTooLargeError):
            rpc.send(EVENTS)
        assert len(calls) == 1


@pytest.mark.parametrize(
    "said",
    [
        "grpc: received message larger than max (5242946 vs. 4194304)",
        "grpc: received message after decompression larger than max 4194304",
        "Received message larger than max (5242946 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 5242946",
        "Received message exceeds the maximum configured message size.",
        "Error, decoded message length too large: found 5242946 bytes, the limit is: 4194304 bytes",
        "Payload Too Large",
        "payload too large",
        "Content Too Large",
        "Request Entity Too Large",
        "http: request body too large",
        "request too large",
        "client intended to send too large body: 300000 bytes",
        "the body exceeds the limit of 1048576 bytes",
        "message size 5242946 is larger than the limit",
    ],
)
def test_error_texts_that_mean_too_large(said):
    assert says_too_large(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Request Header Or Cookie Too Large",
        "Request Header Fields Too Large",
        "metadata size exceeds limit: the message was not read",
        "message rate exceeds the limit",
        "request quota exceeded: 100 requests per second",
        "message count exceeds limit",
        "URI too large for the request",
        "too many requests",
        "connection limit exceeded",
        "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
        "cannot publish events: message broker unavailable",
    ],
)
def test_error_texts_that_mean_something_else(said):
    """Mistaken for too large, a batch would be split down to single events, and each refused."""
    assert not says_too_large(said)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"<html>"])
def test_an_invalid_answer(garbage):
    with server(lambda message, context: garbage) as target, client(target) as rpc, pytest.raises(ProtocolError) as no:
        rpc.send(EVENTS)
    assert no.value.retryable


def test_an_answer_for_another_request():
    with (
        server(lambda message, context: answer("another")) as target,
        client(target) as rpc,
        pytest.raises(ProtocolError, match="another"),
    ):
        rpc.send(EVENTS)


def test_every_call_has_a_deadline():
    release = threading.Event()

    def behaviour(message, context):
        release.wait(patient(10))
        return answer(message.req_guid)

    with server(behaviour) as target, client(target, timeout=0.2) as rpc:
        with pytest.raises(AckTimeoutError) as late:
            rpc.send(EVENTS)
        release.set()
    assert late.value.outcome is Outcome.POSSIBLY_DELIVERED


def test_a_missing_server_fails_before_the_deadline():
    with tcp_server(lambda connection: None) as host:
        pass
    with client(host, retry=SOON) as rpc:
        began = time.monotonic()
        with pytest.raises(ConnectError) as no:
            rpc.send(EVENTS)
        assert time.monotonic() - began < patient(8)
    assert no.value.attempts == 3
    assert no.value.outcome is Outcome.NOT_DELIVERED


def test_a_server_that_does_not_speak_grpc():
    def script(connection):
        connection.sock.recv(1)
        connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.wait_closed()

    failures = (ConnectError, ConnectionLostError, AckTimeoutError)
    with tcp_server(script) as host, client(host, timeout=2) as rpc, pytest.raises(failures):
        rpc.send(EVENTS)


def test_a_connection_that_is_reset_is_tried_again():
    with Collector() as collector, client(collector.grpc_target, retry=SOON) as rpc:
        rpc.send(EVENTS)
        collector.faults.hang_up(times=1)
        rpc.send(EVENTS)


def test_a_server_that_comes_back_is_found():
    with (
        Collector() as collector,
        client(collector.grpc_target, retry=RetryPolicy(max_attempts=50, initial=0.2)) as rpc,
    ):
        rpc.send(EVENTS)
        collector.faults.refuse()
        collector.faults.close_connections()
        receipt = rpc.submit(EVENTS)
        with pytest.raises(TimeoutError):
            receipt.result(0.5)
        collector.faults.accept()
        receipt.result(patient(10))


def test_nothing_is_connected_before_the_first_call(run):
    async def main(target: str) -> None:
        rpc = AsyncGrpcClient(target, serializer=RAW, logger=None)
        async with rpc:
            assert rpc._transport._dialer.connection is None
            await rpc.send(EVENTS)
            assert rpc._transport._dialer.connection is not None

    with Collector() as collector:
        run(main(collector.grpc_target))
