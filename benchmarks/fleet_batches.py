"""Computes the number of requests that a stream of events becomes, with the real accumulator's rules."""

from __future__ import annotations

import random

from simulation import DEFAULTS, Clock

from raccoon_fast.core.batch import Accumulator, Batch

EVENT_BYTES = 200


def requests(events_per_s: float, linger_s: float, events: int, seed: int = 1) -> float:
    """Requests per second of one producer whose events arrive one by one at random times.

    Args:
        events_per_s: The rate of events.
        linger_s: The producer's linger time, in seconds.
        events: The number of events to draw.
        seed: The seed of the random times.
    """
    clock = Clock(seed)
    sealed = 0
    last_s = 0.0
    opened: Batch | None = None

    def make_batch() -> Batch:
        batch = Batch(DEFAULTS.wire)
        batch.receipt = None
        return batch

    def on_open(batch: Batch) -> None:
        nonlocal opened
        opened = batch
        clock.at(clock.now_s + linger_s, lingered, batch)

    def lingered(batch: Batch) -> None:
        if batch is opened:
            accumulator.seal()

    def on_sealed() -> None:
        nonlocal sealed
        while (batch := accumulator.take()) is not None:
            accumulator.release(batch.nbytes)
            sealed += 1

    def arrive(left: int) -> None:
        nonlocal last_s
        last_s = clock.now_s
        accumulator.emit("event", data)
        if left > 1:
            clock.at(clock.now_s + random.expovariate(events_per_s), arrive, left - 1)

    accumulator = Accumulator(
        make_batch,
        serializer=None,
        wire=DEFAULTS.wire,
        max_events=DEFAULTS.batch_events,
        max_bytes=DEFAULTS.batch_bytes,
        max_event_bytes=DEFAULTS.max_event_bytes,
        buffer_bytes=DEFAULTS.buffer_bytes,
    )
    accumulator.on_open, accumulator.on_sealed = on_open, on_sealed
    data = bytes(EVENT_BYTES)
    arrive(events)
    clock.run()
    return sealed / last_s
