"""Runs the benchmarks and writes their results.

    python benchmarks/run.py                    # all groups, into benchmarks/results and the README
        python benchmarks/run.py emit latency       # only these; other groups keep their last results
        python benchmarks/run.py --quick --output D # a short run of each, to check that everything works

Groups: envelope, acks, emit, transports, latency, interference, scale, distance, columns, memory,
ingest.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from pathlib import Path

import aims
from charts import CHARTS
from command_line import RESULTS, Parser
from harness import QUICK, Effort, LeftOut
from headline import headline
from results import Group, Results, machine_facts, markdown, today

from raccoon_fast import has_extensions

README = Path(__file__).parent.parent / "README.md"
_MARKS = ("<!-- benchmarks: made by `make bench` -->\n", "<!-- benchmarks: end -->")


def main() -> None:
    parser = Parser(__doc__, "do a short run of each group; its figures are not usable")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="the groups to run; default: all")
    chosen = parser.parse()
    unknown = sorted({*chosen.groups} - {*CHARTS})
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)}; choose from {', '.join(CHARTS)}")
    has_extensions(raise_=True)
    # Proxies must not be used for loopback, whatever library reads the environment.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

    results = _last(chosen.output / "results.json")
    for name in CHARTS:
        if name in chosen.groups or not chosen.groups:
            started_s = time.monotonic()
            print(f"{name} ...", end="", flush=True, file=sys.stderr)
            results.groups[name] = _run(name, QUICK if chosen.quick else Effort())
            print(f" {time.monotonic() - started_s:.0f} s", file=sys.stderr)
    results.groups = {name: results.groups[name] for name in CHARTS if name in results.groups}
    _write(results, chosen.output)
    if chosen.output == RESULTS:
        _show_in_readme(results)
    print(aims.report(results))


def _run(name: str, effort: Effort) -> Group:
    module = importlib.import_module(name)
    left_out = LeftOut()
    tables = module.run(effort, left_out)
    return Group((module.__doc__ or "").strip(), today(), tables, left_out.notes)


def _last(path: Path) -> Results:
    """The existing results, or empty ones if those are from another machine or other versions."""
    machine = machine_facts()
    if path.exists():
        results = Results.load(path)
        if results.machine == machine:
            return results
    return Results(machine, {})


def _write(results: Results, folder: Path) -> None:
    results.save(folder / "results.json")
    (folder / "results.md").write_text(markdown(results, aims.report(results)), encoding="utf-8")
    for name, group in results.groups.items():
        (folder / f"{name}.svg").write_text(CHARTS[name](group), encoding="utf-8")


def _show_in_readme(results: Results) -> None:
    """Put the headline table between the markers in the README."""
    text = README.read_text(encoding="utf-8")
    start, end = map(re.escape, _MARKS)
    shown = f"{_MARKS[0]}{headline(results)}\n{_MARKS[1]}"
    README.write_text(re.sub(f"{start}.*?{end}", lambda _: shown, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
