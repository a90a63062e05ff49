"""REST beyond what the captures show."""

from __future__ import annotations

import concurrent.futures
import gzip
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raccoon_fast.collector import Collector

NewCollector = Callable[..., Collector]


def read_all(connection: Any) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/ping", 405),
        ("DELETE", "/api/v1/events", 405),
        ("GET", "/", 404),
        ("POST", "/api/v1/events/", 404),
        ("POST", "/api/v1/events?x=1", 200),
        ("GET", "/ping?x", 200),
    ],
)
def test_methods_and_paths(method: str, path: str, status: int, new_collector: NewCollector) -> None:
    collector = new_collector()
    response = httpx.request(method, collector.url + path, headers={"Content-Type": "application/proto"})
    assert response.status_code == status


def test_a_compressed_body_is_malformed(peer: Any, new_collector: NewCollector) -> None:
    response = peer.post(new_collector(), gzip.compress(peer.request()), {"Content-Encoding": "gzip"})
    assert response.status_code == 400


def test_chunked_bodies_and_keep_alive(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    body = peer.request(events=100)
    with httpx.Client() as client:
        for _ in range(3):
            response = client.post(
                f"{collector.url}/api/v1/events",
                content=(body[i : i + 7] for i in range(0, len(body), 7)),
                headers={"Content-Type": "application/proto"},
            )
            assert response.status_code == 200
    assert collector.event_count == 300


def test_a_body_too_large_for_memory_is_refused(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(sink="null")
    connection = peer.tcp(collector.port)
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % (1 << 40))
    chunk = bytes(1 << 20)
    try:
        for _ in range(65):
            connection.sendall(chunk)
    except ConnectionError:
        pass  # refused already
    assert read_all(connection).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("size", "closes"), [(1000, False), (300_000, True)])
def test_an_unknown_content_type_is_refused_before_the_body_is_read(
    size: int, closes: bool, peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector()
    connection = peer.tcp(collector.port)
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % size)
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'"reason":"invalid content type"}')
    if closes:
        assert read_all(connection) == b""
    else:
        connection.sendall(bytes(size) + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).endswith(b"pong")


def test_expect_100_continue(peer: Any, new_collector: NewCollector) -> None:
    body = peer.request()
    connection = peer.tcp(new_collector().port)
    connection.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_leaves_in_the_middle_does_no_harm(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.tcp(collector.port)
    connection.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n")
    connection.sendall(b"Content-Length: 100\r\n\r\nhalf")
    connection.close()
    assert peer.post(collector).status_code == 200
    assert collector.request_count == 1


def test_what_is_not_http_is_answered_400(peer: Any, new_collector: NewCollector) -> None:
    connection = peer.tcp(new_collector().port)
    connection.sendall(b"\x16\x03\x01\x00\x00\r\n\r\n")
    assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_sync_answers_wait_for_the_publishing(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", publish_delay=0.2)
    start_s = time.monotonic()
    assert peer.post(collector).status_code == 200
    assert time.monotonic() - start_s >= 0.2
    assert collector.event_count == 1


def test_five_are_published_at_a_time(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", publish_delay=0.2)
    start_s = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(6) as pool, httpx.Client() as client:
        url, headers = f"{collector.url}/api/v1/events", {"content-type": "application/proto"}
        posts = [pool.submit(client.post, url, content=peer.request(), headers=headers) for _ in range(6)]
        assert {post.result().status_code for post in posts} == {200}
    assert 0.4 <= time.monotonic() - start_s < 1.2  # which is what one after the other take
