"""Threads, locks and waits under gevent's monkey patching; without it they are the standard library's own."""

from __future__ import annotations

import concurrent.futures
import queue
import threading

import pytest
from program import run

from raccoon_fast import threads

HEAD = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from raccoon_fast import threads

native_sleep = monkey.get_original("time", "sleep")
native_ident = monkey.get_original("_thread", "get_ident")
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1

ticker = gevent.spawn(tick)

def in_thread(target):
    thread = threads.new_thread(target, "test")
    thread.start()
    return thread
"""


def test_without_gevent_they_are_the_standard_library_s() -> None:
    assert not threads.is_green()
    assert isinstance(threads.new_thread(lambda: None, "x"), threading.Thread)
    assert isinstance(threads.new_condition(), threading.Condition)
    assert isinstance(threads.new_event(), threading.Event)
    assert isinstance(threads.new_queue(), queue.SimpleQueue)
    assert type(threads.new_lock()) is type(threading.Lock())
    assert type(threads.new_rlock()) is type(threading.RLock())
    assert threads.new_future()._condition.__class__ is concurrent.futures.Future()._condition.__class__


class TestGreen:
    @pytest.fixture(autouse=True)
    def _gevent(self) -> None:
        pytest.importorskip("gevent")

    def test_a_thread_is_one_of_the_system_and_is_joined_as_a_greenlet_waits(self) -> None:
        program = """
idents = set()
def work():
    idents.add(native_ident())
    native_sleep(0.1)
thread = in_thread(work)
before = ticks
thread.join()
assert ticks > before
assert len(idents - {native_ident()}) == 1
started = time.monotonic()
in_thread(lambda: native_sleep(0.5)).join(0.01)
assert time.monotonic() - started < 0.4
"""
        run(HEAD + program)

    def test_one_that_may_be_green_is_a_greenlet_but_where_a_thread_has_none(self) -> None:
        program = """
idents = []
def work():
    idents.append(native_ident())
green = threads.new_thread(work, "test", may_be_green=True)
green.start()
assert not idents  # it has its turn later
green.join()
inner = []
def outer():
    inner.append(threads.new_thread(work, "test", may_be_green=True))
    inner[0].start()
in_thread(outer).join()
inner[0].join(5)
assert idents[0] == native_ident() != idents[1]
"""
        run(HEAD + program)

    def test_what_a_thread_raises_is_shown(self) -> None:
        program = """
shown = []
sys.excepthook = lambda kind, error, traceback: shown.append(kind)
in_thread(lambda: 1 / 0).join()
assert shown == [ZeroDivisionError]
"""
        run(HEAD + program)

    def test_futures_cross_threads_both_ways(self) -> None:
        program = """
import concurrent.futures
futures = [threads.new_future() for _ in range(200)]
def settle():
    for number, future in enumerate(futures):
        native_sleep(0.0005)
        future.set_result(number)
waiting = [gevent.spawn(future.result, 10) for future in futures]
before = ticks
in_thread(settle)
assert [greenlet.get() for greenlet in waiting] == list(range(200))
assert ticks > before
try:
    threads.new_future().result(0.01)
except concurrent.futures.TimeoutError:
    print("timed out")
late = threads.new_future()
got = []
thread = in_thread(lambda: got.append(late.result(10)))
gevent.sleep(0.01)
late.set_result(7)
thread.join()
assert got == [7]
"""
        assert run(HEAD + program) == ["timed out"]

    def test_a_queue_keeps_every_item_in_each_one_s_order(self) -> None:
        program = """
items = threads.new_queue()
def put(who):
    for number in range(2000):
        items.put((who, number))
for who in range(3):
    in_thread(lambda who=who: put(who))
gevent.spawn(put, 3)
got = [items.get() for _ in range(8000)]
for who in range(4):
    assert [number for one, number in got if one == who] == list(range(2000))
assert items.empty()
"""
        run(HEAD + program)

    def test_a_wait_that_is_killed_leaves_nothing(self) -> None:
        program = """
condition = threads.new_condition()
def wait():
    with condition:
        condition.wait(10)
killed, woken = gevent.spawn(wait), gevent.spawn(wait)
gevent.sleep(0.01)
killed.kill()
with condition:
    condition.notify()  # for the one that is left
woken.get(timeout=5)
with condition:
    assert not condition.wait(0.01)
    assert condition.wait_for(lambda: False, 0.01) is False
    assert condition.wait_for(lambda: 3, 0.01) == 3
"""
        run(HEAD + program)

    def test_a_queue_that_waits_does_not_keep_the_hub(self) -> None:
        program = """
items = threads.new_queue()
gevent.spawn(items.get)
gevent.sleep(0.01)
event = threads.new_event()
in_thread(lambda: (native_sleep(0.05), event.set()))
ticker.kill()
assert event.wait(10)  # an event does keep it: nothing else is left to do
assert gevent.wait(timeout=5)
"""
        run(HEAD + program)


class Slow(concurrent.futures.Future):
    """Notes how long it is waited for at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def exception(self, timeout=None):
        self.waits.append(timeout)
        if len(self.waits) == 3:
            self.set_result("there")
        return super().exception(0)


def test_a_wait_is_never_long_at_a_time_for_a_ctrl_c_may_go_unnoticed_in_it() -> None:
    future = Slow()
    assert threads.result_of(future) == "there"
    assert future.waits == [1.0, 1.0, 1.0]


def test_a_wait_with_a_bound() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    for timeout_s in (0, 0.01, -1):
        with pytest.raises(concurrent.futures.TimeoutError):
            threads.result_of(future, timeout_s)
    future.set_result(5)
    assert threads.result_of(future, 0) == threads.result_of(future) == 5


def test_a_wait_for_what_failed_or_was_cancelled() -> None:
    own = TimeoutError("its own")
    failed: concurrent.futures.Future[int] = concurrent.futures.Future()
    failed.set_exception(own)
    with pytest.raises(TimeoutError) as caught:
        threads.result_of(failed, 5)
    assert caught.value is own
    cancelled: concurrent.futures.Future[int] = concurrent.futures.Future()
    cancelled.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        threads.result_of(cancelled, 5)
