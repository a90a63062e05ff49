"""Producers can be subclassed, mocked and wrapped, and explain why they cannot be pickled."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import pytest

from raccoon_fast import (
    JSON,
    PROTO,
    RAW,
    AsyncGrpcClient,
    AsyncProducer,
    AsyncRestClient,
    AsyncWebSocketClient,
    Event,
    GrpcClient,
    Lane,
    Producer,
    RestClient,
    WebSocketClient,
)
from raccoon_fast.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def datas(collector: Collector) -> list[bytes]:
    return [event.data for event in collector.events]


class Marking(Producer):
    def emit(self, type: str, data: Any) -> Any:  # noqa: A002
        return super().emit(type, data + b"!")


class MarkingMany(Marking):
    def emit_many(self, events: Iterable[Any]) -> Any:
        return super().emit_many([(event_type, data + b"?") for event_type, data in events])


class AsyncMarking(AsyncProducer):
    async def emit(self, type: str, data: Any) -> Any:  # noqa: A002
        return await super().emit(type, data + b"!")


class AsyncMarkingMany(AsyncMarking):
    async def emit_many(self, events: Iterable[Any]) -> Any:
        return await super().emit_many([(event_type, data + b"?") for event_type, data in events])


def emit_all(cls: Any, collector: Collector) -> None:
    if issubclass(cls, Producer):
        with cls(collector.ws_url, serializer=RAW, logger=None) as producer:
            producer.emit("a", b"one")
            producer.emit_many([("a", b"two"), ("a", b"three")])
        return

    async def main() -> None:
        async with cls(collector.ws_url, serializer=RAW, logger=None) as producer:
            await producer.emit("a", b"one")
            await producer.emit_many([("a", b"two"), ("a", b"three")])

    asyncio.run(main())


@pytest.mark.parametrize("cls", [Marking, AsyncMarking])
def test_an_override_of_emit_gets_every_event(collector: Collector, cls: Any) -> None:
    emit_all(cls, collector)
    assert datas(collector) == [b"one!", b"two!", b"three!"]


@pytest.mark.parametrize("cls", [MarkingMany, AsyncMarkingMany])
def test_an_override_of_both_gets_each_event_once(collector: Collector, cls: Any) -> None:
    emit_all(cls, collector)
    assert datas(collector) == [b"one!", b"two?", b"three?"]


def test_a_subclass_that_overrides_nothing(collector: Collector) -> None:
    class Plain(Producer):
        pass

    emit_all(Plain, collector)
    assert datas(collector) == [b"one", b"two", b"three"]
    producer = Plain(collector.ws_url)
    assert producer.emit.__self__ is producer._accumulator  # type: ignore[attr-defined]
    producer.close()


def test_a_mock_of_the_class_reaches_objects_made_before_and_after(collector: Collector) -> None:
    with Producer(collector.ws_url, serializer=RAW, logger=None) as before:
        direct = before.emit
        with mock.patch.object(Producer, "emit") as emit:
            with Producer(collector.ws_url, serializer=RAW, logger=None) as after:
                before.emit("a", b"x")
                after.emit("a", b"y")
                after.emit_many([("a", b"z")])
            assert [call.args for call in emit.call_args_list] == [("a", b"x"), ("a", b"y"), ("a", b"z")]
        assert before.emit == direct
        before.emit("a", b"real")
    assert datas(collector) == [b"real"]


def test_a_mock_of_one_object_is_left_alone(collector: Collector) -> None:
    with Producer(collector.ws_url, serializer=RAW, logger=None) as producer:
        with mock.patch.object(producer, "emit") as emit:
            with mock.patch.object(Producer, "emit"):
                producer.emit("a", b"x")
            producer.emit("a", b"y")
            assert emit.call_count == 2
        producer.emit("a", b"real")
    assert datas(collector) == [b"real"]


def test_an_instrumentation_wrapper_sees_every_event(collector: Collector) -> None:
    seen = []
    original = Producer.emit

    def wrapped(self: Producer, *args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return original(self, *args, **kwargs)

    patched = mock.patch.object(Producer, "emit", wrapped)
    with patched, Producer(collector.ws_url, serializer=RAW, logger=None) as producer:
        producer.emit("a", b"x")
    assert (seen, datas(collector)) == ([("a", b"x")], [b"x"])


def test_emit_can_be_called_through_the_class(collector: Collector) -> None:
    with Producer(collector.ws_url, serializer=RAW, logger=None) as producer:
        Producer.emit(producer, "a", b"x")
        Producer.emit_many(producer, [("a", b"y")])
    assert datas(collector) == [b"x", b"y"]


def test_emit_describes_itself() -> None:
    assert [*inspect.signature(Producer.emit).parameters] == ["self", "type", "data"]
    assert mock.create_autospec(Producer, instance=True).emit("a", b"x") is not None


@pytest.mark.parametrize(
    "wrong", [{"type": "page"}, "ab", frozenset("ax"), 5, ("a", b"x", b"y")], ids=["dict", "str", "set", "int", "three"]
)
def test_a_value_that_is_not_a_pair_is_refused_as_by_send(collector: Collector, wrong: Any) -> None:
    events = [("a", b"x"), wrong]

    async def of_async() -> list[str]:
        async with AsyncProducer(collector.ws_url, serializer=RAW, logger=None) as producer:
            errors = []
            for call in (producer.emit_many, producer.emit_batch):
                with pytest.raises(TypeError) as caught:
                    await call(events)
                errors.append(str(caught.value))
            return errors

    with RestClient(collector.url, serializer=RAW, logger=None) as client, pytest.raises(TypeError) as refused:
        client.send(events)
    said = str(refused.value)
    assert said.startswith("events[1] must be")
    with Producer(collector.ws_url, serializer=RAW, logger=None) as producer:
        for call in (producer.emit_many, producer.emit_batch):
            with pytest.raises(TypeError) as caught:
                call(events)
            assert str(caught.value) == said
    assert asyncio.run(of_async()) == [said, said]


SMALL: dict[str, Any] = {"batch_bytes": 10_000, "buffer_bytes": 100_000}


@pytest.mark.parametrize("name", ["emit_many", "emit_batch"])
@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("", b"x"), r"^events\[2\]: an event's type should not be empty"),
        (("b", 5), r"^events\[2\]: an event's data should be bytes.* not int"),
        (("b", memoryview(b"abcd")[::2]), r"^events\[2\]: an event's data should be .* contiguous"),
        (("b\ud800", b"x"), r"surrogates not allowed, in events\[2\]$"),
        (("b", bytes(200_000)), r"^events\[2\]: the event takes|^the batch takes \d+ bytes"),
    ],
    ids=["type", "data", "view", "surrogate", "large"],
)
def test_a_refused_event_is_named_by_its_position(name: str, kind: Any, wrong: Any, said: str) -> None:
    events = [("a", b"x"), ("a", b"x"), wrong, ("a", b"x")]

    async def of_async(**options: Any) -> tuple[str, int]:
        async with AsyncProducer("null://", serializer=RAW, logger=None, **SMALL, **options) as producer:
            with pytest.raises((TypeError, ValueError), match=said) as caught:
                await getattr(producer, name)(kind(events))
            return str(caught.value), producer.stats().total.accepted

    for options in ({}, {"lanes": {"b": Lane()}}):  # type: dict[str, Any]
        with Producer("null://", serializer=RAW, logger=None, **SMALL, **options) as producer:
            with pytest.raises((TypeError, ValueError), match=said) as caught:
                getattr(producer, name)(kind(events))
            accepted = producer.stats().total.accepted
        assert accepted == (2 if name == "emit_many" else 0)
        assert asyncio.run(of_async(**options)) == (str(caught.value), accepted)


def test_positions_count_events_that_are_left_out() -> None:
    def hook(event: Event) -> Event | None:
        return event if event.data else None

    with Producer("null://", serializer=RAW, logger=None, before_send=hook) as producer:
        with pytest.raises(TypeError, match=r"^events\[2\]: an event's data should be"):
            producer.emit_batch([("a", b""), ("a", b"x"), ("a", 5)])  # type: ignore[list-item]
        assert producer.stats().total.accepted == 0


@pytest.mark.parametrize("wrong", [Event("a", b"x"), "ab", 5])
def test_values_that_are_not_events_are_refused_as_by_send(collector: Collector, wrong: Any) -> None:
    with Producer(collector.ws_url, serializer=RAW, logger=None) as producer:
        for call in (producer.emit_many, producer.emit_batch):
            with pytest.raises(TypeError, match=r"^events takes a sequence of"):
                call(wrong)
        assert producer.stats().total.accepted == 0


MADE = [
    (Producer, "ws://h"),
    (AsyncProducer, "ws://h"),
    (RestClient, "http://h"),
    (AsyncRestClient, "http://h"),
    (WebSocketClient, "ws://h"),
    (AsyncWebSocketClient, "ws://h"),
    (GrpcClient, "grpc://h"),
    (AsyncGrpcClient, "grpc://h"),
]


@pytest.mark.parametrize(("cls", "url"), MADE, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_an_object_with_connections_says_what_to_do(cls: Any, url: str, how: Any) -> None:
    one = cls(url, logger=None)
    with pytest.raises(TypeError, match=f"^{cls.__name__} cannot be pickled .* create a {cls.__name__} there$"):
        how(one)
    if hasattr(one, "_running") or cls is Producer:
        one.close(0)


@pytest.mark.parametrize("serializer", [RAW, PROTO, JSON], ids=repr)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_serializers_pickle_as_themselves(serializer: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(serializer, protocol)) is serializer
    assert copy.deepcopy(serializer) is serializer
