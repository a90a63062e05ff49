import json

import pytest
from google.protobuf import message
from hypothesis import given, settings
from hypothesis import strategies as st

from raccoon_fast.core._wire_py import encode_varint
from raccoon_fast.errors import DecodeError
from raccoon_fast.events import Code, Response, Status

NUMBERS_32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 8)
NUMBERS_64 = st.integers(-(2**63), 2**63 - 1)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "status": NUMBERS_32,
        "code": NUMBERS_32,
        "sent_time": NUMBERS_64,
        "reason": st.text(),
        "data": st.dictionaries(st.text(), st.text(), max_size=4),
    },
)


def as_tuple(response):
    return (response.status, response.code, response.sent_time, response.reason, dict(response.data))


def judged(messages, data):
    """What google.protobuf makes of these bytes, or None if it refuses them."""
    try:
        return as_tuple(messages.SendEventResponse.FromString(data))
    except message.DecodeError:
        return None


def answer(status=0, code=0, sent_time=0, reason="", data=None):
    return (status, code, sent_time, reason, data or {})


def decoded(impl, data):
    try:
        return tuple(impl.answers.decode_proto_answer(data))
    except DecodeError:
        return None


@given(ANSWERS)
@pytest.mark.slow
def test_reads_what_google_protobuf_writes(impl, messages, fields):
    data = messages.SendEventResponse(**fields).SerializeToString()
    response = impl.answers.decode_proto_answer(data)
    assert type(response) is Response
    assert type(response.status) is Status
    assert type(response.code) is Code
    assert tuple(response) == as_tuple(messages.SendEventResponse(**fields))


def test_a_typical_answer(impl):
    data = bytes.fromhex("08011001 1880e2cfaa06 2a0d 0a08 7265715f67756964 1201 78")
    response = impl.answers.decode_proto_answer(data)
    assert response == (1, 1, 1700000000, "", {"req_guid": "x"})
    assert response.status is Status.SUCCESS
    assert response.code is Code.OK
    assert response.req_guid == "x"


# What servers sent.
RECORDED = [
    (
        "0801100118d1ea92d8062a300a087265715f67756964122431313131313131312d323232322d343333332d383434342d353535353535353535353535",
        (1, 1, 1795470673, "", {"req_guid": "11111111-2222-4333-8444-555555555555"}),
    ),
    (
        "0802100318d2ea92d806222f63616e6e6f74207075626c697368206576656e74733a20696e6a6563746564207075626c697368206661696c757265"
        "2a120a087265715f6775696412066661696c2d31",
        (2, 3, 1795470674, "cannot publish events: injected publish failure", {"req_guid": "fail-1"}),
    ),
    (
        "0802100218d1ea92d8062217646573657269616c697a6174696f6e206661696c757265",
        (2, 2, 1795470673, "deserialization failure", {}),
    ),
    ("0802100318d2ea92d8062a0c0a087265715f677569641200", (2, 3, 1795470674, "", {"req_guid": ""})),
    (
        "0802100418bced92d80622166d617820636f6e6e656374696f6e2072656163686564",
        (2, 4, 1795471036, "max connection reached", {}),
    ),
    (
        b'{"status":1,"code":1,"sent_time":1795470673,"data":{"req_guid":"11111111-2222-4333-8444-555555555555"}}',
        (1, 1, 1795470673, "", {"req_guid": "11111111-2222-4333-8444-555555555555"}),
    ),
    (
        b'{"status":2,"code":2,"sent_time":1795470673,"reason":"deserialization failure"}',
        (2, 2, 1795470673, "deserialization failure", {}),
    ),
    (
        b'{"status":2,"code":3,"sent_time":1795470674,"reason":"cannot publish events: injected publish failure",'
        b'"data":{"req_guid":"fail-1"}}',
        (2, 3, 1795470674, "cannot publish events: injected publish failure", {"req_guid": "fail-1"}),
    ),
]


@pytest.mark.parametrize(("recorded", "expected"), RECORDED)
def test_reads_what_servers_sent(impl, recorded, expected):
    if isinstance(recorded, str):
        assert impl.answers.decode_proto_answer(bytes.fromhex(recorded)) == expected
    else:
        assert impl.answers.decode_json_answer(recorded) == expected


@pytest.mark.usefixtures("upb")
@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_random_bytes_are_read_or_refused_as_google_protobuf_does(impl, messages, data):
    assert decoded(impl, data) == judged(messages, data)


def field(number, wire_type, payload):
    return encode_varint(number << 3 | wire_type) + payload


def delimited(number, payload):
    return field(number, 2, encode_varint(len(payload)) + payload)


VARINT_BYTES = st.integers(0, 2**64 - 1).map(encode_varint) | st.binary(min_size=1, max_size=11)
NUMBERS = st.integers(1, 6) | st.integers(1, 2**29 - 1)
FIELDS = st.deferred(
    lambda: st.one_of(
        st.builds(field, NUMBERS, st.just(0), VARINT_BYTES),
        st.builds(field, NUMBERS, st.just(1), st.binary(min_size=8, max_size=8)),
        st.builds(field, NUMBERS, st.just(5), st.binary(min_size=4, max_size=4)),
        st.builds(delimited, NUMBERS, st.binary(max_size=8) | st.text(max_size=4).map(str.encode) | MESSAGES),
        st.builds(lambda n, inner: field(n, 3, inner) + field(n, 4, b""), NUMBERS, MESSAGES),
    )
)
MESSAGES = st.lists(FIELDS, max_size=4).map(b"".join)


@pytest.mark.usefixtures("upb")
@given(st.lists(FIELDS, max_size=8).map(b"".join), st.data())
@settings(max_examples=300)
@pytest.mark.slow
def test_nearly_valid_messages_are_read_or_refused_as_google_protobuf_does(impl, messages, data, draw):
    assert decoded(impl, data) == judged(messages, data)
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        cut = data[:at]
        assert decoded(impl, cut) == judged(messages, cut)
        flipped = data[:at] + bytes([data[at] ^ 1 << draw.draw(st.integers(0, 7))]) + data[at + 1 :]
        assert decoded(impl, flipped) == judged(messages, flipped)


# Each message, and what google.protobuf's C form reads from it; None if it refuses the message.
ODD = {
    "nothing": (b"", answer()),
    "last value wins": (bytes.fromhex("08010802 220161220162 18011802"), answer(status=2, sent_time=2, reason="b")),
    "wrong wire types are unknown": (bytes.fromhex("0a0101 1200 2001 2801 0d00000000 190000000000000000"), answer()),
    "an entry without a key": (delimited(5, delimited(2, b"x")), answer(data={"": "x"})),
    "an entry without a value": (delimited(5, delimited(1, b"x")), answer(data={"x": ""})),
    "an entry of nothing": (delimited(5, b""), answer(data={"": ""})),
    "an entry with an unknown field": (
        delimited(5, delimited(1, b"k") + delimited(7, b"?") + delimited(2, b"v")),
        answer(),
    ),
    "an entry's last value wins": (
        delimited(5, delimited(1, b"k") + delimited(1, b"l") + delimited(2, b"v")),
        answer(data={"l": "v"}),
    ),
    "a key twice": (delimited(5, delimited(1, b"k") + delimited(2, b"1")) * 2, answer(data={"k": "1"})),
    "an entry that is a group": (field(5, 3, b"") + field(5, 4, b""), answer()),
    "a reason that is not UTF-8": (delimited(4, b"\xff"), None),
    "a reason of a surrogate": (delimited(4, b"\xed\xa0\x80"), None),
    "a reason with a NUL": (delimited(4, b"a\0b"), answer(reason="a\x00b")),
    "a key that is not UTF-8": (delimited(5, delimited(1, b"\xc0\x80")), None),
    "a value that is not UTF-8": (delimited(5, delimited(2, b"\xf8")), None),
    "a status over 32 bits": (field(1, 0, encode_varint(2**32 + 1)), answer(status=1)),
    "a status of -1": (field(1, 0, encode_varint(2**64 - 1)), answer(status=-1)),
    "a status of -1 in 5 bytes": (field(1, 0, encode_varint(2**32 - 1)), answer(status=-1)),
    "a code of 2**31": (field(2, 0, encode_varint(2**31)), answer(code=-2147483648)),
    "a time of -1": (field(3, 0, encode_varint(2**64 - 1)), answer(sent_time=-1)),
    "a time of 2**63": (field(3, 0, encode_varint(2**63)), answer(sent_time=-9223372036854775808)),
    "a varint of 10 bytes with bits to spare": (field(3, 0, b"\xff" * 9 + b"\x7f"), answer(sent_time=-1)),
    "a varint of 11 bytes": (field(3, 0, b"\xff" * 10 + b"\x01"), None),
    "a varint longer than need be": (field(1, 0, b"\x81\x80\x80\x00"), answer(status=1)),
    "a tag longer than need be": (b"\x88\x80\x80\x80\x00\x01", answer(status=1)),
    "a tag of 6 bytes": (b"\x88\x80\x80\x80\x80\x00\x01", None),
    "a tag over 32 bits": (b"\x88\x80\x80\x80\x10\x01", None),
    "field 0": (b"\x00\x01", None),
    "field 0 of bytes": (b"\x02\x00", None),
    "field 0 in an entry": (delimited(5, b"\x00\x01"), None),
    "field 0 in a group": (field(9, 3, b"\x00\x01") + field(9, 4, b""), answer()),
    "a group of field 0 in a group": (field(9, 3, b"\x03\x04") + field(9, 4, b""), answer()),
    "the largest field number": (field(2**29 - 1, 0, b"\x01"), answer()),
    "a length longer than need be": (b"\x22\x81\x80\x80\x80\x00a", answer(reason="a")),
    "a length of 6 bytes": (b"\x22\x81\x80\x80\x80\x80\x00a", None),
    "a length of 2**31": (b"\x22" + encode_varint(2**31) + b"a", None),
    "a length of 2**32": (b"\x22" + encode_varint(2**32) + b"a", None),
    "a length of 2**64 - 1": (b"\x22" + encode_varint(2**64 - 1) + b"a", None),
    "wire type 6": (b"\x0e\x00", None),
    "wire type 7": (b"\x0f\x00", None),
    "a group": (field(9, 3, delimited(1, b"x")) + field(9, 4, b""), answer()),
    "a group without an end": (field(9, 3, b""), None),
    "a group that ends as another": (field(9, 3, b"") + field(8, 4, b""), None),
    "an end without a group": (field(9, 4, b""), None),
    "a group that ends in its entry's parent": (delimited(5, field(9, 3, b"")) + field(9, 4, b""), None),
}
GROUPS = [*range(95, 104), 1000, 100_000]


def groups(depth):
    return field(9, 3, b"") * depth + field(9, 4, b"") * depth


@pytest.mark.parametrize(("data", "expected"), ODD.values(), ids=ODD)
def test_odd_messages_are_read_or_refused(impl, data, expected):
    assert decoded(impl, data) == expected


@pytest.mark.parametrize("depth", GROUPS)
def test_groups_inside_groups_are_read_or_refused(impl, depth):
    # An entry is one level deeper than the answer itself.
    for data, limit in ((groups(depth), 100), (delimited(5, groups(depth)), 99)):
        assert decoded(impl, data) == (answer() if depth <= limit else None)


@pytest.mark.usefixtures("upb")
def test_odd_messages_are_read_or_refused_as_google_protobuf_does(messages):
    for data, expected in ODD.values():
        assert judged(messages, data) == expected
    for depth in GROUPS:
        assert judged(messages, groups(depth)) == (answer() if depth <= 100 else None)
        assert judged(messages, delimited(5, groups(depth))) == (answer() if depth <= 99 else None)


def test_a_valid_answer_cut_off_anywhere_agrees_with_google_protobuf(impl, messages):
    response = messages.SendEventResponse(
        status=2, code=3, sent_time=1700000000, reason="né", data={"req_guid": "g" * 36}
    )
    data = response.SerializeToString()
    refused = 0
    for end in range(len(data)):
        assert decoded(impl, data[:end]) == judged(messages, data[:end])
        refused += decoded(impl, data[:end]) is None
    assert refused > len(data) * 0.8


def test_an_enum_number_without_a_name_is_kept(impl):
    response = impl.answers.decode_proto_answer(b"\x08\x63\x10\x64")
    assert (response.status, response.code) == (99, 100)
    assert response.status.name == "UNKNOWN_99"
    assert response == impl.answers.decode_json_answer(b'{"status":99,"code":100}')


def test_each_answer_has_its_own_data(impl):
    for decode, data in ((impl.answers.decode_proto_answer, b""), (impl.answers.decode_json_answer, b"{}")):
        decode(data).data["x"] = "y"
        assert decode(data).data == {}


@pytest.mark.parametrize("decode", ["decode_proto_answer", "decode_json_answer"])
@pytest.mark.parametrize("data", [None, "{}", bytearray(b"{}"), memoryview(b"{}"), 1])
def test_only_bytes_are_taken(impl, decode, data):
    with pytest.raises(TypeError, match="should be bytes, not"):
        getattr(impl.answers, decode)(data)


def test_an_answer_over_the_limit_is_refused(impl):
    limit = impl.answers.MAX_ANSWER_BYTES
    assert limit == 1024 * 1024
    reason = "x" * (limit - 5)
    at_limit = b"\x22" + encode_varint(len(reason)) + reason.encode()
    assert len(at_limit) == limit - 1
    assert impl.answers.decode_proto_answer(at_limit + b"").reason == reason
    text = json.dumps({"reason": "x" * (limit - 14)}).encode()
    assert len(text) == limit
    assert len(impl.answers.decode_json_answer(text).reason) == limit - 14
    for decode, data in (
        (impl.answers.decode_proto_answer, b"\x0a" + bytes(limit)),
        (impl.answers.decode_json_answer, text + b" "),
    ):
        with pytest.raises(DecodeError, match="over the limit of 1048576"):
            decode(data)


@given(ANSWERS)
def test_json_with_zero_fields_left_out(impl, messages, fields):
    response = impl.answers.decode_json_answer(json.dumps(fields).encode("utf-8", "replace"))
    assert type(response) is Response
    assert type(response.status) is Status
    assert type(response.code) is Code
    assert tuple(response) == as_tuple(messages.SendEventResponse(**fields))


def test_json_as_a_server_writes_it(impl):
    data = b'{"status":1,"code":1,"sent_time":1795470673,"data":{"req_guid":"17e2ac19"}}'
    assert impl.answers.decode_json_answer(data) == (1, 1, 1795470673, "", {"req_guid": "17e2ac19"})
    assert impl.answers.decode_json_answer(data).req_guid == "17e2ac19"


def test_json_null_is_zero_and_unknown_fields_are_skipped(impl):
    data = b' {"status":null,"code":null,"sent_time":null,"reason":null,"data":null,"more":[1,{"a":2}]} '
    assert impl.answers.decode_json_answer(data) == (0, 0, 0, "", {})


WRONG_JSON = [
    b"",
    b" ",
    b"{",
    b"<html></html>",
    b"null",
    b"[]",
    b"1",
    b'"{}"',
    b'{"status":1}x',
    b'{"status":"1"}',
    b'{"status":"STATUS_SUCCESS"}',
    b'{"status":1.0}',
    b'{"status":true}',
    b'{"status":[]}',
    b'{"status":2147483648}',
    b'{"code":-2147483649}',
    b'{"code":{}}',
    b'{"sent_time":"1795470673"}',
    b'{"sent_time":9223372036854775808}',
    b'{"sent_time":1e400}',
    b'{"sent_time":100000000000000000000000000}',
    b'{"reason":1}',
    b'{"reason":["x"]}',
    b'{"reason":"\xff"}',
    b'{"reason":"\\ud800"}',
    b'{"data":[]}',
    b'{"data":"x"}',
    b'{"data":{"req_guid":1}}',
    b'{"data":{"req_guid":null}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", WRONG_JSON, ids=lambda data: repr(data[:40]))
def test_json_that_is_not_an_answer_is_refused(impl, data):
    with pytest.raises(DecodeError, match="an answer"):
        impl.answers.decode_json_answer(data)
