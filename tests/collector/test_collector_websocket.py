"""WebSocket cases that the captures do not cover."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from patience import patient
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

NewCollector = Callable[..., Collector]

EVENTS = "/api/v1/events"
HANDSHAKE = (
    b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def frames_until_blocked(connection: socket.socket, frame: bytes, limit: int) -> int:
    """How many frames of at most `limit` the other side took before it stopped reading."""
    connection.settimeout(patient(0.5))
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < limit:
            connection.sendall(frame)
            sent += 1
    return sent


def acked_guids(peer: Any, websocket: Any, count: int) -> list[str]:
    return [peer.decode(websocket.recv(timeout=patient(10))).data["req_guid"] for _ in range(count)]


def test_another_path_is_not_found(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.tcp(collector.port)
    connection.sendall(
        b"GET /other HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    received = b""
    while not received.endswith(b"page not found\n"):
        chunk = connection.recv(4096)
        assert chunk, received
        received += chunk
    assert received.startswith(b"HTTP/1.1 404 ")
    assert received.endswith(b"\r\n\r\n404 page not found\n")


def test_compression_is_not_offered(peer: Any, new_collector: NewCollector) -> None:
    assert peer.websocket(new_collector(), compression="deflate").protocol.extensions == []


def test_a_message_in_fragments_with_control_frames_between(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.raw_websocket(collector)
    request = peer.request()
    connection.sendall(
        masked(Opcode.BINARY, request[:5], fin=False)
        + masked(Opcode.PING, b"p")
        + masked(Opcode.CONT, request[5:9], fin=False)
        + masked(Opcode.CONT, request[9:])
    )
    collector.wait_for(1)
    assert connection.recv(4096).startswith(b"\x8a\x01p")


def test_frames_arrive_byte_by_byte(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.raw_websocket(collector)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in masked(Opcode.BINARY, peer.request()):
        connection.sendall(bytes([byte]))
    collector.wait_for(1)


def test_a_message_of_8_mib(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    websocket = peer.websocket(collector)
    message = SendEventRequest(req_guid="big", events=[{"type": "page", "event_bytes": bytes(8 << 20)}])
    websocket.send(message.SerializeToString())
    assert acked_guids(peer, websocket, 1) == ["big"]
    assert len(collector.events[0].data) == 8 << 20


def test_a_frame_that_breaks_the_protocol_ends_the_connection(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.raw_websocket(collector)
    connection.sendall(Frame(Opcode.BINARY, b"not masked").serialize(mask=False))
    assert connection.recv(4096) == b"\x88\x0a" + struct.pack("!H", 1002) + b"bad MASK"
    assert connection.recv(4096) == b""
    collector.wait_until(lambda it: it.connections == 0)


def test_a_clean_close_frees_the_id_at_once(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    for _ in range(20):
        websocket = peer.websocket(collector, "same")
        websocket.send(peer.request())
        assert acked_guids(peer, websocket, 1) == ["g"]
        websocket.close()
        assert websocket.close_code == 1000
        collector.wait_until(lambda it: it.connections == 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_end_of_tcp_that_can_be_seen_frees_the_id(how: str, peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    connection = peer.raw_websocket(collector, "same")
    collector.wait_until(lambda it: it.connections == 1)
    if how == "rst":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    collector.wait_until(lambda it: it.connections == 0)
    websocket = peer.websocket(collector, "same")
    websocket.send(peer.request())
    assert acked_guids(peer, websocket, 1) == ["g"]


def test_a_client_that_vanished_keeps_its_id_until_the_read_deadline(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(pong_wait=0.6)
    peer.raw_websocket(collector, "same")
    start_s = time.monotonic()
    refused = 0
    while True:
        websocket = peer.websocket(collector, "same")
        answer = None
        # Events sent at once are unread when the server closes: a reset follows, and the refusal can be lost to it.
        with contextlib.suppress(ConnectionClosedError):
            websocket.send(peer.request())
            answer = peer.decode(websocket.recv(timeout=patient(10)))
        if answer is not None and answer.status == 1:
            break
        assert answer is None or answer.code == 5
        refused += 1
        assert time.monotonic() - start_s < patient(5)
    assert time.monotonic() - start_s >= 0.55
    assert refused > 1


def test_only_pongs_move_the_read_deadline(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(ping_interval=10, pong_wait=0.5)
    silent, talking, ponging = (peer.raw_websocket(collector, name) for name in ("a", "b", "c"))
    start_s = time.monotonic()
    deadline_s = start_s + 1.2
    ended: dict[str, float] = {}
    connections = {"silent": silent, "talking": talking, "ponging": ponging}
    for connection in connections.values():
        connection.settimeout(0.02)
    while time.monotonic() < deadline_s:
        for name, connection in connections.items():
            if name in ended:
                continue
            try:
                if name == "talking":
                    connection.sendall(masked(Opcode.BINARY, peer.request()) + masked(Opcode.PING, b""))
                elif name == "ponging":
                    connection.sendall(masked(Opcode.PONG, b"--ping--"))
                if not connection.recv(65536):
                    ended[name] = time.monotonic() - start_s
            except TimeoutError:
                pass
            except ConnectionError:
                ended[name] = time.monotonic() - start_s
    assert ended == {"silent": pytest.approx(0.5, abs=0.2), "talking": pytest.approx(0.5, abs=0.2)}
    assert collector.connections == 1


def test_the_client_s_pings_are_answered(peer: Any, new_collector: NewCollector) -> None:
    assert peer.websocket(new_collector()).ping().wait(patient(10))


def test_a_client_that_pongs_lives_on(peer: Any, new_collector: NewCollector) -> None:
    pong_wait_s = patient(0.5)
    collector = new_collector(ping_interval=0.1, pong_wait=pong_wait_s)
    websocket = peer.websocket(collector)  # pongs by itself
    with pytest.raises(TimeoutError):
        websocket.recv(timeout=2 * pong_wait_s)
    assert collector.connections == 1


def test_sync_answers_all_come_in_any_order(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync")
    websocket = peer.websocket(collector)
    guids = [str(i) for i in range(200)]
    for guid in guids:
        websocket.send(peer.request(guid))
    received = acked_guids(peer, websocket, len(guids))
    assert sorted(received) == sorted(guids)
    assert received != guids


def test_async_answers_come_in_order(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(publish_delay=0.001)
    websocket = peer.websocket(collector)
    guids = [str(i) for i in range(200)]
    for guid in guids:
        websocket.send(peer.request(guid))
    assert acked_guids(peer, websocket, len(guids)) == guids
    collector.wait_for(200)


def test_dedup_answers_a_pending_guid_success_though_it_fails_later(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", dedup=True, publish_delay=0.2, publish_failure_rate=1.0)
    websocket = peer.websocket(collector)
    websocket.send(peer.request("g"))
    websocket.send(peer.request("g"))
    first, second = (peer.decode(websocket.recv(timeout=patient(10))) for _ in range(2))
    assert (first.status, second.status) == (1, 2)
    assert second.reason == "cannot publish events: injected publish failure"
    assert collector.event_count == 0
    # What failed is forgotten: the resend is published, or fails, by itself.
    websocket.send(peer.request("g"))
    assert peer.decode(websocket.recv(timeout=patient(10))).status == 2


def test_dedup_is_per_connection_and_off_by_default(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(dedup=True)
    for name in ("a", "b"):
        websocket = peer.websocket(collector, name)
        for _ in range(3):
            websocket.send(peer.request("g"))
        acked_guids(peer, websocket, 3)
    assert collector.event_count == 2
    plain = new_collector()
    websocket = peer.websocket(plain)
    for _ in range(3):
        websocket.send(peer.request("g"))
    acked_guids(peer, websocket, 3)
    assert plain.event_count == 3


def test_with_a_full_queue_the_connection_is_not_read(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(publish_delay=30, sink="null")
    connection = peer.raw_websocket(collector)
    frame = masked(Opcode.BINARY, bytes(peer.request()) + b"\x3a\x80\x80\x40" + bytes(1 << 20))
    sent = frames_until_blocked(connection, frame, 300)
    # Five are being published, a hundred wait, and what the socket buffers hold was sent on top.
    collector.wait_until(lambda it: it.request_count == 105)
    assert 105 <= sent < 150


def test_after_a_full_queue_the_connection_is_read_on(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", publish_delay=0.01)
    websocket = peer.websocket(collector)
    for i in range(400):
        websocket.send(peer.request(str(i)))
    assert sorted(acked_guids(peer, websocket, 400), key=int) == [str(i) for i in range(400)]
    assert collector.event_count == 400


def test_a_deadline_that_passes_while_reading_is_stopped_ends_the_connection(
    peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(acks="sync", publish_delay=0.1, pong_wait=0.3)
    connection = peer.raw_websocket(collector)
    connection.sendall(masked(Opcode.BINARY, peer.request()) * 130)
    start_s = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    # 25 of the 130 have to be published before it reads again: half a second, where the deadline was 0.3 s.
    assert 0.45 < time.monotonic() - start_s < patient(3)


def test_memory_is_bounded_when_a_client_does_not_read_its_answers(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(sink="null")
    connection = peer.raw_websocket(collector)
    frame = masked(Opcode.BINARY, peer.request("g" * 1000))
    sent = frames_until_blocked(connection, frame, 100_000)
    # What was taken is answered, in more than a kilobyte each: into the sockets' buffers and the collector's memory.
    assert sent < 100_000
    assert collector.request_count < 20_000
    # It was not given up: once the answers are read, everything goes on.
    connection.settimeout(10)
    taken = collector.request_count
    while collector.request_count == taken:
        connection.recv(1 << 20)


def test_a_refused_handshake_of_a_status_fault(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    collector.faults.status(503, retry_after=7, times=1)
    with pytest.raises(InvalidStatus) as caught:
        peer.websocket(collector)
    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["Retry-After"] == "7"
    peer.websocket(collector)


def test_without_a_group_header_an_id_is_refused_whatever_its_group(new_collector: NewCollector) -> None:
    for options, refused in (({}, True), ({"group_header": "X-User-Group"}, False)):
        collector = new_collector(**options)
        with contextlib.ExitStack() as stack:
            for group in ("a", "b"):
                headers = {"X-User-ID": "u", "X-User-Group": group}
                websocket = stack.enter_context(
                    connect(collector.ws_url + EVENTS, additional_headers=headers, proxy=None)
                )
            if not refused:
                websocket.send(SendEventRequest(req_guid="g").SerializeToString())
            answer = SendEventResponse.FromString(websocket.recv(timeout=patient(10)))
            assert (answer.code == 5) is refused


def test_a_frame_that_comes_with_the_handshake_ends_the_connection(peer: Any, new_collector: NewCollector) -> None:
    connection = peer.tcp(new_collector().port)
    connection.sendall(HANDSHAKE + Frame(Opcode.BINARY, peer.request()).serialize(mask=True))
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(4096) == b""


def test_a_foreign_origin_is_refused(peer: Any, new_collector: NewCollector) -> None:
    for origin, status in ((b"http://localhost", b"101"), (b"https://evil.example", b"403")):
        connection = peer.tcp(new_collector().port)
        connection.sendall(HANDSHAKE[:-2] + b"Origin: %s\r\n\r\n" % origin)
        assert connection.recv(4096).startswith(b"HTTP/1.1 " + status)


def test_a_request_that_makes_the_handler_panic_ends_the_connection_and_is_logged(
    peer: Any, new_collector: NewCollector, caplog: pytest.LogCaptureFixture
) -> None:
    collector = new_collector(inspect=True)
    websocket = peer.websocket(collector)
    websocket.send('{"req_guid": "g", "events": [null]}')
    with pytest.raises(ConnectionClosed):
        websocket.recv(timeout=patient(10))
    assert [record.levelname for record in caplog.records if "panic" in record.getMessage()] == ["ERROR"]
    (bad,) = httpx.get(f"{collector.url}/inspect/bad").json()["bad"]
    assert "panic" in bad["reason"]
    assert collector.request_count == 0


def test_a_message_without_an_end_is_bounded_in_size(peer: Any, new_collector: NewCollector) -> None:
    connection = peer.raw_websocket(new_collector())
    connection.sendall(b"\x82\xff" + struct.pack("!Q", 1 << 40) + bytes(4))
    chunk = bytes(1 << 20)
    with contextlib.suppress(ConnectionError):
        for _ in range(80):
            connection.sendall(chunk)
    with contextlib.suppress(ConnectionError):
        received = connection.recv(4096)
        assert received == b"" or received[2:4] == struct.pack("!H", 1009)
