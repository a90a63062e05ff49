"""Forks and exits, and who is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import run

HEAD = """
import gc, multiprocessing, os, sys, warnings
from raccoon_fast.delivery import lifetime
warnings.simplefilter("ignore", DeprecationWarning)

class One:
    def __init__(self, name):
        self.name = name
        lifetime.made(self)
    def close(self):
        print("close", self.name, flush=True)
        lifetime.ended(self)
    def _after_fork(self):
        print("forked", self.name, flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def test_what_has_begun_is_closed_at_exit_though_nobody_holds_it(program: Path) -> None:
    program.write_text(HEAD + 'One("made")\nlifetime.began(One("begun"))\ngc.collect()\nprint("exit", flush=True)')
    assert run(program) == ["exit", "close begun"]


def test_what_has_ended_is_not(program: Path) -> None:
    program.write_text(HEAD + 'one = One("ended")\nlifetime.began(one)\nlifetime.ended(one)')
    assert run(program) == []


def test_a_fork_is_told_to_all_and_what_the_parent_opened_stays_the_parent_s(program: Path) -> None:
    program.write_text(
        HEAD
        + """
made, begun = One("made"), One("begun")
lifetime.began(begun)
if os.fork() == 0:
    lifetime._close_all()
    lifetime.began(made)
    sys.exit()
os.wait()
print("parent", flush=True)
"""
    )
    said = run(program)
    assert sorted(said[:2]) == ["forked begun", "forked made"]
    assert said[2:] == ["close made", "parent", "close begun"]


def test_a_process_of_multiprocessing_closes_what_it_began(program: Path) -> None:
    program.write_text(
        HEAD
        + """
one = One("child")
process = multiprocessing.get_context("fork").Process(target=lifetime.began, args=(one,))
process.start()
process.join()
"""
    )
    assert run(program) == ["forked child", "close child"]
