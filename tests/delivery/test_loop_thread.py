"""The thread with an event loop: what is submitted runs, or is told that it does not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from raccoon_fast.delivery.loop_thread import LoopThread
from raccoon_fast.errors import ClientClosedError
from raccoon_fast.logs import resolve_logger


@pytest.fixture
def thread():
    one = LoopThread(resolve_logger(None))
    yield one
    one.stop(5.0)
    assert [it for it in threading.enumerate() if it.name == "raccoon_fast-loop"] == []


async def where() -> str:
    return threading.current_thread().name


def test_it_runs_coroutines_on_its_thread(thread):
    assert thread.submit(where()).result(5) == "raccoon_fast-loop"


def test_cancelling_the_future_cancels_the_coroutine(thread):
    ended = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = thread.submit(wait())
    thread.submit(where()).result(5)
    future.cancel()
    assert ended.wait(5)


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

    def __enter__(self):
        return self._whole.__enter__()

    def __exit__(self, *error):
        self._whole.__exit__(*error)
        self._interrupt("__exit__")

    def _interrupt(self, method):
        if method == self._method and self._comes:
            self._comes = False
            raise KeyboardInterrupt


@pytest.mark.parametrize(("part", "method"), [("loop", "call_soon_threadsafe"), ("_lock", "__exit__")])
def test_ctrl_c_while_it_is_submitted_leaves_nothing_that_runs(thread, part, method):
    ended = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    whole = getattr(thread, part)
    setattr(thread, part, Interrupted(whole, method))
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.submit(wait())
        assert ended.wait(5)
    finally:
        setattr(thread, part, whole)


def test_stop_cancels_what_runs_and_refuses_what_comes(thread):
    outcome = []

    async def wait():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    future = thread.submit(wait())
    thread.stop(5.0)
    thread.stop(5.0)
    assert outcome == ["cancelled"]
    assert future.cancelled()
    with pytest.raises(ClientClosedError):
        thread.submit(where())


def test_stop_from_the_loop_does_not_wait_for_itself(thread):
    async def stop():
        thread.stop(30.0)

    thread.submit(stop()).result(5)


def test_what_nobody_handles_is_logged():
    errors = []

    class Logger:
        def info(self, text, *args):
            pass

        def error(self, text, *args):
            errors.append(text % args)

    thread = LoopThread(resolve_logger(Logger()))

    async def fail_later():
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)

    thread.submit(fail_later()).result(5)
    thread.stop(5.0)
    assert len(errors) == 1
    assert "ZeroDivisionError" in errors[0]
