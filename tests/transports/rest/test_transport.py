"""REST over our own connections, against servers with scripted faults."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import threading
import time

import pytest
from any_client import ASYNC, SYNC, OnLoop, new_client
from patience import patient
from scripted import Connection, SendEventRequest, answer, tcp_server

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    App,
    AsyncRestClient,
    ConnectError,
    ConnectionLostError,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
    RestClient,
    RetryPolicy,
    ServerError,
)
from raccoon_fast.net.tcp import open_tcp

ONCE = RetryPolicy(max_attempts=1)
SOON = RetryPolicy(max_attempts=3, initial=0.01)
EVENTS = [("page", b"{}")]


def client(host: str, **options) -> RestClient:
    options = {"serializer": RAW, "logger": None, "retry": ONCE, "timeout": 10.0, **options}
    return RestClient(f"http://{host}", **options)


def obliging(connection) -> None:
    while True:
        connection.respond(answer(connection.read_message().req_guid))


def test_sends_the_headers_the_server_demands():
    seen = []

    def script(connection):
        line, headers = connection.read_head()
        body = connection._buffer
        while len(body) < int(headers[b"content-length"]):
            body += connection.sock.recv(65536)
        seen.append((line, headers, SendEventRequest.FromString(body)))
        connection.respond(answer("g-1"))

    with tcp_server(script) as host:
        options = {"user_id": "u1", "group": "g1", "headers": {"X-Trace": "t"}, "app": App("i", "shop", "2")}
        with client(host, **options) as rest:
            before = time.time()
            result = rest.send([("page", b"one"), ("click", b"two")], req_guid="g-1")
    line, headers, message = seen[0]
    assert line == b"POST /api/v1/events HTTP/1.1"
    assert headers[b"content-type"] == b"application/proto"
    assert headers[b"host"] == host.encode()
    assert (headers[b"x-user-id"], headers[b"x-user-group"], headers[b"x-trace"]) == (b"u1", b"g1", b"t")
    assert headers[b"user-agent"].startswith(b"raccoon_fast/")
    assert headers[b"user-agent"].endswith(b" shop/2 (i)")
    assert [(event.type, event.event_bytes) for event in message.events] == [("page", b"one"), ("click", b"two")]
    assert before - 1 < message.sent_time.seconds + message.sent_time.nanos / 1e9 < time.time() + 1
    assert message.req_guid == result.req_guid == result.response.req_guid == "g-1"


def test_json_has_its_own_content_type():
    seen = []

    def script(connection):
        headers, body = connection.read_request()
        seen.append((headers[b"content-type"], body[:1]))
        connection.respond(b'{"status":1,"code":1,"sent_time":5,"data":{"req_guid":"g"}}')

    with tcp_server(script) as host, client(host, wire="json") as rest:
        assert rest.send(EVENTS, req_guid="g").response.sent_time == 5
    assert seen == [(b"application/json", b"{")]


def test_a_connection_is_kept():
    numbers = []

    def script(connection):
        while True:
            message = connection.read_message()
            numbers.append(connection.number)
            connection.respond(answer(message.req_guid))

    with tcp_server(script) as host, client(host) as rest:
        for _ in range(3):
            rest.send(EVENTS)
    assert numbers == [0, 0, 0]


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_kept_connection_that_was_closed_is_replaced_at_once(end):
    """A load balancer closes idle connections: that is neither an attempt nor a reason to wait."""
    served = []

    def script(connection):
        message = connection.read_message()
        served.append(connection.number)
        connection.respond(answer(message.req_guid))
        connection.read_message()  # the next request finds the connection gone
        if end == "reset":
            connection.reset()

    with tcp_server(script) as host, client(host, retry=ONCE) as rest:
        for _ in range(3):
            rest.send(EVENTS)
    assert served == [0, 1, 2]


def dying(connection):
    """Answers a request, reads the one after it, and ends."""
    connection.respond(answer(connection.read_message().req_guid))
    connection.read_message()


def test_a_request_sent_again_on_a_fresh_connection_is_counted():
    seen = []

    def script(connection):
        seen.append(connection.number)
        if connection.number == 0:
            dying(connection)
        else:
            connection.read_message()

    with tcp_server(script) as host, client(host, retry=ONCE) as rest:
        rest.send(EVENTS)
        with pytest.raises(ConnectionLostError) as no:
            rest.send(EVENTS)
    assert (seen, no.value.attempts) == ([0, 1], 2)


@pytest.mark.parametrize("classes", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_hidden_resend_that_cannot_connect_stays_possibly_delivered(classes):
    """The server may have kept the events before it was gone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        connection = Connection(listener.accept()[0], 0)
        with connection.sock:
            connection.respond(answer(connection.read_message().req_guid))
            connection.read_message()
            listener.close()

    thread = threading.Thread(target=run)
    thread.start()
    made = new_client("rest", f"http://127.0.0.1:{listener.getsockname()[1]}", classes)
    with made if classes is SYNC else OnLoop(made) as rest:
        rest.send(EVENTS)
        with pytest.raises(ConnectError) as no:
            rest.send(EVENTS)
    thread.join(patient(5))
    assert no.value.outcome is Outcome.POSSIBLY_DELIVERED
    assert no.value.attempts == 1


@pytest.mark.parametrize("status", [b"200 OK", b"500 No", b"400 No"])
def test_an_answer_to_another_request_ends_the_connection_at_once(status):
    """The next answer would belong to another request too (RFC 9112, 9.2)."""
    ended = threading.Event()
    numbers = []

    def script(connection):
        guid = connection.read_message().req_guid
        numbers.append(connection.number)
        if connection.number == 0:
            connection.respond(answer("another", status=2, code=2), status)
            connection.wait_closed()
            ended.set()
        else:
            connection.respond(answer(guid))

    with tcp_server(script) as host, client(host, retry=ONCE) as rest:
        with pytest.raises(ProtocolError, match="another"):
            rest.send(EVENTS)
        assert ended.wait(patient(10))
        rest.send(EVENTS)
    assert numbers == [0, 1]


def test_half_an_answer_behind_an_answer_ends_the_connection():
    ended = threading.Event()

    def script(connection):
        said = answer(connection.read_message().req_guid)
        more = b"HTTP/1.1 200 OK\r\nX-Old: " if connection.number == 0 else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
        connection.sock.sendall(head + said + more)
        if connection.number == 0:
            connection.wait_closed()
            ended.set()

    with tcp_server(script) as host, client(host, retry=ONCE) as rest:
        rest.send(EVENTS)
        assert ended.wait(patient(10))
        rest.send(EVENTS)


def test_a_connection_with_unsolicited_bytes_is_not_used_again():
    """Whatever follows could be taken for the answer to a later request."""
    answered, ended = threading.Event(), threading.Event()
    served = []

    def script(connection):
        message = connection.read_message()
        served.append(connection.number)
        connection.respond(answer(message.req_guid))
        if connection.number == 0:
            answered.wait(patient(10))
            connection.respond(answer("nobody's"))
            connection.wait_closed()
            ended.set()

    with tcp_server(script) as host, client(host) as rest:
        rest.send(EVENTS)
        answered.set()
        assert ended.wait(patient(10))
        rest.send(EVENTS)
    assert served == [0, 1]


def test_a_kept_connection_that_is_lost_within_an_answer_is_a_failed_attempt():
    """The server has the request: whether to send it again is for the retry policy to say."""
    served = []

    def script(connection):
        message = connection.read_message()
        connection.respond(answer(message.req_guid))
        connection.read_message()
        served.append(connection.number)
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-")

    with tcp_server(script) as host, client(host) as rest:
        rest.send(EVENTS)
        with pytest.raises(ConnectionLostError):
            rest.send(EVENTS)
    assert served == [0]


def test_an_answer_before_the_body_was_read_ends_the_connection():
    """The rest of the body cannot be taken back, although the server would keep the connection."""
    ended = threading.Event()

    def script(connection):
        connection.read_head()
        connection.respond(b"", b"503 Service Unavailable")
        answered.wait(patient(10))  # until then the body fills the buffers of both sides
        connection.wait_closed()
        ended.set()

    answered = threading.Event()
    with tcp_server(script) as host, client(host) as rest:
        with pytest.raises(ServerError, match="503"):
            rest.send([("page", bytes(16 << 20))])
        answered.set()
        assert ended.wait(patient(10))


def test_a_fresh_connection_that_is_lost_is_a_failed_attempt():
    def script(connection):
        connection.read_message()
        connection.reset()

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ConnectionLostError) as failure:
        rest.send(EVENTS, req_guid="g")
    assert failure.value.outcome is Outcome.POSSIBLY_DELIVERED
    assert (failure.value.req_guid, failure.value.attempts) == ("g", 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_transient_statuses_are_retried(status):
    messages = []

    def script(connection):
        while True:
            messages.append(connection.read_message())
            if len(messages) == 1:
                connection.respond(b"<html>", status=b"%d No" % status)
            else:
                connection.respond(answer(messages[-1].req_guid))

    with tcp_server(script) as host, client(host, retry=SOON) as rest:
        rest.send(EVENTS)
    first, second = messages
    assert first.req_guid == second.req_guid
    assert first.events == second.events
    assert first.sent_time.ToNanoseconds() < second.sent_time.ToNanoseconds()


@pytest.mark.parametrize("status", [201, 204, 301, 307, 400, 401, 403, 404, 405, 415])
def test_other_statuses_are_final(status):
    requests = []

    def script(connection):
        while True:
            requests.append(connection.read_message())
            body = b"" if status in (204, 304) else b"no"
            connection.respond(body, status=b"%d No" % status, headers=b"Location: /elsewhere\r\n")

    with (
        tcp_server(script) as host,
        client(host, retry=SOON) as rest,
        pytest.raises(ServerError, match=str(status)) as no,
    ):
        rest.send(EVENTS)
    assert no.value.status == status
    assert not no.value.retryable
    assert len(requests) == 1


def test_a_500_is_tried_again_whatever_its_text_says():
    """The same text under 400 means that the body cannot be parsed, under 500 that it could not be read."""
    requests = []

    def script(connection):
        while True:
            requests.append(connection.read_message())
            if len(requests) == 1:
                body = answer(None, status=2, code=2, reason="deserialization failure")
                connection.respond(body, status=b"500 Internal Server Error")
            else:
                connection.respond(answer(requests[-1].req_guid))

    with tcp_server(script) as host, client(host, retry=SOON) as rest:
        rest.send(EVENTS)
    assert len(requests) == 2


def test_attempts_end_and_the_last_error_is_raised():
    def script(connection):
        while True:
            guid = connection.read_message().req_guid
            connection.respond(answer(guid, status=2, code=3, reason="no broker"), status=b"500 No")

    with (
        tcp_server(script) as host,
        client(host, retry=SOON) as rest,
        pytest.raises(ServerError, match="no broker") as no,
    ):
        rest.send(EVENTS)
    assert no.value.attempts == 3
    assert no.value.response.code.name == "INTERNAL_ERROR"
    assert no.value.outcome is Outcome.POSSIBLY_DELIVERED


def test_all_requests_obey_retry_after():
    arrived = []
    lock = threading.Lock()

    def script(connection):
        while True:
            message = connection.read_message()
            with lock:
                arrived.append(time.monotonic())
                first = len(arrived) == 1
            if first:
                connection.respond(b"", status=b"503 Busy", headers=b"Retry-After: 1\r\n")
            else:
                connection.respond(answer(message.req_guid))

    with tcp_server(script) as host, client(host, retry=SOON) as rest:
        one = rest.submit(EVENTS)
        while not arrived:
            time.sleep(0.001)
        rest.set_app(None)  # a round trip through the loop
        time.sleep(0.05)
        two = rest.submit(EVENTS)
        one.result(patient(10))
        two.result(patient(10))
    assert len(arrived) == 3
    assert min(arrived[1:]) - arrived[0] >= 0.999


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"\xff\xff\xff", b"{}", b"\x00" * 40])
def test_200_without_a_raccoons_answer_is_no_acknowledgement(body):
    def script(connection):
        while True:
            connection.read_message()
            connection.respond(body)

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ProtocolError, match="Raccoon") as failure:
        rest.send(EVENTS)
    assert failure.value.retryable
    assert failure.value.outcome is Outcome.POSSIBLY_DELIVERED


def test_an_answer_for_another_request_is_no_acknowledgement():
    def script(connection):
        connection.read_message()
        connection.respond(answer("another"))

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ProtocolError, match="another"):
        rest.send(EVENTS)


LENGTH = b"Content-Length: %d\r\n" % len(answer("g"))
WHOLE = b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + answer("g")


@pytest.mark.parametrize("kept", [5, 15, 30, len(WHOLE) - 10, len(WHOLE) - 1])
def test_a_truncated_answer_is_no_acknowledgement(kept):
    def script(connection):
        connection.read_message()
        connection.sock.sendall(WHOLE[:kept])

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ConnectionLostError):
        rest.send(EVENTS, req_guid="g")


@pytest.mark.parametrize(
    "sent",
    [
        WHOLE,
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + WHOLE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(answer("g")), answer("g")),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH + b"\r\n" + answer("g"),
        b"HTTP/1.1 200 OK\r\n\r\n" + answer("g"),  # its end is the connection's end
        b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + answer("g"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_answers_in_every_framing_and_in_pieces(sent, piece):
    def script(connection):
        connection.read_message()
        for start in range(0, len(sent), piece):
            connection.sock.sendall(sent[start : start + piece])

    with tcp_server(script) as host, client(host) as rest:
        assert rest.send(EVENTS, req_guid="g").response.req_guid == "g"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n", "headers"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 20_000 + b"\r\n", "headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"a" * 2_000_000, "1048576 bytes"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "switched"),
    ],
)
def test_invalid_answers_are_refused_and_bounded(sent, said):
    def script(connection):
        connection.read_message()
        connection.sock.sendall(sent)
        connection.wait_closed()

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ProtocolError, match=said):
        rest.send(EVENTS)


def folded(guid: str, field: bytes) -> bytes:
    body = answer(guid)
    length = b"" if b"ength" in field else b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 200 OK\r\n" + field.replace(b"LENGTH", b"%d" % len(body)) + length + b"\r\n" + body


@pytest.mark.parametrize(
    "field",
    [
        b"X-A: a\r\n b\r\n\tc\r\n",
        b"X-A:\r\n b\r\n",
        b"X-A: a  \r\n   b\r\nX-B: c\r\n",
        b"Content-Length:\r\n LENGTH\r\n",
        b"Connection: x,\r\n keep-alive\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_a_folded_header_is_read_as_one_line(field, piece):
    """RFC 9112, 5.2: a user agent replaces each obs-fold with spaces; and the connection is kept."""
    numbers = []

    def script(connection):
        while True:
            sent = folded(connection.read_message().req_guid, field)
            numbers.append(connection.number)
            for start in range(0, len(sent), piece):
                connection.sock.sendall(sent[start : start + piece])

    with tcp_server(script) as host, client(host) as rest:
        for _ in range(3):
            rest.send(EVENTS)
    assert numbers == [0, 0, 0]


def test_a_folded_retry_after_is_understood():
    def script(connection):
        connection.read_message()
        connection.respond(b"", b"503 Service Unavailable", b"Retry-After:\r\n 7\r\n")

    with tcp_server(script) as host, client(host) as rest, pytest.raises(ServerError) as no:
        rest.send(EVENTS)
    assert no.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    "field",
    [
        b"X-A: a\x00b\r\n",
        b"X-A: a\x01b\r\n",
        b"X-A: a\x7fb\r\n",
        b"X-A: a\rb\r\n",
        b"X-A: a\nb\r\n",
        b"X A: a\r\n",
        b"X-A : a\r\n",
        b"X-A\r\n : a\r\n",
        b"Content-Length: 1\r\n 2\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_invalid_headers_are_refused(field, piece):
    """RFC 9110, 5.5; RFC 9112, 5.1: what lets folded lines pass lets nothing else pass."""

    def script(connection):
        sent = folded(connection.read_message().req_guid, field)
        for start in range(0, len(sent), piece):
            connection.sock.sendall(sent[start : start + piece])
        connection.wait_closed()

    refused = pytest.raises(ProtocolError, match="did not answer in HTTP")
    with tcp_server(script) as host, client(host) as rest, refused:
        rest.send(EVENTS)


@pytest.mark.parametrize("headers", [{}, {"Accept-encoding": "br"}])
def test_no_content_coding_is_asked_for_unless_the_user_does(headers):
    """RFC 9110, 12.5.3: without the field a server may choose any."""
    seen = []

    def script(connection):
        _, head = connection.read_head()
        seen.append(head.get(b"accept-encoding"))
        connection.respond(b"", b"400 Bad Request")

    with tcp_server(script) as host, client(host, headers=headers) as rest, pytest.raises(ServerError):
        rest.send(EVENTS)
    assert seen == [b"br" if headers else b"identity"]


@pytest.mark.parametrize("coding", [b"gzip", b"x-zip"])
def test_an_answer_in_a_content_coding_is_named_so(coding):
    """RFC 9110, 8.4."""

    def script(connection):
        status = b"502 Bad Gateway" if connection.number else b"200 OK"
        packed = gzip.compress(answer(connection.read_message().req_guid))
        connection.respond(packed, status, b"Content-Encoding: %s\r\n" % coding)

    said = f"with a body in {coding.decode()}, which was not asked for"
    with tcp_server(script) as host, client(host) as rest:
        with pytest.raises(ProtocolError, match=f"answered 200 {said}"):
            rest.send(EVENTS)
        with pytest.raises(ServerError, match=f"answered 502: {said[5:]}; the proxy"):
            rest.send(EVENTS)


@pytest.mark.parametrize("size", [1000, 70_000])
@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"a"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["reason", "name", "value", "chunk extension", "trailer", "interim answers"],
)
def test_a_part_of_an_answer_without_end_is_refused_at_64_kb(begin, more, size):
    """RFC 9112, 3 and 5: a recipient bounds what it takes. The parser keeps a field until it is whole, however long."""

    def script(connection):
        connection.read_message()
        connection.sock.sendall(begin + more * (70_000 // len(more)) if size == 70_000 else begin)
        for _ in range(70 if size == 1000 else 0):
            connection.sock.sendall(more * (size // len(more) + 1))
        connection.wait_closed()  # and the rest of it never comes

    refused = pytest.raises(ProtocolError, match="over 65536 bytes of headers")
    with tcp_server(script) as host, client(host, timeout=60.0) as rest, refused:
        rest.send(EVENTS)


def test_a_body_in_chunks_of_a_byte_is_an_answer():
    """Of 200 kB: what frames the chunks is five times as long, and over what headers may be."""
    body = answer("g", reason="x" * 200_000)

    def script(connection):
        connection.read_message()
        chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in body)
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    with tcp_server(script) as host, client(host) as rest:
        assert len(rest.send(EVENTS, req_guid="g").response.reason) == 200_000


@pytest.mark.parametrize("when", ["with the answer", "later"])
def test_bytes_nobody_asked_for_end_the_connection(when):
    """They could be taken for the answer to the next request."""
    numbers = []
    closed = threading.Event()

    def script(connection):
        message = connection.read_message()
        numbers.append(connection.number)
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer(message.req_guid)) + answer(
            message.req_guid
        )
        if connection.number:
            connection.sock.sendall(reply)
            return
        connection.sock.sendall(reply * 2 if when == "with the answer" else reply)
        if when == "later":
            connection.sock.sendall(reply)
        connection.wait_closed()
        closed.set()

    with tcp_server(script) as host, client(host) as rest:
        rest.send(EVENTS)
        assert closed.wait(patient(10))
        rest.send(EVENTS)
    assert numbers == [0, 1]


@pytest.mark.parametrize("size", [300_000, 5_000_000])
def test_an_error_that_comes_before_the_body_is_read_is_seen(size):
    """A server that refuses by the head alone answers, and closes with the body unread: that resets the connection."""
    seen = []

    def script(connection):
        connection.read_head()
        connection.respond(answer(None, status=2, code=2, reason="invalid content type"), status=b"400 Bad Request")
        seen.append(connection.number)
        connection.sock.close()

    for _ in range(5):
        with (
            tcp_server(script) as host,
            client(host, retry=SOON) as rest,
            pytest.raises(ServerError, match="400") as no,
        ):
            rest.send([("big", b"x" * size)])
        assert no.value.response.reason == "invalid content type"
    assert seen == [0] * 5


def test_a_connection_whose_body_was_not_taken_is_not_used_again():
    numbers = []
    done = threading.Event()

    def script(connection):
        connection.read_head()
        numbers.append(connection.number)
        connection.respond(b"busy", status=b"503 Busy")
        done.wait(patient(10))  # without reading the rest, which is more than the kernel holds for it

    big = [("big", b"x" * 32_000_000)]
    with tcp_server(script) as host, client(host) as rest:
        for _ in range(2):
            with pytest.raises(ServerError):
                rest.send(big)
        done.set()
    assert numbers == [0, 1]


def test_a_server_that_never_answers_is_given_up_and_its_connection_closed():
    closed = threading.Event()

    def script(connection):
        message = connection.read_message()
        if message.events[0].type == "lost":
            connection.wait_closed()
            closed.set()
        else:
            connection.respond(answer(message.req_guid))

    with tcp_server(script) as host, client(host, timeout=0.2) as rest:
        lost = rest.submit([("lost", b"")])
        rest.send(EVENTS)
        with pytest.raises(AckTimeoutError) as late:
            lost.result(patient(10))
        assert late.value.outcome is Outcome.POSSIBLY_DELIVERED
        assert closed.wait(patient(10))


def test_sends_timeout_bounds_all_attempts():
    def script(connection):
        connection.wait_closed()

    async def main(host):
        options = {"timeout": patient(0.2), "retry": RetryPolicy(max_attempts=1000, initial=0.01)}
        async with AsyncRestClient(f"http://{host}", serializer=RAW, logger=None, **options) as rest:
            began = time.monotonic()
            # On a busy machine the last attempt may have too little time to connect.
            with pytest.raises((AckTimeoutError, ConnectError)) as late:
                await rest.send(EVENTS, timeout=patient(2))
            # Earlier if the next wait would end after the timeout.
            assert time.monotonic() - began < patient(10)
            assert late.value.attempts >= 2

    with tcp_server(script) as host:
        asyncio.run(main(host))


def test_a_closed_port_is_a_connect_error_that_is_tried_again():
    with tcp_server(obliging) as host:
        pass
    with client(host, retry=SOON) as rest, pytest.raises(ConnectError) as failure:
        rest.send(EVENTS)
    assert failure.value.attempts == 3
    assert failure.value.outcome is Outcome.NOT_DELIVERED


def test_a_name_that_does_not_resolve_is_a_connect_error():
    rest = RestClient("http://no-such-host.invalid", serializer=RAW, logger=None, retry=ONCE)
    with rest, pytest.raises(ConnectError, match=r"no-such-host\.invalid"):
        rest.send(EVENTS)


def test_413_says_that_the_request_is_too_large():
    def script(connection):
        connection.read_head()
        connection.respond(b"", status=b"413 Content Too Large")

    with tcp_server(script) as host, client(host, retry=SOON) as rest, pytest.raises(MessageTooLargeError) as large:
        rest.send([("a", b"x" * 1000)])
    assert large.value.size > 1000


def test_no_more_connections_than_allowed():
    live = set()
    most = []
    lock = threading.Lock()
    is_full = threading.Event()

    def script(connection):
        while True:
            message = connection.read_message()
            with lock:
                live.add(connection.number)
                most.append(len(live))
                if len(live) == 3:
                    is_full.set()
            is_full.wait(patient(10))
            time.sleep(0.002)
            with lock:
                live.discard(connection.number)
            connection.respond(answer(message.req_guid))

    with tcp_server(script) as host, client(host, connections=3, timeout=patient(20)) as rest:
        for receipt in [rest.submit(EVENTS) for _ in range(60)]:
            receipt.result(patient(20))
    assert max(most) == 3


@pytest.mark.parametrize("seed", range(3))
def test_cancelling_anywhere_leaks_no_connection_slot(seed, run):
    """A slot that is lost at a cancelled await is lost for good, and one day none is left."""
    draw = random.Random(seed)

    async def main(host: str) -> None:
        options = {"serializer": RAW, "logger": None, "retry": ONCE, "timeout": patient(10)}
        async with AsyncRestClient(f"http://{host}", connections=2, **options) as rest:
            for _ in range(150):
                tasks = [asyncio.ensure_future(rest.send(EVENTS)) for _ in range(4)]
                for _ in range(draw.randrange(12)):
                    await asyncio.sleep(0)
                if draw.random() < 0.3:
                    await asyncio.sleep(draw.random() * 0.002)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait_for(asyncio.gather(*[rest.send(EVENTS) for _ in range(8)]), patient(10))

    with tcp_server(obliging) as host:
        run(main(host))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n"


def same(body: bytes) -> bytes:
    return HEAD % len(body) + body


@pytest.mark.parametrize(
    ("unlike", "said"),
    [
        (lambda body: same(body)[:40], same),  # in two pieces: the rest follows
        (lambda body: b"", lambda body: HEAD % (len(body) + 3) + body + b"\x1a\x01x"),  # longer, for an unknown field
        (lambda body: b"", lambda body: same(body).replace(b"Content-Type", b"Content-type")),
        (lambda body: b"", lambda body: b"HTTP/1.1 103 Early Hints\r\n\r\n" + same(body)),
    ],
    ids=["in pieces", "longer", "another head", "announced"],
)
def test_an_answer_after_similar_ones(unlike, said):
    """Similar answers are not parsed again; an answer that differs in anything is."""
    connections = []

    def script(connection):
        connections.append(connection)
        for number in range(20):
            body = answer(connection.read_message().req_guid)
            if number % 4 < 3:
                connection.sock.sendall(same(body))
                continue
            first, whole = unlike(body), said(body)
            if first:
                connection.sock.sendall(first)
                time.sleep(0.01)  # two pieces, not one
            connection.sock.sendall(whole[len(first) :])

    with tcp_server(script) as host, client(host) as rest:
        assert len({rest.send(EVENTS).response.req_guid for _ in range(20)}) == 20
    assert len(connections) == 1


def test_an_answer_like_earlier_ones_with_trailing_bytes():
    """Unsolicited bytes end the connection, here as everywhere."""
    ended = []

    def script(connection):
        for _ in range(3):
            connection.sock.sendall(same(answer(connection.read_message().req_guid)))
        said = same(answer(connection.read_message().req_guid))
        connection.sock.sendall(said + said)
        connection.wait_closed()
        ended.append(connection.number)

    with tcp_server(script) as host, client(host) as rest:
        for _ in range(8):
            rest.send(EVENTS)
    assert sorted(ended) == [0, 1]  # their threads may end in any order


def test_an_answer_like_earlier_ones_to_another_request():
    def script(connection):
        for _ in range(3):
            guid = connection.read_message().req_guid
            connection.sock.sendall(same(answer(guid)))
        connection.read_message()
        connection.sock.sendall(same(answer(guid)))
        connection.wait_closed()

    with tcp_server(script) as host, client(host) as rest:
        for _ in range(3):
            rest.send(EVENTS)
        with pytest.raises(ProtocolError, match="when asked about"):
            rest.send(EVENTS)


def test_a_timer_of_an_earlier_exchange_does_not_end_a_later_one():
    """A deadline shorter than the one the timer waits for is obeyed too."""
    slow = threading.Event()

    def script(connection):
        while True:
            body = answer(connection.read_message().req_guid)
            if slow.is_set():
                slow.clear()
                time.sleep(0.4)
            connection.sock.sendall(same(body))

    with tcp_server(script) as host, client(host, timeout=0.5) as rest:
        rest.send(EVENTS)
        time.sleep(0.3)
        slow.set()
        rest.send(EVENTS)  # over the first one's deadline
        slow.set()
        with pytest.raises(AckTimeoutError):
            rest.send(EVENTS, timeout=0.1)


def test_a_cancellation_while_connecting_is_obeyed(run, monkeypatch):
    """Up to Python 3.11 `asyncio.wait_for`, which bounds connecting, swallows such a cancellation."""
    connected = []

    async def open_and_swallow(*args):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        connected.append(await open_tcp(*args))
        return connected[0]

    monkeypatch.setattr("raccoon_fast.transports.rest.pool.open_tcp", open_and_swallow)

    async def main(host):
        async with AsyncRestClient(f"http://{host}", serializer=RAW, logger=None) as rest:
            sending = asyncio.ensure_future(rest.send(EVENTS))
            await asyncio.sleep(0.01)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            while not connected or not connected[0].transport.is_closing():
                await asyncio.sleep(0.001)

    with tcp_server(obliging) as host:
        run(main(host))
