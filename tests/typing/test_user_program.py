"""The reports of mypy and pyright on a user's program, with the package as installed: editable or from a wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from missing import missing_in

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("user_program.py")


def wrong_on_purpose() -> set[int]:
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def checked(tmp_path: Path, *command: str) -> set[int]:
    """The lines that a checker finds errors in, where there is nothing of ours but the program."""
    shutil.copy(PROGRAM, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", *command, PROGRAM.name], cwd=tmp_path, capture_output=True, text=True, timeout=170
    )
    if reason := missing_in(done.stderr):
        pytest.skip(reason)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"user_program\.py:(\d+):(?:\d+ -)? error", done.stdout)
    assert found, done.stdout + done.stderr
    return {int(number) for number in found}


@pytest.mark.timeout(180)
def test_mypy(tmp_path: Path) -> None:
    assert checked(tmp_path, "mypy", "--strict", "--cache-dir=cache") == wrong_on_purpose()


@pytest.mark.timeout(240)
def test_pyright(tmp_path: Path) -> None:
    # It is a program for node, which the package from PyPI fetches on first use.
    started = subprocess.run([sys.executable, "-m", "pyright", "--version"], capture_output=True, text=True, timeout=60)
    if started.returncode != 0:
        pytest.skip(f"pyright does not start, it needs node and npm: {(started.stderr or started.stdout)[-200:]}")
    assert checked(tmp_path, "pyright", "--pythonpath", sys.executable) == wrong_on_purpose()
