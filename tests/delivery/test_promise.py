"""A promise is settled once, by one thread, for all waiting threads and callbacks."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any

import pytest
from patience import patient

from raccoon_fast.delivery.promise import Promise


@pytest.fixture
def promise() -> Promise:
    return Promise()


def test_a_result_is_handed_out_again_and_again(promise: Promise) -> None:
    assert not promise.done()
    promise.set_result("there")
    assert promise.done()
    assert (promise.result(0), promise.result(), promise.exception(0)) == ("there", "there", None)


def test_a_failure_is_raised_or_returned(promise: Promise) -> None:
    failure = RuntimeError("no")
    promise.set_exception(failure)
    with pytest.raises(RuntimeError) as caught:
        promise.result(0)
    assert caught.value is failure is promise.exception(0)


@pytest.mark.parametrize("later", [False, True])
def test_a_failure_keeps_no_frames_of_earlier_callers(promise: Promise, later: bool) -> None:
    failure = RuntimeError("no")
    if later:
        promise.set_exception_later(lambda: failure)
    else:
        promise.set_exception(failure)
    lengths = set()
    for _ in range(3):
        with pytest.raises(RuntimeError) as caught:
            promise.result(0)
        lengths.add(len(caught.traceback))
    assert lengths == {2}  # this test and `result`


def test_a_wait_that_ends_before_the_outcome_leaves_nothing_behind(promise: Promise) -> None:
    for wait in (promise.result, promise.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            wait(0.01)
    assert promise._callbacks == []


def test_all_that_wait_are_woken(promise: Promise) -> None:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(promise.result(patient(30)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + patient(30)
    while len(promise._callbacks) < len(threads) and time.monotonic() < deadline_s:
        time.sleep(0.001)
    promise.set_result("there")
    for thread in threads:
        thread.join(patient(30))
    assert results == ["there"] * 4


def test_callbacks_are_called_in_their_order_and_late_ones_at_once(promise: Promise) -> None:
    called: list[Any] = []
    for name in "ab":
        promise.add_done_callback(lambda one, name=name: called.append((name, one)))  # type: ignore[misc]
    assert called == []
    promise.set_result(1)
    promise.add_done_callback(lambda one: called.append(("late", one)))
    assert called == [("a", promise), ("b", promise), ("late", promise)]


def test_a_callback_added_while_it_is_settled_is_called_once() -> None:
    for _ in range(200):
        promise: Promise = Promise()
        called: list[object] = []
        both = threading.Barrier(2)

        def settle(promise: Promise = promise, both: threading.Barrier = both) -> None:
            both.wait()
            promise.set_result(1)

        thread = threading.Thread(target=settle)
        thread.start()
        both.wait()
        promise.add_done_callback(called.append)
        thread.join()
        assert called == [promise]
