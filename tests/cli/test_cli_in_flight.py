"""Batches of lines sent by a producer: one outcome per batch, however many requests it takes."""

from __future__ import annotations

import threading

import pytest
from patience import patient

from raccoon_fast import RAW, Producer
from raccoon_fast.cli.arguments import make_parser
from raccoon_fast.cli.batches import Batch
from raccoon_fast.cli.connect import ServerOptions, make_producer
from raccoon_fast.cli.in_flight import InFlight
from raccoon_fast.errors import EventsRejectedError


def test_a_batch_is_one_request_however_long_its_events_take_to_append(collector):
    def serialize(data):
        # Many times a producer's own linger.
        threading.Event().wait(0.02)
        return data

    events = [("a", b"%d" % number) for number in range(5)]
    arguments = make_parser().parse_args(["send", "-", "--url", collector.url, "--type", "a"])
    server = ServerOptions(arguments, arguments.url)
    with make_producer(arguments, server, serializer=serialize, in_flight=2, batch_events=5) as producer:
        flight = InFlight(producer, 5, 2)
        flight.submit(Batch(events))
        assert flight.take(10).error is None
    assert len(collector.requests) == 1
    assert [(event.type, event.data) for event in collector.events] == events


@pytest.fixture
def small(collector):
    """Its batches have room for three of ten events."""
    with Producer(collector.ws_url, serializer=RAW, logger=None, batch_bytes=100, linger=60) as producer:
        yield producer


def test_a_batch_that_takes_several_requests_has_one_outcome(collector, small):
    flight = InFlight(small, 10, 2)
    batch = Batch([("a", b"%020d" % number) for number in range(10)])
    flight.submit(batch)
    settled = flight.take(10)
    assert (settled.batch, settled.error, settled.failed) == (batch, None, [])
    assert settled.req_guid in [request.req_guid for request in collector.requests]
    assert len(collector.requests) == 4
    assert flight.empty
    assert flight.take(0) is None


def test_a_batch_that_takes_several_requests_fails_with_the_one_that_does(collector, small):
    collector.faults.reject_events("b")
    flight = InFlight(small, 10, 2)
    flight.submit(Batch([("b" if number == 4 else "a", b"%020d" % number) for number in range(10)]))
    settled = flight.take(10)
    assert isinstance(settled.error, EventsRejectedError)
    assert settled.failed == [("b", b"%020d" % 4)]
    assert small.stats().total.acked == 9


def test_batches_of_a_producer_that_is_closed_have_its_outcomes(collector, small, monkeypatch):
    collector.faults.drop_acks()
    resume = threading.Event()
    timer = threading.Timer(0.2, resume.set)
    close = small.close

    def close_before_callbacks(timeout):
        close(timeout=timeout)
        timer.start()

    monkeypatch.setattr(small, "close", close_before_callbacks)
    small.emit("a", b"first").add_done_callback(lambda _: resume.wait(patient(10)))
    flight = InFlight(small, 10, 2)
    for _ in range(2):
        flight.submit(Batch([("a", b"x")]))
    collector.wait_for(3)
    errors = [str(settled.error) for settled in flight.abandon()]
    timer.join()
    assert errors == ["the producer was closed before the batch was acknowledged (possibly delivered)"] * 2
