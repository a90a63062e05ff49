"""Decodes answers and resolves their futures: this package, compiled and pure, google.protobuf, and JSON libraries.

A thousand requests are pending, each with a future. Their answers, as the bytes that a server sends, are decoded and
matched by guid, and the futures are resolved. The benchmark checks that all of them are resolved. Creating the futures
and registering the requests is not timed.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from harness import PURE, Clocks, Effort, LeftOut, Table, Timing, fresh, in_turns

from raccoon_fast.collector.messages import SendEventResponse
from raccoon_fast.events import Status

PENDING = 1000
TURNS = 20
BASE = "raccoon_fast"
PURE_FORM = "raccoon_fast, pure Python"


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    clocks = Clocks("Decoding an answer and resolving its future", "decoder", BASE, "ns of CPU per answer")
    for wire in ("protobuf", "JSON"):
        peers = ("google.protobuf + dict",) if wire == "protobuf" else ("json + dict", "orjson + dict")
        measures = {
            name: functools.partial(fresh, _time_answers, name, wire, effort, env=PURE if name == PURE_FORM else None)
            for name in (BASE, PURE_FORM, *peers)
        }
        for name, timings in in_turns(effort, measures).items():
            clocks.add(name, wire, timings)
    return [clocks.cpu, clocks.wall]


def _time_answers(name: str, wire: str, effort: Effort) -> list[Timing]:
    timings = [_time_turns(name, wire, effort.count(TURNS)) for _ in range(1 + effort.rounds)]
    return timings[1:]


def _time_turns(name: str, wire: str, turns: int) -> Timing:
    loop = asyncio.new_event_loop()
    guids = [str(uuid.uuid4()) for _ in range(PENDING)]
    answers = [_answer(guid, wire) for guid in guids]
    cpu_ns = wall_ns = 0
    for _ in range(turns):
        futures = [loop.create_future() for _ in guids]
        resolve = (_ours if name.startswith(BASE) else _peer)(name, wire, guids, futures)
        wall_start, cpu_start = time.perf_counter_ns(), time.thread_time_ns()
        for answer in answers:
            resolve(answer)
        cpu_ns += time.thread_time_ns() - cpu_start
        wall_ns += time.perf_counter_ns() - wall_start
        assert all(future.done() for future in futures)
    loop.close()
    return Timing(cpu_ns / turns / PENDING, wall_ns / turns / PENDING)


def _answer(guid: str, wire: str) -> bytes:
    if wire == "JSON":
        return json.dumps({"status": 1, "code": 1, "sent_time": 1_700_000_000, "data": {"req_guid": guid}}).encode()
    return SendEventResponse(status=1, code=1, sent_time=1_700_000_000, data={"req_guid": guid}).SerializeToString()


def _ours(name: str, wire: str, guids: list[str], futures: list[asyncio.Future[Any]]) -> Callable[[bytes], None]:
    from raccoon_fast.core.acks import AckTable, Verdict
    from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer

    decode = decode_json_answer if wire == "JSON" else decode_proto_answer
    table = AckTable()
    for guid, future in zip(guids, futures, strict=True):
        table.add(guid, future, 1.0)

    success, matched = Status.SUCCESS, Verdict.MATCHED  # looked up once, as a connection does

    def resolve(answer: bytes) -> None:
        response = decode(answer)
        verdict, future = table.settle(response.req_guid, response.status is success)
        if verdict is matched and not future.done():
            future.set_result(response)

    return resolve


def _peer(name: str, wire: str, guids: list[str], futures: list[asyncio.Future[Any]]) -> Callable[[bytes], None]:
    pending = dict(zip(guids, futures, strict=True))

    def resolve_message(answer: bytes) -> None:
        response = SendEventResponse.FromString(answer)
        future = pending.pop(response.data["req_guid"], None)
        if future is not None and not future.done():
            future.set_result(response)

    loads = orjson.loads if name.startswith("orjson") else json.loads

    def resolve_object(answer: bytes) -> None:
        response = loads(answer)
        future = pending.pop(response["data"]["req_guid"], None)
        if future is not None and not future.done():
            future.set_result(response)

    return resolve_object if wire == "JSON" else resolve_message
