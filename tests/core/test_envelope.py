import base64
import contextlib
import ctypes
import json
import mmap
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from websockets.frames import Frame
from websockets.streams import StreamReader

from raccoon_fast.core import _envelope_py
from raccoon_fast.core.envelope import MAX_EVENTS_BYTES, MAX_GUID_BYTES
from raccoon_fast.errors import MessageTooLargeError
from raccoon_fast.events import Event

GUID = "17e2ac19-df8b-4a30-b111-fd7f5073d2f5"
NOW = (1_700_000_000, 123_456_789)
HEADROOM = 1024

# A type or guid is any text that UTF-8 can carry.
TEXTS = st.text(min_size=1, max_size=20)
EVENTS = st.lists(st.tuples(TEXTS, st.binary(max_size=200)), max_size=12)
SECONDS = st.integers(-62_135_596_800, 253_402_300_799) | st.integers(-1, 1)
NANOS = st.integers(0, 999_999_999) | st.just(0)


@pytest.fixture(params=["proto", "json"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def make(impl, kind):
    return {"proto": impl.envelope.ProtoEnvelope, "json": impl.envelope.JsonEnvelope}[kind]


@pytest.fixture
def read(kind, messages):
    """Turns a message into (guid, seconds, nanos, events), by means that share nothing with the envelope."""
    return read_proto(messages) if kind == "proto" else read_json


def read_proto(messages):
    def read(data):
        request = messages.SendEventRequest.FromString(bytes(data))
        events = [(event.type, event.event_bytes) for event in request.events]
        return request.req_guid, request.sent_time.seconds, request.sent_time.nanos, events

    return read


def read_json(data):
    request = json.loads(bytes(data))
    assert list(request) == ["req_guid", "sent_time", "events"]
    assert list(request["sent_time"]) == ["seconds", "nanos"]
    assert all(list(event) == ["event_bytes", "type"] for event in request["events"])
    events = [(event["type"], base64.b64decode(event["event_bytes"], validate=True)) for event in request["events"]]
    return request["req_guid"], *request["sent_time"].values(), events


def read_frame(frame) -> Frame:
    reader = StreamReader()
    reader.feed_data(bytes(frame))
    reader.feed_eof()
    steps: Iterator[None] = Frame.parse(reader.read_exact, mask=True, max_size=None)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return done.value


def stamped(make, events, req_guid=GUID, time=NOW):
    envelope = make()
    envelope.add_many(events)
    envelope.stamp(req_guid, *time)
    return envelope


@given(events=EVENTS, req_guid=st.text(max_size=40), seconds=SECONDS, nanos=NANOS, capacity=st.integers(0, 300))
@pytest.mark.slow
def test_proto_matches_google_protobuf(impl, messages, events, req_guid, seconds, nanos, capacity):
    request = messages.SendEventRequest(req_guid=req_guid, sent_time={"seconds": seconds, "nanos": nanos})
    for type_, data in events:
        request.events.add(type=type_, event_bytes=data)
    expected = request.SerializeToString()
    one_by_one = impl.envelope.ProtoEnvelope(capacity)
    for type_, data in events:
        one_by_one.add(type_, data)
    at_once = impl.envelope.ProtoEnvelope(capacity)
    assert at_once.add_many(iter(events)) == len(events)
    for envelope in (one_by_one, at_once):
        assert envelope.count == len(events)
        envelope.stamp(req_guid, seconds, nanos)
        assert bytes(envelope.payload()) == expected
        assert envelope.nbytes == len(expected)


@given(events=EVENTS, req_guid=st.text(max_size=40), seconds=SECONDS, nanos=NANOS, capacity=st.integers(0, 300))
def test_a_server_reads_the_json(impl, events, req_guid, seconds, nanos, capacity):
    one_by_one = impl.envelope.JsonEnvelope(capacity)
    for type_, data in events:
        one_by_one.add(type_, data)
    at_once = impl.envelope.JsonEnvelope(capacity)
    assert at_once.add_many(iter(events)) == len(events)
    for envelope in (one_by_one, at_once):
        assert envelope.count == len(events)
        envelope.stamp(req_guid, seconds, nanos)
        assert read_json(envelope.payload()) == (req_guid, seconds, nanos, events)
        assert envelope.nbytes == len(envelope.payload())


def test_json_byte_for_byte(impl):
    envelope = impl.envelope.JsonEnvelope()
    envelope.add_many([("a", b"\xfb\xff\xbf"), ('b"\\\n', b""), ("c", b"1"), ("é\u2028\x7f", b"12")])
    envelope.stamp("g", 1, 2)
    assert bytes(envelope.payload()).decode() == (
        '{"req_guid":"g","sent_time":{"seconds":1,"nanos":2},"events":['
        '{"event_bytes":"+/+/","type":"a"},{"event_bytes":"","type":"b\\"\\\\\\n"},'
        '{"event_bytes":"MQ==","type":"c"},{"event_bytes":"MTI=","type":"é\u2028\x7f"}]}'
    )


def test_base64_of_every_byte_at_every_place(impl):
    envelope = impl.envelope.JsonEnvelope()
    every = bytes(range(256))
    events = [("t", every[i:] + every[:j]) for i in range(4) for j in range(4)]
    events += [("t", bytes([b]) * n) for b in range(256) for n in range(1, 4)]
    envelope.add_many(events)
    envelope.stamp(GUID, *NOW)
    assert read_json(envelope.payload())[3] == events


def test_base64_of_every_group_at_every_place_of_a_block(impl):
    """Where the processor has AVX2, the compiled form writes 24 bytes at a time."""
    groups = bytearray()
    for bits in range(4096):
        groups += (bits << 12 | bits).to_bytes(3, "big")
    events = [("t", bytes(groups[i:])) for i in range(24)]
    events += [("t", bytes(groups[at : at + size])) for size in range(200) for at in (0, 6000)]
    envelope = impl.envelope.JsonEnvelope()
    envelope.add_many(events)
    envelope.stamp(GUID, *NOW)
    assert read_json(envelope.payload())[3] == events


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page as Linux does")
def test_nothing_behind_the_data_is_read(make):
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as memory:
        memory[: mmap.PAGESIZE] = bytes(range(256)) * (mmap.PAGESIZE // 256)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(address + mmap.PAGESIZE, mmap.PAGESIZE, 0) == 0
        envelope = make()
        for size in range(300):
            envelope.add("t", memoryview(memory)[mmap.PAGESIZE - size : mmap.PAGESIZE])
        assert envelope.count == 300
        assert protect(address + mmap.PAGESIZE, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0


@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 127, 128, 129, 16381, 16383, 16384, 16385, 2**21, 5_000_000])
def test_lengths_around_every_varint_boundary(make, read, size):
    events = [("t", b"x" * size), ("u", b"y"), ("t" * (size % 20_000 + 1), b"z")]
    envelope = stamped(make, events)
    assert read(envelope.payload()) == (GUID, *NOW, events)
    assert envelope.nbytes == len(envelope.payload())


def test_bytes_of_any_kind_are_taken(make, read):
    class Bytes(bytes):
        pass

    class Text(str):
        __slots__ = ()

    data = b"abcdef"
    kinds = [
        data,
        Bytes(data),
        bytearray(data),
        memoryview(data),
        memoryview(bytearray(data)),
        memoryview(b"__abcdef__")[2:-2],
        memoryview(data).cast("H"),
    ]
    envelope = make()
    for given_data in kinds:
        envelope.add(Text("t"), given_data)
    envelope.add_many([(Text("t"), given_data) for given_data in kinds])
    envelope.stamp(GUID, *NOW)
    assert read(envelope.payload())[3] == [("t", data)] * (2 * len(kinds))


def test_the_data_is_copied_and_not_held(make, read):
    data = bytearray(b"abc")
    envelope = stamped(make, [("t", data)])
    data[:] = b"xyz"
    data.extend(b"a bytearray that is held cannot grow")
    assert read(envelope.payload())[3] == [("t", b"abc")]


def test_events_are_pairs_of_any_kind(make, read):
    envelope = make()
    events = (
        [("a", b"1")],
        (("a", b"1") for _ in range(1)),
        {"a": b"1"}.items(),
        iter([["a", b"1"], Event("a", b"1")]),
    )
    assert [envelope.add_many(some) for some in events] == [1, 1, 1, 2]
    envelope.stamp(GUID, *NOW)
    assert read(envelope.payload())[3] == [("a", b"1")] * 5


def released():
    view = memoryview(b"abc")
    view.release()
    return view


WRONG = [
    (None, b"", TypeError, "type should be str, not NoneType"),
    (b"t", b"", TypeError, "type should be str, not bytes"),
    ([], b"", TypeError, "type should be str, not list"),
    ("", b"", ValueError, "type should not be empty"),
    ("\ud800", b"", UnicodeEncodeError, "surrogates not allowed"),
    ("t", "text", TypeError, "data should be bytes, bytearray or memoryview, not str"),
    ("t", None, TypeError, "data should be bytes, bytearray or memoryview, not NoneType"),
    ("t", 3, TypeError, "data should be bytes, bytearray or memoryview, not int"),
    ("t", [1, 2], TypeError, "data should be bytes, bytearray or memoryview, not list"),
    ("t", memoryview(b"abcd")[::2], ValueError, "one dimension and contiguous"),
    ("t", memoryview(b"abcd")[::-1], ValueError, "one dimension and contiguous"),
    ("t", memoryview(b"abcd").cast("B", (2, 2)), ValueError, "one dimension and contiguous"),
    ("t", memoryview(b"abcd").cast("I").cast("B").cast("I", ()), ValueError, "one dimension and contiguous"),
    ("t", released(), ValueError, "released memoryview"),
]


@pytest.mark.parametrize(("type_", "data", "error", "text"), WRONG)
def test_a_wrong_event_changes_nothing(make, read, type_, data, error, text):
    with pytest.raises(error, match=text):
        make().add(type_, data)
    envelope = stamped(make, [("a", b"1")])
    before = bytes(envelope.payload())
    with pytest.raises(error, match=text):
        envelope.add(type_, data)
    assert (envelope.count, envelope.nbytes, bytes(envelope.payload())) == (1, len(before), before)
    with pytest.raises(error, match=text):
        envelope.add_many([("b", b"2"), (type_, data), ("c", b"3")])
    assert envelope.count == 2
    assert read(envelope.payload())[3] == [("a", b"1"), ("b", b"2")]


@pytest.mark.parametrize("item", [None, 1, (), ("t",), ("t", b"", 1), ["t"], "t", "xyz"])
def test_a_value_that_is_not_a_pair_is_refused(make, item):
    envelope = make()
    with pytest.raises((TypeError, ValueError)):
        envelope.add_many([("a", b"1"), item])
    assert envelope.count == 1


@pytest.mark.parametrize("events", [None, 1])
def test_a_value_that_is_not_iterable_is_refused(make, events):
    with pytest.raises(TypeError):
        make().add_many(events)


def test_an_error_raised_by_the_events_is_passed_on(make, read):
    def events():
        yield "a", b"1"
        raise KeyError("mine")

    envelope = make()
    with pytest.raises(KeyError, match="mine"):
        envelope.add_many(events())
    envelope.stamp(GUID, *NOW)
    assert read(envelope.payload())[3] == [("a", b"1")]


def test_events_that_use_the_envelope_they_are_added_to(make, read):
    envelope = make(0)

    def events():
        yield "a", b"1"
        envelope.add("b", b"2")
        envelope.stamp(GUID, 1, 1)
        yield "c", bytes(envelope.payload()[:3])
        view = envelope.payload()
        yield "d", b"4" * 5000
        del view
        envelope.add_many([("e", b"5")])

    assert envelope.add_many(events()) == 5
    envelope.stamp(GUID, *NOW)
    found = read(envelope.payload())[3]
    assert [type_ for type_, _ in found] == list("abcde")
    assert found[3] == ("d", b"4" * 5000)


def test_many_types_and_lengths(make, read):
    events = [(f"type-{i % 700}", b"x" * (i % 701)) for i in range(3000)]
    assert read(stamped(make, events).payload())[3] == events


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["t", "type-of-the-most-that-is-kept-30", "a-type-of-more-bytes-than-are-kept", "é"]),
            st.sampled_from([0, 1, 89, 90, 127, 128, 129, 200, 16347, 16348, 16349, 16383, 16384]),
            st.sampled_from([bytes, bytes, bytes, bytearray]),
            st.sampled_from([tuple, tuple, tuple, list, Event._make]),
        ),
        max_size=40,
    ),
    st.integers(0, 400),
)
def test_runs_of_one_type(impl, messages, wanted, capacity):
    events = [pair((type_, data(b"x" * size))) for type_, size, data, pair in wanted]
    expected = [(type_, bytes(data)) for type_, data in events]
    forms = ((impl.envelope.ProtoEnvelope, read_proto(messages)), (impl.envelope.JsonEnvelope, read_json))
    for make_kind, read_kind in forms:
        envelope = make_kind(capacity)
        for some in (events, tuple(events), iter(events)):
            assert envelope.add_many(some) == len(events)
        for type_, data in events:
            envelope.add(type_, data)
        envelope.stamp(GUID, *NOW)
        assert read_kind(envelope.payload())[3] == expected * 4


def test_a_list_that_changes_while_it_is_added(make, read):
    events = [("t", b"1"), ("t", b"2")]

    class Pair:
        """Makes the list longer, then shorter, as it is unpacked."""

        def __init__(self, change):
            self.change = change

        def __iter__(self):
            self.change()
            return iter(("t", b"of a pair"))

    events += [Pair(lambda: events.extend([("t", b"3")] * 3)), ("t", b"4"), Pair(events.clear), ("t", b"never")]
    envelope = make()
    assert envelope.add_many(events) == 5
    envelope.stamp(GUID, *NOW)
    assert [data for _, data in read(envelope.payload())[3]] == [b"1", b"2", b"of a pair", b"4", b"of a pair"]


@pytest.mark.parametrize("make_pure", [_envelope_py.ProtoEnvelope, _envelope_py.JsonEnvelope])
@given(events=EVENTS.filter(bool))
def test_the_pure_form_encodes_events_of_an_accumulator_like_others(make_pure, events):
    added, filled, gauge = make_pure(), make_pure(), make_pure()
    added.add_many(events)
    nbytes = sum(gauge.measure(type_, len(data)) for type_, data in events)
    measured = [(type_, data, number) for number, (type_, data) in enumerate(events)]
    filled.add("before", b"x")
    filled.stamp("before", *NOW)
    filled.fill(measured, nbytes)
    for envelope in (filled, gauge.lean(measured, nbytes)):
        assert (envelope.count, envelope.nbytes, envelope.body()) == (added.count, added.nbytes, added.body())
        envelope.add("more", b"data")
        envelope.stamp(GUID, *NOW)
    added.add("more", b"data")
    added.stamp(GUID, *NOW)
    assert bytes(filled.payload()) == bytes(envelope.payload()) == bytes(added.payload())
    with pytest.raises(MessageTooLargeError):
        filled.fill(measured, MAX_EVENTS_BYTES + 1)
    assert bytes(filled.payload()) == bytes(added.payload())


def test_the_cache_of_the_pure_form_is_bounded():
    envelope = _envelope_py.ProtoEnvelope()
    envelope.add_many(("t", b"x" * size) for size in range(1000))
    assert len(envelope._forms["t"][1]) <= 256
    for make in (_envelope_py.ProtoEnvelope, _envelope_py.JsonEnvelope):
        envelope = make()
        envelope.add_many((str(i), b"") for i in range(1000))
        assert len(envelope._forms) <= 256


def test_events_over_the_limit_are_refused_before_they_are_copied(make, read):
    envelope = stamped(make, [("a", b"1")])
    with mmap.mmap(-1, 2**31) as memory, memoryview(memory) as view:
        for size in (2**31, MAX_EVENTS_BYTES + 1):
            with view[:size] as data, pytest.raises(MessageTooLargeError, match="a request has room for") as caught:
                envelope.add("t", data)
            assert caught.value.limit == MAX_EVENTS_BYTES
            assert caught.value.size > MAX_EVENTS_BYTES
    assert envelope.count == 1
    assert read(envelope.payload())[3] == [("a", b"1")]


@pytest.mark.parametrize(
    ("capacity", "error"), [(-1, ValueError), (2**31, ValueError), (1.5, TypeError), ("1", TypeError)]
)
def test_a_wrong_capacity_is_refused(make, capacity, error):
    with pytest.raises(error, match="capacity should be"):
        make(capacity)


def test_every_attempt_has_its_own_stamp(make, read):
    envelope = make()
    envelope.add("t", b"abc")
    for req_guid, seconds, nanos in (("a" * 500, *NOW), ("b", 0, 0), ("é" * 512, -1, 1), (GUID, 1, 999_999_999)):
        envelope.stamp(req_guid, seconds, nanos)
        assert read(envelope.payload()) == (req_guid, seconds, nanos, [("t", b"abc")])


def test_an_event_may_come_after_the_stamp(make, read):
    envelope = stamped(make, [("a", b"1")])
    assert read(envelope.payload())[3] == [("a", b"1")]
    envelope.add("b", b"2")
    assert read(envelope.payload()) == (GUID, *NOW, [("a", b"1"), ("b", b"2")])


def test_no_events_are_a_message_too(make, read):
    envelope = stamped(make, [])
    assert read(envelope.payload()) == (GUID, *NOW, [])
    assert envelope.count == 0


@pytest.mark.parametrize("req_guid", ["x" * MAX_GUID_BYTES, "\x01" * MAX_GUID_BYTES, "é" * (MAX_GUID_BYTES // 2)])
def test_every_shape_takes_the_longest_guids(make, read, req_guid):
    events = [("t", b"abc"), ("u", b"d" * 3000)]
    envelope = stamped(make, events, req_guid)
    expected = (req_guid, *NOW, events)
    assert read(envelope.payload()) == expected
    assert read(bytes(envelope.prefixed(b"HEAD"))[4:]) == expected
    assert read(read_frame(envelope.websocket_frame(2, b"\x01\x02\x03\x04")).data) == expected
    envelope.add("v", b"")
    envelope.stamp("short", 1, 2)
    assert read(envelope.payload()) == ("short", 1, 2, [*events, ("v", b"")])


WRONG_STAMPS = [
    ((None, 1, 1), TypeError, "req_guid should be str, not NoneType"),
    ((b"x", 1, 1), TypeError, "req_guid should be str, not bytes"),
    (("x" * (MAX_GUID_BYTES + 1), 1, 1), ValueError, "at most 1024 bytes of UTF-8, not 1025"),
    (("é" * 513, 1, 1), ValueError, "at most 1024 bytes of UTF-8, not 1026"),
    (("\udfff", 1, 1), UnicodeEncodeError, "surrogates"),
    ((GUID, 1.0, 1), TypeError, "whole numbers, not float"),
    ((GUID, 1, None), TypeError, "whole numbers, not NoneType"),
    ((GUID, -62_135_596_801, 1), ValueError, "seconds should be"),
    ((GUID, 253_402_300_800, 1), ValueError, "seconds should be"),
    ((GUID, 1, -1), ValueError, "nanos should be"),
    ((GUID, 1, 1_000_000_000), ValueError, "nanos should be"),
]


@pytest.mark.parametrize(("stamp", "error", "text"), WRONG_STAMPS)
def test_a_wrong_stamp_changes_nothing(make, stamp, error, text):
    envelope = stamped(make, [("a", b"1")])
    before = bytes(envelope.payload())
    with pytest.raises(error, match=text):
        envelope.stamp(*stamp)
    assert bytes(envelope.payload()) == before


def test_a_message_that_was_never_stamped_is_refused(make):
    envelope = make()
    envelope.add("t", b"abc")
    for read in (envelope.payload, lambda: envelope.prefixed(b"x"), lambda: envelope.websocket_frame(2, b"abcd")):
        with pytest.raises(RuntimeError, match="stamp it first"):
            read()


@given(events=EVENTS, req_guid=st.text(max_size=40), time=st.tuples(SECONDS, NANOS))
def test_sizes_are_known_beforehand(impl, events, req_guid, time):
    for make in (impl.envelope.ProtoEnvelope, impl.envelope.JsonEnvelope):
        envelope = make()
        tail = envelope.nbytes
        envelope.add_many(events)
        body = envelope.nbytes
        bound = envelope.nbytes_for(req_guid)
        envelope.stamp(req_guid, *time)
        assert body < envelope.nbytes == len(envelope.payload()) <= bound
        assert envelope.nbytes_for(req_guid) == bound
        envelope.clear()
        assert envelope.nbytes == tail
    widest = impl.envelope.JsonEnvelope()
    widest.stamp(req_guid, -62_135_596_800, 999_999_999)
    assert widest.nbytes == widest.nbytes_for(req_guid)


def test_the_bound_is_the_size_of_the_longest_time(impl):
    envelope = impl.envelope.ProtoEnvelope()
    envelope.stamp(GUID, -1, 999_999_999)
    assert envelope.nbytes == envelope.nbytes_for(GUID)
    with pytest.raises(ValueError, match="at most 1024"):
        envelope.nbytes_for("x" * 1025)


@pytest.mark.parametrize("guid", ["g", "g" * 127, "g" * 128, "\u20ac" * 40, ""])
def test_the_bound_is_that_of_the_pure_form(impl, guid):
    bound = _envelope_py.ProtoEnvelope().nbytes_for(guid)
    assert impl.envelope.ProtoEnvelope().nbytes_for(guid) == bound


@given(events=EVENTS, odd=st.sampled_from([None, ("t", bytearray(b"x")), ["t", b"x"], ("", b""), 7, {"t", b"x"}]))
def test_a_run_ends_at_the_first_unusual_event(impl, events, odd):
    for make in (impl.envelope.ProtoEnvelope, impl.envelope.JsonEnvelope):
        envelope, expected = make(), make()
        many = [("known", b"first"), *events, odd, ("known", b"last")]
        at = 0
        while at <= len(events):  # as clients do: what a run leaves is added by itself
            envelope.add(*many[at])
            at = envelope.add_run(many, at + 1)
            assert at <= len(events) + 1
            assert envelope.count == at
        assert envelope.add_run(many, at) == at
        assert envelope.add_run(many, len(many)) == len(many)
        expected.add_many(many[:at])
        assert envelope.body() == expected.body()


def test_a_run_of_one_type_is_appended_whole(impl, make):
    if impl.name == "pure":
        pytest.skip("the pure form appends one by one")
    envelope = make()
    envelope.add("t", b"first")
    assert envelope.add_run([("t", b"x")] * 9, 2) == 9
    assert envelope.count == 8


def test_a_payload_is_a_read_only_view_of_bytes(make):
    view = stamped(make, [("t", b"abc")]).payload()
    assert type(view) is memoryview
    assert (view.readonly, view.format, view.ndim, view.itemsize, view.c_contiguous) == (True, "B", 1, 1, True)
    with pytest.raises(TypeError):
        view[0] = 0


def test_a_view_outlives_its_envelope(make, read):
    view = stamped(make, [("t", b"abc" * 1000)]).payload()
    assert read(view) == (GUID, *NOW, [("t", b"abc" * 1000)])


@pytest.mark.parametrize("size", [0, 1, 300, HEADROOM - 200, HEADROOM - 100, HEADROOM, HEADROOM * 4])
def test_a_head_of_any_size_goes_in_front(make, size):
    envelope = stamped(make, [("t", b"abc")])
    message = bytes(envelope.payload())
    head = bytes(i % 251 for i in range(size))
    assert bytes(envelope.prefixed(head)) == head + message
    assert bytes(envelope.payload()) == message
    assert bytes(envelope.prefixed(b"POST")) == b"POST" + message


def test_every_head_around_the_end_of_the_headroom(make):
    envelope = stamped(make, [("t", b"abc")])
    message = bytes(envelope.payload())
    for size in range(HEADROOM - len(message) - 100, HEADROOM + 2):
        assert bytes(envelope.prefixed(b"h" * size)) == b"h" * size + message


@pytest.mark.parametrize("head", [None, "text", bytearray(b"x"), memoryview(b"x")])
def test_a_head_is_bytes(make, head):
    with pytest.raises(TypeError, match="head should be bytes"):
        stamped(make, []).prefixed(head)


@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize("around", [0, 126, 65536])
def test_a_websocket_server_reads_the_frame(make, read, opcode, around):
    for extra in range(-90, 12):
        if around + extra < 0:
            continue
        envelope = stamped(make, [("t", b"x" * (around + extra))])
        message = bytes(envelope.payload())
        frame = bytes(envelope.websocket_frame(opcode, b"\x00\xff\x37\x80"))
        parsed = read_frame(frame)
        assert (parsed.fin, parsed.opcode, parsed.rsv1, parsed.rsv2, parsed.rsv3) == (True, opcode, False, False, False)
        assert parsed.data == message
        assert len(frame) == len(message) + (6 if len(message) < 126 else 8 if len(message) < 65536 else 14)


def test_a_frame_byte_for_byte(impl):
    envelope = impl.envelope.ProtoEnvelope()
    envelope.stamp("Hel", 0, 0)
    # 0a 03 48 65 6c 12 00 under the key of the examples in RFC 6455, section 5.7.
    frame = bytes(envelope.websocket_frame(1, bytes.fromhex("37fa213d")))
    assert frame.hex() == "8187" + "37fa213d" + "3df969585be821"


@pytest.mark.parametrize("size", range(24))
def test_every_length_of_mask(impl, size):
    envelope = impl.envelope.ProtoEnvelope()
    envelope.add("t", bytes(size))
    envelope.stamp(GUID, *NOW)
    message = bytes(envelope.payload())
    key = b"\x11\x22\x33\x44"
    frame = bytes(envelope.websocket_frame(2, key))
    assert frame[-len(message) :] == bytes(byte ^ key[i % 4] for i, byte in enumerate(message))


@pytest.mark.parametrize("data", [0, 200, 70_000], ids=["header of 6", "header of 8", "header of 14"])
def test_there_is_room_for_the_header_at_every_length_of_guid(make, read, data):
    """Without the check, a write goes in front of the block: run this under AddressSanitizer too."""
    lengths = range(MAX_GUID_BYTES + 1) if data < 1000 else range(MAX_GUID_BYTES - 100, MAX_GUID_BYTES + 1)
    used = stamped(make, [("t", bytes(data))])
    for length in lengths:
        req_guid = "g" * length
        fresh = stamped(make, [("t", bytes(data))], req_guid)
        used.stamp(req_guid, *NOW)
        frame = bytes(fresh.websocket_frame(2, b"\x00\xff\x37\x80"))
        assert frame == bytes(used.websocket_frame(2, b"\x00\xff\x37\x80"))
        parsed = read_frame(frame).data
        assert parsed == bytes(fresh.payload())
        assert fresh.prefixed(b"h" * 20)[20:] == parsed
        if length % 16 == 0:
            assert read(parsed) == (req_guid, *NOW, [("t", bytes(data))])
    for length in range(MAX_GUID_BYTES + 1, MAX_GUID_BYTES + 77):
        with pytest.raises(ValueError, match="at most 1024"):
            used.stamp("g" * length, *NOW)
    assert bytes(used.websocket_frame(2, b"\x00\xff\x37\x80")) == frame


def test_a_frame_leaves_the_message_as_it_was(make, read):
    envelope = stamped(make, [("t", b"abc")])
    message = bytes(envelope.payload())
    first = bytes(envelope.websocket_frame(2, b"abcd"))
    second = bytes(envelope.websocket_frame(2, b"efgh"))
    assert first != second
    assert read_frame(first).data == read_frame(second).data == message
    assert bytes(envelope.payload()) == message
    envelope.websocket_frame(2, b"abcd")
    assert bytes(envelope.prefixed(b"x")) == b"x" + message
    envelope.websocket_frame(2, b"abcd")
    envelope.add("u", b"def")
    assert read(envelope.payload()) == (GUID, *NOW, [("t", b"abc"), ("u", b"def")])
    envelope.websocket_frame(2, b"abcd")
    envelope.stamp("other", 5, 6)
    assert read(envelope.payload()) == ("other", 5, 6, [("t", b"abc"), ("u", b"def")])
    envelope.websocket_frame(2, b"abcd")
    envelope.clear()
    envelope.stamp("other", 5, 6)
    assert read(envelope.payload()) == ("other", 5, 6, [])


WRONG_FRAMES = [
    ((0, b"abcd"), ValueError, "opcode should be 1"),
    ((8, b"abcd"), ValueError, "opcode should be 1"),
    (("2", b"abcd"), ValueError, "opcode should be 1"),
    ((2, b"abc"), ValueError, "key should be 4 bytes, not 3"),
    ((2, b"abcde"), ValueError, "key should be 4 bytes, not 5"),
    ((2, "abcd"), TypeError, "key should be bytes, not str"),
    ((2, bytearray(b"abcd")), TypeError, "key should be bytes, not bytearray"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), WRONG_FRAMES)
def test_a_wrong_frame_changes_nothing(make, arguments, error, text):
    envelope = stamped(make, [("t", b"abc")])
    message = bytes(envelope.payload())
    with pytest.raises(error, match=text):
        envelope.websocket_frame(*arguments)
    assert bytes(envelope.payload()) == message


CHANGES = {
    "add": lambda e: e.add("new", b"n" * 9),
    "add much": lambda e: e.add("new", b"n" * 100_000),
    "add many": lambda e: e.add_many([("new", b"n" * 500)] * 50),
    "stamp": lambda e: e.stamp("n" * 40, 9, 9),
    "stamp long": lambda e: e.stamp("\x01" * 1024, 9, 9),
    "prefixed": lambda e: e.prefixed(b"n" * 100),
    "frame": lambda e: e.websocket_frame(2, b"nnnn"),
    "clear": lambda e: (e.clear(), e.add("new", b"n" * 9), e.stamp("n", 1, 1)),
}
READS = {
    "payload": lambda e: e.payload(),
    "prefixed": lambda e: e.prefixed(b"H" * 50),
    "frame": lambda e: e.websocket_frame(2, b"abcd"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("look", READS)
def test_a_view_never_changes(make, look, change):
    envelope = stamped(make, [("t", b"abc" * 10)])
    view = READS[look](envelope)
    before = bytes(view)
    CHANGES[change](envelope)
    assert bytes(view) == before
    fresh = stamped(make, [("t", b"abc" * 10)])
    CHANGES[change](fresh)
    assert bytes(envelope.payload()) == bytes(fresh.payload())
    assert bytes(view) == before


def test_exported_says_whether_views_are_alive(impl, make):
    envelope = stamped(make, [("t", b"abc")])
    assert envelope.exported is False
    compiled = impl.name == "compiled"
    one, two = envelope.payload(), envelope.payload()
    part = one[3:5]
    assert envelope.exported is compiled
    one.release()
    two.release()
    assert envelope.exported is compiled
    part.release()
    del one, two, part
    assert envelope.exported is False
    frame = envelope.websocket_frame(2, b"abcd")
    assert envelope.exported is compiled
    envelope.clear()
    assert envelope.exported is False
    del frame
    assert envelope.exported is False


def test_clear_makes_an_envelope_new(make, read):
    envelope = stamped(make, [("t", b"abc" * 1000)])
    envelope.clear()
    assert envelope.count == 0
    with pytest.raises(RuntimeError, match="stamp it first"):
        envelope.payload()
    envelope.add("u", b"1")
    envelope.stamp("other", 1, 2)
    assert read(envelope.payload()) == ("other", 1, 2, [("u", b"1")])


def test_memory_is_given_back(make):
    resource = pytest.importorskip("resource", reason="the highest memory use is not known here")

    def megabytes() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)

    data = b"x" * (1 << 20)

    def use() -> None:
        envelope = stamped(make, [("t", data)] * 2)
        views = [envelope.payload(), envelope.prefixed(b"h")]
        envelope.stamp("\x01" * 1024, *NOW)
        views.append(envelope.websocket_frame(2, b"abcd"))
        with pytest.raises(ValueError):
            envelope.add("", data)
        envelope.clear()

    use()
    before = megabytes()
    for _ in range(30):
        use()
    assert megabytes() - before < 20


class Model(RuleBasedStateMachine):
    """An envelope against a list of events, with views of it held all the while."""

    def __init__(self, make, read) -> None:
        super().__init__()
        self.read = read
        self.envelope = make(16)
        self.events: list[tuple[str, bytes]] = []
        self.stamped: tuple[str, int, int] | None = None
        self.views: list[tuple[memoryview, bytes]] = []

    def hold(self, view):
        self.views.append((view, bytes(view)))

    @rule(event=st.tuples(TEXTS, st.binary(max_size=300)))
    def add(self, event):
        self.envelope.add(*event)
        self.events.append(event)

    @rule(events=EVENTS)
    def add_many(self, events):
        assert self.envelope.add_many(events) == len(events)
        self.events += events

    @rule(events=EVENTS)
    def add_many_up_to_a_wrong_one(self, events):
        with pytest.raises(TypeError):
            self.envelope.add_many([*events, ("t", None), ("t", b"")])
        self.events += events

    @rule(stamp=st.tuples(st.text(max_size=200), SECONDS, NANOS))
    def stamp(self, stamp):
        self.envelope.stamp(*stamp)
        self.stamped = stamp

    @rule()
    def clear(self):
        self.envelope.clear()
        self.events = []
        self.stamped = None

    @precondition(lambda self: self.stamped)
    @rule()
    def payload(self):
        view = self.envelope.payload()
        assert self.read(view) == (*self.stamped, self.events)
        self.hold(view)

    @precondition(lambda self: self.stamped)
    @rule(head=st.binary(max_size=1200))
    def prefixed(self, head):
        view = self.envelope.prefixed(head)
        assert bytes(view[: len(head)]) == head
        assert self.read(view[len(head) :]) == (*self.stamped, self.events)
        self.hold(view)

    @precondition(lambda self: self.stamped)
    @rule(opcode=st.sampled_from([1, 2]), key=st.binary(min_size=4, max_size=4))
    def frame(self, opcode, key):
        view = self.envelope.websocket_frame(opcode, key)
        frame = read_frame(view)
        assert frame.opcode == opcode
        assert self.read(frame.data) == (*self.stamped, self.events)
        self.hold(view)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def drop(self, data):
        self.views.pop(data.draw(st.integers(0, len(self.views) - 1)))

    @invariant()
    def holds(self):
        assert self.envelope.count == len(self.events)
        assert all(bytes(view) == content for view, content in self.views)

    def teardown(self):
        self.views.clear()
        assert self.envelope.exported is False


def test_an_envelope_behaves_like_its_model(make, read):
    run_state_machine_as_test(lambda: Model(make, read), settings=settings(max_examples=40, stateful_step_count=30))


def test_a_header_has_the_length_in_network_order(impl):
    envelope = impl.envelope.ProtoEnvelope()
    envelope.add("t", b"x" * 70_000)
    envelope.stamp(GUID, *NOW)
    header = bytes(envelope.websocket_frame(2, b"abcd")[:14])
    assert struct.unpack("!BBQ4s", header) == (0x82, 0xFF, envelope.nbytes, b"abcd")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal there")
def test_views_cost_no_reference_to_none(make):
    envelope = stamped(make, [("t", b"abc")])
    before = sys.getrefcount(None)
    for _ in range(10_000):
        view = envelope.payload()
        memoryview(view).release()
        with contextlib.suppress(BufferError, TypeError):
            ctypes.c_char.from_buffer(view)
    assert abs(sys.getrefcount(None) - before) < 1000


def test_a_view_is_bytes_of_one_dimension(make):
    view = memoryview(stamped(make, [("t", b"abc")]).payload())
    assert (view.format, view.itemsize, view.ndim, view.shape, view.strides) == ("B", 1, 1, (len(view),), (1,))
    assert (view.readonly, view.c_contiguous, view.suboffsets) == (True, True, ())
