"""An attempt ends once, and reports its end in the same step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scripted import ended

from raccoon_fast.events import Code, Response, Status
from raccoon_fast.transports.attempt import Attempt

RESPONSE = Response(Status.SUCCESS, Code.OK)


def test_callbacks_run_in_the_step_that_ends_the_attempt() -> None:
    told: list[Attempt] = []
    attempt = Attempt()
    attempt.add_done_callback(told.append)
    assert not attempt.done()
    attempt.set_result(RESPONSE)
    assert told == [attempt]
    assert attempt.done()
    assert not attempt.cancelled()
    assert attempt.result() is RESPONSE


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda attempt: attempt.set_exception(LookupError("gone")), LookupError),
        (Attempt.cancel, asyncio.CancelledError),
    ],
)
def test_result_raises_the_error_of_the_attempt(end: Callable[[Attempt], Any], error: type[BaseException]) -> None:
    attempt = Attempt()
    end(attempt)
    assert attempt.cancelled() is (error is asyncio.CancelledError)
    with pytest.raises(error):
        attempt.result()


def test_an_attempt_is_cancelled_once() -> None:
    told: list[Attempt] = []
    attempt = Attempt()
    attempt.add_done_callback(told.append)
    assert attempt.cancel()
    assert not attempt.cancel()
    assert told == [attempt]


def test_a_callback_added_after_the_end_runs_soon_and_not_at_once() -> None:
    async def main() -> None:
        attempt = Attempt()
        attempt.set_result(RESPONSE)
        told: list[Attempt] = []
        attempt.add_done_callback(told.append)
        assert told == []
        assert await ended(attempt) is RESPONSE
        assert told == [attempt]

    asyncio.run(main())


def test_an_error_of_a_callback_does_not_reach_the_transport() -> None:
    async def main() -> None:
        seen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        attempt = Attempt()
        attempt.add_done_callback(lambda _: 1 // 0)
        attempt.set_result(RESPONSE)
        assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]

    asyncio.run(main())
