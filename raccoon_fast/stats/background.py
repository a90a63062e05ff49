"""Sinks that collect samples in the calling thread, and process them in a background thread."""

from __future__ import annotations

import abc
import atexit
import threading
import weakref
from collections import Counter, deque
from typing import TYPE_CHECKING

from raccoon_fast import forks
from raccoon_fast.logs import DEFAULT, resolve_logger
from raccoon_fast.stats.ledger_totals import LedgerTotals
from raccoon_fast.threads import Event, Tally, new_lock, new_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from raccoon_fast.stats.ledger import Source
    from raccoon_fast.stats.ledger_totals import LedgerValues
    from raccoon_fast.threads import Thread

__all__ = ["BackgroundSink", "Writer"]

_MAX_SAMPLES = 65536  # samples per flush; limits the memory (about 10 MB) while a write hangs
_MOST_TYPES = 1000  # each is a series per counter, here and in the metrics database


class Writer(abc.ABC):
    """The part of a sink that is created, used and closed on its thread."""

    @abc.abstractmethod
    def write(self, timings: Sequence[tuple[str, float]], counts: Mapping[str, float]) -> None:
        """Sends the collected samples. If it raises, the error is logged once, and the samples are dropped.

        Args:
            timings: (name, milliseconds) pairs, in order.
            counts: The sum of each counter, by name.
        """

    @abc.abstractmethod
    def write_ledger(self, values: LedgerValues) -> None:
        """Sends the ledger of the producers. If it raises, the error is logged once; later values are still sent."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close; no further call is made."""


class BackgroundSink(abc.ABC):
    """A MetricsSink whose `timing` and `count` only append to a bounded deque: no lock, socket or DNS lookup.

    One daemon thread, started with the first sample and again in a forked child, sends the collected samples every
    `flush_interval`, with counters added up. At the same interval it reads the ledger of each producer that it
    watches. A forked child starts without the parent's samples and producers.

    Args:
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).
        by_type: The largest number of event types in the ledger; further types are "other". 0 does not split by type.

    Raises:
        TypeError, ValueError: An option is of the wrong type or out of range; the message names it.
    """

    def __init__(self, flush_interval: float, logger: object = DEFAULT, by_type: int = 0) -> None:
        if not isinstance(flush_interval, (int, float)):
            raise TypeError(f"flush_interval must be a number of seconds, not {flush_interval!r}")
        if not 0 < flush_interval < threading.TIMEOUT_MAX:
            raise ValueError(f"flush_interval must be above 0 and finite, not {flush_interval!r}")
        if not isinstance(by_type, int) or isinstance(by_type, bool):
            raise TypeError(f"by_type must be a number of event types, not {by_type!r}")
        if not 0 <= by_type <= _MOST_TYPES:
            raise ValueError(f"by_type must be from 0 to {_MOST_TYPES}, not {by_type}")
        self._by_type = by_type
        self._flush_interval_s = flush_interval
        self._log = resolve_logger(logger)
        self._closed = False
        self._thread: Thread | None
        self._reset()
        _open.add(self)

    @property
    def dropped(self) -> int:
        """The number of samples that were not sent, because there were too many per flush, or a flush failed."""
        return self._refused.value + self._dropped

    def timing(self, name: str, ms: float) -> None:
        """Records one duration in milliseconds. Never blocks."""
        self._add((name, ms, True))

    def count(self, name: str, n: int = 1) -> None:
        """Adds `n` to a counter. Never blocks."""
        self._add((name, n, False))

    def watch(self, source: Source) -> None:
        """Starts reading this producer's ledger. Never blocks."""
        if not self._closed:
            self._totals.watch(source)
            self._ensure_thread()

    def unwatch(self, source: Source) -> None:
        """Reads the ledger for the last time now, and sends it soon. Never blocks."""
        if not self._closed:
            self._totals.unwatch(source)
            self._wake.set()

    def close(self, timeout: float = 1.0) -> None:
        """Sends the collected samples, waiting at most `timeout` seconds. Later samples are ignored.

        Leaving a `with` block and the interpreter's exit call it too.
        """
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and not thread.is_current():
            thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name = type(self).__name__
        target = "" if self._target == name else f" to {self._target}"
        state = "closed" if self._closed else "open"
        return f"<{name}{target} {state}: {len(self._samples)} samples waiting, {self.dropped} dropped>"

    @property
    @abc.abstractmethod
    def _target(self) -> str:
        """The destination of samples, for the log."""

    @abc.abstractmethod
    def _new_writer(self) -> Writer: ...

    def _add(self, sample: tuple[str, float, bool]) -> None:
        if self._closed:
            return
        if len(self._samples) >= _MAX_SAMPLES:
            self._refused.add()
            return
        self._samples.append(sample)
        self._ensure_thread()

    def _ensure_thread(self) -> None:
        if self._thread is None and self._starting.acquire(blocking=False):
            self._start()

    def _start(self) -> None:
        thread = new_thread(self._run, "raccoon-fast-stats")
        try:
            thread.start()
        except RuntimeError:  # the system has no threads left, or the interpreter is shutting down
            self._starting.release()
            return
        self._thread = thread

    def _reset(self) -> None:
        """Starts afresh, also in a forked child, where the thread is gone and the parent sends its own samples."""
        self._samples: deque[tuple[str, float, bool]] = deque()
        self._refused = Tally()  # samples for which there was no room
        self._dropped = 0  # written by the sending thread
        self._failed = False
        self._thread = None
        self._starting = new_lock()
        self._wake = Event()
        self._totals = LedgerTotals(self._by_type)

    def _run(self) -> None:
        writer = self._new_writer()
        try:
            self._flush_ledger(writer)  # so that counters are exported before they grow
            is_last = False
            while not is_last:
                self._wake.wait(self._flush_interval_s)
                # A new event before the flag is read: setting the flag later wakes the next wait.
                self._wake = Event()
                is_last = self._closed
                self._flush(writer)
                self._flush_ledger(writer)
        finally:
            writer.close()

    def _flush_ledger(self, writer: Writer) -> None:
        if not self._totals.is_used:
            return
        try:
            writer.write_ledger(self._totals.read())
        except Exception as error:  # noqa: BLE001 - as in _flush
            self._tell(error)

    def _flush(self, writer: Writer) -> None:
        samples = self._samples
        batch = [samples.popleft() for _ in range(len(samples))]
        if not batch:
            return
        try:
            counts: Counter[str] = Counter()
            for name, value, is_timing in batch:
                if not is_timing:
                    counts[name] += value  # type: ignore[assignment]  # whole or not
            writer.write([(name, value) for name, value, is_timing in batch if is_timing], counts)
        except Exception as error:  # noqa: BLE001 - the numbers must not end the thread that hands on the next ones
            self._dropped += len(batch)
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._log.warning("%s: %s; further failures are not logged", self._target, error)


_open: weakref.WeakSet[BackgroundSink] = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    for sink in [*_open]:
        sink._reset()  # noqa: SLF001 - the hook is the class's own; it holds instances weakly


def _close_at_exit() -> None:
    for sink in list(_open):
        sink.close()


forks.in_child(_begin_anew_after_fork)
atexit.register(_close_at_exit)
