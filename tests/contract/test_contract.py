"""The behaviour that the clients require of a server, judged only by its answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from any_client import PROTOCOLS, new_client
from patience import patient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from raccoon_fast import RAW, Code, Producer, ServerError, Status
from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer

EVENTS = [("contract-test", b'{"n":1}'), ("contract-test", b""), ("contract-test", bytes(range(256)))]
SEND_EVENT = "/raystack.raccoon.v1beta1.EventService/SendEvent"
# The way to a protocol's server, with each encoding it takes.
WAYS = [("rest", "proto"), ("rest", "json"), ("websocket", "proto"), ("websocket", "json"), ("grpc", "proto")]


def address(server: Any, protocol: str) -> str:
    return {"rest": server.url, "websocket": server.ws_url, "grpc": server.grpc_target}[protocol]  # type: ignore[no-any-return]


def post(server: Any, body: bytes, content_type: str | None, path: str = "/api/v1/events") -> httpx.Response:
    headers = {} if content_type is None else {"content-type": content_type}
    return httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=30, trust_env=False)


def websocket(server: Any, user_id: str) -> Any:
    return connect(f"{server.ws_url}/api/v1/events", additional_headers={"X-User-ID": user_id}, proxy=None)


@pytest.mark.parametrize(("protocol", "wire"), WAYS)
def test_a_request_is_acknowledged_under_its_guid(server: Any, protocol: str, wire: str) -> None:
    options = {} if protocol == "grpc" else {"wire": wire}
    with new_client(protocol, address(server, protocol), timeout=30.0, **options) as client:
        for req_guid in (str(uuid.uuid4()), "not a uuid: \u00e4\u4e16"):
            sent, response = client.send(EVENTS, req_guid=req_guid)
            assert sent == response.req_guid == req_guid
            assert (response.status, response.code) == (Status.SUCCESS, Code.OK)
            assert response.sent_time > 1_600_000_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_requests_in_flight_are_each_acknowledged(server: Any, protocol: str) -> None:
    with new_client(protocol, address(server, protocol), timeout=30.0) as client:
        receipts = [client.submit(EVENTS) for _ in range(50)]
        assert [receipt.result(patient(60)).req_guid for receipt in receipts] == [
            receipt.req_guid for receipt in receipts
        ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_producer_s_events_are_all_acknowledged(server: Any, protocol: str) -> None:
    url = address(server, protocol)
    url = f"grpc://{url}" if protocol == "grpc" else url
    with Producer(url, serializer=RAW, logger=None, batch_events=100) as producer:
        producer.emit_many(("contract-test", b"%d" % number) for number in range(1000))
        assert producer.flush(patient(60)) == 0
    assert producer.report.total.acked == 1000


def test_ping(server: Any) -> None:
    answer = httpx.get(f"{server.url}/ping", timeout=patient(30), trust_env=False)
    assert (answer.status_code, answer.text) == (200, "pong")


@pytest.mark.parametrize("content_type", [None, "application/x-protobuf", "application/json; charset=utf-8"])
def test_another_content_type_is_refused(server: Any, content_type: str | None) -> None:
    answer = post(server, b"", content_type)
    response = decode_json_answer(answer.content)
    assert (answer.status_code, response.code, response.reason) == (400, Code.BAD_REQUEST, "invalid content type")


@pytest.mark.parametrize(
    ("body", "content_type", "decode"),
    [(b"\xff\xff", "application/proto", decode_proto_answer), (b"{", "application/json", decode_json_answer)],
)
def test_unreadable_rest_requests(server: Any, body: bytes, content_type: str, decode: Callable[..., Any]) -> None:
    answer = post(server, body, content_type)
    response = decode(answer.content)
    assert (answer.status_code, response.status, response.code) == (400, Status.ERROR, Code.BAD_REQUEST)
    assert response.req_guid == ""


def test_an_empty_request_is_acknowledged(server: Any) -> None:
    answer = post(server, b"", "application/proto")
    assert (answer.status_code, decode_proto_answer(answer.content).status) == (200, Status.SUCCESS)


def test_another_path_is_not_found(server: Any) -> None:
    assert post(server, b"", "application/proto", "/api/v1/other").status_code == 404


def test_an_unreadable_websocket_message_is_answered_without_a_guid_and_the_connection_stays(server: Any) -> None:
    with websocket(server, str(uuid.uuid4())) as connection:
        for frame, decode in (
            (b"\xff\xff", decode_proto_answer),
            ("{", lambda text: decode_json_answer(text.encode())),
        ):
            connection.send(frame)
            response = decode(connection.recv(timeout=patient(30)))
            assert (response.code, response.req_guid) == (Code.BAD_REQUEST, "")


def test_a_second_connection_of_one_identity_is_refused(server: Any) -> None:
    user_id = str(uuid.uuid4())
    with websocket(server, user_id), websocket(server, user_id) as second:
        response = decode_proto_answer(second.recv(timeout=patient(30)))
        assert (response.status, response.code) == (Status.ERROR, Code.MAX_USER_LIMIT_REACHED)
        with pytest.raises(ConnectionClosed) as caught:
            second.recv(timeout=patient(30))
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


def test_an_identity_is_free_again_after_a_clean_close(server: Any) -> None:
    with new_client("websocket", server.ws_url, user_id=(user_id := str(uuid.uuid4()))) as client:
        client.send(EVENTS)
    with new_client("websocket", server.ws_url, user_id=user_id) as client:
        assert client.send(EVENTS).response.status is Status.SUCCESS


def call(server: Any, body: bytes, metadata: list[tuple[str, str]], method: str = SEND_EVENT) -> Any:
    with grpc.insecure_channel(server.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return channel.unary_unary(method)(body, metadata=metadata, timeout=30)


@pytest.mark.parametrize(
    ("body", "metadata", "code"),
    [
        (b"", [], "UNKNOWN"),
        (b"\xff\xff", [("x-user-id", "u")], "INTERNAL"),
        (bytes(6 << 20), [("x-user-id", "u")], "RESOURCE_EXHAUSTED"),
    ],
    ids=["no identity", "unreadable", "over 4 MiB"],
)
def test_grpc_refuses(server: Any, body: bytes, metadata: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, body, metadata)
    assert caught.value.code().name == code


def test_grpc_has_no_other_service(server: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, b"", [("x-user-id", "u")], "/odpf.raccoon.EventService/SendEvent")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_client_names_what_a_wrong_path_answers(server: Any) -> None:
    with new_client("rest", f"{server.url}/somewhere/else") as client, pytest.raises(ServerError) as caught:
        client.send(EVENTS)
    assert (caught.value.status, caught.value.retryable) == (404, False)
