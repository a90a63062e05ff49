"""A batch of encoded rows is the batch of the same events as pairs."""

from __future__ import annotations

import pytest
from encoded import encoded

from raccoon_fast import RAW, Event, Producer
from raccoon_fast.collector import Collector
from raccoon_fast.producers.encoded_rows import EncodedRows, Run

EVENTS = [("a", b"one"), ("b", b""), ("a", b"three")]


def test_rows_are_sent_as_the_same_events_are(raccoon_collector: Collector) -> None:
    one_type = Run("c", encoded([("", b"four"), ("", b"five")]).runs[0].slices)
    rows = EncodedRows([*encoded(EVENTS).runs, one_type])
    events = [*EVENTS, ("c", b"four"), ("c", b"five")]
    assert ([*rows], len(rows), rows.nbytes) == (events, 5, 16)
    with Producer(raccoon_collector.url, serializer=RAW, logger=None) as producer:
        for guid in ("first", "again"):
            producer.emit_batch(rows, req_guid=guid).result(10)
    assert [(event.req_guid, event.type, event.data) for event in raccoon_collector.events] == [
        (guid, *event) for guid in ("first", "again") for event in events
    ]


def test_hooks_and_serializers_get_each_row(raccoon_collector: Collector) -> None:
    def before_send(event: Event[bytes]) -> Event[bytes] | None:
        return None if event.type == "b" else event._replace(data=event.data.upper())

    with Producer(raccoon_collector.url, serializer=RAW, logger=None, before_send=before_send) as producer:
        producer.emit_batch(encoded(EVENTS)).result(10)
    with Producer(raccoon_collector.url, serializer=lambda data: data[::-1], logger=None) as producer:
        producer.emit_batch(encoded(EVENTS)).result(10)
    assert [event.data for event in raccoon_collector.events] == [b"ONE", b"THREE", b"eno", b"", b"eerht"]


def test_a_wrong_row_leaves_nothing_behind(raccoon_collector: Collector) -> None:
    with Producer(raccoon_collector.url, serializer=RAW, logger=None) as producer:
        with pytest.raises(ValueError, match="type should not be empty"):
            producer.emit_batch(encoded([("a", b"1"), ("", b"2")]))
        with pytest.raises(ValueError, match="a batch needs at least one event"):
            producer.emit_batch(EncodedRows([]))
        producer.emit_batch(encoded(EVENTS)).result(10)
    assert raccoon_collector.event_count == len(EVENTS)
