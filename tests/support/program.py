"""Runs programs in separate processes, for tests that would damage their own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from patience import patient


def start(
    program: str | Path, *arguments: object, before: Sequence[object] = (), **environment: str
) -> subprocess.Popen[str]:
    """Start a Python program.

    Args:
        program: The program's text or file.
        arguments: The program's arguments, sys.argv[1:].
        before: A command with options that runs the program.
        environment: Variables added to those of this process.
    """
    script = [program] if isinstance(program, Path) else ["-c", program]
    command = [*before, sys.executable, "-W", "error", *script, *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", **environment},
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 40.0) -> list[str]:
    """Wait for a successful end without output on stderr. Returns the lines that the program wrote."""
    try:
        out, err = process.communicate(timeout=patient(timeout_s))
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the program hangs:\n{out}{err}") from None
    assert (process.returncode, err) == (0, ""), f"{process.returncode}\n{out}\n{err}"
    return out.splitlines()


def run(program: str | Path, *arguments: object, before: Sequence[object] = (), **environment: str) -> list[str]:
    """Start a program and wait for its end; see `start` and `finish`."""
    return finish(start(program, *arguments, before=before, **environment))
