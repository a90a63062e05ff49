"""The thread with an event loop: submitted calls run, or fail with an error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time

import pytest
from begun import Begun
from interrupts import Interrupt, ctrl_c
from patience import patient

from raccoon_fast.delivery import loop_thread
from raccoon_fast.delivery.loop_thread import LoopThread
from raccoon_fast.errors import ClientClosedError
from raccoon_fast.logs import resolve_logger


@pytest.fixture
def thread():
    begun = Begun()
    one = LoopThread(resolve_logger(None))
    yield one
    one.stop(5.0)
    assert begun.threads("raccoon_fast-loop") == []


async def where() -> str:
    return threading.current_thread().name


def test_coroutines_run_on_the_loop_s_thread(thread):
    assert thread.submit(where).result(patient(5)) == "raccoon_fast-loop"


def test_cancelling_the_future_cancels_the_coroutine(thread):
    ended = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = thread.submit(wait)
    thread.submit(where).result(patient(5))
    future.cancel()
    assert ended.wait(patient(5))


class Interrupted:
    """What it stands for, but that a Ctrl-C comes right after the first call of a method."""

    def __init__(self, whole, method):
        self._whole, self._method = whole, method
        self._comes = True

    def __getattr__(self, name):
        return getattr(self._whole, name)

    def call_soon_threadsafe(self, *args):
        self._whole.call_soon_threadsafe(*args)
        self._interrupt("call_soon_threadsafe")

    def _interrupt(self, method):
        if method == self._method and self._comes:
            self._comes = False
            raise KeyboardInterrupt


def test_ctrl_c_during_submit_leaves_nothing_running(thread):
    async def wait():
        await asyncio.sleep(60)

    async def others():
        await asyncio.sleep(0.01)
        return asyncio.all_tasks() - {asyncio.current_task()}

    thread.start()
    for method in ("call_soon_threadsafe",):
        whole, thread.loop = thread.loop, Interrupted(thread.loop, method)
        try:
            with pytest.raises(KeyboardInterrupt):
                thread.submit(wait)
        finally:
            thread.loop = whole
        assert thread.submit(others).result(patient(5)) == set()


class Logger:
    def __init__(self):
        self.errors = []

    def info(self, text, *args):
        pass

    def error(self, text, *args):
        self.errors.append(text % args)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("own")])
def test_exceptions_on_the_loop_do_not_leave_its_thread(error):
    logger = Logger()
    thread = LoopThread(resolve_logger(logger))

    def leave():
        raise error

    async def leave_a_task():
        raise error

    thread.submit(where).result(patient(5))
    thread.loop.call_soon_threadsafe(leave)
    assert thread.submit(where).result(patient(5)) == "raccoon_fast-loop"
    with pytest.raises(type(error)):
        thread.submit(leave_a_task).result(patient(5))
    assert thread.submit(where).result(patient(5)) == "raccoon_fast-loop"
    assert not thread.is_over
    thread.stop(5.0)
    assert repr(error) in logger.errors[0]


def test_a_call_of_the_loop_s_stop_does_not_end_it():
    logger = Logger()
    thread = LoopThread(resolve_logger(logger))
    thread.submit(where).result(patient(5))
    for _ in range(3):
        thread.loop.call_soon_threadsafe(thread.loop.stop)
        assert thread.submit(where).result(patient(5)) == "raccoon_fast-loop"
    thread.stop(5.0)
    assert all("stop()" in line for line in logger.errors)


def test_a_broken_loop_ends_and_settles_submitted_coroutines(monkeypatch):
    monkeypatch.setattr(loop_thread, "new_event_loop", asyncio.SelectorEventLoop)
    thread = LoopThread(resolve_logger(None))
    thread.submit(where).result(patient(5))

    begun = threading.Event()

    async def wait():
        begun.set()
        await asyncio.get_running_loop().create_future()

    waiting = thread.submit(wait)
    assert begun.wait(patient(30))

    def fail(timeout=None):
        raise OSError("no descriptor")

    thread.loop._selector.select = fail
    thread.loop.call_soon_threadsafe(lambda: None)
    assert waiting.exception(patient(30)) is not None
    deadline_s = time.monotonic() + patient(30)
    while not thread.is_over:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    with pytest.raises(ClientClosedError):
        thread.submit(where)
    thread.stop(30.0)


def test_stop_cancels_running_coroutines_and_refuses_new_ones(thread):
    outcome = []

    async def wait():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    future = thread.submit(wait)
    thread.stop(5.0)
    thread.stop(5.0)
    assert outcome == ["cancelled"]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    with pytest.raises(ClientClosedError):
        thread.submit(where)


def test_stop_from_the_loop_does_not_wait_for_itself(thread):
    async def stop():
        thread.stop(30.0)

    thread.submit(stop).result(patient(5))


def test_unhandled_exceptions_are_logged():
    logger = Logger()
    thread = LoopThread(resolve_logger(logger))

    async def fail_later():
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)

    thread.submit(fail_later).result(patient(5))
    thread.stop(5.0)
    assert len(logger.errors) == 1
    assert "ZeroDivisionError" in logger.errors[0]


def test_a_ctrl_c_before_any_line_of_submit_leaves_no_coroutine_that_nobody_awaits(
    recwarn: pytest.WarningsRecorder,
) -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        one = LoopThread(resolve_logger(None))
        try:
            with Interrupt(at, ctrl_c, loop_thread):
                one.submit(where)
            is_over = True
        except KeyboardInterrupt:
            pass
        one.stop(patient(5))
    assert at > 10
    gc.collect()
    assert [str(one.message) for one in recwarn if "never awaited" in str(one.message)] == []


def started_while_it_ends(kind, turns):
    """Starts a coroutine so many turns of the loop after `stop`. Returns whether the loop had so many turns."""
    logger = Logger()
    one = LoopThread(resolve_logger(logger))
    started = []
    left = turns

    async def report():
        started[0] = "begun"

    def turn():
        nonlocal left
        left -= one._is_stopped
        if left:
            one.loop.call_soon(turn)
        else:
            started.append(one.submit(report) if kind == "call" else one.loop.create_task(report()))

    one.submit(where).result(patient(5))
    one.loop.call_soon_threadsafe(turn)
    one.stop(patient(30))
    assert one.is_over
    assert all(it == "begun" or it.done() for it in started)
    assert logger.errors == []
    return bool(started)


@pytest.mark.parametrize("kind", ["call", "task"])
def test_whatever_is_started_while_the_thread_ends_is_run_or_refused(kind, recwarn):
    turns = 1
    while started_while_it_ends(kind, turns):
        turns += 1
    assert turns > 5
    gc.collect()
    assert [str(one.message) for one in recwarn] == []
