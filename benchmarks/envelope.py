"""Encodes events into a request: this package, compiled and pure, other libraries, and a copy of the bytes.

Every case builds a complete SendEventRequest with guid and time; the events are bytes already. Before timing, each
request is compared with the one that google.protobuf or `json` builds. "memcpy" copies the finished request once into
allocated memory; no encoder can do less.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from harness import Clocks, Effort, LeftOut, Table, optional, time_cases
from payloads import GUID, PAYLOADS, SENT_TIME, Event, events_of, google_request

from raccoon_fast.collector.messages import SendEventRequest

BATCHES = (1000, 100, 1)
BASE = "raccoon_fast, add_many"


def run(effort: Effort, left_out: LeftOut) -> list[Table]:
    tables = []
    for wire, make_cases in (("Protobuf", protobuf_cases), ("JSON", json_cases)):
        if wire == "JSON":
            left_out.find("msgspec", "msgspec")
            left_out.find("pybase64", "pybase64")
        for batch in effort.some(BATCHES):
            clocks = Clocks(f"{wire} envelope, batches of {batch:,}", "encoder", BASE)
            for payload in effort.some(PAYLOADS):
                for name, timings in time_cases(make_cases, (payload, batch), batch, effort).items():
                    clocks.add(name, payload, timings)
            tables += [clocks.cpu, clocks.wall]
    return tables


def protobuf_cases(payload: str, batch: int) -> Mapping[str, Callable[[], object]]:
    events = events_of(payload, batch)
    seconds, nanos = SENT_TIME

    def add() -> bytes:
        return google_request(GUID, events)

    def constructor() -> bytes:
        return SendEventRequest(
            req_guid=GUID,
            sent_time={"seconds": seconds, "nanos": nanos},
            events=[Event(event_bytes=data, type=type_) for type_, data in events],
        ).SerializeToString()

    cases = _ours("ProtoEnvelope", events)
    cases["google.protobuf, add"] = add
    cases["google.protobuf, constructor"] = constructor
    expected = add()
    for name, case in cases.items():
        assert bytes(case()) == expected, name
    cases["memcpy"] = _memcpy(expected)
    return cases


def json_cases(payload: str, batch: int) -> Mapping[str, Callable[[], object]]:
    events = events_of(payload, batch)
    seconds, nanos = SENT_TIME
    sent_time = {"seconds": seconds, "nanos": nanos}

    def request(encode: Callable[[bytes], str]) -> dict[str, Any]:
        rows = [{"event_bytes": encode(data), "type": type_} for type_, data in events]
        return {"req_guid": GUID, "sent_time": sent_time, "events": rows}

    def standard_library() -> bytes:
        return json.dumps(request(lambda data: base64.b64encode(data).decode())).encode()

    cases = _ours("JsonEnvelope", events)
    cases["json + base64"] = standard_library
    pybase64 = optional("pybase64")
    for package, attribute in (("orjson", "orjson"), ("msgspec", "msgspec.json")):
        library = optional(attribute)
        if library is not None and pybase64 is not None:
            dumps = library.dumps if package == "orjson" else library.Encoder().encode
            cases[f"{package} + pybase64"] = lambda dumps=dumps: dumps(request(pybase64.b64encode_as_string))
    expected = json.loads(standard_library())
    for name, case in cases.items():
        assert json.loads(bytes(case())) == expected, name
    cases["memcpy"] = _memcpy(bytes(cases[BASE]()))
    return cases


def _ours(kind: str, events: list[tuple[str, bytes]]) -> dict[str, Callable[[], Any]]:
    from raccoon_fast.core import _envelope_c, _envelope_py

    cases: dict[str, Callable[[], Any]] = {}
    for form, module in (("raccoon_fast", _envelope_c), ("raccoon_fast, pure Python", _envelope_py)):
        cases[f"{form}, add_many"] = _add_many(getattr(module, kind)(), events)
        cases[f"{form}, add"] = _add(getattr(module, kind)(), events)
    return cases


def _add_many(envelope: Any, events: list[tuple[str, bytes]]) -> Callable[[], Any]:
    seconds, nanos = SENT_TIME

    def case() -> Any:
        envelope.clear()
        envelope.add_many(events)
        envelope.stamp(GUID, seconds, nanos)
        return envelope.payload()

    return case


def _add(envelope: Any, events: list[tuple[str, bytes]]) -> Callable[[], Any]:
    seconds, nanos = SENT_TIME

    def case() -> Any:
        envelope.clear()
        add = envelope.add
        for type_, data in events:
            add(type_, data)
        envelope.stamp(GUID, seconds, nanos)
        return envelope.payload()

    return case


def _memcpy(message: bytes) -> Callable[[], object]:
    target = memoryview(bytearray(len(message)))

    def case() -> None:
        target[:] = message

    return case
