"""Threads and waits, with and without gevent's monkey patching."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable

import pytest
from patience import patient
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


def test_a_thread_is_listed_under_its_name_while_it_runs() -> None:
    began, release = threading.Event(), threading.Event()
    thread = threads.new_thread(lambda: (began.set(), release.wait(patient(10))), "raccoon-test")  # type: ignore[arg-type,return-value]
    thread.start()
    assert began.wait(patient(10))
    assert [(one.name, one.daemon) for one in threading.enumerate() if one.name == "raccoon-test"] == [
        ("raccoon-test", True)
    ]
    assert not thread.is_current()
    release.set()
    thread.join(patient(10))
    assert "raccoon-test" not in [one.name for one in threading.enumerate()]


def test_a_thread_starts_where_threading_thread_would_deadlock() -> None:
    """A finalizer that runs within `threading.Thread.start` is such a place."""
    ended = threading.Event()
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        threads.new_thread(ended.set, "raccoon-test").start()
    assert ended.wait(patient(10))


def in_crowd(act: Callable[[int], object], count: int = 8) -> None:
    """Have as many threads act at once."""
    troubles: list[BaseException] = []
    ready = threading.Barrier(count)

    def run_one(number: int) -> None:
        ready.wait(patient(10))
        try:
            act(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            troubles.append(error)

    crowd = [threading.Thread(target=run_one, args=(number,)) for number in range(count)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    if troubles:
        raise troubles[0]


def test_a_tally_misses_nothing_that_threads_count_at_once() -> None:
    tally = threads.Tally()
    seen: list[int] = []

    def count(number: int) -> None:
        for _ in range(5000):
            tally.add()
            if number == 0:
                seen.append(tally.value)

    in_crowd(count)
    assert tally.value == tally.value == 8 * 5000
    assert seen == sorted(seen)
    assert 1 <= seen[0] <= seen[-1] <= 8 * 5000


def test_a_snapshot_has_each_item_present_throughout() -> None:
    items = deque(range(20))

    def change(number: int) -> None:
        for _ in range(500):
            if number % 2:
                items.append(number + 100)
                items.pop()
            else:
                assert threads.snapshot(items)[:20] == [*range(20)]

    in_crowd(change)
    assert threads.snapshot(items) == [*range(20)]


def test_a_thread_that_raises_shows_its_error_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def leave() -> None:
        raise SystemExit(3)

    thread = threads.new_thread(leave, "raccoon-test")
    thread.start()
    thread.join(patient(10))
    assert "SystemExit: 3" in capsys.readouterr().err


class TestCondition:
    def test_a_wait_with_a_bound(self) -> None:
        condition = threads.Condition()
        assert condition.wait_for(lambda: False, 0) is False
        assert condition.wait_for(lambda: False, 0.01) is False
        assert condition.wait_for(lambda: 3, 0) == 3
        assert condition.waiting == 0

    def test_no_change_is_missed(self) -> None:
        for _ in range(300):
            condition = threads.Condition()
            done: list[int] = []
            both = threading.Barrier(2)

            def change(
                condition: threads.Condition = condition, done: list[int] = done, both: threading.Barrier = both
            ) -> None:
                both.wait()
                done.append(1)
                condition.notify_all()

            thread = threading.Thread(target=change)
            thread.start()
            both.wait()
            begun_s = time.monotonic()
            assert condition.wait_for(lambda done=done: done, patient(30))
            assert time.monotonic() - begun_s < patient(0.9)  # not by the slice that a Ctrl-C may take
            thread.join()

    def test_a_signal_handler_may_wait_on_the_condition_it_interrupts(self) -> None:
        program = """
import signal, threading, time
from raccoon_fast import threads

event = threads.Event()
seen = []
def handler(*_):
    seen.append(event.wait(0.0001))
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0003)
for _ in range(300):
    event = threads.Event()
    threads.new_thread(event.set, "set").start()
    assert event.wait(30)
    event.set()
signal.signal(signal.SIGALRM, lambda *_: None)  # one may come late
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(seen) > 10)
"""
        assert run(program) == ["True"]


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, False),
        ({"enable-threads": b"false"}, False),
        ({"enable-threads": True}, True),
        ({"enable-threads": b"true"}, True),
        ({"threads": b"4"}, True),
    ],
)
def test_uwsgi_s_option_is_named_where_threads_do_not_run(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], runs: bool
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))  # type: ignore[arg-type]
    if runs:
        threads.require_threads()
    else:
        with pytest.raises(RuntimeError, match="--enable-threads"):
            threads.require_threads()


class TestGreen:
    @pytest.fixture(autouse=True)
    def _gevent(self) -> None:
        pytest.importorskip("gevent")

    def test_a_thread_is_a_system_thread_and_joining_lets_greenlets_run(self) -> None:
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

    def test_a_green_thread_is_a_greenlet_except_inside_a_system_thread(self) -> None:
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

    def test_the_error_of_a_thread_is_shown(self) -> None:
        program = """
shown = []
sys.excepthook = lambda kind, error, traceback: shown.append(kind)
in_thread(lambda: 1 / 0).join()
assert shown == [ZeroDivisionError]
"""
        run(HEAD + program)

    def test_promises_cross_threads_both_ways(self) -> None:
        program = """
import concurrent.futures
from raccoon_fast.delivery.promise import Promise
promises = [Promise() for _ in range(200)]
def settle():
    for number, promise in enumerate(promises):
        native_sleep(0.0005)
        promise.set_result(number)
waiting = [gevent.spawn(promise.result, 10) for promise in promises]
before = ticks
in_thread(settle)
assert [greenlet.get() for greenlet in waiting] == list(range(200))
assert ticks > before
try:
    Promise().result(0.01)
except concurrent.futures.TimeoutError:
    print("timed out")
late = Promise()
got = []
thread = in_thread(lambda: got.append(late.result(10)))
gevent.sleep(0.01)
late.set_result(7)
thread.join()
assert got == [7]
"""
        assert run(HEAD + program) == ["timed out"]

    def test_a_queue_keeps_every_item_in_its_producer_s_order(self) -> None:
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
condition = threads.Condition()
told = []
def wait():
    return condition.wait_for(lambda: told, 10)
killed, woken = gevent.spawn(wait), gevent.spawn(wait)
gevent.sleep(0.01)
assert condition.waiting == 2
killed.kill()
assert condition.waiting == 1
told.append(1)
condition.notify_all()
assert woken.get(timeout=5)
assert condition.wait_for(lambda: False, 0.01) is False
assert condition.wait_for(lambda: 3, 0.01) == 3
assert condition.waiting == 0
"""
        run(HEAD + program)

    def test_a_waiting_queue_does_not_keep_the_hub_alive(self) -> None:
        program = """
items = threads.new_queue()
gevent.spawn(items.get)
gevent.sleep(0.01)
event = threads.Event()
in_thread(lambda: (native_sleep(0.05), event.set()))
ticker.kill()
assert event.wait(10)  # an event does keep it: nothing else is left to do
assert gevent.wait(timeout=5)
"""
        run(HEAD + program)


def test_looking_for_gevent_takes_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GIL, `get` would lock the modules, which a forked child could find locked."""

    class Modules(dict[str, types.ModuleType]):
        def get(self, *_: object) -> types.ModuleType:  # type: ignore[override]
            raise AssertionError

    modules = Modules({name: module for name, module in sys.modules.items() if not name.startswith("gevent")})
    with monkeypatch.context() as patched:  # pytest itself asks for modules afterwards
        patched.setattr(sys, "modules", modules)
        is_green = threads.is_green()
    assert not is_green
