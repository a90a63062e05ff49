"""Waiting for what others wait for too."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

from raccoon_fast.timeouts import shield

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@pytest.fixture
def reports(run: Callable[[Coroutine[Any, Any, None]], None]) -> Callable[[Callable[[], Any]], list[dict[str, Any]]]:
    """Runs an async function; returns what the loop's exception handler was told."""

    def run_and_listen(function: Callable[[], Coroutine[Any, Any, None]]) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
            await function()
            await asyncio.sleep(0)
            gc.collect()

        run(main())
        return told

    return run_and_listen


async def cancelled(future: asyncio.Future[int]) -> asyncio.Task[int]:
    """A task that waited for the future and was cancelled."""

    async def wait() -> int:
        return await shield(future)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    return task


def test_a_waiter_gets_the_outcome(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for is_late in (False, True):
            good, bad, gone = (loop.create_future() for _ in range(3))

            def end(good: Any = good, bad: Any = bad, gone: Any = gone) -> None:
                good.set_result(5)
                bad.set_exception(OSError("no"))
                gone.cancel()

            if is_late:
                loop.call_soon(end)
            else:
                end()
            assert await shield(good) == 5
            with pytest.raises(OSError, match="no"):
                await shield(bad)
            with pytest.raises(asyncio.CancelledError):
                await shield(gone)

    run(main())


@pytest.mark.parametrize("waiters", [1, 50])
def test_a_failure_after_the_waiters_were_cancelled_is_reported_nowhere(reports: Any, waiters: int) -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        for _ in range(waiters):
            await cancelled(future)
        assert not future.done()
        if isinstance(future, asyncio.Future) and hasattr(future, "_callbacks"):
            assert len(future._callbacks or ()) <= 1  # however often it was waited for
        future.set_exception(OSError("no"))

    assert reports(main) == []


def test_a_waiter_cancelled_in_the_step_in_which_it_fails(reports: Any) -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        copy = shield(future)
        future.set_exception(OSError("no"))
        copy.cancel()

    assert reports(main) == []


def test_other_waiters_still_get_the_outcome(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        other = shield(future)
        await cancelled(future)
        future.set_result(5)
        assert await other == 5

    run(main())


def test_a_future_of_another_loop_is_an_error() -> None:
    loop = asyncio.new_event_loop()
    future: asyncio.Future[int] = loop.create_future()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await shield(future)

    asyncio.run(main())
    loop.close()
