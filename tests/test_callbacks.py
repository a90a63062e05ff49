"""Callbacks run in order on one thread, whatever they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from begun import Begun
from patience import patient

from raccoon_fast.callbacks import CallbackThread
from raccoon_fast.logs import resolve_logger
from raccoon_fast.threads import new_thread


class Logger:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def info(self, text: str, *args: object) -> None:
        pass

    def error(self, text: str, *args: object) -> None:
        self.errors.append(text % args)


@pytest.fixture
def logger() -> Logger:
    return Logger()


@pytest.fixture
def callbacks(logger: Logger) -> Iterator[CallbackThread]:
    begun = Begun()
    thread = CallbackThread(resolve_logger(logger))
    yield thread
    thread.stop(5.0)
    assert begun.threads("raccoon_fast-callbacks") == []


def test_callbacks_run_in_order_on_one_thread_started_by_the_first(callbacks: CallbackThread) -> None:
    begun = Begun()
    seen: list[Any] = []
    assert begun.threads() == []
    for number in range(100):
        callbacks.submit(lambda it: seen.append((it, threading.current_thread().name)), number)
    callbacks.stop(5.0)
    assert seen == [(number, "raccoon_fast-callbacks") for number in range(100)]


def test_a_callback_that_raises_is_logged_and_affects_no_other(callbacks: CallbackThread, logger: Logger) -> None:
    seen: list[int] = []
    callbacks.submit(lambda it: 1 // it, 0)
    callbacks.submit(seen.append, 1)
    callbacks.stop(5.0)
    assert seen == [1]
    assert len(logger.errors) == 1
    assert "ZeroDivisionError" in logger.errors[0]


def test_stop_runs_submitted_callbacks_and_is_bounded(callbacks: CallbackThread) -> None:
    release = threading.Event()
    seen: list[int] = []
    callbacks.submit(lambda _: release.wait(patient(30)), None)
    callbacks.submit(seen.append, 1)
    start_s = time.monotonic()
    callbacks.stop(0.05)
    assert time.monotonic() - start_s < patient(5)
    assert seen == []
    release.set()
    callbacks.stop(5.0)
    assert seen == [1]


def test_after_stop_a_callback_is_not_lost(callbacks: CallbackThread) -> None:
    callbacks.stop(5.0)
    done = threading.Event()
    callbacks.submit(lambda _: done.set(), None)
    assert done.wait(patient(5))


def test_two_threads_that_start_it_at_once_leave_one_that_can_be_stopped_and_started_again(
    callbacks: CallbackThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[None] = []
    first = threading.Event()

    def start_another(*args: Any, **kwargs: Any) -> Any:
        if not starts:
            starts.append(None)
            callbacks.submit(lambda _: first.set(), None)  # while the outer call is about to start its thread
            assert first.wait(patient(5))
        return new_thread(*args, **kwargs)

    monkeypatch.setattr("raccoon_fast.callbacks.new_thread", start_another)
    callbacks.start()
    deadline_s = time.monotonic() + patient(5)
    while callbacks._starting is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    callbacks.stop(patient(5))
    again = threading.Event()
    callbacks.submit(lambda _: again.set(), None)
    assert again.wait(patient(5))


def test_stop_from_a_callback_does_not_wait_for_itself(callbacks: CallbackThread) -> None:
    done = threading.Event()

    def stop(_: object) -> None:
        callbacks.stop(30.0)
        done.set()

    callbacks.submit(stop, None)
    assert done.wait(patient(5))
