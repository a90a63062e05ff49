"""How everything here is measured.

Each case runs in several fresh interpreters, so that no case has the heap, the caches or the luck of another; the
interpreters take turns, so that a machine that slows down slows all cases down. In each, a case is warmed up and then
timed in rounds. What is reported is the median of all rounds and their quartiles. CPU time holds on a machine that is
busy with other things, wall time does not.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

CONTEXT = multiprocessing.get_context("spawn")
PURE = {"RACCOON_FAST_NO_EXTENSIONS": "1"}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        processes: Fresh interpreters for each case.
        rounds: Timed rounds in each.
        round_s: Seconds a round takes at least.
        share: The part of the events, or seconds, of a full run.
        is_quick: Only the first of several workloads: to see that all of it works.
    """

    processes: int = 3
    rounds: int = 5
    round_s: float = 0.004
    share: float = 1.0
    is_quick: bool = False

    def some(self, workloads: Sequence[_T]) -> Sequence[_T]:
        """The workloads to measure."""
        return workloads[:1] if self.is_quick else workloads

    def count(self, full: int) -> int:
        """Events, or requests, in place of `full`."""
        return max(1, int(full * self.share))


QUICK = Effort(processes=1, rounds=1, round_s=0.0, share=0.002, is_quick=True)


class Timing(NamedTuple):
    """What one round cost, an event."""

    cpu_ns: float
    wall_ns: float


class Stopwatch:
    """CPU of the whole process, or of another one, and wall time, since it was made."""

    def __init__(self, cpu_ns: Callable[[], int] = time.process_time_ns) -> None:
        self._now_ns = cpu_ns
        self._wall_ns, self._cpu_ns = time.perf_counter_ns(), cpu_ns()

    def per(self, events: int) -> Timing:
        """What it has been, an event."""
        cpu_ns = self._now_ns() - self._cpu_ns
        return Timing(cpu_ns / events, (time.perf_counter_ns() - self._wall_ns) / events)


class Spread(NamedTuple):
    """Median and quartiles of `samples` values."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        if len(ordered) == 1:
            return cls(ordered[0], ordered[0], ordered[0], 1)
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
        return cls(median, low, high, len(ordered))


@dataclass
class Table:
    """Results that are looked at side by side.

    Attributes:
        title: What was measured, and on what.
        unit: Of each value.
        rows: What a row is.
        base: The row the others are compared with; "" where that makes no sense.
        is_detail: Not for the first look.
        cells: By row, then by column.
    """

    title: str
    unit: str
    rows: str
    base: str = ""
    is_detail: bool = False
    cells: dict[str, dict[str, Spread]] = field(default_factory=dict)

    def add(self, row: str, column: str, values: Iterable[float]) -> None:
        self.cells.setdefault(row, {})[column] = Spread.of(values)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))


class Clocks:
    """A table of CPU time, and one of wall time, of the same rounds."""

    def __init__(self, title: str, rows: str, base: str, cpu: str = "ns of CPU an event") -> None:
        self.cpu = Table(title, cpu, rows, base)
        self.wall = Table(title, cpu.replace("of CPU", "of wall time"), rows, base, is_detail=True)

    def add(self, row: str, column: str, timings: Sequence[Timing]) -> None:
        self.cpu.add(row, column, [timing.cpu_ns for timing in timings])
        self.wall.add(row, column, [timing.wall_ns for timing in timings])


class LeftOut:
    """Peers that are not installed: a run without them says so."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def find(self, package: str, *modules: str) -> bool:
        """Whether the modules of a package are there; that they are not is noted."""
        if all(optional(module) is not None for module in modules):
            return True
        note = f"{package} is not installed: it is left out."
        if note not in self.notes:
            self.notes.append(note)
        return False


def optional(module: str) -> ModuleType | None:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def fresh(function: Callable[..., _T], *args: Any, env: Mapping[str, str] | None = None) -> _T:
    """Call a module's function in a fresh interpreter, and return what it returns.

    Raises:
        RuntimeError: It raised, or the interpreter died.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_answer, args=(theirs, function, args))
    with _environment(env or {}):
        process.start()
    theirs.close()
    try:
        is_well, result = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__}{args} died with exit code {process.exitcode}") from None
    process.join()
    if not is_well:
        raise RuntimeError(f"{function.__name__} failed in its process:\n{result}")
    return result


def in_turns(effort: Effort, measures: Mapping[str, Callable[[], Sequence[_T]]]) -> dict[str, list[_T]]:
    """Call each measure once for each process of the effort, by turns, and gather what they return."""
    gathered: dict[str, list[_T]] = {name: [] for name in measures}
    for _ in range(effort.processes):
        for name, measure in measures.items():
            gathered[name] += measure()
    return gathered


def time_cases(
    make_cases: Callable[..., Mapping[str, Callable[[], object]]], args: Sequence[Any], events: int, effort: Effort
) -> dict[str, list[Timing]]:
    """Time small cases, in fresh interpreters that run all of them in turns.

    Args:
        make_cases: A module's function; returns the cases by name, each checked to do what it says.
        args: Its arguments.
        events: How many events a call of a case handles.
        effort: How much.
    """
    gathered: dict[str, list[Timing]] = {}
    for _ in range(effort.processes):
        for name, timings in fresh(_time_cases, make_cases, args, events, effort).items():
            gathered.setdefault(name, []).extend(timings)
    return gathered


def _time_cases(
    make_cases: Callable[..., Mapping[str, Callable[[], object]]], args: Sequence[Any], events: int, effort: Effort
) -> dict[str, list[Timing]]:
    cases = make_cases(*args)
    calls = {name: _warm_up(case, effort.round_s) for name, case in cases.items()}
    timings: dict[str, list[Timing]] = {name: [] for name in cases}
    for _ in range(effort.rounds):
        for name, case in cases.items():
            cpu_ns, wall_ns = _time(case, calls[name])
            timings[name].append(Timing(cpu_ns / calls[name] / events, wall_ns / calls[name] / events))
    return timings


def _warm_up(case: Callable[[], object], round_s: float) -> int:
    """How many calls a round has, found by making them."""
    calls = 1
    while True:
        _, wall_ns = _time(case, calls)
        if wall_ns >= round_s * 1e9:
            return calls
        calls = max(calls * 2, int(calls * round_s * 1e9 / max(wall_ns, 1)))


def _time(case: Callable[[], object], calls: int) -> tuple[int, int]:
    wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(calls):
        case()
    return time.thread_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns


def _answer(pipe: Any, function: Callable[..., object], args: Sequence[Any]) -> None:
    try:
        answer = (True, function(*args))
    except BaseException:  # noqa: BLE001 - told to the parent, which raises
        answer = (False, traceback.format_exc())
    pipe.send(answer)
    pipe.close()


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
