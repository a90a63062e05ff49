"""Measures the CPU time of an engine's processes on Linux."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def cpu_s() -> Counter[str]:
    """CPU seconds (user and system) of the engine's processes started from this one, by program: "python" or "java".

    Python processes that this process has started itself, such as the collector's, do not count. A process that has
    ended and was waited for counts for its parent.
    """
    parents: dict[int, int] = {}
    programs: dict[int, str] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended in the meantime
        fields = rest.split()
        pid, _, program = head.partition(" (")
        parents[int(pid)] = int(fields[1])
        programs[int(pid)] = "python" if program.startswith("python") else program
        # proc(5): utime, stime, cutime and cstime are the fields 14 to 17; `rest` begins with the third field.
        seconds[int(pid)] = sum(map(int, fields[11:15])) * _TICK_S
    total: Counter[str] = Counter()
    for pid, program in programs.items():
        top = _top(pid, parents)
        if top is not None and programs[top] != "python":
            total[program] += seconds[pid]
    return total


def _top(pid: int, parents: dict[int, int]) -> int | None:
    """The child of this process that is, or is an ancestor of, the process `pid`; None if there is none."""
    while (parent := parents.get(pid)) is not None:
        if parent == os.getpid():
            return pid
        pid = parent
    return None
