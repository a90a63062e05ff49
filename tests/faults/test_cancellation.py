"""Tasks that are cancelled at every wait, and event loops that end while an AsyncProducer uses them."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from any_client import ASYNC, PROTOCOLS, new_client, silent_address
from patience import patient, wait_until
from program import run as run_program
from trial import SCHEMES

from raccoon_fast import RAW, AsyncProducer, ClientClosedError, RetryPolicy
from raccoon_fast.collector import Collector

QUICK = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.05)
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    loop = request.param()
    yield lambda coroutine: loop.run_until_complete(asyncio.wait_for(coroutine, patient(40)))
    leftover = asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert leftover == set()


def url_of(collector: Collector, scheme: str) -> str:
    return {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]


def new_producer(url: str, **options: Any) -> AsyncProducer:
    return AsyncProducer(url, **{"serializer": RAW, "logger": None, "retry": QUICK, "linger": 0.001, **options})


async def cancel_after(steps: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Run it for so many rounds of the loop, and cancel it. Returns whether it was over before."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return not task.cancelled()


def test_an_emit_that_is_cancelled_has_accepted_nothing(collector: Collector, run: Run) -> None:
    collector.faults.delay(0.002)

    async def main() -> None:
        options = {"batch_bytes": 2000, "buffer_bytes": 4000, "max_in_flight": 2, "timeout": 10.0}
        async with new_producer(collector.url, **options) as producer:
            accepted = 0
            for steps in range(200):
                # There is room for some of them only, which comes as others are cancelled.
                emits = [cancel_after(steps % 40 + more, producer.emit("a", bytes(900))) for more in range(6)]
                accepted += sum(await asyncio.gather(*emits))
            assert producer.stats().total.accepted == accepted
            assert await producer.flush(patient(20)) == 0
            assert producer._accumulator.buffered == 0
            assert producer.stats().total.acked == accepted

    run(main())


def test_a_flush_that_is_cancelled_leaves_nothing(collector: Collector, run: Run) -> None:
    collector.faults.delay(0.002)

    async def main() -> None:
        async with new_producer(collector.ws_url, timeout=10.0) as producer:
            for steps in range(60):
                await producer.emit("a", b"x")
                await cancel_after(steps, producer.flush())
            assert producer._engine is not None
            assert [queue.outstanding._flushes for queue in producer._engine._lanes.all] == [[]]
            assert await producer.flush() == 0

    run(main())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_close_cancelled_at_any_step_gives_every_event_an_outcome(
    collector: Collector, run: Run, scheme: str
) -> None:
    collector.faults.delay(0.003)

    async def main() -> None:
        for steps in [*range(1, 12), *range(12, 60, 4), 400]:  # one that has not begun is no close
            producer = new_producer(url_of(collector, scheme), batch_events=5, max_in_flight=2, timeout=10.0)
            receipts = await producer.emit_many(("a", b"x") for _ in range(30))
            over = await cancel_after(steps, producer.close(5.0))
            assert all(receipt.done() for receipt in receipts), steps
            total = producer.stats().total
            assert total.unsettled == 0
            assert total.acked + total.failed.get("closed", 0) == 30
            assert not over or total.acked == 30
            for receipt in receipts:
                assert receipt.exception() is None or isinstance(receipt.exception(), ClientClosedError)
            assert producer._accumulator.buffered == 0
            assert (await producer.close()).total == total

    run(main())


def test_a_close_that_is_cancelled_again_and_again_ends(collector: Collector, run: Run, tmp_path: Path) -> None:
    collector.faults.drop_acks()

    async def main() -> None:
        for steps in range(1, 20):
            spool = tmp_path / f"spool {steps}" if steps % 2 else None
            producer = new_producer(collector.ws_url, timeout=60.0, spool=spool)
            receipts = await producer.emit_many(("a", b"x") for _ in range(30))
            closing = asyncio.ensure_future(producer.close(60.0))
            while not closing.done():
                for _ in range(steps):
                    await asyncio.sleep(0)
                closing.cancel()
                await asyncio.sleep(0)
            assert all(receipt.done() for receipt in receipts)
            total = producer.stats().total
            assert total.failed.get("closed", 0) + total.spooled == 30
            assert total.unsettled == 0
        while len(asyncio.all_tasks()) > 2:  # this one, and the one that bounds it
            await asyncio.sleep(0)

    run(main())
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "raccoon_fast-spool"])
    if sys.platform == "linux":
        links = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        assert not [link for link in links if link.is_relative_to(tmp_path)]  # every spool was closed


def test_concurrent_closes_share_one_close(collector: Collector, run: Run) -> None:
    collector.faults.delay(0.05)

    async def main() -> None:
        producer = new_producer(collector.ws_url)
        await producer.emit("a", b"x")
        first, second = await asyncio.gather(producer.close(), producer.close())
        assert first is second
        assert first.total.acked == 1

    run(main())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_loop_closed_first_is_reported_and_nothing_hangs(collector: Collector, scheme: str) -> None:
    program = """
import asyncio, sys, warnings
from raccoon_fast import RAW, AsyncProducer

warnings.simplefilter("ignore", ResourceWarning)  # asyncio's, of the connection

class Log:
    def info(self, msg, *args): pass
    def error(self, msg, *args): print(msg % args)

async def main():
    producer = AsyncProducer(sys.argv[1], serializer=RAW, logger=Log())
    await (await producer.emit("a", b"acknowledged"))
    for _ in range(5):
        await producer.emit("a", b"not acknowledged")
    return producer

producer = asyncio.run(main())
assert producer.stats().total.unsettled == 5
for use in (producer.emit("a", b"x"), producer.flush(), producer.close()):
    try:
        asyncio.run(use)
    except RuntimeError as error:
        print(error)
try:
    producer.emit_nowait("a", b"x")
except RuntimeError as error:
    print(error)
print("exit")
"""
    closed = "the event loop of this producer was closed before it, with 5 events not acknowledged"
    *first, outside, _, last = run_program(program, url_of(collector, scheme))
    assert len(first) == 3
    assert all(line.startswith(closed) for line in first)
    assert outside == "no running event loop"
    assert last.startswith("an AsyncProducer was left open with 5 events not acknowledged")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_attempt_begins_while_the_loop_ends(scheme: str) -> None:
    """asyncio.run cancels the tasks of an attempt under way, and closes the loop right after that."""
    program = """
import asyncio, gc, socket, sys
from raccoon_fast import RAW, AsyncProducer

silent = socket.create_server(("127.0.0.1", 0))
accepted = []

async def main():
    url = f"{sys.argv[1]}://127.0.0.1:{silent.getsockname()[1]}"
    producer = AsyncProducer(url, serializer=RAW, logger=None, linger=0.001)
    await producer.emit("a", b"x")
    accepted.append(await asyncio.to_thread(silent.accept))  # the attempt has begun
    return producer

producer = asyncio.run(main())
gc.collect()
print(producer.stats().total.unsettled)
for connection, _ in accepted:
    connection.close()
silent.close()
"""
    assert run_program(program, scheme) == ["1"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_asyncio_run_ends_at_once_whatever_step_of_connecting_it_cancels(protocol: str) -> None:
    """The server answers nothing, so an attempt that ignored its cancellation would go on for half a minute."""

    async def main(address: str, steps: int) -> None:
        client = new_client(protocol, address, ASYNC, connect_timeout=30.0, timeout=30.0)
        sending = asyncio.ensure_future(client.send([("a", b"x")]))
        for _ in range(steps):
            await asyncio.sleep(0)
        assert not sending.done()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent_address(protocol, f"127.0.0.1:{silent.getsockname()[1]}")
        began_s = time.monotonic()
        for steps in range(30):
            asyncio.run(main(address, steps))
        assert time.monotonic() - began_s < 30


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_thread_with_another_loop_is_refused(collector: Collector, run: Run, scheme: str) -> None:
    async def main() -> None:
        async with new_producer(url_of(collector, scheme)) as producer:
            await producer.emit("a", b"x")
            refused: list[str] = []

            def elsewhere() -> None:
                for use in (producer.emit("a", b"x"), producer.flush(), producer.close()):
                    try:
                        asyncio.run(use)
                    except RuntimeError as error:  # noqa: PERF203 - each is to be refused
                        refused.append(str(error))

            await asyncio.to_thread(elsewhere)
            assert refused == ["this producer belongs to another event loop: create one producer per loop"] * 3
            assert await producer.flush() == 0

    run(main())
