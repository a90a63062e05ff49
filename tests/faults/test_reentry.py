"""Signal handlers and finalizers that use a producer, at any step of whatever they interrupt: never a deadlock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from patience import patient
from program import run

from raccoon_fast.collector import Collector

FORMS = pytest.mark.parametrize("form", ["", "1"], ids=["compiled", "pure"])


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(sink="null") as running:
        yield running


@FORMS
@pytest.mark.parametrize("mode", ["emit", "stats", "flush", "acks", "callback", "result", "batch"])
def test_a_signal_handler_that_does_what_it_interrupts(collector: Collector, mode: str, form: str) -> None:
    program = """
import signal, sys, time
from raccoon_fast import RAW, Producer
url, mode = sys.argv[1:]
producer = Producer(url, serializer=RAW, logger=None, overflow="drop_oldest", batch_bytes=4096, buffer_bytes=8192,
                    linger=0.0005)
signals, busy = 0, False
def act():
    if mode == "stats":
        report = producer.stats()
        for one in (report.total, *report.by_type.values()):
            assert one.queued >= 0 and one.in_flight >= 0, report
        producer.health()
    elif mode == "flush": producer.flush(0.001)
    elif mode == "acks": producer.acks().close()
    elif mode == "callback": producer.emit("a", b"x").add_done_callback(lambda _: None)
    elif mode == "result": producer.emit("a", b"x").exception(20)
    elif mode == "batch": producer.emit_batch([("a", b"x")])
    else: producer.emit("a", b"x")
def handler(*_):
    global signals, busy
    if not busy:
        busy = True
        signals += 1
        act()
        busy = False
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
end_s = time.monotonic() + 2
while time.monotonic() < end_s or signals < 100:
    producer.emit("main", b"y" * 50)
    act()
signal.setitimer(signal.ITIMER_REAL, 0)
total = producer.close(20).total
assert total.unsettled == 0 and total.accepted == total.acked + total.lost, total
"""
    run(program, collector.ws_url, mode, RACCOON_FAST_NO_EXTENSIONS=form)


def test_a_signal_handler_that_closes_at_any_moment(collector: Collector) -> None:
    program = """
import random, signal, sys
from raccoon_fast import RAW, ClientClosedError, Producer
random.seed(1)
signal.signal(signal.SIGALRM, lambda *_: producer.close(float(sys.argv[2])))
for life in range(80):
    producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=0.0005, on_delivery=lambda _: None)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.004))
    try:
        while True:
            receipt = producer.emit("a", b"x")
            if life % 4 == 1: producer.flush(10)
            elif life % 4 == 2: receipt.exception(10)
            elif life % 4 == 3: producer.stats(), producer.health()
    except ClientClosedError:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    producer.close(10)
    assert producer.report.total.unsettled == 0, producer.report.total
"""
    # The compiled form: in the pure one what an interrupted emit holds cannot be sent meanwhile, and waits for its end.
    run(program, collector.ws_url, 10.0, RACCOON_FAST_NO_EXTENSIONS="")


@FORMS
def test_the_first_event_may_be_a_finalizer_s_at_any_allocation(collector: Collector, form: str) -> None:
    """Each threshold has the garbage collector run at another step of the first emit."""
    program = """
import gc, sys
from raccoon_fast import RAW, Producer
class Finalized:
    def __init__(self): self.me = self
    def __del__(self):
        if producer is not None: producer.emit("finalizer", b"")
producer = None
for threshold in range(1, 60):
    gc.set_threshold(100_000)
    gc.collect()
    producer = Producer(sys.argv[1], serializer=RAW, logger=None, on_delivery=lambda _: None)
    for _ in range(3): Finalized()
    gc.set_threshold(threshold, 1, 1)
    producer.emit("first", b"")
    gc.set_threshold(100_000)
    gc.collect()
    total = producer.close(20).total
    assert total.unsettled == 0 and total.accepted >= 1, total
    producer = None
"""
    run(program, collector.ws_url, RACCOON_FAST_NO_EXTENSIONS=form)


def test_ctrl_c_during_the_first_event_is_keyboard_interrupt(collector: Collector) -> None:
    program = """
import random, signal, sys
from raccoon_fast import RAW, Producer
random.seed(2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupts = 0
for _ in range(60):
    producer = Producer(sys.argv[1], serializer=RAW, logger=None)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.002))
        for _ in range(3_000): producer.emit("a", b"x")
    except KeyboardInterrupt:
        interrupts += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    producer.emit("b", b"x")
    assert producer.flush(20) == 0
    assert producer.close(20).total.unsettled == 0
print(interrupts > 10)
"""
    # What is interrupted while it makes an event loop, or in a callback of a weak reference, says so on stderr.
    # The compiled form: in the pure one a Ctrl-C in the midst of an emit leaves counts that do not match.
    environment = {**os.environ, "RACCOON_FAST_NO_EXTENSIONS": ""}
    command = [sys.executable, "-c", program, collector.ws_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(50), env=environment)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
