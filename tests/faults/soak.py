"""Soak test with random faults: make soak SECONDS=60 [SEED=N] [ROUND=N]

Each round has a producer with random options, a server behind a proxy, and a dozen steps: events, faults, waits. The
server is the collector in this process, or one in a separate process that is killed, stopped and restarted. After each
step the ledger must balance and memory must be within its limit. At the end of the round all faults are removed, and
everything must be delivered: see `judge`. Between rounds no thread and no descriptor may be left. The random choices
depend only on the seed and the round, so a round can be repeated; the timing of the threads cannot.
"""

from __future__ import annotations

import argparse
import base64
import collections
import itertools
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_proxy import DOWN, UP, FaultProxy
from patience import patient, wait_until
from trial import SCHEMES, Server

from raccoon_fast import RAW, BufferFull, EventsRejectedError, Producer, RetryPolicy
from raccoon_fast.collector import Collector

BUFFER = 1 << 18
_WARM_ROUNDS = 10


class Embedded:
    """The collector in this process, and what can go wrong with it."""

    def __init__(self, rng: random.Random) -> None:
        options = rng.choice([{}, {"acks": "sync"}, {"acks": "sync", "publish_delay": 0.01}, {"dedup": True}])
        self._collector = Collector(**options).start()
        self._rng = rng
        self.ports = {"grpc": self._collector.grpc_port, "ws": self._collector.port, "http": self._collector.port}
        faults, times = self._collector.faults, rng.randint(1, 20)
        self.faults: list[Callable[[], object]] = [
            lambda: faults.drop_acks(times),
            lambda: faults.duplicate_acks(times),
            lambda: faults.reorder_acks(times),
            lambda: faults.unknown_acks(times),
            lambda: faults.wrong_guid(times),
            lambda: faults.hang_up(times),
            lambda: faults.html_502(times),
            lambda: faults.bad_answer(rng.choice([b"", b"<html>", b"\xff\xff"]), times=times),
            lambda: faults.cut_answers(rng.randint(0, 60), times=times),
            lambda: faults.delay(rng.choice([0.01, 0.6]), times=times),
            lambda: faults.status(rng.choice([301, 401, 408, 429, 500, 503]), times=times),
            lambda: faults.status(503, times=1, retry_after=0.2),
            lambda: faults.early_error(times=times),
            lambda: faults.reject_events("bad"),
            lambda: faults.too_large(rng.choice([300, 3000])),
            faults.close_connections,
            faults.refuse,
            faults.accept,
            faults.clear,
        ]
        if "acks" in options:  # otherwise it acknowledges what it then fails to publish
            self.faults.append(lambda: faults.fail_publish(0.5, times=times))

    def heal(self) -> None:
        self._collector.faults.clear()

    def received(self) -> set[bytes]:
        return {event.data for event in self._collector.events}

    def close(self) -> None:
        self._collector.close()


class Separate:
    """`raccoon-fast collect` as a process that gets signals."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self._path = folder / "events.jsonl"
        self._server = Server(self._path, "--acks", "sync")
        self._server.start()
        self._stopped = False
        self.ports = {"grpc": self._server.grpc_port, "ws": self._server.port, "http": self._server.port}
        self.faults: list[Callable[[], object]] = [self._kill, self._terminate, self._stop, self.heal]

    def _kill(self) -> None:
        self._server.end()

    def _terminate(self) -> None:
        if self._server.process is not None and not self._stopped:
            self._server.signal(signal.SIGTERM)
            self._server.process.wait(patient(20))
            self._server.process = None

    def _stop(self) -> None:
        if self._server.process is not None:
            self._server.signal(signal.SIGSTOP)
            self._stopped = True

    def heal(self) -> None:
        if self._server.process is None:
            self._server.start()
        elif self._stopped:
            self._server.signal(signal.SIGCONT)
        self._stopped = False

    def received(self) -> set[bytes]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return {base64.b64decode(json.loads(line)["data"]) for line in lines}

    def close(self) -> None:
        self._server.end()


class Round:
    def __init__(self, rng: random.Random, folder: Path) -> None:
        self._rng = rng
        self.server = Separate(rng, folder) if rng.random() < 0.2 else Embedded(rng)
        schemes = rng.choice([*([scheme] for scheme in SCHEMES), ["grpc", "ws", "http"], ["ws", "ws"]])
        self._proxies = [FaultProxy(self.server.ports[scheme]).__enter__() for scheme in schemes]
        self._overflow = rng.choice(["block", "raise", "drop_newest", "drop_oldest", "spool"])
        has_spool = self._overflow == "spool" or rng.random() < 0.3
        options = {
            "linger": rng.choice([0.001, 0.02]),
            "batch_events": rng.choice([1, 10, 100]),
            "batch_bytes": rng.choice([2000, BUFFER // 4]),
            "max_in_flight": rng.choice([1, 2, 8]),
            "connections": rng.choice([1, 3]),
            "buffer_bytes": BUFFER,
            "overflow": self._overflow,
            "block_timeout": 0.1,
            "spool": folder / "spool" if has_spool else None,
            "durable": has_spool and rng.random() < 0.5,
            "timeout": rng.choice([0.2, 0.5]),
            "connect_timeout": 0.5,
            "retry": RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1),
            "serializer": RAW,
            "logger": None,
        }
        self.said = f"{'+'.join(schemes)} {type(self.server).__name__} " + " ".join(
            f"{name}={value}" for name, value in options.items() if name not in ("serializer", "logger", "retry")
        )
        urls = [f"{scheme}://127.0.0.1:{proxy.port}" for scheme, proxy in zip(schemes, self._proxies, strict=True)]
        self.producer = Producer(urls, **options)
        self.sent: dict[Any, list[bytes]] = {}
        self._lock = threading.Lock()
        self.accepted = 0
        self._numbers = itertools.count()  # not those of what was accepted: threads may be refused out of order
        self._settled = collections.Counter[Any]()

    def run(self) -> None:
        rng = self._rng
        self._emit(20)
        steps = [self._burst, self._burst, self._from_threads, self._wait, self._flush, *[self._fault] * 4, self._proxy]
        for _ in range(rng.randint(4, 14)):
            rng.choice(steps)()
            self._check()
        self._judge()

    def close(self) -> None:
        self.producer.close(timeout=0)
        for proxy in self._proxies:
            proxy.__exit__()
        self.server.close()

    # Steps

    def _emit(self, count: int, name: str = "page", size: int = 100) -> None:
        for _ in range(count):
            with self._lock:
                self.accepted += 1
                data = b"%d " % next(self._numbers) + bytes(size)
            try:
                receipt = self.producer.emit(name, data)
            except BufferFull:
                with self._lock:
                    self.accepted -= 1
                    if self._overflow not in ("block", "raise", "spool"):
                        raise
                return
            with self._lock:
                known = receipt in self.sent
                self.sent.setdefault(receipt, []).append(data)
            if not known:
                receipt.add_done_callback(lambda receipt: self._settled.update([receipt]))

    def _burst(self) -> None:
        rng = self._rng
        self._emit(rng.randint(1, 300), rng.choice(["page", "click", "bad"]), rng.choice([0, 100, 1500]))

    def _from_threads(self) -> None:
        threads = [threading.Thread(target=self._emit, args=(50, f"from {number}")) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _wait(self) -> None:
        time.sleep(self._rng.uniform(0, 0.5))

    def _flush(self) -> None:
        self.producer.flush(self._rng.choice([0, 0.2]))

    def _fault(self) -> None:
        self._rng.choice(self.server.faults)()

    def _proxy(self) -> None:
        rng = self._rng
        proxy = rng.choice(self._proxies)
        what = rng.randint(0, 6)
        if what == 0:
            proxy.cut()
        elif what == 1:
            proxy.refuse()
        elif what == 2:
            proxy.swallowed = {rng.choice([UP, DOWN])}
        elif what == 3:
            proxy.delay_s = rng.uniform(0, 0.05)
        elif what == 4:
            proxy.bytes_per_s = 1e6
        elif what == 5:
            proxy.cut_after = {rng.choice([UP, DOWN]): rng.randint(0, 20_000)}
        else:
            self._mend(proxy)

    def _mend(self, proxy: FaultProxy) -> None:
        proxy.heal()
        proxy.accept()

    # What must hold

    def _check(self) -> None:
        total = self.producer.stats().total
        parts = total.acked + total.lost + total.spooled + total.unsettled
        assert total.accepted == parts == self.accepted, total
        assert self.producer._accumulator.buffered <= BUFFER, self.producer._accumulator.buffered

    def _judge(self) -> None:
        """All is mended: every event has one outcome, what was acknowledged was received, and nothing is left."""
        self.server.heal()
        for proxy in self._proxies:
            self._mend(proxy)
        self._emit(1)  # makes progress
        wait_until(lambda: self.producer.stats().total.spooled == 0, 60)
        assert self.producer.flush(patient(60)) == 0, self.producer.stats()
        self._check()
        assert self.producer._accumulator.buffered == 0
        start_s = time.monotonic()
        total = self.producer.close(timeout=2.0).total
        assert time.monotonic() - start_s < patient(5.0)
        assert (total.unsettled, total.spooled) == (0, 0)
        dropped = sum(total.dropped.values())
        assert not dropped or self._overflow.startswith("drop")
        # Only what a server has refused for good may fail.
        assert set(total.failed) <= {"BAD_REQUEST", "too large"}, total
        assert total.expired == 0
        acked: set[bytes] = set()
        for receipt, sent in self.sent.items():
            assert receipt.done()
            error = receipt.exception(0)
            if error is None:
                acked.update(sent)
            elif isinstance(error, EventsRejectedError):
                rejected = {event.data for event in error.rejected}
                acked.update(data for data in sent if data not in rejected)
        assert len(acked) == total.acked, (len(acked), total)
        wait_until(lambda: acked <= self.server.received(), 20)
        wait_until(lambda: len(self._settled) == len(self.sent))
        assert set(self._settled.values()) == {1}


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settle(most_descriptors: int) -> int:
    """Wait until no thread of a producer and no new descriptor is left; returns how many descriptors there are."""
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("raccoon")])
    if most_descriptors:
        wait_until(lambda: descriptors() <= most_descriptors + 4)
    return descriptors()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--round", type=int, help="run this round of the seed alone")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    end_s = time.monotonic() + options.seconds
    first = options.round or 0
    rounds = events = most_descriptors = 0
    while not rounds or (options.round is None and time.monotonic() < end_s):
        number = first + rounds
        rng = random.Random(f"{options.seed}/{number}")
        with tempfile.TemporaryDirectory() as folder:
            trial = Round(rng, Path(folder))
            try:
                trial.run()
            except BaseException:
                print(f"failed: make soak SEED={options.seed} ROUND={number}: {trial.said}", flush=True)
                raise
            finally:
                trial.close()
        events += trial.accepted
        rounds += 1
        # What grpc, the loop and the tests keep for good is there after a few rounds.
        left = settle(most_descriptors if rounds > _WARM_ROUNDS else 0)
        if rounds <= _WARM_ROUNDS:
            most_descriptors = max(most_descriptors, left)
    print(f"{rounds} rounds, {events} events, {resident_bytes() >> 20} MiB resident: all is well")


if __name__ == "__main__":
    main()
