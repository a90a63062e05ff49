"""What a transport reports besides the outcome: whether the request was written, and how often it was resent."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from h2_peer import GOAWAY, Call, frame, greet, read_call, strict_server
from scripted import Connection, answer, guid_of, speak_websocket, tcp_server

from raccoon_fast import AckTimeoutError, ConnectError, ConnectionLostError, DeliveryError, Outcome
from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.stats import resolve_stats
from raccoon_fast.transports.base import Identity, Link, Request, Transport
from raccoon_fast.transports.grpc.transport import GrpcTransport
from raccoon_fast.transports.pinger import Keepalive
from raccoon_fast.transports.rest.httpx import HttpxTransport
from raccoon_fast.transports.rest.transport import RestTransport
from raccoon_fast.transports.websocket.transport import WebSocketTransport

MAKERS: dict[str, tuple[str, str, Callable[[Link], Transport]]] = {
    "rest": ("REST", "http://", lambda link: RestTransport(link, connections=1)),
    "httpx": ("REST", "http://", lambda link: HttpxTransport(link, httpx.AsyncHTTPTransport())),
    "websocket": (
        "WebSocket",
        "ws://",
        lambda link: WebSocketTransport(link, keepalive=Keepalive(None, 1.0), max_in_flight=1),
    ),
    "grpc": ("gRPC", "grpc://", GrpcTransport),
}


def transport(kind: str, host: str) -> Transport:
    protocol, scheme, make = MAKERS[kind]
    return make(
        Link(
            address=parse_address(f"{scheme}{host}", protocol),
            identity=Identity(),
            headers={},
            authorization=None,
            tls=None,
            user_agent="tests",
            connect_timeout_s=5.0,
            stats=resolve_stats(None),
            logger=resolve_logger(None),
        )
    )


def request(guid: str) -> Request:
    envelope = ProtoEnvelope()
    envelope.add("page", b"{}")
    envelope.stamp(guid, 1, 0)
    return Request(guid, envelope, "proto", envelope.nbytes)


@contextlib.contextmanager
def silent(kind: str) -> Iterator[str]:
    """Takes requests and answers none."""
    if kind == "grpc":
        with strict_server(lambda call: None) as (host, _):
            yield host
        return

    def script(connection: Connection) -> None:
        if kind == "websocket":
            speak_websocket(connection, lambda frame, protocol: None)
        connection.wait_closed()

    with tcp_server(script) as host:
        yield host


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_is_written_without_a_listening_server(kind: str, run: Any) -> None:
    async def main(host: str) -> None:
        sent, one = request("g"), transport(kind, host)
        with pytest.raises(ConnectError) as no:
            await one.send(sent, 5.0)
        await one.close()
        assert (sent.was_written, sent.resends, no.value.outcome) == (False, 0, Outcome.NOT_DELIVERED)

    with tcp_server(lambda connection: None) as host:
        pass
    run(main(host))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_unanswered_request_was_written(kind: str, run: Any) -> None:
    async def main(host: str) -> None:
        sent, one = request("g"), transport(kind, host)
        with pytest.raises(AckTimeoutError) as no:
            await one.send(sent, 0.3)
        await one.close()
        assert (sent.was_written, sent.resends, no.value.outcome) == (True, 0, Outcome.POSSIBLY_DELIVERED)

    with silent(kind) as host:
        run(main(host))


@pytest.mark.parametrize("kind", ["rest", "websocket", "grpc"])
def test_a_request_that_waits_its_turn_was_not_written(kind: str, run: Any) -> None:
    async def main(host: str) -> None:
        one = transport(kind, host)
        first, second = request("a"), request("b")
        sending = asyncio.ensure_future(one.send(first, 10.0))
        while not first.was_written:
            await asyncio.sleep(0.005)
        with pytest.raises(DeliveryError) as no:
            await one.send(second, 0.1)
        assert (second.was_written, no.value.outcome) == (False, Outcome.NOT_DELIVERED)
        await one.close()
        with pytest.raises(DeliveryError):
            await sending

    if kind == "grpc":
        with strict_server(lambda call: None, {3: 1}) as (host, _):
            run(main(host))
    else:
        with silent(kind) as host:
            run(main(host))


@pytest.mark.parametrize("way", ["send", "start"])
def test_a_request_on_a_connection_that_ends_is_written_again(way: str, run: Any) -> None:
    def script(connection: Connection) -> None:
        connection.respond(answer(connection.read_message().req_guid))
        connection.read_message()

    async def main(host: str) -> None:
        one = transport("rest", host)
        await one.send(request("a"), 5.0)
        sent = request("b")
        attempt = one.start(sent, 5.0) if way == "start" else None
        while attempt is not None and not attempt.done():
            await asyncio.sleep(0.005)
        response = attempt.result() if attempt is not None else await one.send(sent, 5.0)
        assert (response.req_guid, sent.was_written, sent.resends) == ("b", True, 1)
        await one.close()

    with tcp_server(script) as host:
        run(main(host))


def test_a_call_that_was_refused_is_written_again(run: Any) -> None:
    def script(connection: Connection) -> None:
        greet(connection)
        read_call(connection)
        connection.sock.sendall(frame(GOAWAY, struct.pack(">II", 0, 0)))
        connection.wait_closed()

    async def main(host: str) -> None:
        sent, one = request("g"), transport("grpc", host)
        with pytest.raises(ConnectionLostError) as no:
            await one.send(sent, 5.0)
        assert (sent.was_written, sent.resends, no.value.outcome) == (True, 1, Outcome.NOT_DELIVERED)
        await one.close()

    with tcp_server(script) as host:
        run(main(host))


def test_a_call_that_waited_when_its_connection_ended_was_not_written_before(run: Any) -> None:
    def on_call(call: Call) -> None:
        call.respond()
        if len(peers) == 1:
            call.peer.connection.sock.sendall(frame(GOAWAY, struct.pack(">II", call.stream, 0)))

    async def main(host: str) -> None:
        one = transport("grpc", host)
        first, second = request("a"), request("b")
        await asyncio.gather(one.send(first, 5.0), one.send(second, 5.0))
        assert [(sent.was_written, sent.resends) for sent in (first, second)] == [(True, 0)] * 2
        await one.close()

    with strict_server(on_call, {3: 1}) as (host, peers):
        run(main(host))
    assert len(peers) == 2


def test_a_websocket_refused_in_its_handshake_has_written_no_request(run: Any) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.respond(b"no", b"403 Forbidden")

    async def main(host: str) -> None:
        sent, one = request("g"), transport("websocket", host)
        with pytest.raises(DeliveryError):
            await one.send(sent, 5.0)
        assert not sent.was_written
        await one.close()

    with tcp_server(script) as host:
        run(main(host))


def test_a_websockets_request_is_written_once(run: Any) -> None:
    def script(connection: Connection) -> None:
        def received(frame: Any, protocol: Any) -> None:
            if frame.opcode == 2:
                protocol.send_binary(answer(guid_of(bytes(frame.data))))

        speak_websocket(connection, received)

    async def main(host: str) -> None:
        sent, one = request("g"), transport("websocket", host)
        await one.send(sent, 5.0)
        assert (sent.was_written, sent.resends) == (True, 0)
        await one.close()

    with tcp_server(script) as host:
        run(main(host))
