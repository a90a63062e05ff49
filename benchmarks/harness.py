"""Measures the cases of the benchmarks.

Each case runs in several fresh interpreters, so that cases do not share a heap or caches. The interpreters of all cases
alternate, so that a slow phase of the machine affects all cases. Each interpreter warms its case up and then times it
in rounds. The result is the median of all rounds with the quartiles. On a busy machine CPU time remains valid; wall
time does not.
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
    """The amount of measuring.

    Attributes:
        processes: Fresh interpreters per case.
        rounds: Timed rounds per interpreter.
        round_s: The minimum duration of a round, in seconds.
        share: The part of a full run's events or seconds.
        is_quick: Whether to run only the first of several workloads, as a check that everything works.
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
        """The number of events or requests that replaces `full`."""
        return max(1, int(full * self.share))


QUICK = Effort(processes=1, rounds=1, round_s=0.0, share=0.002, is_quick=True)


class Timing(NamedTuple):
    """The cost of one round, per event."""

    cpu_ns: float
    wall_ns: float


class Stopwatch:
    """CPU time of this process or another one, and wall time, since the stopwatch was created."""

    def __init__(self, cpu_ns: Callable[[], int] = time.process_time_ns) -> None:
        self._now_ns = cpu_ns
        self._wall_ns, self._cpu_ns = time.perf_counter_ns(), cpu_ns()

    def per(self, events: int) -> Timing:
        """The times so far, per event."""
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
    """Results that belong side by side.

    Attributes:
        title: What was measured.
        unit: The unit of each value.
        rows: The kind of a row.
        base: The row that other rows are compared with; "" for none.
        is_detail: Whether the table is left out of the overview.
        cells: The values by row, then by column.
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
    """A table of CPU time and a table of wall time of the same rounds."""

    def __init__(self, title: str, rows: str, base: str, cpu: str = "ns of CPU per event") -> None:
        self.cpu = Table(title, cpu, rows, base)
        self.wall = Table(title, cpu.replace("of CPU", "of wall time"), rows, base, is_detail=True)

    def add(self, row: str, column: str, timings: Sequence[Timing]) -> None:
        self.cpu.add(row, column, [timing.cpu_ns for timing in timings])
        self.wall.add(row, column, [timing.wall_ns for timing in timings])


class LeftOut:
    """Collects the libraries that are not installed, so that a run can list them."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def find(self, package: str, *modules: str) -> bool:
        """Whether the modules of a package are installed; notes the package if they are missing."""
        if all(optional(module) is not None for module in modules):
            return True
        note = f"{package} is not installed: it is left out."
        if note not in self.notes:
            self.notes.append(note)
        return False


def optional(module: str) -> ModuleType | None:
    """The module, or None if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def fresh(function: Callable[..., _T], *args: Any, env: Mapping[str, str] | None = None) -> _T:
    """Call a module's function in a fresh interpreter, and return its result.

    Raises:
        RuntimeError: The function raised, or the interpreter died.
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
    """Call each measure once per process of the effort, alternating, and collect the results."""
    gathered: dict[str, list[_T]] = {name: [] for name in measures}
    for _ in range(effort.processes):
        for name, measure in measures.items():
            gathered[name] += measure()
    return gathered


def time_cases(
    make_cases: Callable[..., Mapping[str, Callable[[], object]]], args: Sequence[Any], events: int, effort: Effort
) -> dict[str, list[Timing]]:
    """Time small cases in fresh interpreters, each of which runs all cases alternately.

    Args:
        make_cases: A module's function that returns the cases by name, each already checked for correct results.
        args: Its arguments.
        events: The number of events that one call of a case handles.
        effort: The amount of measuring.
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
    """The number of calls per round, found by calling."""
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
