"""HTTP/2 below gRPC, against a strict peer and against peers that violate the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
import time
import uuid
from pathlib import Path

import h2.errors
import h2.events
import h2.settings
import pytest
from certificates import make_certificates
from h2_peer import (
    BLOCK,
    CONTINUATION,
    DATA,
    GOAWAY,
    HEAD,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    TRAILERS,
    WINDOW_UPDATE,
    Call,
    Peer,
    frame,
    greet,
    message,
    read_call,
    read_frame,
    strict_server,
)
from hpack import Encoder
from patience import patient, wait_until
from scripted import Connection, SendEventRequest, answer, tcp_server

from raccoon_fast import (
    RAW,
    TLS,
    AckTimeoutError,
    AsyncGrpcClient,
    ConnectError,
    ConnectionLostError,
    GrpcClient,
    MessageTooLargeError,
    Outcome,
    Producer,
    ProtocolError,
    RetryPolicy,
    ServerError,
)
from raccoon_fast.collector import Collector
from raccoon_fast.transports.grpc.connection import HTTP2Connection
from raccoon_fast.transports.grpc.frames import FrameError, TableReader

ONCE = RetryPolicy(max_attempts=1)
EVENTS = [("page", b"{}")]
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 1, 4, 8, 32
Codes = h2.settings.SettingCodes


class Figures:
    """Stats that keep the connection errors."""

    def __init__(self) -> None:
        self.errors = 0

    def timing(self, name: str, ms: float) -> None:
        pass

    def count(self, name: str, n: int) -> None:
        if name == "total_conn_err":
            self.errors += n


def client(target: str, **options) -> GrpcClient:
    return GrpcClient(target, **{"serializer": RAW, "logger": None, "retry": ONCE, "timeout": 10.0, **options})


def deliver(target: str, batches: int, events: int, size: int) -> None:
    """By a producer, all of it acknowledged without a second attempt."""
    data = bytes(size)
    options = {"serializer": RAW, "logger": None, "batch_events": events, "linger": 10.0, "batch_bytes": 3_000_000}
    with Producer(f"grpc://{target}", **options) as producer:
        for _ in range(batches):
            producer.emit_many([("page", data)] * events)
        assert producer.flush(patient(30)) == 0
    report = producer.report
    assert (report.total.acked, report.retries) == (batches * events, 0)


class TestWindows:
    @pytest.mark.parametrize(
        ("settings", "trickle"),
        [
            ({}, None),
            ({}, 1000),
            ({Codes.INITIAL_WINDOW_SIZE: 700}, None),
            ({Codes.INITIAL_WINDOW_SIZE: 0x7FFFFFFF, Codes.MAX_FRAME_SIZE: 0xFFFFFF}, None),
            ({Codes.MAX_FRAME_SIZE: 20_000}, 30_000),
            ({Codes.MAX_CONCURRENT_STREAMS: 1}, None),
            ({Codes.MAX_CONCURRENT_STREAMS: 3, Codes.INITIAL_WINDOW_SIZE: 30_000}, 2000),
        ],
    )
    def test_the_server_s_window_is_obeyed(self, settings: dict[int, int], trickle: int | None) -> None:
        guids = []

        def on_call(call: Call) -> None:
            assert [(event.type, len(event.event_bytes)) for event in call.request.events] == [("page", 500)] * 300
            guids.append(call.request.req_guid)
            call.respond()

        with strict_server(on_call, settings, trickle) as (target, peers):
            deliver(target, batches=20, events=300, size=500)
        assert len(set(guids)) == len(guids) == 20
        (peer,) = peers
        assert peer.most_streams <= settings.get(Codes.MAX_CONCURRENT_STREAMS, 8)

    def test_a_message_of_the_largest_size(self) -> None:
        with strict_server() as (target, _):
            deliver(target, batches=1, events=1, size=2_900_000)

    def test_a_window_lowered_in_use(self) -> None:
        """The window is then negative, and nothing may be sent until it is positive again (RFC 9113, 6.9.2)."""
        asked = []

        def on_event(peer: Peer, event: object) -> None:
            if isinstance(event, h2.events.DataReceived) and not asked:
                asked.append(event)
                peer.h2.update_settings({Codes.INITIAL_WINDOW_SIZE: 100})

        with strict_server(trickle=5000, on_event=on_event) as (target, _):
            deliver(target, batches=4, events=100, size=2000)
        assert asked

    def test_a_window_that_is_never_opened(self) -> None:
        def script(connection: Connection) -> None:
            greet(connection)
            while True:
                kind, _, stream, payload = read_frame(connection)
                if kind == RST_STREAM:
                    resets.append((stream, payload))

        resets: list[tuple[int, bytes]] = []
        with tcp_server(script) as target, client(target, timeout=0.3) as rpc:
            with pytest.raises(AckTimeoutError, match="could not be sent") as late:
                rpc.send([("page", bytes(100_000))])
            wait_until(lambda: resets == [(1, struct.pack(">I", 8))])
        assert late.value.outcome is Outcome.NOT_DELIVERED

    def test_answers_give_back_the_window_they_use(self) -> None:
        """A connection's window is 65,535 bytes; these answers are ten times as much."""

        def on_call(call: Call) -> None:
            long = message(answer(call.request.req_guid, reason="x" * 13_000))
            call.respond(body=long)

        with strict_server(on_call) as (target, _), client(target) as rpc:
            for _ in range(50):
                assert len(rpc.send(EVENTS).response.reason) == 13_000


class TestStrictPeer:
    def test_headers_that_do_not_fit_into_a_frame(self) -> None:
        seen = []

        def on_call(call: Call) -> None:
            seen.append(dict(call.headers))
            call.respond()

        headers = {f"X-Long-{number}": str(number) * 9000 for number in range(5)}
        with strict_server(on_call) as (target, _), client(target, headers=headers) as rpc:
            rpc.send(EVENTS)
        assert {name: seen[0][name.lower()] for name in headers} == headers

    def test_a_value_with_spaces_around_it(self) -> None:
        seen = []

        def on_call(call: Call) -> None:
            seen.append(dict(call.headers)["x-space"])
            call.respond()

        with strict_server(on_call) as (target, _), client(target, headers={"X-Space": " \tv v "}) as rpc:
            rpc.send(EVENTS)
        assert seen == ["v v"]

    def test_secret_headers_are_marked_as_sensitive(self) -> None:
        seen = []

        def on_call(call: Call) -> None:
            seen.append(call.headers)
            call.respond()

        with strict_server(on_call) as (target, _), client(target, auth="hush") as rpc:
            rpc.send(EVENTS)
        (field,) = (field for field in seen[0] if field[0] == "authorization")
        assert tuple(field) == ("authorization", "Bearer hush")
        assert not field.indexable  # type: ignore[attr-defined]

    def test_each_connection_has_its_own_id_shared_by_its_calls(self) -> None:
        ids = []

        def on_call(call: Call) -> None:
            ids.append(dict(call.headers)["x-user-id"])
            call.respond()
            if len(ids) == 2:
                call.peer.h2.close_connection()

        with strict_server(on_call) as (target, peers), client(target) as rpc:
            for _ in range(4):
                rpc.send(EVENTS)
            assert len(peers) == 2
        assert ids[0] == ids[1] != ids[2] == ids[3]

    def test_the_server_learns_of_a_cancelled_call(self, run) -> None:
        called = threading.Event()

        async def main(target: str) -> None:
            async with AsyncGrpcClient(target, serializer=RAW, logger=None) as rpc:
                task = asyncio.ensure_future(rpc.send(EVENTS))
                while not called.is_set():
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while not peers[0].resets:
                    await asyncio.sleep(0.001)

        with strict_server(lambda call: called.set()) as (target, peers):
            run(main(target))
        assert peers[0].resets == [h2.errors.ErrorCodes.CANCEL]

    def test_the_server_learns_of_an_overdue_call(self) -> None:
        with strict_server(lambda call: None) as (target, peers), client(target, timeout=0.2) as rpc:
            with pytest.raises(AckTimeoutError) as late:
                rpc.send(EVENTS)
            wait_until(lambda: bool(peers[0].resets))
        assert peers[0].resets == [h2.errors.ErrorCodes.CANCEL]
        assert late.value.outcome is Outcome.POSSIBLY_DELIVERED

    def test_a_silent_connection_is_not_used_again(self) -> None:
        calls = []

        def on_call(call: Call) -> None:
            calls.append(call)
            if len(calls) != 2:
                call.respond()

        with strict_server(on_call) as (target, peers), client(target, timeout=0.5) as rpc:
            rpc.send(EVENTS)
            assert len(peers) == 1
            with pytest.raises(AckTimeoutError):
                rpc.send(EVENTS)
            rpc.send(EVENTS)
        assert len(peers) == 2

    def test_an_answer_before_the_request_is_complete(self) -> None:
        def on_event(peer: Peer, event: object) -> None:
            if isinstance(event, h2.events.RequestReceived):
                trailers = [*HEAD, ("grpc-status", "8"), ("grpc-message", "not%20now")]
                peer.h2.send_headers(event.stream_id, trailers, end_stream=True)
                peer.flush()

        with strict_server(on_event=on_event, trickle=1) as (target, peers), client(target) as rpc:
            for _ in range(2):
                with pytest.raises(ServerError, match="RESOURCE_EXHAUSTED: not now"):
                    rpc.send([("page", bytes(3_000_000))])
            wait_until(lambda: len(peers[0].resets) == 2)
        assert set(peers[0].resets) == {h2.errors.ErrorCodes.NO_ERROR}

    def test_leaves_with_a_goodbye(self) -> None:
        events = []
        with strict_server(on_event=lambda peer, event: events.append(event)) as (target, _):
            with client(target) as rpc:
                rpc.send(EVENTS)
            wait_until(lambda: any(isinstance(event, h2.events.ConnectionTerminated) for event in events))

    def test_streams_run_out(self, run) -> None:
        async def main(target: str) -> None:
            async with AsyncGrpcClient(target, serializer=RAW, logger=None) as rpc:
                await rpc.send(EVENTS)
                rpc._transport._dialer.connection._next_id = 2**31 - 3
                for _ in range(4):
                    await rpc.send(EVENTS)

        with strict_server() as (target, peers):
            run(main(target))
        assert len(peers) == 2


class TestGoingAway:
    @pytest.mark.parametrize("words", [b"", b"max_age"])
    def test_calls_in_flight_are_answered_and_later_calls_use_another_connection(self, words: bytes) -> None:
        calls = []

        def on_call(call: Call) -> None:
            calls.append(call)
            if len(calls) == 5:
                # As grpc-go: first without a bound, so that what is under way is still taken.
                call.peer.connection.sock.sendall(frame(GOAWAY, struct.pack(">II", 2**31 - 1, 0) + words))
            call.respond()

        with strict_server(on_call, {Codes.MAX_CONCURRENT_STREAMS: 2}) as (target, peers):
            deliver(target, batches=40, events=10, size=10)
        assert len(peers) == 2
        assert len({call.request.req_guid for call in calls}) == 40

    @pytest.mark.parametrize("how", ["goaway", "reset"])
    def test_refused_calls_go_to_a_new_connection(self, how: str) -> None:
        guids = []

        def script(connection: Connection) -> None:
            greet(connection)
            stream, guid = read_call(connection)
            guids.append(guid)
            if connection.number == 0:
                refusal = frame(RST_STREAM, struct.pack(">I", 7), stream=stream)
                goaway = frame(GOAWAY, struct.pack(">II", 0, 0))
                # A server that refuses goes on with the connection; here the second attempt is to find another one.
                connection.sock.sendall(goaway if how == "goaway" else refusal + goaway)
            else:
                connection.sock.sendall(good(stream, guid))
            connection.wait_closed()

        with tcp_server(script) as target, client(target) as rpc:
            result = rpc.send(EVENTS)
        assert guids == [result.req_guid] * 2

    def test_waiting_calls_move_between_connections(self) -> None:
        """nginx ends each connection after keepalive_requests, although calls wait or are already written."""
        served: list[str] = []
        last = 2 * 10 - 1

        def on_call(call: Call) -> None:
            if call.stream > last:
                return
            served.append(call.request.req_guid)
            call.respond()
            if call.stream == last:
                call.peer.connection.sock.sendall(frame(GOAWAY, struct.pack(">II", last, 0)))

        with (
            strict_server(on_call, {Codes.MAX_CONCURRENT_STREAMS: 4}) as (target, peers),
            client(target, timeout=30.0) as rpc,
        ):
            receipts = [rpc.submit(EVENTS) for _ in range(200)]
            assert [receipt.exception(patient(30)) for receipt in receipts] == [None] * 200
        assert len(peers) >= 20
        assert set(served) == {receipt.req_guid for receipt in receipts}

    def test_a_call_not_yet_written_does_not_count_as_resent(self) -> None:
        guids: list[str] = []

        def script(connection: Connection) -> None:
            greet(connection, struct.pack(">HI", 3, 1))  # one stream at a time
            while True:
                stream, guid = read_call(connection)
                guids.append(guid)
                if connection.number == 0:
                    connection.sock.sendall(good(stream, guid) + frame(GOAWAY, struct.pack(">II", stream, 0)))
                    connection.wait_closed()
                else:
                    connection.sock.sendall(frame(RST_STREAM, struct.pack(">I", 8), stream=stream))

        with tcp_server(script) as target, client(target) as rpc:
            first, second = rpc.submit(EVENTS), rpc.submit(EVENTS)
            assert first.exception(patient(10)) is None
            error = second.exception(patient(10))
        assert isinstance(error, ConnectionLostError)
        assert (error.attempts, guids) == (1, [first.req_guid, second.req_guid])

    def test_a_call_refused_every_time_is_not_retried_forever(self) -> None:
        asked: list[str] = []

        def on_call(call: Call) -> None:
            asked.append(call.request.events[0].type)
            if asked[-1] == "bad":
                call.peer.h2.reset_stream(call.stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                call.respond()

        with strict_server(on_call) as (target, _), client(target) as rpc:
            rpc.send(EVENTS)
            with pytest.raises(ConnectionLostError) as no:
                rpc.send([("bad", b"")])
        assert (no.value.attempts, asked) == (2, ["page", "bad", "bad"])

    def test_a_connection_that_was_left_is_closed_with_the_client(self, run) -> None:
        ended = threading.Event()

        def script(connection: Connection) -> None:
            greet(connection)
            stream, guid = read_call(connection)
            if connection.number:
                connection.sock.sendall(good(stream, guid))
                connection.wait_closed()
                return
            connection.sock.sendall(frame(GOAWAY, struct.pack(">II", 2**31 - 1, 0)))
            connection.wait_closed()
            ended.set()

        async def main(target: str) -> None:
            rpc = AsyncGrpcClient(target, serializer=RAW, logger=None, retry=ONCE, timeout=60.0)
            receipt = rpc.submit(EVENTS)
            while rpc._transport is None or not rpc._transport._dialer.connection:
                await asyncio.sleep(0.005)
            while rpc._transport._dialer.connection.usable:
                await asyncio.sleep(0.005)
            await rpc.send(EVENTS)
            await rpc.close(timeout=0)
            assert receipt.done()
            assert await asyncio.get_running_loop().run_in_executor(None, ended.wait, 10)

        with tcp_server(script) as target:
            run(main(target))

    def test_a_call_refused_again_fails(self) -> None:
        def script(connection: Connection) -> None:
            greet(connection)
            while True:
                stream, _ = read_call(connection)
                connection.sock.sendall(frame(RST_STREAM, struct.pack(">I", 7), stream=stream))

        with (
            tcp_server(script) as target,
            client(target) as rpc,
            pytest.raises(ConnectionLostError, match="REFUSED_STREAM") as no,
        ):
            rpc.send(EVENTS)
        assert no.value.outcome is Outcome.NOT_DELIVERED
        assert no.value.retryable

    def test_a_cancelled_call_is_not_sent_again(self, run) -> None:
        connections = []

        def script(connection: Connection) -> None:
            connections.append(connection)
            if connection.number:
                connection.wait_closed()  # not even greeted
                return
            greet(connection)
            read_call(connection)
            connection.sock.sendall(frame(GOAWAY, struct.pack(">II", 0, 0)))
            connection.wait_closed()

        async def main(target: str) -> None:
            async with AsyncGrpcClient(target, serializer=RAW, logger=None, retry=ONCE) as rpc:
                task = asyncio.ensure_future(rpc.send(EVENTS))
                while len(connections) < 2:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        with tcp_server(script) as target:
            run(main(target))


def good(stream: int, guid: str, block: bytes = BLOCK) -> bytes:
    """An answer as most servers write it."""
    return (
        frame(HEADERS, block, flags=END_HEADERS, stream=stream)
        + frame(DATA, message(answer(guid)), stream=stream)
        + frame(HEADERS, TRAILERS, flags=END_HEADERS | END_STREAM, stream=stream)
    )


def unusual(stream: int, guid: str) -> dict[str, bytes]:
    """Answers that few servers write, and each may."""
    body = message(answer(guid))
    block = frame(HEADERS, BLOCK, flags=END_HEADERS, stream=stream)
    data = frame(DATA, body, stream=stream)
    end = frame(HEADERS, TRAILERS, flags=END_HEADERS | END_STREAM, stream=stream)
    return {
        "in pieces": b"".join(
            [
                frame(HEADERS, BLOCK[:1], stream=stream),
                frame(CONTINUATION, BLOCK[1:9], stream=stream),
                frame(CONTINUATION, BLOCK[9:], flags=END_HEADERS, stream=stream),
                *(frame(DATA, body[at : at + 1], stream=stream) for at in range(len(body))),
                frame(HEADERS, TRAILERS[:5], flags=END_STREAM, stream=stream),
                frame(CONTINUATION, TRAILERS[5:], flags=END_HEADERS, stream=stream),
            ]
        ),
        "padded": frame(HEADERS, b"\x03" + bytes(5) + BLOCK + b"xxx", flags=END_HEADERS | 8 | 32, stream=stream)
        + frame(DATA, b"\x05" + body + bytes(5), flags=PADDED, stream=stream)
        + end,
        "announced": frame(HEADERS, b"\x08\x03103", flags=END_HEADERS, stream=stream) + block + data + end,
        "among others": frame(PRIORITY, bytes(5), stream=99)
        + frame(0xEE, b"whatever", flags=255, stream=stream)
        + block
        + frame(PING, bytes(8))
        + frame(PING, bytes(8), flags=1)
        + data
        + frame(WINDOW_UPDATE, struct.pack(">I", 1), stream=stream)
        + frame(SETTINGS, struct.pack(">HI", 0x1234, 7))
        + end,
        "with empty frames": block + frame(DATA, stream=stream) + data + frame(DATA, stream=stream) + end,
        "with a reset behind it": block + data + end + frame(RST_STREAM, bytes(4), stream=stream),
        "with a table that is shrunk": frame(HEADERS, b"\x20" + BLOCK, flags=END_HEADERS, stream=stream) + data + end,
        "with fields to be indexed": frame(
            HEADERS, BLOCK + b"\x40\x01a\x01b\x40\x01c\x01d", flags=END_HEADERS, stream=stream
        )
        + data
        + end,
    }


@pytest.mark.parametrize("kind", unusual(1, ""))
@pytest.mark.parametrize("step", [0, 1])
def test_an_unusual_answer_is_accepted(kind: str, step: int) -> None:
    def script(connection: Connection) -> None:
        greet(connection)
        while True:
            stream, guid = read_call(connection)
            said = unusual(stream, guid)[kind]
            for at in range(0, len(said), step or len(said)):
                connection.sock.sendall(said[at : at + (step or len(said))])

    with tcp_server(script) as target, client(target) as rpc:
        for _ in range(3):
            rpc.send(EVENTS)


def bad(stream: int) -> dict[str, tuple[bytes, int]]:
    """What no server may write, and the code it is told (RFC 9113, 7)."""
    block = frame(HEADERS, BLOCK, flags=END_HEADERS, stream=stream)
    return {
        "a frame that is too large": (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 6),
        "a stream that was never opened": (frame(HEADERS, BLOCK, flags=END_HEADERS, stream=stream + 2), 1),
        "a stream of its own": (frame(HEADERS, BLOCK, flags=END_HEADERS, stream=2), 1),
        "headers of no stream": (frame(HEADERS, BLOCK, flags=END_HEADERS), 1),
        "data of no stream": (frame(DATA, b"x"), 1),
        "data first": (frame(DATA, b"x", stream=stream), 1),
        "more padding than payload": (block + frame(DATA, b"\x05abcd", flags=PADDED, stream=stream), 1),
        "padding of nothing": (frame(HEADERS, b"", flags=PADDED | END_HEADERS, stream=stream), 1),
        "trailers that do not end": (block + frame(HEADERS, TRAILERS, flags=END_HEADERS, stream=stream), 1),
        "a block that is interrupted": (frame(HEADERS, BLOCK, stream=stream) + frame(PING, bytes(8)), 1),
        "a block that another goes on with": (
            frame(HEADERS, BLOCK, stream=stream) + frame(CONTINUATION, b"", flags=END_HEADERS, stream=stream + 2),
            1,
        ),
        "a continuation of nothing": (frame(CONTINUATION, BLOCK, flags=END_HEADERS, stream=stream), 1),
        "a block that is cut off": (frame(HEADERS, BLOCK[:-1], flags=END_HEADERS, stream=stream), 9),
        "a table that is not there": (frame(HEADERS, b"\xbe", flags=END_HEADERS, stream=stream), 9),
        "a table that was not allowed": (frame(HEADERS, b"\x3f\xe1\x1f\x88", flags=END_HEADERS, stream=stream), 9),
        "headers without end": (
            frame(HEADERS, bytes(16_000), stream=stream) + 5 * frame(CONTINUATION, bytes(16_000), stream=stream),
            11,
        ),
        "continuations without end": (  # RFC 9113, 10.5
            frame(HEADERS, stream=stream) + 1000 * frame(CONTINUATION, stream=stream),
            11,
        ),
        "a promise": (frame(PUSH_PROMISE, bytes(4) + BLOCK, flags=END_HEADERS, stream=stream), 1),
        "a window by nothing": (frame(WINDOW_UPDATE, bytes(4)), 1),
        "a window that is too wide": (frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1)), 3),
        "a stream's window that is too wide": (frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1), stream=stream), 3),
        "a stream's window that settings make too wide": (  # RFC 9113, 6.9.2
            frame(WINDOW_UPDATE, struct.pack(">I", 2**30), stream=stream)
            + frame(SETTINGS, struct.pack(">HI", 4, 2**31 - 1)),
            3,
        ),
        "a window in two bytes": (frame(WINDOW_UPDATE, b"\x00\x01"), 1),
        "a short ping": (frame(PING, bytes(7)), 1),
        "a short goodbye": (frame(GOAWAY, bytes(7)), 1),
        "a short reset": (frame(RST_STREAM, bytes(3), stream=stream), 1),
        "a setting in five bytes": (frame(SETTINGS, bytes(5)), 6),
        "settings of a stream": (frame(SETTINGS, stream=stream), 1),
        "a first window that is too wide": (frame(SETTINGS, struct.pack(">HI", 4, 2**31)), 3),
        "frames that are too small": (frame(SETTINGS, struct.pack(">HI", 5, 16_383)), 1),
    }


@pytest.mark.parametrize("kind", bad(1))
def test_bytes_that_are_not_http2_end_the_connection_with_an_error(kind: str) -> None:
    told = []

    def script(connection: Connection) -> None:
        greet(connection)
        stream, guid = read_call(connection)
        if connection.number:
            connection.sock.sendall(good(stream, guid))
            connection.wait_closed()
            return
        connection.sock.sendall(bad(stream)[kind][0])
        while True:
            frame_kind, _, _, payload = read_frame(connection)
            if frame_kind == GOAWAY:
                told.append(struct.unpack(">II", payload[:8]))

    with tcp_server(script) as target, client(target) as rpc:
        with pytest.raises(ProtocolError, match="broke HTTP/2") as no:
            rpc.send(EVENTS)
        assert no.value.retryable
        assert no.value.outcome is Outcome.POSSIBLY_DELIVERED
        rpc.send(EVENTS)
    assert told == [(0, bad(1)[kind][1])]


def malformed(stream: int, guid: str) -> dict[str, bytes]:
    """Answers in well-formed frames that RFC 9113, 8.1.1, has a client refuse."""
    body = message(answer(guid))
    head, end = END_HEADERS, END_HEADERS | END_STREAM
    block = frame(HEADERS, BLOCK, flags=head, stream=stream)
    data = frame(DATA, body, stream=stream)
    trailers = frame(HEADERS, TRAILERS, flags=end, stream=stream)
    long, short = (b"\x0f\x0d\x02%02d" % (len(body) + more) for more in (1, -1))  # content-length

    def with_field(field: bytes) -> bytes:
        return frame(HEADERS, BLOCK + field, flags=head, stream=stream) + data + trailers

    return {
        # 8.2.1
        "an upper-case name": with_field(b"\x00\x03X-a\x011"),
        "a space in a name": with_field(b"\x00\x03x a\x011"),
        "a colon in a name": with_field(b"\x00\x03x:a\x011"),
        "a name of no characters": with_field(b"\x00\x00\x011"),
        "a name in UTF-8": with_field(b"\x00\x02\xc3\xa4\x011"),
        "a line break in a value": with_field(b"\x00\x01x\x03a\r\n"),
        "a NUL in a value": with_field(b"\x00\x01x\x01\x00"),
        "an upper-case name in the trailers": block
        + data
        + frame(HEADERS, b"\x00\x0bGrpc-Status\x010", flags=end, stream=stream),
        # 8.3.2
        "no status": frame(HEADERS, BLOCK[1:], flags=head, stream=stream) + data + trailers,
        "no status and no body": trailers,
        "no field": frame(HEADERS, b"", flags=head, stream=stream) + data + trailers,
        "a status behind a field": frame(HEADERS, BLOCK[1:] + BLOCK[:1], flags=head, stream=stream) + data + trailers,
        "two statuses": frame(HEADERS, BLOCK[:1] + BLOCK, flags=head, stream=stream) + data + trailers,
        "a status of two digits": frame(HEADERS, b"\x08\x0220" + BLOCK[1:], flags=head, stream=stream)
        + data
        + trailers,
        "a status of words": frame(HEADERS, b"\x08\x02OK" + BLOCK[1:], flags=head, stream=stream) + data + trailers,
        "a request's pseudo-header": with_field(b"\x84"),
        # 8.1
        "trailers with a status": block + data + frame(HEADERS, BLOCK[:1] + TRAILERS, flags=end, stream=stream),
        "an interim answer and an end": frame(HEADERS, b"\x08\x03103", flags=end, stream=stream),
        # 8.6
        "another protocol": frame(HEADERS, b"\x08\x03101", flags=head, stream=stream) + block + data + trailers,
        # 8.1.1
        "a length that is too large": with_field(long),
        "a length that is too small": with_field(short),
        "a length that is too large, without trailers": frame(HEADERS, BLOCK + long, flags=head, stream=stream)
        + frame(DATA, body, flags=END_STREAM, stream=stream),
        "a length of nothing": frame(HEADERS, BLOCK + long, flags=end, stream=stream),
        "a length in words": with_field(b"\x0f\x0d\x03two"),
        "two lengths": with_field(b"\x0f\x0d\x02%02d" % len(body) + long),
    }


@pytest.mark.parametrize("kind", malformed(1, ""))
def test_a_malformed_answer_is_refused_and_others_on_the_connection_are_not(kind: str) -> None:
    told = []

    def script(connection: Connection) -> None:
        greet(connection)
        first, bad_guid = read_call(connection)
        second, good_guid = read_call(connection)
        connection.sock.sendall(malformed(first, bad_guid)[kind] + good(second, good_guid))
        while True:
            frame_kind, _, stream, payload = read_frame(connection)
            if frame_kind == RST_STREAM:
                told.append((stream, struct.unpack(">I", payload)[0]))
            elif frame_kind == DATA:
                guid = SendEventRequest.FromString(payload[5:]).req_guid
                connection.sock.sendall(good(stream, guid))

    with tcp_server(script) as target, client(target) as rpc:
        bad_one, good_one = rpc.submit(EVENTS), rpc.submit(EVENTS)
        error = bad_one.exception(patient(10))
        assert good_one.exception(patient(10)) is None
        assert isinstance(error, ProtocolError), error
        assert "broke HTTP/2" in str(error)
        assert error.outcome is Outcome.POSSIBLY_DELIVERED
        rpc.send(EVENTS)  # the connection is still there
    assert told == [(1, 1)]


@pytest.mark.parametrize(
    "field",
    [
        b"\x0f\x0d\x02%02d" % len(message(answer(str(uuid.UUID(int=0))))),  # a content-length that is right
        b"\x00\x0aconnection\x0akeep-alive",  # as some proxies leave it in (RFC 9113, 8.2.2)
        b"\x00\x01x\x03 a ",
        b"\x00\x01x\x05caf\xc3\xa9",
        b"\x00\x10x!#$%&'*+-.^_`|~\x00",
    ],
)
def test_fields_that_do_no_harm_pass(field: bytes) -> None:
    def script(connection: Connection) -> None:
        greet(connection)
        stream, guid = read_call(connection)
        connection.sock.sendall(good(stream, guid, BLOCK + field))
        connection.wait_closed()

    with tcp_server(script) as target, client(target) as rpc:
        rpc.send(EVENTS, req_guid=str(uuid.UUID(int=0)))


class TestTable:
    """RFC 7541, 4.2: a table of 0 has to be kept to, which h2o 2.2 does not do."""

    @staticmethod
    def serve(offers: list[int], ends: int | None = None):
        """A server with a table of 4,096 bytes whatever it is told; it ends each connection after `ends` answers."""

        def script(connection: Connection) -> None:
            greet(connection)
            encoder = Encoder()
            answered = 0
            while True:
                kind, flags, stream, payload = read_frame(connection)
                if kind == SETTINGS and not flags:
                    offers.append(dict(struct.iter_unpack(">HI", payload))[1])
                if kind != DATA:
                    continue
                guid = SendEventRequest.FromString(payload[5:]).req_guid
                block = encoder.encode([*HEAD, ("server", "h2o/2.2.6")])
                trailers = encoder.encode([("grpc-status", "0"), ("x-number", str(answered % 3))])
                connection.sock.sendall(
                    frame(HEADERS, block, flags=END_HEADERS, stream=stream)
                    + frame(DATA, message(answer(guid)), stream=stream)
                    + frame(HEADERS, trailers, flags=END_HEADERS | END_STREAM, stream=stream)
                )
                answered += 1
                if answered == ends:
                    connection.sock.sendall(frame(GOAWAY, struct.pack(">II", stream, 0)))
                    connection.wait_closed()

        return script

    def test_a_server_that_uses_a_table_is_offered_one(self) -> None:
        offers: list[int] = []
        retry = RetryPolicy(max_attempts=2, initial=0.01)
        with tcp_server(self.serve(offers)) as target, client(target, retry=retry) as rpc:
            for _ in range(20):
                rpc.send(EVENTS)
        assert offers == [0, 4096]

    def test_later_connections_are_offered_a_table_too(self) -> None:
        offers: list[int] = []
        retry = RetryPolicy(max_attempts=2, initial=0.01)
        with tcp_server(self.serve(offers, ends=4)) as target, client(target, retry=retry) as rpc:
            for _ in range(12):
                rpc.send(EVENTS)
        assert offers == [0, 4096, 4096, 4096]

    def test_answers_to_abandoned_calls_fill_the_table_too(self, run) -> None:
        """A block that nobody waits for has to be decoded as well (RFC 9113, 4.3)."""
        fields = [(":status", "200"), ("x-filled", "long enough to be indexed")]
        called = threading.Event()

        def script(connection: Connection) -> None:
            greet(connection)
            first, _ = read_call(connection)
            if connection.number == 0:
                connection.sock.sendall(frame(HEADERS, b"\xbe", flags=END_HEADERS, stream=first))
                connection.wait_closed()
                return
            called.set()
            while read_frame(connection)[0] != RST_STREAM:
                pass
            encoder = Encoder()
            connection.sock.sendall(frame(HEADERS, encoder.encode(fields), flags=END_HEADERS, stream=first))
            block = encoder.encode(fields)
            assert len(block) == 2  # both by their number
            stream, guid = read_call(connection)
            connection.sock.sendall(good(stream, guid, block))
            connection.wait_closed()

        async def main(target: str) -> None:
            async with AsyncGrpcClient(target, serializer=RAW, logger=None, retry=ONCE) as rpc:
                with pytest.raises(ProtocolError, match="cannot be read"):
                    await rpc.send(EVENTS)
                task = asyncio.ensure_future(rpc.send(EVENTS))
                while not called.is_set():
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await rpc.send(EVENTS)

        with tcp_server(script) as target:
            run(main(target))

    def test_a_table_is_bounded(self) -> None:
        """A server may not make it larger than was offered (RFC 7541, 6.3)."""
        reader = TableReader()
        with pytest.raises(FrameError):
            reader.read_block(b"\x3f\xe2\x1f\x88")


class TestGreeting:
    @pytest.mark.parametrize(
        "said",
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16", frame(PING, bytes(8)), b"\xff" * 100],
    )
    def test_bytes_that_are_not_a_greeting(self, said: bytes) -> None:
        def script(connection: Connection) -> None:
            connection.sock.sendall(said)
            connection.wait_closed()

        with (
            tcp_server(script) as target,
            client(target, connect_timeout=0.5) as rpc,
            pytest.raises(ConnectError) as no,
        ):
            rpc.send(EVENTS)
        assert "HTTP/2" in str(no.value)
        assert no.value.outcome is Outcome.NOT_DELIVERED

    def test_a_missing_greeting(self) -> None:
        with (
            tcp_server(Connection.wait_closed) as target,
            client(target, connect_timeout=0.2) as rpc,
            pytest.raises(ConnectError, match="did not greet as an HTTP/2 server within"),
        ):
            rpc.send(EVENTS)

    def test_a_connection_that_ends_before_the_greeting(self) -> None:
        with (
            tcp_server(lambda connection: None) as target,
            client(target) as rpc,
            pytest.raises(ConnectError, match="before its greeting"),
        ):
            rpc.send(EVENTS)


@pytest.mark.parametrize("offered", [["h2"], ["h2", "http/1.1"], ["http/1.1"], ["spdy/3"], []])
def test_tls_must_negotiate_http2(tmp_path: Path, offered: list[str]) -> None:
    """RFC 9113, 3.2: HTTP/2 over TLS is negotiated by ALPN; not a byte of it goes to who did not choose it."""
    files = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    if offered:
        context.set_alpn_protocols(offered)
    told: list[bytes] = []

    def script(connection: Connection) -> None:
        if "h2" not in offered:
            try:
                told.append(context.wrap_socket(connection.sock, server_side=True).recv(100))
            except OSError:  # the client ended TCP without a word
                told.append(b"")
            return
        connection.sock = context.wrap_socket(connection.sock, server_side=True)
        greet(connection)
        stream, guid = read_call(connection)
        connection.sock.sendall(good(stream, guid))
        connection.wait_closed()

    with tcp_server(script) as target, client(f"grpcs://{target}", tls=TLS(ca=str(files.ca))) as rpc:
        if "h2" in offered:
            rpc.send(EVENTS)
            return
        with pytest.raises(ConnectError, match="does not offer HTTP/2: it chose no protocol by ALPN") as no:
            rpc.send(EVENTS)
        assert no.value.outcome is Outcome.NOT_DELIVERED
        wait_until(lambda: len(told) == 1)
    assert told == [b""]


class TestAnswers:
    """What gRPC says beneath its messages (grpc's doc/PROTOCOL-HTTP2.md, doc/http-grpc-status-mapping.md)."""

    @staticmethod
    def error(fields: list[tuple[str, str]], body: bytes = b"", trailers: list[tuple[str, str]] | None = None):
        def on_call(call: Call) -> None:
            call.peer.h2.send_headers(call.stream, fields, end_stream=not body and trailers is None)
            if body:
                call.peer.h2.send_data(call.stream, body, end_stream=trailers is None)
            if trailers is not None:
                call.peer.h2.send_headers(call.stream, trailers, end_stream=True)

        with strict_server(on_call) as (target, _), client(target) as rpc, pytest.raises(Exception) as no:
            rpc.send(EVENTS)
        return no.value

    @pytest.mark.parametrize(
        ("status", "code", "retryable"),
        [
            (400, "INTERNAL", False),
            (401, "UNAUTHENTICATED", False),
            (403, "PERMISSION_DENIED", False),
            (404, "UNIMPLEMENTED", False),
            (429, "UNAVAILABLE", True),
            (502, "UNAVAILABLE", True),
            (503, "UNAVAILABLE", True),
            (504, "UNAVAILABLE", True),
            (500, "UNKNOWN", False),
            (302, "UNKNOWN", False),
        ],
    )
    def test_an_answer_of_a_proxy(self, status: int, code: str, retryable: bool) -> None:
        error = self.error([(":status", str(status)), ("content-type", "text/html")], b"<html>")
        assert isinstance(error, ServerError)
        assert (error.status, error.retryable) == (code, retryable)
        assert f"HTTP status {status}" in str(error)

    @pytest.mark.parametrize(("status", "connections"), [(403, 2), (404, 2), (429, 1), (503, 1)])
    def test_the_next_request_leaves_a_connection_that_a_proxy_refuses(self, status: int, connections: int) -> None:
        """The proxy may have another configuration by then. It may also be busy, so the old one gets no more calls."""

        def on_call(call: Call) -> None:
            call.peer.h2.send_headers(call.stream, [(":status", str(status))], end_stream=True)

        with strict_server(on_call) as (target, peers), client(target) as grpc_client:
            for _ in range(2):
                with pytest.raises(ServerError, match=str(status)):
                    grpc_client.send(EVENTS)
            assert len(peers) == connections

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_proxy_may_ask_to_wait(self, status: int) -> None:
        error = self.error([(":status", str(status)), ("retry-after", "2")], b"<html>\nbusy")
        assert (error.retry_after_s, error.said) == (2.0, f"HTTP status {status}: <html> busy")
        assert self.error([(":status", str(status)), ("retry-after", "soon")]).retry_after_s is None

    @pytest.mark.parametrize(
        ("pushback", "retryable", "wait_s"),
        [("1500", True, 1.5), ("0", True, 0.0), ("99999999999", True, 300.0), ("-1", False, 30.0), ("x", False, 30.0)],
    )
    @pytest.mark.parametrize("trailers_only", [True, False])
    def test_a_server_may_ask_to_wait_or_not_to_retry(
        self, pushback: str, retryable: bool, wait_s: float, trailers_only: bool
    ) -> None:
        said = [("grpc-status", "14"), ("grpc-retry-pushback-ms", pushback)]
        error = self.error([*HEAD, *said]) if trailers_only else self.error(HEAD, trailers=said)
        assert (error.status, error.retryable, error.retry_after_s) == ("UNAVAILABLE", retryable, wait_s)

    def test_the_requested_wait_is_obeyed(self) -> None:
        began_s: list[float] = []

        def on_call(call: Call) -> None:
            began_s.append(time.monotonic())
            if len(began_s) > 1:
                call.respond()
                return
            fields = [(":status", "503"), ("retry-after", "1")]
            call.peer.h2.send_headers(call.stream, fields, end_stream=True)

        retry = RetryPolicy(max_attempts=2, initial=0.01)
        with strict_server(on_call) as (target, _), client(target, retry=retry) as rpc:
            rpc.send(EVENTS)
        assert 0.99 <= began_s[1] - began_s[0] < 20.0

    def test_too_large_from_a_proxy_or_the_server(self) -> None:
        for fields in ([(":status", "413")], [*HEAD, ("grpc-status", "2"), ("grpc-message", "Payload Too Large")]):
            error = self.error(fields)
            assert isinstance(error, MessageTooLargeError)
            assert error.size > 0

    def test_without_a_status(self) -> None:
        for error in (
            self.error([(":status", "200")], b"<html>hello</html>"),
            self.error(HEAD, message(b""), [("x", "y")]),
            self.error(HEAD),
        ):
            assert isinstance(error, ProtocolError)
            assert "without a gRPC status" in str(error)

    @pytest.mark.parametrize("number", ["17", "-1", "abc", "00", "9" * 5000])
    def test_an_answer_with_an_invalid_status(self, number: str) -> None:
        error = self.error(HEAD, trailers=[("grpc-status", number)])
        assert isinstance(error, ServerError)
        assert error.status == "UNKNOWN"

    def test_the_details_are_unquoted(self) -> None:
        error = self.error([*HEAD, ("grpc-status", "3"), ("grpc-message", "bad%3A %E2%82%AC %zz")])
        assert str(error).endswith("INVALID_ARGUMENT: bad: \u20ac %zz")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\x00",
            message(b"\x08\x01", flag=1),
            message(b"\x08\x01") * 2,
            message(b"\x08\x01") + b"x",
            b"\0\0\0\0\x09",
        ],
    )
    def test_an_answer_that_is_not_one_plain_message(self, body: bytes) -> None:
        error = self.error(HEAD, body, [("grpc-status", "0")])
        assert isinstance(error, ProtocolError)
        assert "not one plain message" in str(error)
        assert error.retryable

    def test_an_answer_too_large(self) -> None:
        sent = []

        def script(connection: Connection) -> None:
            greet(connection)
            stream, _ = read_call(connection)
            connection.sock.sendall(frame(HEADERS, BLOCK, flags=END_HEADERS, stream=stream))
            for _ in range(66):  # a little more than 1 MiB
                connection.sock.sendall(frame(DATA, bytes(16_384), stream=stream))
            while True:
                sent.append(read_frame(connection))

        with (
            tcp_server(script) as target,
            client(target) as rpc,
        ):
            with pytest.raises(ProtocolError, match="answer of over 1048576 bytes"):
                rpc.send(EVENTS)
            wait_until(
                lambda: any((kind, payload) == (RST_STREAM, struct.pack(">I", 8)) for kind, _, _, payload in sent)
            )


def test_a_server_that_pings_without_reading() -> None:
    """The answers to its pings are not buffered without bound."""
    ended = threading.Event()

    def script(connection: Connection) -> None:
        greet(connection)
        try:
            while True:
                connection.sock.sendall(1000 * frame(PING, bytes(8)))
        finally:
            ended.set()

    with tcp_server(script) as target, client(target, timeout=30) as rpc:
        with pytest.raises((ProtocolError, ConnectionLostError)):
            rpc.send(EVENTS, req_guid=str(uuid.uuid4()))
        assert ended.wait(patient(10))


class TestPings:
    """Our own (RFC 9113, 6.7), which a gRPC server allows only few of."""

    def test_a_connection_that_does_not_answer_ends_and_its_calls_are_retried(self) -> None:
        connections: list[Connection] = []

        def script(connection: Connection) -> None:
            connections.append(connection)
            greet(connection)
            if len(connections) == 1:  # it takes the call, and the ping, and is never heard of again
                with contextlib.suppress(EOFError, OSError):
                    while True:
                        read_frame(connection)
            stream, guid = read_call(connection)
            connection.sock.sendall(
                frame(HEADERS, BLOCK, flags=4, stream=stream)
                + frame(DATA, message(answer(guid)), stream=stream)
                + frame(HEADERS, TRAILERS, flags=5, stream=stream)
            )
            with contextlib.suppress(EOFError, OSError):
                while True:
                    read_frame(connection)

        with tcp_server(script) as target:
            options = {
                "timeout": 60.0,
                "retry": RetryPolicy(max_attempts=2, initial=0.01),
                "stats": (stats := Figures()),
            }
            with client(target, ping_interval=0.1, pong_timeout=0.2, **options) as grpc_client:
                grpc_client.send(EVENTS)
                wait_until(lambda: stats.errors == 1)
        assert len(connections) == 2

    def test_pings_stay_within_the_policy_of_grpc_go(self) -> None:
        """The collector counts them as grpc-go does, and ends a connection after three too many."""
        pings = []
        original = HTTP2Connection._ping
        with Collector(sink="null") as collector, pytest.MonkeyPatch.context() as patch:
            patch.setattr(HTTP2Connection, "_ping", lambda self, data: (pings.append(self), original(self, data)))
            with client(collector.grpc_target, ping_interval=0.02) as grpc_client:
                for number in range(1, 8):
                    grpc_client.send(EVENTS)
                    wait_until(lambda number=number: len(pings) >= number)
                assert len(pings) <= 8  # one for each answer, and one before the first if it is late
                assert len({*pings}) == 1  # connection
