import pytest
from google.protobuf import message
from hypothesis import example, given
from hypothesis import strategies as st

from raccoon_fast.core import _event_types_py
from raccoon_fast.errors import DecodeError

TYPES = st.text(max_size=4) | st.sampled_from(["page", "click", "page2", "é" * 100])
EVENTS = st.lists(st.fixed_dictionaries({"type": TYPES, "event_bytes": st.binary(max_size=200)}), max_size=100)


def judged(request):
    """What google.protobuf's message has."""
    tally = {}
    for index, event in enumerate(request.events):
        count, _ = tally.get(event.type, (0, 0))
        tally[event.type] = (count + 1, index)
    return tally


def tallied(form, data):
    try:
        return form.tally_types(data)
    except DecodeError:
        return None


@given(EVENTS)
def test_counts_and_last_ones(impl, messages, events):
    request = messages.SendEventRequest(req_guid="g", sent_time={"seconds": 1}, events=events)
    tally = impl.event_types.tally_types(request.SerializeToString())
    assert tally == judged(request)
    assert list(tally) == list(judged(request))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 1000])
def test_any_number_of_types(impl, messages, count):
    """The compiled form caches 64 types."""
    for order in (lambda i: i % count, lambda i: i * 7919 % count, lambda i: i // 3 % count):
        request = messages.SendEventRequest(events=[{"type": f"t{order(i)}"} for i in range(3000)])
        assert impl.event_types.tally_types(request.SerializeToString()) == judged(request)


def test_types_that_begin_or_end_alike(impl, messages):
    names = ["", "a", "aa", "ab", "ba", "aba", "abab", "baba"] * 3
    request = messages.SendEventRequest(events=[{"type": name} for name in names])
    assert impl.event_types.tally_types(request.SerializeToString()) == judged(request)


@pytest.mark.parametrize("size", [0, 1, 117, 118, 126, 127, 128, 16_374, 16_383, 16_384, 2_100_000])
def test_data_of_every_length_of_length(impl, messages, size):
    events = [{"type": "a", "event_bytes": b"\x12\x01z" * (size // 3) + bytes(size % 3)}, {"type": "b"}]
    request = messages.SendEventRequest(events=events)
    assert impl.event_types.tally_types(request.SerializeToString()) == {"a": (1, 0), "b": (1, 1)}


UNUSUAL = [
    ("", {}),
    ("1a 00", {"": (1, 0)}),
    ("1a 04 12 00 0a 00", {"": (1, 0)}),
    # The type before the data, twice, and longer encodings than need be.
    ("1a 08 12 01 61 0a 01 ff 12 00", {"": (1, 0)}),
    ("1a 09 12 01 61 12 01 62 0a 01 ff", {"b": (1, 0)}),
    ("9a 00 85 00 92 00 81 00 61", {"a": (1, 0)}),
    ("9a 00 86 00 92 00 81 00 61", None),
    # Unknown fields of each wire type, a group among them, and known numbers of another wire type.
    ("08 01 1a 03 12 01 61 7a 02 1a 00", {"a": (1, 0)}),
    ("18 01 1d 00000000 1a 05 10 07 12 01 61", {"a": (1, 0)}),
    ("1a 10 2b 12 01 78 2c 25 00000000 12 01 61 30 05 00", None),
    ("1a 0f 2b 12 01 78 2c 25 00000000 12 01 61 30 05", {"a": (1, 0)}),
    ("23 1a 03 12 01 61 24 1a 03 12 01 62", {"b": (1, 0)}),
    # Cut off, in each place.
    ("1a", None),
    ("1a 80", None),
    ("1a 01", None),
    ("1a 01 12", None),
    ("1a 02 12 01", None),
    ("1a 03 12 02 61", None),
    ("1a 02 0a 01 12", None),
    ("1a 03 12 01", None),
    ("1a 03 12 01 ff", None),
]


@pytest.mark.parametrize(("encoded", "expected"), UNUSUAL)
def test_unusual_encodings(impl, encoded, expected):
    assert tallied(impl.event_types, bytes.fromhex(encoded)) == expected


@pytest.mark.usefixtures("upb")
@pytest.mark.parametrize(("encoded", "expected"), UNUSUAL)
def test_unusual_encodings_are_read_as_google_protobuf_reads_them(messages, encoded, expected):
    try:
        assert judged(messages.SendEventRequest.FromString(bytes.fromhex(encoded))) == expected
    except message.DecodeError:
        assert expected is None


@given(EVENTS, st.data())
def test_damaged_requests_are_read_alike_by_both_forms(impl, messages, events, data):
    encoded = bytearray(messages.SendEventRequest(req_guid="g", events=events).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        if encoded:
            encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    assert tallied(impl.event_types, damaged) == tallied(_event_types_py, damaged)


@pytest.mark.usefixtures("upb")
@given(st.binary(max_size=60))
@example(b"\x1a\x05\x0a\xff\xff\xff\x7f")
@example(b"\x1a\xff\xff\xff\xff\x0f")
def test_what_google_protobuf_reads_is_read_alike(impl, messages, data):
    tally = tallied(impl.event_types, data)
    assert tally == tallied(_event_types_py, data)
    try:
        request = messages.SendEventRequest.FromString(data)
    except message.DecodeError:
        return
    # Inside an unknown group google.protobuf lets more pass.
    assert tally in (judged(request), None)


@pytest.mark.parametrize("request_", [bytearray(b""), memoryview(b""), "", None])
def test_bytes_only(impl, request_):
    with pytest.raises(TypeError, match="a request should be bytes, not "):
        impl.event_types.tally_types(request_)
