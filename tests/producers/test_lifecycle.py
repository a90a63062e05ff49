"""A producer in real processes: exit, signals, forks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from begun import Begun
from patience import patient, wait_until
from trial import Lines

from raccoon_fast import RAW, Producer, RetryPolicy, has_extensions
from raccoon_fast.collector import Collector
from raccoon_fast.delivery import loop_thread

SCHEMES = ("ws", "http", "grpc")
HEAD = """
import logging, os, signal, sys, threading, time
from raccoon_fast import RAW, Producer
url = sys.argv[1]
logging.basicConfig(level=logging.WARNING, format="LOG %(message)s")
producer = Producer(url, serializer=RAW, linger=60.0, delivery_timeout=60.0, logger=logging.getLogger())
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def url_of(collector: Collector, scheme: str) -> str:
    return {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]


def start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + program, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program: str, url: str) -> tuple[int, str, str]:
    process = start(program, url)
    out, err = process.communicate(timeout=patient(30))
    return process.returncode, out, err


def events(collector: Collector) -> Counter[tuple[str, bytes]]:
    return Counter((event.type, event.data) for event in collector.events)


class TestExit:
    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError('mine')"])
    def test_waiting_events_are_delivered(self, collector: Collector, scheme: str, end: str) -> None:
        code, _, err = run(f"for i in range(50): producer.emit('a', b'%d' % i)\n{end}", url_of(collector, scheme))
        assert events(collector) == {("a", b"%d" % number): 1 for number in range(50)}
        assert code == {"": 0, "sys.exit(3)": 3}.get(end, 1)
        assert ("ValueError: mine" in err) is end.startswith("raise")
        assert "LOG" not in err

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_exit_with_an_unresponsive_server_is_bounded_and_reported(self, collector: Collector, scheme: str) -> None:
        collector.faults.drop_acks()
        start_s = time.monotonic()
        code, _, err = run("producer.emit('a', b'x')", url_of(collector, scheme))
        assert time.monotonic() - start_s < patient(12)
        assert code == 0
        assert len(err.splitlines()) == 1
        assert "not acknowledged: 1 failed" in err

    def test_callbacks_run(self, collector: Collector) -> None:
        program = "producer.emit('a', b'x').add_done_callback(lambda it: print(it.result(0).status.name, flush=True))"
        assert run(program, collector.ws_url) == (0, "SUCCESS\n", "")

    def test_a_producer_nobody_references_still_delivers(self, collector: Collector) -> None:
        program = "import gc\nfor i in range(9): producer.emit('a', b'%d' % i)\ndel producer\ngc.collect()"
        assert run(program, collector.ws_url) == (0, "", "")
        assert collector.event_count == 9

    def test_a_producer_that_never_emitted_prints_nothing(self, collector: Collector) -> None:
        assert run("", collector.ws_url) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")
class TestSignals:
    def test_ctrl_c_in_a_blocked_emit(self, collector: Collector) -> None:
        collector.faults.drop_acks()
        program = """
producer = Producer(url, serializer=RAW, logger=None, batch_bytes=10_000, buffer_bytes=20_000, timeout=60)
try:
    producer.emit_many(("a", bytes(1000)) for _ in iter(int, 1))
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more may be on its way
    print(producer.close(timeout=0).total.accepted)
"""
        process = start(program, collector.ws_url)
        collector.wait_for(1)
        deadline_s = time.monotonic() + patient(20)
        while process.poll() is None and time.monotonic() < deadline_s:
            process.send_signal(signal.SIGINT)  # until it blocks
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        out, err = process.communicate(timeout=patient(10))
        assert (process.returncode, err) == (0, "")
        assert int(out) >= 1

    def test_sigterm_with_a_handler_that_exits_delivers_waiting_events(self, collector: Collector) -> None:
        program = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for i in range(50): producer.emit('a', b'%d' % i)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
        process = start(program, collector.ws_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, err = process.communicate(timeout=patient(20))
        assert (process.returncode, err, collector.event_count) == (0, "", 50)

    def test_uncaught_ctrl_c_delivers_waiting_events(self, collector: Collector) -> None:
        # Briefly, again and again: a signal just before time.sleep() is seen only after it.
        waits = "while True:\n    time.sleep(0.05)"
        process = start(f"producer.emit('a', b'x')\nprint('ready', flush=True)\n{waits}", collector.ws_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=patient(20))
        assert process.returncode == -signal.SIGINT
        assert err.splitlines()[-1] == "KeyboardInterrupt"
        assert collector.event_count == 1

    @pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGTERM)", "os._exit(1)"])
    def test_only_stored_events_survive_a_process_that_skips_exit(
        self, collector: Collector, tmp_path: Path, end: str
    ) -> None:
        collector.faults.refuse()
        emit = "for i in range(50): producer.emit('a', b'%d' % i)\n"
        begun_s = time.monotonic()
        assert run(emit + end, collector.ws_url)[0] != 0
        assert time.monotonic() - begun_s < patient(10)
        spool = tmp_path / "spool"
        program = f"""
import json, sqlite3
producer = Producer(url, serializer=RAW, linger=0.001, logger=None, spool={str(spool)!r}, durable=True)
{emit}
def stored():
    try:
        records = sqlite3.connect({str(spool)!r}).execute("SELECT types FROM records")
        return sum(json.loads(types)["a"] for types, in records)
    except sqlite3.OperationalError:
        return 0
while stored() < 50: time.sleep(0.01)
{end}
"""
        assert run(program, collector.ws_url)[0] != 0
        collector.faults.accept()
        with Producer(collector.ws_url, serializer=RAW, logger=None, spool=spool):
            collector.wait_for(50)
        assert events(collector) == {("a", b"%d" % number): 1 for number in range(50)}


FORK = """
for i in range(5): producer.emit('parent', b'%d' % i)
child = os.fork()
if child == 0:
    for i in range(3): producer.emit('child', b'%d' % i)
    report = producer.close()
    os._exit(0 if (report.total.accepted, report.total.acked) == (3, 3) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
report = producer.close()
assert (report.total.accepted, report.total.acked) == (BEFORE + 5, BEFORE + 5), report
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
class TestFork:
    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("is_used", [False, True])
    def test_each_sends_its_own_once(self, collector: Collector, scheme: str, is_used: bool) -> None:
        program = FORK.replace("BEFORE", str(int(is_used)))
        if is_used:
            program = "producer.emit('before', b'0')\nassert producer.flush() == 0\n" + program
        code, _, err = run(program, url_of(collector, scheme))
        assert (code, err) == (0, "")
        expected = {("parent", b"%d" % number): 1 for number in range(5)}
        expected |= {("child", b"%d" % number): 1 for number in range(3)}
        assert events(collector) == expected | ({("before", b"0"): 1} if is_used else {})

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_after_close(self, collector: Collector, scheme: str) -> None:
        program = """
producer.emit('parent', b'0')
producer.close()
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
        code, _, err = run(program, url_of(collector, scheme))
        assert (code, err) == (0, "")

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_while_other_threads_emit(self, collector: Collector, scheme: str) -> None:
        program = """
producer = Producer(url, serializer=RAW, linger=0.001, logger=logging.getLogger())
stop = threading.Event()
counts = [0] * 4
def pour(thread):
    while not stop.is_set():
        producer.emit('parent', b'%d-%d' % (thread, counts[thread]))
        counts[thread] += 1
        time.sleep(0.0002)  # the test is not about how much
threads = [threading.Thread(target=pour, args=(i,), daemon=True) for i in range(4)]
for thread in threads: thread.start()
for i in range(20):
    child = os.fork()
    if child == 0:
        producer.emit('child', b'%d' % i)
        os._exit(0 if producer.close(30).total.acked == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads: thread.join()
assert producer.close(timeout=20).total.acked == sum(counts)
print(sum(counts))
"""
        code, out, err = run(program, url_of(collector, scheme))
        assert (code, err) == (0, "")
        received = events(collector)
        assert set(received.values()) == {1}
        assert sum(count for (kind, _), count in received.items() if kind == "parent") == int(out)
        assert sum(count for (kind, _), count in received.items() if kind == "child") == 20

    @pytest.mark.skipif(not has_extensions(), reason="in the pure form such a lock is Python's own")
    def test_while_other_threads_wait_for_a_lock(self, collector: Collector) -> None:
        """Without a GIL, the lock then belongs to one of them, which the child does not have.

        Reading many types takes so long that CPython gives the lock directly to a thread that waits.
        """
        program = """
producer = Producer(url, serializer=RAW, linger=60.0, batch_events=100_000, logger=logging.getLogger())
for i in range(20_000): producer.emit('parent-%d' % i, b'x')
stop = threading.Event()
asked = [0] * 3
def ask(thread):
    while not stop.is_set():
        producer._accumulator.waiting_types()
        asked[thread] += 1
threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(3)]
for thread in threads: thread.start()
while not all(asked): time.sleep(0.001)
for i in range(10):
    child = os.fork()
    if child == 0:
        producer.emit('child', b'%d' % i)
        os._exit(0 if producer.close(30).total.acked == 1 else 1)
    deadline_s, ended = time.monotonic() + PATIENCE, 0
    while not ended and time.monotonic() < deadline_s:
        time.sleep(0.002)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.exit(f"child {i} hangs")
    assert status == 0, (i, status)
stop.set()
for thread in threads: thread.join()
os._exit(0)
"""
        code, _, err = run(program.replace("PATIENCE", str(patient(10))), collector.ws_url)
        assert (code, err) == (0, "")
        assert events(collector) == {("child", b"%d" % number): 1 for number in range(10)}

    def test_threads_that_emit_leave_the_producer_itself_alone(self, collector: Collector) -> None:
        """Without a GIL, a child could otherwise find it locked: the object that holds the changing ones."""
        with Producer(collector.ws_url, serializer=RAW, logger=None, batch_events=1) as producer:
            producer.emit("a", b"x").result(patient(10))
            before = dict(vars(producer))
            for size in (1, 10, 100_000):
                assert [producer.emit("a", bytes(size)) for _ in range(20)][-1].result(patient(10))
            assert producer.flush(patient(10)) == 0
            after = vars(producer)
            assert [name for name, value in before.items() if after[name] is not value] == []

    def test_multiprocessing(self, collector: Collector) -> None:
        program = """
import multiprocessing
def work(number):
    producer.emit('child', b'%d' % number)
    return producer.flush()
producer.emit('parent', b'x')
with multiprocessing.get_context('fork').Pool(3) as pool:
    assert sum(pool.map(work, range(30))) == 0
assert producer.close().total.acked == 1
"""
        code, _, err = run(program, collector.ws_url)
        assert (code, err) == (0, "")
        assert events(collector) == {("parent", b"x"): 1} | {("child", b"%d" % number): 1 for number in range(30)}

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_a_child_of_multiprocessing_delivers_waiting_events_when_it_ends(
        self, collector: Collector, tmp_path: Path, method: str
    ) -> None:
        program = f"""
import multiprocessing, sys
from raccoon_fast import RAW, Producer
producer = Producer(sys.argv[1], serializer=RAW, linger=60.0, logger=None)
def work(number):
    producer.emit("child", b"%d" % number)
if __name__ == "__main__":
    producer.emit("parent", b"x")
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
    sys.exit(sum(child.exitcode for child in children))
"""
        script = tmp_path / "program.py"
        script.write_text(program)
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script), collector.ws_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patient(40))
        assert (done.returncode, done.stderr) == (0, "")
        assert events(collector) == {("parent", b"x"): 1} | {("child", b"%d" % number): 1 for number in range(3)}


def test_nothing_is_left_over_many_lives(collector: Collector) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def live(scheme: str) -> None:
        with Producer(url_of(collector, scheme), serializer=RAW, logger=None, on_delivery=lambda it: None) as producer:
            producer.emit("a", b"x")

    begun = Begun()
    for scheme in SCHEMES:
        live(scheme)
        before = descriptors()
        for _ in range(10):
            live(scheme)
        # The collector closes its side of a connection when it has read the end of ours.
        deadline_s = time.monotonic() + patient(10)
        while descriptors() > before and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert descriptors() <= before, scheme
    assert begun.threads("raccoon_fast") == []


def test_memory_is_bounded_while_the_server_is_stopped(collector: Collector) -> None:
    collector.faults.drop_acks()
    program = """
producer = Producer(url, serializer=RAW, logger=None, overflow='drop_oldest', buffer_bytes=32 << 20, timeout=60)
def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096
producer.emit('a', b'x')
before = rss()
for size in (200, 20):
    batch = [('a', bytes(size))] * 1000
    for _ in range(2000): producer.emit_many(batch)
    print(rss() - before)
print(producer.stats().total.accepted)
producer.close(timeout=0)
"""
    code, out, err = run(program, collector.ws_url)
    assert (code, err) == (0, "")
    *grown, accepted = map(int, out.split())
    assert accepted == 4_000_001
    assert max(grown) < (32 << 20) + (32 << 20)


def test_a_flush_without_waiting_sends_events_though_the_loop_is_blocked(collector: Collector) -> None:
    gate = threading.Event()
    with Producer(collector.ws_url, serializer=RAW, logger=None, linger=60.0) as producer:
        producer.emit("a", b"first")
        assert producer.flush(patient(10)) == 0
        assert producer._thread is not None
        producer._thread.loop.call_soon_threadsafe(gate.wait, 20)
        receipt = producer.emit("a", b"second")
        assert producer.flush(0) == 1
        gate.set()
        receipt.result(timeout=patient(10))


def test_a_later_close_reports_what_became_of_events_that_the_first_did_not_wait_for(collector: Collector) -> None:
    gate = threading.Event()
    producer = Producer(collector.ws_url, serializer=RAW, logger=None, linger=60.0)
    producer.emit("a", b"first")
    assert producer.flush(patient(10)) == 0
    thread = producer._thread
    assert thread is not None
    thread.loop.call_soon_threadsafe(gate.wait, 20)
    producer.emit("a", b"second")
    assert producer.close(timeout=0).total.unsettled == 1
    gate.set()
    wait_until(lambda: thread.is_over)
    assert producer.close(timeout=0).total.failed == {"closed": 1}
    assert producer.report.total.unsettled == 0


@pytest.fixture
def garbage() -> Iterator[None]:
    """Is collected as soon as the test has ended, so that its warnings are not those of a later one."""
    yield
    gc.collect()


# Whatever lived on the loop is not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("state", ["queued", "in flight", "waiting", "spooled", "durable"])
def test_the_next_loop_delivers_events_of_a_dead_loop(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    log = Lines()
    options: dict[str, Any] = {"max_in_flight": 1, "batch_events": 5, "linger": 0.001, "timeout": 30.0}
    if state in ("queued", "in flight"):
        collector.faults.delay(60.0)
    elif state == "waiting":
        options |= {"retry": RetryPolicy(initial=20.0, maximum=30.0, max_attempts=100)}
        collector.faults.hang_up()
    else:
        options |= {"spool": tmp_path / "spool", "connect_timeout": 1.0}
        options |= (
            {"durable": True}
            if state == "durable"
            else {"overflow": "spool", "batch_bytes": 1000, "buffer_bytes": 4000}
        )
        options |= {"retry": RetryPolicy(initial=0.01, maximum=0.1, max_attempts=10_000)}
        collector.faults.refuse()
    producer = Producer(collector.ws_url, serializer=RAW, logger=log, **options)
    receipts = [producer.emit("a", b"%d" % number + bytes(50)) for number in range(100 if "spool" in options else 20)]
    total = producer.stats
    if state == "waiting":
        wait_until(lambda: producer._engine is not None and len(producer._engine._waiting) > 0)
    elif state == "spooled":
        wait_until(lambda: total().total.spooled > 20)
    elif state == "durable":
        wait_until(lambda: len(producer._engine._reserve._numbers) > 0 and not producer._engine._reserve.pending)  # type: ignore[union-attr]
    else:
        wait_until(lambda: collector.request_count > 0 and total().total.in_flight > 0)
    if state == "queued":
        assert total().total.queued > 0
    end_loop(producer, monkeypatch)
    collector.faults.clear()
    if "spool" in options:
        collector.faults.accept()
    assert not producer.health().ok
    assert any("the event loop had stopped" in line for line in log.lines)
    assert producer.flush(patient(20)) == 0
    wait_until(lambda: total().total.spooled == 0)
    assert producer.flush(patient(20)) == 0
    assert {receipt.result(patient(10)).status.name for receipt in receipts} == {"SUCCESS"}
    report = producer.close(patient(10)).total
    assert (report.accepted, report.acked) == (len(receipts), len(receipts)), report
    assert len({event.data for event in collector.events}) == len(receipts)
    assert producer._accumulator.buffered == 0
    if "spool" in options:  # nothing is left there
        with Producer(collector.ws_url, serializer=RAW, logger=None, spool=tmp_path / "spool") as after:
            wait_until(lambda: after._engine is not None)
            assert after.flush(patient(10)) == 0
            assert after.stats().total.accepted == 0


def end_loop(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = producer._thread
    assert thread is not None

    def fail() -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(loop_thread, "_MAX_FAILURES", 1)  # twenty in a row otherwise
        thread.loop.call_soon_threadsafe(fail)
        wait_until(lambda: thread.is_over)
