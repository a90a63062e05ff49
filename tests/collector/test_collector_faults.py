"""Each fault happens as documented, as often as requested, and only to the chosen requests."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from patience import patient
from websockets.exceptions import ConnectionClosedError

from raccoon_fast.collector import Collector

NewCollector = Callable[..., Collector]


@pytest.fixture
def collector(new_collector: NewCollector) -> Collector:
    return new_collector(acks="sync")


def guid(answer: Any) -> str:
    return str(answer.data["req_guid"])


def post_guid(peer: Any, collector: Collector) -> str:
    return guid(peer.decode(peer.post(collector).content))


def receive(peer: Any, websocket: Any, count: int = 1) -> list[str]:
    return [guid(peer.decode(websocket.recv(timeout=patient(10)))) for _ in range(count)]


def failure(peer: Any, collector: Collector, timeout: float = 10.0) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        peer.call(collector, timeout=timeout)
    return caught.value


def assert_works(peer: Any, collector: Collector, user_id: str = "after") -> None:
    assert post_guid(peer, collector) == "g"
    websocket = peer.websocket(collector, user_id)
    websocket.send(peer.request())
    assert receive(peer, websocket) == ["g"]
    assert guid(peer.call(collector)) == "g"


def test_drop_acks(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.drop_acks(times=1)
    for name in ("a", "b"):
        websocket.send(peer.request(name))
        collector.wait_until(lambda it: it.faults.fired == {"drop_acks": 1})
    assert receive(peer, websocket) == ["b"]
    collector.faults.drop_acks(times=2)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.2) as client:
        client.post(f"{collector.url}/api/v1/events", content=b"", headers={"content-type": "application/proto"})
    assert failure(peer, collector, timeout=1.5).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert collector.faults.fired == {"drop_acks": 3}
    assert_works(peer, collector)
    # A dropped answer is all that is lost.
    assert [event.req_guid for event in collector.events[:2]] == ["a", "b"]


def test_hang_up(peer: Any, collector: Collector) -> None:
    collector.faults.hang_up(times=3)
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    with pytest.raises(ConnectionClosedError, match="no close frame") as caught:
        websocket.recv(timeout=patient(10))
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(httpx.ReadError):
        peer.post(collector)
    assert failure(peer, collector).code() is grpc.StatusCode.UNAVAILABLE
    assert collector.event_count == 3
    assert_works(peer, collector)


def test_duplicate_acks(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.duplicate_acks(times=1)
    for name in ("a", "b"):
        websocket.send(peer.request(name))
        collector.wait_until(lambda it: it.faults.fired == {"duplicate_acks": 1})
    assert sorted(receive(peer, websocket, 3)) == ["a", "a", "b"]
    collector.faults.duplicate_acks(times=1)
    connection = peer.tcp(collector.port)
    body = peer.request()
    connection.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/proto\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert collector.event_count == 3


def test_reorder_acks(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    websocket = peer.websocket(collector)
    collector.faults.reorder_acks(times=3)
    for name in ("a", "b", "c", "d"):
        websocket.send(peer.request(name))
    assert receive(peer, websocket, 4) == ["d", "c", "b", "a"]


def test_unknown_acks(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.unknown_acks(times=1)
    websocket.send(peer.request("a"))
    unknown, known = receive(peer, websocket, 2)
    assert (uuid.UUID(unknown).version, known) == (4, "a")
    assert_works(peer, collector)


def test_wrong_guid(peer: Any, collector: Collector) -> None:
    collector.faults.wrong_guid(times=3)
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    guids = {*receive(peer, websocket), post_guid(peer, collector), guid(peer.call(collector))}
    assert len(guids) == 3
    assert "g" not in guids
    assert_works(peer, collector)


def test_bad_answer(peer: Any, collector: Collector) -> None:
    collector.faults.bad_answer(b"\xffnot an answer", times=3)
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    assert websocket.recv(timeout=patient(10)) == b"\xffnot an answer"
    response = peer.post(collector)
    assert (response.status_code, response.content) == (200, b"\xffnot an answer")
    with pytest.raises(Exception, match="Error parsing message"):
        peer.call(collector)
    assert_works(peer, collector)


def test_an_empty_bad_answer(peer: Any, collector: Collector) -> None:
    collector.faults.bad_answer(b"", times=1)
    assert peer.post(collector).content == b""


def test_cut_answers(peer: Any, collector: Collector) -> None:
    collector.faults.cut_answers(20, times=1)
    connection = peer.tcp(collector.port)
    connection.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n"
    )
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
    assert received == b"HTTP/1.1 200 OK\r\ncon"
    collector.faults.cut_answers(5, times=1)
    raw = peer.raw_websocket(collector)
    raw.sendall(b"\x82\x80\x00\x00\x00\x00")
    received = b""
    while chunk := raw.recv(4096):
        received += chunk
    assert len(received) == 5
    assert received[0] == 0x82
    assert_works(peer, collector)


def test_delay(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.delay(0.2, times=3)

    def seconds(action: Callable[[], object]) -> float:
        start_s = time.monotonic()
        action()
        return time.monotonic() - start_s

    websocket.send(peer.request())
    assert seconds(lambda: receive(peer, websocket)) >= 0.19
    assert seconds(lambda: peer.post(collector)) >= 0.19
    assert seconds(lambda: peer.call(collector)) >= 0.19
    assert seconds(lambda: peer.post(collector)) < 0.19
    assert collector.event_count == 4


def test_fail_publish(peer: Any, collector: Collector) -> None:
    collector.faults.fail_publish(times=3)
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    answer = peer.decode(websocket.recv(timeout=patient(10)))
    assert (answer.status, answer.code, guid(answer)) == (2, 3, "g")
    assert peer.post(collector).status_code == 500
    assert peer.call(collector).code == 3
    assert collector.event_count == 0
    assert_works(peer, collector)
    assert collector.faults.fired == {"fail_publish": 3}


def test_fail_publish_at_a_rate(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync")
    collector.faults.fail_publish(0.5)
    websocket = peer.websocket(collector)
    for _ in range(400):
        websocket.send(peer.request())
    failed = sum(peer.decode(websocket.recv(timeout=patient(10))).status == 2 for _ in range(400))
    assert 120 < failed < 280  # eight standard deviations
    assert collector.event_count == 400 - failed


def test_status(peer: Any, collector: Collector) -> None:
    collector.faults.status(503, retry_after=1.5, body=b"later", headers={"X-Why": "busy"}, times=2)
    response = peer.post(collector)
    assert (response.status_code, response.content) == (503, b"later")
    assert (response.headers["retry-after"], response.headers["x-why"]) == ("1.5", "busy")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert failure(peer, collector).code() is grpc.StatusCode.UNAVAILABLE
    assert collector.request_count == 0
    assert_works(peer, collector)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "INTERNAL"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "UNIMPLEMENTED"), (500, "UNKNOWN")],
)
def test_a_status_maps_to_its_grpc_code(status: int, code: str, peer: Any, collector: Collector) -> None:
    collector.faults.status(status, times=1)
    assert failure(peer, collector).code() is grpc.StatusCode[code]
    collector.faults.status(status, grpc_code="RESOURCE_EXHAUSTED", times=1)
    assert failure(peer, collector).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_status_until_cleared(peer: Any, collector: Collector) -> None:
    collector.faults.status(429)
    assert [peer.post(collector).status_code for _ in range(3)] == [429] * 3
    collector.faults.clear()
    assert peer.post(collector).status_code == 200


def test_html_502(peer: Any, collector: Collector) -> None:
    collector.faults.html_502(times=1)
    response = peer.post(collector)
    assert (response.status_code, response.headers["content-type"]) == (502, "text/html")
    assert response.text.startswith("<html>")
    assert peer.post(collector).status_code == 200


def test_early_error(peer: Any, collector: Collector) -> None:
    collector.faults.early_error(503, times=1)
    connection = peer.tcp(collector.port)
    connection.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 9999999\r\n\r\n"
    )
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nconnection: close\r\n" in received
    assert_works(peer, collector)


def test_stop_ponging(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.stop_ponging(times=1)
    assert not websocket.ping(b"a").wait(0.2)
    assert websocket.ping(b"b").wait(patient(10))
    websocket.send(peer.request())
    assert receive(peer, websocket) == ["g"]


def test_close_connections(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    peer.post(collector)  # leaves an idle connection behind
    idle = peer.tcp(collector.port)
    peer.ping(idle)
    with grpc.insecure_channel(collector.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        collector.faults.drop_acks(times=1)
        call = channel.unary_unary("/raystack.raccoon.v1beta1.EventService/SendEvent").future(
            b"", metadata=[("x-user-id", "u")]
        )
        collector.wait_until(lambda it: it.faults.fired == {"drop_acks": 1})
        collector.faults.close_connections()
        assert call.exception(timeout=patient(10)).code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(ConnectionClosedError, match="no close frame"):
        websocket.recv(timeout=patient(10))
    with pytest.raises(ConnectionResetError):
        idle.recv(4096)
    collector.wait_until(lambda it: it.connections == 0)
    with contextlib.suppress(httpx.TransportError):
        peer.post(collector)  # on the connection that was closed
    assert_works(peer, collector)


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=patient(5)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_refuse_and_accept(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    for _ in range(3):
        collector.faults.refuse()
        collector.faults.refuse()  # already
        assert is_refused(collector.port)
        assert is_refused(collector.grpc_port)
        websocket.send(peer.request())  # what is connected goes on
        assert receive(peer, websocket) == ["g"]
        collector.faults.accept()
        collector.faults.accept()
        assert not is_refused(collector.port)
        assert_works(peer, collector, str(uuid.uuid4()))


def test_connections_can_be_closed_while_refusing(peer: Any, collector: Collector) -> None:
    websocket = peer.websocket(collector)
    collector.faults.refuse()
    collector.faults.close_connections()
    with pytest.raises(ConnectionClosedError):
        websocket.recv(timeout=patient(10))
    assert is_refused(collector.port)
    assert is_refused(collector.grpc_port)
    collector.faults.clear()
    assert_works(peer, collector)


def test_the_ports_are_nobody_else_s_while_refusing(collector: Collector) -> None:
    collector.faults.refuse()
    for port in (collector.port, collector.grpc_port):
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", port))


def test_a_collector_can_be_closed_while_refusing(peer: Any) -> None:
    with Collector() as collector:
        collector.faults.refuse()
    for port in (collector.port, collector.grpc_port):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))


def test_faults_of_the_network_need_a_running_collector() -> None:
    collector = Collector()
    for fault in (collector.faults.close_connections, collector.faults.refuse, collector.faults.accept):
        with pytest.raises(RuntimeError, match="not started"):
            fault()
    collector.faults.clear()
    with collector:
        pass
    for fault in (collector.faults.close_connections, collector.faults.refuse, collector.faults.accept):
        with pytest.raises(RuntimeError, match="closed"):
            fault()
    collector.faults.clear()


def test_faults_can_be_set_before_the_start(peer: Any) -> None:
    collector = Collector()
    collector.faults.status(503, times=1)
    with collector:
        assert [peer.post(collector).status_code for _ in range(2)] == [503, 200]


def test_faults_combine(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    websocket = peer.websocket(collector)
    collector.faults.duplicate_acks()
    collector.faults.wrong_guid()
    collector.faults.unknown_acks()
    collector.faults.delay(0.1)
    start_s = time.monotonic()
    websocket.send(peer.request())
    unknown, wrong, same = receive(peer, websocket, 3)
    assert time.monotonic() - start_s >= 0.09
    assert wrong == same
    assert len({unknown, wrong, "g"}) == 3


def test_a_fault_set_again_replaces_the_first(peer: Any, collector: Collector) -> None:
    collector.faults.status(503)
    collector.faults.status(504, times=1)
    assert [peer.post(collector).status_code for _ in range(2)] == [504, 200]


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("drop_acks", {"times": 0}, ValueError, "times must be at least 1"),
        ("hang_up", {"times": 1.0}, TypeError, "times must be an integer"),
        ("wrong_guid", {"times": True}, TypeError, "times must be an integer"),
        ("delay", {"seconds": -1}, ValueError, "seconds must be at least 0"),
        ("delay", {"seconds": "1"}, TypeError, "seconds must be a number"),
        ("fail_publish", {"rate": 2}, ValueError, "rate must be at least 0 and at most 1"),
        ("status", {"status": 99}, ValueError, "status must be from 200 to 599"),
        ("status", {"status": "503"}, TypeError, "status must be an integer"),
        ("status", {"status": 503, "body": "text"}, TypeError, "body must be bytes"),
        ("status", {"status": 503, "grpc_code": "NOPE"}, ValueError, "grpc_code must be the name of a gRPC status"),
        ("early_error", {"status": 100}, ValueError, "status must be from 200 to 599"),
        ("bad_answer", {"body": "text"}, TypeError, "body must be bytes"),
        ("cut_answers", {"after_bytes": -1}, ValueError, "after_bytes must be at least 0"),
    ],
)
def test_arguments_are_checked(name: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    collector = Collector()
    with pytest.raises(error, match=words):
        getattr(collector.faults, name)(**arguments)
    assert collector.faults.fired == {}


def test_reject_events(peer: Any, collector: Collector) -> None:
    collector.faults.reject_events("page", times=3)
    answer = peer.post(collector)
    assert (answer.status_code, peer.decode(answer.content).code) == (400, 2)
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    refused = peer.decode(websocket.recv(timeout=patient(10)))
    assert (refused.status, refused.code, refused.data["req_guid"]) == (2, 2, "")
    assert failure(peer, collector).code() is grpc.StatusCode.INTERNAL
    assert (collector.event_count, collector.faults.fired) == (0, {"reject_events": 3})
    collector.faults.reject_events("click")
    assert_works(peer, collector)


def test_too_large(peer: Any, collector: Collector) -> None:
    small, large = peer.request(events=1), peer.request(events=2)
    collector.faults.too_large(len(small), times=3)
    assert peer.post(collector, large).status_code == 413
    websocket = peer.websocket(collector)
    websocket.send(large)
    with pytest.raises(ConnectionClosedError, match="1009"):
        websocket.recv(timeout=patient(10))
    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        peer.call(collector, large)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (collector.event_count, collector.faults.fired) == (0, {"too_large": 3})
    collector.faults.too_large(len(small))
    assert_works(peer, collector)
