"""The options of lanes, the choice of an event type's lane, and sampling."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast import AsyncProducer, Event, Lane, Producer
from raccoon_fast.producers.lanes import LaneTable, Sampler


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"priority": "urgent"}, ValueError, "priority must be one of high, normal, low, not 'urgent'"),
        ({"overflow": "forget"}, ValueError, "overflow must be one of block, raise, drop_newest, drop_oldest, spool"),
        ({"linger": -1}, ValueError, "linger must be above 0"),
        ({"ttl": "1 min"}, TypeError, "ttl takes a number of seconds"),
        ({"block_timeout": 0}, ValueError, "block_timeout must be above 0"),
        ({"batch_events": 0}, ValueError, "batch_events must be 1 or more"),
        ({"batch_bytes": 1.5}, TypeError, "batch_bytes takes an int"),
        ({"buffer_bytes": "8M"}, TypeError, "buffer_bytes takes an int"),
        ({"durable": 1}, TypeError, "durable takes True or False"),
        ({"sample": 1.5}, ValueError, "sample must be from 0 to 1"),
        ({"sample": True}, TypeError, "sample takes a share"),
        ({"on_delivery": 3}, TypeError, "on_delivery takes a callable"),
    ],
)
def test_a_lane_names_its_wrong_option(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Lane(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lanes": [Lane()]}, TypeError, "lanes takes a dict"),
        ({"lanes": {"a": {"priority": "high"}}}, TypeError, r"lanes\['a'\] must be a Lane"),
        ({"lanes": {1: Lane()}}, TypeError, "lanes takes event types as keys, not 1"),
        ({"lanes": {"default": Lane()}}, ValueError, "'default' is the lane of all other events"),
        ({"lanes": {"a": Lane(durable=True)}}, ValueError, r"lanes\['a'\]: durable=True needs the producer's spool"),
        ({"lanes": {"a": Lane(overflow="spool")}}, ValueError, r'lanes\[.a.\]: overflow="spool" needs'),
        ({"lanes": {"a": Lane(buffer_bytes=64 << 20)}}, ValueError, "leave too little for default"),
        (
            {"lanes": {"a": Lane(buffer_bytes=1000, batch_bytes=600)}},
            ValueError,
            r"lanes\['a'\]: buffer_bytes must hold two batches, 1200 or more, not 1000",
        ),
        ({"lane_of": lambda event_type: None}, ValueError, "lane_of needs lanes"),
        ({"lanes": {"a": Lane()}, "lane_of": 3}, TypeError, "lane_of takes a callable"),
        ({"lanes": {"a": Lane()}, "sample_key": 3}, TypeError, "sample_key takes a callable"),
    ],
)
@pytest.mark.parametrize("kind", [Producer, AsyncProducer])
def test_a_producer_names_its_wrong_option(
    kind: type[Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind("http://127.0.0.1:1", logger=None, **options)


def test_a_lane_inherits_the_producer_s_options(tmp_path: Path) -> None:
    lanes = {
        "a": Lane(),
        "b": Lane(priority="high", linger=1, batch_events=5, buffer_bytes=1 << 20, ttl=3, durable=False, sample=0.5),
    }
    options: dict[str, Any] = {"linger": 0.5, "overflow": "raise", "block_timeout": 7, "batch_events": 9}
    with Producer("http://127.0.0.1:1", logger=None, spool=tmp_path / "s", durable=True, lanes=lanes, **options) as one:
        default, a, b = one._lanes
    assert (a.linger_s, a.overflow, a.block_timeout_s, a.batch_events, a.ttl_s) == (0.5, "raise", 7.0, 9, None)
    assert a == default._replace(name="a")
    assert (b.rank, b.linger_s, b.batch_events, b.ttl_s, b.durable, b.sample) == (0, 1.0, 5, 3.0, False, 0.5)
    assert (default.rank, default.durable) == (1, True)
    # The shares add up; a batch is no more than half of its lane's.
    assert [lane.buffer_bytes for lane in (default, a, b)] == [63 << 19, 63 << 19, 1 << 20]
    assert (a.batch_bytes, b.batch_bytes) == (1 << 20, 1 << 19)


class TestTable:
    def table(self, lane_of: Callable[[str], Any] | None = None) -> LaneTable:
        return LaneTable(["default", "payment", "log"], ["d", "p", "l"], lane_of)

    def test_a_type_named_like_a_lane_is_in_that_lane(self) -> None:
        table = self.table()
        assert [table.target(name) for name in ("payment", "log", "page", "default", "")] == ["p", "l", "d", "d", "d"]
        assert table.routes["payment"] == "p"

    def test_lane_of_is_asked_once_for_each_other_type(self) -> None:
        asked: list[str] = []

        def lane_of(event_type: str) -> str | None:
            asked.append(event_type)
            return {"l": "log", "d": "default"}.get(event_type[0])

        table = self.table(lane_of)
        for _ in range(3):
            assert [table.target(name) for name in ("payment", "l.1", "l.2", "d", "x")] == ["p", "l", "l", "d", "d"]
        assert asked == ["l.1", "l.2", "d", "x"]

    @pytest.mark.parametrize("answer", ["lgo", 3, b"log"])
    def test_an_answer_that_is_not_a_lane_is_an_error(self, answer: object) -> None:
        with pytest.raises(ValueError, match=r"lane_of returned .* for the event type 'x': it must be one of payment,"):
            self.table(lambda event_type: answer).target("x")

    def test_the_table_remembers_a_bounded_number_of_types(self) -> None:
        table = self.table()
        for number in range(20_000):
            assert table.target(f"type-{number}") == "d"
        assert len(table.routes) == len(table._known) == 10_000
        assert table.target("payment") == "p"


class TestSampler:
    @given(key=st.one_of(st.text(), st.binary(), st.integers()), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
    def test_a_key_always_decides_the_same(self, key: object, shares: tuple[float, float]) -> None:
        smaller, larger = (Sampler(share, lambda event: key) for share in sorted(shares))
        assert smaller.keeps("a", 1) == smaller.keeps("b", 2)
        assert larger.keeps("a", 1) >= smaller.keeps("a", 1)

    def test_all_and_none(self) -> None:
        for key in (None, lambda event: "k"):
            assert Sampler(1.0, key).keeps("a", b"")
            assert not Sampler(0.0, key).keeps("a", b"")

    def test_the_share_of_the_keys_is_about_right(self) -> None:
        sampler = Sampler(0.25, lambda event: event.data["user"])
        kept = sum(sampler.keeps("a", {"user": f"user-{number}"}) for number in range(4000))
        assert 900 <= kept <= 1100
        assert (
            sampler.keeps("a", {"user": 7}) == sampler.keeps("a", {"user": "7"}) == sampler.keeps("a", {"user": b"7"})
        )

    def test_without_a_key_chance_decides(self) -> None:
        draw = random.Random(1).random
        for key in (None, lambda event: None):
            kept = sum(Sampler(0.25, key, draw).keeps("a", b"") for _ in range(4000))
            assert 900 <= kept <= 1100

    def test_the_key_function_gets_the_event(self) -> None:
        seen: list[Event] = []
        Sampler(0.5, seen.append).keeps("a", b"x")
        assert seen == [Event("a", b"x")]

    def test_a_key_of_a_wrong_type_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="sample_key must return text, bytes, an int or None, not float"):
            Sampler(0.5, lambda event: 1.5).keeps("a", b"")
