"""Signal handlers and finalizers use a producer at every step of the code they interrupt, without a deadlock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from patience import patient
from program import run

from raccoon_fast.collector import Collector

pytestmark = pytest.mark.slow

GEVENT = "from gevent import monkey; monkey.patch_all()"
BEFORE = pytest.mark.parametrize("before", ["", GEVENT], ids=["threads", "gevent"])
FORMS = pytest.mark.parametrize("form", ["", "1"], ids=["compiled", "pure"])


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(sink="null") as running:
        yield running


@FORMS
@BEFORE
@pytest.mark.parametrize("mode", ["emit", "stats", "flush", "acks", "callback", "result", "batch"])
def test_a_signal_handler_repeats_the_call_it_interrupts(
    collector: Collector, mode: str, before: str, form: str
) -> None:
    if before:
        pytest.importorskip("gevent")
        if mode in ("flush", "result"):
            pytest.skip("gevent lets no handler wait that interrupts its hub")
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
signal.signal(signal.SIGALRM, lambda *_: None)  # the last one may come late
signal.setitimer(signal.ITIMER_REAL, 0)
total = producer.close(20).total
assert total.unsettled == 0 and total.accepted == total.acked + total.lost, total
"""
    run(f"{before}\n{program}", collector.ws_url, mode, RACCOON_FAST_NO_EXTENSIONS=form)


@FORMS
def test_a_signal_handler_that_closes_at_any_moment(collector: Collector, form: str) -> None:
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
    run(program, collector.ws_url, 10.0, RACCOON_FAST_NO_EXTENSIONS=form)


@FORMS
@pytest.mark.parametrize("inner", ["close", "flush", "stats", "health"])
def test_each_of_these_in_a_handler_that_interrupts_each(collector: Collector, inner: str, form: str) -> None:
    program = """
import signal, sys, time
from raccoon_fast import RAW, ClientClosedError, Producer
url, inner = sys.argv[1:]
acts = {"close": lambda: producer.close(5), "flush": lambda: producer.flush(5), "stats": lambda: producer.stats(),
        "health": lambda: producer.health()}
signals, busy = 0, False
def handler(*_):
    global signals, busy
    if not busy:
        busy = True
        acts[inner]()
        signals += 1
        busy = False
signal.signal(signal.SIGALRM, handler)
for outer in acts:
    for life in range(10):
        producer = Producer(url, serializer=RAW, logger=None, linger=0.0005)
        receipts = []
        end_s = time.monotonic() + 0.05
        signal.setitimer(signal.ITIMER_REAL, 0.0003 * (life + 1), 0.0003)
        try:
            while time.monotonic() < end_s:
                receipts.append(producer.emit("a", b"x"))
                acts[outer]()
        except ClientClosedError:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        total = producer.close(10).total
        assert total.unsettled == 0 and total.accepted == total.acked + total.lost, (outer, inner, total)
        assert all(receipt.done() for receipt in receipts)
assert signals > 20, signals
"""
    run(program, collector.ws_url, inner, RACCOON_FAST_NO_EXTENSIONS=form)


@FORMS
def test_a_receipt_within_itself(collector: Collector, form: str) -> None:
    """A callback adds a callback, and a signal handler waits for the same receipt as the code it interrupts."""
    program = """
import signal, sys, threading
from raccoon_fast import RAW, Producer
inner = []
signal.signal(signal.SIGALRM, lambda *_: inner.append(receipt.result(20).status.name))
with Producer(sys.argv[1], serializer=RAW, logger=None, linger=0.003) as producer:
    for number in range(50):
        called = threading.Event()
        receipt = producer.emit("a", b"x")
        receipt.add_done_callback(lambda one: one.add_done_callback(lambda _: called.set()))
        signal.setitimer(signal.ITIMER_REAL, 0.0001 * (number % 30 + 1))
        assert receipt.result(20).status.name == "SUCCESS"
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert called.wait(20)
assert inner and {*inner} == {"SUCCESS"}, inner
"""
    run(program, collector.ws_url, RACCOON_FAST_NO_EXTENSIONS=form)


@FORMS
@BEFORE
@pytest.mark.parametrize("kind", ["finalizer", "weakref"])
def test_the_first_event_may_be_a_finalizer_s_at_any_allocation(
    collector: Collector, kind: str, before: str, form: str
) -> None:
    """Each threshold makes the garbage collector run at another step of the first emit."""
    if before:
        pytest.importorskip("gevent")
    program = """
import gc, sys, sysconfig, weakref
from raccoon_fast import RAW, Producer
producer, is_emitting, inside, references = None, False, 0, []
def emit(*_):
    global inside
    inside += is_emitting
    if producer is not None: producer.emit("finalizer", b"")
class Finalized:
    def __init__(self):
        self.me = self
        if sys.argv[2] == "weakref": references.append(weakref.ref(self, emit))
    def __del__(self):
        if sys.argv[2] == "finalizer": emit()
for threshold in range(1, 60):
    gc.set_threshold(100_000)
    gc.collect()
    producer = Producer(sys.argv[1], serializer=RAW, logger=None, on_delivery=lambda _: None)
    references.clear()
    for _ in range(3): Finalized()
    is_emitting = True
    gc.set_threshold(threshold, 1, 1)
    producer.emit("first", b"")
    gc.set_threshold(100_000)
    is_emitting = False
    gc.collect()
    total = producer.close(20).total
    assert total.unsettled == 0 and total.accepted >= 1, total
    producer = None
# A free-threaded Python counts 512 allocations before it looks at the threshold.
assert inside > 10 or sysconfig.get_config_var("Py_GIL_DISABLED"), inside
"""
    run(f"{before}\n{program}", collector.ws_url, kind, RACCOON_FAST_NO_EXTENSIONS=form)


@FORMS
def test_ctrl_c_during_the_first_event_is_keyboard_interrupt(collector: Collector, form: str) -> None:
    program = """
import random, signal, sys
from raccoon_fast import RAW, Producer
random.seed(2)
interrupts = 0
for _ in range(60):
    producer = Producer(sys.argv[1], serializer=RAW, logger=None)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.002))
        for _ in range(3_000): producer.emit("a", b"x")
        signal.signal(signal.SIGALRM, lambda *_: None)  # it may come late
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    producer.emit("b", b"x")
    assert producer.flush(20) == 0
    assert producer.close(20).total.unsettled == 0
print(interrupts > 10)
"""
    assert interrupted(program, collector, form) == "True\n"


@FORMS
@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_ctrl_c_at_any_moment_of_emit_leaves_counts_that_match(collector: Collector, form: str, overflow: str) -> None:
    program = """
import random, signal, sys, time
from raccoon_fast import RAW, Producer
random.seed(3)
signal.signal(signal.SIGALRM, signal.default_int_handler)
producer = Producer(sys.argv[1], serializer=RAW, logger=None, overflow=sys.argv[2], batch_bytes=600, buffer_bytes=3000,
                    linger=0.0005)
interrupts = returned = tried = 0
end_s = time.monotonic() + 3
while time.monotonic() < end_s or interrupts < 300:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.0005))
        while True:
            tried += 1
            producer.emit("type-%d" % (tried % 7), b"y" * 50)
            returned += 1
    except KeyboardInterrupt:
        interrupts += 1
        report = producer.stats()
        for one in (report.total, *report.by_type.values()):
            assert one.queued >= 0 and one.in_flight >= 0, report
signal.setitimer(signal.ITIMER_REAL, 0)
assert producer.flush(20) == 0
total = producer.close(20).total
assert producer._accumulator.buffered == 0, producer._accumulator.buffered
assert total.unsettled == 0 and total.accepted == total.acked + total.lost, total
# One that was interrupted may have been accepted, or counted as dropped, or not.
assert tried - interrupts <= total.accepted <= tried, (tried, interrupts, total)
print("end")
"""
    assert interrupted(program, collector, form, overflow) == "end\n"


def interrupted(program: str, collector: Collector, form: str, *arguments: str) -> str:
    """What a program prints that is interrupted; Python tells of some interrupts on stderr, in callbacks of weak
    references say."""
    environment = {**os.environ, "RACCOON_FAST_NO_EXTENSIONS": form}
    command = [sys.executable, "-c", program, collector.ws_url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(50), env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@FORMS
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_an_interrupt_before_any_line_of_emit_leaves_counts_that_match(
    collector: Collector, form: str, overflow: str
) -> None:
    """A trace function raises the interrupt before each line in turn."""
    program = """
import sys, threading
from raccoon_fast import RAW, Producer
class Interrupt:
    def __init__(self, at): self.left = at
    def __call__(self, frame, event, arg):
        if "raccoon_fast" not in frame.f_code.co_filename: return None
        if event in ("line", "call"):
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self
at, is_over = 1, False
while not is_over:
    producer = Producer(sys.argv[1], serializer=RAW, logger=None, overflow=sys.argv[2], batch_bytes=200,
                        buffer_bytes=500, batch_events=3, linger=100)
    producer.emit("first", b"")
    assert producer.flush(20) == 0
    held = threading.Event()
    producer._thread.loop.call_soon_threadsafe(held.wait, 20)
    sys.settrace(Interrupt(at))
    try:
        for number in range(14): producer.emit(f"type-{number % 3}", b"y" * 50)
        is_over = True
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    held.set()
    assert producer.flush(20) == 0
    accumulator, total = producer._accumulator, producer.stats().total
    state = at, accumulator.buffered, accumulator.accepted, accumulator.taken, total
    assert accumulator.buffered == 0 and accumulator.accepted == accumulator.taken, state
    assert total.accepted == total.acked + total.lost, state
    assert total.accepted == accumulator.accepted + total.dropped.get("drop_newest", 0), state
    producer.close(5)
    at += 13
assert at > 100, at
print("end")
"""
    assert interrupted(program, collector, form, overflow) == "end\n"
