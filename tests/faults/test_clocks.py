"""The wall clock jumps, or the process is paused for a while."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patient
from program import finish, start

from raccoon_fast.collector import Collector

HOUR_S = 3600
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def urls_of(collector: Collector) -> list[str]:
    return [collector.ws_url, collector.url, f"grpc://{collector.grpc_target}"]


STALLED = """
import sys
from raccoon_fast import RAW, Producer
options = {"serializer": RAW, "logger": None, "timeout": 1.0, "linger": 0.001, "batch_events": 1}
producers = [Producer(url, **options) for url in sys.argv[1:]]
for producer in producers:
    assert producer.emit("before", b"x").result(10).status.name == "SUCCESS"
input()
for producer in producers:
    for number in range(8):
        producer.emit("in flight", b"x")
for producer in producers:
    assert producer.flush(20) == 0
    report = producer.close()
    print(report.total.acked, report.retries)
"""


def test_answers_that_came_while_the_process_stood_still_are_not_overdue(collector: Collector) -> None:
    process = start(STALLED, *urls_of(collector))
    collector.wait_for(3)
    collector.faults.delay(0.5)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    collector.wait_for(3 + 3 * 8)
    process.send_signal(signal.SIGSTOP)
    time.sleep(patient(1.5))  # longer than its timeout, and than the answers take
    process.send_signal(signal.SIGCONT)
    assert finish(process) == ["9 0"] * 3
    assert collector.request_count == 3 * 9


JUMPING = """
import sys, time
from raccoon_fast import RAW, Producer, RetryPolicy
options = {
    "serializer": RAW, "logger": None, "timeout": 2.0, "linger": 20.0, "batch_events": 5, "delivery_timeout": 20.0,
    "retry": RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1),
}
producers = [Producer(url, **options) for url in sys.argv[1:]]
for line in sys.stdin:
    for producer in producers:
        producer.emit_many((line.strip(), b"%d" % number) for number in range(20))
    print(time.time(), flush=True)
for producer in producers:
    assert producer.flush(20) == 0
    report = producer.close()
    print(report.total.acked, report.total.lost, report.retries)
"""


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (apt-get install faketime)")
def test_the_wall_clock_jumps(collector: Collector, tmp_path: Path) -> None:
    """Timers are not affected; the sent time follows the wall clock."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    process = start(
        JUMPING,
        *urls_of(collector),
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    jumps = {"as it is": 0, "ahead": HOUR_S, "back": -HOUR_S, "gone": 0, "gone, ahead": HOUR_S, "gone, back": -HOUR_S}
    for count, (name, jump_s) in enumerate(jumps.items(), 1):
        if name == "gone":
            collector.faults.refuse()
            collector.faults.close_connections()
        clock.write_text(f"{jump_s:+d}\n")
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        assert float(process.stdout.readline()) == pytest.approx(time.time() + jump_s, abs=60)
        if not name.startswith("gone"):
            collector.wait_for(count * 3 * 20)
    collector.faults.accept()
    said = finish(process)
    assert [line.split()[:2] for line in said] == [["120", "0"]] * 3
    for event in collector.events:
        # What could not be sent at once has the time of the attempt that succeeded.
        expected = jumps.values() if event.type.startswith("gone") else [jumps[event.type]]
        assert any(event.sent_time == pytest.approx(time.time() + jump_s, abs=60) for jump_s in expected)
    guids = [event.req_guid for event in collector.events]
    assert {guids.count(guid) for guid in guids} == {5}
