"""Router: both forms behave the same, and put each event into the accumulator of its lane."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.events import Event

TYPES = ["a", "b", "b2", "c"]


class Lanes:
    """Accumulators for "a", for "b…" and for all else, whose receipts are lists of their events' types."""

    def __init__(self, impl, serializer=None, max_events=5, max_bytes=1 << 20, buffer_bytes=1 << 30):
        self.impl = impl
        self.pool = []
        self.accumulators = {
            name: impl.batch.Accumulator(
                lambda name=name: self.new_batch(name),
                serializer=serializer,
                wire="proto",
                max_events=max_events,
                max_bytes=max_bytes,
                max_event_bytes=max_bytes,
                buffer_bytes=buffer_bytes,
            )
            for name in ("a", "b", "default")
        }
        self.found = []
        self.routes = {}
        self.router = impl.batch.Router(self.routes, self.find)

    def new_batch(self, name):
        # Batches are used again by other lanes: what one has known must not matter to the next.
        batch = self.pool.pop(0) if self.pool else self.impl.batch.Batch("proto")
        batch.receipt = f"{name}-{id(batch)}"
        return batch

    def name_of(self, event_type):
        return event_type[:1] if event_type[:1] in ("a", "b") else "default"

    def find(self, event_type):
        self.found.append(event_type)
        self.routes[event_type] = self.accumulators[self.name_of(event_type)]
        return self.routes[event_type]

    def taken(self):
        """The events of each lane; the batches go back to the pool."""
        events = {}
        for name, accumulator in self.accumulators.items():
            accumulator.seal()
            events[name] = []
            while (batch := accumulator.take()) is not None:
                assert batch.receipt.startswith(name)
                events[name] += batch.events()
                batch.clear()
                self.pool.append(batch)
        return events


EVENTS = st.lists(st.tuples(st.sampled_from(TYPES), st.binary(max_size=20)), max_size=60)


@pytest.mark.parametrize("how", [list, iter, tuple, "emit", "emit_some"])
@given(rounds=st.lists(EVENTS, min_size=1, max_size=4))
def test_each_event_is_in_its_lane(impl, how, rounds):
    lanes = Lanes(impl)
    for events in rounds:
        if how == "emit":
            for event in events:
                lanes.router.emit(*event)
        elif how == "emit_some":
            receipts, iterator, done = {}, iter(events), 0
            while (step := lanes.router.emit_some(iterator, 7, None, receipts, done))[0] == 7:
                done += step[0]
        else:
            lanes.router.emit_many(how(events))
        expected = {"a": [], "b": [], "default": []}
        for event in events:
            expected[lanes.name_of(event[0])].append(event)
        assert lanes.taken() == expected
    assert max(Counter(lanes.found).values(), default=1) == 1  # a type is looked up once


def test_each_receipt_is_reported_once(impl):
    lanes = Lanes(impl, max_events=10)
    receipts = lanes.router.emit_many([("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4"), ("b2", b"5")])
    assert [receipt.partition("-")[0] for receipt in receipts] == ["a", "b", "default"]


def test_a_long_list_of_one_lane(impl):
    lanes = Lanes(impl, max_events=100)
    events = [("a" if number % 1000 else "b", b"%d" % number) for number in range(5_000)]
    lanes.router.emit_many(events)
    taken = lanes.taken()
    assert [len(taken[name]) for name in ("a", "b", "default")] == [4995, 5, 0]


@pytest.mark.parametrize("how", [list, iter])
def test_errors_name_the_index(impl, how):
    lanes = Lanes(impl)
    with pytest.raises(TypeError, match=r"events\[2\]"):
        lanes.router.emit_many(how([("a", b"1"), ("b", b"2"), ("c",)]))
    with pytest.raises(TypeError, match=r"events\[1\]: type must be a str"):
        lanes.router.emit_many(how([("a", b"1"), (3, b"2")]))
    with pytest.raises(TypeError, match="sequence of Event"):
        lanes.router.emit_many(Event("a", b"1"))
    with pytest.raises(ValueError, match="should not be empty"):
        lanes.router.emit("", b"")
    with pytest.raises(TypeError, match="should be str"):
        lanes.router.emit(None, b"")
    assert sum(len(events) for events in lanes.taken().values()) == 3


def test_a_target_that_is_not_an_accumulator_is_called(impl):
    called = []
    router = impl.batch.Router({"x": lambda *args: called.append(args) or "left out"}, None)
    assert router.emit("x", 1) == "left out"
    assert router.emit_many([("x", 2), ("x", 3)]) == ["left out"]
    assert router.emit_many(iter([("x", 4)])) == ["left out"]
    assert called == [("x", 1, None), ("x", 2, 0), ("x", 3, 1), ("x", 4, 0)]


def test_a_type_of_a_subclass_is_looked_up_as_plain_text(impl):
    class Text(str):
        __slots__ = ()

        def __hash__(self):
            raise AssertionError("called")

        def __eq__(self, other):
            raise AssertionError("called")

    lanes = Lanes(impl)
    lanes.router.emit(Text("a"), b"1")
    lanes.router.emit_many([(Text("a"), b"2"), ("b", b"3")])
    assert lanes.taken() == {"a": [("a", b"1"), ("a", b"2")], "b": [("b", b"3")], "default": []}


def test_errors_of_find_reach_the_caller(impl):
    def find(event_type):
        raise LookupError(event_type)

    router = impl.batch.Router({}, find)
    for call in (lambda: router.emit("x", b""), lambda: router.emit_many([("x", b"")])):
        with pytest.raises(LookupError, match="x"):
            call()


def test_a_full_lane_refuses_and_the_others_go_on(impl):
    lanes = Lanes(impl, max_bytes=100, buffer_bytes=200)
    lanes.accumulators["a"].on_full = lambda types, size: "full"
    receipts = {}
    events = iter([("a", bytes(80)), ("a", bytes(80)), ("b", b"1"), ("a", bytes(80)), ("b", b"2")])
    assert lanes.router.emit_some(events, 100, "full", receipts) == (4, ("a", bytes(80)))
    assert lanes.router.emit_some(events, 100, "full", receipts, 4) == (1, None)
    taken = lanes.taken()
    assert (len(taken["a"]), len(taken["b"])) == (2, 2)


def test_serializer_errors_are_rescued_with_type_and_index(impl):
    asked = []

    def rescue(data, event_type, index):
        asked.append((data, event_type, index))
        return b"rescued"

    def serializer(data):
        if isinstance(data, bytes):
            return data
        raise TypeError

    accumulator = impl.batch.Accumulator(
        lambda: impl.batch.Batch("proto"),
        serializer=serializer,
        wire="proto",
        max_events=100,
        max_bytes=1 << 20,
        max_event_bytes=1 << 20,
        buffer_bytes=1 << 20,
        rescue=rescue,
    )
    for one in (accumulator, impl.batch.Router({}, lambda event_type: accumulator)):
        asked.clear()
        one.emit("a", 1)
        one.emit_many([("a", b"x"), ("b", 2)])
        one.emit_many(iter([("a", b"x"), ("b", 3)]))
        one.emit_some(iter([("c", 4)]), 5, None, {}, 7)
        assert asked == [(1, "a", None), (2, "b", 1), (3, "b", 1), (4, "c", 7)]
