"""Replays every exchange captured from a real server; the collector gives the same answers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from patience import patient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

EXCHANGES = json.loads((Path(__file__).parent / "captures.json").read_text(encoding="utf-8"))["exchanges"]
GUID = "11111111-2222-4333-8444-555555555555"
OPTIONS: dict[str, dict[str, Any]] = {
    "async": {"acks": "async", "group_header": "X-User-Group"},
    "sync": {"acks": "sync", "dedup": True, "group_header": "X-User-Group"},
    "sync_publish_failure": {"acks": "sync", "publish_failure_rate": 1.0},
}


def exchanges(transport: str) -> list[Any]:
    chosen = [e for e in EXCHANGES if e["transport"] == transport and e["scenario"].partition(":")[0] in OPTIONS]
    assert chosen
    return [pytest.param(e, id=e["scenario"]) for e in chosen]


@pytest.fixture(scope="module")
def collector_for() -> Iterator[Callable[[str], Collector]]:
    with contextlib.ExitStack() as stack:
        running: dict[str, Collector] = {}

        def get(scenario: str) -> Collector:
            name = scenario.partition(":")[0]
            if name not in running:
                running[name] = stack.enter_context(Collector(**OPTIONS[name]))
            return running[name]

        yield get


def body(encoded: str) -> bytes:
    """The captured bytes, or a request of the captured size."""
    size = re.fullmatch(r"<(\d+) bytes>", encoded)
    if not size:
        return base64.b64decode(encoded)
    wanted = int(size[1])
    request = SendEventRequest(req_guid=GUID, events=[{"type": "page", "event_bytes": b""}])
    for padding in range(wanted - 100, wanted):
        request.events[0].event_bytes = bytes(padding)
        if request.ByteSize() == wanted:
            return bytes(request.SerializeToString())
    raise AssertionError(f"no request has {wanted} bytes")


def without_time(answer: bytes) -> bytes:
    """The same bytes with 0 for sent_time, once it is known to be now or a capture's."""
    if answer.startswith(b"{"):
        return re.sub(rb'"sent_time":\d{10}', b'"sent_time":0', answer)
    message = SendEventResponse.FromString(answer)
    assert message.SerializeToString() == answer
    assert message.sent_time > 1_700_000_000
    message.sent_time = 0
    return bytes(message.SerializeToString())


def answer_of(encoded: str) -> bytes:
    return without_time(base64.b64decode(encoded))


@pytest.mark.parametrize("exchange", exchanges("rest"))
def test_rest_answers_as_the_server_did(exchange: dict[str, Any], collector_for: Callable[[str], Collector]) -> None:
    collector = collector_for(exchange["scenario"])
    request = exchange["request"]
    connection = http.client.HTTPConnection("127.0.0.1", collector.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(request["method"], request["path"], skip_accept_encoding=True)
        data = body(request["body_b64"])
        for name, value in {**request["headers"], "Content-Length": str(len(data))}.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        received = response.read()
    assert response.status == exchange["status"]
    headers = {name.lower(): value for name, value in response.getheaders()}
    assert headers.pop("date")
    for name in ("sec-websocket-version", "x-content-type-options"):  # which the captures do not hold
        headers.pop(name, None)
    assert headers == exchange["response_headers"]
    expected = base64.b64decode(exchange["body_b64"])
    if headers.get("content-type", "").startswith("text/plain") or not expected:
        assert received == expected
    else:
        assert without_time(received) == without_time(expected)


def open_websocket(collector: Collector, headers: dict[str, str]) -> ClientConnection:
    return connect(f"{collector.ws_url}/api/v1/events", additional_headers=headers, proxy=None)


def receive(connection: ClientConnection) -> tuple[str, bytes]:
    frame = connection.recv(timeout=patient(10))
    return ("text", without_time(frame.encode())) if isinstance(frame, str) else ("binary", without_time(frame))


@pytest.mark.parametrize("exchange", exchanges("ws"))
def test_websocket_answers_as_the_server_did(
    exchange: dict[str, Any], collector_for: Callable[[str], Collector]
) -> None:
    scenario = exchange["scenario"]
    collector = collector_for(scenario)
    request = exchange["request"]
    with contextlib.ExitStack() as stack:
        if scenario.endswith((":duplicate_user_id", ":same_id_other_group")):
            first = {name: value for name, value in request["headers"].items() if name == "X-User-ID"}
            stack.enter_context(open_websocket(collector, first))
        connection = stack.enter_context(open_websocket(collector, request["headers"]))
        assert connection.response is not None
        assert connection.response.status_code == exchange["handshake_status"]
        handshake = dict(connection.response.headers.raw_items())
        assert re.fullmatch(r"[\w+/]{27}=", handshake.pop("Sec-WebSocket-Accept"))
        assert handshake == exchange["handshake_headers"]
        for frame in request["frames"]:
            connection.send(base64.b64decode(frame["b64"]), text=frame["type"] == "text")
        received = [receive(connection) for _ in exchange["received"]]
        expected = [(frame["type"], answer_of(frame["b64"])) for frame in exchange["received"]]
        if scenario.startswith("sync:"):
            received, expected = sorted(received), sorted(expected)
        assert received == expected
        if "closed" in exchange:
            assert_closed(connection, exchange["closed"])
        else:
            with pytest.raises(TimeoutError):  # nothing more comes
                connection.recv(timeout=0.01)


def assert_closed(connection: ClientConnection, closed: dict[str, Any]) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(timeout=patient(10))
    assert caught.value.rcvd is not None
    assert {"code": caught.value.rcvd.code, "reason": caught.value.rcvd.reason} == closed


@pytest.mark.parametrize("exchange", exchanges("grpc"))
def test_grpc_answers_as_the_server_did(exchange: dict[str, Any], collector_for: Callable[[str], Collector]) -> None:
    collector = collector_for(exchange["scenario"])
    is_legacy = exchange["scenario"].endswith(":legacy_service_name")
    service = "odpf.raccoon.EventService" if is_legacy else "raystack.raccoon.v1beta1.EventService"
    request = exchange["request"]
    with grpc.insecure_channel(collector.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(f"/{service}/SendEvent")
        metadata = [tuple(pair) for pair in request["metadata"]]
        if exchange["code"] == "OK":
            received = call(body(request["body_b64"]), metadata=metadata, timeout=10)
            assert without_time(received) == answer_of(exchange["body_b64"])
        else:
            with pytest.raises(grpc.RpcError) as caught:
                call(body(request["body_b64"]), metadata=metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode[exchange["code"]]
            assert caught.value.details() == exchange["details"]


def one_exchange(scenario: str) -> dict[str, Any]:
    (exchange,) = [e for e in EXCHANGES if e["scenario"].startswith(scenario)]
    return dict(exchange)


def test_one_connection_too_many_is_refused_as_the_server_did() -> None:
    exchange = one_exchange("max_conn:")
    with (
        Collector(max_connections=1) as collector,
        open_websocket(collector, {"X-User-ID": "a"}),
        # The limit is looked at first: even the same id is refused for it.
        open_websocket(collector, {"X-User-ID": "a"}) as second,
    ):
        assert receive(second) == ("binary", answer_of(exchange["received"][0]["b64"]))
        assert_closed(second, exchange["closed"])
        assert collector.connections == 1


def test_a_client_that_never_pongs_is_cut_off_as_the_server_did() -> None:
    exchange = one_exchange("client_never_pongs")
    with (
        Collector(ping_interval=0.3, pong_wait=1.5) as collector,
        socket.create_connection(("127.0.0.1", collector.port), timeout=patient(10)) as client,
    ):
        client.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        start_s = time.monotonic()
        received = b""
        while chunk := client.recv(4096):
            received += chunk
        seconds = time.monotonic() - start_s
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    # After 1.5 s the fifth ping and the end are due in the same moment; the server happened to ping first.
    expected = base64.b64decode(exchange["bytes_after_handshake_b64"])
    assert frames in (expected, expected.removesuffix(b"\x89\x08--ping--"))
    assert seconds == pytest.approx(exchange["seconds_until_tcp_close"], abs=0.3)


def test_no_exchange_is_left_out() -> None:
    replayed = [e for e in EXCHANGES if e["scenario"].partition(":")[0] in OPTIONS]
    assert len(EXCHANGES) == len(replayed) + 2 == 97
