"""A flush waits for the events accepted before it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from raccoon_fast.delivery.outstanding import Outstanding


class Taken:
    """An accumulator as far as Outstanding looks at it, and the batches taken from it."""

    def __init__(self) -> None:
        self.taken = 0
        self.outstanding = Outstanding(self)  # type: ignore[arg-type]

    def take(self, count: int) -> Any:
        self.taken += count
        batch = SimpleNamespace(settlement=object(), count=count)
        self.outstanding.add(batch, self.taken)  # type: ignore[arg-type]
        return batch.settlement


def test_events_are_unsettled_until_their_batch_is_settled() -> None:
    accumulator = Taken()
    outstanding = accumulator.outstanding
    first, second = accumulator.take(3), accumulator.take(4)
    assert [outstanding.unsettled(target) for target in (0, 3, 7, 9)] == [0, 3, 7, 9]
    outstanding.remove(first)
    outstanding.remove(first)  # a part of it that comes later, say
    assert [outstanding.unsettled(target) for target in (3, 7, 9)] == [0, 4, 6]
    outstanding.remove(second)
    assert [outstanding.unsettled(target) for target in (3, 7, 9)] == [0, 0, 2]


def test_a_wait_ends_with_the_last_of_its_events_or_in_time() -> None:
    async def main() -> None:
        accumulator = Taken()
        outstanding = accumulator.outstanding
        first, second = accumulator.take(3), accumulator.take(4)
        third = accumulator.take(1)
        of_two = asyncio.ensure_future(outstanding.wait(7, 30.0))
        of_later_ones = asyncio.ensure_future(outstanding.wait(9, 30.0))
        await asyncio.sleep(0)
        for settlement in (second, third):
            outstanding.remove(settlement)
            outstanding.end_waits()
            await asyncio.sleep(0)
            assert not of_two.done()
        outstanding.remove(first)
        outstanding.end_waits()
        await of_two
        assert not of_later_ones.done()  # an event is still in the accumulator
        accumulator.taken += 1
        outstanding.end_waits()
        await of_later_ones
        await outstanding.wait(100, 0.01)  # nothing ends it but time
        outstanding.end_waits()

    asyncio.run(main())
