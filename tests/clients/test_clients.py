"""The six clients against a real collector: all keep the same promises, unless a test names certain clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
import uuid

import pytest
from any_client import ASYNC, PROTOCOLS, SYNC, OnLoop, new_client
from google.protobuf import struct_pb2
from patience import patient

import raccoon_fast
from raccoon_fast import (
    JSON,
    PROTO,
    RAW,
    AckTimeoutError,
    App,
    ClientClosedError,
    Code,
    ConnectError,
    DeliveryError,
    Event,
    MessageTooLargeError,
    Outcome,
    RetryPolicy,
    SerializationError,
    ServerError,
    StatsD,
    Status,
    client_info,
    has_extensions,
)
from raccoon_fast.collector import Collector

WIRES = [("rest", "proto"), ("rest", "json"), ("websocket", "proto"), ("websocket", "json"), ("grpc", "proto")]
EVENTS = [("page", b"{}")]
SOON = RetryPolicy(max_attempts=4, initial=0.01)


@pytest.fixture(scope="module")
def running():
    with Collector(group_header="X-User-Group") as collector:
        yield collector


@pytest.fixture
def collector(running):
    running.faults.clear()
    running.clear()
    return running


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture(params=WIRES, ids="-".join)
def new(request, kind):
    """Makes clients of one protocol and wire, of the sync or the async kind, and closes them."""
    protocol, wire = request.param
    with contextlib.ExitStack() as stack:

        def new(server, **options):
            if protocol != "grpc":
                options["wire"] = wire
            client = new_client(protocol, server, ASYNC if kind == "async" else SYNC, **options)
            return stack.enter_context(OnLoop(client) if kind == "async" else client)

        new.protocol = protocol
        new.wire = wire
        yield new


class TestSend:
    @pytest.mark.parametrize("data", [b"", b"\x00\xff{}", "a\n\u20ac\U0001f600".encode(), b"x" * 300_000], ids=len)
    def test_events_arrive_unchanged(self, new, collector, data):
        sent = [Event("page", data), ("\u00fcber \u20ac", b"2"), Event("click", data)]
        before_s = time.time()
        new(collector).send(sent)
        assert [(event.type, event.data) for event in collector.events] == sent
        assert [request.protocol for request in collector.requests] == [new.protocol]
        assert before_s - 1e-3 <= collector.requests[0].sent_time <= time.time() + 1e-3

    def test_the_answer_is_the_servers(self, new, collector):
        result = new(collector).send(EVENTS)
        assert (result.response.status, result.response.code) == (Status.SUCCESS, Code.OK)
        assert result.response.req_guid == result.req_guid
        assert abs(result.response.sent_time - time.time()) < 5

    def test_guids_are_generated(self, new, collector):
        client = new(collector)
        guids = [client.send(EVENTS).req_guid for _ in range(3)]
        assert [request.req_guid for request in collector.requests] == guids
        assert len(set(guids)) == 3
        assert all(str(uuid.UUID(guid)) == guid and uuid.UUID(guid).version == 4 for guid in guids)

    def test_a_given_guid_is_sent(self, new, collector):
        guids = ["1", 'quote" \\ \u20ac', "g" * 1024]
        client = new(collector)
        assert [client.send(EVENTS, req_guid=guid).req_guid for guid in guids] == guids
        assert [request.req_guid for request in collector.requests] == guids

    def test_a_wrong_guid_is_refused(self, new, collector):
        client = new(collector)
        wrong = [("", ValueError), ("g" * 1025, ValueError), (uuid.uuid4(), TypeError), (b"g", TypeError)]
        for call, (guid, error) in itertools.product((client.send, client.submit), wrong):
            with pytest.raises(error, match="req_guid"):
                call(EVENTS, req_guid=guid)
        assert collector.request_count == 0

    def test_values_that_are_not_events_are_refused(self, new, collector):
        client = new(collector)
        wrong = [
            ([], ValueError, "empty"),
            (iter(()), ValueError, "empty"),
            (Event("page", b""), TypeError, r"\[Event\("),
            (b"page", TypeError, "not bytes"),
            (None, TypeError, "not NoneType"),
            ([b"page"], TypeError, r"events\[0\] must be Event"),
            ([("page", b""), ("page",)], TypeError, r"events\[1\] must be Event"),
            ([(b"page", b"")], TypeError, r"events\[0\]: type must be a str"),
        ]
        for call, (events, error, said) in itertools.product((client.send, client.submit), wrong):
            with pytest.raises(error, match=said):
                call(events)
        assert collector.request_count == 0

    def test_an_empty_type_is_refused_and_its_event_named(self, new, collector):
        with pytest.raises(SerializationError, match="type should not be empty") as refused:
            new(collector).send([("page", b""), ("", b"")])
        assert refused.value.index == 1
        assert collector.request_count == 0

    def test_any_iterable_of_pairs_will_do(self, new, collector):
        new(collector).send(["page", b"%d" % i] for i in range(3))
        assert [event.data for event in collector.events] == [b"0", b"1", b"2"]

    def test_the_timeout_of_send_bounds_all_attempts(self, new, collector):
        client = new(collector, retry=SOON)
        client.send(EVENTS)
        collector.faults.drop_acks()
        began_s = time.monotonic()
        with pytest.raises(AckTimeoutError) as late:
            client.send(EVENTS, req_guid="late", timeout=0.3)
        assert 0.25 < time.monotonic() - began_s < patient(3)
        assert (late.value.req_guid, late.value.outcome) == ("late", Outcome.POSSIBLY_DELIVERED)
        assert isinstance(late.value, TimeoutError)
        collector.faults.clear()
        client.send(EVENTS)

    def test_the_timeout_of_the_client_bounds_one_attempt(self, new, collector):
        client = new(collector, timeout=0.3, retry=SOON)
        collector.faults.drop_acks(times=2)
        client.send(EVENTS, req_guid="g")
        assert [request.req_guid for request in collector.requests] == ["g"] * 3

    def test_a_wrong_timeout_is_named(self, new, collector):
        client = new(collector)
        for timeout in (0, -1, float("inf"), float("nan"), "1", True):
            with pytest.raises((TypeError, ValueError), match="timeout"):
                client.send(EVENTS, timeout=timeout)
        assert collector.request_count == 0

    def test_events_the_protocol_cannot_carry_are_refused_before_sending(self, new, collector):
        client = new(collector)
        events = [("big", b"x" * 3_000_000), ("big", b"y" * 2_000_000)]
        if new.protocol != "grpc":
            client.send(events)
            assert [len(event.data) for event in collector.events] == [3_000_000, 2_000_000]
            return
        for call in (client.send, client.submit):
            with pytest.raises(MessageTooLargeError, match="send fewer of its 2 events") as refused:
                call(events)
            assert refused.value.size > refused.value.limit == 4 * 1024 * 1024
        assert collector.request_count == 0


class TestSubmit:
    def test_receipts_are_settled(self, new, collector):
        client = new(collector)
        receipts = [client.submit([("page", b"%d" % i)], req_guid=f"g{i}") for i in range(50)]
        for i, receipt in enumerate(receipts):
            response = receipt.result(patient(10))
            assert response.status is Status.SUCCESS
            assert response.req_guid == receipt.req_guid == f"g{i}"
            assert receipt.done()
            assert receipt.exception(0) is None
        assert sorted(int(event.data) for event in collector.events) == list(range(50))
        assert all(event.req_guid == f"g{int(event.data)}" for event in collector.events)

    def test_a_failure_is_on_the_receipt_and_is_logged(self, new, collector):
        lines = []

        class Lines:
            def info(self, msg, *args):
                pass

            def error(self, msg, *args):
                lines.append(msg % args)

        client = new(collector, logger=Lines())
        collector.faults.status(401)
        receipt = client.submit(EVENTS, req_guid="refused")
        with pytest.raises(ServerError) as refused:
            receipt.result(patient(10))
        assert receipt.exception() is refused.value
        assert refused.value.req_guid == "refused"
        assert any("refused was not acknowledged" in line for line in lines)

    def test_a_wait_that_times_out_leaves_the_request_alone(self, new, collector):
        collector.faults.delay(patient(0.5))
        receipt = new(collector).submit(EVENTS)
        with pytest.raises((TimeoutError, asyncio.TimeoutError)) as waited:
            receipt.result(0.05)
        assert not isinstance(waited.value, DeliveryError)
        assert not receipt.done()
        assert receipt.result(patient(10)).status is Status.SUCCESS
        assert collector.event_count == 1

    def test_callbacks_get_the_receipt_before_and_after(self, new, collector):
        client = new(collector)
        called = []
        receipt = client.submit(EVENTS)
        receipt.add_done_callback(called.append)
        receipt.result(patient(10))
        receipt.add_done_callback(called.append)
        deadline_s = time.monotonic() + patient(10)
        while len(called) < 2:
            assert time.monotonic() < deadline_s
            client.send(EVENTS)  # an event loop of the caller's own runs callbacks only while it runs
        assert called == [receipt, receipt]


class TestAcks:
    def test_each_answer_is_one_ack(self, new, collector):
        client = new(collector)
        client.send(EVENTS, req_guid="before")
        acks = client.acks()
        others = client.acks()
        collector.faults.delay(0.1, times=1)
        client.send(EVENTS, req_guid="sent")
        client.submit(EVENTS, req_guid="submitted").result(patient(10))
        client.close()
        seen = list(acks)
        assert [ack.req_guid for ack in seen] == ["sent", "submitted"]
        assert list(others) == seen
        assert all(ack.response.status is Status.SUCCESS for ack in seen)
        assert all(0 <= ack.sent_ms < 5000 for ack in seen)
        assert 95 <= seen[0].ack_ms < 5000

    def test_they_end_with_a_client_that_sent_nothing(self, new, collector):
        client = new(collector)
        acks = client.acks()
        client.close()
        assert list(acks) == []

    def test_refusals_too(self, new):
        with Collector(acks="sync", publish_failure_rate=1.0) as collector:
            client = new(collector, retry=RetryPolicy(max_attempts=2, initial=0.01))
            acks = client.acks()
            with pytest.raises(ServerError):
                client.send(EVENTS)
            client.close()
            assert [ack.response.code for ack in acks] == [Code.INTERNAL_ERROR] * 2

    def test_the_oldest_is_dropped_and_counted_when_nobody_takes_them(self, new, collector):
        client = new(collector)
        acks = client.acks(maxsize=2)
        for i in range(5):
            client.send(EVENTS, req_guid=f"g{i}")
        acks.close()
        client.send(EVENTS, req_guid="after")
        assert [ack.req_guid for ack in acks] == ["g3", "g4"]
        assert acks.dropped == 3

    def test_a_wrong_maxsize_is_named(self, new, collector):
        client = new(collector)
        for maxsize in (0, -1, 1.5, True, None):
            with pytest.raises((TypeError, ValueError), match="maxsize"):
                client.acks(maxsize)


class TestIdentity:
    def test_user_agent_names_the_app_from_the_next_request_or_connection_on(self, new, collector):
        ours = f"raccoon_fast/{client_info().version} ({'compiled' if has_extensions() else 'pure Python'})"
        client = new(collector, retry=SOON)
        client.send(EVENTS)
        client.set_app(App("goplay-123", "goplay-backend", "1.0"))
        if new.protocol == "websocket":
            collector.faults.close_connections()
        client.send(EVENTS)
        client.set_app(None)
        if new.protocol == "websocket":
            collector.faults.close_connections()
        client.send(EVENTS)
        # gRPC's own name follows.
        agents = [request.user_agent.partition(" grpc-python")[0] for request in collector.requests]
        assert agents == [ours, f"{ours} goplay-backend/1.0 (goplay-123)", ours]

    def test_the_app_may_be_given_at_once(self, new, collector):
        new(collector, app=App("i", "shop", "2")).send(EVENTS)
        assert " shop/2 (i)" in collector.requests[0].user_agent

    def test_naming_the_app_after_close_is_an_error(self, new, collector):
        client = new(collector)
        client.send(EVENTS)
        client.close()
        with pytest.raises(ClientClosedError):
            client.set_app(None)

    def test_a_wrong_app_is_refused(self, new, collector):
        with pytest.raises(TypeError, match="app"):
            new(collector).set_app(("i", "shop", "2"))

    def test_identity_and_headers_reach_the_server(self, new, collector):
        client = new(collector, user_id="me", group="team", headers={"X-Trace": "t 1"}, auth=("user", "pa:ss"))
        client.send(EVENTS)
        request = collector.requests[0]
        assert (request.connection_id, request.group) == ("me", "team")
        assert request.headers["x-trace"] == "t 1"
        assert request.headers["authorization"] == "Basic dXNlcjpwYTpzcw=="

    def test_header_names_are_the_servers_choice(self, new):
        with Collector(id_header="X-Client", group_header="X-Team") as collector:
            new(collector, user_id="me", group="team", id_header="X-Client", group_header="X-Team").send(EVENTS)
            request = collector.requests[0]
            assert (request.connection_id, request.group) == ("me", "team")
            assert "x-user-id" not in request.headers

    def test_a_missing_user_id_is_generated(self, new, collector):
        new(collector).send(EVENTS)
        new(collector).send(EVENTS)
        first, second = (request.connection_id for request in collector.requests)
        assert first.startswith("raccoon_fast-")
        assert first != second
        assert collector.requests[0].group == "--default--"


class TestSerializers:
    def test_proto_takes_messages(self, new, collector):
        message = struct_pb2.Struct()
        message.update({"name": "page", "n": 1.5})
        new(collector, serializer=PROTO).send([("page", message)])
        assert struct_pb2.Struct.FromString(collector.events[0].data) == message

    def test_json_takes_values_json_can_represent(self, new, collector):
        data = {"name": "\u20ac", "n": [1, 2.5, None, True]}
        new(collector, serializer=JSON).send([("page", data)])
        assert json.loads(collector.events[0].data) == data

    def test_raw_takes_bytes_and_buffers(self, new, collector):
        new(collector, serializer=RAW).send([("a", b"1"), ("a", bytearray(b"2")), ("a", memoryview(b"3x")[:1])])
        assert [event.data for event in collector.events] == [b"1", b"2", b"3"]

    def test_a_callable_of_the_users(self, new, collector):
        new(collector, serializer=lambda data: repr(data).encode()).send([("page", 12), ("page", "x")])
        assert [event.data for event in collector.events] == [b"12", b"'x'"]

    @pytest.mark.parametrize(
        ("serializer", "data", "said"),
        [
            (PROTO, {"name": "x"}, "PROTO takes a protobuf message, not dict: use serializer=JSON"),
            (JSON, {"name": object()}, "object has no JSON form"),
            (RAW, "text", "RAW takes bytes, bytearray or memoryview, not str: encode it first"),
            (str, 1, "data should be bytes, bytearray or memoryview, not str"),
            (lambda data: data["missing"], {}, "missing"),
        ],
    )
    def test_a_failure_names_the_event_and_nothing_is_sent(self, new, collector, serializer, data, said):
        good = {PROTO: struct_pb2.Struct(), RAW: b""}.get(serializer)
        before = [] if good is None else [("first", good)]
        client = new(collector, serializer=serializer)
        for call in (client.send, client.submit):
            with pytest.raises(SerializationError, match=said) as failed:
                call([*before, ("page", data)])
            assert (failed.value.index, failed.value.event_type) == (len(before), "page")
            assert f"events[{len(before)}] of type 'page'" in str(failed.value)
        assert collector.request_count == 0

    def test_after_a_failure_the_next_request_is_whole(self, new, collector):
        def serialize(data):
            if data == "bad":
                raise RuntimeError("cannot")
            return data.encode()

        client = new(collector, serializer=serialize)
        with pytest.raises(SerializationError) as failed:
            client.send([("a", "1"), ("b", "2"), ("c", "bad"), ("d", "4")])
        assert (failed.value.index, failed.value.event_type) == (2, "c")
        assert isinstance(failed.value.__cause__, RuntimeError)
        client.send([("e", "5")])
        assert [(event.type, event.data) for event in collector.events] == [("e", b"5")]

    def test_events_are_serialized_before_submit_returns(self, new, collector):
        data = {"n": 1}
        receipt = new(collector, serializer=JSON).submit([("page", data)])
        data["n"] = 2
        receipt.result(patient(10))
        assert json.loads(collector.events[0].data) == {"n": 1}


class TestRetry:
    @pytest.mark.parametrize("fault", ["hang_up", "status", "wrong_guid", "bad_answer"])
    def test_another_attempt_has_the_same_guid(self, new, collector, fault):
        # A WebSocket's answer for a guid that nobody sent answers nothing.
        overdue = fault == "wrong_guid" and new.protocol == "websocket"
        client = new(collector, retry=SOON, timeout=0.2 if overdue else 10.0)
        client.send(EVENTS)
        arguments = {"status": [503], "bad_answer": [b"\xff<html>"]}.get(fault, [])
        before = collector.faults.fired.get(fault, 0)
        getattr(collector.faults, fault)(*arguments, times=2)
        if fault == "status" and new.protocol == "websocket":
            collector.faults.close_connections()  # it is a handshake's answer
        result = client.send([("page", b"again")], req_guid="kept")
        assert result.response.req_guid == "kept"
        assert collector.faults.fired[fault] == before + 2
        assert {event.req_guid for event in collector.events if event.data == b"again"} == {"kept"}

    def test_a_failed_publish_is_tried_again(self, new):
        with Collector(acks="sync") as collector:
            collector.faults.fail_publish(times=2)
            new(collector, retry=SOON).send(EVENTS, req_guid="kept")
            assert [request.req_guid for request in collector.requests] == ["kept"] * 3
            assert collector.event_count == 1

    def test_the_error_after_the_last_attempt_says_what_is_known(self, new):
        with Collector(acks="sync", publish_failure_rate=1.0) as collector:
            with pytest.raises(ServerError, match="INTERNAL_ERROR") as failed:
                new(collector, retry=RetryPolicy(max_attempts=3, initial=0.01)).send(EVENTS, req_guid="g")
            error = failed.value
            assert (error.req_guid, error.attempts, error.retryable) == ("g", 3, True)
            assert error.outcome is Outcome.POSSIBLY_DELIVERED
            assert error.response.code is Code.INTERNAL_ERROR
            assert collector.request_count == 3

    def test_a_permanent_error_is_not_retried(self, new, collector):
        before = collector.faults.fired.get("status", 0)
        collector.faults.status(401)
        with pytest.raises(ServerError) as refused:
            new(collector, retry=SOON).send(EVENTS)
        assert (refused.value.attempts, refused.value.retryable) == (1, False)
        assert refused.value.outcome is Outcome.NOT_DELIVERED
        assert refused.value.response is None
        assert collector.faults.fired["status"] == before + 1

    def test_a_server_that_comes_back_is_found(self, new, collector):
        client = new(collector, retry=RetryPolicy(max_attempts=50, initial=0.05, maximum=0.2))
        collector.faults.refuse()
        receipt = client.submit(EVENTS)
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            receipt.result(0.2)
        collector.faults.accept()
        receipt.result(patient(10))
        assert collector.event_count == 1


class Daemon:
    """The UDP port of a StatsD daemon; `lines` is what came so far."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(10)
        self.port = self._socket.getsockname()[1]
        self.lines: list[str] = []

    def wait_for(self, *names: str) -> dict[str, list[str]]:
        """Values by name, once each of these has come."""
        while True:
            values: dict[str, list[str]] = {}
            for line in self.lines:
                name, _, value = line.partition(":")
                values.setdefault(name, []).append(value)
            if all(name in values for name in names):
                return values
            self.lines += self._socket.recv(65536).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


class TestStats:
    @pytest.fixture
    def daemon(self):
        with contextlib.closing(Daemon()) as daemon:
            yield daemon

    @pytest.fixture
    def stats(self, daemon):
        with StatsD("127.0.0.1", daemon.port, prefix="shop", flush_interval=0.02) as stats:
            yield stats

    def test_times_and_bytes_have_the_documented_names(self, new, collector, daemon, stats):
        client = new(collector, stats=stats)
        collector.faults.delay(0.1)
        client.send([("page", b"x" * 1000)])
        values = daemon.wait_for(
            "shop.sent_tt_ms", "shop.ack_tt_ms", "shop.total_bytes_sent", "shop.total_bytes_recieved"
        )
        assert set(values) == {
            "shop.sent_tt_ms",
            "shop.ack_tt_ms",
            "shop.total_bytes_sent",
            "shop.total_bytes_recieved",
        }
        numbers = {name: sum(float(value.split("|")[0]) for value in values[name]) for name in values}
        kinds = {name: {value.split("|")[1] for value in values[name]} for name in values}
        assert kinds["shop.sent_tt_ms"] == kinds["shop.ack_tt_ms"] == {"ms"}
        assert kinds["shop.total_bytes_sent"] == kinds["shop.total_bytes_recieved"] == {"c"}
        assert 95 < numbers["shop.ack_tt_ms"] < 5000
        assert 0 <= numbers["shop.sent_tt_ms"] < 5000
        assert 1000 < numbers["shop.total_bytes_sent"] < 3000
        assert 20 < numbers["shop.total_bytes_recieved"] < 1000

    def test_a_connection_that_cannot_be_made_is_counted(self, new, collector, daemon, stats):
        collector.faults.refuse()
        with pytest.raises(ConnectError):
            new(collector, stats=stats).send(EVENTS)
        assert daemon.wait_for("shop.total_conn_err") == {"shop.total_conn_err": ["1|c"]}

    def test_a_connection_that_is_lost_is_counted(self, new, collector, daemon, stats):
        collector.faults.hang_up(times=1)
        new(collector, stats=stats, retry=SOON).send(EVENTS)
        assert daemon.wait_for("shop.total_conn_err")["shop.total_conn_err"] == ["1|c"]


class TestLife:
    """More in test_lifecycle."""

    def test_leaving_with_closes(self, new, collector):
        client = new(collector)
        client.send(EVENTS)
        client.close()
        for call in (client.send, client.submit):
            with pytest.raises(ClientClosedError, match="was closed"):
                call(EVENTS)
        with pytest.raises(ClientClosedError, match="was closed"):
            client.acks()
        client.close()

    def test_an_error_passes_through_with(self, kind, collector):
        client = new_client("rest", collector, ASYNC if kind == "async" else SYNC)
        collector.faults.status(401)
        with pytest.raises(ServerError), OnLoop(client) if kind == "async" else client as entered:
            entered.send(EVENTS)
        with pytest.raises(ClientClosedError):
            client.submit(EVENTS)

    def test_with_hands_out_the_client_itself(self, collector):
        with new_client("rest", collector) as entered:
            assert type(entered) is SYNC["rest"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestAsyncOnly:
    def test_a_cancelled_send_leaves_the_client_usable(self, protocol, collector):
        async def main():
            options = {"connections": 2} if protocol == "rest" else {}
            async with new_client(protocol, collector, ASYNC, retry=SOON, **options) as client:
                collector.faults.delay(0.5)
                for i in range(6):
                    task = asyncio.ensure_future(client.send(EVENTS, req_guid=f"g{i}"))
                    await asyncio.sleep(0.01 * i)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                collector.faults.clear()
                result = await client.send([("page", b"after")], req_guid="g5")  # its guid is free again
                assert result.response.req_guid == "g5"

        asyncio.run(main())
        assert [event.data for event in collector.events].count(b"after") == 1
        guids = [request.req_guid for request in collector.requests]
        assert all(guids.count(f"g{i}") <= 1 for i in range(5))

    def test_a_cancelled_wait_for_a_receipt_does_not_cancel_the_request(self, protocol, collector):
        async def main():
            async with new_client(protocol, collector, ASYNC) as client:
                collector.faults.delay(0.2)
                receipt = client.submit(EVENTS)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(receipt, 0.02)
                assert (await receipt).status is Status.SUCCESS
                assert receipt.result().status is Status.SUCCESS

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["send", "submit"])
    def test_a_cancelled_close_fails_the_rest_at_once_and_closes_the_connections(self, protocol, how, collector):
        collector.faults.drop_acks()

        async def main():
            client = new_client(protocol, collector, ASYNC, timeout=60)
            outcome = asyncio.ensure_future(client.send(EVENTS)) if how == "send" else client.submit(EVENTS)
            while collector.request_count == 0:
                await asyncio.sleep(0.001)
            closing = asyncio.ensure_future(client.close(timeout=60))
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            error = outcome.exception()
            assert isinstance(error, ClientClosedError)
            assert error.outcome is Outcome.POSSIBLY_DELIVERED
            assert client._transport.connections == 0
            await client.close()

        asyncio.run(main())

    def test_many_at_once(self, protocol, collector):
        async def main():
            async with new_client(protocol, collector, ASYNC) as client:
                sends = [client.send([("page", b"%d" % i)], req_guid=f"g{i}") for i in range(100)]
                results = await asyncio.gather(*sends)
                assert [result.req_guid for result in results] == [f"g{i}" for i in range(100)]
                assert all(result.response.req_guid == result.req_guid for result in results)

        asyncio.run(main())
        assert sorted(int(event.data) for event in collector.events) == list(range(100))

    def test_acks_are_followed_while_sending(self, protocol, collector):
        async def main():
            async with new_client(protocol, collector, ASYNC) as client, client.acks() as acks:

                async def follow():
                    return [ack.req_guid async for ack in acks]

                following = asyncio.ensure_future(follow())
                guids = [(await client.send(EVENTS)).req_guid for _ in range(5)]
                await client.close()
                assert await following == guids

        asyncio.run(main())

    def test_another_event_loop_is_refused(self, protocol, collector):
        client = new_client(protocol, collector, ASYNC)

        async def elsewhere():
            await client.send(EVENTS)

        with OnLoop(client) as here:
            here.send(EVENTS)
            with pytest.raises(RuntimeError, match="one client per loop"):
                asyncio.run(elsewhere())
            here.send(EVENTS)

    def test_the_app_is_named_on_its_event_loop(self, protocol, collector):
        client = new_client(protocol, collector, ASYNC)
        client.set_app(App("i", "shop", "1"))  # or before there is one
        with OnLoop(client) as here:
            here.send(EVENTS)
            with pytest.raises(RuntimeError, match="no running event loop"):
                client.set_app(App("i", "shop", "2"))
            here.send(EVENTS)
        assert all(" shop/1 (i)" in request.user_agent for request in collector.requests)

    def test_made_and_used_without_with(self, protocol, collector):
        async def main():
            client = new_client(protocol, collector, ASYNC)
            try:
                await client.send(EVENTS)
            finally:
                await client.close()

        asyncio.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_callbacks_of_a_sync_client_run_beside_the_event_loop(protocol, collector):
    with new_client(protocol, collector) as client:
        held = threading.Event()
        entered = threading.Event()

        def hold(_):
            entered.set()
            held.wait(patient(10))

        client.submit(EVENTS).add_done_callback(hold)
        assert entered.wait(patient(10))
        client.send(EVENTS)  # and so may a callback
        sent = threading.Event()

        def send(_):
            client.send(EVENTS)
            sent.set()

        client.submit(EVENTS).add_done_callback(send)
        held.set()
        assert sent.wait(patient(10))


def test_types_with_parameters_can_be_written_where_they_are_evaluated():
    """As a base class or in an annotation, the parameter is the type the serializer accepts."""
    from raccoon_fast.clients.sync_client import Client

    class Own(Client[raccoon_fast.AsyncRestClient]):
        pass

    class Bytes(raccoon_fast.Producer[bytes]):
        pass

    for kind in (raccoon_fast.RestClient, raccoon_fast.AsyncRestClient, raccoon_fast.AsyncProducer):
        assert kind[bytes].__args__ == (bytes,)
    assert raccoon_fast.Event[bytes].__args__ == (bytes,)
    assert raccoon_fast.Serializer[bytes].__args__[-1] is bytes
    with Bytes("http://127.0.0.1:9", serializer=raccoon_fast.RAW) as producer:
        assert repr(producer).startswith("<Bytes ")
    assert Own.__orig_bases__[0].__args__[0] is raccoon_fast.AsyncRestClient
