"""`raccoon-fast bench`: sends the load on time, and reports it."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pty
import re
import signal
import threading
import time
from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from patience import patient

from raccoon_fast import RAW, Ack, Code, Producer, Response, RetryPolicy, Status
from raccoon_fast.cli import main
from raccoon_fast.cli.bench import command as bench
from raccoon_fast.cli.bench import load
from raccoon_fast.cli.bench.load import run_step
from raccoon_fast.collector import Collector

NAMES = ["p50", "p90", "p99", "p99.9", "max"]


@pytest.fixture
def measure(capsys):
    """Runs it in this process; its exit code and steps."""

    def measure(*arguments):
        code = main(["bench", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)["steps"]

    return measure


@pytest.fixture
def before_the_step(monkeypatch):
    """Does something once the first event, which only makes the connection, is acknowledged."""

    def before_the_step(action):
        def run(*arguments, **options):
            action()
            return run_step(*arguments, **options)

        monkeypatch.setattr(bench, "run_step", run)

    return before_the_step


@pytest.fixture
def keeps_up(monkeypatch):
    """On a machine that is busy as well."""
    monkeypatch.setattr(load.Step, "kept_up", True)


class TestLoad:
    @pytest.mark.parametrize("protocol", ["rest", "websocket", "grpc"])
    def test_due_events_are_sent_and_acknowledged(self, measure, collector, protocol):
        urls = {"rest": collector.url, "websocket": collector.ws_url, "grpc": f"grpc://{collector.grpc_target}"}
        code, (step,) = measure(urls[protocol], "--rate", 500, "--seconds", 0.5, "--size", 50, "--type", "load")
        assert (code, step["rate"], step["due"], step["emitted"], step["acknowledged"]) == (0, 500.0, 250, 250, 250)
        assert step["failed"] == {}
        collector.wait_for(251)  # one was sent before
        assert {(event.type, event.data) for event in collector.events} == {("load", b"x" * 50)}
        assert list(step["latency_ms"]) == NAMES
        values = list(step["latency_ms"].values())
        assert values[0] > 0
        assert values == sorted(values)
        assert 0 < step["achieved"] <= 500
        assert step["seconds"] >= 0.5
        assert step["cpu_s"] > 0

    def test_a_payload_of_lines_over_and_over(self, measure, collector, tmp_path):
        path = tmp_path / "payload.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"n":1}\n\n{"n":2}\n{"n":3}'))
        code, _ = measure(collector.url, "--rate", 300, "--seconds", 0.1, "--payload", path)
        assert code == 0
        collector.wait_for(31)
        assert Counter(event.data for event in collector.events) == {b'{"n":1}': 11, b'{"n":2}': 10, b'{"n":3}': 10}

    def test_a_payload_as_a_whole(self, measure, collector, tmp_path):
        path = tmp_path / "message.bin"
        path.write_bytes(b"\x00\n\n\xff")
        assert measure(collector.url, "--rate", 100, "--seconds", 0.1, "--payload", path, "--whole")[0] == 0
        assert {event.data for event in collector.events} == {b"\x00\n\n\xff"}

    def test_options_of_the_producer(self, measure, collector):
        options = ["--batch-events", 5, "--linger", 10, "--wire", "json", "--user-id", "me", "--group", "us"]
        assert measure(collector.url, "--rate", 1000, "--seconds", 0.1, *options)[0] == 0
        sizes = Counter(event.req_guid for event in collector.events)
        assert set(sizes.values()) <= {1, 5}
        request = collector.requests[0]
        assert (request.connection_id, request.group) == ("me", "us")
        assert request.headers["content-type"] == "application/json"

    def test_a_ramp(self, measure, collector, keeps_up):
        code, steps = measure(collector.ws_url, "--ramp", "100:300:100", "--seconds", 0.3)
        assert code == 0
        assert [(step["rate"], step["due"]) for step in steps] == [(100, 30), (200, 60), (300, 90)]

    def test_a_ramp_ends_at_a_rate_that_cannot_be_reached(self, collector, capsys):
        collector.faults.delay(0.05)
        options = ["--in-flight", "1", "--batch-events", "10"]  # 200 a second, at best
        assert (
            main(["bench", collector.ws_url, "--ramp", "1000:9000:4000", "--seconds", "0.5", "--json", *options]) == 0
        )
        out, err = capsys.readouterr()
        (step,) = json.loads(out)["steps"]
        assert (step["acknowledged"], step["kept_up"]) == (500, False)
        assert step["achieved"] < 250
        assert err == ("raccoon-fast bench: could not keep up with 1,000 events/s: the ramp ends here\n")

    def test_events_due_during_a_stall_are_slow(self, measure, collector, before_the_step):
        """In a closed loop one request would be slow; here it is all that was due meanwhile."""
        before_the_step(lambda: collector.faults.delay(0.5, times=1))
        options = ["--in-flight", 1, "--batch-events", 100, "--linger", 0.002]
        _, (step,) = measure(collector.ws_url, "--rate", 1000, "--seconds", 1, *options)
        assert step["acknowledged"] == 1000
        assert step["latency_ms"]["max"] >= 500
        # Of those due within the stall, the middle one waits half of it, and one in five 400 ms.
        assert step["latency_ms"]["p90"] >= 300


class Clock:
    """Time that passes only in sleep, and in emits as long as they take."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


def test_latency_is_from_when_an_event_was_due_to_its_batch_s_acknowledgement():
    def ack(req_guid, status):
        return Ack(req_guid, Response(status, Code.OK), 30.0, 200.0 if status is Status.SUCCESS else 1.0)

    recorder = load._Recorder()
    recorder.emitted("g", 100.0, 99.5, 3)
    recorder.emitted("g", 100.0, 100.2, 1)
    recorder.emitted("h", 101.0, 101.0, 5)
    acks = [
        ack("g", Status.ERROR),
        ack("other", Status.SUCCESS),
        ack("g", Status.SUCCESS),
        ack("g", Status.SUCCESS),
        None,
    ]
    recorder.take(lambda timeout: acks.pop(0))
    assert recorder.latencies.percentile_s(0.25) == pytest.approx(0.03, rel=0.02)
    assert recorder.latencies.percentile_s(0.5) == pytest.approx(0.73, rel=0.02)
    assert recorder.latencies.max_s == pytest.approx(0.73)
    assert (recorder.first_s, recorder.last_s) == (pytest.approx(100.23), pytest.approx(100.23))
    assert recorder.waits


class TestTicks:
    """The schedule, on a clock of the test's."""

    @pytest.fixture
    def clock(self, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(load, "time", clock)
        return clock

    def emit(self, clock, rate, seconds, *, emit_s=0.0, is_stopped=lambda: False):
        """Emits all there is; when each event was due, by the recorder, and what `_emit` returned."""
        receipt = SimpleNamespace(req_guid="g")
        noted = []
        numbers = itertools.count()

        def emit(event_type, data):
            clock.now_s += emit_s.get(next(numbers), 0.0) if isinstance(emit_s, dict) else emit_s
            return receipt

        recorder = SimpleNamespace(
            take=lambda get: None,
            emitted=lambda guid, opened_s, due_s, count: noted.append((round(due_s - 100.0, 9), count)),
        )
        result = load._emit(SimpleNamespace(emit=emit), [("t", b"")], rate, seconds, recorder, None, is_stopped)
        return noted, result

    def test_low_rates_are_due_one_by_one(self, clock):
        noted, result = self.emit(clock, 4, 1.0)
        assert noted == [(0.0, 1), (0.25, 1), (0.5, 1), (0.75, 1)]
        assert result == (4, 4, 0)

    def test_high_rates_are_due_at_the_beginning_of_each_millisecond(self, clock):
        noted, result = self.emit(clock, 2500, 0.004)
        assert noted == [(0.0, 2), (0.001, 3), (0.002, 3), (0.003, 2)]
        assert result == (10, 10, 0)

    def test_a_late_tick_counts_events_from_their_due_time(self, clock):
        noted, _ = self.emit(clock, 1000, 0.004, emit_s=0.00125)
        assert noted == [(0.0, 1), (0.001, 1), (0.002, 1), (0.003, 1)]
        assert clock.now_s == pytest.approx(100.0 + 4 * 0.00125)

    def test_a_machine_that_does_not_make_so_many_is_given_up_a_second_after_the_end(self, clock):
        noted, (due, emitted, overflown) = self.emit(clock, 1000, 1.0, emit_s=0.011)
        assert (due, overflown) == (1000, 0)
        assert emitted == sum(count for _, count in noted) == 182  # 11 ms each, in 2 s
        assert clock.now_s == pytest.approx(102.0, abs=0.011)

    def test_after_a_pause_all_that_was_due_is_emitted(self, clock):
        pauses_s = {100: 30.0, 700: 5.0}
        noted, result = self.emit(clock, 1000, 1.0, emit_s=pauses_s)
        assert result == (1000, 1000, 0)
        assert noted == [(pytest.approx(number / 1000), 1) for number in range(1000)]  # from when they were due

    def test_once_stopped_nothing_more_is_due(self, clock):
        _, result = self.emit(clock, 1000, 10.0, is_stopped=lambda: clock.now_s > 100.0495)
        assert result == (50, 50, 0)


class TestFailures:
    def test_no_server_listens(self, command, unused_port):
        run = command("bench", f"ws://127.0.0.1:{unused_port}")
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith(f"raccoon-fast bench: cannot connect to ws://127.0.0.1:{unused_port}")
        assert run.stderr.count("\n") == 1

    def test_events_that_fail_are_counted_and_not_tried_again(self, capsys, before_the_step):
        with Collector(acks="sync") as collector:
            before_the_step(collector.faults.fail_publish)
            code = main(["bench", collector.ws_url, "--rate", "200", "--seconds", "0.5"])
            requests = Counter(request.req_guid for request in collector.requests)
        out, err = capsys.readouterr()
        assert code == 1
        # After three in a row the producer only asks now and then whether publishing works.
        failed = dict(re.findall(r"at 200 events/s, (\d+) events failed: (\w+)\n", err))
        assert sum(map(int, failed)) == 100
        assert set(failed.values()) == {"INTERNAL_ERROR", "unacknowledged"}
        assert set(requests.values()) == {1}
        assert out.splitlines()[0].split()[:3] == ["events/s", "achieved", "acked"]

    def test_events_not_acknowledged_in_time(self, collector):
        with Producer(
            collector.ws_url, serializer=RAW, overflow="raise", logger=None, retry=RetryPolicy(max_attempts=1)
        ) as producer:
            collector.faults.drop_acks()
            step = run_step(producer, [("t", b"x")], 100, 0.2, drain_s=0.1, is_stopped=lambda: False)
            producer.close(timeout=0)
        assert (step.due, step.emitted, step.acknowledged, step.failed) == (20, 20, 0, {"unacknowledged": 20})
        assert not step.kept_up
        assert step.latencies.max_s == 0.0

    def test_events_the_producer_has_no_room_for(self, collector):
        with Producer(
            collector.ws_url, serializer=RAW, overflow="raise", logger=None, batch_bytes=1000, buffer_bytes=2000
        ) as producer:
            collector.faults.drop_acks()
            step = run_step(producer, [("t", b"x" * 100)], 1000, 0.1, drain_s=0.1, is_stopped=lambda: False)
            producer.close(timeout=0)
        assert step.due == 100
        assert step.emitted <= 2000 // 100
        assert 0 < step.failed["overflow"] <= 100 - step.emitted

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted(self, collector, capsys, number, code):
        def interrupt():
            collector.wait_for(20)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert main(["bench", collector.url, "--rate", "200", "--seconds", "60", "--json"]) == code
        thread.join()
        (step,) = json.loads(capsys.readouterr().out)["steps"]
        assert 19 <= step["acknowledged"] == step["due"] < 12_000


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal")
def test_a_pause_of_the_benchmark_itself_counts_as_latency(command, collector):
    process = command.start("bench", collector.ws_url, "--rate", 200, "--seconds", 2, "--json")
    collector.wait_for(50)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # the pause that is measured
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (0, b"")
    (step,) = json.loads(out)["steps"]
    assert (step["due"], step["emitted"], step["acknowledged"]) == (400, 400, 400)
    assert step["latency_ms"]["max"] > 1400
    assert step["latency_ms"]["p90"] > 500  # 300 of the 400 events were due in the pause
    assert step["latency_ms"]["p50"] > 0


def test_events_this_machine_could_not_emit_are_failures(collector, capsys, monkeypatch):
    monkeypatch.setattr(load, "_MOST_LATE_S", -0.02)
    # 60 ns for each event, which a loop in Python does not reach.
    assert main(["bench", collector.ws_url, "--rate", "10000000", "--seconds", "0.05"]) == 1
    err = capsys.readouterr().err
    assert re.search(r"at 10,000,000 events/s, this machine emitted only [\d,]+ of 500,000 events\n", err)


class TestConsent:
    ELSEWHERE = "http://192.0.2.1:8080"  # for documentation (RFC 5737)

    def test_a_remote_server_needs_consent(self, command):
        run = command("bench", self.ELSEWHERE, "--rate", 5000, "--seconds", 2)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == (
            f"raccoon-fast bench: Send up to 5,000 events/s, for 2 s, to {self.ELSEWHERE}? This puts load on that "
            "server. There is no terminal to ask on: pass --yes\n"
        )

    def test_answering_no_sends_nothing(self, command):
        ours, theirs = pty.openpty()
        process = command.start("bench", self.ELSEWHERE, stdin=theirs)
        os.close(theirs)
        os.write(ours, b"n\n")
        out, _ = process.communicate(timeout=patient(40))
        os.close(ours)
        assert (process.returncode, out) == (1, b"nothing was sent\n")

    @pytest.mark.parametrize("answer", ["yes", "--yes"])
    def test_answering_yes_sends(self, collector, monkeypatch, answer):
        asked = []
        monkeypatch.setattr(bench, "_is_loopback", lambda url: False)
        monkeypatch.setattr(bench, "confirm", lambda question: not asked.append(question))
        options = ["--yes"] if answer == "--yes" else []
        assert main(["bench", collector.url, "--rate", "100", "--seconds", "0.1", *options]) == 0
        assert len(asked) == (answer == "yes")

    @pytest.mark.parametrize(
        ("url", "is_loopback"),
        [
            ("http://127.0.0.1", True),
            ("ws://127.8.9.10:1", True),
            ("grpc://[::1]:8081", True),
            ("http://localhost", True),
            ("http://192.0.2.1", False),
            ("http://0.0.0.0", False),
            ("http://no-such-host.invalid", False),
        ],
    )
    def test_loopback_addresses(self, url, is_loopback):
        assert bench._is_loopback(url) is is_loopback


class TestReport:
    def test_table_and_picture(self, capsys, collector, tmp_path, keeps_up):
        svg = tmp_path / "load.svg"
        assert main(["bench", collector.ws_url, "--ramp", "100:200:100", "--seconds", "0.2", "--svg", str(svg)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        header, first, second, blank, *picture = out.splitlines()
        assert header.split() == [
            "events/s",
            "achieved",
            "acked",
            *" ms ".join([*NAMES, ""]).split(),
            "CPU",
            "µs/event",
        ]
        assert (first.split()[0], first.split()[2], second.split()[2], blank) == ("100", "20", "40", "")
        assert "█ p50 to p90" in picture[-1]
        texts = {text.text for text in ElementTree.fromstring(svg.read_bytes()).iter() if text.text}
        assert f"raccoon-fast bench {collector.ws_url}" in texts

    def test_in_colours_on_a_terminal(self, command, collector):
        ours, theirs = pty.openpty()
        process = command.start(
            "bench", collector.ws_url, "--rate", "100", "--seconds", "0.2", stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert process.wait(patient(40)) == 0
        assert "█".encode() in seen
        assert b"\x1b[" in seen.split(b"p50 to p90")[0].rsplit(b"\n", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "0"], "--rate: must be a number per second, above 0"),
        (["--rate", "1e12"], "up to 10000000"),
        (["--ramp", "100"], "--ramp: must be FROM:TO:STEP, such as 1000:10000:1000, not '100'"),
        (["--ramp", "5:1:1"], "--ramp: must go up"),
        (["--ramp", "1:1000:1"], "at most 100 steps"),
        (["--ramp", "1:2:1", "--rate", "5"], "not allowed with argument"),
        (["--payload", "none"], "--payload: no such file: none"),
        (["--payload", "empty"], "empty holds no line: there is nothing to send"),
        (["--payload", "empty", "--whole"], "empty is empty: there is nothing to send"),
        (["--whole"], "--whole is for --payload FILE"),
        (["--size", "0"], "--size: must be a whole number"),
        (["--seconds", "-1"], "--seconds"),
    ],
)
def test_wrong_usage(command, tmp_path, unused_port, arguments, words):
    (tmp_path / "empty").write_text("\n\n" if "--whole" not in arguments else "")
    run = command("bench", f"http://127.0.0.1:{unused_port}", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1
