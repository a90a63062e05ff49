"""Slices, Field and encode_rows in both forms, compared with json and google.protobuf."""

from __future__ import annotations

import array
import json
import struct

import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.core._wire_py import encode_varint


def slices_of(impl, values):
    ends = [0]
    for value in values:
        ends.append(ends[-1] + len(value))
    return impl.columns.Slices(b"".join(values), array.array("q", ends), 0, len(values), 8)


def bits_of(flags):
    out = bytearray((len(flags) + 7) // 8)
    for place, flag in enumerate(flags):
        out[place >> 3] |= bool(flag) << (place & 7)
    return bytes(out)


def rows_of(impl, fields, rows, end=b""):
    slices = impl.columns.encode_rows(fields, rows, end)
    assert len(slices) == rows
    return [slices[row] for row in range(rows)]


def text_field(impl, kind, values, before=b"", **options):
    ends = [0]
    for value in values:
        ends.append(ends[-1] + len(value or b""))
    return impl.columns.Field(
        kind,
        before,
        len(values),
        values=b"".join(value or b"" for value in values),
        offsets=array.array("i", ends),
        validity=bits_of([value is not None for value in values]),
        width=4,
        **options,
    )


def number_field(impl, kind, code, values, before=b"", **options):
    return impl.columns.Field(
        kind,
        before,
        len(values),
        values=array.array(code, values),
        width=array.array(code).itemsize,
        is_signed=code.islower(),
        **options,
    )


def test_a_slice_is_the_bytes_between_its_offsets(impl):
    data = b"one" + b"" + b"three"
    for width, code in ((4, "i"), (8, "q")):
        slices = impl.columns.Slices(data, array.array(code, [0, 3, 3, 8]), 1, 2, width)
        assert [slices[0], slices[1]] == [b"", b"three"]
        assert len(slices) == 2
        for index in (-1, 2, 1 << 40):
            with pytest.raises(IndexError, match="there are 2 slices"):
                slices[index]
    assert impl.columns.Slices(None, bytes(8), 0, 1, 4)[0] == b""


def test_a_part_of_slices_shares_their_buffers(impl):
    data, offsets = bytearray(b"onetwothree"), array.array("q", [0, 3, 6, 6, 11])
    slices = impl.columns.Slices(data, offsets, 1, 3, 8)
    assert (slices.nbytes(0, 3), slices.nbytes(1, 1), slices.joined()) == (8, 0, b"twothree")
    slices.at = 2
    part = slices.part(1, 3)
    assert ([part[0], part[1]], len(part), part.at, part.joined()) == ([b"", b"three"], 2, 0, b"three")
    del slices
    data[6:] = b"THREE"
    assert part.part(1, 2)[0] == b"THREE"
    assert part.part(2, 2).joined() == b""
    assert impl.columns.Slices(None, bytes(8), 0, 1, 4).part(0, 1).joined() == b""
    for start, stop in ((-1, 1), (0, 3), (2, 1)):
        for read in (part.part, part.nbytes):
            with pytest.raises(IndexError, match=f"there are 2 slices, and none from {start} to {stop}"):
                read(start, stop)


@pytest.mark.parametrize("ends", [[0, 9], [-1, 2], [3, 2], [0, -1], [-(2**31), 2**31 - 1]])
def test_offsets_beyond_the_data_are_refused(impl, ends):
    slices = impl.columns.Slices(b"12345678", array.array("i", ends), 0, 1, 4)
    with pytest.raises(ValueError, match="are no part of 8 bytes of data"):
        slices[0]
    for read in (slices.joined, slices.part(0, 1).joined, lambda: slices.nbytes(0, 1)):
        with pytest.raises(ValueError, match="are no part of 8 bytes of data"):
            read()
    field = impl.columns.Field("bytes", b"", 1, values=b"12345678", offsets=array.array("i", ends), width=4)
    with pytest.raises(ValueError, match="are no part of 8 bytes of data"):
        impl.columns.encode_rows([field], 1)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"", bytes(8), 0, 2, 4),
        (b"", bytes(8), 1, 1, 4),
        (b"", bytes(8), 1 << 40, 1, 4),
        (b"", bytes(7), 0, 1, 4),
        (b"", b"", 0, 0, 4),
        (b"", bytes(16), -1, 1, 8),
        (b"", bytes(16), 0, 1, 2),
        (b"", bytes(16), 0, 1 << 62, 8),
    ],
)
def test_slices_need_their_offsets(impl, arguments):
    with pytest.raises(ValueError, match=r"offsets|width|first|count"):
        impl.columns.Slices(*arguments)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("integer", {"values": bytes(15), "width": 8}),
        ("integer", {"values": bytes(16), "width": 8, "first": 1}),
        ("integer", {"values": bytes(16), "width": 3}),
        ("integer", {"width": 8}),
        ("integer", {"values": bytes(16), "width": 8, "offsets": bytes(16)}),
        ("boolean", {"values": b""}),
        ("integer", {"values": bytes(16), "width": 8, "validity": b""}),
        ("string", {"values": b"", "width": 4}),
        ("string", {"values": b"", "width": 4, "offsets": bytes(8)}),
        ("fixed", {"values": bytes(16), "width": 2}),
        ("moment", {"values": bytes(16), "width": 8, "per_second": 7}),
        ("zigzag", {"values": bytes(16), "width": 8, "is_signed": False}),
        ("number", {"values": bytes(16), "width": 8}),
    ],
)
def test_a_field_needs_its_buffers(impl, kind, options):
    with pytest.raises(ValueError, match=r"too few|width|offsets|values|kind|per_second"):
        impl.columns.Field(kind, b"", 2, **options)


def test_rows_beyond_the_length_of_a_field_are_refused(impl):
    field = number_field(impl, "integer", "q", [1, 2])
    with pytest.raises(ValueError, match="a field has 2 rows, and 3 are asked for"):
        impl.columns.encode_rows([field], 3)
    assert rows_of(impl, [], 2, b"{}") == [b"{}", b"{}"]
    assert rows_of(impl, [field], 0) == []


@given(values=st.lists(st.none() | st.text(), max_size=20))
def test_text_is_written_as_json(impl, values):
    encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
    rows = rows_of(impl, [text_field(impl, "string", encoded, b'{"a":', null=b"null")], len(values), b"}")
    expected = [json.dumps({"a": value}, ensure_ascii=False, separators=(",", ":")) for value in values]
    assert [row.decode("utf-8", "surrogatepass") for row in rows] == expected


def test_every_byte_is_escaped_as_json_escapes_it(impl):
    # At each place of a word, and beside one that is escaped too.
    texts = [bytes([*range(128)]), *(b"x" * place + bytes([byte]) + b'y"' for byte in range(128) for place in range(9))]
    rows = rows_of(impl, [text_field(impl, "string", texts)], len(texts))
    assert rows == [json.dumps(text.decode()).encode().replace(b"\\u007f", b"\x7f") for text in texts]
    # What is no UTF-8 stays what it is.
    assert rows_of(impl, [text_field(impl, "string", [b"\xff\n\x80"])], 1) == [b'"\xff\\n\x80"']


@pytest.mark.parametrize("code", ["b", "h", "i", "q", "B", "H", "I", "Q"])
def test_whole_numbers(impl, code):
    bits = 8 * array.array(code).itemsize
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if code.islower() else (0, 2**bits - 1)
    values = sorted({least, most, 0, 1, 9, 10, 99, 100, max(least, -1), *(min(most, 10**n) for n in range(20))})
    assert rows_of(impl, [number_field(impl, "integer", code, values)], len(values)) == [b"%d" % it for it in values]
    expected = [encode_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values]
    assert rows_of(impl, [number_field(impl, "varint", code, values)], len(values)) == expected
    kept = [b"" if value == 0 else b"\x08" + varint for value, varint in zip(values, expected, strict=True)]
    assert rows_of(impl, [number_field(impl, "varint", code, values, b"\x08", skips_zero=True)], len(values)) == kept
    if code.islower():
        zigzag = [encode_varint(2 * value if value >= 0 else -2 * value - 1) for value in values]
        assert rows_of(impl, [number_field(impl, "zigzag", code, values)], len(values)) == zigzag


def test_bits_and_fixed_numbers(impl):
    flags = [True, False] * 7
    for first in range(5):
        options = {"values": bits_of(flags), "first": first}
        count = len(flags) - first
        words = [b"true" if flag else b"false" for flag in flags[first:]]
        assert rows_of(impl, [impl.columns.Field("boolean", b"", count, **options)], count) == words
        ones = [bytes([flag]) for flag in flags[first:]]
        assert rows_of(impl, [impl.columns.Field("flag", b"", count, **options)], count) == ones
    doubles = [0.0, -0.0, 1.5, float("inf")]
    field = impl.columns.Field("fixed", b"d", 4, values=array.array("d", doubles), width=8, skips_zero=True)
    assert rows_of(impl, [field], 4) == [b"", *(b"d" + struct.pack("<d", value) for value in doubles[1:])]
    floats = impl.columns.Field("fixed", b"", 4, values=array.array("f", doubles), width=4)
    assert rows_of(impl, [floats], 4) == [struct.pack("<f", value) for value in doubles]


def test_bytes_with_and_without_their_length(impl):
    values = [b"", b"x", None, b"y" * 200]
    for kind, expected in (("bytes", [b"\x00", b"\x01x", b"", b"\xc8\x01" + b"y" * 200]), ("finished", values)):
        assert rows_of(impl, [text_field(impl, kind, values)], 4) == [value or b"" for value in expected]
    assert rows_of(impl, [text_field(impl, "bytes", values, b"\x0a", skips_zero=True)], 2) == [b"", b"\x0a\x01x"]


@given(
    value=st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**10), 10**10),
    per_second=st.sampled_from([1, 1000, 10**6, 10**9]),
)
def test_moments_are_timestamps(impl, value, per_second):
    field = impl.columns.Field("moment", b"", 1, values=array.array("q", [value]), width=8, per_second=per_second)
    judge = timestamp_pb2.Timestamp(
        seconds=value // per_second, nanos=value % per_second * (10**9 // per_second)
    ).SerializeToString()
    assert rows_of(impl, [field], 1) == [bytes([len(judge)]) + judge]


def test_a_row_is_its_fields_in_order(impl):
    fields = [
        number_field(impl, "integer", "i", [1, -2], b'{"n":'),
        text_field(impl, "text", [b"1.5", None], b',"f":', null=b"null"),
        text_field(impl, "string", [b"a", b"b"], b',"s":'),
    ]
    assert rows_of(impl, fields, 2, b"}") == [b'{"n":1,"f":1.5,"s":"a"}', b'{"n":-2,"f":null,"s":"b"}']


def new_accumulator(impl, serializer=None, **limits):
    batches = []

    def make():
        batch = impl.batch.Batch("proto")
        batch.receipt = len(batches)
        batches.append(batch)
        return batch

    limits = {"max_events": 3, "max_bytes": 1 << 20, "max_event_bytes": 1000, "buffer_bytes": 1 << 20, **limits}
    return impl.batch.Accumulator(make, serializer=serializer, wire="proto", **limits)


def taken(accumulator):
    accumulator.seal()
    return [batch.events() for batch in iter(accumulator.take, None)]


def test_slices_become_events_without_the_serializer(impl):
    accumulator = new_accumulator(impl, serializer=lambda data: b"no")
    slices = slices_of(impl, [b"1", b"", b"3", b"4"])
    receipts = {}
    assert not impl.emit_slices(accumulator, "a", slices, 2, object(), receipts)
    assert (slices.at, [*receipts]) == (2, [0])
    assert not impl.emit_slices(accumulator, ["x", "x", "b", "c"], slices, 9, object(), receipts)
    assert (slices.at, [*receipts]) == (4, [0, 1])
    assert taken(accumulator) == [[("a", b"1"), ("a", b""), ("b", b"3")], [("c", b"4")]]


def test_a_router_takes_each_to_its_accumulator(impl):
    one, two = new_accumulator(impl), new_accumulator(impl)
    router = impl.batch.Router({"a": one}, lambda event_type: two)
    impl.emit_slices(router, ["a", "b", "a"], slices_of(impl, [b"1", b"2", b"3"]), 9, None, {})
    impl.emit_slices(router, "b", slices_of(impl, [b"4"]), 9, None, {})
    assert taken(one) == [[("a", b"1"), ("a", b"3")]]
    assert taken(two) == [[("b", b"2"), ("b", b"4")]]


def test_the_index_of_an_event_that_is_not_accepted_is_known(impl):
    accumulator = new_accumulator(impl)
    for types, datas, at, error in (
        ("a", [b"1", b"x" * 2000], 1, "the event takes 20"),
        (["a", ""], [b"1", b"2"], 1, "type should not be empty"),
    ):
        slices = slices_of(impl, datas)
        with pytest.raises(ValueError, match=error):
            impl.emit_slices(accumulator, types, slices, 9, None, {})
        assert slices.at == at
    with pytest.raises(TypeError, match="type should be str"):
        impl.emit_slices(accumulator, [5], slices_of(impl, [b"1"]), 9, None, {})
    accumulator.close()
    slices = slices_of(impl, [b"1"])
    with pytest.raises(RuntimeError, match="the producer was closed"):
        impl.emit_slices(accumulator, "a", slices, 9, None, {})
    assert slices.at == 0


def test_a_refused_event_ends_the_call(impl):
    accumulator = new_accumulator(impl, buffer_bytes=50, max_bytes=50, max_event_bytes=50)
    refusal = object()
    accumulator.on_full = lambda types, size: refusal
    slices = slices_of(impl, [b"x" * 15] * 5)
    receipts = {}
    assert impl.emit_slices(accumulator, "a", slices, 9, refusal, receipts)
    assert slices.at == 3
    assert accumulator.accepted == 2
    assert [*receipts] == [0]


def test_a_hook_may_move_the_cursor_and_harms_nothing(impl):
    slices = slices_of(impl, [b"1", b"2"])
    accumulator = new_accumulator(impl)
    accumulator.on_open = lambda batch: setattr(slices, "at", -7)
    with pytest.raises(IndexError):
        impl.emit_slices(accumulator, "a", slices, 9, None, {})


def test_a_batch_takes_slices(impl):
    batch = impl.batch.Batch("json")
    slices = slices_of(impl, [b"1", b"2"])
    impl.add_slices(batch, "a", slices)
    impl.add_slices(batch, ["b"], slices_of(impl, [b"3"]))
    assert batch.events() == [("a", b"1"), ("a", b"2"), ("b", b"3")]
    assert batch.count == 3


def test_a_buffer_is_held_while_it_is_read(impl):
    data = bytearray(b"abc")
    slices = impl.columns.Slices(data, array.array("i", [0, 3]), 0, 1, 4)
    with pytest.raises(BufferError):
        data.clear()
    assert slices[0] == b"abc"
    del slices
    data.clear()
