"""Forks and exits, and the objects that are notified."""

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
    def _begin_close(self, timeout_s):
        print("close", self.name, flush=True)
        lifetime.ended(self)
        return lambda: None
    def _after_fork(self):
        print("forked", self.name, flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def test_a_started_object_is_closed_at_exit_though_nobody_references_it(program: Path) -> None:
    program.write_text(HEAD + 'One("made")\nlifetime.began(One("begun"))\ngc.collect()\nprint("exit", flush=True)')
    assert run(program) == ["exit", "close begun"]


def test_an_ended_object_is_not_closed_at_exit(program: Path) -> None:
    program.write_text(HEAD + 'one = One("ended")\nlifetime.began(one)\nlifetime.ended(one)')
    assert run(program) == []


def test_a_fork_notifies_all_objects_and_the_parent_keeps_its_resources(program: Path) -> None:
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


def test_a_process_of_multiprocessing_closes_its_objects(program: Path) -> None:
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


def test_all_objects_are_closed_concurrently_within_one_deadline(program: Path) -> None:
    program.write_text(
        HEAD
        + """
import time
class Hanging(One):
    def _begin_close(self, timeout_s):
        print("begin", self.name, flush=True)
        deadline_s = time.monotonic() + timeout_s
        def wait():
            time.sleep(max(0, deadline_s - time.monotonic()))
            print("waited", self.name, flush=True)
        return wait
class Failing(One):
    def _begin_close(self, timeout_s):
        sys.exit(4)
lifetime.EXIT_S = 0.5
ones = [Hanging("a"), Failing("b"), Hanging("c"), Hanging("d")]
for one in ones: lifetime.began(one)
begun_s = time.monotonic()
lifetime._close_all()
assert 0.5 <= time.monotonic() - begun_s < 1.0
lifetime._open.clear()
"""
    )
    said = run(program)
    assert sorted(said[:3]) == ["begin a", "begin c", "begin d"]
    assert sorted(said[3:]) == ["waited a", "waited c", "waited d"]
