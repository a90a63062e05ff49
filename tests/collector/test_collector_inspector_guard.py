"""Other web sites cannot use the inspector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raccoon_fast.collector import Collector

NewCollector = Callable[..., Collector]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:{}", "127.0.0.1:{}", "192.168.1.7:{}", "[::1]:{}", "[fe80::1]", "app.localhost:{}"],
)
def test_names_and_addresses_of_this_machine_are_answered(host: str, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    response = httpx.get(f"{collector.url}/inspect", headers={"host": host.format(collector.port)})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{}", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "[", ""],
)
@pytest.mark.parametrize("path", ["/inspect", "/inspect/summary", "/inspect/page/main.js", "/inspect/nothing"])
def test_a_foreign_name_that_resolves_here_is_refused(host: str, path: str, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    response = httpx.get(collector.url + path, headers={"host": host.format(collector.port)})
    assert response.status_code == 403
    assert "the Host header must be localhost, an IP address or 127.0.0.1" in response.json()["error"]


def test_no_host_or_two_are_refused(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    for head in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        connection = peer.tcp(collector.port)
        connection.sendall(b"GET /inspect/summary HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n")
        assert connection.recv(65536).startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))


def test_the_name_it_listens_on_is_answered(new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, host="localhost")
    assert httpx.get(f"{collector.url}/inspect").status_code == 200


@pytest.mark.parametrize("path", ["reset", "faults"])
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"content-type": "text/plain"}, "must be application/json, not text/plain"),
        ({"content-type": "application/x-www-form-urlencoded"}, "must be application/json"),
        ({"content-type": ""}, "must be application/json, not missing"),
        ({"origin": "https://evil.example"}, "only the inspector's own page"),
        ({"origin": "null"}, "only the inspector's own page"),
        ({"origin": "http://127.0.0.1"}, "only the inspector's own page"),
        ({"origin": "http://localhost:{}"}, "only the inspector's own page"),
        ({"origin": "https://127.0.0.1:{}"}, "only the inspector's own page"),
        ({"sec-fetch-site": "cross-site"}, "only the inspector's own page"),
        ({"sec-fetch-site": "same-site"}, "only the inspector's own page"),
        ({"host": "evil.example"}, "the Host header must be"),
    ],
)
def test_an_order_of_another_site_is_refused(
    path: str, headers: dict[str, str], words: str, peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    peer.post(collector)
    headers = {"content-type": "application/json"} | {k: v.format(collector.port) for k, v in headers.items()}
    body = b'{"fault": "hang_up"}' if path == "faults" else b"{}"
    response = httpx.post(f"{collector.url}/inspect/{path}", content=body, headers=headers)
    assert response.status_code == 403
    assert words in response.json()["error"]
    assert collector.event_count == 1
    assert collector.faults._table.switched_on == {}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "Application/JSON; charset=utf-8"},
        {"origin": "http://127.0.0.1:{}", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:{}", "host": "localhost:{}"},
        {"sec-fetch-site": "none"},
    ],
)
def test_an_order_of_its_own_page_or_of_a_program_is_taken(
    headers: dict[str, str], peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    peer.post(collector)
    headers = {"content-type": "application/json"} | {k: v.format(collector.port) for k, v in headers.items()}
    assert httpx.post(f"{collector.url}/inspect/reset", content=b"", headers=headers).status_code == 200
    assert collector.event_count == 0


@pytest.mark.parametrize("path", ["/inspect", "/inspect/events", "/inspect/nothing", "/inspect/events?limit=0"])
def test_every_answer_has_the_headers(path: str, new_collector: NewCollector) -> None:
    headers = httpx.get(new_collector(inspect=True).url + path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_the_server_s_own_paths_have_no_such_headers(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    response = httpx.get(f"{collector.url}/ping", headers={"host": "raccoon.example"})
    assert response.status_code == 200
    assert "content-security-policy" not in response.headers
