"""Receipts: outcomes, timeouts, callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from raccoon_fast.callbacks import CallbackThread
from raccoon_fast.delivery.promise import Promise
from raccoon_fast.delivery.receipts import AsyncReceipt, Receipt
from raccoon_fast.errors import AckTimeoutError
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.logs import resolve_logger

ACK = Response(Status.SUCCESS, Code.OK, 0, "", {})


@pytest.fixture
def callbacks() -> Iterator[CallbackThread]:
    thread = CallbackThread(resolve_logger(None))
    yield thread
    thread.stop(5.0)


@pytest.fixture(params=[concurrent.futures.Future, Promise])
def future(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def receipt(future: Any, callbacks: CallbackThread) -> Receipt:
    return Receipt("g", future, callbacks)


def test_an_available_outcome(receipt: Receipt, future: Any) -> None:
    assert (receipt.done(), repr(receipt)) == (False, "<Receipt g pending>")
    future.set_result(ACK)
    assert (receipt.done(), repr(receipt)) == (True, "<Receipt g acknowledged>")
    assert receipt.result(0) is ACK
    assert receipt.exception() is None


def test_a_timeout_is_not_the_outcome(receipt: Receipt, future: Any) -> None:
    for wait in (receipt.result, receipt.exception):
        with pytest.raises(TimeoutError, match="still on its way"):
            wait(0.01)
    failure = AckTimeoutError("the request's own")
    future.set_exception(failure)
    with pytest.raises(AckTimeoutError) as caught:
        receipt.result(0)
    assert caught.value is failure is receipt.exception(0)


def test_callbacks_run_on_their_thread_also_when_added_late(
    receipt: Receipt, future: Any, callbacks: CallbackThread
) -> None:
    seen: list[Any] = []

    def called(it: Receipt) -> None:
        seen.append((it, threading.current_thread().name))

    receipt.add_done_callback(called)
    future.set_result(ACK)
    receipt.add_done_callback(called)
    callbacks.stop(5.0)
    assert seen == [(receipt, "raccoon_fast-callbacks")] * 2


def test_async() -> None:
    async def main() -> None:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        receipt = AsyncReceipt("g", future)
        seen: list[AsyncReceipt] = []
        receipt.add_done_callback(seen.append)

        async def wait() -> Response:
            return await receipt

        waiting = [asyncio.ensure_future(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        with pytest.raises(asyncio.InvalidStateError):
            receipt.result()
        assert repr(receipt) == "<AsyncReceipt g pending>"
        future.set_result(ACK)
        assert await waiting[1] is ACK
        assert await receipt is receipt.result() is ACK
        assert receipt.exception() is None
        assert seen == [receipt]

    asyncio.run(main())
