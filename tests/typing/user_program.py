"""A user's program with type hints, checked by mypy and pyright; it does not run.

A line with an intended error says so at its end; all other lines are correct.
"""

from __future__ import annotations

import json
from typing import Any

from raccoon_fast import (
    JSON,
    RAW,
    Ack,
    AsyncGrpcClient,
    AsyncProducer,
    AsyncReceipt,
    AsyncRestClient,
    AsyncWebSocketClient,
    Code,
    Event,
    GrpcClient,
    Producer,
    Receipt,
    Report,
    RestClient,
    SendResult,
    Serializer,
    Status,
    WebSocketClient,
)

URL = "http://localhost:8080"


class Message:
    def SerializeToString(self) -> bytes:  # noqa: N802
        return b""


def encode(data: dict[str, int]) -> bytes:
    return json.dumps(data).encode()


def producers() -> None:
    raw = Producer(URL, serializer=RAW)
    receipt: Receipt = raw.emit("page", b"")
    raw.emit("page", memoryview(b""))
    raw.emit("page", {})  # error
    raw.emit(5, b"")  # error
    raw.emit_many([("page", b""), ("page", bytearray())])
    raw.emit_many([("page", "text")])  # error
    raw.emit_batch([("page", 5)], req_guid="g")  # error
    own = Producer(URL, serializer=encode)
    own.emit("page", {"number": 5})
    own.emit("page", {"number": "five"})  # error
    anything = Producer(URL, serializer=JSON)
    anything.emit("page", {"number": [5]})
    Producer(URL, serializer=lambda data: json.dumps(data).encode()).emit("page", {"number": 5})
    messages = Producer(URL)
    messages.emit("page", Message())
    report: Report = raw.close()
    print(receipt.result().status is Status.SUCCESS, report.total.acked)


def options(overflow: str) -> None:
    Producer(URL, overflow="spool", wire="json", server_acks="published", linger=1, timeout=5)
    Producer(URL, overflow="drop")  # error
    Producer(URL, overflow=overflow)  # error
    Producer(URL, wire="xml")  # error
    Producer(URL, server_acks="stored")  # error
    Producer(URL, batch_size=5)  # error
    Producer(URL, serializer="json")  # error
    Producer(None)  # error
    RestClient(URL, wire="xml")  # error
    RestClient(URL, logger=5)  # error
    Producer.from_env(serializer=RAW).emit("page", b"")


def names(producer: Producer, one_of_bytes: Producer[bytes], client: RestClient) -> None:
    """A type without a parameter takes anything."""
    producer.emit("page", {})
    one_of_bytes.emit("page", b"")
    one_of_bytes.emit("page", "text")  # error
    client.send([("page", {})])
    names(Producer(URL, serializer=JSON), Producer(URL, serializer=RAW), RestClient(URL, serializer=JSON))


def clients() -> None:
    with RestClient(URL, serializer=RAW) as rest:
        result: SendResult = rest.send([("page", b""), Event("page", b"")])
        rest.send([("page", {})])  # error
        rest.send([Event("page", {})])  # error
        rest.submit([("page", "text")])  # error
    with WebSocketClient("ws://localhost:8080", serializer=encode) as websocket:
        websocket.send([("page", {"number": 5})])
        websocket.send([("page", b"")])  # error
        for ack in websocket.acks():
            one: Ack = ack
            print(one.ack_ms)
    with GrpcClient("localhost:8081", serializer=JSON, app=None) as grpc:
        grpc.send([("page", {"number": 5})])
    code: Code = result.response.code
    print(code, result.req_guid)


async def async_faces() -> None:
    async with AsyncProducer(URL, serializer=RAW, overflow="raise") as producer:
        receipt: AsyncReceipt = await producer.emit("page", b"")
        await producer.emit("page", {})  # error
        producer.emit_nowait("page", 5)  # error
        await producer.emit_many([("page", "text")])  # error
        await receipt
    async with AsyncRestClient(URL, serializer=RAW) as rest:
        await rest.send([("page", b"")])
        await rest.send([("page", {})])  # error
    async with AsyncWebSocketClient("ws://localhost:8080", serializer=encode) as websocket:
        await websocket.send([("page", b"")])  # error
    async with AsyncGrpcClient("localhost:8081", serializer=encode) as grpc:
        await grpc.send([("page", {"number": 5})])
        grpc.submit([("page", b"")])  # error


class OfTheirs(Producer[dict[str, Any]]):
    def emit(self, type: str, data: dict[str, Any]) -> Receipt:  # noqa: A002
        return super().emit(type, {**data, "host": "h"})


def subclass() -> None:
    OfTheirs(URL, serializer=JSON).emit("page", {})
    OfTheirs(URL, serializer=JSON).emit("page", b"")  # error
    serializer: Serializer[dict[str, int]] = encode
    any_serializer: Serializer = JSON
    print(serializer({"number": 5}), any_serializer(5))
