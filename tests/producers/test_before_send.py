"""The hook `before_send` and serializer errors in both producers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raccoon_fast import (
    JSON,
    RAW,
    AsyncProducer,
    BufferFull,
    ClientClosedError,
    Event,
    Lane,
    Producer,
    SerializationError,
    Status,
)
from raccoon_fast.collector import Collector

OPTIONS: dict[str, Any] = {"logger": None, "linger": 0.001}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


class Driver:
    """The calls of either producer, made one way."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    def run(self, url: str, script: Callable[[Any], Any], **options: Any) -> Any:
        """`script(call)`, where call("emit", …) is what the method returns; the report."""
        options = {**OPTIONS, "serializer": RAW, **options}
        if not self.is_async:
            with Producer(url, **options) as producer:
                script(lambda name, *args: getattr(producer, name)(*args))
            return producer.report

        async def main() -> Any:
            async with AsyncProducer(url, **options) as producer:
                loop = asyncio.get_running_loop()

                def call(name: str, *args: Any) -> Any:
                    return asyncio.run_coroutine_threadsafe(getattr(producer, name)(*args), loop).result(10)

                await asyncio.to_thread(script, call)
            return producer.report

        return asyncio.run(main())


@pytest.fixture(params=[False, True], ids=["Producer", "AsyncProducer"])
def driver(request: Any) -> Driver:
    return Driver(request.param)


def scrub(event: Event) -> Event | tuple[str, Any] | None:
    if event.type == "bot":
        return None
    if event.type == "old":
        return Event("new", event.data)
    if event.type == "bad":
        raise LookupError("not that one")
    return event.type, event.data.replace(b"secret", b"***")


def test_the_hook_scrubs_renames_and_drops(collector: Collector, driver: Driver) -> None:
    def script(call: Any) -> None:
        call("emit", "a", b"a secret")
        left_out = call("emit", "bot", b"1")
        assert left_out.done()
        response = left_out.result()
        assert (response.status, response.reason) == (Status.UNSPECIFIED, "filtered by before_send")
        call("emit_many", [("old", b"2"), ("bot", b"3"), ("a", b"4")])
        call("emit_batch", [("bot", b"5"), ("old", b"secret")])
        assert call("emit_batch", [("bot", b"6")]).result().reason == "filtered by before_send"

    report = driver.run(collector.url, script, before_send=scrub)
    assert sorted((event.type, event.data) for event in collector.events) == [
        ("a", b"4"), ("a", b"a ***"), ("new", b"2"), ("new", b"secret"),
    ]  # fmt: skip
    total = report.total
    assert (total.accepted, total.acked, total.filtered, total.lost) == (8, 4, 4, 0)
    assert {name: counts.filtered for name, counts in report.by_type.items()} == {"a": 0, "bot": 4, "new": 0}


@pytest.mark.parametrize("name", ["emit", "emit_many", "emit_batch"])
def test_errors_of_the_hook_reach_the_caller(collector: Collector, driver: Driver, name: str) -> None:
    def script(call: Any) -> None:
        with pytest.raises(LookupError, match="not that one"):
            call(name, *(("bad", b"1") if name == "emit" else ([("a", b"0"), ("bot", b""), ("bad", b"1")],)))

    report = driver.run(collector.url, script, before_send=scrub)
    # A batch is accepted whole or not at all; of many events those before it are.
    counts = (report.total.accepted, report.total.acked, report.total.filtered)
    assert counts == ((2, 1, 1) if name == "emit_many" else (0, 0, 0))


@pytest.mark.parametrize("returned", ["text", ("a",), (1, b"x"), 3, ["a", b"x"]])
def test_values_that_are_not_events_are_refused(collector: Collector, driver: Driver, returned: Any) -> None:
    def script(call: Any) -> None:
        with pytest.raises(TypeError, match="before_send must return"):
            call("emit", "a", b"x")

    assert driver.run(collector.url, script, before_send=lambda event: returned).total.accepted == 0


@pytest.mark.parametrize("event_type", ["", 3, None, "\udc80"])
def test_the_hook_is_not_called_with_an_invalid_type(collector: Collector, driver: Driver, event_type: Any) -> None:
    def script(call: Any) -> None:
        for name, argument in (("emit_batch", [(event_type, b"x")]), ("emit_many", [(event_type, b"x")])):
            with pytest.raises((TypeError, ValueError), match=r"event's type|type must be a str|surrogates"):
                call(name, argument)
        with pytest.raises((TypeError, ValueError), match=r"event's type|surrogates"):
            call("emit", event_type, b"x")

    seen: list[Event] = []
    assert driver.run(collector.url, script, before_send=seen.append).total.accepted == 0
    assert seen == []


def test_the_hook_gets_the_event_before_the_serializer(collector: Collector, driver: Driver) -> None:
    report = driver.run(
        collector.url,
        lambda call: call("emit", "a", {"n": 1}),
        serializer=JSON,
        before_send=lambda event: Event(event.type, {**event.data, "host": "h"}),
    )
    assert report.total.acked == 1
    assert collector.events[0].data == b'{"n":1,"host":"h"}'


def test_a_closed_producer_counts_nothing_as_filtered(collector: Collector) -> None:
    producer = Producer(collector.url, before_send=lambda event: None, **OPTIONS)
    producer.close()
    with pytest.raises(ClientClosedError):
        producer.emit("a", b"")
    with pytest.raises(ClientClosedError):
        producer.emit_batch([("a", b"")])
    assert producer.stats().total.accepted == 0


def test_an_event_that_waits_for_room_is_looked_at_once(collector: Collector) -> None:
    collector.faults.delay(0.05)
    seen: list[bytes] = []

    def look(event: Event) -> Event:
        seen.append(event.data)
        return event

    async def main() -> None:
        options = {**OPTIONS, "serializer": RAW, "batch_bytes": 1000, "buffer_bytes": 2000}
        async with AsyncProducer(collector.url, before_send=look, **options) as producer:
            for number in range(10):
                await producer.emit("a", b"%d" % number + bytes(800))
            with pytest.raises(BufferFull):
                [producer.emit_nowait("a", bytes(800)) for _ in range(10)]

    asyncio.run(main())
    assert [data[:1] for data in seen[:10]] == [b"%d" % number for number in range(10)]


def test_an_override_of_emit_gets_the_original_event(collector: Collector) -> None:
    seen = []

    class Mine(Producer):
        def emit(self, type: str, data: Any) -> Any:  # noqa: A002
            seen.append((type, data))
            return super().emit(type, data)

    with Mine(collector.url, serializer=RAW, before_send=scrub, **OPTIONS) as producer:
        producer.emit_many([("old", b"1"), ("bot", b"2")])
    assert seen == [("old", b"1"), ("bot", b"2")]
    assert (producer.report.total.acked, producer.report.total.filtered) == (1, 1)


def test_without_a_hook_the_accumulator_is_called_directly(collector: Collector) -> None:
    with Producer(collector.url, **OPTIONS) as producer:
        assert producer.emit.__self__ is producer._accumulator  # type: ignore[attr-defined]
    with Producer(collector.url, before_send=lambda event: event, **OPTIONS) as producer:
        assert producer.emit.__self__ is producer  # type: ignore[attr-defined]


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="before_send takes a callable, not 3"):
        Producer("null://", before_send=3)  # type: ignore[arg-type]


class TestErrorsOfJson:
    OPTIONS = (
        {},
        {"before_send": lambda event: event},
        {"lanes": {"b": Lane()}},
        {"lanes": {"b": Lane(sample=0.999999)}, "sample_key": lambda event: 1},
    )

    @pytest.mark.parametrize("options", OPTIONS, ids=["plain", "before_send", "lanes", "sampled"])
    def test_errors_name_type_index_and_path(self, driver: Driver, options: dict[str, Any]) -> None:
        events = [("a", 1), ("b", 2), ("b", {"x": [object()]})]

        def script(call: Any) -> None:
            for many in (events, iter(events)):
                with pytest.raises(SerializationError, match=r"^events\[2\] of type 'b': .* at \$\.x\[0\]") as caught:
                    call("emit_many", many)
                assert (caught.value.index, caught.value.event_type) == (2, "b")
            with pytest.raises(SerializationError, match=r"^events\[2\] of type 'b': .* at \$\.x\[0\]"):
                call("emit_batch", events)
            with pytest.raises(SerializationError, match=r"^event of type 'b': .* at \$\.x\[0\]") as caught:
                call("emit", *events[2])
            assert caught.value.index is None

        assert driver.run("null://", script, serializer=JSON, **options).total.accepted == 4

    def test_errors_of_another_serializer_are_unchanged(self, driver: Driver) -> None:
        def serializer(data: object) -> bytes:
            raise TypeError("mine")

        def script(call: Any) -> None:
            for name, args in (("emit", ("a", 1)), ("emit_many", ([("a", 1)],)), ("emit_batch", ([("a", 1)],))):
                with pytest.raises(TypeError, match=r"^mine$"):
                    call(name, *args)

        driver.run("null://", script, serializer=serializer)
