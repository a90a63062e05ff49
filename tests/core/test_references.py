"""The core releases each reference that it takes exactly once.

A debug interpreter counts all references; `make debug` runs the core's tests on one. Other interpreters count only
memory blocks, which reveals references that were kept, but not those released twice.
"""

from __future__ import annotations

import array
import contextlib
import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from missing import IS_FREE_THREADED

from raccoon_fast import json_codec
from raccoon_fast.core._wire_py import encode_varint

IS_DEBUG = hasattr(sys, "gettotalrefcount")
ROUNDS = 500
pytestmark = [
    pytest.mark.skipif(
        not IS_DEBUG and sys.getallocatedblocks() == 0, reason="with PYTHONMALLOC=malloc blocks are not counted"
    ),
    pytest.mark.skipif(
        not IS_DEBUG and IS_FREE_THREADED, reason="a free-threaded Python counts freed blocks too: use a debug build"
    ),
]
WRONG_EVENTS = [("", b""), ("t", None), ("t", memoryview(b"abcd")[::2]), (None, b""), ("\ud800", b"")]
WRONG_PAIRS = [("t",), 1, "ab", ("t", b"", 1)]


def total() -> int:
    gc.collect()
    return getattr(sys, "gettotalrefcount", sys.getallocatedblocks)()


def keeps_all_references(action: Callable[[], Any]) -> None:
    for _ in range(100):  # until caches and free lists are full
        action()
    differences = []
    # Other threads have objects too: those of the tests' own machinery. And without a GIL, some memory is freed later,
    # which does not grow with the rounds.
    for rounds in (ROUNDS, ROUNDS, ROUNDS, 10 * ROUNDS):
        before = total()
        for _ in range(rounds):
            action()
        differences.append(total() - before)
        if abs(differences[-1]) < rounds / 5:
            return
    raise AssertionError(f"after {ROUNDS} rounds, thrice, and ten times as many: {differences}")


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        call(*arguments, **options)


@pytest.fixture(params=["proto", "json"])
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


def many_types(count: int) -> list[tuple[str, bytes]]:
    return [(f"type-{number}", b"abc") for number in range(count)]


def test_the_check_sees_a_kept_reference() -> None:
    kept: list[object] = []
    with pytest.raises(AssertionError):
        keeps_all_references(lambda: kept.append(object()))


@pytest.mark.parametrize("how", ["payload", "prefixed", "websocket_frame"])
def test_views_of_an_envelope(impl: Any, wire: str, how: str) -> None:
    make = {"proto": impl.envelope.ProtoEnvelope, "json": impl.envelope.JsonEnvelope}[wire]
    arguments = {"payload": [()], "prefixed": [(b"head",), (bytes(2000),)], "websocket_frame": [(2, b"abcd")]}[how]

    def action() -> None:
        envelope = make(16)
        envelope.add_many(iter([("t", b"abc"), ("other", bytearray(b"abc"))]))
        envelope.stamp("guid", 1, 2)
        for each in arguments:
            view = getattr(envelope, how)(*each)
            with memoryview(view) as exported:
                bytes(exported[1:])
            hash(bytes(view))
            with contextlib.suppress(TypeError, BufferError):
                b"".join([view, memoryview(view).cast("c")])
            # One is alive while the envelope moves to a new block.
            envelope.add("t", bytes(5000))
            envelope.stamp("guid" * 50, 1, 2)
        envelope.clear()
        envelope.add("again", b"")

    keeps_all_references(action)


def test_events_an_envelope_refuses(impl: Any, wire: str) -> None:
    make = {"proto": impl.envelope.ProtoEnvelope, "json": impl.envelope.JsonEnvelope}[wire]
    envelope = make()
    envelope.stamp("guid", 1, 2)

    def action() -> None:
        for event in WRONG_EVENTS:
            refused(envelope.add, *event)
            refused(envelope.add_many, [("t", b""), event])
            refused(envelope.add_many, iter([event]))
        for pair in WRONG_PAIRS:
            refused(envelope.add_many, [pair])
        refused(envelope.add_many, None)
        refused(make, -1)
        refused(envelope.stamp, "\ud800", 1, 2)
        refused(envelope.stamp, None, 1, 2)
        refused(envelope.stamp, "guid", None, 2)
        refused(envelope.prefixed, "text")
        refused(envelope.websocket_frame, 99, b"abcd")
        refused(envelope.websocket_frame, 2, b"abc")
        refused(envelope.load, "text", 1)
        envelope.clear()
        envelope.stamp("guid", 1, 2)

    keeps_all_references(action)


def test_an_envelope_with_more_types_than_it_caches(impl: Any, wire: str) -> None:
    batch = impl.batch.Batch(wire, 0)
    events = many_types(100)

    def action() -> None:
        batch.add_many([("".join([*name]), data) for name, data in events])
        assert len(dict(batch.types)) == 100
        batch.clear()

    keeps_all_references(action)


class TestAccumulator:
    def new(self, impl: Any, wire: str, *, serializer: Any = None, answers: bool = False) -> Any:
        def new_batch() -> Any:
            batch = impl.batch.Batch(wire, 0)
            batch.receipt = object()
            return batch

        def on_full(_: Any, size: int) -> Any:
            if answers:
                accumulator.release(size)
                return True
            return "refused"

        limits = {"max_events": 3, "max_bytes": 500, "max_event_bytes": 400, "buffer_bytes": 1500}
        accumulator = impl.batch.Accumulator(new_batch, serializer=serializer, wire=wire, **limits)
        accumulator.on_full = on_full
        accumulator.on_open = accumulator.on_sealed = lambda *_: None
        return accumulator

    def emptied(self, accumulator: Any) -> None:
        accumulator.seal()
        accumulator.waiting_types()
        while (batch := accumulator.take()) is not None:
            if batch.wire == "proto" or json_codec.NAME == "json":  # see test_answers_in_json
                batch.events()
            batch.envelope.body()
            batch.clear()
        accumulator.release(accumulator.buffered)

    @pytest.mark.parametrize("answers", [True, False], ids=["makes room", "refuses"])
    def test_events(self, impl: Any, wire: str, answers: bool) -> None:
        accumulator = self.new(impl, wire, answers=answers)
        events = [*many_types(4), ("t", bytearray(b"x" * 100)), ("t", memoryview(b"x" * 200)), ("t", bytes(250))]

        def action() -> None:
            for event in events:
                accumulator.emit(*event)
            accumulator.emit_many(events)
            accumulator.emit_many(iter(events))
            accumulator.emit_some(iter(events), 4, "refused", {})
            batch = impl.batch.Batch(wire)
            batch.receipt = object()
            batch.add_many(events[:2])
            accumulator.add_batch(batch)
            self.emptied(accumulator)

        keeps_all_references(action)

    def test_a_serializer(self, impl: Any, wire: str) -> None:
        def serialize(data: Any) -> bytes:
            if data is None:
                raise ValueError("no data")
            return repr(data).encode()

        accumulator = self.new(impl, wire, serializer=serialize, answers=True)

        def action() -> None:
            accumulator.emit("t", {"a": 1})
            accumulator.emit_many([("t", 1), ("t", [2])])
            accumulator.emit_many(iter([("t", 1), ("t", [2])]))
            refused(accumulator.emit, "t", None)
            refused(accumulator.emit_many, [("t", 1), ("t", None)])
            self.emptied(accumulator)

        keeps_all_references(action)

    def test_refused_events(self, impl: Any, wire: str) -> None:
        accumulator = self.new(impl, wire, answers=True)

        def action() -> None:
            for event in [*WRONG_EVENTS, ("t", bytes(1000))]:
                refused(accumulator.emit, *event)
                refused(accumulator.emit_many, [("t", b""), event])
                refused(accumulator.emit_many, iter([("t", b""), event]))
            for pair in WRONG_PAIRS:
                refused(accumulator.emit_many, [("t", b""), pair])
            refused(accumulator.emit_many, None)
            refused(impl.batch.Batch, "xml")
            self.emptied(accumulator)

        keeps_all_references(action)

    def test_closed_and_reset(self, impl: Any, wire: str) -> None:
        def action() -> None:
            accumulator = self.new(impl, wire)
            accumulator.emit_many(many_types(5))
            accumulator.take_all()
            accumulator.emit_many(many_types(5))
            accumulator.close()
            refused(accumulator.emit, "t", b"")
            refused(accumulator.emit_many, [("t", b"")])
            accumulator.reset()

        keeps_all_references(action)

    def test_a_router(self, impl: Any, wire: str) -> None:
        accumulators = [self.new(impl, wire, answers=True) for _ in range(2)]
        routes: dict[str, Any] = {}
        router = impl.batch.Router(routes, lambda name: routes.setdefault(name, accumulators[len(name) % 2]))
        events = [("a", b"1"), ("a", b"2"), ("bb", b"3"), ("a", b"4")]

        def action() -> None:
            for event in events:
                router.emit(*event)
            router.emit_many(events)
            router.emit_many(iter(events))
            for event in WRONG_EVENTS:
                refused(router.emit, *event)
                refused(router.emit_many, [("a", b""), event])
            refused(router.emit_many, [("a", b""), ("a",)])
            for accumulator in accumulators:
                self.emptied(accumulator)

        keeps_all_references(action)


def slices_of(impl: Any, values: list[bytes]) -> Any:
    ends = [sum(map(len, values[:count])) for count in range(len(values) + 1)]
    return impl.columns.Slices(b"".join(values), array.array("q", ends), 0, len(values), 8)


def test_slices(impl: Any, wire: str) -> None:
    accumulator = TestAccumulator().new(impl, wire, answers=True)
    types = [name for name, _ in many_types(4)]

    def action() -> None:
        slices = slices_of(impl, [b"1", b"22", b"", b"333"])
        assert slices[3] == b"333"
        refused(impl.columns.Slices, b"", bytes(7), 0, 1, 8)
        refused(impl.columns.Slices, "text", bytes(16), 0, 1, 8)
        refused(impl.columns.Slices, b"", None, 0, 1, 8)
        impl.emit_slices(accumulator, types, slices, 2, "refused", {})
        impl.emit_slices(accumulator, "one", slices, 9, "refused", {})
        refused(impl.emit_slices, accumulator, [5], slices_of(impl, [b"1"]), 9, None, {})
        refused(impl.emit_slices, accumulator, "t", slices_of(impl, [bytes(1000)]), 9, None, {})
        batch = impl.batch.Batch(wire)
        impl.add_slices(batch, types, slices_of(impl, [b"1", b"2"]))
        refused(impl.add_slices, batch, [""], slices_of(impl, [b"1"]))
        TestAccumulator().emptied(accumulator)

    keeps_all_references(action)


def test_columns(impl: Any) -> None:
    numbers = array.array("q", range(-3, 5))
    ends = array.array("i", range(9))

    def action() -> None:
        fields = [
            impl.columns.Field("integer", b"a", 8, values=numbers, width=8, validity=b"\x0f", null=b"null"),
            impl.columns.Field("zigzag", b"b", 8, values=numbers, width=8, skips_zero=True),
            impl.columns.Field("moment", b"c", 8, values=numbers, width=8),
            impl.columns.Field("string", b"d", 8, values=b'abc"efgh', offsets=ends, width=4),
            impl.columns.Field("bytes", b"e", 8, values=bytearray(8), offsets=ends, width=4),
        ]
        assert len(impl.columns.encode_rows(fields, 8, b"}")) == 8
        refused(impl.columns.encode_rows, fields, 9)
        broken = impl.columns.Field("bytes", b"", 1, values=b"a", offsets=array.array("i", [0, 9]), width=4)
        refused(impl.columns.encode_rows, [fields[0], broken], 1)
        refused(impl.columns.Field, "number", b"", 1)
        refused(impl.columns.Field, "string", b"", 2, values=b"", width=4, offsets=bytes(8))
        refused(impl.columns.Field, "string", b"", 2, values="text", width=4, offsets=bytes(12))
        refused(impl.columns.Field, "integer", b"", 8, values=numbers, width=8, validity=b"")

    keeps_all_references(action)


def test_the_acks(impl: Any) -> None:
    def action() -> None:
        table = impl.acks.AckTable(2)
        for number in range(6):
            table.add(f"guid-{number}", object(), 6.0 - number)
        refused(table.add, "guid-0", object(), 1.0)
        for ok in (True, False):
            table.settle("guid-0", ok)
            table.settle("unknown", ok)
        table.next_deadline()
        table.expire(1.5)
        table.discard("guid-1")
        table.drain()

    keeps_all_references(action)


def test_answers_in_protobuf(impl: Any) -> None:
    entry = b"\x2a\x08\x0a\x02id\x12\x02ok"
    whole = b"\x08\x01\x10\x01\x18" + encode_varint(1_700_000_000) + b"\x22\x03why" + entry
    cases = [whole, whole + entry, b"\x1a\x00" + whole, b"\x30\x01" + whole]  # the last two: known and unknown fields
    cases += [whole[:at] for at in range(len(whole))] + [b"\x22\x02\xff\xff", entry + b"\x2a\x04\x0a\x02\xff\xff"]

    def action() -> None:
        for data in cases:
            with contextlib.suppress(ValueError):
                impl.answers.decode_proto_answer(data)
        refused(impl.answers.decode_proto_answer, bytearray(whole))

    keeps_all_references(action)


@pytest.mark.skipif(
    IS_DEBUG and json_codec.NAME != "json", reason="orjson and msgspec count no references on a debug interpreter"
)
def test_answers_in_json(impl: Any) -> None:
    whole = b'{"status":1,"code":1,"sent_time":1700000000,"reason":"why","data":{"req_guid":"g"}}'
    cases = [whole, b"{}", b'{"status":"x"}', b'{"data":[]}', b'{"data":{"a":1}}', b'{"reason":1}', b'{"code":1e300}']
    cases += [b"[]", b"{", b"\xff", b'{"status":99999999999999999999}']

    def action() -> None:
        for data in cases:
            with contextlib.suppress(ValueError):
                impl.answers.decode_json_answer(data)
        refused(impl.answers.decode_json_answer, None)

    keeps_all_references(action)


def test_the_wire_format(impl: Any) -> None:
    data = encode_varint(2**60) + b"\xff" * 11

    def action() -> None:
        for name in ("take_varint", "take_tag", "take_length"):
            for pos in (0, 9, 19):
                with contextlib.suppress(ValueError):
                    getattr(impl.wire, name)(data, pos, len(data))
        for tag in (0, 8, 9, 10, 11, 12, 13, 15):
            with contextlib.suppress(ValueError):
                impl.wire.skip_field(data, 0, len(data), tag, 2)
        impl.wire.encode_varint(-1)
        refused(impl.wire.encode_varint, 2**64)

    keeps_all_references(action)


@pytest.mark.parametrize("types", [1, 100])
def test_counting_of_types(impl: Any, types: int) -> None:
    batch = impl.batch.Batch("proto")
    batch.add_many(many_types(types))
    body = batch.envelope.body()

    def action() -> None:
        assert len(impl.event_types.tally_types(body)) == types
        for wrong in (body[:-1], body + b"\x1a", b"\x1a\x04\x0a\x02\xff\xff", body + b"\x00"):
            with contextlib.suppress(ValueError):
                impl.event_types.tally_types(wrong)
        refused(impl.event_types.tally_types, bytearray(body))

    keeps_all_references(action)
