"""The spool's file in use while it is deleted, replaced, locked, forked with, or its descriptors are closed."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import patient
from program import run

from raccoon_fast.spool import file as spool_file
from raccoon_fast.spool.file import SpoolLocked, is_alive, lock_path, unlink_dead
from raccoon_fast.spool.store import Record, Spool, SpoolError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, *args: object) -> None:
        raise AssertionError(msg)

    warning = info

    def error(self, msg: str, *args: object) -> None:
        self.lines.append(msg % args)


def record(number: int) -> Record:
    return Record(f"guid-{number}", "proto", 1000.5, {"a": 1}, b"%04d" % number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "house").mkdir()
    return tmp_path / "house" / "spool"


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def new_spool(path: Path, log: Lines) -> Iterator[Callable[[], Spool]]:
    made: list[Spool] = []

    def new() -> Spool:
        made.append(Spool(path, max_bytes=1 << 30, logger=log))
        return made[-1]

    yield new
    for spool in made:
        spool.close()


def files(path: Path) -> set[str]:
    return {file.name.removeprefix(path.name) for file in path.parent.iterdir() if not file.name.endswith(".lock")}


def found_by_the_next(path: Path) -> set[str]:
    spool = Spool(path, max_bytes=1 << 30, logger=Lines())
    spool.adopt()
    found = {one.req_guid for one in spool.take(1 << 30)}
    spool.close()
    return found


def unlink(path: Path, suffixes: list[str]) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()


GONE = [[""], ["-wal"], ["-shm"], ["-wal", "-shm"], ["", "-wal", "-shm"]]


@pytest.mark.parametrize("suffixes", GONE, ids="+".join)
def test_records_move_to_a_new_file_when_theirs_is_deleted(
    path: Path, new_spool: Callable[[], Spool], log: Lines, suffixes: list[str]
) -> None:
    spool = new_spool()
    spool.give_back(spool.put([record(number) for number in range(3)]))
    held = spool.put([record(3)])
    unlink(path, suffixes)
    more = spool.put([record(4)])
    assert "deleted or replaced" in log.lines[0]
    assert found_by_the_next(path) == set()  # the owner lives
    assert [one.req_guid for one in spool.take(1 << 20)] == ["guid-0", "guid-1", "guid-2"]
    spool.remove(held)
    spool.give_back(more)
    assert (spool.pop_lost(), spool.pop_gone(), len(log.lines)) == ({}, [], 1)
    spool.close()
    assert files(path) == {""}
    assert found_by_the_next(path) == {"guid-0", "guid-1", "guid-2", "guid-4"}


def test_records_move_into_a_file_that_replaced_theirs(path: Path, new_spool: Callable[[], Spool]) -> None:
    """A restore from a backup or `mv` replaces the file."""
    spool = new_spool()
    spool.give_back(spool.put([record(number) for number in range(3)]))
    other = path.with_name("other")
    elsewhere = Spool(other, max_bytes=1 << 30, logger=Lines())
    elsewhere.put([record(number) for number in range(10, 15)])
    elsewhere.close()
    other.replace(path)
    assert spool.adopt() == {"a": 5}
    found = [one.req_guid for one in spool.take(1 << 20)]
    assert sorted(found) == sorted(f"guid-{number}" for number in [0, 1, 2, 10, 11, 12, 13, 14])
    spool.close()
    assert len(found_by_the_next(path)) == 8


def test_a_file_that_is_not_a_database_is_set_aside(path: Path, new_spool: Callable[[], Spool]) -> None:
    spool = new_spool()
    spool.give_back(spool.put([record(number) for number in range(3)]))
    unlink(path, ["", "-wal", "-shm"])
    path.write_bytes(b"not a database" * 1000)
    assert len(spool.take(1 << 20)) == 3
    spool.close()
    assert found_by_the_next(path) == {"guid-0", "guid-1", "guid-2"}


def test_without_its_directory_records_are_read_but_not_stored(
    path: Path, new_spool: Callable[[], Spool], log: Lines
) -> None:
    spool = new_spool()
    spool.give_back(spool.put([record(number) for number in range(3)]))
    shutil.rmtree(path.parent)
    for _ in range(3):
        with pytest.raises(SpoolError, match="directory is gone"):
            spool.put([record(3)])
    assert [one.req_guid for one in spool.take(1)] == ["guid-0"]
    assert len(log.lines) == 1
    path.parent.mkdir()
    spool.give_back(spool.put([record(4)]))
    spool.close()
    assert spool.pop_lost() == {}
    assert found_by_the_next(path) == {"guid-0", "guid-1", "guid-2", "guid-4"}


def test_records_nobody_can_find_are_reported_at_the_end(path: Path, new_spool: Callable[[], Spool]) -> None:
    spool = new_spool()
    spool.give_back(spool.put([record(number) for number in range(3)]))
    shutil.rmtree(path.parent)
    spool.close()
    assert [*spool.pop_lost().values()] == [{"a": 1}] * 3


def test_closing_leaves_the_files_of_others_alone(path: Path, new_spool: Callable[[], Spool]) -> None:
    """SQLite deletes its log by name: after the file was replaced, that is the log of another process."""
    spool = new_spool()
    spool.put([record(0)])
    unlink(path, ["", "-wal", "-shm"])
    program = f"""
import os, signal
from pathlib import Path
from raccoon_fast.spool.store import Record, Spool
from raccoon_fast.logs import resolve_logger
spool = Spool(Path({str(path)!r}), max_bytes=1 << 30, logger=resolve_logger(None))
spool.put([Record("theirs", "proto", 1.5, {{"a": 1}}, b"x")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    script = path.with_name("program.py")
    script.write_text(program)
    assert subprocess.run([sys.executable, script], check=False).returncode == -signal.SIGKILL
    spool.close()
    assert found_by_the_next(path) == {"guid-0", "theirs"}


def test_a_lock_file_that_was_deleted_is_made_again(path: Path, new_spool: Callable[[], Spool]) -> None:
    spool = new_spool()
    spool.put([record(0)])
    lock_path(path, spool.owner).unlink()
    assert not is_alive(path, spool.owner)
    spool.put([record(1)])
    assert is_alive(path, spool.owner)
    assert found_by_the_next(path) == set()


def test_lock_files_of_killed_processes_are_deleted(path: Path, new_spool: Callable[[], Spool]) -> None:
    living = new_spool()
    living.adopt()
    others = [path.with_name(name) for name in ("spool.mine.lock", f"spool.old.{'0' * 32}.lock", f"spool.{'0' * 32}")]
    for file in (lock_path(path, "0" * 32), lock_path(path, "f" * 32), *others):
        file.touch()
    second = new_spool()
    second.adopt()
    locks = {lock_path(path, living.owner), lock_path(path, second.owner)}
    assert {file for file in path.parent.iterdir() if ".lock" in file.name} == locks | {*others[:2]}
    assert others[2].exists()
    assert is_alive(path, living.owner)
    assert is_alive(path, second.owner)


def test_an_owner_whose_lock_file_is_deleted_before_it_is_locked_makes_another(
    path: Path, new_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    spool = new_spool()
    flock, flocks = fcntl.flock, 0

    def after_another(fd: int, how: int) -> None:
        nonlocal flocks
        flocks += 1
        if flocks == 1:
            unlink_dead(path, spool.owner)
            assert not lock_path(path, spool.owner).exists()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", after_another)
    spool.put([record(0)])
    assert is_alive(path, spool.owner)
    assert found_by_the_next(path) == set()


def test_a_lock_file_that_was_replaced_meanwhile_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    lock = lock_path(path, "0" * 32)
    lock.touch()

    def replace(fd: int, how: int) -> None:
        lock.rename(path)  # its inode must not be used again
        lock.touch()

    monkeypatch.setattr(fcntl, "flock", replace)
    unlink_dead(path, "0" * 32)
    assert lock.exists()


def test_synchronous_is_normal_and_the_log_is_wal(new_spool: Callable[[], Spool]) -> None:
    with new_spool()._database() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (1,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


class TestLocked:
    @pytest.fixture
    def other(self, path: Path, new_spool: Callable[[], Spool]) -> Iterator[sqlite3.Connection]:
        new_spool().put([record(0)])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def test_a_locked_file_is_waited_for(
        self, other: sqlite3.Connection, new_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = []

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 3:
                other.execute("ROLLBACK")

        monkeypatch.setattr(spool_file, "_sleep", sleep)
        monkeypatch.setattr(spool_file, "_BUSY_S", 60.0)
        new_spool().put([record(1)])
        assert len(tries) == 3

    def test_the_wait_for_a_lock_is_bounded(
        self, other: sqlite3.Connection, new_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_file, "_BUSY_S", 0.05)
        spool = new_spool()
        for _ in range(2):
            with pytest.raises(SpoolLocked, match="locked"):
                spool.put([record(1)])
        other.execute("ROLLBACK")
        spool.put([record(1)])

    def test_a_fork_does_not_wait(
        self, other: sqlite3.Connection, new_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_file, "_BUSY_S", 60.0)
        monkeypatch.setattr(spool_file, "_FORK_WAIT_S", 30.0)
        spool = new_spool()
        thread = threading.Thread(target=spool.put, args=([record(1)],))
        thread.start()
        began_s = time.monotonic()
        for _ in range(5):
            spool_file._process.before_fork()
            assert spool_file._process._is_held
            spool_file._process.after_fork_in_parent()
        assert time.monotonic() - began_s < patient(20)
        assert thread.is_alive()
        other.execute("ROLLBACK")
        thread.join()


FORK = """
import contextlib, os, signal, sqlite3, sys
from pathlib import Path
from raccoon_fast.spool import file as spool_file
from raccoon_fast.spool.store import Record, Spool, SpoolError
from raccoon_fast.logs import resolve_logger
path = Path(sys.argv[0]).with_name("spool")
def new_spool():
    return Spool(path, max_bytes=1 << 30, logger=resolve_logger(None))
def record(name):
    return Record(name, "proto", 1.5, {"a": 1}, b"x")
def found_by_the_next():
    with contextlib.closing(new_spool()) as spool:
        spool.adopt()
        return sorted(one.req_guid for one in spool.take(1 << 30))
spool = new_spool()
spool.put([record("parent")])
ready, tell = os.pipe()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def test_a_child_s_records_survive_its_parent_s_close_and_its_own_death(program: Path) -> None:
    """A child does not inherit the locks of a connection: closing the parent's would delete the child's log."""
    program.write_text(
        FORK
        + """
if (child := os.fork()) == 0:
    spool.after_fork()
    spool.put([record("early")])
    os.write(tell, b".")
    os.close(tell)
    signal.pause()
os.close(tell)
os.read(ready, 1)
spool.close()
print("-wal" in "".join(os.listdir(path.parent)))
other = new_spool()
other.put([record("other")])
other.close()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(found_by_the_next())
"""
    )
    assert run(program) == ["True", "['early', 'other', 'parent']"]


def test_a_child_that_lets_go_late_deletes_nobody_s_log(program: Path) -> None:
    """A child forked without hooks is the last to close, and SQLite would delete the log by its name."""
    program.write_text(
        FORK
        + """
go, let_go = os.pipe()
if (child := os.fork()) == 0:
    os.read(go, 1)
    spool.after_fork()
    os._exit(0)
spool.close()
if (other := os.fork()) == 0:
    new_spool().put([record("killed")])
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(other, 0)
os.write(let_go, b".")
os.waitpid(child, 0)
print(found_by_the_next())
"""
    )
    assert run(program) == ["['killed', 'parent']"]


@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])
def test_a_child_that_closes_all_descriptors_still_stores(program: Path, hooks: bool) -> None:
    """A daemon does this. SQLite would keep using the descriptor of the parent's shared memory."""
    program.write_text(
        FORK
        + f"""
if not {hooks}:
    spool_file._process.after_fork_in_child = lambda: None
if (child := os.fork()) == 0:
    del spool_file._process.__dict__["after_fork_in_child"]
    spool.after_fork()
    os.closerange(3, 256)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    spool.put([record("child")])
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
spool.close()
print(found_by_the_next())
""".replace(
            'del spool_file._process.__dict__["after_fork_in_child"]',
            "" if hooks else "del spool_file._process.after_fork_in_child",
        )
    )
    assert run(program) == ["['child', 'parent']"]


def test_a_child_forked_during_sqlite_work_goes_without_a_spool(program: Path) -> None:
    program.write_text(
        FORK
        + """
spool_file._FORK_WAIT_S = 0.01
with spool._database():
    if (child := os.fork()) == 0:
        spool.after_fork()
        for one in spool, new_spool():
            try:
                one.put([record("child")])
            except SpoolError as error:
                print(error, flush=True)
            one.close()
        os._exit(0)
    os.waitpid(child, 0)
spool.put([record("again")])
spool.close()
print(found_by_the_next())
"""
    )
    lines = run(program)
    assert len(lines) == 3
    assert all("when this process was forked" in line or "while SQLite was working" in line for line in lines[:2])
    assert lines[2] == "['again', 'parent']"


def test_descriptors_that_were_closed_are_opened_again(program: Path) -> None:
    program.write_text(
        FORK
        + """
held = spool.put([record("held")])
os.closerange(3, 256)
spool.remove(held)
spool.put([record("more")])
assert len(spool._file._descriptors) == 3
spool.close()
print(found_by_the_next())
"""
    )
    assert run(program) == ["['more', 'parent']"]


def test_reused_descriptors_are_left_alone(program: Path) -> None:
    program.write_text(
        FORK
        + """
os.closerange(3, 256)
theirs = path.with_name("theirs")
theirs.write_bytes(b"precious")
held = [os.open(theirs, os.O_RDWR) for _ in range(20)]
for _ in range(2):
    try:
        spool.put([record("more")])
    except SpoolError as error:
        print(error)
spool.close()
print(theirs.read_bytes(), [os.fstat(fd).st_size for fd in held] == [8] * 20)
"""
    )
    lines = run(program)
    assert [line.rpartition("; create")[2] for line in lines[:2]] == [" the producer after closing descriptors"] * 2
    assert lines[2] == "b'precious' True"


def test_a_reader_of_this_program_that_opens_the_file_at_the_same_moment_changes_nothing(
    path: Path, log: Lines, new_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_spool()
    first.put([record(0)])
    first.close()
    found = spool_file.open_files
    readers: list[sqlite3.Connection] = []

    def open_files() -> dict[int, tuple[int, int]]:
        before = found()
        if not readers:  # the reader's descriptors are new when they are listed again
            readers.append(sqlite3.connect(path))
            readers[0].execute("SELECT count(*) FROM records").fetchone()
        return before

    monkeypatch.setattr(spool_file, "open_files", open_files)
    spool = new_spool()
    spool.put([record(1)])
    assert len(readers) == 1
    readers[0].close()
    for number in (2, 3):
        spool.put([record(number)])
    assert log.lines == []
    assert found_by_the_next(path) == {"guid-0"}  # the others still have their owner
    spool.close()
    assert found_by_the_next(path) == {"guid-0", "guid-1", "guid-2", "guid-3"}
