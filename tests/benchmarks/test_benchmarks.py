"""The benchmarks run and write their files; the tests ignore the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from raccoon_fast import has_extensions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GROUPS = (
    "envelope", "acks", "emit", "transports", "latency", "interference", "scale", "distance", "columns", "memory",
    "ingest",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not has_extensions(), reason="the benchmarks measure the compiled form")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCHMARKS / script, *arguments], capture_output=True, text=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", GROUPS)
def test_group(group: str, tmp_path: Path) -> None:
    finished = run("run.py", group, "--quick", "--output", tmp_path)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"processor", "system", "python", "raccoon_fast"} <= {*results["machine"]}
    assert [*results["groups"]] == [group]
    tables = results["groups"][group]["tables"]
    assert tables
    for table in tables:
        assert not table["base"] or table["base"] in table["cells"]
        for cells in table["cells"].values():
            for median, low, high, samples in cells.values():
                assert low <= median <= high
                assert samples >= 1
    text = (tmp_path / "results.md").read_text()
    assert all(f"**{table['title']}**" in text for table in tables)
    assert str(tmp_path) not in text
    assert ElementTree.parse(tmp_path / f"{group}.svg").getroot().tag.endswith("svg")


def test_results_of_other_groups_are_kept(tmp_path: Path) -> None:
    for group in ("acks", "ingest"):
        assert run("run.py", group, "--quick", "--output", tmp_path).returncode == 0
    assert [*json.loads((tmp_path / "results.json").read_text())["groups"]] == ["acks", "ingest"]


def test_results_of_other_versions_are_not(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"machine": {"python": "2.7"}, "groups": {}}))
    assert run("run.py", "ingest", "--quick", "--output", tmp_path).returncode == 0
    assert json.loads((tmp_path / "results.json").read_text())["machine"]["python"] != "2.7"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "no such group: nothing"), (["--quick"], "choose another folder with --output")],
)
def test_wrong_arguments(arguments: list[str], said: str) -> None:
    finished = run("run.py", *arguments)
    assert finished.returncode == 2
    assert said in finished.stderr


def test_outages() -> None:
    finished = run("outage.py", "--down", "0.3", "--producers", "1")
    assert finished.returncode == 0, finished.stderr
    assert all(f"| 0.3 s | {transport} |" in finished.stdout for transport in ("REST", "WebSocket", "gRPC"))


def test_committed_results_are_whole() -> None:
    results = json.loads((BENCHMARKS / "results" / "results.json").read_text())
    # What is measured since is recorded by the next run of all groups.
    assert {*GROUPS} - {*results["groups"]} <= {"distance", "interference", "columns"}
    for group in results["groups"]:
        assert (BENCHMARKS / "results" / f"{group}.svg").exists()


class TestGuard:
    def test_reports_a_missing_valgrind(self, tmp_path: Path) -> None:
        finished = subprocess.run(
            [sys.executable, BENCHMARKS / "guard.py"],
            env={**os.environ, "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0
        assert finished.stdout == "bench-guard: skipped, valgrind is not installed\n"

    def test_fails_on_growth(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        import guard

        assert guard.compare({"emit": 105, "decode": 50}, {"emit": 100, "decode": 100}) == 0
        assert guard.compare({"emit": 106}, {"emit": 100}) == 1
        assert "TOO MUCH" in capsys.readouterr().out

    def test_workloads_run(self) -> None:
        finished = run("guard.py", "--work")
        assert finished.returncode == 0, finished.stderr
