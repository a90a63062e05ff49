"""Feeds the core random input: python tests/fuzz/fuzz_core.py --seconds 60 --seed 1.

Answers and varints are compared with google.protobuf and between both forms. Envelopes go through random sequences of
operations and are compared with google.protobuf. A difference is an AssertionError that names the seed and the round,
and so is any exception that is not promised. `make asan` runs it on a build with AddressSanitizer, which detects stray
reads and writes.
"""

from __future__ import annotations

import argparse
import array
import base64
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

import raccoon_fast
from raccoon_fast.core import (
    _acks_c,
    _acks_py,
    _answers_c,
    _answers_py,
    _batch_c,
    _batch_py,
    _batch_slices_py,
    _body,
    _columns_c,
    _columns_py,
    _envelope_c,
    _envelope_py,
    _event_types_c,
    _event_types_py,
    _frames_c,
    _frames_py,
    _wire_c,
    _wire_py,
)

encode_varint = _wire_py.encode_varint


def message_class(name: str) -> type:
    path = Path(raccoon_fast.__file__).parent / "collector" / "raccoon.desc"
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"raystack.raccoon.v1beta1.{name}"))


REQUEST = message_class("SendEventRequest")
RESPONSE = message_class("SendEventResponse")


def random_number(rng: random.Random) -> int:
    return rng.getrandbits(rng.randint(0, 64))


def random_varint(rng: random.Random) -> bytes:
    data = bytearray(encode_varint(random_number(rng)))
    if rng.random() < 0.1:
        # Longer than need be.
        data[-1] |= 0x80
        data += b"\x80" * rng.randint(0, 9) + bytes([rng.getrandbits(8)])
    return bytes(data)


def random_fields(rng: random.Random, depth: int = 0) -> bytes:
    fields = []
    for _ in range(rng.randint(0, 5)):
        number = rng.choice([1, 2, 3, 4, 5, 5, 5, 6, rng.randint(0, 2**29 - 1)])
        wire_type = rng.choice([0, 0, 1, 2, 2, 2, 2, 3, 5, rng.randint(0, 7)])
        if number in (1, 2, 3) and rng.random() < 0.5:
            wire_type = 2 if depth else 0
        fields.append(encode_varint(number << 3 | wire_type))
        if wire_type == 0:
            fields.append(random_varint(rng))
        elif wire_type == 1:
            fields.append(rng.randbytes(8))
        elif wire_type == 2:
            inner = random_fields(rng, depth + 1) if depth < 4 and rng.random() < 0.6 else random_text(rng)
            length = max(0, len(inner) + rng.choice([0] * 20 + [1, -1]))
            fields.append(encode_varint(length) + inner)
        elif wire_type == 3 and depth < 4:
            fields.append(random_fields(rng, depth + 1) + encode_varint(number << 3 | 4))
        elif wire_type == 5:
            fields.append(rng.randbytes(4))
    return b"".join(fields)


def random_text(rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return rng.randbytes(rng.randint(0, 6))
    return "".join(
        rng.choice(["a", "\0", "é", "\u2028", "\U0001f99d", '"', "\\"]) for _ in range(rng.randint(0, 6))
    ).encode()


def mutated(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        at = rng.randint(0, len(out))
        what = rng.randint(0, 4)
        if what == 0 and at < len(out):
            out[at] ^= 1 << rng.randint(0, 7)
        elif what == 1 and at < len(out):
            out[at] = rng.choice([0, 0x7F, 0x80, 0xFF, 0x0B, 0x0C, 0x2A])
        elif what == 2:
            del out[at : at + rng.randint(0, 4)]
        elif what == 3:
            out[at:at] = rng.randbytes(rng.randint(0, 4))
        else:
            del out[at:]
    return bytes(out)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ValueError as error:
        # DecodeError is one.
        return str(error)


def fuzz_proto_answer(rng: random.Random) -> None:
    data = mutated(rng, random_fields(rng)) if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 64))
    # A buffer of its own for each, so that a read beyond its end is beyond an allocation.
    compiled = outcome(_answers_c.decode_proto_answer, bytes(bytearray(data)))
    assert compiled == outcome(_answers_py.decode_proto_answer, data), data
    try:
        judge = RESPONSE.FromString(data)
    except message.DecodeError:
        assert type(compiled) is str, data
    else:
        assert compiled == (judge.status, judge.code, judge.sent_time, judge.reason, dict(judge.data)), data


def fuzz_json_answer(rng: random.Random) -> None:
    values = [None, 0, 1, -1, 2**31, 2**63, 2**64, 1.5, True, "x", [], {}, {"req_guid": "g"}, {"a": 1}]
    names = ["status", "code", "sent_time", "reason", "data", "other"]
    answer = {name: rng.choice(values) for name in rng.sample(names, rng.randint(0, 6))}
    data = json.dumps(answer).encode()
    if rng.random() < 0.5:
        data = mutated(rng, data)
    assert outcome(_answers_c.decode_json_answer, data) == outcome(_answers_py.decode_json_answer, data), data


def fuzz_wire(rng: random.Random) -> None:
    data = random_varint(rng) if rng.random() < 0.5 else rng.randbytes(rng.randint(0, 40))
    end = rng.randint(0, len(data))
    pos = rng.randint(0, end)
    tag = rng.getrandbits(rng.randint(0, 32))
    for name in ("take_varint", "take_tag", "take_length"):
        assert outcome(getattr(_wire_c, name), data, pos, end) == outcome(getattr(_wire_py, name), data, pos, end), data
    depth = rng.randint(0, 3)
    assert outcome(_wire_c.skip_field, data, pos, end, tag, depth) == outcome(
        _wire_py.skip_field, data, pos, end, tag, depth
    ), data
    number = rng.getrandbits(64) - rng.getrandbits(63)
    assert _wire_c.encode_varint(number) == _wire_py.encode_varint(number)


def unmasked(frame: bytes) -> bytes:
    size, at = frame[1] & 0x7F, 2
    if size > 125:
        at = 4 if size == 126 else 10
        size = int.from_bytes(frame[2:at], "big")
    key, body = frame[at : at + 4], frame[at + 4 :]
    assert len(body) == size
    return bytes(byte ^ key[i & 3] for i, byte in enumerate(body))


def judged(events: list[tuple[str, bytes]], stamp: tuple[str, int, int]) -> bytes:
    request = REQUEST(req_guid=stamp[0], sent_time={"seconds": stamp[1], "nanos": stamp[2]})
    for type_, data in events:
        request.events.add(type=type_, event_bytes=data)
    return request.SerializeToString()


def read_json(data: bytes) -> bytes:
    """The same request as protobuf."""
    request = json.loads(data)
    events = [(event["type"], base64.b64decode(event["event_bytes"], validate=True)) for event in request["events"]]
    return judged(events, (request["req_guid"], *request["sent_time"].values()))


def fuzz_envelope(rng: random.Random) -> None:
    make, read = rng.choice(
        [(m.ProtoEnvelope, bytes) for m in (_envelope_c, _envelope_py)]
        + [(m.JsonEnvelope, read_json) for m in (_envelope_c, _envelope_py)]
    )
    envelope = make(rng.choice([0, 1, 100, 4096]))
    events: list[tuple[str, bytes]] = []
    stamp: tuple[str, int, int] | None = None
    views: list[tuple[memoryview | bytes, bytes]] = []

    types = [random_text(rng).decode("utf-8", "replace") or "t" for _ in range(3)]

    def event() -> tuple[str, Any]:
        data = rng.randbytes(
            rng.choice([0, 1, 2, 3, rng.randint(0, 300), rng.randint(0, 30_000) if rng.random() < 0.1 else 5])
        )
        type_ = rng.choice([types[0], types[0], types[0], *types, random_text(rng).decode("utf-8", "replace") or "t"])
        type_ = rng.choice([type_, "".join([*type_])])
        return type_, rng.choice([bytes, bytes, bytes, bytearray, memoryview])(data)

    for _ in range(rng.randint(1, 25)):
        what = rng.randint(0, 9)
        if what < 2:
            one = event()
            envelope.add(*one)
            events.append(one)
        elif what == 2:
            some = [event() for _ in range(rng.randint(0, 8))]
            assert envelope.add_many(rng.choice([iter, list, tuple])(some)) == len(some)
            events += some
        elif what == 3:
            wrong = rng.choice([("", b""), ("t", None), ("t", memoryview(b"abcd")[::2]), (None, b""), ("\ud800", b"")])
            try:
                envelope.add(*wrong)
            except (TypeError, ValueError):
                pass
            else:
                raise AssertionError(wrong)
        elif what == 4:
            guid = random_text(rng).decode("utf-8", "replace") * rng.choice([1, 1, 1, 30])
            stamp = (guid, rng.choice([0, -1, 1_700_000_000, 253_402_300_799]), rng.choice([0, 1, 999_999_999]))
            envelope.stamp(*stamp)
        elif what == 5 and rng.random() < 0.3:
            envelope.clear()
            events, stamp = [], None
        elif what == 6 and views:
            views.pop(rng.randrange(len(views)))
        elif stamp is not None and what > 6:
            expected = judged([(type_, bytes(data)) for type_, data in events], stamp)
            head = rng.randbytes(rng.randint(0, rng.choice([10, 1100])))
            if what == 7:
                view = envelope.payload()
                found = bytes(view)
                assert len(found) == envelope.nbytes <= envelope.nbytes_for(stamp[0])
            elif what == 8:
                view = envelope.prefixed(head)
                assert bytes(view[: len(head)]) == head
                found = bytes(view[len(head) :])
            else:
                view = envelope.websocket_frame(rng.choice([1, 2]), rng.randbytes(4))
                found = unmasked(bytes(view))
            assert read(found) == expected
            views.append((view, bytes(view)))
        assert envelope.count == len(events)
        assert all(bytes(view) == content for view, content in views)


def fuzz_frames(rng: random.Random) -> None:
    readers = (_frames_c.AnswerReader(), _frames_py.AnswerReader())
    answer = b"\x08\x01\x2a\x0d\x0a\x08req_guid\x12\x01g"
    whole = [b"\x82" + bytes([len(answer)]) + answer, b'\x81\x0c{"status":1}', b"\x8a\x00", b"\x82\x7e\x00\x02\x08\x01"]
    stream = b"".join(rng.choices(whole, k=rng.randint(0, 9)))
    if rng.random() < 0.7:
        stream = mutated(rng, stream)
    while stream:
        size = rng.randint(1, 40)
        piece, stream = bytes(bytearray(stream[:size])), stream[size:]
        compiled, pure = (repr(outcome(reader.feed, piece)) for reader in readers)
        assert compiled == pure, piece


def fuzz_acks(rng: random.Random) -> None:
    remember = rng.randint(1, 6)
    tables = (_acks_c.AckTable(remember), _acks_py.AckTable(remember))

    def both(name: str, *arguments: Any) -> None:
        compiled, pure = (outcome(getattr(table, name), *arguments) for table in tables)
        assert compiled == pure, (name, arguments)

    for serial in range(rng.randint(1, 60)):
        guid = f"g{rng.randint(0, 9)}"
        what = rng.randint(0, 9)
        if what < 4:
            both("add", guid, serial, rng.choice([serial, rng.randint(0, 60), float("nan")]))
        elif what < 7:
            both("settle", guid, rng.random() < 0.5)
        else:
            both(*rng.choice([("expire", serial), ("discard", guid), ("drain",), ("next_deadline",), ("seen", guid)]))
        assert len(tables[0]) == len(tables[1])


def fuzz_body(rng: random.Random) -> None:
    batch = rng.choice([_batch_c, _batch_py]).Batch(rng.choice(["proto", "json"]), 0)
    batch.add_many([(random_text(rng).decode("utf-8", "replace") or "t", random_text(rng)) for _ in range(3)])
    body = mutated(rng, batch.envelope.body())
    read = _body.read_proto_body if batch.wire == "proto" else _body.read_json_body
    events = outcome(read, body)
    assert type(events) is str or all(type(kind) is str and type(data) is bytes for kind, data in events), body


class Side:
    """One form's accumulator, and what it told its hooks."""

    def __init__(self, form: Any, wire: str, limits: dict[str, int], answers: list[Any]) -> None:
        self.form = form
        self.wire = wire
        self.told: list[Any] = []
        self.batches: list[Any] = []
        self._made = 0
        self._answers = iter(answers)
        self.accumulator = form.Accumulator(self._make_batch, serializer=None, wire=wire, **limits)
        self.accumulator.on_open = lambda batch: self.told.append(("open", batch.receipt))
        self.accumulator.on_sealed = lambda: self.told.append("sealed")
        self.accumulator.on_full = self._full

    def _make_batch(self) -> Any:
        self._made += 1
        batch = self.form.Batch(self.wire, 0)
        batch.receipt = self._made
        return batch

    def _full(self, types: Mapping[str, int], size: int) -> Any:
        self.told.append(("full", dict(types), size))
        if next(self._answers, False):
            self.accumulator.release(size)
            return True
        return "refused"

    def do(self, name: str, *arguments: Any) -> Any:
        if name == "take":
            batch = self.accumulator.take()
            if batch is None:
                return None
            self.batches.append(batch)
            return batch.receipt, batch.count, batch.nbytes, dict(batch.types), batch.events(), batch.envelope.body()
        if name == "reload":
            batch, other = self.batches[-1], self.form.Batch(self.wire, 0)
            other.load(batch.envelope.body(), batch.types)
            return other.events(), other.nbytes, dict(other.types)
        if name == "clear":
            self.batches.pop().clear()
            return None
        try:
            if name == "add_batch":
                batch = self._make_batch()
                batch.add_many(*arguments)
                return self.accumulator.add_batch(batch)
            return getattr(self.accumulator, name)(*arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            return type(error), str(error)

    def figures(self) -> tuple[Any, ...]:
        it = self.accumulator
        return it.buffered, it.accepted, it.taken, it.open_count, it.sealed, dict(it.waiting_types()), self.told


def fuzz_accumulator(rng: random.Random) -> None:
    times = rng.choice([1, 1, 10])
    limits = {
        "max_events": rng.randint(1, 6 * times),
        "max_bytes": rng.randint(1, 400 * times),
        "max_event_bytes": rng.randint(50, 500),
        "buffer_bytes": rng.randint(50, 2000 * times),
    }
    wire = rng.choice(["proto", "json"])
    answers = [rng.random() < 0.5 for _ in range(5)]
    sides = [Side(form, wire, limits, answers) for form in (_batch_c, _batch_py)]

    def event() -> tuple[Any, Any]:
        if rng.random() < 0.05:
            return rng.choice([("", b""), ("t", None), ("t", memoryview(b"abcd")[::2]), (None, b""), ("\ud800", b"")])
        type_ = rng.choice(["a", "a", "page", "page", "x" * 31, random_text(rng).decode("utf-8", "replace") or "t"])
        type_ = rng.choice([type_, "".join([*type_])])
        data = rng.randbytes(rng.choice([0, 1, 20, 200, 600]))
        return type_, rng.choice([bytes, bytes, bytes, bytearray, memoryview])(data)

    for _ in range(rng.randint(1, 40)):
        what = rng.randint(0, 12)
        call: tuple[Any, ...]
        if what < 5:
            call = ("emit", *event())
        elif what < 7:
            call = ("emit_many", [event() for _ in range(rng.randint(0, 8 * times))])
        elif what < 9:
            call = ("take",)
        elif what == 12:
            call = ("add_batch", [event() for _ in range(rng.randint(0, 3))])
        elif what == 9:
            call = rng.choice([("seal",), ("hold", 7), ("release", 7), ("waiting_types",)])
        elif sides[0].batches:
            call = (rng.choice(["reload", "clear"]),)
        else:
            call = rng.choice([("reset",), ("close",)]) if rng.random() < 0.05 else ("seal",)
        compiled, pure = (side.do(*call) for side in sides)
        assert compiled == pure, (call, compiled, pure)
        compiled, pure = (side.figures() for side in sides)
        assert compiled == pure, (call, compiled, pure)


def fuzz_event_types(rng: random.Random) -> None:
    events = [random_fields(rng, depth=1) for _ in range(rng.randint(0, 200 if rng.random() < 0.05 else 5))]
    data = mutated(rng, b"".join(b"\x1a" + encode_varint(len(event)) + event for event in events))
    compiled = outcome(_event_types_c.tally_types, bytes(bytearray(data)))
    assert compiled == outcome(_event_types_py.tally_types, data), data
    try:
        judge = REQUEST.FromString(data)
    except message.DecodeError:
        return
    types = [event.type for event in judge.events]
    if type(compiled) is not str:  # inside an unknown group google.protobuf lets more pass
        assert compiled == {name: (types.count(name), index) for index, name in enumerate(types)}, data


FIELDS = {
    "integer": "bhiqBHIQ",
    "varint": "bhiqBHIQ",
    "zigzag": "bhiq",
    "fixed": "ifqd",
    "moment": "q",
    "boolean": "",
    "flag": "",
    "string": "iq",
    "text": "iq",
    "bytes": "iq",
    "finished": "iq",
}


def random_field(rng: random.Random, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a Field, mostly good ones: too little data, and offsets that are wrong, now and then."""
    kind = rng.choice([*FIELDS])
    first = rng.choice([0, 0, rng.randint(0, 9)])
    count = max(0, first + rows + rng.choice([0] * 20 + [-1, 1]))
    options: dict[str, Any] = {"first": first, "skips_zero": rng.random() < 0.3, "null": rng.choice([b"", b"null"])}
    code = rng.choice(FIELDS[kind]) if FIELDS[kind] else ""
    if kind in ("boolean", "flag"):
        options["values"] = rng.randbytes((count + 7) // 8)
    elif kind in ("string", "text", "bytes", "finished"):
        texts = [random_text(rng) * rng.choice([1, 1, 1, 9]) for _ in range(count)]
        ends = [0]
        for text in texts:
            ends.append(ends[-1] + len(text))
        if rng.random() < 0.1:
            ends[rng.randrange(len(ends))] = rng.choice([-1, 2**31 - 1, -(2**31), ends[-1] + 1, rng.randint(0, 9)])
        options |= {"values": b"".join(texts), "offsets": array.array(code, ends).tobytes()}
    else:
        options |= {"values": rng.randbytes(count * array.array(code).itemsize), "is_signed": code.islower()}
        if rng.random() < 0.3:
            options["values"] = bytes(len(options["values"]))
    if code:
        options["width"] = array.array(code).itemsize
    if kind == "moment":
        options["per_second"] = rng.choice([1, 1000, 10**6, 10**9])
    if rng.random() < 0.5:
        options["validity"] = rng.randbytes((count + 7) // 8)
    return (kind, rng.choice([b"", b"\x0a", b',"x":']), rows), options


def fuzz_columns(rng: random.Random) -> None:
    rows = rng.randint(0, 12)
    arguments = [random_field(rng, rows) for _ in range(rng.randint(0, 5))]

    def encode(form: Any) -> list[bytes]:
        # Buffers of their own, so that a read beyond the end of one is beyond an allocation.
        fields = [
            form.Field(
                *some, **{name: bytes(bytearray(it)) if type(it) is bytes else it for name, it in options.items()}
            )
            for some, options in arguments
        ]
        slices = form.encode_rows(fields, rows, b"}")
        return [slices[row] for row in range(len(slices))]

    assert outcome(encode, _columns_c) == outcome(encode, _columns_py), arguments


def fuzz_slices(rng: random.Random) -> None:
    count = rng.randint(0, 20)
    ends = [0]
    data = rng.randbytes(rng.randint(0, 300))
    for _ in range(count):
        ends.append(min(len(data), ends[-1] + rng.randint(0, 30)))
    if rng.random() < 0.2:
        ends[rng.randrange(len(ends))] = rng.choice([-1, len(data) + 1, 2**31 - 1, -(2**31)])
    code = rng.choice("iq")
    first = rng.choice([0, 0, rng.randint(0, count + 1)])
    shape = (first, max(0, count - first), array.array(code).itemsize)
    limits = {"max_events": rng.randint(1, 9), "max_bytes": rng.randint(1, 400), "max_event_bytes": rng.randint(20, 90)}
    limits["buffer_bytes"] = rng.randint(100, 900)
    types = "a" if rng.random() < 0.5 else [rng.choice(["a", "b", "x" * 31, "é"]) for _ in range(count + 1)]
    sizes = [rng.randint(1, 9) for _ in range(6)]
    answers = [rng.random() < 0.5 for _ in range(5)]

    def run(form: Any, slices_form: Any, emit_slices: Any) -> Any:
        side = Side(form, rng_wire, limits, answers)
        seen: list[Any] = []
        slices = outcome(slices_form.Slices, data, array.array(code, ends), *shape)
        if isinstance(slices, str):
            return slices
        for most in sizes:
            receipts: dict[Any, None] = {}
            seen.append(outcome(emit_slices, side.accumulator, types, slices, most, "refused", receipts))
            seen.append((slices.at, [*receipts], side.figures()[:-1], [*side.told]))
        side.accumulator.seal()
        return seen, [side.do("take") for _ in range(9)]

    rng_wire = rng.choice(["proto", "json"])
    compiled = run(_batch_c, _columns_c, _batch_c.emit_slices)
    pure = run(_batch_py, _columns_py, _batch_slices_py.emit_slices)
    assert compiled == pure, (compiled, pure)


TARGETS = (
    fuzz_proto_answer,
    fuzz_proto_answer,
    fuzz_json_answer,
    fuzz_wire,
    fuzz_envelope,
    fuzz_acks,
    fuzz_frames,
    fuzz_body,
    fuzz_accumulator,
    fuzz_columns,
    fuzz_slices,
    fuzz_event_types,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--round", type=int, help="run this round of the seed alone")
    options = parser.parse_args()
    if options.round is not None:
        one_round(options.seed, options.round)
        return
    end = time.monotonic() + options.seconds
    rounds = 0
    while time.monotonic() < end:
        try:
            one_round(options.seed, rounds)
        except Exception:
            print(f"failed: --seed {options.seed} --round {rounds}")
            raise
        rounds += 1
    print(f"{rounds} rounds of seed {options.seed}: no difference")


def one_round(seed: int, number: int) -> None:
    rng = random.Random(f"{seed}/{number}")
    TARGETS[number % len(TARGETS)](rng)


if __name__ == "__main__":
    main()
