"""Forward proxies: which one is used, which connections use it, and the errors when it refuses."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from any_client import ASYNC, PROTOCOLS, OnLoop, new_client
from certificates import Files, make_certificates
from forward_proxy import ForwardProxy
from patience import patient, wait_until
from scripted import tcp_server

from raccoon_fast import RAW, TLS, ConnectError, Outcome, Producer, RestClient, RetryPolicy, TLSError
from raccoon_fast.collector import Collector
from raccoon_fast.net.address import parse_address
from raccoon_fast.net.proxy import Proxy, parse_proxy, proxy_for

EVENTS = [("t", b"x" * 100_000)]
SECURE = {"rest": "https", "websocket": "wss", "grpc": "grpcs"}
PLAIN = {"rest": "http", "websocket": "ws", "grpc": "grpc"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def plain() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def secure(files: Files) -> Iterator[Collector]:
    with Collector(tls_cert=files.server, tls_key=files.server) as collector:
        yield collector


def client_of(protocol: str, collector: Collector, **options: Any) -> Any:
    schemes = SECURE if collector.url.startswith("https") else PLAIN
    port = collector.grpc_port if protocol == "grpc" else collector.port
    return new_client(protocol, f"{schemes[protocol]}://localhost:{port}", **options)


def failure_of(client: Any, said: str) -> ConnectError:
    """What sending with it fails with."""
    with client, pytest.raises(ConnectError, match=said) as caught:
        client.send(EVENTS)
    return caught.value


# Which one


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy:3128", Proxy("http", "proxy", 3128)),
        ("HTTP://Proxy", Proxy("http", "proxy", 80)),
        ("https://proxy/", Proxy("https", "proxy", 443)),
        ("socks5://[::1]", Proxy("socks5", "::1", 1080)),
        ("socks5h://b\u00fccher.test:1", Proxy("socks5h", "xn--bcher-kva.test", 1)),
        ("http://us%40er:p%3Ass@proxy:1", Proxy("http", "proxy", 1, ("us@er", "p:ss"))),
    ],
)
def test_valid_urls(url: str, expected: Proxy) -> None:
    proxy = parse_proxy(url)
    assert proxy == expected
    assert "p:ss" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    "url", ["proxy:3128", "ftp://proxy", "socks4://proxy", "http://", "http://proxy:0", "http://proxy:x", "http://a..b"]
)
def test_invalid_urls_are_refused_without_their_password(url: str) -> None:
    for one in (url, url.replace("//", "//user:s3cret@")):
        with pytest.raises(ValueError, match="HTTP_PROXY") as caught:
            parse_proxy(one, "HTTP_PROXY")
        assert "s3cret" not in str(caught.value)


def test_socks_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'raccoon_fast\[socks\]'"):
        parse_proxy("socks5://proxy")


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1", "ALL_PROXY": "http://c:1"}, "ws://h", "a"),
        ({"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1", "ALL_PROXY": "http://c:1"}, "grpcs://h", "b"),
        ({"https_proxy": "b:1"}, "https://h", "b"),
        ({"HTTPS_PROXY": "http://b:1"}, "grpc://h", None),
        ({"ALL_PROXY": "http://c:1"}, "grpc://h", "c"),
        ({"ALL_PROXY": "http://c:1", "NO_PROXY": "*"}, "grpc://h", None),
        ({"ALL_PROXY": "http://c:1"}, "unix:///h", None),
        ({}, "grpc://h", None),
    ],
)
def test_the_proxy_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address = parse_address(url, {"w": "WebSocket", "g": "gRPC", "u": "gRPC", "h": "REST"}[url[0]])
    found = proxy_for(address, None, trust_env=True)
    assert (found and found.host) == expected
    assert proxy_for(address, None, trust_env=False) is None


def test_the_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://a:1")
    monkeypatch.setenv("NO_PROXY", "*")
    found = proxy_for(parse_address("http://h", "REST"), "http://mine:1", trust_env=True)
    assert found == Proxy("http", "mine", 1)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:s3cret@proxy")
    with pytest.raises(ValueError, match="HTTPS_PROXY must be http://") as caught:
        Producer("grpcs://h")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_exempt"),
    [
        ("https://a.example.com", "example.com", True),
        ("https://example.com", "other, example.com", True),
        ("https://EXAMPLE.com.", "Example.COM", True),
        ("https://badexample.com", "example.com", False),
        ("https://example.com", ".example.com", False),
        ("https://a.example.com", ".example.com", True),
        ("https://a.example.com", "*.example.com", True),
        ("https://a.example.com:8443", "example.com:8443", True),
        ("https://a.example.com", "example.com:8443", False),
        ("https://a.example.com", "http://a.example.com", False),
        ("https://a.example.com", "https://a.example.com", True),
        ("https://a.localhost", "localhost", False),
        ("https://localhost", "localhost", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://[::1]", "::1", True),
        ("https://[::1]:8", "[::1]:8", True),
        ("https://a", ",, ", False),
    ],
)
def test_hosts_exempt_from_the_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, is_exempt: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(parse_address(url, "REST"), None, trust_env=True) is None) == is_exempt


# What goes through


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_each_protocol_goes_through(
    kind: str, protocol: str, is_async: bool, plain: Collector, secure: Collector, files: Files
) -> None:
    with ForwardProxy(kind, user="us@er", password="p:ss") as proxy:
        for server in (plain, secure):
            plain.clear()
            secure.clear()
            options: dict[str, Any] = {"proxy": proxy.url(userinfo="us%40er:p%3Ass"), "trust_env": False}
            if server is secure:
                options["tls"] = TLS(ca=files.ca)
            client = client_of(protocol, server, classes=ASYNC, **options) if is_async else None
            with OnLoop(client) if client else client_of(protocol, server, **options) as one:
                one.send(EVENTS)
            assert server.event_count == 1
    ports = [server.grpc_port if protocol == "grpc" else server.port for server in (plain, secure)]
    assert proxy.targets == [f"localhost:{port}" for port in ports]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_to_the_proxy_itself(
    protocol: str, is_async: bool, plain: Collector, secure: Collector, files: Files
) -> None:
    """The proxy's certificate may come from the same CA as the server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    with ForwardProxy(tls=context) as proxy:
        secure.clear()
        options = {"proxy": proxy.url("https"), "tls": TLS(ca=files.ca)}
        client = client_of(protocol, secure, classes=ASYNC, **options) if is_async else None
        with OnLoop(client) if client else client_of(protocol, secure, **options) as one:
            if is_async and sys.version_info < (3, 11):  # it runs on asyncio's loop
                with pytest.raises(ConnectError, match=r"needs uvloop or Python 3\.11"):
                    one.send(EVENTS)
            else:
                one.send(EVENTS)
                assert secure.event_count == 1
        client = client_of(protocol, plain, proxy=proxy.url("https"))
        error = failure_of(client, f"TLS with the proxy https://localhost:{proxy.port} failed")
    assert isinstance(error, TLSError)
    assert error.outcome is Outcome.NOT_DELIVERED


def test_a_producer_and_the_environment(monkeypatch: pytest.MonkeyPatch, plain: Collector) -> None:
    plain.clear()
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        urls = [f"{scheme}://localhost:{plain.port}" for scheme in ("http", "ws")]
        for url in [*urls, f"grpc://localhost:{plain.grpc_port}"]:
            with Producer(url, serializer=RAW, logger=None) as producer:
                producer.emit("t", b"x")
            monkeypatch.setenv("NO_PROXY", "localhost")
            with Producer(url, serializer=RAW, logger=None) as producer:
                producer.emit("t", b"x")
            monkeypatch.delenv("NO_PROXY")
    assert plain.event_count == 6
    assert len(proxy.targets) == 3


def test_the_proxy_looks_up_the_name(plain: Collector) -> None:
    """A name that only the proxy knows is sent unchanged."""
    with ForwardProxy() as proxy, ForwardProxy("socks5") as socks:
        for one in (proxy, socks):
            with (
                new_client("rest", "http://b\u00fccher.invalid:8080", proxy=one.url()) as client,
                pytest.raises(ConnectionError),
            ):
                client.send(EVENTS)
            # More than once where the tunnel was gone before anything was written.
            assert {*one.targets} == {"xn--bcher-kva.invalid:8080"}


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_proxy_that_dies_under_load(kind: str, protocol: str, plain: Collector) -> None:
    """Requests in flight are sent again once the proxy is back; nothing is lost."""
    plain.clear()
    port = plain.grpc_port if protocol == "grpc" else plain.port
    quick = RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1)
    with (
        ForwardProxy(kind) as proxy,
        Producer(
            f"{PLAIN[protocol]}://localhost:{port}",
            serializer=RAW,
            logger=None,
            batch_events=10,
            retry=quick,
            proxy=proxy.url(),
        ) as producer,
    ):
        for number in range(2000):
            producer.emit("t", b"%04d" % number)
            if number == 1000:
                wait_until(lambda: producer.stats().total.acked > 0)
                proxy.die()
                producer.emit("t", b"dead")
                wait_until(lambda: not producer.health().ok)
                said = producer.health().servers[0].last_error
                proxy.live()
        assert producer.flush(patient(30)) == 0
        report = producer.close()
    assert "through the proxy" in said or "was lost" in said
    assert report.total.acked == 2001
    assert {event.data for event in plain.events} >= {b"%04d" % number for number in range(2000)}


# What it refuses


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n",
            "403 Forbidden; ERR_ACCESS_DENIED 0$",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\n\r\nno route\r\n to host",
            "502 Bad Gateway; no route to host",
        ),
        (b"HTTP/1.1 503\r\n\r\n", "503$"),
        (b"HTTP/1.0 403 No\x1b[31m\r\n\r\n", r"403 No\[31m$"),
        (b"SSH-2.0\r\n\r\n", "its answer is not HTTP"),
        (b"x" * 20_000, "its answer is not HTTP"),
        (b"", "it closed the connection"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_error_quotes_the_proxy_s_reason(protocol: str, refusal: bytes, said: str, plain: Collector) -> None:
    with ForwardProxy() as proxy:
        proxy.refusal = refusal
        error = failure_of(client_of(protocol, plain, proxy=proxy.url(userinfo="user:s3cret")), said)
    assert str(error).startswith(f"the proxy http://localhost:{proxy.port} does not connect to {PLAIN[protocol]}://")
    assert "s3cret" not in str(error)
    assert error.outcome is Outcome.NOT_DELIVERED
    assert error.retryable


@pytest.mark.parametrize("padding", [b"", b"x" * 157 + b" ", b"x" * 170 + b" "], ids=len)
def test_a_reason_that_quotes_the_password_is_redacted(padding: bytes, plain: Collector) -> None:
    with ForwardProxy() as proxy:
        quoted = padding + b"for user:s3cret (dXNlcjpzM2NyZXQ=)"
        proxy.refusal = b"HTTP/1.1 403 No\r\nContent-Type: text/plain\r\n\r\n" + quoted
        client = client_of("rest", plain, proxy=proxy.url(userinfo="user:s3cret"))
        said = str(failure_of(client, "403 No; "))
        assert said.endswith("for user:… (…)"[: 192 - len(padding)])
        assert "dXNl" not in said


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_wrong_password(kind: str, plain: Collector) -> None:
    with ForwardProxy(kind, user="user", password="right") as proxy:
        for userinfo in ("user:s3cret", ""):
            client = client_of("rest", plain, proxy=proxy.url(userinfo=userinfo))
            error = failure_of(client, f"the proxy {kind}://localhost:{proxy.port} does not")
            assert "s3cret" not in str(error)
            if kind == "http":
                assert '407 Proxy Authentication Required; Basic realm="corp"; it wants a user' in str(error)


def test_socks_refusals(plain: Collector) -> None:
    with ForwardProxy("socks5") as proxy:
        proxy.refusal = 2
        with client_of("grpc", plain, proxy=proxy.url()) as client, pytest.raises(ConnectError, match="not allowed"):
            client.send(EVENTS)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_no_proxy_listens(scheme: str, plain: Collector) -> None:
    url = f"{scheme}://127.0.0.1:1"
    failure_of(client_of("rest", plain, proxy=url), f"through the proxy {url}: .*refused")
    failure_of(client_of("rest", plain, proxy=f"{scheme}://nobody.invalid:1"), r"cannot resolve nobody\.invalid")


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_proxy_that_says_nothing(scheme: str, plain: Collector) -> None:
    with tcp_server(lambda connection: connection.wait_closed()) as host:
        client = client_of("rest", plain, proxy=f"{scheme}://{host}", connect_timeout=0.2)
        failure_of(client, f"through the proxy {scheme}://{host}: timed out")


def test_bytes_before_the_handshake_are_refused(files: Files) -> None:
    """They would be mistaken for bytes of the server."""

    def script(connection: Any) -> None:
        connection.read_head()
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n")
        connection.wait_closed()

    with tcp_server(script) as host:
        options = {"proxy": f"http://{host}", "tls": TLS(ca=files.ca)}
        failure_of(new_client("rest", "https://localhost", **options), "no tunnel")


def test_the_server_s_first_bytes_are_not_lost(run) -> None:
    """HTTP/2 servers greet at once: the greeting may come together with the proxy's answer."""
    from raccoon_fast.clients.options import Settings
    from raccoon_fast.net.tcp import open_tcp

    class Peer(asyncio.Protocol):
        def __init__(self) -> None:
            self.heard = bytearray()
            self.done = asyncio.get_running_loop().create_future()
            self.transport: Any = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.heard += data

        def connection_lost(self, exc: Exception | None) -> None:
            self.done.set_result(None)

        def move_on(self) -> None: ...

    def script(connection: Any) -> None:
        connection.read_head()
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello, ")
        connection.sock.sendall(b"world")

    async def main(host: str) -> bytes:
        options = {"proxy": f"http://{host}", "logger": None}
        peer = await open_tcp(Settings(parse_address("grpc://h", "gRPC"), options, 5.0).link, Peer, 5.0)
        await asyncio.wait_for(peer.done, patient(10))
        return bytes(peer.heard)

    with tcp_server(script) as host:
        assert run(main(host)) == b"hello, world"


def test_httpx_has_its_own(plain: Collector) -> None:
    import httpx

    with pytest.raises(ValueError, match="on httpx itself"):
        RestClient(plain.url, proxy="http://h:1", transport=httpx.AsyncClient(trust_env=False))
