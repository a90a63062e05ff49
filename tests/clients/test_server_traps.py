"""Behaviour of a real server under stress, reproduced with the collector: no event is lost."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from patience import patient

from raccoon_fast import RAW, Code, Outcome, RestClient, RetryPolicy, ServerError, WebSocketClient
from raccoon_fast.collector import Collector

EVENTS = [("page", b"{}")]
SOON = RetryPolicy(max_attempts=6, initial=0.01)


def websocket(collector: Collector, **options) -> WebSocketClient:
    options = {"serializer": RAW, "logger": None, "retry": SOON, "timeout": 10.0, **options}
    return WebSocketClient(collector.ws_url, **options)


def test_a_success_for_a_resend_does_not_count_for_the_first_attempt():
    """A server that dedups by connection answers SUCCESS for a guid it has seen while its first attempt may yet fail.

    Sent again on the same connection, this event would be acknowledged and lost.
    """
    with (
        Collector(acks="sync", dedup=True, publish_delay=0.6) as collector,
        websocket(collector, timeout=1.0) as client,
    ):
        collector.faults.delay(2.0, times=1)  # the answer to the first attempt is overdue,
        collector.faults.fail_publish(times=1)  # and what it would have said is INTERNAL_ERROR
        client.send(EVENTS, req_guid="g")
        assert [event.req_guid for event in collector.events] == ["g"]
        connections = [request.headers["x-user-id"] for request in collector.requests]
        assert len(connections) == len(set(connections)) == 2


def test_failing_publishes_are_met_one_request_at_a_time():
    with Collector(acks="sync", dedup=True, publish_delay=0.005) as collector, websocket(collector) as client:
        collector.faults.fail_publish(times=1)
        receipts = [client.submit([("page", b"%d" % i)]) for i in range(40)]
        for receipt in receipts:
            receipt.result(patient(20))
        assert sorted(int(event.data) for event in collector.events) == list(range(40))


def test_acknowledgements_are_read_while_nobody_takes_them():
    """A client that leaves its acknowledgements unread stalls every client of the server."""
    with Collector() as collector, websocket(collector) as client:
        acks = client.acks(maxsize=10)
        block = threading.Event()
        client.submit(EVENTS).add_done_callback(lambda _: block.wait(patient(20)))
        for receipt in [client.submit(EVENTS) for _ in range(300)]:
            receipt.result(patient(20))
        block.set()
        assert acks.dropped == 291


def test_a_half_open_connections_id_is_refused_and_waited_out():
    """The server frees it when no pong has come for its read deadline."""
    with Collector(ping_interval=0.2, pong_wait=0.8) as collector:
        holder = socket.create_connection(("127.0.0.1", collector.port))
        holder.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-User-ID: me\r\n\r\n"
        )
        collector.wait_until(lambda c: c.connections == 1)
        began = time.monotonic()
        with websocket(collector, user_id="me", retry=RetryPolicy(max_attempts=1)) as client:
            client.send(EVENTS)
        assert time.monotonic() - began > 0.3  # it was refused meanwhile
        holder.close()
        assert collector.event_count == 1


def test_clients_back_off_from_a_full_server():
    with Collector(max_connections=1) as collector, websocket(collector) as first:
        first.send(EVENTS)
        with websocket(collector) as second, pytest.raises(ServerError) as full:
            second.send(EVENTS)
        assert full.value.response.code is Code.MAX_CONNECTION_LIMIT_REACHED
        assert full.value.outcome is Outcome.NOT_DELIVERED
        assert full.value.attempts == 6
        with websocket(collector, retry=RetryPolicy(max_attempts=50, initial=0.05, maximum=0.2)) as third:
            waiting = third.submit(EVENTS)
            first.close()
            waiting.result(patient(10))
        assert collector.event_count == 2


def test_a_server_that_pings_fast_keeps_its_client():
    """Only a pong moves the server's read deadline: neither data nor the client's own pings do."""
    pong_wait = patient(0.3)
    collecting = Collector(ping_interval=0.05, pong_wait=pong_wait)
    with collecting as collector, websocket(collector, ping_interval=0.1) as client:
        client.send(EVENTS)
        pings = time.monotonic() + 3.0 * pong_wait
        while time.monotonic() < pings:
            client.send(EVENTS)
        assert len({request.headers["x-user-id"] for request in collector.requests}) == 1


def test_requests_of_a_cut_connection_are_resent():
    """A server that is stopped finishes REST and gRPC calls, and cuts WebSockets without a close frame."""
    with Collector(acks="sync", publish_delay=0.2) as collector, websocket(collector) as client:
        receipts = [client.submit([("page", b"%d" % i)]) for i in range(4)]
        collector.wait_until(lambda c: c.request_count == 4)
        collector.faults.close_connections()
        for receipt in receipts:
            receipt.result(patient(10))
        assert {int(event.data) for event in collector.events} == set(range(4))


def test_rest_early_errors_are_seen():
    with Collector() as collector:
        collector.faults.early_error(400)
        rest = RestClient(collector.url, serializer=RAW, logger=None, retry=SOON)
        with rest, pytest.raises(ServerError, match="400") as refused:
            rest.send([("big", b"x" * 5_000_000)])
        assert refused.value.attempts == 1
