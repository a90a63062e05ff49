"""Stress test: many threads use one producer while its server fails. Run: make crowd THREADS=64 SECONDS=600

Each round has a new producer. Its threads emit single events and many at once, flush, read statistics and so on, until
one of them closes the producer. Then every event must have exactly one outcome, the counts must match what the threads
were told, and each published event must equal an emitted one. Nothing here depends on a GIL.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from patience import patient

from raccoon_fast import RAW, ClientClosedError, Producer, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.collector.faults import Faults

SCHEMES = ("ws", "http", "grpc")
_TYPES = [f"type-{number}" for number in range(50)]


class Crowd:
    """One round of the stress test.

    Args:
        scheme: One of SCHEMES.
        threads: The number of threads.
        seconds: The time before one of the threads closes the producer.
        seed: The seed of the threads' random choices.
    """

    def __init__(self, scheme: str, threads: int, seconds: float, seed: str) -> None:
        self._seed = seed
        self._seconds = seconds
        self._collector = Collector().start()
        port = self._collector.grpc_port if scheme == "grpc" else self._collector.port
        rng = random.Random(seed)
        self._overflow = rng.choice(["block", "drop_newest", "drop_oldest"])
        self._producer = Producer(
            f"{scheme}://127.0.0.1:{port}",
            serializer=RAW,
            logger=None,
            wire="proto" if scheme == "grpc" else rng.choice(["proto", "json"]),
            linger=0.001,
            batch_events=rng.choice([7, 200]),
            batch_bytes=1 << 15,
            buffer_bytes=1 << 18,
            overflow=self._overflow,
            block_timeout=patient(20),
            timeout=1.0,
            retry=RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1),
        )
        self._stopped = threading.Event()
        self._troubles: list[str] = []
        # For each thread: how many events were certainly accepted, and how many may have been.
        self._sure, self._unsure = [0] * threads, [0] * threads
        self._threads = [threading.Thread(target=self._guarded, args=(self._take_part, one)) for one in range(threads)]
        self._failing = threading.Thread(target=self._guarded, args=(self._fail, 0))

    def run(self) -> int:
        """Returns the number of accepted events. Raises AssertionError if a check fails."""
        try:
            for thread in (*self._threads, self._failing):
                thread.start()
            time.sleep(self._seconds)
            self._stopped.set()
            self._failing.join()
            self._collector.faults.clear()
            total = self._producer.close(patient(30)).total
            for thread in self._threads:
                thread.join(patient(30))
            assert not [one for one in self._threads if one.is_alive()], "a thread hangs"
            assert not self._troubles, "\n".join(self._troubles)
            report = self._producer.stats()
            assert report.total == total, (report.total, total)
            assert total.unsettled == 0, total
            assert total.accepted == total.acked + total.lost, total
            assert sum(self._sure) <= total.accepted <= sum(self._sure) + sum(self._unsure), total
            assert self._overflow.startswith("drop") or total.lost == 0, total
            assert sum(one.accepted for one in report.by_type.values()) == total.accepted, report
            assert self._producer._accumulator.buffered == 0
            published = Counter((event.type, event.data) for event in self._collector.events)
            assert len(published) >= total.acked, (len(published), total)
            wrong = [one for one in published if not self._is_whole(*one)]
            assert not wrong, wrong[:3]
            return int(total.accepted)
        finally:
            self._stopped.set()
            self._producer.close(0)
            self._collector.close()

    def _guarded(self, act: Callable[[int], None], number: int) -> None:
        try:
            act(number)
        except BaseException as error:  # noqa: BLE001 - told at the end
            self._troubles.append(f"thread {number}: {error!r}")

    def _take_part(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        events = self._events(number, rng)
        acts = [self._one, self._one, self._some, self._iterated, self._flush, self._ask]
        with contextlib.suppress(ClientClosedError):
            while True:
                rng.choice(acts)(number, events, rng)

    def _events(self, number: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
        for count in itertools.count():
            kind = "view" if rng.random() < 0.7 else rng.choice(_TYPES)
            yield kind, b"%s %d %d %s" % (kind.encode(), number, count, b"x" * rng.randrange(200))

    def _is_whole(self, kind: str, data: bytes) -> bool:
        name, number, _, rest = data.split(b" ")
        return name == kind.encode() and 0 <= int(number) < len(self._threads) and not rest.strip(b"x")

    def _one(self, number: int, events: Iterator[tuple[str, bytes]], rng: random.Random) -> None:
        for kind, data in itertools.islice(events, rng.randrange(1, 30)):
            self._producer.emit(kind, data)
            self._sure[number] += 1

    def _some(self, number: int, events: Iterator[tuple[str, bytes]], rng: random.Random) -> None:
        self._at_once(number, [*itertools.islice(events, rng.randrange(1, 100))])

    def _iterated(self, number: int, events: Iterator[tuple[str, bytes]], rng: random.Random) -> None:
        some = [*itertools.islice(events, rng.randrange(1, 100))]
        self._at_once(number, some, iter)

    def _at_once(
        self, number: int, some: list[tuple[str, bytes]], as_given: Callable[[list[tuple[str, bytes]]], object] = list
    ) -> None:
        try:
            self._producer.emit_many(as_given(some))  # type: ignore[arg-type]  # an iterable, either way
        except ClientClosedError:
            self._unsure[number] += len(some)
            raise
        self._sure[number] += len(some)

    def _flush(self, number: int, events: object, rng: random.Random) -> None:
        self._producer.flush(rng.choice([0, 0.01, 0.1]))

    def _ask(self, number: int, events: object, rng: random.Random) -> None:
        total = self._producer.stats().total
        assert total.accepted == total.acked + total.lost + total.unsettled, total
        assert min(total.acked, total.queued, total.in_flight) >= 0, total
        self._producer.health()

    def _fail(self, _: int) -> None:
        rng = random.Random(f"{self._seed}/faults")
        faults = self._collector.faults
        may_fail: list[Callable[[Faults], object]] = [
            lambda faults: faults.drop_acks(2),
            lambda faults: faults.duplicate_acks(5),
            lambda faults: faults.hang_up(2),
            lambda faults: faults.delay(0.05, times=5),
            lambda faults: faults.status(503, times=5),
            lambda faults: faults.close_connections(),
            lambda faults: faults.clear(),
        ]
        while not self._stopped.wait(rng.uniform(0.05, 0.5)):
            rng.choice(may_fail)(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    print(f"seed {options.seed}, {'with' if has_gil() else 'without'} a GIL", flush=True)
    end_s = time.monotonic() + options.seconds
    rounds = accepted = 0
    while not rounds or time.monotonic() < end_s:
        scheme = SCHEMES[rounds % len(SCHEMES)]
        accepted += Crowd(scheme, options.threads, 5.0, f"{options.seed}/{rounds}").run()
        rounds += 1
    print(f"{rounds} rounds, {accepted} events accepted: all is well, {'with' if has_gil() else 'without'} a GIL")


if __name__ == "__main__":
    main()
