"""Work done once for many small batches: writes, and changes of the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from patience import patient

from raccoon_fast import RAW, AsyncProducer
from raccoon_fast.collector import Collector
from raccoon_fast.delivery.ledger import Ledger
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.transports.shared_connection import SharedConnection

BATCHES, BATCH = 8, 10


async def sent(url: str, size: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each write of BATCHES batches that were ready together, over a connection that is open."""
    async with AsyncProducer(url, serializer=RAW, logger=None, batch_events=BATCH, linger=1) as producer:
        await asyncio.wait_for((await producer.emit_many([("warm", b"up")] * BATCH))[0], patient(20))
        writes: list[int] = []
        write_all = SharedConnection._write_all

        def recorded(self: Any, buffers: Any, nbytes: int) -> None:
            writes.append(nbytes)
            write_all(self, buffers, nbytes)

        monkeypatch.setattr(SharedConnection, "_write_all", recorded)
        many = [("page", b"%06d" % number + bytes(size - 6)) for number in range(BATCHES * BATCH)]
        receipts = await producer.emit_many(many)
        assert len(receipts) == BATCHES
        await asyncio.wait_for(asyncio.gather(*receipts), patient(20))
    return writes


@pytest.mark.parametrize("transport", ["ws", "grpc"])
def test_small_batches_that_are_ready_together_leave_in_one_write(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector:
        url = collector.ws_url if transport == "ws" else f"grpc://{collector.grpc_target}"
        (written,) = asyncio.run(sent(url, 200, monkeypatch))
        assert written > BATCHES * BATCH * 200
        data = sorted(bytes(event.data)[:6] for event in collector.events if event.type == "page")
        assert data == [b"%06d" % number for number in range(BATCHES * BATCH)]


@pytest.mark.parametrize("transport", ["ws", "grpc"])
def test_large_batches_are_written_one_by_one(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        url = collector.ws_url if transport == "ws" else f"grpc://{collector.grpc_target}"
        writes = asyncio.run(sent(url, 2_000, monkeypatch))
        assert len(writes) == BATCHES
        assert collector.event_count == (BATCHES + 1) * BATCH


def test_batches_acknowledged_together_are_one_ledger_move(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[dict[str, int], str]] = []
    move = Ledger.move

    def recorded(self: Ledger, types: Any, before: str, after: str) -> None:
        moves.append(({**types}, after))
        move(self, types, before, after)

    monkeypatch.setattr(Ledger, "move", recorded)

    async def main() -> None:
        async with AsyncProducer("null://", serializer=RAW, logger=None, batch_events=BATCH, linger=1) as producer:
            events = [(f"type-{number % 3}", b"data") for number in range(BATCHES * BATCH)]
            receipts = await producer.emit_many(events)
            await asyncio.wait_for(asyncio.gather(*receipts), patient(20))
            assert moves == [(Counter(event_type for event_type, _ in events), "discarded")]
            counts = producer.stats()
            assert counts.total.discarded == counts.total.accepted == len(events)
            assert {name: one.discarded for name, one in counts.by_type.items()} == {
                "type-0": 27, "type-1": 27, "type-2": 26,
            }  # fmt: skip

    asyncio.run(main())


def test_an_error_in_settling_one_batch_leaves_none_of_the_others_unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    acked = Settlement.acked

    def failing(self: Settlement, response: Any) -> bool:
        nonlocal calls
        calls += 1
        is_last = acked(self, response)
        if calls == 2:
            raise MemoryError
        return is_last

    monkeypatch.setattr(Settlement, "acked", failing)

    async def main() -> None:
        raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
        producer = AsyncProducer("null://", serializer=RAW, logger=None, batch_events=BATCH, linger=1)
        receipts = await producer.emit_many([("page", b"data")] * BATCH * BATCHES)
        await asyncio.wait_for(asyncio.gather(*receipts), patient(20))
        assert calls == BATCHES
        assert [type(one) for one in raised] == [MemoryError]
        await producer.close(patient(1))
        assert producer.report.total.discarded == BATCHES * BATCH

    asyncio.run(main())
