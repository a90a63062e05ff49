"""Batch and Accumulator: both forms behave the same, lose and repeat no event, and keep the limit."""

from __future__ import annotations

import queue
import random
import threading
import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.core import _batch_py
from raccoon_fast.core.envelope import MAX_GUID_BYTES
from raccoon_fast.errors import ClientClosedError, DecodeError, MessageTooLargeError, Outcome
from raccoon_fast.events import Event

WIRES = ["proto", "json"]
TYPES = st.one_of(st.sampled_from(["a", "b", "page"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
EVENTS = st.lists(st.tuples(TYPES, st.binary(max_size=300)), max_size=30)


@pytest.fixture(params=WIRES)
def wire(request) -> str:
    return request.param


def message_of(batch) -> bytes:
    batch.envelope.stamp("guid", 1, 2)
    return bytes(batch.envelope.payload())


@given(batches=st.lists(EVENTS, min_size=1, max_size=5), wire=st.sampled_from(WIRES))
def test_types_of_several_batches(impl, batches, wire):
    made = []
    for events in batches:
        batch = impl.batch.Batch(wire)
        batch.add_many(events)
        made.append(batch)
    before = [dict(batch.types) for batch in made]
    assert impl.batch.types_of(made) == Counter(event_type for events in batches for event_type, _ in events)
    assert [dict(batch.types) for batch in made] == before


class TestBatch:
    def test_a_new_batch_is_empty(self, impl, wire):
        batch = impl.batch.Batch(wire)
        assert (batch.wire, batch.count, batch.nbytes, dict(batch.types), batch.events()) == (wire, 0, 0, {}, [])
        assert (batch.receipt, batch.settlement, batch.req_guid) == (None, None, "")
        assert (batch.accepted_s, batch.deadline_s, batch.attempts) == (0.0, 0.0, 0)
        assert (batch.outcome, batch.trouble) == (Outcome.NOT_DELIVERED, None)

    @given(events=EVENTS, wire=st.sampled_from(WIRES))
    def test_events_come_back(self, impl, events, wire):
        batch = impl.batch.Batch(wire, 0)
        batch.add_many(events)
        assert batch.events() == events
        assert dict(batch.types) == Counter(event_type for event_type, _ in events)
        assert batch.count == len(events)

    @pytest.mark.parametrize("how", [list, iter, None], ids=["list", "iterator", "one by one"])
    def test_equal_types_are_recognized_whatever_object_they_are(self, impl, wire, how):
        """Programs take types from their input, so each is a new str object."""
        rand = random.Random(1)
        names = ["a", "page", "page2", "é", "\u20ac", "x" * 30, "x" * 31, "y" * 200, "t\x00t"]
        names += [f"type-{number}" for number in range(300)]
        chosen = [name for few in (1, 2, 9, 309) for name in rand.choices(names[:few], k=700)]
        events = [("".join([*name]), rand.randbytes(rand.randrange(200))) for name in chosen]
        batch = impl.batch.Batch(wire, 0)
        for _ in range(2):
            if how is None:
                for event in events:
                    batch.add(*event)
            else:
                batch.add_many(how(events))
            assert dict(batch.types) == Counter(chosen)
            assert batch.events() == events
            batch.clear()
        assert dict(batch.types) == {}

    def test_blocks_grow_and_shrink_through_every_kind_of_memory(self, impl, wire):
        """Small blocks are Python's, middle ones the C library's, and large ones mappings."""
        rand = random.Random(2)
        one = rand.randbytes(90_000)
        accumulator = impl.batch.Accumulator(
            lambda: batches.pop(), serializer=None, wire=wire, max_events=1000, max_bytes=8 << 20,
            max_event_bytes=8 << 20, buffer_bytes=32 << 20, batch_cost=1,
        )  # fmt: skip
        accumulator.hold(16 << 20)  # so it is crowded, and shrinks the blocks of what it seals
        for number in (1, 3, 40, 2, 9, 1):
            batch = impl.batch.Batch(wire, 0)
            for size in range(0, 2000, 100):
                batch.add("small", one[:size])
            batch.add_many([("large", one)] * number)
            events = batch.events()
            assert [data for _, data in events] == [*(one[:size] for size in range(0, 2000, 100)), *[one] * number]
            message = message_of(batch)
            view = batch.envelope.payload()
            batch.clear()  # into another block: the view still shows this one
            batches = [batch]
            for event in events[-number:]:
                accumulator.emit(*event)
            assert accumulator.seal()
            taken = accumulator.take()
            assert taken is batch
            assert taken.events() == events[-number:]
            assert bytes(view) == message
            assert len(message_of(taken)) == taken.envelope.nbytes
            accumulator.release(taken.cost)

    @given(events=EVENTS, wire=st.sampled_from(WIRES), cut=st.integers(0, 30))
    def test_parts_add_up_to_the_whole(self, impl, events, wire, cut):
        whole, first, second = (impl.batch.Batch(wire) for _ in range(3))
        whole.add_many(events)
        first.add_many(events[:cut])
        second.add_many(events[cut:])
        assert first.nbytes + second.nbytes == whole.nbytes
        assert whole.nbytes == len(whole.envelope.body()) + (1 if wire == "json" and events else 0)

    @given(events=EVENTS.filter(len), more=EVENTS, wire=st.sampled_from(WIRES))
    def test_a_body_can_be_loaded_and_added_to(self, impl, events, more, wire):
        batch, loaded, whole = (impl.batch.Batch(wire) for _ in range(3))
        batch.add_many(events)
        message_of(batch)
        loaded.add("before", b"x")
        loaded.load(batch.envelope.body(), batch.types)
        assert (loaded.count, loaded.nbytes, dict(loaded.types)) == (batch.count, batch.nbytes, dict(batch.types))
        assert message_of(loaded) == message_of(batch)
        loaded.add_many(more)
        whole.add_many(events + more)
        assert message_of(loaded) == message_of(whole)
        assert (loaded.nbytes, dict(loaded.types)) == (whole.nbytes, dict(whole.types))

    def test_a_body_is_read_of_a_masked_envelope_too(self, impl, wire):
        batch = impl.batch.Batch(wire)
        batch.add("a", b"data")
        body = batch.envelope.body()
        batch.envelope.stamp("g", 1, 2)
        frame = batch.envelope.websocket_frame(2, b"key!")
        assert batch.envelope.body() == body
        del frame

    def test_clear_makes_a_batch_new(self, impl, wire):
        batch = impl.batch.Batch(wire)
        batch.add("a", b"data")
        batch.receipt = batch.settlement = batch.req_guid = "x"
        batch.accepted_s = batch.deadline_s = 1.0
        batch.attempts, batch.outcome, batch.trouble = 3, Outcome.DELIVERED, object()
        batch.clear()
        self.test_a_new_batch_is_empty(impl, wire)
        assert (batch.count, batch.nbytes, dict(batch.types), batch.receipt, batch.req_guid) == (0, 0, {}, None, "")
        assert (batch.settlement, batch.accepted_s, batch.deadline_s, batch.attempts) == (None, 0.0, 0.0, 0)
        assert (batch.outcome, batch.trouble) == (Outcome.NOT_DELIVERED, None)
        batch.add("b", b"x")
        assert batch.events() == [("b", b"x")]

    @pytest.mark.parametrize("data", [bytearray(b"data"), memoryview(b"data"), memoryview(bytearray(b"data"))])
    def test_bytes_like(self, impl, wire, data):
        batch = impl.batch.Batch(wire)
        batch.add("a", data)
        assert batch.events() == [("a", b"data")]

    @pytest.mark.parametrize(
        ("event", "error"),
        [
            (("", b""), ValueError),
            ((1, b""), TypeError),
            (("a", "text"), TypeError),
            (("a", None), TypeError),
            (("\ud800", b""), UnicodeEncodeError),
            (("a", memoryview(b"1234")[::2]), ValueError),
        ],
    )
    def test_a_wrong_event_changes_nothing(self, impl, wire, event, error):
        batch = impl.batch.Batch(wire)
        batch.add("ok", b"x")
        before = batch.nbytes
        with pytest.raises(error) as caught:
            batch.add(*event)
        assert (batch.count, batch.nbytes, dict(batch.types)) == (1, before, {"ok": 1})
        twin = _batch_py.Batch(wire)
        with pytest.raises(error) as expected:
            twin.add(*event)
        assert str(caught.value) == str(expected.value)

    def test_a_subclass_of_str_is_its_text(self, impl, wire):
        class Loud(str):
            def __hash__(self):
                raise AssertionError

            __slots__ = ()

        batch = impl.batch.Batch(wire)
        batch.add(Loud("a"), b"x")
        assert batch.events() == [("a", b"x")]
        assert {type(name) for name in batch.types} == {str}

    def test_wire_is_checked(self, impl):
        with pytest.raises(ValueError, match="xml"):
            impl.batch.Batch("xml")

    @given(body=st.binary(min_size=1, max_size=60), wire=st.sampled_from(WIRES))
    def test_an_invalid_body_is_refused_when_read(self, impl, body, wire):
        batch = impl.batch.Batch(wire)
        batch.load(body, {"a": 1})
        try:
            events = batch.events()
        except DecodeError:
            return
        assert all(isinstance(event_type, str) and isinstance(data, bytes) for event_type, data in events)


class Sink:
    """Makes an accumulator and keeps what its hooks are told."""

    def __init__(self, impl, wire="proto", serializer=None, **options):
        options = {
            "max_events": 10,
            "max_bytes": 10_000,
            "max_event_bytes": 5_000,
            "buffer_bytes": 100_000,
            **options,
        }
        self.impl = impl
        self.wire = wire
        self.opened = []
        self.sealings = 0
        self.accumulator = impl.batch.Accumulator(self.make, serializer=serializer, wire=wire, **options)
        self.accumulator.on_open = self.opened.append
        self.accumulator.on_sealed = self.on_sealed

    def make(self):
        batch = self.impl.batch.Batch(self.wire)
        batch.receipt = str(uuid.uuid4())
        return batch

    def on_sealed(self):
        self.sealings += 1

    def take_all(self):
        batches = []
        while (batch := self.accumulator.take()) is not None:
            batches.append(batch)
        return batches


class TestAccumulator:
    def test_count_seals(self, impl, wire):
        sink = Sink(impl, wire, max_events=3)
        receipts = [sink.accumulator.emit("a", b"%d" % number) for number in range(7)]
        assert [receipts.count(receipt) for receipt in dict.fromkeys(receipts)] == [3, 3, 1]
        assert (sink.accumulator.sealed, sink.sealings, len(sink.opened), sink.accumulator.open_count) == (2, 2, 3, 1)
        batches = sink.take_all()
        assert [batch.events() for batch in batches] == [
            [("a", b"0"), ("a", b"1"), ("a", b"2")],
            [("a", b"3"), ("a", b"4"), ("a", b"5")],
        ]
        assert [batch.receipt for batch in batches] == list(dict.fromkeys(receipts))[:2]
        assert (sink.accumulator.accepted, sink.accumulator.taken) == (7, 6)

    @pytest.mark.parametrize("how", [list, iter], ids=["list", "iterator"])
    @pytest.mark.parametrize("serializer", [None, bytes], ids=["as it is", "serialized"])
    @pytest.mark.parametrize("most", [1, 2, 3, 7])
    def test_emit_many_seals_at_the_count_and_not_one_later(self, impl, wire, how, serializer, most):
        for before in range(most):
            for number in range(3 * most + 2):
                sink = Sink(impl, wire, serializer, max_events=most)
                for _ in range(before):
                    sink.accumulator.emit("a", b"x")
                sink.accumulator.emit_many(how([("a", b"x")] * number))
                full, left = divmod(before + number, most)
                assert (sink.accumulator.sealed, sink.sealings) == (full, full)
                assert sink.accumulator.open_count == left
                assert [batch.count for batch in sink.take_all()] == [most] * full

    def test_a_small_sealed_batch_has_room_for_a_guid_of_every_length(self, impl, wire):
        """Few bytes are reserved in front of its events: run this under AddressSanitizer too."""
        key = b"\x00\xff\x37\x80"
        sink = Sink(impl, wire, max_events=1, batch_cost=100)
        sink.accumulator.hold(50_000)  # half of the buffer: memory is tight
        for length in range(MAX_GUID_BYTES + 1):
            sink.accumulator.emit("a", b"x")
            (batch,) = sink.take_all()
            assert batch.is_lean
            sink.accumulator.release(batch.cost)
            roomy = impl.batch.Batch(wire)
            roomy.add("a", b"x")
            for envelope in (batch.envelope, roomy.envelope):
                envelope.stamp("g" * length, 1_700_000_000, 5)
            assert batch.envelope.websocket_frame(2, key) == roomy.envelope.websocket_frame(2, key)
            assert batch.envelope.payload() == roomy.envelope.payload()
            assert batch.envelope.prefixed(b"h" * 200) == roomy.envelope.prefixed(b"h" * 200)

    def test_one_event_per_batch(self, impl, wire):
        sink = Sink(impl, wire, max_events=1)
        assert len(sink.accumulator.emit_many([("a", b"x")] * 3)) == 3
        assert (len(sink.opened), sink.sealings, sink.accumulator.sealed) == (3, 3, 3)

    def test_bytes_seal_before_the_event_that_is_too_much(self, impl, wire):
        sink = Sink(impl, wire, max_bytes=1000)
        size = sink.make().envelope.measure("a", 300)
        per_batch = 1000 // size
        sink.accumulator.emit_many([("a", bytes(300))] * (per_batch * 2 + 1))
        assert [batch.count for batch in sink.take_all()] == [per_batch, per_batch]
        assert all(batch.nbytes <= 1000 for batch in sink.opened)

    def test_the_bound_can_be_lowered(self, impl, wire):
        sink = Sink(impl, wire, max_bytes=1000)
        sink.accumulator.emit("a", bytes(400))
        two = 2 * sink.make().envelope.measure("a", 200)
        sink.accumulator.limit_bytes(two)
        sink.accumulator.limit_bytes(two * 2)
        sink.accumulator.emit_many([("a", bytes(200))] * 3)
        assert [batch.count for batch in sink.take_all()] == [1, 2]

    def test_a_larger_event_has_its_own_batch(self, impl, wire):
        sink = Sink(impl, wire, max_bytes=1000)
        sink.accumulator.emit_many([("a", b"x"), ("a", bytes(2000)), ("a", b"y")])
        sink.accumulator.seal()
        assert [batch.count for batch in sink.take_all()] == [1, 1, 1]

    def test_an_event_over_the_limit_is_refused(self, impl, wire):
        sink = Sink(impl, wire)
        with pytest.raises(MessageTooLargeError, match="5000") as caught:
            sink.accumulator.emit("a", bytes(6000))
        assert caught.value.limit == 5000
        assert caught.value.size == sink.make().envelope.measure("a", 6000)
        assert (sink.accumulator.accepted, sink.accumulator.buffered, sink.opened) == (0, 0, [])

    def test_seal(self, impl, wire):
        sink = Sink(impl, wire)
        assert sink.accumulator.seal() is False
        assert sink.accumulator.take() is None
        sink.accumulator.emit("a", b"x")
        assert sink.accumulator.seal() is True
        assert sink.accumulator.seal() is False
        assert (sink.sealings, sink.accumulator.sealed) == (1, 1)

    def test_buffered_is_exact(self, impl, wire):
        sink = Sink(impl, wire)
        sink.accumulator.emit_many([("a", bytes(number)) for number in range(25)])
        sink.accumulator.seal()
        batches = sink.take_all()
        assert sink.accumulator.buffered == sum(batch.nbytes for batch in batches)
        for batch in batches:
            sink.accumulator.release(batch.nbytes)
        assert sink.accumulator.buffered == 0
        sink.accumulator.hold(7)
        assert sink.accumulator.buffered == 7

    @pytest.mark.parametrize("serializer", [None, bytes], ids=["bytes", "serializer"])
    def test_some_of_an_iterator(self, impl, wire, serializer):
        sink = Sink(impl, wire, serializer, max_events=3)
        events, receipts = (("a", b"%d" % number) for number in range(10)), {}
        passed = [sink.accumulator.emit_some(events, 4, object(), receipts) for _ in range(4)]
        assert passed == [(4, None), (4, None), (2, None), (0, None)]
        assert [*receipts] == [batch.receipt for batch in sink.opened]
        sink.accumulator.seal()
        sent = [event for batch in sink.take_all() for event in batch.events()]
        assert sent == [("a", b"%d" % number) for number in range(10)]

    def test_some_end_at_the_refused_event(self, impl, wire):
        refusal, receipts = object(), {}
        sink = Sink(impl, wire, buffer_bytes=1000)
        sink.accumulator.on_full = lambda *_: refusal
        events = iter([("a", bytes(300)), ["a", bytes(300)], large := ["b", bytes(900)], ("a", b"x")])
        assert sink.accumulator.emit_some(events, 10, refusal, receipts) == (3, large)
        assert sink.accumulator.accepted == 2
        assert [*receipts] == [sink.opened[0].receipt]
        assert sink.accumulator.emit_some(events, 10, refusal, receipts) == (1, None)
        assert sink.accumulator.accepted == 3

    def test_some_skip_dropped_events(self, impl, wire):
        receipts = {}
        sink = Sink(impl, wire, buffer_bytes=1000)
        sink.accumulator.on_full = lambda *_: "dropped"
        events = iter([("a", bytes(300)), *[("b", bytes(900))] * 6])
        assert sink.accumulator.emit_some(events, 5, object(), receipts) == (5, None)
        assert sink.accumulator.emit_some(events, 5, object(), receipts) == (2, None)
        assert [*receipts] == [sink.opened[0].receipt, "dropped"]
        assert sink.accumulator.accepted == 1

    def test_some_before_a_wrong_one_are_kept(self, impl, wire):
        sink = Sink(impl, wire)
        receipts = {}
        events = iter([("a", b"x"), ("a", "text"), ("a", b"y")])
        with pytest.raises(TypeError):
            sink.accumulator.emit_some(events, 5, object(), receipts)
        assert (sink.accumulator.accepted, [*receipts], next(events)) == (1, [sink.opened[0].receipt], ("a", b"y"))

    def test_a_batch_is_accepted_as_it_is(self, impl, wire):
        sink = Sink(impl, wire, max_events=3, max_bytes=1000)
        sink.accumulator.emit("a", b"open")
        batch = sink.make()
        batch.add_many([("b", bytes(400))] * 4)
        assert sink.accumulator.add_batch(batch) is batch.receipt
        assert (sink.accumulator.accepted, sink.accumulator.open_count, sink.sealings) == (5, 1, 1)
        assert sink.accumulator.buffered == batch.nbytes + sink.make().envelope.measure("a", 4)
        assert sink.accumulator.waiting_types() == {"a": 1, "b": 4}
        assert sink.accumulator.take() is batch
        assert sink.accumulator.taken == 4

    def test_a_batch_waits_for_room(self, impl, wire):
        sink = Sink(impl, wire, buffer_bytes=2000)
        sink.accumulator.emit("a", bytes(1000))
        batch = sink.make()
        batch.add_many([("b", bytes(500)), ("c", bytes(500))])
        asked = []

        def on_full(types, size):
            asked.append((dict(types), size))
            if len(asked) == 1:
                return "not accepted"
            sink.accumulator.release(1000)
            return True

        sink.accumulator.on_full = on_full
        assert sink.accumulator.add_batch(batch) == "not accepted"
        assert (sink.accumulator.accepted, sink.accumulator.sealed) == (1, 0)
        assert sink.accumulator.add_batch(batch) is batch.receipt
        assert asked == [({"b": 1, "c": 1}, batch.nbytes)] * 2
        assert (sink.accumulator.accepted, sink.accumulator.sealed) == (3, 1)

    def test_a_batch_no_request_has_room_for_is_refused(self, impl, wire):
        sink = Sink(impl, wire)
        batch = sink.make()
        batch.add_many([("b", bytes(3000))] * 2)
        with pytest.raises(MessageTooLargeError, match="fewer of its 2 events") as caught:
            sink.accumulator.add_batch(batch)
        assert (caught.value.size, caught.value.limit) == (batch.nbytes, 5000)
        sink.accumulator.close()
        batch.clear()
        with pytest.raises(ClientClosedError):
            sink.accumulator.add_batch(batch)
        assert (sink.accumulator.accepted, sink.accumulator.buffered) == (0, 0)

    def test_no_event_is_accepted_over_the_bound(self, impl, wire):
        sink = Sink(impl, wire, buffer_bytes=2000)
        asked = []

        def on_full(types, size):
            asked.append((types, size))
            return "not accepted"

        sink.accumulator.on_full = on_full
        answers = [sink.accumulator.emit("a", bytearray(100)) for _ in range(50)]
        size = sink.make().envelope.measure("a", 100)
        assert answers.count("not accepted") == 50 - 2000 // size
        assert asked == [({"a": 1}, size)] * (50 - 2000 // size)
        assert sink.accumulator.buffered == 2000 // size * size
        assert sink.accumulator.accepted == 2000 // size

    def test_an_event_is_accepted_once_there_is_room(self, impl, wire):
        sink = Sink(impl, wire, buffer_bytes=2000)
        sink.accumulator.on_full = lambda *_: sink.accumulator.seal() or sink.accumulator.release(500) is None
        for _ in range(100):
            sink.accumulator.emit("a", bytes(100))
        assert sink.accumulator.accepted == 100

    def test_a_full_buffer_may_raise(self, impl, wire):
        sink = Sink(impl, wire, buffer_bytes=500)

        def on_full(*_):
            raise BufferError("full")

        sink.accumulator.on_full = on_full
        with pytest.raises(BufferError):
            sink.accumulator.emit_many([("a", bytes(100))] * 10)
        assert sink.accumulator.accepted == 500 // sink.make().envelope.measure("a", 100)

    def test_the_serializer_comes_first(self, impl, wire):
        sink = Sink(impl, wire, serializer=lambda number: b"%d" % (100 // number))
        with pytest.raises(ZeroDivisionError):
            sink.accumulator.emit_many([("a", 5), ("a", 0), ("a", 4)])
        sink.accumulator.seal()
        assert [batch.events() for batch in sink.take_all()] == [[("a", b"20")]]

    @pytest.mark.parametrize(
        ("event", "error"),
        [(("", b""), ValueError), ((1, b""), TypeError), (("a", "text"), TypeError), (("\ud800", b""), ValueError)],
    )
    def test_a_wrong_event_is_not_accepted(self, impl, wire, event, error):
        texts = []
        for form in (impl.batch, _batch_py):
            sink = Sink(impl._replace(batch=form), wire)
            with pytest.raises(error) as caught:
                sink.accumulator.emit_many([("ok", b"x"), event])
            texts.append(str(caught.value))
            accumulator = sink.accumulator
            assert (accumulator.accepted, accumulator.open_count, accumulator.waiting_types()) == (1, 1, {"ok": 1})
        assert texts[0] == texts[1]

    @pytest.mark.parametrize(
        "event", [("a", memoryview(bytes(1600))[::2]), ("\ud800", bytes(800))], ids=["data", "type"]
    )
    def test_a_wrong_event_that_needs_a_batch_of_its_own_seals_none(self, impl, wire, event):
        sink = Sink(impl, wire, max_bytes=1200)
        sink.accumulator.emit("a", bytes(700))
        with pytest.raises(ValueError, match=r"memoryview|surrogates"):
            sink.accumulator.emit(*event)
        assert (sink.accumulator.sealed, sink.accumulator.open_count, len(sink.opened)) == (0, 1, 1)
        sink.accumulator.seal()
        assert [batch.count for batch in sink.take_all()] == [1]

    def test_not_a_pair(self, impl, wire):
        sink = Sink(impl, wire)
        with pytest.raises(TypeError, match="pair"):
            sink.accumulator.emit_many([("a", b"x", 3)])
        assert sink.accumulator.emit_many([["a", b"x"]]) == [sink.opened[0].receipt]

    def test_close(self, impl, wire):
        sink = Sink(impl, wire)
        sink.accumulator.emit("a", b"x")
        sink.accumulator.close()
        sink.accumulator.close()
        for _ in range(2):
            with pytest.raises(ClientClosedError):
                sink.accumulator.emit("a", b"x")
        with pytest.raises(ClientClosedError):
            sink.accumulator.emit_many([("a", b"x")])
        assert sink.accumulator.emit_many([]) == []
        assert sink.accumulator.seal() is True
        assert sink.accumulator.take().count == 1

    def test_reset(self, impl, wire):
        sink = Sink(impl, wire)
        sink.accumulator.emit_many([("a", b"x")] * 15)
        sink.accumulator.reset()
        accumulator = sink.accumulator
        assert (accumulator.buffered, accumulator.accepted, accumulator.taken, accumulator.sealed) == (0, 0, 0, 0)
        assert accumulator.waiting_types() == {}
        accumulator.emit("b", b"y")
        accumulator.seal()
        assert [batch.events() for batch in sink.take_all()] == [[("b", b"y")]]

    def test_hooks_may_call_back(self, impl, wire):
        sink = Sink(impl, wire, max_events=2)
        taken = []
        sink.accumulator.on_sealed = lambda: taken.append(sink.accumulator.take())
        sink.accumulator.on_open = lambda batch: sink.accumulator.emit("b", b"y") if not taken else None
        sink.accumulator.emit("a", b"x")
        assert [batch.events() for batch in taken] == [[("a", b"x"), ("b", b"y")]]

    def test_a_hook_that_raises_loses_nothing(self, impl, wire):
        sink = Sink(impl, wire)

        def on_open(batch):
            raise RuntimeError("cannot start")

        sink.accumulator.on_open = on_open
        with pytest.raises(RuntimeError):
            sink.accumulator.emit("a", b"x")
        sink.accumulator.emit("a", b"y")
        sink.accumulator.seal()
        assert [batch.events() for batch in sink.take_all()] == [[("a", b"x"), ("a", b"y")]]

    def test_make_batch_that_raises_changes_nothing(self, impl, wire):
        def make():
            raise MemoryError

        options = {"max_events": 5, "max_bytes": 1000, "max_event_bytes": 1000, "buffer_bytes": 1000}
        accumulator = impl.batch.Accumulator(make, serializer=None, wire=wire, **options)
        with pytest.raises(MemoryError):
            accumulator.emit("a", b"x")
        assert (accumulator.accepted, accumulator.buffered, accumulator.open_count) == (0, 0, 0)

    @given(seed=st.integers(), wire=st.sampled_from(WIRES))
    def test_both_forms_keep_every_event_once_in_order(self, impl, seed, wire):
        forms = [impl._replace(batch=form) for form in (impl.batch, _batch_py)]
        rand = random.Random(seed)
        limits = {
            "max_events": rand.randint(1, 8),
            "max_bytes": rand.randint(1, 400),
            "max_event_bytes": rand.randint(50, 500),
            "buffer_bytes": rand.randint(100, 2000),
        }
        sinks = [Sink(form, wire, **limits) for form in forms]
        taken = [[] for _ in sinks]
        accepted = []
        for sink in sinks:
            sink.accumulator.on_full = lambda *_: "full"
        for _ in range(60):
            step = rand.random()
            if step < 0.7:
                # At times a str of its own, which equals those before.
                event_type = rand.choice(["a", "b", "c", "".join(["p", "age"])])
                event = (event_type, rand.randbytes(rand.randint(0, 120)))
                outcomes = [self.outcome(sink, event) for sink in sinks]
                assert outcomes[0] == outcomes[1]
                if outcomes[0] == "accepted":
                    accepted.append(event)
            elif step < 0.8:
                assert len({sink.accumulator.seal() for sink in sinks}) == 1
            else:
                for sink, batches in zip(sinks, taken, strict=True):
                    batch = sink.accumulator.take()
                    if batch is not None:
                        batches.append(batch)
                        sink.accumulator.release(batch.nbytes)
            assert len({self.state(sink) for sink in sinks}) == 1
        for sink, batches in zip(sinks, taken, strict=True):
            sink.accumulator.seal()
            batches += sink.take_all()
            assert [event for batch in batches for event in batch.events()] == accepted
        assert [message_of(batch) for batch in taken[0]] == [message_of(batch) for batch in taken[1]]

    @staticmethod
    def outcome(sink, event):
        try:
            return "full" if sink.accumulator.emit(*event) == "full" else "accepted"
        except MessageTooLargeError as error:
            return str(error)

    @staticmethod
    def state(sink):
        it = sink.accumulator
        types = tuple(sorted(it.waiting_types().items()))
        return it.buffered, it.accepted, it.taken, it.open_count, it.sealed, types, sink.sealings, len(sink.opened)

    @pytest.mark.parametrize("how", ["one", "list", "iterator"])
    @pytest.mark.slow
    def test_threads(self, impl, wire, how):
        sink = Sink(impl, wire, max_events=7, buffer_bytes=1 << 30)
        done = threading.Event()
        taken = []
        snapshots = []

        def emit(thread):
            for number in range(0, 2000, 5):
                some = [(f"t{thread}", b"%d" % one) for one in range(number, number + 5)]
                if how == "one":
                    for event in some:
                        sink.accumulator.emit(*event)
                else:
                    sink.accumulator.emit_many(some if how == "list" else iter(some))
                if number % 50 == 0:
                    sink.accumulator.seal()

        def take():
            while not done.is_set() or sink.accumulator.sealed:
                batch = sink.accumulator.take()
                if batch is not None:
                    taken.append((batch.receipt, batch.events()))
                    sink.accumulator.release(batch.nbytes)
                    batch.clear()
                snapshots.append(sum(sink.accumulator.waiting_types().values()))

        taker = threading.Thread(target=take)
        emitters = [threading.Thread(target=emit, args=(thread,)) for thread in range(8)]
        taker.start()
        for thread in emitters:
            thread.start()
        for thread in emitters:
            thread.join()
        sink.accumulator.seal()
        done.set()
        taker.join()
        by_type = {}
        for _, events in taken:
            for event_type, data in events:
                by_type.setdefault(event_type, []).append(int(data))
        assert by_type == {f"t{thread}": list(range(2000)) for thread in range(8)}
        assert len({receipt for receipt, _ in taken}) == len(taken)
        assert all(0 <= count <= 16000 for count in snapshots)
        assert (sink.accumulator.buffered, sink.accumulator.accepted, sink.accumulator.taken) == (0, 16000, 16000)

    def test_threads_that_release_views_of_a_batch_that_is_used_again(self, impl, wire):
        batch = impl.batch.Batch(wire)
        views = queue.SimpleQueue()
        wrong = []

        def release():
            while (item := views.get()) is not None:
                view, expected = item
                if bytes(view) != expected:
                    wrong.append(bytes(view))
                del item, view

        threads = [threading.Thread(target=release) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1000):
            batch.add("page", b"%d" % number * (number % 50))
            message = message_of(batch)
            for _ in range(4):
                views.put((batch.envelope.payload(), message))
            batch.clear()
        for _ in threads:
            views.put(None)
        for thread in threads:
            thread.join()
        assert not wrong


# Each takes apart into two, and is no pair of a type and data.
NO_PAIRS = [
    {"type": "page", "data": b"x"},
    {1: 2, 3: 4},
    frozenset(["page", "x"]),
    "ab",
    b"ab",
    ("a", b"x", b"y"),
    ("a",),
    (),
    range(2),
    iter(("a", b"x")),
    5,
    None,
]
WAYS = ["emit_many list", "emit_many iterator", "emit_some", "batch"]


class TestPairs:
    @pytest.fixture(params=[None, bytes], ids=["as it is", "serialized"])
    def accumulator(self, impl, wire, request):
        return impl.batch.Accumulator(
            lambda: impl.batch.Batch(wire),
            serializer=request.param,
            wire=wire,
            max_events=100,
            max_bytes=1 << 20,
            max_event_bytes=1 << 20,
            buffer_bytes=1 << 20,
        )

    @pytest.fixture(params=WAYS)
    def accept(self, impl, wire, accumulator, request):
        return {
            "emit_many list": accumulator.emit_many,
            "emit_many iterator": lambda events: accumulator.emit_many(iter(events)),
            "emit_some": lambda events: accumulator.emit_some(iter(events), 1000, object(), {}),
            "batch": impl.batch.Batch(wire).add_many,
        }[request.param]

    @pytest.mark.parametrize("wrong", NO_PAIRS, ids=lambda wrong: type(wrong).__name__)
    @pytest.mark.parametrize("before", [0, 3])
    def test_a_value_that_is_not_a_pair_is_refused_with_its_index(self, accumulator, accept, wrong, before):
        with pytest.raises(TypeError) as caught:
            accept([*[("a", b"x")] * before, wrong, ("a", b"x")])
        assert str(caught.value).startswith(f"events[{before}] must be Event(type, data) or a (type, data) pair, not ")
        assert len(str(caught.value)) < 200
        assert accumulator.accepted in (0, before)

    @pytest.mark.parametrize("wrong", [5, None, b"a", ("a",)])
    def test_a_type_that_is_not_text_is_refused_with_its_index(self, accept, wrong):
        with pytest.raises(TypeError, match=r"^events\[1\]: type must be a str, not "):
            accept([("a", b"x"), (wrong, b"x")])

    def test_pairs_that_are_accepted(self, accumulator, accept):
        accept([("a", b"x"), ["b", b"y"], Event("c", b"z")])
        assert accumulator.accepted in (0, 3)

    def test_indexes_continue_over_several_calls(self, accumulator):
        events = iter([("a", b"x"), ("a", b"x"), 5])
        assert accumulator.emit_some(events, 2, object(), {}) == (2, None)
        with pytest.raises(TypeError, match=r"^events\[2\] must be"):
            accumulator.emit_some(events, 2, object(), {}, 2)

    @pytest.mark.parametrize("wrong", [Event("a", b"x"), "", "ab", b"", 5, None])
    def test_values_that_are_not_events(self, accumulator, wrong):
        with pytest.raises(TypeError, match=r"^events takes a sequence of Event\(type, data\), not "):
            accumulator.emit_many(wrong)


def test_memory_that_python_cannot_return_counts_until_all_accumulators_of_a_buffer_are_drained(impl) -> None:
    limit = 24 << 20
    buffer = impl.batch.Buffer(2 * limit)
    both = [
        impl.batch.Accumulator(
            lambda: impl.batch.Batch("proto"), serializer=None, wire="proto", max_events=1, max_bytes=1 << 20,
            max_event_bytes=limit, buffer_bytes=limit, batch_cost=1024, buffer=buffer,
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = both
    for one in both:
        one.on_full = lambda types, size: None
    while first.buffered < limit * 0.9:
        for one in both:
            one.emit("a", b"x")  # so that arenas have objects of both

    def drain(one) -> None:
        while (batch := one.take()) is not None:
            one.release(batch.cost)

    costs = second.buffered
    drain(first)
    assert limit // 4 < first.buffered < limit
    assert second.buffered == costs
    large = bytes(limit - (1 << 20))
    assert not first.emit("a", large)
    assert first.accepted == first.taken
    drain(second)
    assert second.buffered == 0
    first.emit("a", large)
    assert first.accepted == first.taken + 1
    assert first.buffered == first.take().cost
