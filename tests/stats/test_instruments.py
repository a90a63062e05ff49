"""A metrics library's instruments, and forks while they are in use."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from patience import patient

from raccoon_fast.stats.instruments import InstrumentSink

if sys.version_info >= (3, 12):
    pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_a_fork_waits_until_the_library_holds_no_lock():
    lock = threading.Lock()
    working, go_on = threading.Event(), threading.Event()

    def count(n):
        with lock:
            working.set()
            go_on.wait(patient(30))

    sink = InstrumentSink({}, {"a": count}, lambda values: None, 0.001, None)
    sink.count("a")
    assert working.wait(patient(10))
    threading.Timer(0.1, go_on.set).start()
    pid = os.fork()
    if pid == 0:
        os._exit(int(lock.locked()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    sink.close(5)


def test_each_instrument_gets_its_own_values():
    seen = []
    timings = {"t": lambda ms: seen.append(("t", ms))}
    sink = InstrumentSink(timings, {"a": lambda n: seen.append(("a", n))}, seen.append, 60, None)
    sink.timing("t", 1.5)
    sink.count("a", 2)
    sink.count("t", 9)
    sink.timing("a", 9)
    sink.count("a", 3)
    sink.close(5)
    assert seen == [("t", 1.5), ("a", 5)]
