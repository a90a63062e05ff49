"""Thousands of kills, forks and signals: nothing promised is lost, and nothing hangs.

make torture KILLS=1000 FORKS=1000 SIGNALS=10000
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from patience import patient, wait_until
from trial import Server

from raccoon_fast import RAW, Producer
from raccoon_fast.collector import Collector

_HANG_S = patient(60.0)


def received(path: Path) -> Counter[bytes]:
    """How often each event was published, by its data."""
    with path.open() as lines:
        return Counter(base64.b64decode(json.loads(line)["data"]) for line in lines)


def reap(pid: int, what: str) -> int:
    """Wait for a child's end. Returns its exit code."""
    deadline_s = time.monotonic() + _HANG_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGABRT)
            raise AssertionError(f"{what} hangs")
        time.sleep(0.001)


def kills(count: int, scheme: str) -> str:
    """Kill a process with a durable spool at any moment: what it saw acknowledged is published, and the next process
    sends what it stored."""
    with tempfile.TemporaryDirectory() as directory:
        sink, acked, spool = (Path(directory, name) for name in ("events.jsonl", "acked", "spool"))
        acked.touch()
        server = Server(sink)
        server.start()
        url = server.url(scheme)
        try:
            for life in range(count):
                pid = os.fork()
                if pid == 0:
                    emit_until_killed(url, spool, acked, life)
                time.sleep(random.uniform(0.0, 0.3))
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            promised = {line for line in acked.read_bytes().split(b"\n") if line.endswith(b".")}
            pid = os.fork()
            if pid == 0:
                with Producer(url, serializer=RAW, logger=None, spool=spool, durable=True) as producer:
                    wait_until(lambda: not producer.stats().total.spooled, 30.0)
                    os._exit(0 if producer.flush(patient(30)) == 0 else 1)
            assert reap(pid, "the last process") == 0
            server.signal(signal.SIGTERM)
            assert server.process is not None
            server.process.wait(_HANG_S)
            got = received(sink)
            missing = promised - got.keys()
            assert not missing, f"{len(missing)} acknowledged events were not published"
        finally:
            server.end()
    return f"{count} kills: {len(promised)} events acknowledged, {len(got)} published, none of the acknowledged lost"


def emit_until_killed(url: str, spool: Path, acked: Path, life: int) -> None:
    file = os.open(acked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    producer = Producer(url, serializer=RAW, logger=None, spool=spool, durable=True, batch_events=5, linger=0.001)
    for number in range(10**9):
        data = b"%d-%d." % (life, number)
        producer.emit("kill", data).add_done_callback(
            lambda receipt, data=data: receipt.exception(0) is None and os.write(file, data + b"\n")
        )
        if number % 20 == 0:
            time.sleep(0.001)


def forks(count: int, scheme: str) -> str:
    """Fork under load: each child delivers events of its own, and the parent loses none."""
    with tempfile.TemporaryDirectory() as directory:
        sink = Path(directory, "events.jsonl")
        server = Server(sink)
        server.start()
        try:
            producer = Producer(server.url(scheme), serializer=RAW, logger=None, linger=0.001, batch_events=20)
            stopped, emitted = threading.Event(), 0

            def load() -> None:
                nonlocal emitted
                while not stopped.wait(0.0005):
                    producer.emit("parent", b"parent-%d" % emitted)
                    emitted += 1

            thread = threading.Thread(target=load)
            thread.start()
            for child in range(count):
                pid = os.fork()
                if pid == 0:
                    for number in range(3):
                        producer.emit("child", b"child-%d-%d" % (child, number))
                    os._exit(producer.flush(patient(20)) + (producer.stats().total.acked != 3))
                assert reap(pid, f"child {child}") == 0, f"child {child} did not deliver its events"
            stopped.set()
            thread.join()
            assert producer.flush(patient(30)) == 0
            total = producer.close(patient(10)).total
            assert total.acked == total.accepted == emitted, total
            server.signal(signal.SIGTERM)
            assert server.process is not None
            server.process.wait(_HANG_S)
            got = received(sink).keys()
            expected = {b"parent-%d" % number for number in range(emitted)}
            expected |= {b"child-%d-%d" % (child, number) for child in range(count) for number in range(3)}
            assert expected <= got, f"{len(expected - got)} events are missing"
        finally:
            server.end()
    return f"{count} forks: {emitted} events of the parent and {3 * count} of its children delivered"


def signals(count: int, scheme: str) -> str:
    """Use a producer in signal handlers, every 0.3 ms, whatever they interrupt."""
    with Collector(sink="null") as collector:
        url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
        producer = Producer(
            url,
            serializer=RAW,
            logger=None,
            overflow="drop_oldest",
            batch_bytes=4096,
            buffer_bytes=1 << 16,
            linger=0.0005,
        )
        acts = [
            lambda: producer.emit("handler", b"x"),
            lambda: producer.flush(0.001),
            producer.stats,
            producer.health,
            lambda: producer.emit_batch([("handler", b"x")]),
            lambda: producer.emit("handler", b"x").add_done_callback(lambda _: None),
        ]
        handled, is_busy = 0, False

        def handler(*_: object) -> None:
            nonlocal handled, is_busy
            if not is_busy:
                is_busy = True
                handled += 1
                random.choice(acts)()
                is_busy = False

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        while handled < count:
            producer.emit("main", b"y" * 50)
            random.choice(acts)()
        signal.signal(signal.SIGALRM, lambda *_: None)  # the last one may come late
        signal.setitimer(signal.ITIMER_REAL, 0)
        total = producer.close(patient(20)).total
        assert total.unsettled == 0, total
        assert total.accepted == total.acked + total.lost, total
        assert producer._accumulator.buffered == 0
    return f"{handled} signals: {total.accepted} events accepted, {total.acked} acknowledged, {total.lost} dropped"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--signals", type=int, default=10_000)
    parser.add_argument("--scheme", choices=("ws", "http", "grpc"), default="ws")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    random.seed(options.seed)
    for run, count in ((kills, options.kills), (forks, options.forks), (signals, options.signals)):
        if count:
            began_s = time.monotonic()
            print(f"{run(count, options.scheme)}; {time.monotonic() - began_s:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
