"""Every row of "What an answer means" in the documentation, against a server that gives that answer."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc as grpc_codes
import h2.errors
import httpx
import pytest
from any_client import ASYNC, PROTOCOLS, SYNC, OnLoop, new_client
from certificates import Files, make_certificates
from h2_peer import HEAD, Call, message, strict_server
from patience import patient, wait_until
from scripted import Connection, answer, guid_of, speak_websocket, tcp_server
from trial import Lines

from raccoon_fast import RAW, TLS, EventsRejectedError, MessageTooLargeError, Producer, RaccoonError, RetryPolicy
from raccoon_fast.collector import Collector

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "guarantees.md"
ALL = {"REST": "rest", "WebSocket": "websocket", "gRPC": "grpc"}
HTML = b"<html>no</html>"
BYE = h2.errors.ErrorCodes
#: In the order of their numbers.
CODES = [code.name for code in grpc_codes.StatusCode]
TOO_LARGE = (
    (8, "grpc: received message larger than max (5242946 vs. 4194304)"),
    (8, "gRPC message exceeds maximum size 4194304: 5242946"),
    (11, "Error, decoded message length too large: found 5242946 bytes, the limit is: 4194304 bytes"),
    (2, "Payload Too Large"),
    (13, "Received message exceeds the maximum configured message size."),
    (14, "request body too large"),
)


class Row(NamedTuple):
    protocol: str
    answer: str
    error: str
    outcome: str
    retries: str
    charged: str


def rows() -> list[Row]:
    lines = PAGE.read_text(encoding="utf-8").split("| Protocol | Answer |")[1].splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in table]


@dataclass
class Way:
    """A server that answers as a row says, until it is healed.

    Attributes:
        reply: Given what came; for REST and the handshake a Connection, for a WebSocket frame and protocol, for gRPC a
            Call.
        options: Of the client.
        heals: Whether it can be made to answer well.
    """

    kind: str
    reply: Callable[..., None] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    heals: bool = True

    def __post_init__(self) -> None:
        self.healed = threading.Event()
        self.seen: list[str] = []


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\b\d{3,4}\b", text)]


def http(status: int, body: Callable[[str], bytes] | bytes = HTML) -> Way:
    def reply(connection: Connection, guid: str) -> None:
        said = b"" if status == 204 else body(guid) if callable(body) else body
        connection.respond(said, b"%d Any" % status)

    return Way("rest", reply)


def lost(connection: Connection, _: str) -> None:
    connection.sock.close()
    raise EOFError


def odd(connection: Connection, _: str) -> None:
    connection.sock.sendall(b"\x00\x01hello\r\n\r\n")


def frame(make: Callable[[str], bytes]) -> Way:
    return Way("websocket", lambda guid, protocol, write: protocol.send_binary(make(guid)))


def close(code: int) -> Way:
    return Way("websocket", lambda guid, protocol, write: protocol.send_close(code, "why"))


def handshake(status: int) -> Way:
    return Way("handshake", lambda connection: connection.respond(HTML, b"%d Any" % status))


def refuse_connection(connection: Connection) -> None:
    """Let in, told that there are too many, and closed, as a Raccoon does it."""

    def write(data: bytes) -> None:
        said = answer(None, status=2, code=4, reason="max connection reached")
        connection.sock.sendall(data + bytes([0x82, len(said)]) + said)
        raise EOFError

    speak_websocket(connection, lambda frame, protocol: None, write)


def grpc(status: int, said: str = "no", more: tuple[tuple[str, str], ...] = ()) -> Way:
    fields = [*HEAD, ("grpc-status", str(status)), ("grpc-message", said), *more]
    return Way("grpc", lambda call: call.peer.h2.send_headers(call.stream, fields, end_stream=True))


def grpc_http(status: int) -> Way:
    def reply(call: Call) -> None:
        call.peer.h2.send_headers(call.stream, [(":status", str(status)), ("content-type", "text/html")])
        call.peer.h2.send_data(call.stream, HTML, end_stream=True)

    return Way("grpc", reply)


def grpc_body(make: Callable[[str], bytes]) -> Way:
    return Way("grpc", lambda call: call.respond(0, body=make(call.request.req_guid)))


def reset(code: BYE) -> Way:
    return Way("grpc", lambda call: call.peer.h2.reset_stream(call.stream, code))


def grpc_lost(call: Call) -> None:
    call.peer.connection.sock.close()
    raise EOFError


def codes(text: str) -> list[int]:
    return [CODES.index(name) for name in re.findall(r"[A-Z_]{5,}", text)]


def ok(guid: str) -> bytes:
    return answer(guid)


def failed_publish(guid: str) -> bytes:
    return answer(guid, status=2, code=3, reason="cannot publish events")


def unread(_: str) -> bytes:
    return answer(None, status=2, code=2, reason="deserialization failure")


def other(_: str) -> bytes:
    return answer("another")


#: By protocol and the beginning of the answer: what a row stands for, each a way of its own.
WAYS: dict[tuple[str, str], Callable[[str], list[Way]]] = {
    ("REST", "200 with a Raccoon's SUCCESS"): lambda _: [http(200, ok)],
    ("REST", "200 or 500 with a Raccoon's INTERNAL_ERROR"): lambda text: [
        http(status, failed_publish) for status in numbers(text)
    ],
    ("REST", "400 with a Raccoon's BAD_REQUEST"): lambda _: [http(400, unread)],
    ("REST", "413"): lambda _: [http(413)],
    ("REST", "301, 302"): lambda text: [
        *(http(status) for status in numbers(text)),
        http(400, b'{"code":2,"message":"not a Raccoon"}'),
        http(400, b""),
    ],
    ("REST", "408, 429"): lambda text: [http(status) for status in numbers(text)],
    ("REST", "500, 502"): lambda text: [http(status) for status in numbers(text)],
    ("REST", "202, 204"): lambda text: [http(status) for status in numbers(text)],
    ("REST", "200 without"): lambda _: [http(200), http(200, b"")],
    ("REST", "an answer to another request"): lambda _: [http(200, other), http(500, other)],
    ("REST", "something that is not HTTP/1.1"): lambda _: [Way("rest", odd)],
    ("REST", "the connection ends"): lambda _: [Way("rest", lost)],
    ("REST", "a kept connection ends"): lambda _: [Way("kept", heals=False)],
    ("WebSocket", "SUCCESS"): lambda _: [frame(ok)],
    ("WebSocket", "INTERNAL_ERROR"): lambda _: [frame(failed_publish)],
    ("WebSocket", "BAD_REQUEST"): lambda _: [
        frame(unread),
        frame(lambda guid: answer(guid, status=2, code=2, reason="cannot parse")),
    ],
    ("WebSocket", "close 1009"): lambda _: [close(1009)],
    ("WebSocket", "close 1000"): lambda text: [close(code) for code in numbers(text)],
    ("WebSocket", "MAX_CONNECTION_LIMIT_REACHED"): lambda _: [Way("handshake", refuse_connection)],
    ("WebSocket", "200, 302"): lambda text: [handshake(status) for status in numbers(text)],
    ("WebSocket", "429, 500"): lambda text: [handshake(status) for status in numbers(text)],
    ("WebSocket", "something that is not"): lambda _: [
        Way("handshake", lambda connection: connection.sock.sendall(b"SSH-2.0\r\n\r\n"))
    ],
    ("WebSocket", "a message that is not"): lambda _: [
        frame(lambda guid: b"\xff\xff"),
        Way("websocket", lambda guid, protocol, write: write(b"\x83\x00")),
    ],
    ("WebSocket", "the connection ends"): lambda _: [Way("websocket")],
    ("gRPC", "OK with a Raccoon's SUCCESS"): lambda _: [grpc_body(lambda guid: message(ok(guid)))],
    ("gRPC", "OK with a Raccoon's INTERNAL_ERROR"): lambda _: [grpc_body(lambda guid: message(failed_publish(guid)))],
    ("gRPC", 'INTERNAL, "grpc'): lambda _: [grpc(13, "grpc: error unmarshalling request: proto: cannot parse")],
    ("gRPC", "any status whose text"): lambda _: [grpc(status, said) for status, said in TOO_LARGE],
    ("gRPC", "HTTP status 413"): lambda _: [grpc_http(413)],
    ("gRPC", "INVALID_ARGUMENT"): lambda text: [grpc(code) for code in codes(text)],
    ("gRPC", "INTERNAL, UNKNOWN"): lambda text: [
        *(grpc(code) for code in codes(text)),
        grpc(13, "a proxy: grpc: error unmarshalling request"),
    ],
    ("gRPC", "UNAVAILABLE, ABORTED"): lambda text: [grpc(code) for code in codes(text)],
    ("gRPC", "DEADLINE_EXCEEDED"): lambda _: [grpc(4)],
    ("gRPC", "CANCELLED"): lambda _: [grpc(1)],
    ("gRPC", "UNAVAILABLE with"): lambda _: [
        Way("grpc", grpc(14, "no", (("grpc-retry-pushback-ms", said),)).reply, heals=False) for said in ("-1", "soon")
    ],
    ("gRPC", "HTTP status 301"): lambda text: [grpc_http(status) for status in numbers(text)],
    ("gRPC", "HTTP status 429"): lambda _: [grpc_http(429)],
    ("gRPC", "HTTP status 502"): lambda text: [grpc_http(status) for status in numbers(text)],
    ("gRPC", "HTTP status 202"): lambda text: [grpc_http(status) for status in numbers(text)],
    ("gRPC", "OK without"): lambda _: [grpc_body(lambda guid: b""), grpc_body(lambda guid: message(b"\xff"))],
    ("gRPC", "an answer to another request"): lambda _: [grpc_body(lambda guid: message(other(guid)))],
    ("gRPC", "RST_STREAM with CANCEL"): lambda _: [reset(BYE.CANCEL), reset(BYE.INTERNAL_ERROR)],
    ("gRPC", "RST_STREAM with REFUSED_STREAM"): lambda _: [
        reset(BYE.REFUSED_STREAM),
        Way("grpc", lambda call: call.peer.h2.close_connection(last_stream_id=0)),
    ],
    ("gRPC", "the connection ends"): lambda _: [Way("grpc", grpc_lost)],
    ("any", "nobody listens"): lambda _: [Way("nobody", heals=False)],
    ("any", "the server's certificate"): lambda _: [Way("untrusted", heals=False)],
    ("any", "the server refuses"): lambda _: [Way("unknown client", heals=False)],
    ("any", "no answer in time"): lambda _: [Way("any", lambda *_: None, {"timeout": patient(0.3)})],
}


def cases() -> list[Any]:
    used, made = set(), []
    for row in rows():
        found = [key for key in WAYS if key[0] == row.protocol and row.answer.startswith(key[1])]
        assert len(found) == 1, f"no way, or several, for {row}"
        used.add(found[0])
        for protocol in ALL if row.protocol == "any" else [row.protocol]:
            for number in range(len(WAYS[found[0]](row.answer))):
                name = f"{protocol} {row.answer[:40]} {number}"
                made.append(pytest.param(row._replace(protocol=protocol), found[0], number, id=name))
    assert used == {*WAYS}
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("guarantees"))


@contextlib.contextmanager
def serve(way: Way, protocol: str, files: Files) -> Iterator[str]:
    """Yields host:port."""

    def rest(connection: Connection) -> None:
        while True:
            guid = connection.read_message().req_guid
            way.seen.append(guid)
            if way.healed.is_set():
                connection.respond(answer(guid))
            else:
                assert way.reply is not None
                way.reply(connection, guid)

    def websocket(connection: Connection) -> None:
        if way.kind == "handshake" and not way.healed.is_set():
            assert way.reply is not None
            if way.reply is not refuse_connection:
                connection.read_head()
            way.reply(connection)
            connection.wait_closed()
            return

        def received(frame: Any, protocol: Any) -> None:
            if frame.opcode != 2:
                return
            guid = guid_of(bytes(frame.data))
            way.seen.append(guid)
            if way.healed.is_set():
                protocol.send_binary(answer(guid))
            elif way.reply is None:
                raise EOFError
            else:
                way.reply(guid, protocol, connection.sock.sendall)

        speak_websocket(connection, received)

    def on_call(call: Call) -> None:
        way.seen.append(call.request.req_guid)
        if way.healed.is_set():
            call.respond()
        else:
            assert way.reply is not None
            way.reply(call)

    def refuse_client(connection: Connection) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
        context.load_cert_chain(files.server)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2", "http/1.1"])
        # Closed with bytes unread a socket is reset, and the alert may be lost with it.
        with connection.sock.dup() as held:
            with contextlib.suppress(ssl.SSLError):
                context.wrap_socket(connection.sock, server_side=True)
            while held.recv(65536):
                pass

    if way.kind == "nobody":
        with tcp_server(lambda connection: None) as host:
            pass
        yield host
    elif way.kind == "untrusted":
        with Collector(tls_cert=files.server, tls_key=files.server) as collector:
            yield collector.grpc_target if protocol == "gRPC" else f"127.0.0.1:{collector.port}"
    elif way.kind == "kept":
        with once_kept(way) as host:
            yield host
    elif way.kind == "unknown client":
        with tcp_server(refuse_client) as host:
            yield host
    elif protocol == "gRPC":
        with strict_server(on_call) as (host, _):
            yield host
    else:
        with tcp_server(rest if protocol == "REST" else websocket) as host:
            yield host


@contextlib.contextmanager
def once_kept(way: Way) -> Iterator[str]:
    """Answers a request, reads the one after it whole, and is gone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError, EOFError):
            connection = Connection(listener.accept()[0], 0)
            with connection.sock:
                connection.respond(answer(connection.read_message().req_guid))
                way.seen.append(connection.read_message().req_guid)
                listener.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        listener.close()
        thread.join(patient(5))


def options_of(way: Way, files: Files) -> dict[str, Any]:
    tls = {"untrusted": TLS(ca=files.other_ca), "unknown client": TLS(ca=files.ca, cert=files.stranger)}
    return {**way.options, **({"tls": tls[way.kind]} if way.kind in tls else {})}


def url_of(protocol: str, host: str, options: dict[str, Any]) -> str:
    scheme = {"REST": "http", "WebSocket": "ws", "gRPC": "grpc"}[protocol]
    return f"{scheme}{'s' if 'tls' in options else ''}://{host}"


def check_request(row: Row, way: Way, client: Any) -> None:
    """Send one, and compare what becomes of it with the row."""
    error: Any = None
    if way.kind == "kept":
        client.send([("page", b"before")])
    try:
        client.send([("page", b"x")])
    except RaccoonError as failed:
        error = failed
    if row.error == "none":
        assert (error, row.outcome, len(way.seen)) == (None, "delivered", 1)
        return
    assert row.error in [one.__name__ for one in type(error).__mro__]
    assert str(error.outcome) == row.outcome
    if isinstance(error, MessageTooLargeError):
        assert (row.retries, len(way.seen)) == ("no", 1)
    else:
        assert error.retryable is (row.retries == "yes")
        assert (error.attempts > 1) is (row.retries == "yes")


TWICE = RetryPolicy(max_attempts=2, initial=0.01)


@pytest.mark.parametrize("classes", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize(("row", "key", "number"), cases())
def test_a_clients_request(row: Row, key: tuple[str, str], number: int, classes: dict[str, Any], files: Files) -> None:
    way = WAYS[key](row.answer)[number]
    options = options_of(way, files)
    with serve(way, row.protocol, files) as host:
        made = new_client(ALL[row.protocol], url_of(row.protocol, host, options), classes, retry=TWICE, **options)
        with made if classes is SYNC else OnLoop(made) as client:
            check_request(row, way, client)


def cases_of_httpx() -> list[Any]:
    """httpx sends nothing again by itself, and names a lost connection and an answer that is no HTTP alike."""
    unlike = ("a kept connection", "something that is not")
    return [case for case in cases() if case.values[0].protocol == "REST" and not case.values[1][1].startswith(unlike)]


@pytest.mark.parametrize(("row", "key", "number"), cases_of_httpx())
def test_a_request_over_httpx(row: Row, key: tuple[str, str], number: int, files: Files) -> None:
    way = WAYS[key](row.answer)[number]
    options = options_of(way, files)
    tls = options.pop("tls", None)
    transport = httpx.AsyncHTTPTransport(verify=tls.ssl_context() if tls else True)
    with serve(way, row.protocol, files) as host:
        url = url_of(row.protocol, host, {"tls": tls} if tls else {})
        with OnLoop(new_client("rest", url, ASYNC, retry=TWICE, transport=transport, **options)) as client:
            check_request(row, way, client)


@pytest.mark.parametrize(("row", "key", "number"), cases())
def test_a_producers_batch(row: Row, key: tuple[str, str], number: int, files: Files) -> None:
    way = WAYS[key](row.answer)[number]
    options = {
        "timeout": 5.0,
        "serializer": RAW,
        "retry": RetryPolicy(initial=0.02, maximum=0.1),
        **options_of(way, files),
    }
    lines = Lines()
    with serve(way, row.protocol, files) as host:
        producer = Producer(url_of(row.protocol, host, options), logger=lines, **options)
        if way.kind == "kept":
            producer.emit("page", b"before").result(patient(10))
        receipt = producer.emit("page", b"x")
        if row.charged == "server":
            wait_until(lambda: not producer.health().ok)
            assert not receipt.done()
        elif row.charged == "batch":
            wait_until(lambda: len(way.seen) > 1)
        if row.charged in ("events", "size"):
            with pytest.raises(EventsRejectedError) as no:
                receipt.result(patient(15))
            assert [event.data for event in no.value.rejected] == [b"x"]
        elif way.heals:
            way.healed.set()
            receipt.result(patient(15))
        total = producer.close(timeout=0).total
    failed = {"events": {"BAD_REQUEST": 1}, "size": {"too large": 1}}.get(row.charged)
    if failed is not None:
        assert total.failed == failed
    elif way.heals:
        assert total.failed == {}
        assert total.acked == 1


def test_every_protocol_is_covered() -> None:
    assert {row.protocol for row in rows()} == {*ALL, "any"}
    assert {*ALL.values()} == {*PROTOCOLS}
