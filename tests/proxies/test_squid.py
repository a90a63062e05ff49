"""squid as a company's forward proxy: with a password, with TLS servers behind it, and when it dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from any_client import PROTOCOLS, new_client
from certificates import Files, make_certificates
from patience import patient, wait_until
from squid import Squid

from raccoon_fast import RAW, TLS, ConnectError, Producer, RetryPolicy
from raccoon_fast.collector import Collector

SCHEMES = ("http", "ws", "grpc", "https", "wss", "grpcs")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def new_squid() -> Iterator[Callable[..., Squid]]:
    started: list[Squid] = []

    def new(**options: Any) -> Squid:
        if not Squid.is_installed():
            pytest.fail("squid is not installed: apt-get install squid")
        squid = Squid(**options)
        started.append(squid)
        squid.start()
        return squid

    yield new
    for squid in started:
        squid.end()


@pytest.fixture(params=SCHEMES)
def server(request: Any, files: Files) -> Iterator[tuple[str, int, dict[str, Any], Collector]]:
    """A collector at a URL: the URL, its port, the options that it needs, and the collector."""
    scheme: str = request.param
    secure = scheme.endswith("s") and scheme != "ws"
    serving = {"tls_cert": files.server, "tls_key": files.server} if secure else {}
    with Collector(**serving) as collector:
        port = collector.grpc_port if scheme.startswith("grpc") else collector.port
        yield f"{scheme}://localhost:{port}", port, {"tls": TLS(ca=files.ca)} if secure else {}, collector


def produce(url: str, count: int, **options: Any) -> int:
    """How many of so many events were acknowledged."""
    with Producer(url, serializer=RAW, logger=None, **options) as producer:
        for number in range(count):
            producer.emit("t", b"%09d" % number)
        assert producer.flush(patient(30)) == 0
        return producer.close().total.acked


def test_with_a_password(new_squid: Callable[..., Squid], server: Any) -> None:
    url, port, options, collector = server
    squid = new_squid(user="user", password="p@ss:word")
    assert produce(url, 5000, proxy=f"http://user:p%40ss%3Aword@localhost:{squid.port}", **options) == 5000
    assert collector.event_count == 5000
    assert set(squid.wait_for_tunnels(1)) == {f"localhost:{port}"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_of_squid(new_squid: Callable[..., Squid], protocol: str) -> None:
    squid = new_squid(user="user", password="right")
    url = {"rest": "https://localhost:1", "websocket": "wss://localhost:1", "grpc": "grpcs://localhost:1"}[protocol]
    for userinfo, said in (
        ("user:s3cret@", "407 Proxy Authentication Required; ERR_CACHE_ACCESS_DENIED 0"),
        ("", "407 Proxy Authentication Required; ERR_CACHE_ACCESS_DENIED 0"),
        ("user:right@", "503 Service Unavailable; ERR_CONNECT_FAIL 111"),
    ):
        with (
            new_client(protocol, url, proxy=f"http://{userinfo}localhost:{squid.port}") as client,
            pytest.raises(ConnectError, match=f"the proxy http://localhost:{squid.port} does not .*: {said}") as caught,
        ):
            client.send([("t", b"x")])
        assert "s3cret" not in str(caught.value)


def test_a_target_that_its_rules_forbid(new_squid: Callable[..., Squid]) -> None:
    """Debian's own configuration forbids CONNECT to any port but 443."""
    squid = new_squid(rules="acl tls port 443\nhttp_access deny CONNECT !tls\nhttp_access allow all")
    with (
        new_client("grpc", "grpc://localhost:8081", proxy=f"http://localhost:{squid.port}") as client,
        pytest.raises(ConnectError, match="403 Forbidden; ERR_ACCESS_DENIED 0"),
    ):
        client.send([("t", b"x")])


def test_the_environment_of_a_separate_program(new_squid: Callable[..., Squid], server: Any) -> None:
    url, port, options, collector = server
    squid = new_squid(user="user", password="secret")
    program = """
import sys
from raccoon_fast import RAW, TLS, Producer
url, ca = sys.argv[1:]
with Producer(url, serializer=RAW, **({"tls": TLS(ca=ca)} if ca else {})) as producer:
    producer.emit("t", b"x")
"""
    proxy = f"http://user:secret@localhost:{squid.port}"
    base = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    arguments = [sys.executable, "-c", program, url, str(options["tls"].ca) if options else ""]
    for more in ({"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}, {"ALL_PROXY": proxy, "NO_PROXY": "localhost"}):
        done = subprocess.run(
            arguments, env={**base, **more}, capture_output=True, text=True, timeout=patient(50), check=True
        )
        assert "secret" not in done.stdout + done.stderr
    assert collector.event_count == 2
    assert squid.wait_for_tunnels(1) == [f"localhost:{port}"]


def test_squid_dies_under_load(new_squid: Callable[..., Squid], server: Any) -> None:
    url, _, options, collector = server
    squid = new_squid(user="user", password="secret")
    quick = RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1)
    with Producer(
        url,
        serializer=RAW,
        logger=None,
        batch_events=100,
        retry=quick,
        proxy=f"http://user:secret@localhost:{squid.port}",
        **options,
    ) as producer:
        for number in range(20_000):
            producer.emit("t", b"%09d" % number)
            if number == 10_000:
                wait_until(lambda: producer.stats().total.acked > 0)
                squid.kill()
                wait_until(lambda: not producer.health().ok)
                squid.start()
        assert producer.flush(patient(30)) == 0
        assert producer.health().ok
        report = producer.close()
    assert report.total.acked == report.total.accepted == 20_000
    assert len({event.data for event in collector.events}) == 20_000
