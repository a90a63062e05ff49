"""Subscriptions are bounded, drop and count the oldest entries, and end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from patience import patient

from raccoon_fast.delivery.ack_streams import AckStream, AsyncAckStream
from raccoon_fast.events import Ack, Code, Response, Status


def ack(number: int) -> Ack:
    return Ack(f"g{number}", Response(Status.SUCCESS, Code.OK, 0, "", {}), 1.0, 2.0)


def stream(maxsize: int = 10) -> AckStream:
    return AckStream(maxsize, lambda _: None)


def test_in_order_until_the_end() -> None:
    acks = stream()
    for number in range(3):
        acks.publish(ack(number))
    acks.end()
    assert [one.req_guid for one in acks] == ["g0", "g1", "g2"]
    assert list(acks) == []
    assert acks.get() is None


def test_the_oldest_of_too_many_is_dropped_and_counted() -> None:
    acks = stream(2)
    for number in range(5):
        acks.publish(ack(number))
    acks.end()
    assert ([one.req_guid for one in acks], acks.dropped) == (["g3", "g4"], 3)


def test_get_waits_for_so_long() -> None:
    acks = stream()
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        acks.get(timeout=0.01)
    timer = threading.Timer(0.01, acks.publish, [ack(1)])
    timer.start()
    taken = acks.get(timeout=patient(10))
    assert taken is not None
    assert taken.req_guid == "g1"
    timer.join()


def test_a_waiting_reader_sees_the_end() -> None:
    acks = stream()
    timer = threading.Timer(0.01, acks.end)
    timer.start()
    assert list(acks) == []
    timer.join()


def test_close_unsubscribes_and_leaves_what_is_there() -> None:
    gone: list[AckStream] = []
    acks = AckStream(5, gone.append)
    acks.publish(ack(1))
    with acks:
        pass
    acks.close()
    assert gone[0] is acks
    assert [one.req_guid for one in acks] == ["g1"]


def test_async() -> None:
    async def main() -> None:
        acks = AsyncAckStream(2, lambda _: None)
        loop = asyncio.get_running_loop()
        loop.call_soon(acks.publish, ack(1))
        assert (await anext(acks)).req_guid == "g1"
        waiting = asyncio.ensure_future(anext(acks))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for number in range(2, 6):
            acks.publish(ack(number))
        async with acks:
            pass
        assert ([one.req_guid async for one in acks], acks.dropped) == (["g4", "g5"], 2)
        assert [one async for one in acks] == []

    asyncio.run(main())
