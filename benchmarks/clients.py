"""Clients that send events to a Raccoon server: our producers, and typical code with other libraries.

The typical code follows the libraries' documentation: it fills a google.protobuf message with `add`, uses one session
or connection for all requests, and parses and checks each answer. With an asynchronous library it keeps eight requests
in flight, as our clients do. Each client is a context manager that yields a function; the function sends the given
number of requests and returns when each has been answered with SUCCESS.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from payloads import GUID, google_request

from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

Events = list[tuple[str, bytes]]
Send = Callable[[int], None]

IN_FLIGHT = 8
PATH = "/api/v1/events"
HEADERS = {"Content-Type": "application/proto", "X-User-ID": "benchmark"}
METADATA = (("x-user-id", "benchmark"),)
METHOD = "/raystack.raccoon.v1beta1.EventService/SendEvent"
SUCCESS = 1


# Our clients.


@contextmanager
def producer(url: str, events: Events) -> Iterator[Send]:
    from raccoon_fast import RAW, Producer

    with Producer(url, serializer=RAW, logger=None, batch_events=len(events), batch_bytes=4_000_000) as ours:
        accepted = 0

        def send(requests: int) -> None:
            nonlocal accepted
            for _ in range(requests):
                ours.emit_many(events)
            accepted += requests * len(events)
            assert ours.flush(60) == 0
            assert ours.stats().total.acked == accepted

        yield send


@contextmanager
def async_producer(url: str, events: Events) -> Iterator[Send]:
    import uvloop

    from raccoon_fast import RAW, AsyncProducer

    loop = uvloop.new_event_loop()
    ours = AsyncProducer(url, serializer=RAW, logger=None, batch_events=len(events), batch_bytes=4_000_000)
    accepted = 0

    async def send_all(requests: int) -> None:
        nonlocal accepted
        for _ in range(requests):
            await ours.emit_many(events)
        accepted += requests * len(events)
        assert await ours.flush(60) == 0
        assert ours.stats().total.acked == accepted

    yield lambda requests: loop.run_until_complete(send_all(requests))
    loop.run_until_complete(ours.close())
    loop.close()


@contextmanager
def submit(url: str, events: Events) -> Iterator[Send]:
    """Send requests with a client, eight in flight."""
    from raccoon_fast import RAW, GrpcClient, RestClient, WebSocketClient

    kinds = {"http": RestClient, "ws": WebSocketClient, "grpc": GrpcClient}
    with kinds[url.partition(":")[0]](url, serializer=RAW, logger=None) as client:

        def send(requests: int) -> None:
            receipts: deque[Any] = deque()
            for _ in range(requests):
                if len(receipts) == IN_FLIGHT:
                    receipts.popleft().result(60)
                receipts.append(client.submit(events))
            for receipt in receipts:
                receipt.result(60)

        yield send


# REST.


@contextmanager
def httpx(url: str, events: Events, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Send]:
    import httpx

    loop = loop or asyncio.new_event_loop()
    client = httpx.AsyncClient()

    async def post() -> None:
        req_guid, body = _message(events)
        answer = await client.post(url + PATH, content=body, headers=HEADERS)
        answer.raise_for_status()
        _check(req_guid, answer.content)

    yield lambda requests: loop.run_until_complete(_in_flight(post, requests))
    loop.run_until_complete(client.aclose())
    loop.close()


@contextmanager
def aiohttp(url: str, events: Events, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Send]:
    import aiohttp

    loop = loop or asyncio.new_event_loop()

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = loop.run_until_complete(open_session())

    async def post() -> None:
        req_guid, body = _message(events)
        async with session.post(url + PATH, data=body, headers=HEADERS) as answer:
            answer.raise_for_status()
            _check(req_guid, await answer.read())

    yield lambda requests: loop.run_until_complete(_in_flight(post, requests))
    loop.run_until_complete(session.close())
    loop.close()


@contextmanager
def requests(url: str, events: Events) -> Iterator[Send]:
    import requests

    with requests.Session() as session:

        def send(count: int) -> None:
            for _ in range(count):
                req_guid, body = _message(events)
                answer = session.post(url + PATH, data=body, headers=HEADERS)
                answer.raise_for_status()
                _check(req_guid, answer.content)

        yield send


# WebSocket.


@contextmanager
def websockets(url: str, events: Events, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Send]:
    from websockets.asyncio.client import connect

    loop = loop or asyncio.new_event_loop()
    pending: dict[str, asyncio.Future[None]] = {}

    async def open_connection() -> Any:
        return await connect(url + PATH, additional_headers={"X-User-ID": str(uuid.uuid4())})

    async def read() -> None:
        async for answer in connection:
            _resolve(pending, answer)

    async def send() -> None:
        req_guid, message = _message(events)
        answered = pending[req_guid] = loop.create_future()
        await connection.send(message)  # may wait for buffer space for longer than the answer takes
        await answered

    connection = loop.run_until_complete(open_connection())
    reader = loop.create_task(read())
    yield lambda count: loop.run_until_complete(_in_flight(send, count))
    loop.run_until_complete(connection.close())
    loop.run_until_complete(reader)
    loop.close()


@contextmanager
def picows(url: str, events: Events, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Send]:
    from picows import WSListener, WSMsgType, ws_connect

    loop = loop or asyncio.new_event_loop()
    pending: dict[str, asyncio.Future[None]] = {}

    class Listener(WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == WSMsgType.BINARY:
                _resolve(pending, frame.get_payload_as_bytes())

    async def send() -> None:
        req_guid, message = _message(events)
        answered = pending[req_guid] = loop.create_future()
        transport.send(WSMsgType.BINARY, message)
        await answered

    async def close() -> None:
        transport.disconnect()
        await transport.wait_disconnected()

    transport, _ = loop.run_until_complete(
        ws_connect(Listener, url + PATH, extra_headers={"X-User-ID": str(uuid.uuid4())})
    )
    yield lambda count: loop.run_until_complete(_in_flight(send, count))
    loop.run_until_complete(close())
    loop.close()


# gRPC.


@contextmanager
def grpc_aio(url: str, events: Events) -> Iterator[Send]:
    """Like generated stubs: messages in, messages out."""

    def make() -> tuple[str, Any]:
        req_guid = str(uuid.uuid4())
        request = SendEventRequest(req_guid=req_guid)
        add = request.events.add
        for type_, data in events:
            add(event_bytes=data, type=type_)
        return req_guid, request

    with _grpc_aio(url, make, SendEventRequest.SerializeToString, SendEventResponse.FromString) as send:
        yield send


@contextmanager
def grpc_aio_ready_bytes(url: str, events: Events) -> Iterator[Send]:
    """Bare calls: each sends the same prepared bytes, and the answers are not parsed."""
    message = google_request(GUID, events)
    with _grpc_aio(url, lambda: ("", message), None, None) as send:
        yield send


@contextmanager
def _grpc_aio(url: str, make: Callable[[], tuple[str, Any]], serialize: Any, deserialize: Any) -> Iterator[Send]:
    import grpc.aio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def open_call() -> tuple[Any, Any]:
        channel = grpc.aio.insecure_channel(url.removeprefix("grpc://"))
        call = channel.unary_unary(METHOD, request_serializer=serialize, response_deserializer=deserialize)
        return channel, call

    channel, call = loop.run_until_complete(open_call())

    async def send() -> None:
        req_guid, request = make()
        answer = await call(request, metadata=METADATA)
        if deserialize is not None:
            assert answer.status == SUCCESS
            assert answer.data["req_guid"] == req_guid

    yield lambda count: loop.run_until_complete(_in_flight(send, count))
    loop.run_until_complete(channel.close())
    loop.close()


# The floor.


@contextmanager
def sendall(address: tuple[str, int], events: Events) -> Iterator[Send]:
    """Write the same prepared bytes with a blocking socket to a process that discards them; no answers."""
    message = google_request(GUID, events)
    with socket.create_connection(address) as connection:

        def send(count: int) -> None:
            for _ in range(count):
                connection.sendall(message)

        yield send


def on_uvloop(client: Callable[..., Any]) -> Callable[[str, Events], Any]:
    """Run a client of another library, written for asyncio's own loop, on uvloop."""

    def with_loop(url: str, events: Events) -> Any:
        import uvloop

        return client(url, events, uvloop.new_event_loop())

    return with_loop


def _message(events: Events) -> tuple[str, bytes]:
    req_guid = str(uuid.uuid4())
    return req_guid, google_request(req_guid, events)


def _check(req_guid: str, answer: bytes) -> None:
    response = SendEventResponse.FromString(answer)
    assert response.status == SUCCESS
    assert response.data["req_guid"] == req_guid


def _resolve(pending: dict[str, asyncio.Future[None]], answer: bytes) -> None:
    response = SendEventResponse.FromString(answer)
    assert response.status == SUCCESS
    pending.pop(response.data["req_guid"]).set_result(None)


async def _in_flight(send: Callable[[], Awaitable[None]], count: int) -> None:
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            await send()

    await asyncio.gather(*(one_after_the_other() for _ in range(min(IN_FLIGHT, count))))
