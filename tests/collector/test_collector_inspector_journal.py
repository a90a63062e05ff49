"""The inspector's memory of events and requests, and its limits."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from raccoon_fast.collector.inspector import journal as journals
from raccoon_fast.collector.inspector.journal import MAX_DATA_BYTES, MAX_EVENTS, MAX_REJECTIONS, MAX_TYPES, Journal
from raccoon_fast.collector.judging import Fault
from raccoon_fast.collector.messages import SendEventRequest
from raccoon_fast.collector.records import GRPC, REST, WEBSOCKET, Batch, Source

FAULT = Fault("$.n", "is wrong")
NOW_S = 1_700_000_000.0


@pytest.fixture
def journal() -> Journal:
    return Journal(threading.Condition())


def source(protocol: str = REST) -> Source:
    return Source(protocol, "me", "team", {"user-agent": "agent/1"})


def batch(
    journal: Journal, *types: str, protocol: str = REST, now_s: float = NOW_S, data: bytes = b"x", **fields: Any
) -> Batch:
    message = SendEventRequest(events=[{"type": name, "event_bytes": data} for name in types], **fields)
    return Batch(message, source(protocol), now_s, journal.tally(message, message.SerializeToString()))


def counts(journal: Journal) -> dict[str | None, dict[str, int]]:
    return {it.type: it.events for it in journal.first_types(MAX_TYPES)}


def test_counts_by_type_and_protocol(journal: Journal) -> None:
    journal.published(batch(journal, "a", "b", "a"))
    journal.published(batch(journal, "a", protocol=WEBSOCKET, now_s=NOW_S + 1))
    journal.published(batch(journal, "", protocol=GRPC))
    assert counts(journal) == {
        "a": {REST: 2, WEBSOCKET: 1, GRPC: 0},
        "b": {REST: 1, WEBSOCKET: 0, GRPC: 0},
        "": {REST: 0, WEBSOCKET: 0, GRPC: 1},
    }
    assert [it.last_time for it in journal.first_types(MAX_TYPES)] == [NOW_S + 1, NOW_S, NOW_S]


def test_types_beyond_the_bound_are_counted_together(journal: Journal) -> None:
    journal.published(batch(journal, *(f"t{i}" for i in range(MAX_TYPES + 30))))
    journal.published(batch(journal, "t1", "new"))
    assert len(journal.first_types(MAX_TYPES)) == MAX_TYPES + 1
    assert counts(journal)["t1"][REST] == 2
    assert counts(journal)[None][REST] == 31
    assert sum(sum(it.events.values()) for it in journal.first_types(MAX_TYPES)) == MAX_TYPES + 32


def test_types_that_are_not_listed_are_summed(journal: Journal) -> None:
    journal.published(batch(journal, *(f"t{i}" for i in range(10)), "t1", "t9"))
    listed = journal.first_types(4)
    assert [it.type for it in listed] == ["t0", "t1", "t2", "t3", None]
    assert [it.events[REST] for it in listed] == [1, 2, 1, 1, 7]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("events", ["b", "c", "A", "d"]),
        ("name", ["A", "b", "c", "d"]),
        ("rate", ["d", "A", "b", "c"]),
        ("bad", ["c", "b", "A", "d"]),
        ("last", ["d", "A", "b", "c"]),
    ],
)
def test_types_are_found_in_order(order: str, names: list[str], journal: Journal) -> None:
    now_s = time.time()
    journal.published(batch(journal, *["b"] * 4, *["c"] * 3, now_s=now_s - 60), {5: FAULT})
    journal.published(batch(journal, *["A"] * 2, now_s=now_s - 20))
    journal.published(batch(journal, "d", now_s=now_s))
    matched, found = journal.find_types("", order, 0, 10)
    assert (matched, [it.type for it in found]) == (4, names)
    assert [it.type for it in journal.find_types("", order, 1, 2)[1]] == names[1:3]
    assert [it.type for it in journal.find_types("a", order, 0, 10)[1]] == ["A"]
    assert journal.find_types("nowhere", order, 0, 10) == (0, [])


def test_the_rate_of_a_type_rises_and_falls(journal: Journal) -> None:
    now_s = time.time()
    for second in range(30, 0, -1):
        journal.published(batch(journal, *["page"] * 100, now_s=now_s - second))
    (page,) = journal.first_types(1)
    assert 70 < page.rate < 130
    journal.clear()
    journal.published(batch(journal, *["page"] * 100, now_s=now_s - 60))
    assert journal.first_types(1)[0].rate < 0.1


def test_bad_events_are_counted_and_kept_in_a_flood(journal: Journal) -> None:
    journal.published(batch(journal, *["often"] * MAX_EVENTS))  # there is no reserve left
    journal.published(batch(journal, *["often"] * 1000), {3: FAULT, 500: FAULT})
    for second in range(20):
        journal.published(batch(journal, *["often"] * 1000, now_s=NOW_S + second))
    assert journal.first_types(1)[0].bad == 2
    bad = [event for event in journal.kept() if event.fault is not None]
    assert [(event.number, event.fault) for event in bad] == [(MAX_EVENTS + 4, FAULT), (MAX_EVENTS + 501, FAULT)]
    assert journal.event(MAX_EVENTS + 4) == bad[0]
    assert journal.event(1) is None
    journal.clear()
    assert (journal.kept(), journal.event(MAX_EVENTS + 4)) == ([], None)


def test_many_types_with_large_data_stay_bounded(journal: Journal) -> None:
    data = b"x" * MAX_DATA_BYTES
    for second in range(60):
        names = [f"t{second * 100 + number}" for number in range(100)]
        journal.published(batch(journal, *names, now_s=NOW_S + second, data=data))
    kept = list(journal._by_type.newest_types())
    assert 1500 < len(kept) < 2100  # 32 MiB
    assert journal.events(10, type_="t5999")
    assert journal.events(10, type_="t0") == []
    assert journal.find_types("t0", "events", 0, 1)[0] == 1  # it is counted all the same


def test_a_frequent_type_with_large_data_leaves_room_for_the_others(journal: Journal) -> None:
    journal.published(batch(journal, "rare"))
    for second in range(3000):
        journal.published(batch(journal, "often", now_s=NOW_S + second, data=b"x" * MAX_DATA_BYTES))
    assert len(journal.events(10, type_="rare")) == 1


def test_each_of_many_types_in_one_request_cannot_keep_an_event(journal: Journal) -> None:
    journal.published(batch(journal, *["often"] * MAX_EVENTS))
    journal.published(batch(journal, *(f"t{i}" for i in range(MAX_TYPES + 5))))
    assert len(list(journal._by_type.newest_types())) == 2000 + 10
    assert journal.uncounted is not None
    assert (journal.number_of_types, journal.uncounted.events[REST]) == (MAX_TYPES, 6)


def test_a_long_type_is_cut(journal: Journal) -> None:
    journal.published(batch(journal, "x" * 1000, "x" * 2000))
    assert counts(journal) == {"x" * 200: {REST: 2, WEBSOCKET: 0, GRPC: 0}}
    assert [event.type for event in journal.events(10, type_="x" * 200)] == ["x" * 200] * 2


@pytest.mark.parametrize("wire", [True, False])
def test_the_tally_of_both_wires(journal: Journal, wire: bool) -> None:
    message = SendEventRequest(events=[{"type": "a"}, {"type": "b"}, {"type": "a"}])
    assert journal.tally(message, message.SerializeToString() if wire else None) == {"a": (2, 2), "b": (1, 1)}


def test_a_request_that_only_google_protobuf_reads_is_counted_all_the_same(journal: Journal) -> None:
    # Field 15, a group, with a field of number 0 inside.
    wire = bytes.fromhex("1a 03 12 01 61 7b 00 00 7c")
    assert journal.tally(SendEventRequest.FromString(wire), wire) == {"a": (1, 0)}


def test_events_in_order_and_by_pages(journal: Journal) -> None:
    for first in range(0, 30, 3):
        journal.published(batch(journal, *(f"t{i % 2}" for i in range(first, first + 3)), req_guid=f"g{first}"))
    assert [event.number for event in journal.events(5)] == [26, 27, 28, 29, 30]
    assert [event.number for event in journal.events(5, after=0)] == [1, 2, 3, 4, 5]
    assert [event.number for event in journal.events(5, after=28)] == [29, 30]
    assert journal.events(5, after=30) == []
    assert [event.number for event in journal.events(3, after=4, type_="t1")] == [6, 8, 10]
    assert journal.events(3, type_="other") == []
    event = journal.events(1)[0]
    assert (event.type, event.size, event.data, event.request.req_guid) == ("t1", 1, b"x", "g27")


def test_a_rare_type_is_not_pushed_out(journal: Journal) -> None:
    journal.published(batch(journal, "rare", data=b"found"))
    for second in range(100):
        journal.published(batch(journal, *["often"] * 100, now_s=NOW_S + second))
    assert len(journal.events(MAX_EVENTS)) == MAX_EVENTS
    assert {event.type for event in journal.events(MAX_EVENTS)} == {"often"}
    assert [event.data for event in journal.events(10, type_="rare")] == [b"found"]


def test_one_of_each_type_of_a_large_request_is_kept(journal: Journal) -> None:
    journal.published(batch(journal, *["often"] * MAX_EVENTS))  # there is no reserve left
    journal.published(batch(journal, "rare", *["often"] * 1000, "seldom", *["often"] * 1000))
    assert [event.number for event in journal.events(10, type_="rare")] == [MAX_EVENTS + 1]
    assert [event.number for event in journal.events(10, type_="seldom")] == [MAX_EVENTS + 1002]


def test_a_flood_is_counted_whole_and_kept_in_part(journal: Journal) -> None:
    kept = 0
    last = 0
    for millisecond in range(1000):
        journal.published(batch(journal, *["page"] * 20, now_s=NOW_S + millisecond / 1000))
        events = journal.events(MAX_EVENTS, after=last)
        kept += len(events)
        last = events[-1].number if events else last
    assert counts(journal)["page"][REST] == 20_000
    assert MAX_EVENTS + 900 <= kept <= MAX_EVENTS + 1000 + 20
    assert last > 19_900


def test_a_clock_that_jumps_back_stops_nothing(journal: Journal) -> None:
    for now_s in (NOW_S, NOW_S - 3600):
        journal.published(batch(journal, *["page"] * MAX_EVENTS, now_s=now_s))
    assert journal.events(1)[0].number == 2 * MAX_EVENTS
    assert journal.events(MAX_EVENTS)[0].number == MAX_EVENTS + 1


def test_only_the_beginning_of_large_data_is_kept(journal: Journal) -> None:
    journal.published(batch(journal, "a", data=b"0" * (MAX_DATA_BYTES + 1)))
    (event,) = journal.events(1)
    assert (event.size, len(event.data)) == (MAX_DATA_BYTES + 1, MAX_DATA_BYTES)


def test_latencies_cover_the_last_requests_with_a_sent_time(journal: Journal) -> None:
    assert journal.latencies == {}
    journal.received(batch(journal, "a"))
    for i in range(1, 1101):
        sent = {"seconds": int(NOW_S) - i}
        journal.received(batch(journal, "a", protocol=GRPC, sent_time=sent))
    assert journal.latencies == {GRPC: journals.Latency(1000, 600.0, 1050.0, 1100.0)}


@pytest.mark.parametrize(
    ("seconds", "expected"), [([3], (1, 3, 3, 3)), ([2, 1], (2, 1, 2, 2)), ([-1, 0, 5], (3, 0, 5, 5))]
)
def test_latencies_of_a_few(journal: Journal, seconds: list[int], expected: tuple[int, ...]) -> None:
    for second in seconds:
        journal.received(batch(journal, "a", sent_time={"seconds": int(NOW_S) - second}))
    assert journal.latencies[REST] == expected


def test_rejections(journal: Journal) -> None:
    for i in range(MAX_REJECTIONS + 5):
        journal.rejected(NOW_S + i, source(WEBSOCKET), "BAD_REQUEST", "r" * 10_000, f"g{i}", b"0" * 100_000)
    assert journal.rejection_counts == {REST: 0, WEBSOCKET: MAX_REJECTIONS + 5, GRPC: 0}
    assert [it.number for it in journal.rejections(MAX_EVENTS)] == list(range(6, MAX_REJECTIONS + 6))
    assert [it.number for it in journal.rejections(2, after=7)] == [8, 9]
    (last,) = journal.rejections(1)
    assert (last.time, last.code, last.connection_id, last.group) == (NOW_S + 204, "BAD_REQUEST", "me", "team")
    assert (last.user_agent, last.size, len(last.data), len(last.reason)) == ("agent/1", 100_000, MAX_DATA_BYTES, 500)


def test_clear_forgets_all_but_the_numbers(journal: Journal) -> None:
    began = journal.since
    journal.received(batch(journal, "a", sent_time={"seconds": 1}))
    journal.published(batch(journal, "a", "b"))
    journal.rejected(NOW_S, source(), "400", "why", "", b"")
    journal.clear()
    assert (journal.first_types(MAX_TYPES), journal.latencies, journal.events(9), journal.rejections(9)) == (
        [],
        {},
        [],
        [],
    )
    assert journal.rejection_counts == {REST: 0, WEBSOCKET: 0, GRPC: 0}
    assert journal.since >= began
    journal.published(batch(journal, "a"))
    journal.rejected(NOW_S, source(), "400", "why", "", b"")
    assert [event.number for event in journal.events(9, after=2)] == [3]
    assert [it.number for it in journal.rejections(9)] == [2]
