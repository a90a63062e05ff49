"""Stored records are found again: after kill -9, by another process, and next to damaged ones."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from patience import patient

from raccoon_fast.logs import resolve_logger
from raccoon_fast.spool.store import Record, Spool, SpoolError, SpoolFull

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

SILENT = resolve_logger(None)


def record(number: int = 0, size: int = 100, wire: str = "proto") -> Record:
    return Record(f"guid-{number}", wire, 1000.5 + number, {"a": number + 1, "b": 2}, b"%d " % number + bytes(size))


def new_spool(path: Path, max_bytes: int = 1 << 30) -> Spool:
    return Spool(path, max_bytes=max_bytes, logger=SILENT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def without_id(records: list[Record]) -> list[Record]:
    return [one._replace(id=0) for one in records]


def run(program: str, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)], capture_output=True, text=True, timeout=patient(50), **options
    )


def test_the_next_owner_finds_stored_records_in_order(path: Path) -> None:
    first = new_spool(path)
    records = [record(number) for number in range(5)]
    numbers = first.put(records[:2]) + first.put(records[2:])
    assert numbers == sorted(set(numbers))
    assert (first.available, first.take(1000)) == (0, [])
    first.close()
    second = new_spool(path)
    assert second.adopt() == {"a": 1 + 2 + 3 + 4 + 5, "b": 10}
    assert (second.available, second.nbytes) == (5, sum(len(one.body) for one in records))
    assert without_id(second.take(1 << 20)) == records
    second.close()


def test_take_is_bounded_and_hands_out_once(path: Path) -> None:
    spool = new_spool(path)
    spool.give_back(spool.put([record(number) for number in range(5)]))
    first = spool.take(2 * len(record(0).body))
    assert [one.req_guid for one in first] == ["guid-0", "guid-1"]
    assert [one.req_guid for one in spool.take(1)] == ["guid-2"]
    spool.give_back([first[1].id])
    assert [one.req_guid for one in spool.take(1 << 20)] == ["guid-3", "guid-4", "guid-1"]
    assert spool.take(1 << 20) == []
    spool.close()


def test_removed_records_are_gone(path: Path) -> None:
    spool = new_spool(path)
    numbers = spool.put([record(number) for number in range(3)])
    spool.remove(numbers[:2])
    spool.remove(numbers[:2])
    assert spool.nbytes == len(record(2).body)
    spool.close()
    again = new_spool(path)
    again.adopt()
    assert [one.req_guid for one in again.take(1 << 20)] == ["guid-2"]
    again.close()


def test_the_cap(path: Path) -> None:
    spool = new_spool(path, max_bytes=1000)
    numbers = spool.put([record(0, 400), record(1, 400)])
    with pytest.raises(SpoolFull, match="of 1000 bytes"):
        spool.put([record(2, 10), record(3, 400)])
    assert spool.nbytes < 1000
    spool.remove(numbers[:1])
    spool.put([record(2, 10), record(3, 400)])
    spool.close()


def test_nobody_else_may_read_it(path: Path) -> None:
    spool = new_spool(path)
    spool.put([record()])
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    spool.close()
    assert [file.name for file in path.parent.iterdir()] == ["spool"]


def test_living_owners_do_not_share(path: Path) -> None:
    first, second = new_spool(path), new_spool(path)
    first.give_back(first.put([record(1)]))
    second.give_back(second.put([record(2)]))
    assert first.adopt() == second.adopt() == {}
    assert [one.req_guid for one in first.take(1000)] == ["guid-1"]
    assert [one.req_guid for one in second.take(1000)] == ["guid-2"]
    first.close()
    assert second.adopt() == {"a": 2, "b": 2}
    assert [one.req_guid for one in second.take(1000)] == ["guid-1"]
    second.close()


WRITER = """
import sys
from pathlib import Path
from raccoon_fast.spool.store import Record, Spool
from raccoon_fast.logs import resolve_logger
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 40, logger=resolve_logger(None))
number = 0
while True:
    number += 1
    spool.put([Record(f"{sys.argv[2]}-{number}", "proto", 1.5, {"a": 1}, b"x" * (number * 7919 % 50_000))])
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_put(path: Path) -> None:
    rand = random.Random(5)
    said = set()
    for round_ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(round_)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(rand.randint(1, 300)):
            said.add(f"{round_}-{int(writer.stdout.readline())}")
        writer.send_signal(signal.SIGKILL)
        said.update(f"{round_}-{int(line)}" for line in writer.stdout.read().splitlines())
        writer.stdout.close()
        writer.wait()
    spool = new_spool(path)
    adopted = spool.adopt()
    found = {one.req_guid for one in spool.take(1 << 40)}
    assert said <= found
    assert len(found) <= len(said) + 5
    assert adopted == {"a": len(found)}
    spool.close()


def test_a_dead_owner_is_adopted_once(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, "w"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(50):
        writer.stdout.readline()
    spools = [new_spool(path) for _ in range(4)]
    assert [spool.adopt() for spool in spools] == [{}] * 4
    writer.kill()
    writer.stdout.close()
    writer.wait()
    adopted: list[Counter[str]] = []
    threads = [threading.Thread(target=lambda one=spool: adopted.append(one.adopt())) for spool in spools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [one.req_guid for spool in spools for one in spool.take(1 << 40)]
    assert len(found) == len(set(found)) >= 50
    assert sum(adopted, Counter()) == {"a": len(found)}
    for spool in spools:
        spool.close()


def test_two_owners_in_one_process_beside_another_process(path: Path) -> None:
    program = """
import os, signal, subprocess, sys
from pathlib import Path
from raccoon_fast.spool.store import Record, Spool
from raccoon_fast.logs import resolve_logger
def new_spool():
    return Spool(Path(sys.argv[1]), max_bytes=1 << 30, logger=resolve_logger(None))
if len(sys.argv) > 2:
    other = new_spool()
    other.adopt()
    other.close()
    sys.exit()
first, second = new_spool(), new_spool()
first.put([Record("first", "proto", 1.5, {"a": 1}, b"x")])
second.put([Record("second", "proto", 1.5, {"a": 1}, b"x")])
subprocess.run([sys.executable, __file__, sys.argv[1], "other"], check=True)
first.put([Record("last", "proto", 1.5, {"a": 1}, b"x")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    script = path.with_name("program.py")
    script.write_text(program)
    killed = subprocess.run([sys.executable, script, path], capture_output=True, text=True, timeout=patient(50))
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    spool = new_spool(path)
    spool.adopt()
    assert {one.req_guid for one in spool.take(1000)} == {"first", "second", "last"}
    spool.close()


def test_fork(path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from raccoon_fast.spool.store import Record, Spool
from raccoon_fast.logs import resolve_logger
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 30, logger=resolve_logger(None))
spool.give_back(spool.put([Record("parent", "proto", 1.5, {"a": 1}, b"x")]))
child = os.fork()
if child == 0:
    spool.after_fork()
    assert spool.adopt() == {}, "the parent lives"
    spool.put([Record("child", "proto", 1.5, {"a": 1}, b"y")])
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert spool.adopt() == {"a": 1}
print(sorted(record.req_guid for record in spool.take(1000)))
spool.close()
"""
    done = run(program, path)
    assert (done.stdout, done.stderr) == ("['child', 'parent']\n", "")


def test_a_damaged_record_is_put_aside_and_the_others_are_found(path: Path) -> None:
    spool = new_spool(path)
    spool.put([record(number) for number in range(4)])
    spool.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET body = zeroblob(length(body)) WHERE req_guid = 'guid-1'")
        db.execute("UPDATE records SET types = '{\"a\": 7}' WHERE req_guid = 'guid-2'")
    db.close()
    again = new_spool(path)
    again.adopt()
    assert [one.req_guid for one in again.take(1 << 20)] == ["guid-0", "guid-3"]
    assert sorted(again.pop_lost().values(), key=len) == [{"a": 7}, {"a": 2, "b": 2}]
    assert again.pop_lost() == {}
    again.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        assert [row[0] for row in db.execute("SELECT req_guid FROM quarantine ORDER BY id")] == ["guid-1", "guid-2"]
    db.close()


def quarantined(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT req_guid, reason, types, body FROM quarantine ORDER BY rowid").fetchall()


def test_quarantine_keeps_records_and_hands_them_out_no_more(path: Path) -> None:
    spool = new_spool(path)
    numbers = spool.put([record(number) for number in range(3)])
    spool.quarantine([*numbers[:2], 99], "it was refused")
    spool.put_quarantined(record(7), "it is a part")
    assert spool.nbytes == len(record(2).body)
    spool.quarantine(numbers[:1], "again")
    spool.give_back(numbers)
    assert [one.req_guid for one in spool.take(1 << 20)] == ["guid-2"]
    spool.close()
    assert [row[:2] for row in quarantined(path)] == [
        ("guid-0", "it was refused"),
        ("guid-1", "it was refused"),
        ("guid-7", "it is a part"),
    ]
    assert quarantined(path)[2][2:] == ('{"a": 8, "b": 2}', record(7).body)
    again = new_spool(path)
    assert again.adopt() == {"a": 3, "b": 2}
    again.close()


def test_quarantine_is_bounded(path: Path) -> None:
    spool = new_spool(path, max_bytes=1000)
    spool.put_quarantined(record(0, 600), "it is a part")
    numbers = spool.put([record(1, 600)])
    with pytest.raises(SpoolFull, match=r"quarantine .* is full: 602 of 1000 bytes"):
        spool.quarantine(numbers, "it was refused")
    with pytest.raises(SpoolFull, match="drop --quarantine"):
        spool.put_quarantined(record(2, 600), "it is a part")
    spool.give_back(numbers)
    assert [one.req_guid for one in spool.take(1 << 20)] == ["guid-1"]
    spool.close()


@pytest.mark.parametrize("seed", range(20))
def test_live_traffic_continues_with_any_file_content(path: Path, seed: int) -> None:
    rand = random.Random(seed)
    spool = new_spool(path)
    spool.put([record(number, 5000) for number in range(20)])
    spool.close()
    data = bytearray(path.read_bytes())
    if seed % 4 == 0:
        data = bytearray(rand.randbytes(rand.randint(1, 20_000)))
    elif seed % 4 == 1:
        del data[rand.randrange(len(data)) :]
    else:
        start = rand.randrange(len(data))
        data[start : start + 8192] = rand.randbytes(len(data[start : start + 8192]))
    path.write_bytes(data)
    again = new_spool(path)
    for _ in range(3):
        try:
            again.adopt()
            found = again.take(1 << 20)
        except SpoolError:
            continue
        originals = {one.req_guid: one for one in (record(number, 5000) for number in range(20))}
        assert all(one._replace(id=0) == originals[one.req_guid] for one in found)
    for attempt in range(3):
        try:
            again.remove(again.put([record(attempt)]))
        except SpoolError:
            continue
        break
    else:
        pytest.fail("no put works")
    again.close()


def test_another_release_s_file_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    spool = new_spool(path)
    with pytest.raises(SpoolError, match="another release"):
        spool.adopt()
    spool.close()
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_of_that_call_only(path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from raccoon_fast.spool.store import Record, Spool, SpoolError
from raccoon_fast.logs import resolve_logger
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 30, logger=resolve_logger(None))
numbers = []
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, unlimited[1]))
try:
    while True:
        numbers += spool.put([Record(f"{len(numbers)}", "proto", 1.5, {"a": 1}, b"x" * 50_000)])
except SpoolError as error:
    print("full after", len(numbers), error)
spool.give_back(numbers)
assert sorted(int(record.req_guid) for record in spool.take(1 << 30)) == list(range(len(numbers)))
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
spool.remove(numbers)
spool.remove(spool.put([Record("again", "proto", 1.5, {"a": 1}, b"x" * 10_000)]))
spool.close()
print("works")
"""
    done = run(program, path)
    assert done.stderr == ""
    assert done.stdout.startswith("full after ")
    assert done.stdout.endswith("works\n")


def test_a_file_locked_by_another_is_an_error_of_that_call_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raccoon_fast.spool.file._BUSY_S", 0.05)
    spool = new_spool(path)
    spool.put([record(1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolError, match="locked"):
        spool.put([record(2)])
    other.execute("ROLLBACK")
    other.close()
    spool.put([record(3)])
    spool.close()


def test_no_descriptor_is_left(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        spool = new_spool(path)
        spool.put([record()])
        spool.close()
        spool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
