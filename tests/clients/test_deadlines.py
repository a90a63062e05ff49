"""Each wait of a request has a deadline: for a connection, a turn, an answer. All other limits are set to 600 s."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from any_client import ASYNC, PROTOCOLS, SYNC, OnLoop, address_of, new_client
from fault_proxy import DOWN, UP, FaultProxy
from h2.settings import SettingCodes
from h2_peer import strict_server
from patience import patient, wait_until
from trial import Lines

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    AsyncProducer,
    Outcome,
    Producer,
    RaccoonError,
    RetryPolicy,
)
from raccoon_fast.clients import sync_client
from raccoon_fast.collector import Collector
from raccoon_fast.delivery.loop_thread import HELD_UP

EVENTS = [("t", b"x")]
SCHEMES = {"rest": "http://", "websocket": "ws://", "grpc": "grpc://"}
SOON_S, NEVER_S = 0.3, 600.0

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_kind = pytest.mark.parametrize("kind", [SYNC, ASYNC], ids=["sync", "async"])
each_producer = pytest.mark.parametrize("kind", [Producer, AsyncProducer], ids=["sync", "async"])


@contextlib.contextmanager
def client(protocol: str, host: str, kind: dict, **options: Any) -> Iterator[Any]:
    options = {"timeout": NEVER_S, "connect_timeout": NEVER_S, **options}
    made = new_client(protocol, SCHEMES[protocol] + host, kind, **options)
    with OnLoop(made) if kind is ASYNC else made as opened:
        yield opened
        opened.close(0.0)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """What is done here ends by the short bound, and not by one of the long ones."""
    began_s = time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    assert took_s > SOON_S * 0.9
    assert took_s < min(patient(20), NEVER_S / 2)


@pytest.fixture
def no_door() -> Iterator[str]:
    """An address that takes no connection and refuses none."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        for _ in range(2):  # its queue is full then
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, port))
        yield f"{host}:{port}"


@pytest.fixture
def silent() -> Iterator[Collector]:
    """A server that takes requests and answers none."""
    with Collector(sink="null") as collector:
        collector.faults.drop_acks()
        yield collector


def host_of(protocol: str, collector: Collector) -> str:
    return address_of(protocol, collector).rpartition("/")[2]


@each_kind
@each_protocol
def test_an_attempt_s_timeout_bounds_connecting(no_door: str, protocol: str, kind: dict) -> None:
    with client(protocol, no_door, kind, timeout=SOON_S) as one, soon(), pytest.raises(RaccoonError) as failed:
        one.send(EVENTS)
    assert failed.value.outcome is Outcome.NOT_DELIVERED


@each_kind
@each_protocol
def test_an_attempt_s_timeout_bounds_the_wait_for_a_turn(
    silent: Collector, protocol: str, kind: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_client, "_MARGIN_S", patient(1))  # the transport's own error is expected, however late
    option: dict[str, int] = {"rest": {"connections": 1}, "websocket": {"max_in_flight": 1}, "grpc": {}}[protocol]
    with contextlib.ExitStack() as stack:
        if protocol == "grpc":
            settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
            host, _ = stack.enter_context(strict_server(lambda _: None, settings))
        else:
            host = host_of(protocol, silent)
        one = stack.enter_context(client(protocol, host, kind, **option))
        first = one.submit(EVENTS)
        with soon(), pytest.raises(AckTimeoutError) as failed:
            one.send(EVENTS, timeout=SOON_S)
        assert failed.value.outcome is Outcome.NOT_DELIVERED
        assert not first.done(), first.exception(0.0)


@each_kind
@each_protocol
@pytest.mark.parametrize(("timeout", "total_timeout"), [(SOON_S, NEVER_S), (NEVER_S, SOON_S)])
def test_the_tighter_of_two_bounds_wins(
    silent: Collector, protocol: str, kind: dict, timeout: float, total_timeout: float
) -> None:
    retry = RetryPolicy(max_attempts=1, total_timeout=total_timeout)
    with client(protocol, host_of(protocol, silent), kind, retry=retry) as one, soon(), pytest.raises(AckTimeoutError):
        one.send(EVENTS, timeout=timeout)


def new_producer(kind: type, url: str | list[str], **options: Any) -> Any:
    more = {"serializer": RAW, "logger": None, "linger": 0.001, "batch_events": 1, "connect_timeout": NEVER_S}
    return kind(url, **more, **options)


def settled(kind: type, url: str | list[str], **options: Any) -> tuple[list[Any], Any]:
    """What two events in two batches end with, and the counts."""
    if kind is Producer:
        producer = new_producer(kind, url, **options)
        receipts = [producer.emit("t", b"x") for _ in range(2)]
        return [receipt.exception(NEVER_S) for receipt in receipts], producer.close(0).total

    async def main() -> tuple[list[Any], Any]:
        producer = new_producer(kind, url, **options)
        receipts = [await producer.emit("t", b"x") for _ in range(2)]
        return await asyncio.gather(*receipts, return_exceptions=True), (await producer.close(0)).total

    return asyncio.run(main())


@each_producer
@pytest.mark.parametrize("fault", ["no door", "silent"])
@each_protocol
def test_delivery_timeout_bounds_an_attempt_under_way(
    no_door: str, silent: Collector, protocol: str, fault: str, kind: type
) -> None:
    host = no_door if fault == "no door" else host_of(protocol, silent)
    with soon():
        errors, total = settled(kind, SCHEMES[protocol] + host, timeout=NEVER_S, delivery_timeout=SOON_S)
    assert all(isinstance(error, RaccoonError) for error in errors), errors
    assert (total.lost, total.unsettled) == (2, 0)


@each_producer
@each_protocol
def test_an_attempt_s_timeout_bounds_connecting_of_a_producer(protocol: str, kind: type) -> None:
    """Events that waited for one server then go to the other."""
    with Collector(sink="null") as collector, FaultProxy(int(host_of(protocol, collector).rpartition(":")[2])) as proxy:
        proxy.swallowed = {UP, DOWN}
        urls = [f"{SCHEMES[protocol]}127.0.0.1:{proxy.port}", SCHEMES[protocol] + host_of(protocol, collector)]
        _, total = settled(kind, urls, timeout=SOON_S, delivery_timeout=NEVER_S)
        assert proxy.connections > 0
    assert (total.acked, total.unsettled) == (2, 0)


@each_protocol
def test_a_server_slow_to_say_goodbye_is_no_blocked_loop(protocol: str) -> None:
    """When `close` returns, every request has failed, although the connection is still being closed."""
    gate = threading.Event()
    log = Lines()
    with Collector() as collector:
        collector.faults.drop_acks()
        one = new_client(protocol, collector, SYNC, timeout=NEVER_S, logger=log)
        receipts = [one.submit(EVENTS) for _ in range(5)]
        wait_until(lambda: collector.request_count > 0)
        running = one._running[True]
        close = running.client._transport.close

        async def close_slowly() -> None:
            await close()
            try:
                await asyncio.sleep(NEVER_S)
            finally:
                gate.wait(patient(20))

        with mock.patch.object(running.client._transport, "close", close_slowly):
            one.close(0)
        settled = [receipt.done() for receipt in receipts]
        gate.set()
        wait_until(lambda: running.thread.is_over)
    assert settled == [True] * len(receipts)
    assert HELD_UP not in log.lines
