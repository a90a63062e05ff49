"""WebSocket: sent and received frames, and what happens when the connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
import time

import pytest
from any_client import ASYNC, SYNC, OnLoop, new_client
from filter_proxy import EVIL, SWALLOW, FilterProxy
from patience import patient, wait_until
from scripted import Connection, SendEventRequest, answer, ended, guid_of, speak_websocket, tcp_server, websocket_server
from trial import Lines, port_of
from websockets.frames import Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from raccoon_fast import (
    RAW,
    AckTimeoutError,
    AsyncWebSocketClient,
    ClientClosedError,
    Code,
    ConnectError,
    ConnectionLostError,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
    RaccoonError,
    RetryPolicy,
    ServerError,
    Status,
    WebSocketClient,
)
from raccoon_fast.clients import sync_client
from raccoon_fast.clients.sync_client import _deliver
from raccoon_fast.collector import Collector
from raccoon_fast.transports.websocket.connection import WebSocketConnection

ONCE = RetryPolicy(max_attempts=1)
SOON = RetryPolicy(max_attempts=5, initial=0.01)
EVENTS = [("page", b"{}")]


def client(url: str, **options) -> WebSocketClient:
    options = {"serializer": RAW, "logger": None, "retry": SOON, "timeout": 10.0, **options}
    return WebSocketClient(url, **options)


def obliging(websocket, number) -> None:
    for frame in websocket:
        websocket.send(answer(guid_of(frame)))


def test_sends_one_binary_frame_and_its_identity():
    seen = []

    def script(websocket, number):
        seen.append((websocket.request.path, websocket.request.headers, websocket.recv()))
        websocket.send(answer("g"))
        websocket.recv()

    options = {"user_id": "u1", "group": "g1", "headers": {"X-Trace": "t"}, "auth": ("me", "secret")}
    with websocket_server(script) as url, client(url, **options) as ws:
        assert ws.send([("page", b"one"), ("click", b"two")], req_guid="g").response.req_guid == "g"
    path, headers, frame = seen[0]
    assert path == "/api/v1/events"
    assert (headers["X-User-ID"], headers["X-User-Group"], headers["X-Trace"]) == ("u1", "g1", "t")
    assert headers["Authorization"] == "Basic bWU6c2VjcmV0"
    assert headers["User-Agent"].startswith("raccoon_fast/")
    assert "Sec-WebSocket-Extensions" not in headers
    assert [(event.type, event.event_bytes) for event in SendEventRequest.FromString(frame).events] == [
        ("page", b"one"),
        ("click", b"two"),
    ]


class Figures:
    """Stats that keep the connection errors."""

    def __init__(self) -> None:
        self.errors = 0

    def timing(self, name, ms):
        pass

    def count(self, name, n):
        if name == "total_conn_err":
            self.errors += n


def test_our_own_goodbye_is_no_connection_error():
    stats = Figures()
    with websocket_server(obliging) as url:
        for _ in range(3):
            with client(url, stats=stats) as ws:
                ws.send(EVENTS)
    assert stats.errors == 0


def test_the_server_s_goodbye_is_a_connection_error():
    stats = Figures()

    def script(websocket, number):
        websocket.send(answer(guid_of(websocket.recv())))
        websocket.close()

    with websocket_server(script) as url, client(url, stats=stats) as ws:
        ws.send(EVENTS)
        wait_until(lambda: stats.errors == 1)
        ws.send(EVENTS)
        wait_until(lambda: stats.errors == 2)


def test_json_goes_out_as_text():
    seen = []

    def script(websocket, number):
        seen.append(websocket.recv())
        websocket.send('{"status":1,"code":1,"data":{"req_guid":"g"}}')
        websocket.recv()

    with websocket_server(script) as url, client(url, wire="json") as ws:
        ws.send(EVENTS, req_guid="g")
    assert isinstance(seen[0], str)
    assert '"event_bytes":"e30="' in seen[0]


@pytest.mark.parametrize("size", [0, 100, 125, 126, 127, 65_000, 65_535, 65_536, 3_000_000])
def test_frames_of_every_length(size):
    received = []

    def script(websocket, number):
        for frame in websocket:
            received.append(SendEventRequest.FromString(frame).events[0].event_bytes)
            websocket.send(answer(guid_of(frame)))

    data = bytes(i * 7 % 256 for i in range(min(size, 1000))) * (size // 1000 + 1)
    with websocket_server(script, max_size=None) as url, client(url) as ws:
        ws.send([("a", data[:size])])
        ws.send([("a", data[:size])])
    assert received == [data[:size]] * 2


def test_many_in_flight_and_answered_in_any_order():
    most = []

    def script(websocket, number):
        held = []
        for frame in websocket:
            held.append(guid_of(frame))
            most.append(len(held))
            if len(held) == 8:
                for guid in reversed(held):
                    websocket.send(answer(guid))
                held.clear()

    with websocket_server(script) as url, client(url, max_in_flight=8) as ws:
        receipts = [ws.submit(EVENTS) for _ in range(64)]
        for receipt in receipts:
            assert receipt.result(patient(10)).req_guid == receipt.req_guid
    assert max(most) == 8


def test_never_more_in_flight_than_allowed():
    held: list[str] = []
    arrived = threading.Event()

    def script(websocket, number):
        for frame in websocket:
            held.append(guid_of(frame))
            arrived.set()
            if frame and len(held) > 2:
                return

    with websocket_server(script) as url, client(url, max_in_flight=2) as ws:
        for _ in range(10):
            ws.submit(EVENTS)
        assert arrived.wait(patient(10))
        ws.set_app(None)  # a round trip through the loop
        time.sleep(0.05)  # time for a third, which must not come
        assert len(held) <= 2
        ws.close(0)


class TestResend:
    """A guid goes onto one connection once, unless it was answered with an error there."""

    def test_an_overdue_ack_closes_the_connection_and_the_resend_takes_a_new_one(self):
        arrived: list[tuple[int, str]] = []
        closed = threading.Event()

        def script(websocket, number):
            try:
                for frame in websocket:
                    arrived.append((number, guid_of(frame)))
                    if number:
                        websocket.send(answer(guid_of(frame)))
            finally:
                closed.set()

        with websocket_server(script) as url, client(url, timeout=0.3) as ws:
            ws.send(EVENTS, req_guid="g")
            assert closed.wait(patient(10))
        assert arrived == [(0, "g"), (1, "g")]

    def test_all_that_was_unacknowledged_is_sent_again_with_the_same_bytes(self):
        arrived: dict[int, list[SendEventRequest]] = {0: [], 1: []}

        def script(websocket, number):
            for frame in websocket:
                arrived[number].append(SendEventRequest.FromString(frame))
                if number:
                    websocket.send(answer(guid_of(frame)))
                elif len(arrived[0]) == 5:
                    websocket.send(answer(arrived[0][1].req_guid))
                    websocket.socket.shutdown(socket.SHUT_RDWR)
                    return

        with websocket_server(script) as url, client(url) as ws:
            receipts = [ws.submit([("page", b"%d" % i)], req_guid=f"g{i}") for i in range(5)]
            for receipt in receipts:
                receipt.result(patient(10))
        again = {message.req_guid: message for message in arrived[1]}
        assert sorted(again) == ["g0", "g2", "g3", "g4"]
        for message in arrived[0]:
            if message.req_guid in again:
                resent = again[message.req_guid]
                assert resent.events == message.events
                assert resent.sent_time.ToNanoseconds() > message.sent_time.ToNanoseconds()

    def test_an_error_may_be_followed_by_the_same_guid_on_the_same_connection(self):
        arrived = []

        def script(websocket, number):
            for frame in websocket:
                arrived.append((number, guid_of(frame)))
                failed = len(arrived) == 1
                websocket.send(answer(guid_of(frame), status=2 if failed else 1, code=3 if failed else 1))

        with websocket_server(script) as url, client(url) as ws:
            ws.send(EVENTS, req_guid="g")
        assert arrived == [(0, "g"), (0, "g")]

    def test_a_guid_the_caller_sends_twice_takes_a_new_connection(self):
        arrived = []

        def script(websocket, number):
            for frame in websocket:
                arrived.append((number, guid_of(frame)))
                websocket.send(answer(guid_of(frame)))

        with websocket_server(script) as url, client(url) as ws:
            ws.send(EVENTS, req_guid="g")
            ws.send(EVENTS, req_guid="other")
            ws.send(EVENTS, req_guid="g")
        assert arrived == [(0, "g"), (0, "other"), (1, "g")]

    def test_a_guid_in_flight_is_refused_to_a_second_caller(self):
        release = threading.Event()

        def script(websocket, number):
            frame = websocket.recv()
            release.wait(patient(10))
            websocket.send(answer(guid_of(frame)))
            websocket.recv()

        with websocket_server(script) as url, client(url) as ws:
            first = ws.submit(EVENTS, req_guid="g")
            with pytest.raises(ValueError, match="in flight already"):
                ws.send(EVENTS, req_guid="g")
            release.set()
            first.result(patient(10))


def test_after_an_internal_error_one_at_a_time():
    """Several failing at once on one connection can crash a server that dedups by connection."""
    in_flight = []
    most_after = []

    def script(websocket, number):
        failed = False
        held = []

        def reader():
            held.extend(guid_of(frame) for frame in websocket)

        threading.Thread(target=reader, daemon=True).start()
        wait_until(lambda: len(held) == 4)
        for _ in range(30):
            wait_until(lambda: held)
            time.sleep(0.003)  # whatever else would come has come
            if failed:
                most_after.append(len(held))
            else:
                in_flight.append(len(held))
            guid = held.pop(0)
            websocket.send(answer(guid, status=1 if failed else 2, code=1 if failed else 3))
            failed = True

    with websocket_server(script) as url, client(url, max_in_flight=4) as ws:
        receipts = [ws.submit(EVENTS) for _ in range(29)]
        for receipt in receipts:
            receipt.result(patient(20))
    assert in_flight == [4]
    assert most_after[:3] == [3, 2, 1]  # what was under way already
    assert set(most_after[3:]) == {1}


def test_bad_request_is_final():
    def script(websocket, number):
        for frame in websocket:
            websocket.send(answer(guid_of(frame), status=2, code=2, reason="no such type"))

    with websocket_server(script) as url, client(url) as ws, pytest.raises(ServerError, match="no such type") as no:
        ws.send(EVENTS)
    assert no.value.attempts == 1
    assert no.value.outcome is Outcome.NOT_DELIVERED
    assert no.value.response.code is Code.BAD_REQUEST


class TestAnswersThatMatchNothing:
    def test_are_counted_and_logged_once(self):
        log = Lines()

        def script(websocket, number):
            for frame in websocket:
                for guid in ("stranger", guid_of(frame), guid_of(frame), "stranger"):
                    websocket.send(answer(guid))

        with websocket_server(script) as url, client(url, logger=log) as ws:
            for _ in range(5):
                ws.send(EVENTS)
            connections = ws._running[True].client._transport._dialer.connection
            wait_until(lambda: connections.acks.unknown == 10 and connections.acks.duplicates == 5)
        assert len([line for line in log.lines if "stranger" in line]) == 1
        assert len([line for line in log.lines if "ignored" in line]) == 1

    def test_late_answers_are_counted(self):
        release = threading.Event()
        frames = []

        def script(websocket, number):
            frames.append(websocket.recv())
            release.wait(patient(10))
            for frame in (frames[0], websocket.recv()):
                websocket.send(answer(guid_of(frame)))
            websocket.recv()

        with websocket_server(script) as url, client(url) as ws:
            running = ws._started()
            request = running.client._builder.build(EVENTS, None)
            call = running.thread.submit(_deliver, running.client, request, None)
            wait_until(lambda: frames)
            call.cancel()  # as Ctrl-C in `send` does
            release.set()
            ws.send(EVENTS)
            assert ws._running[True].client._transport._dialer.connection.acks.late == 1

    @pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"", "<html>", "{}"])
    def test_garbage_ends_the_connection_and_nothing_is_lost(self, garbage):
        def script(websocket, number):
            for frame in websocket:
                websocket.send(answer(guid_of(frame)) if number else garbage)

        with websocket_server(script) as url, client(url) as ws:
            ws.send(EVENTS)

    def test_an_error_without_a_guid_fails_the_only_request_in_flight(self):
        def script(websocket, number):
            websocket.recv()
            websocket.send(answer("", status=2, code=2, reason="cannot deserialize request"))
            websocket.recv()

        with websocket_server(script) as url, client(url) as ws, pytest.raises(ServerError, match="deserialize") as no:
            ws.send(EVENTS)
        assert no.value.attempts == 1

    def test_an_error_without_a_guid_among_many_finds_its_request(self):
        """The connection is closed, and on the next one each goes alone until the culprit is known."""

        def script(websocket, number):
            held = []
            for frame in websocket:
                message = SendEventRequest.FromString(frame)
                held.append(message)
                if number == 0 and len(held) < 3:
                    continue
                for one in held:
                    if one.events[0].type == "bad":
                        websocket.send(answer("", status=2, code=2, reason="cannot deserialize request"))
                    else:
                        websocket.send(answer(one.req_guid))
                held.clear()

        with websocket_server(script) as url, client(url) as ws:
            receipts = [ws.submit([(kind, b"")]) for kind in ("bad", "good", "good")]
            assert [type(receipt.exception(patient(10))) for receipt in receipts] == [
                ServerError,
                type(None),
                type(None),
            ]


class TestRefusedConnections:
    def test_a_duplicate_id_is_waited_out(self):
        """The server keeps the id of a connection that broke, and lets it in again after its read deadline."""
        numbers = []

        def script(websocket, number):
            numbers.append(number)
            if number < 4:
                websocket.send(answer(None, status=2, code=5, reason="duplicated connection"))
                websocket.close(1008, "duplicate connection: u1")
            else:
                obliging(websocket, number)

        with websocket_server(script) as url, client(url, user_id="u1", retry=ONCE) as ws:
            ws.send(EVENTS)
        assert numbers == [0, 1, 2, 3, 4]

    def test_too_many_connections_is_a_failed_attempt(self):
        def script(websocket, number):
            websocket.send(answer(None, status=2, code=4, reason="max connection reached"))
            websocket.close(1008, "Max connection reached")

        with websocket_server(script) as url, client(url) as ws, pytest.raises(ServerError, match="MAX_CONN") as no:
            ws.send(EVENTS)
        assert no.value.attempts == 5
        assert no.value.outcome is Outcome.NOT_DELIVERED
        assert no.value.retryable

    def test_the_id_is_fresh_for_each_connection_unless_it_is_given(self):
        seen = []

        def script(websocket, number):
            seen.append(websocket.request.headers["X-User-ID"])
            frame = websocket.recv()
            if number in (1, 3):
                websocket.send(answer(guid_of(frame)))
            websocket.close(1001)

        with websocket_server(script) as url:
            with client(url) as ws:
                ws.send(EVENTS)
            with client(url, user_id="me") as ws:
                ws.send(EVENTS)
        assert len(set(seen[:2])) == 2
        assert seen[2:] == ["me", "me"]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013])
def test_a_close_by_the_server_is_followed_by_a_new_connection(code):
    def script(websocket, number):
        frame = websocket.recv()
        if number == 0:
            websocket.close(code, "bye")
        else:
            websocket.send(answer(guid_of(frame)))
            websocket.recv()

    with websocket_server(script) as url, client(url) as ws:
        ws.send(EVENTS)


class TestGoodbye:
    """A server's Close frame, after which it answers nothing (RFC 6455, 5.5.1)."""

    @staticmethod
    def server(seen, code=1012):
        """Says goodbye to its first connection, and leaves TCP open."""

        def script(connection):
            frames = seen.setdefault(connection.number, [])

            def received(frame, protocol):
                frames.append((frame.opcode, time.monotonic()))
                if frame.opcode is Opcode.BINARY:
                    protocol.send_binary(answer(guid_of(bytes(frame.data))))
                    if connection.number == 0:
                        protocol.send_close(code, "bye")
                        goodbye_s.append(time.monotonic())

            def write(data):
                connection.sock.sendall(data)

            goodbye_s = seen.setdefault("goodbye_s", [])
            protocol = ServerProtocol()
            while data := connection.sock.recv(65536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, HandshakeRequest):
                        protocol.send_response(protocol.accept(event))
                    else:
                        received(event, protocol)
                for reply in protocol.data_to_send():
                    if reply:
                        write(reply)
            seen[f"ended {connection.number}"] = time.monotonic()

        return tcp_server(script)

    @pytest.mark.parametrize("classes", [SYNC, ASYNC], ids=["sync", "async"])
    def test_nothing_is_written_after_a_goodbye_and_the_connection_is_abandoned(self, classes):
        seen = {}
        with self.server(seen) as host:
            made = new_client("websocket", f"ws://{host}", classes, timeout=30.0)
            with made if classes is SYNC else OnLoop(made) as ws:
                ws.send(EVENTS)
                if classes is ASYNC:
                    ws.run(asyncio.sleep(0.05))  # its event loop runs only while it is called
                else:
                    wait_until(lambda: len(seen[0]) == 2)
                began_s = time.monotonic()
                ws.send(EVENTS)
                assert time.monotonic() - began_s < patient(10.0)
                if classes is ASYNC:
                    ws.run(asyncio.sleep(1.0))
                wait_until(lambda: "ended 0" in seen)
        assert [opcode for opcode, _ in seen[0]] == [Opcode.BINARY, Opcode.CLOSE]
        assert 0.5 < seen["ended 0"] - seen["goodbye_s"][0] < 10.0
        assert Opcode.BINARY in [opcode for opcode, _ in seen[1]]

    def test_requests_in_flight_fail_at_once(self):
        def script(connection):
            def received(frame, protocol):
                if frame.opcode is Opcode.BINARY:
                    protocol.send_close(1001, "a\x1b[31m" + "b" * 100)

            speak_websocket(connection, received)
            connection.wait_closed()

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE, timeout=30.0) as ws:
            began_s = time.monotonic()
            with pytest.raises(ConnectionLostError, match=r"closed the connection: 1001 a\[31mb{100}$") as no:
                ws.send(EVENTS)
            assert time.monotonic() - began_s < patient(10.0)
        assert no.value.outcome is Outcome.POSSIBLY_DELIVERED

    def test_the_rest_of_a_request_does_not_follow_a_goodbye(self):
        """A server that closes in the middle of a message need not read it to its end."""
        ended = threading.Event()

        def script(connection):
            def received(frame, protocol):
                raise AssertionError

            head = bytearray()

            class Cut(Exception):
                pass

            def write(data):
                connection.sock.sendall(data)
                head.extend(data)
                raise Cut

            with contextlib.suppress(Cut):
                speak_websocket(connection, received, write)
            connection.sock.recv(1000)
            said = struct.pack(">H", 1009) + b"too big"
            connection.sock.sendall(bytes([0x88, len(said)]) + said)
            connection.sock.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while connection.sock.recv(65536):
                    pass
            ended.set()

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE, timeout=30.0) as ws:
            with pytest.raises(MessageTooLargeError, match="1009: too big"):
                ws.send([("a", bytes(20_000_000))])
            assert ended.wait(patient(10))


class TestCulprit:
    """Close 1009 among several requests does not say which of them it is about."""

    @pytest.mark.parametrize("bad", [0, 2, 7])
    def test_each_request_in_flight_goes_alone_until_the_culprit_is_known(self, bad):
        most: dict[int, int] = {}

        def script(connection):
            held = []

            def received(frame, protocol):
                if frame.opcode is not Opcode.BINARY:
                    return
                message = SendEventRequest.FromString(bytes(frame.data))
                held.append(message)
                most[connection.number] = max(most.get(connection.number, 0), len(held))
                if connection.number == 0 and len(held) < 8:
                    return
                if any(one.events[0].type == "bad" for one in held):
                    protocol.send_close(1009, "too big")
                else:
                    for one in held:
                        protocol.send_binary(answer(one.req_guid))
                held.clear()

            speak_websocket(connection, received)

        with tcp_server(script) as host, client(f"ws://{host}", retry=SOON) as ws:
            kinds = ["bad" if number == bad else "good" for number in range(8)]
            receipts = [ws.submit([(kind, b"")]) for kind in kinds]
            failures = [receipt.exception(patient(20)) for receipt in receipts]
        assert [type(error) for error in failures] == [
            MessageTooLargeError if kind == "bad" else type(None) for kind in kinds
        ]
        assert failures[bad].outcome is Outcome.POSSIBLY_DELIVERED  # what its first attempt left possible
        assert most[0] == 8
        assert {count for number, count in most.items() if number} == {1}

    @pytest.mark.slow
    def test_a_suspect_that_returns_late_still_goes_alone(self, run):
        """By then the connection carries many requests at a time again."""

        def script(connection):
            held = []

            def received(frame, protocol):
                if frame.opcode is not Opcode.BINARY:
                    return
                message = SendEventRequest.FromString(bytes(frame.data))
                kind = message.events[0].type
                held.append(kind)
                if connection.number == 0:
                    if len(held) == 8:
                        protocol.send_close(1009, "")
                elif kind == "bad":
                    protocol.send_close(1009, "")
                elif protocol.state is OPEN:
                    protocol.send_binary(answer(message.req_guid))

            speak_websocket(connection, received)

        async def main(url):
            later = RetryPolicy(max_attempts=2, initial=2.0, jitter=None)
            async with AsyncWebSocketClient(url, serializer=RAW, logger=None, retry=later, timeout=20.0) as ws:
                receipts = [ws.submit([(kind, b"")]) for kind in ["bad"] + ["good"] * 7]
                while ws._transport is None or not (connection := ws._transport._dialer.connection):
                    await asyncio.sleep(0.005)
                while connection.usable:
                    await asyncio.sleep(0.005)
                await asyncio.gather(*(ws.send([("filler", b"")]) for _ in range(64 * 8)))
                assert ws._transport._dialer.connection.window.limit == 8
                failures = await asyncio.gather(*receipts, return_exceptions=True)
                assert isinstance(failures[0], MessageTooLargeError)
                assert [isinstance(failure, Exception) for failure in failures[1:]] == [False] * 7

        with tcp_server(script) as host:
            run(main(f"ws://{host}"))

    def test_a_suspect_that_does_not_come_back_holds_up_nobody(self, run):
        def script(connection):
            held = []

            def received(frame, protocol):
                if frame.opcode is not Opcode.BINARY:
                    return
                held.append(guid_of(bytes(frame.data)))
                if connection.number:
                    protocol.send_binary(answer(held[-1]))
                elif len(held) == 4:
                    protocol.send_close(1009, "")

            speak_websocket(connection, received)

        async def main(url):
            async with AsyncWebSocketClient(url, serializer=RAW, logger=None, retry=ONCE, timeout=10.0) as ws:
                for receipt in [ws.submit(EVENTS) for _ in range(4)]:
                    with pytest.raises(ConnectionLostError):
                        await receipt
                await asyncio.gather(*(ws.send(EVENTS) for _ in range(100)))

        with tcp_server(script) as host:
            run(main(f"ws://{host}"))

    def test_an_abandoned_request_may_be_the_culprit(self, run):
        """The abandoned request is still on the connection: the other one is not blamed for it."""

        def script(connection):
            held = []

            def received(frame, protocol):
                if frame.opcode is not Opcode.BINARY:
                    return
                held.append(guid_of(bytes(frame.data)))
                if connection.number == 0 and len(held) == 2:
                    protocol.send_close(1009, "")
                elif connection.number:
                    protocol.send_binary(answer(held[-1]))

            speak_websocket(connection, received)

        async def main(url):
            async with AsyncWebSocketClient(url, serializer=RAW, logger=None, retry=SOON, timeout=10.0) as ws:
                abandoned = asyncio.ensure_future(ws.send([("bad", b"")]))
                while ws._transport is None or ws._transport._dialer.connection is None:
                    await asyncio.sleep(0.005)
                while not ws._transport._dialer.connection.acks:
                    await asyncio.sleep(0.005)
                abandoned.cancel()
                await asyncio.gather(abandoned, return_exceptions=True)
                await ws.send(EVENTS)

        with tcp_server(script) as host:
            run(main(f"ws://{host}"))


def test_no_two_frames_have_one_masking_key():
    """RFC 6455, 5.3: nobody can tell a key from those before it."""
    pieces = []

    class Noting:
        """A socket that keeps what it reads."""

        def __init__(self, sock):
            self.sendall = sock.sendall
            self._recv = sock.recv

        def recv(self, size):
            pieces.append(self._recv(size))
            return pieces[-1]

    def script(connection):
        noting = Connection(connection.sock, 0)
        noting.sock = Noting(connection.sock)

        def received(frame, protocol):
            if frame.opcode is Opcode.BINARY:
                protocol.send_binary(answer(guid_of(frame.data)))

        speak_websocket(noting, received)

    count = 1100  # more than are made at a time
    with tcp_server(script) as host, client(f"ws://{host}") as ws:
        for _ in range(count):
            ws.send(EVENTS)
        keys = [piece[2:6] for piece in pieces[1:] if piece[:1] == b"\x82"]
    assert len(keys) == count
    assert all(one != other for one, other in itertools.pairwise(keys))
    assert len({*keys}) > count - 3  # of four random bytes two may be the same


def test_close_1009_says_that_the_request_is_too_large():
    with websocket_server(obliging, max_size=1000) as url, client(url) as ws, pytest.raises(MessageTooLargeError):
        ws.send([("a", b"x" * 2000)])


class TestHandshake:
    @pytest.mark.parametrize(
        ("status", "retryable"), [(401, False), (403, False), (404, False), (429, True), (503, True)]
    )
    def test_a_status_instead_of_101(self, status, retryable):
        tries = []

        def script(connection):
            connection.read_head()
            tries.append(1)
            connection.respond(b"", status=b"%d No" % status)

        with (
            tcp_server(script) as host,
            client(f"ws://{host}") as ws,
            pytest.raises(ServerError, match=str(status)) as no,
        ):
            ws.send(EVENTS)
        assert no.value.retryable is retryable
        assert len(tries) == (5 if retryable else 1)

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nwhy?",
            b"HTTP/1.0 403 No\r\n\r\nwhy?",
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwhy?\r\n0\r\n\r\n",
            b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nwhy?",
        ],
    )
    @pytest.mark.parametrize("held", [False, True], ids=["closed", "held open"])
    def test_a_refusal_in_any_proxy_s_format(self, reply, held):
        def script(connection):
            connection.read_head()
            connection.sock.sendall(reply)
            if held:
                connection.wait_closed()

        with tcp_server(script) as host, client(f"ws://{host}") as ws, pytest.raises(ServerError) as no:
            ws.send(EVENTS)
        assert (no.value.status, no.value.said, no.value.retryable) == (403, "why?", False)
        assert (no.value.outcome, no.value.response) == (Outcome.NOT_DELIVERED, None)

    def test_a_frame_behind_the_101_that_comes_in_pieces(self):
        """Its first piece ends like a head."""

        def script(connection):
            def write(data):
                connection.sock.sendall(data + b"\x89\x08\r\n\r\n")
                time.sleep(0.05)
                connection.sock.sendall(b"abcd")
                raise EOFError

            protocol = ServerProtocol()
            greeted = False
            while data := connection.sock.recv(65536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, HandshakeRequest):
                        protocol.send_response(protocol.accept(event))
                    elif event.opcode is Opcode.BINARY:
                        protocol.send_binary(answer(guid_of(bytes(event.data))))
                for reply in protocol.data_to_send():
                    if reply and not greeted:
                        greeted = True
                        with contextlib.suppress(EOFError):
                            write(reply)
                    elif reply:
                        connection.sock.sendall(reply)

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE) as ws:
            ws.send(EVENTS)

    @pytest.mark.parametrize(
        "reply",
        [b"SSH-2.0\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", b"\x00" * 100 + b"\n"],
    )
    def test_nonsense_instead_of_101(self, reply):
        def script(connection):
            connection.read_head()
            connection.sock.sendall(reply)
            connection.wait_closed()

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE) as ws, pytest.raises(ProtocolError) as no:
            ws.send(EVENTS)
        assert no.value.outcome is Outcome.NOT_DELIVERED

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (b"220 mail ESMTP\r\n", ": 220 mail ESMTP"),
            (b"RFB 003.008\n", ": RFB 003.008"),
            (b"\x15\x03\x03\x00\x02", ""),
        ],
    )
    def test_another_protocol_is_named_at_once(self, reply, words):
        """Not after `connect_timeout`: nothing more of a line without CRLF is waited for."""

        def script(connection):
            connection.read_head()
            connection.sock.sendall(reply)
            connection.wait_closed()

        options = {"retry": ONCE, "connect_timeout": patient(120), "timeout": patient(60)}
        with tcp_server(script) as host, client(f"ws://{host}", **options) as ws, pytest.raises(ProtocolError) as no:
            ws.send(EVENTS)
        assert str(no.value).endswith(f"did not accept a WebSocket: its answer is not valid HTTP/1.1{words}")

    def test_silence_instead_of_101(self):
        def script(connection):
            connection.wait_closed()

        options = {"retry": ONCE, "connect_timeout": 0.2}
        with tcp_server(script) as host, client(f"ws://{host}", **options) as ws, pytest.raises(ConnectError):
            ws.send(EVENTS)

    def test_an_end_instead_of_101(self):
        def script(connection):
            connection.read_head()

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE) as ws, pytest.raises(ConnectError):
            ws.send(EVENTS)

    def test_all_waiting_requests_share_one_attempt(self):
        numbers = []

        def script(websocket, number):
            numbers.append(number)
            obliging(websocket, number)

        with websocket_server(script) as url, client(url) as ws:
            for receipt in [ws.submit(EVENTS) for _ in range(20)]:
                receipt.result(patient(10))
        assert numbers == [0]

    def test_each_waiting_request_gets_its_own_error(self):
        def script(connection):
            connection.read_head()
            time.sleep(0.05)

        with tcp_server(script) as host, client(f"ws://{host}", retry=ONCE) as ws:
            receipts = [ws.submit(EVENTS, req_guid=f"g{i}") for i in range(5)]
            assert [receipt.exception(patient(10)).req_guid for receipt in receipts] == [f"g{i}" for i in range(5)]


class TestPings:
    def test_the_servers_pings_are_answered(self):
        def script(websocket, number):
            for _ in range(3):
                assert websocket.ping(b"--ping--").wait(patient(10))
            obliging(websocket, number)

        with websocket_server(script) as url, client(url) as ws:
            ws.send(EVENTS)

    def test_the_servers_pings_are_answered_while_a_callback_blocks(self):
        release = threading.Event()
        ponged = threading.Event()

        def script(websocket, number):
            frame = websocket.recv()
            websocket.send(answer(guid_of(frame)))
            assert websocket.ping(b"--ping--").wait(patient(10))
            ponged.set()
            obliging(websocket, number)

        with websocket_server(script) as url, client(url) as ws:
            receipt = ws.submit(EVENTS)
            receipt.add_done_callback(lambda _: release.wait(patient(20)))
            assert ponged.wait(patient(10))
            for one in [ws.submit(EVENTS) for _ in range(20)]:
                one.result(patient(10))  # acknowledgements are read all the while
            release.set()

    def test_our_pings_continue_and_a_missing_pong_ends_the_connection(self):
        pings = {0: 0, 1: 0}

        def script(connection):
            """Answers pings on its second connection only."""

            def received(frame, protocol):
                if frame.opcode is Opcode.PING:
                    pings[connection.number] += 1
                elif frame.opcode is Opcode.BINARY and connection.number:
                    protocol.send_binary(answer(guid_of(frame.data)))

            def write(data):
                if connection.number or data[:1] != b"\x8a":  # a pong
                    connection.sock.sendall(data)

            speak_websocket(connection, received, write)

        options = {"ping_interval": 0.05, "pong_timeout": 0.2, "stats": (stats := Figures())}
        with tcp_server(script) as host, client(f"ws://{host}", **options) as ws:
            ws.send(EVENTS)  # unanswered on the first connection, whose end lets it go to the second
            wait_until(lambda: stats.errors == 1)
            wait_until(lambda: pings[1] >= 5)
            ws.send(EVENTS)
        assert pings[0] == 1

    def test_no_pings_are_sent_when_they_are_turned_off(self, run):
        async def main(url):
            async with AsyncWebSocketClient(url, serializer=RAW, logger=None, ping_interval=None) as ws:
                await ws.send(EVENTS)
                assert ws._transport._dialer.connection._pinger._timer is None

        with websocket_server(obliging) as url:
            run(main(url))


class TestFramesFromTheServer:
    """RFC 6455: what a client must fail the connection for; what it held is sent again."""

    @pytest.mark.parametrize(
        ("frames", "accepted"),
        [
            ([b"\x02", b"\x80"], True),  # fragmented
            ([b"\x02", b"\x89\x01p", b"\x80"], True),  # with a ping between
            ([b"\x83\x00"], False),  # reserved opcode
            ([b"\xc2\x00"], False),  # reserved bit
            ([b"\x82\x80\x01\x02\x03\x04"], False),  # masked
            ([b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"], False),  # 2^63 - 1 bytes
            ([b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"], False),  # 2^64 - 1 bytes
            ([b"\x82\x7f\x00\x00\x00\x00\x00\x20\x00\x00"], False),  # 2 MiB: over what an answer may be
            ([b"\x80\x00"], False),  # a continuation of nothing
            ([b"\x89\x7e\x00\x80" + b"p" * 128], False),  # a ping over 125 bytes
            ([b"\x09\x00"], False),  # a fragmented ping
        ],
    )
    def test_frames(self, frames, accepted):
        connections = []

        def script(connection):
            connections.append(connection.number)

            def received(frame, protocol):
                if frame.opcode is not Opcode.BINARY:
                    return
                reply = answer(guid_of(frame.data))
                half = len(reply) // 2
                parts = {
                    b"\x02": b"\x02%c" % half + reply[:half],
                    b"\x80": b"\x80%c" % (len(reply) - half) + reply[half:],
                }
                if connection.number:
                    protocol.send_binary(reply)
                elif accepted:
                    connection.sock.sendall(b"".join(parts.get(frame, frame) for frame in frames))
                else:
                    connection.sock.sendall(b"".join(frames))

            speak_websocket(connection, received)

        with tcp_server(script) as host, client(f"ws://{host}", timeout=600.0) as ws:
            ws.send(EVENTS)
        assert connections == ([0] if accepted else [0, 1])


@pytest.mark.parametrize(
    ("begin", "more", "said"),
    [
        (b"\x02\x00", b"\x00\x00", "sent an answer in over 10000 fragments"),
        (b"\x01\x01{", b"\x00\x00", "sent an answer in over 10000 fragments"),
        (b"\x02\x7f" + (1 << 16).to_bytes(8, "big") + bytes(1 << 16), b"\x00\x00", "over 10000 fragments"),
        (b"", b"\x89\x7d" + b"p" * 125, "does not read the answers"),
    ],
    ids=["empty fragments", "of a text", "behind 64 KiB", "pings"],
)
def test_a_server_that_sends_without_end_and_reads_nothing_is_left(begin, more, said):
    """RFC 6455, 5.4 and 5.5.2, bound neither fragments nor pings; 10.4 leaves that to us."""
    ended = threading.Event()

    def script(connection):
        def write(greeting):
            connection.sock.sendall(greeting + begin)
            try:
                while True:
                    connection.sock.sendall(more * 1000)
            finally:
                ended.set()

        speak_websocket(connection, lambda frame, protocol: None, write)

    with tcp_server(script) as host, client(f"ws://{host}", timeout=60.0, retry=ONCE) as ws:
        with pytest.raises(ProtocolError, match=said):
            ws.send(EVENTS)
        assert ended.wait(patient(10))


def test_writes_to_a_server_that_stops_reading_are_bounded(run):
    """asyncio would buffer it all: writing pauses when the socket's buffer is full, and no request goes out then."""

    async def main(host: str) -> int:
        data = b"x" * 1_000_000
        async with AsyncWebSocketClient(
            f"ws://{host}", serializer=RAW, logger=None, max_in_flight=64, timeout=5, retry=ONCE
        ) as ws:
            receipts = [ws.submit([("big", data)]) for _ in range(64)]
            while (connection := ws._transport._dialer.connection) is None or connection._writable:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)  # for what would come after the pause
            buffered = connection.transport.get_write_buffer_size()
            await ws.close(0)
            await asyncio.gather(*receipts, return_exceptions=True)
            return buffered

    done = threading.Event()

    def script(connection):
        speak_websocket(connection, lambda frame, protocol: done.wait(patient(20)))

    with tcp_server(script) as host:
        try:
            assert run(main(host)) <= 1_100_000
        finally:
            done.set()


def test_an_overdue_acknowledgement_ends_the_connection_for_all_its_requests():
    """Its requests cannot be resent on it: a server may acknowledge a guid it has seen and still lose it."""
    arrived, ended = threading.Event(), threading.Event()

    def script(websocket, number):
        try:
            for _ in websocket:
                arrived.set()
        finally:
            ended.set()

    with websocket_server(script) as url, client(url, retry=ONCE, timeout=60.0) as ws:
        other = ws.submit(EVENTS)
        assert arrived.wait(patient(10))
        deadline_s = time.monotonic() + patient(10)
        while not other.done():  # on a slow machine the time of a request may pass before it is sent
            assert time.monotonic() < deadline_s
            with pytest.raises(AckTimeoutError):
                ws.send(EVENTS, timeout=patient(0.1))
        with pytest.raises(ConnectionLostError, match="an acknowledgement was overdue") as caught:
            other.result(patient(10))
        assert caught.value.outcome is Outcome.POSSIBLY_DELIVERED
        assert ended.wait(patient(10))


@pytest.mark.parametrize(("names_request", "code"), [(True, Code.INTERNAL_ERROR), (False, Code.OK)])
def test_a_server_s_reason_is_one_short_line_of_an_error(names_request, code):
    reason = "no:\nERROR forged \x1b[31m " + "x" * 100_000

    def script(websocket, number):
        guid = guid_of(websocket.recv())
        status = 1 if code is Code.OK else 2
        websocket.send(answer(guid if names_request else None, status=status, code=code, reason=reason))
        websocket.recv()

    with websocket_server(script) as url, client(url, retry=ONCE) as ws:
        with pytest.raises(RaccoonError, match="no: ERROR forged") as caught:
            ws.send(EVENTS)
        assert len(str(caught.value)) < 350
        assert str(caught.value).isprintable()


def test_close_waits_for_requests_in_flight_and_says_goodbye():
    codes = []

    def script(websocket, number):
        frames = [websocket.recv() for _ in range(3)]
        time.sleep(0.1)
        for frame in frames:
            websocket.send(answer(guid_of(frame)))
        try:
            websocket.recv()
        finally:
            codes.append(websocket.protocol.close_rcvd.code)

    with websocket_server(script) as url:
        ws = client(url)
        receipts = [ws.submit(EVENTS) for _ in range(3)]
        ws.close()
        assert [receipt.done() for receipt in receipts] == [True] * 3
        for receipt in receipts:
            receipt.result(0)
        wait_until(lambda: codes)
    assert codes == [1000]


def test_close_fails_requests_not_acknowledged_in_time():
    log = Lines()
    is_read = threading.Event()

    def script(websocket, number):
        for _ in websocket:
            is_read.set()

    with websocket_server(script) as url:
        ws = client(url, logger=log)
        receipt = ws.submit(EVENTS)
        assert is_read.wait(patient(10))
        began = time.monotonic()
        ws.close(0.2)
        assert time.monotonic() - began < patient(5)
        with pytest.raises(ClientClosedError) as closed:
            receipt.result(0)
    assert closed.value.outcome is Outcome.POSSIBLY_DELIVERED
    assert any("1 request not acknowledged" in line for line in log.lines)


@pytest.mark.parametrize("steps", range(8))
def test_close_as_the_handshake_ends_leaves_no_connection(steps, run, monkeypatch):
    """The task that opens the connection may be cancelled in the step in which it ends."""
    connections = []
    answered = asyncio.Event()

    def handshake_answered(connection, reply, original=WebSocketConnection._handshake_answered):
        original(connection, reply)
        connections.append(connection)
        answered.set()

    monkeypatch.setattr(WebSocketConnection, "_handshake_answered", handshake_answered)

    async def main(host: str) -> None:
        ws = AsyncWebSocketClient(f"ws://{host}", serializer=RAW, logger=None, retry=ONCE)
        receipt = ws.submit(EVENTS)
        await answered.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        await ws._transport.close()
        with pytest.raises((ClientClosedError, ConnectionLostError)):
            await asyncio.wait_for(receipt, patient(5))
        assert connections[0].error is not None
        await asyncio.wait_for(asyncio.shield(connections[0]._lost), patient(5))
        await ws.close(0)

    with tcp_server(lambda connection: speak_websocket(connection, lambda frame, protocol: None)) as host:
        run(main(host))


def test_requests_in_flight_fail_at_once_if_the_server_does_not_answer_the_close(monkeypatch):
    failed = []
    wait_lost = WebSocketConnection._wait_lost

    async def main(proxy):
        ws = AsyncWebSocketClient(f"ws://127.0.0.1:{proxy.port}", serializer=RAW, logger=None)
        receipt = ws.submit([("t", EVIL)])
        while not proxy.refused:
            await asyncio.sleep(0.001)

        async def wait_long(connection):
            for _ in range(1000):
                if not receipt.done():
                    await asyncio.sleep(0.005)
            failed.append(receipt.done())
            await wait_lost(connection)

        monkeypatch.setattr(WebSocketConnection, "_wait_lost", wait_long)
        await ws.close(0)
        assert isinstance(receipt.exception(), ClientClosedError)

    with Collector() as collector, FilterProxy(port_of(collector, "ws"), SWALLOW, is_websocket=True) as proxy:
        asyncio.run(asyncio.wait_for(main(proxy), patient(30)))
    assert failed == [True]


def test_a_lost_connection_is_an_error_where_no_further_attempt_is_allowed():
    def script(websocket, number):
        websocket.recv()
        websocket.socket.shutdown(socket.SHUT_RDWR)

    with websocket_server(script) as url, client(url, retry=ONCE) as ws, pytest.raises(ConnectionLostError) as lost:
        ws.send(EVENTS)
    assert lost.value.outcome is Outcome.POSSIBLY_DELIVERED


def test_a_request_that_gets_no_turn_in_time_was_not_delivered_and_harms_nobody(monkeypatch):
    monkeypatch.setattr(sync_client, "_MARGIN_S", patient(1))  # the transport's own error is expected, however late
    is_sent, is_over = threading.Event(), threading.Event()

    def script(websocket, number):
        first = guid_of(websocket.recv())
        is_sent.set()
        is_over.wait(patient(10))
        websocket.send(answer(first))
        for frame in websocket:
            websocket.send(answer(guid_of(frame)))

    with websocket_server(script) as url, client(url, retry=ONCE, timeout=60.0, max_in_flight=1) as ws:
        first = ws.submit(EVENTS)
        assert is_sent.wait(patient(10))
        with pytest.raises(AckTimeoutError, match="could not be sent") as caught:
            ws.send(EVENTS, timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_DELIVERED
        is_over.set()
        assert first.result(patient(10)).status is Status.SUCCESS
        assert ws.send(EVENTS).response.status is Status.SUCCESS


def test_an_attempt_over_an_open_connection_needs_no_task(run):
    connections = []

    def script(websocket, number):
        connections.append(number)
        for frame in websocket:
            websocket.send(answer(guid_of(frame)))

    async def main(url: str) -> None:
        async with AsyncWebSocketClient(url, serializer=RAW, logger=None) as ws:
            transport = ws._transport
            for req_guid, needs_task in [("a", True), ("b", False), ("b", True), ("c", False)]:
                request = ws._builder.build(EVENTS, req_guid)
                request.envelope.stamp(req_guid, 1, 1)
                attempt = transport.start(request, 10.0)
                assert isinstance(attempt, asyncio.Task) is needs_task
                assert (await ended(attempt)).req_guid == req_guid

    with websocket_server(script) as url:
        run(main(url))
    assert connections == [0, 1]  # a guid that the first had seen took another
