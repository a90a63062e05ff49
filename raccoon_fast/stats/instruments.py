"""Sinks that keep samples in this process, in the instruments of a metrics library."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from raccoon_fast import forks
from raccoon_fast.stats.background import BackgroundSink, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from raccoon_fast.stats.ledger_totals import LedgerValues

__all__ = ["InstrumentSink"]

# Held while a library works, and over a fork: a child could never get a library lock that our thread held
# then.
_working = threading.Lock()


def _after_fork_in_child() -> None:
    global _working
    _working = threading.Lock()


forks.in_child(_after_fork_in_child)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _working.acquire(), after_in_parent=lambda: _working.release())


class InstrumentSink(BackgroundSink):
    """Passes samples to instruments; unknown names are ignored.

    Args:
        timings: Functions that take milliseconds, by metric name.
        counters: Functions that take a number to add, by metric name.
        write_ledger: A function that takes the ledger, on the sink's thread.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).
        by_type: See BackgroundSink.
    """

    def __init__(
        self,
        timings: Mapping[str, Callable[[float], object]],
        counters: Mapping[str, Callable[[float], object]],
        write_ledger: Callable[[LedgerValues], object],
        flush_interval: float,
        logger: object,
        by_type: int = 0,
    ) -> None:
        self._timings = timings
        self._counters = counters
        self._write_ledger = write_ledger
        super().__init__(flush_interval, logger, by_type)

    @property
    def _target(self) -> str:
        return type(self).__name__

    def _new_writer(self) -> Writer:
        return _Instruments(self._timings, self._counters, self._write_ledger)


class _Instruments(Writer):
    def __init__(
        self,
        timings: Mapping[str, Callable[[float], object]],
        counters: Mapping[str, Callable[[float], object]],
        write_ledger: Callable[[LedgerValues], object],
    ) -> None:
        self._timings = timings
        self._counters = counters
        self._write_ledger = write_ledger

    def write(self, timings: Sequence[tuple[str, float]], counts: Mapping[str, float]) -> None:
        with _working:
            for name, ms in timings:
                if name in self._timings:
                    self._timings[name](ms)
            for name, n in counts.items():
                if name in self._counters:
                    self._counters[name](n)

    def write_ledger(self, values: LedgerValues) -> None:
        with _working:
            self._write_ledger(values)
