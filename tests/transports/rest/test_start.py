"""Attempts over a kept connection, which need no task, end like awaited ones."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter

import pytest
from patience import patient
from scripted import Connection, answer, ended, tcp_server

from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.errors import (
    AckTimeoutError,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    Outcome,
    ProtocolError,
    ServerError,
)
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.transports.base import Identity, Link, Request
from raccoon_fast.transports.rest.transport import RestTransport


class Figures(Counter):
    def timing(self, name: str, ms: float) -> None:
        raise AssertionError("a transport times nothing")

    def count(self, name: str, n: int) -> None:
        self[name] += n


def link(host: str, **options) -> Link:
    defaults = {
        "identity": Identity(),
        "headers": {},
        "authorization": None,
        "tls": None,
        "user_agent": "tests",
        "connect_timeout_s": 10.0,
        "stats": Figures(),
        "logger": resolve_logger(None),
    }
    return Link(address=parse_address(f"http://{host}", "REST"), **{**defaults, **options})


def request(guid: str) -> Request:
    envelope = ProtoEnvelope()
    envelope.add("page", b"{}")
    envelope.stamp(guid, 1, 0)
    return Request(guid, envelope, "proto", envelope.nbytes)


async def warm(rest: RestTransport) -> None:
    """Opens the one connection."""
    assert (await rest.send(request("first"), 10.0)).req_guid == "first"


def obliging(connection, requests: int) -> None:
    for _ in range(requests):
        connection.respond(answer(connection.read_message().req_guid))


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_an_attempt_needs_no_task_and_the_connection_is_kept(run):
    numbers = []

    def script(connection):
        while True:
            message = connection.read_message()
            numbers.append(connection.number)
            connection.respond(answer(message.req_guid))

    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        for guid in ("a", "b"):
            sent = request(guid)
            attempt = rest.start(sent, 10.0)
            assert not isinstance(attempt, asyncio.Task)
            assert (await ended(attempt)).req_guid == guid
            assert sent.written_s > 0
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))
    assert numbers == [0, 0, 0]


def test_attempts_without_a_free_connection_wait_their_turn(run):
    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        attempts = [rest.start(request(str(number)), 10.0) for number in range(5)]
        assert [(await ended(attempt)).req_guid for attempt in attempts] == list("01234")
        await rest.close()

    with tcp_server(lambda connection: obliging(connection, 6)) as host:
        run(main(host))


@pytest.mark.parametrize("end", ["reset", "close"])
def test_replacing_a_closed_idle_connection_is_not_a_failure(end, run):
    served = []

    def script(connection):
        message = connection.read_message()
        served.append(connection.number)
        connection.respond(answer(message.req_guid))
        connection.read_message()
        if end == "reset":
            connection.reset()

    async def main(host):
        stats = Figures()
        rest = RestTransport(link(host, stats=stats), connections=1)
        await warm(rest)
        for guid in ("a", "b"):
            assert (await ended(rest.start(request(guid), 10.0))).req_guid == guid
        assert stats["total_conn_err"] == 0
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))
    assert served == [0, 1, 2]


def test_a_request_that_cannot_be_rewritten_stays_possibly_delivered(run):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection = Connection(listener.accept()[0], 0)
        with connection.sock:
            obliging(connection, 1)
            connection.read_message()
            listener.close()

    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        sent = request("a")
        with pytest.raises(ConnectError) as no:
            await ended(rest.start(sent, 10.0))
        assert (no.value.outcome, sent.was_written, sent.resends) == (Outcome.POSSIBLY_DELIVERED, True, 0)
        await rest.close()

    thread = threading.Thread(target=serve)
    thread.start()
    run(main(f"127.0.0.1:{listener.getsockname()[1]}"))
    thread.join(patient(5))


def test_an_answer_to_another_request_ends_the_connection(run):
    numbers = []

    def script(connection):
        while True:
            guid = connection.read_message().req_guid
            numbers.append(connection.number)
            connection.respond(answer("another" if guid == "a" else guid))

    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        with pytest.raises(ProtocolError, match="another"):
            await ended(rest.start(request("a"), 10.0))
        assert (await ended(rest.start(request("b"), 10.0))).req_guid == "b"
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))
    assert numbers == [0, 0, 1]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text", ConnectionLostError),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ConnectionLostError),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", ServerError),
        (b"SMTP ready\r\n\r\n", ProtocolError),
        (whole(answer("other")), ProtocolError),
    ],
)
def test_a_failure_matches_send_and_frees_the_slot(said, error, run):
    def script(connection):
        if connection.number:
            obliging(connection, 1)
        obliging(connection, 1)
        connection.read_message()
        connection.sock.sendall(said)

    async def main(host):
        stats = Figures()
        rest = RestTransport(link(host, stats=stats), connections=1)
        await warm(rest)
        with pytest.raises(error):
            await ended(rest.start(request("a"), 10.0))
        assert stats["total_conn_err"] == (error is ConnectionLostError)
        assert (await ended(rest.start(request("b"), 10.0))).req_guid == "b"
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))


@pytest.mark.parametrize("more", [b"what?", whole(answer("a"))], ids=["no HTTP", "another answer"])
def test_bytes_after_an_answer_end_the_connection_but_keep_the_answer(more, run):
    served = []

    def script(connection):
        served.append(connection.number)
        obliging(connection, 1)
        if not connection.number:
            connection.read_message()
            connection.sock.sendall(whole(answer("a")) + more)
            connection.wait_closed()

    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        assert (await ended(rest.start(request("a"), 10.0))).req_guid == "a"
        assert (await ended(rest.start(request("b"), 10.0))).req_guid == "b"
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))
    assert served == [0, 1]


def test_an_answer_that_does_not_come_in_time_ends_the_connection(run):
    def script(connection):
        obliging(connection, 1)
        if not connection.number:
            connection.wait_closed()

    async def main(host):
        rest = RestTransport(link(host), connections=1)
        await warm(rest)
        began_s = time.monotonic()
        with pytest.raises(AckTimeoutError, match=r"^no answer from \S+ within 0\.\d+ s$") as late:
            await ended(rest.start(request("a"), 0.05))
        told_s = float(str(late.value).split()[-2])
        assert 0.04 <= told_s <= time.monotonic() - began_s + 0.001  # it is rounded
        assert (await ended(rest.start(request("b"), 10.0))).req_guid == "b"
        await rest.close()

    with tcp_server(script) as host:
        run(main(host))


def test_close_ends_requests_in_flight_and_resends(run):
    def script(connection):
        if connection.number < 2:
            obliging(connection, 1)
            connection.read_message()
        if connection.number:
            connection.wait_closed()

    async def main(host):
        rest = RestTransport(link(host), connections=2)
        await asyncio.gather(rest.send(request("first"), 10.0), rest.send(request("second"), 10.0))
        attempts = [rest.start(request(guid), 10.0) for guid in ("a", "b")]
        # One finds its connection closed, and is sent again over a third that never answers.
        while not rest._again or rest._pool._opening:
            await asyncio.sleep(0.001)
        await rest.close()
        with pytest.raises((ConnectionLostError, ClientClosedError, asyncio.CancelledError)):
            await ended(attempts[0])
        with pytest.raises((ConnectionLostError, ClientClosedError, asyncio.CancelledError)):
            await ended(attempts[1])
        while rest._again:
            await asyncio.sleep(0.001)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with tcp_server(script) as host:
        run(main(host))


def test_an_identity_is_the_clients_and_authorization_each_requests(run):
    heads = []

    def script(connection):
        while True:
            headers, _ = connection.read_request()
            heads.append(headers)
            connection.respond(answer(("a", "b", "c", "d")[len(heads) - 1]))

    async def main(host):
        tokens = iter("1234")
        first = RestTransport(link(host, authorization=lambda: next(tokens)))
        assert (await first.send(request("a"), 10.0)).req_guid == "a"
        assert (await ended(first.start(request("b"), 10.0))).req_guid == "b"
        other = RestTransport(link(host))
        assert (await other.send(request("c"), 10.0)).req_guid == "c"
        other._link.user_agent = "changed"
        assert (await ended(other.start(request("d"), 10.0))).req_guid == "d"
        await first.close()
        await other.close()

    with tcp_server(script) as host:
        run(main(host))
    ids = [head[b"x-user-id"] for head in heads]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert [head.get(b"authorization") for head in heads] == [b"1", b"2", None, None]
    assert [head[b"user-agent"] for head in heads] == [b"tests"] * 3 + [b"changed"]


def test_an_error_of_authorization_fails_the_attempt_and_keeps_the_connection(run):
    def tokens():
        yield "1"
        raise LookupError("no token")

    async def main(host):
        made = tokens()
        rest = RestTransport(link(host, authorization=lambda: next(made)), connections=1)
        await warm(rest)
        with pytest.raises(LookupError, match="no token"):
            await ended(rest.start(request("a"), 10.0))
        rest._link.authorization = None
        assert (await ended(rest.start(request("b"), 10.0))).req_guid == "b"
        await rest.close()

    with tcp_server(lambda connection: obliging(connection, 2)) as host:
        run(main(host))
