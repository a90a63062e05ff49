"""The benchmark of engines runs and writes its files; the tests ignore the figures."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
WAYS = [
    "raccoon_fast, WebSocket",
    "raccoon_fast, REST",
    "foreachPartition, httpx, protobuf",
    "foreachPartition, httpx, JSON",
]


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17 or newer")
def test_it_runs(tmp_path: Path) -> None:
    """The benchmark itself asserts that every event was received."""
    command = [sys.executable, BENCHMARKS / "engines.py", "--quick", "--output", tmp_path]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    tables = json.loads((tmp_path / "engines.json").read_text())["groups"]["engines"]["tables"]
    assert [table["unit"] for table in tables] == ["µs of CPU per event", "events/s", "µs of CPU per event"]
    for table in tables:
        assert [*table["cells"]] == WAYS
        assert all(cell["1 executor"][0] > 0 for cell in table["cells"].values())
    assert ElementTree.parse(tmp_path / "engines-spark.svg").getroot().tag.endswith("svg")


def test_committed_results_are_whole() -> None:
    tables = json.loads((BENCHMARKS / "results" / "engines.json").read_text())["groups"]["engines"]["tables"]
    for table in tables:
        assert [*table["cells"]] == WAYS
        assert all([*cells] == ["1 executor", "2 executors", "4 executors"] for cells in table["cells"].values())


def test_cpu_time_covers_processes_the_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python process under another program is counted; one started by this process is not."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    processes = importlib.import_module("processes")
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = processes.cpu_s()
    ours = subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    theirs = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1"; true', sys.executable, spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        for process in (ours, theirs):
            assert process.stdout is not None
            process.stdout.readline()
        counted_s = (processes.cpu_s() - before)["python"]
    finally:
        for process in (ours, theirs):
            process.communicate(b"\n")
    assert 0.4 < counted_s < 0.9
