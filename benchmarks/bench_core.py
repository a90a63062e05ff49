"""Compares the core's two forms with google.protobuf and with copying the bytes: python benchmarks/bench_core.py.

200-byte events in batches of 1000, each batch to a finished message; then a typical answer with its settling. All in
one process, the cases taken in turns, the best of each: read the ratios, not the times.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import raccoon_fast
from raccoon_fast.core import (
    _acks_c,
    _acks_py,
    _answers_c,
    _answers_py,
    _envelope_c,
    _envelope_py,
)

EVENTS = 1000
EVENT_BYTES = 200
TURNS = 30
# Runs of a case one after the other, so that the best one has its own memory in the caches.
WARM = 3
GUID = "17e2ac19-df8b-4a30-b111-fd7f5073d2f5"
NOW = (1_700_000_000, 123_456_789)


def message_class(name: str) -> type:
    path = Path(raccoon_fast.__file__).parent / "collector" / "raccoon.desc"
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"raystack.raccoon.v1beta1.{name}"))


def best_ns(cases: dict[str, Callable[[], object]], per: int) -> dict[str, float]:
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(TURNS):
        for name, case in cases.items():
            for _ in range(WARM):
                start = time.perf_counter_ns()
                case()
                best[name] = min(best[name], (time.perf_counter_ns() - start) / per)
    return best


def show(title: str, times: dict[str, float]) -> None:
    base = next(iter(times.values()))
    print(f"\n{title}")
    for name, ns in times.items():
        print(f"  {name:34} {ns:9.1f} ns   {base / ns:8.2f} times as fast")


def main() -> None:
    request_class, response_class = message_class("SendEventRequest"), message_class("SendEventResponse")
    events = [("page-view", os.urandom(EVENT_BYTES)) for _ in range(EVENTS)]

    def google() -> bytes:
        request = request_class(req_guid=GUID, sent_time={"seconds": NOW[0], "nanos": NOW[1]})
        for type_, data in events:
            request.events.add(event_bytes=data, type=type_)
        return request.SerializeToString()

    def stdlib_json() -> bytes:
        rows = [{"event_bytes": base64.b64encode(data).decode(), "type": type_} for type_, data in events]
        sent_time = {"seconds": NOW[0], "nanos": NOW[1]}
        return json.dumps({"req_guid": GUID, "sent_time": sent_time, "events": rows}).encode()

    def add_many(envelope) -> Callable[[], object]:
        def case() -> object:
            envelope.clear()
            envelope.add_many(events)
            envelope.stamp(GUID, *NOW)
            return envelope.payload()

        return case

    def add(envelope) -> Callable[[], object]:
        def case() -> object:
            envelope.clear()
            for type_, data in events:
                envelope.add(type_, data)
            envelope.stamp(GUID, *NOW)
            return envelope.payload()

        return case

    def copy(message: bytes) -> Callable[[], object]:
        target = bytearray(len(message))

        def case() -> None:
            target[:] = message

        return case

    forms = {"compiled": _envelope_c, "pure": _envelope_py}
    for title, name, first in (
        ("protobuf, per event", "ProtoEnvelope", ("google.protobuf", google)),
        ("JSON, per event", "JsonEnvelope", ("json and base64", stdlib_json)),
    ):
        cases: dict[str, Callable[[], object]] = dict([first])
        for form, module in forms.items():
            cases[f"{form} add_many"] = add_many(getattr(module, name)())
            cases[f"{form} add"] = add(getattr(module, name)())
        cases["copying the message"] = copy(first[1]())
        show(title, best_ns(cases, EVENTS))

    message = google()
    frames: dict[str, Callable[[], object]] = {"copying the message": copy(message)}
    for form, module in forms.items():
        for what, use in (
            ("stamp", lambda envelope: envelope.stamp(GUID, *NOW)),
            (
                "stamp and frame",
                lambda envelope: (envelope.stamp(GUID, *NOW), envelope.websocket_frame(2, b"\1\2\3\4")),
            ),
        ):
            envelope = module.ProtoEnvelope()
            envelope.add_many(events)
            frames[f"{form} {what}"] = partial(use, envelope)
    show(f"a batch of {len(message)} bytes", best_ns(frames, 1))

    rounds = 1000
    answer = response_class(status=1, code=1, sent_time=NOW[0], data={"req_guid": GUID}).SerializeToString()

    def settle(answers, acks) -> Callable[[], object]:
        table = acks.AckTable()

        def case() -> None:
            for _ in range(rounds):
                table.add(GUID, None, 1.0)
                # Not a success, so that the guid may be added again.
                table.settle(answers.decode_proto_answer(answer).data["req_guid"], False)

        return case

    def parse() -> None:
        for _ in range(rounds):
            response_class.FromString(answer).data["req_guid"]

    cases = {"google.protobuf, without a table": parse}
    cases["compiled"] = settle(_answers_c, _acks_c)
    cases["pure"] = settle(_answers_py, _acks_py)
    show(f"an answer of {len(answer)} bytes, added, decoded and settled", best_ns(cases, rounds))


if __name__ == "__main__":
    main()
