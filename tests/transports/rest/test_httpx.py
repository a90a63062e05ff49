"""httpx in both directions: our requests over the user's httpx, and the user's requests over our connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import httpx
import pytest
from patience import patient
from scripted import Connection, answer, tcp_server

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    AsyncProducer,
    AsyncRestClient,
    ConnectError,
    ConnectionLostError,
    MessageTooLargeError,
    Outcome,
    Producer,
    ProtocolError,
    RestClient,
    RetryPolicy,
    ServerError,
)
from raccoon_fast.collector import Collector
from raccoon_fast.transports.rest.httpx import PooledTransport

EVENTS = [("page", b"{}")]
NOBODY = "http://127.0.0.1:1"


class Closable(httpx.AsyncHTTPTransport):
    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


def client(url: str, transport, **options) -> AsyncRestClient:
    options = {"serializer": RAW, "logger": None, "retry": RetryPolicy(max_attempts=1), "timeout": 10.0, **options}
    return AsyncRestClient(url, transport=transport, **options)


def send(run, url: str, **options):
    async def once():
        async with client(url, httpx.AsyncHTTPTransport(), **options) as rest:
            return await rest.send(EVENTS, req_guid="g")

    return run(once())


@pytest.fixture
def collector():
    with Collector(group_header="X-User-Group") as collector:
        yield collector


class TestOverTheUsersHttpx:
    @pytest.mark.parametrize("wire", ["proto", "json"])
    def test_events_arrive(self, run, collector, wire):
        options = {"wire": wire, "user_id": "u", "group": "g", "headers": {"X-Trace": "t"}}
        assert send(run, collector.url, **options).response.req_guid == "g"
        (request,) = collector.requests
        assert [(event.type, event.data) for event in collector.events] == EVENTS
        assert (request.req_guid, request.connection_id, request.headers["x-user-group"]) == ("g", "u", "g")
        assert request.headers["x-trace"] == "t"
        assert request.headers["content-type"] == f"application/{wire}"
        assert request.headers["user-agent"].startswith("raccoon_fast/")

    def test_by_a_sync_client(self, collector):
        with RestClient(collector.url, serializer=RAW, transport=httpx.AsyncHTTPTransport(), logger=None) as rest:
            rest.send(EVENTS)
        assert collector.event_count == 1

    def test_a_client_is_its_owners_and_a_transport_is_ours(self, run, collector):
        async def both():
            transport = Closable()
            async with client(collector.url, transport) as rest:
                await rest.send(EVENTS)
                assert not transport.closed
            assert transport.closed
            async with httpx.AsyncClient() as owned:
                async with client(collector.url, owned) as rest:
                    await rest.send(EVENTS)
                assert not owned.is_closed

        run(both())

    @pytest.mark.parametrize(("status", "retryable"), [(503, True), (429, True), (404, False), (302, False)])
    def test_statuses(self, run, collector, status, retryable):
        collector.faults.status(status)
        with pytest.raises(ServerError, match=str(status)) as caught:
            send(run, collector.url)
        assert (caught.value.status, caught.value.retryable) == (status, retryable)

    def test_too_large(self, run, collector):
        collector.faults.too_large(10)
        with pytest.raises(MessageTooLargeError, match="413"):
            send(run, collector.url)

    def test_another_attempt_has_the_same_guid(self, run, collector):
        collector.faults.status(503, retry_after="0", times=1)
        assert send(run, collector.url, retry=RetryPolicy(max_attempts=2, initial=0.01)).req_guid == "g"
        assert [request.req_guid for request in collector.requests] == ["g"]

    def test_no_server_listens(self, run):
        with pytest.raises(ConnectError, match=r"cannot connect to http://127\.0\.0\.1:1/api/v1/events"):
            send(run, NOBODY)

    def test_hung_up(self, run, collector):
        collector.faults.hang_up()
        with pytest.raises(ConnectionLostError, match="lost before the answer"):
            send(run, collector.url)

    def test_no_answer_in_time(self, run):
        with tcp_server(lambda connection: connection.wait_closed()) as host, pytest.raises(AckTimeoutError):
            send(run, f"http://{host}", timeout=0.2)

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000), "over 1048576 bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not a Raccoon's answer"),
            (b"220 smtp.example ESMTP\r\n", "."),
        ],
        ids=["endless", "strange", "another protocol"],
    )
    def test_invalid_answers(self, run, said, expected):
        def script(connection):
            connection.read_request()
            with contextlib.suppress(OSError):
                connection.sock.sendall(said)

        with tcp_server(script) as host, pytest.raises((ProtocolError, ConnectionLostError), match=expected):
            send(run, f"http://{host}")

    @pytest.mark.parametrize(
        ("raised", "expected", "outcome", "attempts"),
        [
            (httpx.ConnectTimeout("late"), ConnectError, Outcome.NOT_DELIVERED, 1),
            (httpx.PoolTimeout("full"), ConnectError, Outcome.NOT_DELIVERED, 1),
            (httpx.ProxyError("403 Forbidden"), ConnectError, Outcome.NOT_DELIVERED, 1),
            (httpx.UnsupportedProtocol("no"), ConnectError, Outcome.NOT_DELIVERED, 1),
            (httpx.CloseError("odd"), ConnectionLostError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.WriteError("cut"), ConnectionLostError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.ReadError("cut"), ConnectionLostError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.RemoteProtocolError("cut"), ConnectionLostError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.DecodingError("odd"), ProtocolError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.WriteTimeout("late"), AckTimeoutError, Outcome.POSSIBLY_DELIVERED, 1),
            (httpx.ReadTimeout("late"), AckTimeoutError, Outcome.POSSIBLY_DELIVERED, 1),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    def test_errors_of_httpx(self, run, raised, expected, outcome, attempts):
        class Raising(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request):
                raise raised

        async def once():
            async with client("http://h", Raising()) as rest:
                await rest.send(EVENTS)

        with pytest.raises(expected) as no:
            run(once())
        assert (no.value.outcome, no.value.attempts) == (outcome, attempts)

    def test_an_answer_to_another_request_ends_the_connection(self, run):
        numbers = []

        def script(connection):
            while True:
                guid = connection.read_message().req_guid
                numbers.append(connection.number)
                connection.respond(answer("another" if len(numbers) == 1 else guid))

        async def twice(host):
            async with client(f"http://{host}", httpx.AsyncHTTPTransport()) as rest:
                with pytest.raises(ProtocolError, match="another"):
                    await rest.send(EVENTS)
                await rest.send(EVENTS)
                await rest.send(EVENTS)

        with tcp_server(script) as host:
            run(twice(host))
        assert numbers == [0, 1, 1]

    @pytest.mark.parametrize("wrong", [httpx.Client, httpx.HTTPTransport, "httpx"])
    def test_a_value_that_is_neither_is_refused(self, wrong):
        value = wrong if isinstance(wrong, str) else wrong()
        with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
            client(NOBODY, value)
        if not isinstance(wrong, str):
            value.close()


def fetch(run, method: str, url: str, **options):
    async def once():
        async with httpx.AsyncClient(transport=PooledTransport()) as http:
            return await http.request(method, url, **options)

    return run(once())


class TestOurConnectionsForTheUser:
    def test_an_exchange(self, run, collector):
        assert fetch(run, "GET", f"{collector.url}/ping").text == "pong"
        assert fetch(run, "POST", f"{collector.url}/api/v1/events", content=b"").status_code == 400

    def test_a_body_in_pieces_has_a_length(self, run):
        seen = []

        def script(connection):
            seen.append(connection.read_request())
            connection.respond(answer("g"), headers=b"X-One: 1\r\n")

        async def pieces():
            yield b"one"
            yield b"two"

        with tcp_server(script) as host:
            response = fetch(run, "PUT", f"http://{host}/a?b=c", content=pieces())
        assert (response.status_code, response.headers["x-one"], response.content) == (200, "1", answer("g"))
        ((headers, body),) = seen
        assert body == b"onetwo"
        assert headers[b"content-length"] == b"6"
        assert b"transfer-encoding" not in headers

    def test_connections_are_kept_for_each_origin(self, run, collector):
        def script(connection):
            for _ in range(2):
                connection.read_request()
                connection.respond(b"%d" % connection.number)

        async def several(url):
            async with httpx.AsyncClient(transport=PooledTransport(connections=1)) as http:
                return [(await http.post(one)).text for one in (url, f"{collector.url}/ping", url)]

        with tcp_server(script) as host:
            first, _, third = run(several(f"http://{host}"))
        assert (first, third) == ("0", "0")

    def test_errors_are_those_of_httpx(self, run):
        with pytest.raises(httpx.ConnectError):
            fetch(run, "GET", NOBODY)
        with tcp_server(lambda connection: connection.read_head()) as host, pytest.raises(httpx.ReadError):
            fetch(run, "GET", f"http://{host}")
        with tcp_server(lambda connection: connection.wait_closed()) as host, pytest.raises(httpx.ReadTimeout):
            fetch(run, "GET", f"http://{host}", timeout=0.2)
        with (
            tcp_server(lambda connection: connection.sock.sendall(b"220 smtp.example\r\n")) as host,
            pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
        ):
            fetch(run, "GET", f"http://{host}")

    def test_a_written_request_is_not_reported_as_unsent(self, run):
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection = Connection(listener.accept()[0], 0)
            with connection.sock:
                connection.read_request()
                connection.respond(b"")
                connection.read_request()
                listener.close()

        async def twice(url):
            async with httpx.AsyncClient(transport=PooledTransport()) as http:
                await http.post(url, content=b"x")
                with pytest.raises(httpx.ReadError):
                    await http.post(url, content=b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        run(twice(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        thread.join(patient(5))

    @pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
    def test_methods_whose_answers_are_framed_otherwise(self, run, method):
        with pytest.raises(httpx.LocalProtocolError, match=method):
            fetch(run, method, NOBODY)

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb"])
    def test_a_line_break_in_a_header(self, run, value):
        with pytest.raises(httpx.LocalProtocolError, match="line break"):
            fetch(run, "GET", NOBODY, headers={"X-One": value})

    def test_other_schemes(self, run):
        with pytest.raises(httpx.UnsupportedProtocol, match="ftp"):
            fetch(run, "GET", "ftp://127.0.0.1/")


class TestAProducer:
    """`transport=` is what RestClient takes."""

    def counting(self, collector: Collector) -> tuple[httpx.AsyncBaseTransport, list[str]]:
        hosts: list[str] = []

        class Counting(httpx.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                hosts.append(request.url.host)
                return await super().handle_async_request(request)

        # A client that was handed in is not closed here, and its owner has no way to the producer's event loop.
        return Counting(limits=httpx.Limits(max_keepalive_connections=0)), hosts

    @pytest.mark.parametrize("how", ["transport", "client", "callable", "callable that makes a client"])
    def test_sends_over_it(self, how: str) -> None:
        with Collector() as collector:
            made, hosts = self.counting(collector)
            given: Any = {
                "transport": lambda: made,
                "client": lambda: httpx.AsyncClient(transport=made),
                "callable": lambda: lambda: made,
                "callable that makes a client": lambda: lambda: httpx.AsyncClient(transport=made),
            }[how]()
            with Producer(
                collector.url, serializer=RAW, logger=None, batch_events=10, linger=60, transport=given
            ) as producer:
                for _ in range(500):
                    producer.emit("t", b"x")
                assert producer.flush(patient(20)) == 0
            assert collector.event_count == 500
            assert len(hosts) == 50

    def test_one_per_url(self) -> None:
        down = httpx.MockTransport(lambda request: httpx.Response(503))
        with Collector() as collector:
            made, hosts = self.counting(collector)
            urls = ["http://down.test", collector.url, collector.ws_url]

            async def main() -> None:
                given = [down, lambda: made, None]
                async with AsyncProducer(urls, serializer=RAW, logger=None, transport=given) as producer:
                    await producer.emit("t", b"x")
                    assert await producer.flush(patient(20)) == 0

            asyncio.run(main())
            assert collector.event_count == 1
            assert hosts == ["127.0.0.1"]

    @pytest.mark.parametrize(
        ("url", "options", "said"),
        [
            ("ws://h", {"transport": httpx.MockTransport(None)}, "transport is for REST"),
            (["http://h", "ws://h"], {"transport": [None]}, "one entry per url"),
            (["http://h", "ws://h"], {"transport": [None, httpx.MockTransport(None)]}, "ws://h/api/v1/events is not"),
            ("http://h", {"transport": 5}, "transport takes an httpx.AsyncClient"),
            ("http://h", {"transport": httpx.MockTransport(None), "proxy": "http://h"}, "on httpx itself"),
            ("http+unix:///r", {"transport": httpx.MockTransport(None)}, "on httpx itself"),
        ],
    )
    def test_wrong_options(self, url: Any, options: Any, said: str) -> None:
        with pytest.raises((TypeError, ValueError), match=said):
            Producer(url, **options)


@pytest.mark.parametrize(
    ("made", "said", "retryable"),
    [(lambda: None, "must return an httpx.AsyncClient", False), (lambda: 1 / 0, "ZeroDivisionError", True)],
)
def test_a_callable_that_does_not_return_a_transport(made: Any, said: str, retryable: bool) -> None:
    once = RetryPolicy(max_attempts=1)
    with (
        RestClient("http://h", serializer=RAW, logger=None, retry=once, transport=made) as client,
        pytest.raises(ConnectError, match=said) as caught,
    ):
        client.send([("t", b"x")])
    assert caught.value.retryable is retryable
