"""REST cases that the captures do not cover."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gzip
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import uvloop
from patience import patient

from raccoon_fast.collector import Collector, http_connection

NewCollector = Callable[..., Collector]

HEAD = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n"


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
def test_an_unknown_content_type_is_refused_once_a_short_body_came_and_at_once_before_a_long_one(
    size: int, closes: bool, peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector()
    connection = peer.tcp(collector.port)
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % size)
    if not closes:
        connection.sendall(bytes(size))
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'"reason":"invalid content type"}')
    if closes:
        assert read_all(connection) == b""
    else:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
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


def test_bytes_that_are_not_http_are_answered_400(peer: Any, new_collector: NewCollector) -> None:
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
    assert 0.4 <= time.monotonic() - start_s < patient(1.2)  # which is what one after the other take


def post(body: bytes, content_type: str = "application/proto", *, chunked: bool = False) -> bytes:
    """A POST of events, as it is on the wire."""
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nX-User-ID: me\r\nContent-Type: {content_type}\r\n"
    if chunked:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_answers(connection: Any, count: int) -> list[bytes]:
    """So many answers, but for their dates."""
    received = b""
    answers: list[bytes] = []
    while len(answers) < count:
        head, end, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length is not None and len(rest) >= int(length[1]):
            answers.append(re.sub(rb"\r\ndate: [^\r]*", b"", head) + end + rest[: int(length[1])])
            received = rest[int(length[1]) :]
            continue
        chunk = connection.recv(65536)
        assert chunk, "the connection was closed"
        received += chunk
    return answers


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", answers)


CHUNKED = (
    b"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nContent-Type: application/proto\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST = b"GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("end", "answered"),
    [
        (b"0\r\n\r\n", [b"200", b"200"]),
        (b"0\r\nX: y\r\n\r\n", [b"200", b"200"]),
        (b"0\n\n", [b"200", b"200"]),  # what follows is no trailer
        (b"0\nX: y\n\n", [b"200", b"200"]),
        (b"0\r\nbad\r\n\r\n", [b"500"]),
        (b"0\r\n X: y\r\n\r\n", [b"500"]),
    ],
)
def test_trailers_of_chunked_bodies(end: bytes, answered: list[bytes], peer: Any, new_collector: NewCollector) -> None:
    connection = peer.tcp(new_collector().port)
    connection.sendall(CHUNKED + end + LAST)
    assert statuses(read_all(connection)) == answered


@pytest.mark.parametrize(
    ("first", "between", "answered"),
    [
        (post(b""), b"\r\n", [b"200", b"200"]),
        (post(b""), b"\r\n\r\n", [b"200", b"200"]),
        (post(b""), b"\r\n\r\n\n", [b"200", b"400"]),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", b"\r\n", [b"200", b"400"]),
    ],
)
def test_line_ends_behind_a_post_are_skipped(
    first: bytes, between: bytes, answered: list[bytes], peer: Any, new_collector: NewCollector
) -> None:
    connection = peer.tcp(new_collector().port)
    connection.sendall(first + between + LAST)
    assert statuses(read_all(connection)) == answered


SENT_TIME = re.compile(rb'"sent_time":\d+|\x18.{4}\x06', re.DOTALL)
JSON_BODY = b'{"req_guid":"j","sent_time":{"seconds":1,"nanos":2},"events":[{"event_bytes":"eA==","type":"t"}]}'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/proto", None),
        ("application/proto", b""),
        ("application/proto", b"\xff"),
        ("application/json", JSON_BODY),
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json; charset=utf-8", JSON_BODY),
        ("text/plain\r\nContent-Type: application/proto", b""),
        ("application/proto\r\nContent-Type: text/plain", b""),
    ],
)
def test_an_immediate_answer_is_like_any_other(
    content_type: str, body: bytes | None, peer: Any, new_collector: NewCollector
) -> None:
    request = post(peer.request() if body is None else body, content_type)
    answers, counts = [], []
    for is_usual in (False, True):
        collector = new_collector(inspect=True)
        if is_usual:
            collector.faults.reject_events("of a type that nobody sends")
        with peer.tcp(collector.port) as connection:
            for byte in request:
                connection.sendall(bytes([byte]))
            connection.sendall(2 * request)
            answers.append([re.sub(SENT_TIME, b"", one) for one in read_answers(connection, 3)])
        counts.append((collector.counts, len(collector.requests), [event.data for event in collector.events]))
    assert answers[0] == answers[1]
    assert counts[0] == counts[1]


def test_requests_in_a_row_are_answered_in_their_order(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    bodies = [JSON_BODY.replace(b'"j"', b'"%d"' % number) for number in range(8)]
    with peer.tcp(collector.port) as connection:
        connection.sendall(
            b"".join(post(body, "application/json", chunked=number % 3 == 1) for number, body in enumerate(bodies))
        )
        answers = read_answers(connection, 8)
    assert [re.search(rb'"req_guid":"(\d)"', answer)[1] for answer in answers] == [
        b"%d" % number for number in range(8)
    ]
    assert [request.req_guid for request in collector.requests] == list("01234567")


@pytest.mark.parametrize("token", ["h2c", "websocket"])
def test_a_post_that_offers_an_upgrade_is_an_ordinary_request(token: str, peer: Any, new_collector: Any) -> None:
    collector = new_collector()
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": token, "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert peer.post(collector, headers=headers).status_code == 200
    assert collector.event_count == 1


def test_a_head_without_an_end_is_bounded_in_size(peer: Any, new_collector: Any) -> None:
    connection = peer.tcp(new_collector().port)
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (2 << 20))
    assert read_all(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("_HEAD_S", b"GET /ping HTTP/1.1\r\nHost: x\r\n"),
        (
            "_BODY_S",
            b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        ),
        ("_IDLE_S", b""),
    ],
)
def test_half_a_request_is_bounded_in_time(
    limit: str, sent: bytes, peer: Any, new_collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, limit, 0.2)
    if limit == "_BODY_S":
        monkeypatch.setattr(http_connection, "_HEAD_S", 0.1)  # the whole head came
    connection = peer.tcp(new_collector().port)
    connection.sendall(sent)
    assert read_all(connection) == b""


def test_pipelined_requests_are_answered_in_order(peer: Any, new_collector: Any) -> None:
    connection = peer.tcp(new_collector(acks="sync", publish_delay=0.05).port)
    body = peer.request()
    post = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s"
    connection.sendall((post % (len(body), body)) * 3 + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert answers.endswith(b"pong")


def test_an_inspector_s_path_is_read_as_every_other(peer: Any, new_collector: Any) -> None:
    collector = new_collector(inspect=True)
    connection = peer.tcp(collector.port)
    for _ in range(2):
        connection.sendall(b"GET /inspect/summary?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_deadline_that_is_less_than_a_millisecond_away_may_be_moved() -> None:
    async def main() -> None:
        unused: Any = None
        connection = http_connection.HttpConnection(unused, unused, unused, None, is_tls=False)
        for left_s in (0.0001, 0.0002, 5.0):
            connection._deadline_s = asyncio.get_running_loop().time() + left_s
            connection._check_deadline()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
