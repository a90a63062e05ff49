"""Proxies that refuse with answers of their own: no status counts as a verdict on the events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from h2_peer import Call, strict_server
from patience import patient, wait_until
from scripted import Connection, tcp_server
from trial import Lines

from raccoon_fast import RAW, AsyncProducer, Producer, RetryPolicy
from raccoon_fast.collector import Collector

SCHEMES = ("http", "ws", "grpc")
PAGE = (
    b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n<body>\r\n"
    b"<center><h1>400 Bad Request</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
OPTIONS: dict[str, Any] = {"serializer": RAW, "retry": RetryPolicy(initial=0.01, maximum=0.05), "timeout": 5.0}


class Proxy:
    """Answers each request with a status of its own."""

    def __init__(self) -> None:
        self.status = 400
        self.refused = 0

    @contextlib.contextmanager
    def serve(self, scheme: str) -> Iterator[str]:
        def script(connection: Connection) -> None:
            if scheme == "ws":
                connection.read_head()
            else:
                connection.read_request()
            self.refused += 1
            connection.respond(PAGE, b"%d Any" % self.status)

        def on_call(call: Call) -> None:
            self.refused += 1
            call.peer.h2.send_headers(call.stream, [(":status", str(self.status)), ("content-type", "text/html")])
            call.peer.h2.send_data(call.stream, PAGE, end_stream=True)

        if scheme == "grpc":
            with strict_server(on_call) as (host, _):
                yield f"{scheme}://{host}"
        else:
            with tcp_server(script) as host:
                yield f"{scheme}://{host}"


class Errors(Lines):
    """Keeps errors apart."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def error(self, msg: str, *args: object) -> None:
        self.errors.append(msg % args)


def url_of(scheme: str, collector: Collector) -> str:
    return f"{scheme}://127.0.0.1:{collector.grpc_port if scheme == 'grpc' else collector.port}"


@pytest.mark.parametrize("status", [400, 403, 411, 421, 422, 431, 451])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_server_gets_the_events_and_the_refusal_is_logged_once(scheme: str, status: int) -> None:
    proxy, log = Proxy(), Errors()
    proxy.status = status
    with proxy.serve(scheme) as refusing, Collector() as collector:
        with Producer([refusing, url_of(scheme, collector)], logger=log, batch_events=10, **OPTIONS) as producer:
            receipts = [producer.emit("page", b"%d" % number) for number in range(200)]
            assert producer.flush(patient(20)) == 0
            assert proxy.refused
            assert [server.ok for server in producer.health().servers] == [False, True]
            assert [receipt.exception(0) for receipt in receipts] == [None] * 200
        assert {event.data for event in collector.events} == {b"%d" % number for number in range(200)}
    (said,) = log.errors
    assert str(status) in said
    assert "400 The plain HTTP request was sent to HTTPS port" in said
    assert "check" in said
    assert "\n" not in said
    assert "\r" not in said


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_refuses_everything_convicts_no_batch(scheme: str, durable: bool, tmp_path: Path) -> None:
    """Another server acknowledges all other batches, and the first is retried without a pause."""
    proxy = Proxy()
    proxy.status = 403
    options = {**OPTIONS, "retry": RetryPolicy(initial=0.0), "logger": None, "batch_events": 1}
    if durable:
        options |= {"spool": tmp_path / "spool", "durable": True}
    with proxy.serve(scheme) as refusing, Collector() as collector:
        with Producer([refusing, url_of(scheme, collector)], **options) as producer:
            for number in range(300):
                producer.emit("page", b"%d" % number)
                if number % 3 == 0:
                    assert producer.flush(20) == 0
            total = producer.close(20).total
        assert proxy.refused > 50
    assert (total.acked, total.lost, total.unsettled) == (300, 0, 0), total


@pytest.mark.parametrize("scheme", SCHEMES)
def test_stored_events_stay_stored(scheme: str, tmp_path: Path) -> None:
    proxy = Proxy()
    options = {"logger": None, "spool": tmp_path / "spool", "durable": True, **OPTIONS}
    with proxy.serve(scheme) as refusing:
        producer = Producer(refusing, **options)
        for number in range(50):
            producer.emit("page", b"%d" % number)
        wait_until(lambda: proxy.refused > 2)
        total = producer.close(timeout=0).total
    assert (total.failed, total.spooled) == ({}, 50)
    with Collector() as collector:
        with Producer(url_of(scheme, collector), **options) as producer:
            wait_until(lambda: producer.stats().total.acked == 50)
        assert {event.data for event in collector.events} == {b"%d" % number for number in range(50)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_a_loop_of_the_programs_own(scheme: str) -> None:
    proxy = Proxy()

    async def main(urls: list[str]) -> None:
        async with AsyncProducer(urls, logger=None, **OPTIONS) as producer:
            receipts = [await producer.emit("page", b"x") for _ in range(20)]
            assert await producer.flush(patient(20)) == 0
            assert all(receipt.exception() is None for receipt in receipts)

    with proxy.serve(scheme) as refusing, Collector() as collector:
        asyncio.run(main([refusing, url_of(scheme, collector)]))
        assert proxy.refused


@pytest.mark.parametrize("scheme", SCHEMES)
def test_when_the_proxy_is_mended_the_events_are_delivered(scheme: str) -> None:
    """The same proxy on the same port drops its rule."""
    mended = threading.Event()

    def refuse(connection: Connection) -> None:
        connection.respond(PAGE, b"400 Bad Request")

    with Collector() as collector:

        def script(connection: Connection) -> None:
            if mended.is_set():
                forward(connection, collector.grpc_port if scheme == "grpc" else collector.port)
            elif scheme == "grpc":
                connection.sock.recv(65536)
                connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            else:
                connection.read_head()
                refuse(connection)

        with tcp_server(script) as host, Producer(f"{scheme}://{host}", logger=None, **OPTIONS) as producer:
            receipts = [producer.emit("page", b"x") for _ in range(20)]
            wait_until(lambda: not producer.health().ok)
            mended.set()
            assert [receipt.exception(patient(15)) for receipt in receipts] == [None] * 20
            wait_until(lambda: producer.health().ok)


def forward(connection: Connection, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as behind:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := behind.recv(65536):
                    connection.sock.sendall(data)

        thread = threading.Thread(target=back)
        thread.start()
        with contextlib.suppress(OSError):
            while data := connection.sock.recv(65536):
                behind.sendall(data)
        behind.shutdown(socket.SHUT_RDWR)
        thread.join(patient(5))
