"""AsyncProducer on the caller's loop, asyncio and uvloop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from begun import Begun
from patience import patient

from raccoon_fast import RAW, AsyncProducer, BufferFull, ClientClosedError, DroppedError, Outcome, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.delivery import engine

QUICK = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: Any) -> Iterator[Run]:
    module = pytest.importorskip(request.param, reason="there is no uvloop on Windows")
    loop = module.new_event_loop()
    yield lambda coroutine: loop.run_until_complete(asyncio.wait_for(coroutine, patient(20)))
    leftover = asyncio.all_tasks(loop)
    loop.close()
    assert leftover == set()


def producer_of(url: Any, **options: Any) -> AsyncProducer:
    return AsyncProducer(url, **{"serializer": RAW, "logger": None, "retry": QUICK, "linger": 0.001, **options})


def test_events_arrive_as_emitted(collector: Collector, run: Run) -> None:
    urls = [collector.ws_url, collector.url, f"grpc://{collector.grpc_target}"]

    async def main(url: str) -> None:
        begun = Begun()
        async with producer_of(url, batch_events=10) as producer:
            receipt = await producer.emit(url, b"first")
            assert (await receipt).status.name == "SUCCESS"
            receipts = await producer.emit_many((url, b"%d" % number) for number in range(95))
            assert [(await receipt).status.name for receipt in receipts] == ["SUCCESS"] * len(receipts)
            assert producer.emit_nowait(url, b"last").done() is False
            assert begun.threads() == [] or url.startswith("grpc")
        assert producer.report.total.acked == producer.report.total.accepted == 97

    for url in urls:
        run(main(url))
    sent = [b"first", *(b"%d" % number for number in range(95)), b"last"]
    received = Counter((event.type, event.data) for event in collector.events)
    assert received == Counter((url, data) for url in urls for data in sent)


async def fill(producer: AsyncProducer) -> None:
    for _ in range(20):
        await producer.emit("a", bytes(1000))


def test_emit_waits_for_room(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        async with producer_of(collector.url, batch_bytes=10_000, buffer_bytes=50_000, timeout=0.2) as producer:

            async def pour() -> None:
                for _ in range(100):
                    await producer.emit("a", bytes(1000))

            pouring = asyncio.ensure_future(pour())
            while producer._room is None:
                await asyncio.sleep(0.001)
            assert 30 < producer.stats().total.accepted < 50
            with pytest.raises(BufferFull):
                producer.emit_nowait("a", bytes(1000))
            assert not pouring.done()
            collector.faults.clear()
            await pouring
            assert await producer.flush() == 0
            assert producer.stats().total.acked == 100

    run(main())


def test_a_batch_built_by_the_caller(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()
    events = [("a", bytes(1000))] * 5

    async def main() -> None:
        async with producer_of(collector.url, batch_bytes=6000, buffer_bytes=16_000, timeout=0.2) as producer:
            waiting = [asyncio.ensure_future(producer.emit_batch(events, req_guid=f"guid-{n}")) for n in range(3)]
            while producer.stats().total.accepted < 10:
                await asyncio.sleep(0.001)
            assert not waiting[2].done()
            collector.faults.clear()
            assert (await (await waiting[2])).req_guid == "guid-2"
            assert await producer.flush() == 0
            with pytest.raises(ValueError, match="at least one event"):
                await producer.emit_batch([])

    run(main())
    # Several attempts each, while acknowledgements were dropped; each under its guid.
    assert {event.req_guid for event in collector.events} == {"guid-0", "guid-1", "guid-2"}


def test_emit_waits_no_longer_than_block_timeout_and_can_be_cancelled(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        producer = producer_of(collector.url, batch_bytes=10_000, buffer_bytes=20_000, timeout=60, block_timeout=0.05)
        with pytest.raises(BufferFull):
            await fill(producer)
        accepted = producer.stats().total.accepted
        waiting = asyncio.ensure_future(producer.emit("a", bytes(1000)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        report = await producer.close(timeout=0)
        assert (report.total.accepted, report.total.failed) == (accepted, {"closed": accepted})

    run(main())


def test_close_wakes_an_emit_that_waits(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        producer = producer_of(collector.url, batch_bytes=10_000, buffer_bytes=20_000, timeout=60)
        (lane,) = producer._lanes
        producer._lanes = (lane._replace(block_timeout_s=0.05),)
        with pytest.raises(BufferFull):
            await fill(producer)
        producer._lanes = (lane._replace(block_timeout_s=60.0),)
        waiting = asyncio.ensure_future(producer.emit("a", bytes(1000)))
        await asyncio.sleep(0)
        await producer.close(timeout=0)
        with pytest.raises(ClientClosedError):
            await waiting

    run(main())


def test_drop_newest(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        producer = producer_of(
            collector.url, overflow="drop_newest", batch_bytes=10_000, buffer_bytes=20_000, timeout=60
        )
        receipts = [await producer.emit("a", bytes(1000)) for _ in range(25)]
        with pytest.raises(DroppedError):
            await receipts[-1]
        report = await producer.close(timeout=0)
        assert 6 <= report.total.dropped["drop_newest"] <= 12

    run(main())


def test_emit_many_accounts_for_events_dropped_in_between(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        options = {"overflow": "drop_newest", "batch_bytes": 10_000, "buffer_bytes": 20_000, "batch_events": 5}
        producer = producer_of(collector.url, timeout=60, **options)
        receipts = await producer.emit_many(("a", bytes(1000)) for _ in range(100))
        with pytest.raises(DroppedError):
            await receipts[-1]
        total = producer.stats().total
        assert total.accepted == 100
        assert 81 <= sum(total.dropped.values()) <= 90
        await producer.close(timeout=0)

    run(main())


def test_emit_many_waits_for_room_and_lets_the_loop_run(collector: Collector, run: Run) -> None:
    async def main() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with producer_of(collector.url, batch_events=5, batch_bytes=10_000, buffer_bytes=20_000) as producer:
            turning = asyncio.ensure_future(turn())
            receipts = await producer.emit_many(("a", b"%4d" % number + bytes(996)) for number in range(200))
            assert turns >= 200 // 5
            turning.cancel()
            assert await producer.flush() == 0
            assert producer.stats().total.acked == 200
            assert len({receipt.req_guid for receipt in receipts}) == len(receipts) >= 40
            assert await producer.emit_many([]) == []

    run(main())
    assert sorted(int(event.data[:4]) for event in collector.events) == [*range(200)]


def test_emit_many_keeps_events_before_an_error(collector: Collector, run: Run) -> None:
    def events(known: int) -> Iterator[tuple[str, bytes]]:
        for number in range(known):
            yield "a", b"%d" % number
        raise LookupError("no more")

    async def main() -> None:
        async with producer_of(collector.url, batch_events=4) as producer:
            for known in (0, 1, 4, 7):
                before = producer.stats().total.accepted
                with pytest.raises(LookupError):
                    await producer.emit_many(events(known))
                assert producer.stats().total.accepted - before == known

    run(main())
    assert len(collector.events) == 12


def test_a_cancelled_close_fails_the_remaining_events_at_once(collector: Collector, run: Run) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        producer = producer_of(collector.ws_url, timeout=60)
        receipt = await producer.emit("a", b"x")
        closing = asyncio.ensure_future(producer.close(timeout=60))
        while collector.request_count == 0:
            await asyncio.sleep(0.001)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        error = receipt.exception()
        assert isinstance(error, ClientClosedError)
        assert error.outcome is Outcome.POSSIBLY_DELIVERED
        assert producer.stats().total.failed == {"closed": 1}

    run(main())


@pytest.mark.parametrize("has_spool", [False, True])
@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_a_server_slow_to_say_goodbye_delays_no_outcome(
    collector: Collector, run: Run, scheme: str, has_spool: bool, tmp_path: Path
) -> None:
    collector.faults.drop_acks()
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    order: list[bool] = []

    async def main() -> None:
        settled = asyncio.Event()
        producer = producer_of(url, timeout=60, spool=tmp_path / "spool.db" if has_spool else None)
        receipt = await producer.emit("a", b"x")
        receipt.add_done_callback(lambda _: settled.set())
        while collector.request_count == 0:
            await asyncio.sleep(0.001)
        (endpoint,) = producer._engine._endpoints.all
        (transport,) = endpoint.transports
        close = transport.close

        async def close_slowly() -> None:
            await asyncio.wait([asyncio.ensure_future(settled.wait())], timeout=patient(5))
            order.append(settled.is_set())
            settled.set()
            await close()

        with mock.patch.object(transport, "close", close_slowly):
            report = await producer.close(timeout=0)
        assert report.total.unsettled == 0

    with mock.patch.object(engine, "_CLOSE_MARGIN_S", patient(15)):
        run(main())
    assert order == [True]


def test_a_cancelled_wait_does_not_cancel_the_batch(collector: Collector, run: Run) -> None:
    async def main() -> None:
        async with producer_of(collector.ws_url, linger=60.0) as producer:
            receipt = await producer.emit("a", b"x")

            async def wait() -> None:
                await receipt

            waiting = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await producer.flush() == 0
            assert (await receipt).status.name == "SUCCESS"

    run(main())


def test_callbacks_and_acks(collector: Collector, run: Run) -> None:
    async def main() -> None:
        seen = []
        async with producer_of(collector.ws_url, batch_events=1, on_delivery=seen.append) as producer:
            acks = producer.acks()
            receipts = await producer.emit_many(("a", b"x") for _ in range(3))
        assert {ack.req_guid async for ack in acks} == {receipt.req_guid for receipt in receipts}
        await asyncio.sleep(0)
        assert {receipt.req_guid for receipt in seen} == {receipt.req_guid for receipt in receipts}

    run(main())


@pytest.mark.parametrize("is_used", [True, False])
def test_acks_end_with_the_producer_and_a_closed_one_refuses(collector: Collector, run: Run, is_used: bool) -> None:
    async def main() -> None:
        producer = producer_of(collector.ws_url)
        acks = producer.acks()
        if is_used:
            await producer.emit("a", b"x")
        await producer.close()
        assert acks._ended
        assert len([ack async for ack in acks]) == is_used
        with pytest.raises(ClientClosedError, match="was closed"):
            producer.acks()

    run(main())


def test_a_closed_producer_stays_closed_on_any_loop(collector: Collector) -> None:
    producer = producer_of(collector.ws_url)

    async def use() -> Any:
        await producer.emit("a", b"x")
        return await producer.close()

    async def refuse() -> None:
        with pytest.raises(ClientClosedError, match="was closed"):
            await producer.emit("a", b"y")

    report = asyncio.run(use())
    assert asyncio.run(producer.close()) == report
    assert asyncio.run(producer.flush()) == 0
    asyncio.run(refuse())
    assert collector.event_count == 1


def test_close_with_a_spool_does_not_wait_for_a_busy_executor(run: Run, tmp_path: Path) -> None:
    release = threading.Event()

    async def main() -> None:
        executor = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(release.wait, patient(60))
        try:
            producer = producer_of("http://127.0.0.1:9", spool=tmp_path / "spool.db")
            await producer.emit("a", b"x")
            assert (await producer.close(0.1)).total.spooled == 1
        finally:
            release.set()

    run(main())


def test_a_producer_closed_unused_does_not_start(collector: Collector, run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with producer_of("http://127.0.0.1:9", spool=tmp_path / "spool.db") as earlier:
            await earlier.emit("old", b"x")
            assert (await earlier.close(0.1)).total.spooled == 1
        producer = producer_of(collector.ws_url, spool=tmp_path / "spool.db")
        await producer.close()
        with pytest.raises(ClientClosedError, match="was closed"):
            await producer.emit("a", b"x")
        with pytest.raises(ClientClosedError, match="was closed"):
            await producer.__aenter__()
        assert await producer.flush() == 0
        assert producer._engine is None

    run(main())


def test_an_unread_failure_logs_nothing(collector: Collector, run: Run) -> None:
    complaints: list[dict[str, Any]] = []
    collector.faults.reject_events("a")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with producer_of(collector.url) as producer:
            await producer.emit("a", b"x")
            assert await producer.flush() == 0
            assert producer.stats().total.lost == 1

    run(main())
    gc.collect()
    assert complaints == []


def test_another_loop_is_refused(collector: Collector) -> None:
    producer = producer_of(collector.ws_url)

    async def main() -> None:
        await producer.emit("a", b"x")
        assert await producer.flush() == 0

    async def close() -> None:
        await producer.close()

    first = asyncio.new_event_loop()
    first.run_until_complete(main())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(main())
    first.run_until_complete(close())
    first.close()


def test_an_unused_producer_sends_nothing(collector: Collector, run: Run) -> None:
    async def main() -> None:
        async with producer_of(collector.ws_url) as producer:
            assert await producer.flush() == 0
        assert producer.report.total.accepted == 0
        with pytest.raises(ClientClosedError):
            await producer.emit("a", b"x")

    run(main())
