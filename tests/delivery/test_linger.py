"""An open batch waits for its linger time, and no longer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from patience import patient

from raccoon_fast.core.batch import Accumulator, Batch
from raccoon_fast.delivery.linger import Linger

LINGER_S = 0.05


class Lingering:
    """An accumulator whose open batch lingers on the running loop."""

    def __init__(self) -> None:
        self.opened: list[Any] = []
        self.sealed_s: list[float] = []
        self.accumulator = Accumulator(
            self.make,
            serializer=None,
            wire="proto",
            max_events=3,
            max_bytes=1000,
            max_event_bytes=1000,
            buffer_bytes=10_000,
        )
        loop = asyncio.get_running_loop()
        linger = Linger(self.accumulator, LINGER_S, loop, loop.call_soon)
        self.accumulator.on_open = lambda _: linger.opened()
        self.accumulator.on_sealed = lambda: self.sealed_s.append(time.monotonic())

    def make(self) -> Batch:
        batch = Batch("proto")
        batch.accepted_s = time.monotonic()
        self.opened.append(batch)
        return batch

    async def until_sealed(self, batches: int) -> None:
        async def until() -> None:
            while len(self.sealed_s) < batches:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(until(), patient(10))


def test_a_batch_is_sealed_when_its_first_event_has_waited() -> None:
    async def main() -> None:
        lingering = Lingering()
        lingering.accumulator.emit("a", b"x")
        lingering.accumulator.emit("a", b"y")
        await lingering.until_sealed(1)
        assert lingering.sealed_s[0] - lingering.opened[0].accepted_s >= LINGER_S
        assert lingering.accumulator.take().events() == [("a", b"x"), ("a", b"y")]

    asyncio.run(main())


def test_a_batch_after_a_full_one_has_its_whole_linger() -> None:
    async def main() -> None:
        lingering = Lingering()
        lingering.accumulator.emit("a", b"x")
        lingering.accumulator.emit_many([("a", b"x")] * 3)
        lingering.opened[1].accepted_s += LINGER_S  # as if that had come later
        await lingering.until_sealed(2)
        assert len(lingering.opened) == 2
        assert lingering.sealed_s[1] - lingering.opened[1].accepted_s >= LINGER_S

    asyncio.run(main())


def test_the_linger_waits_for_the_next_batch_when_none_is_open() -> None:
    async def main() -> None:
        lingering = Lingering()
        lingering.accumulator.emit_many([("a", b"x")] * 3)
        await asyncio.sleep(2 * LINGER_S)
        assert len(lingering.sealed_s) == 1
        lingering.accumulator.emit("a", b"x")
        await lingering.until_sealed(2)

    asyncio.run(main())
