"""Runs the real command in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import patient

import raccoon_fast
from raccoon_fast.collector import Collector

COMMAND = [sys.executable, "-m", "raccoon_fast.cli"]


class Command:
    """Starts `raccoon-fast` and ends what a test leaves behind."""

    environment = os.environ | {"PYTHONPATH": str(Path(raccoon_fast.__file__).parents[1])}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment} | options
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=self._folder, **options)
        self._started.append(process)
        return process

    def __call__(self, *arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        process = self.start(*arguments, stdin=subprocess.PIPE, env={**self.environment, **environment})
        out, err = process.communicate(stdin, timeout=patient(50))
        return subprocess.CompletedProcess(process.args, process.returncode, out.decode(encoding), err.decode(encoding))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def command(tmp_path):
    command = Command(tmp_path)
    yield command
    command.end()


@pytest.fixture
def collector():
    with Collector(group_header="X-User-Group") as collector:
        yield collector
