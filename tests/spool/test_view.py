"""The read-only view of a spool shows everything and changes nothing of a living owner."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raccoon_fast.core.batch import Batch
from raccoon_fast.logs import resolve_logger
from raccoon_fast.spool.store import Record, Spool, SpoolError
from raccoon_fast.spool.view import Filter, SpoolView

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

Fill = Callable[..., Spool]


def record(guid: str, *types: str, wire: str = "proto", accepted_at: float = 1000.5) -> Record:
    """A real batch with an event of each type; its data is the type and the guid."""
    batch = Batch(wire)
    batch.add_many((name, f"{name} {guid}".encode()) for name in types)
    return Record(guid, wire, accepted_at, batch.types, batch.envelope.body())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a %41 [spool]*"


@pytest.fixture
def fill(path: Path) -> Iterator[Fill]:
    """Puts records into a spool, which stays open: its owner lives."""
    made: list[Spool] = []

    def fill(*records: Record) -> Spool:
        spool = Spool(path, max_bytes=1 << 30, logger=resolve_logger(None))
        spool.give_back(spool.put(records))
        made.append(spool)
        return spool

    yield fill
    for spool in made:
        spool.close()


def events_of(path: Path) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """What the next owner finds, by guid."""
    spool = Spool(path, max_bytes=1 << 30, logger=resolve_logger(None))
    spool.adopt()
    found = []
    for one in spool.take(1 << 30):
        batch = Batch(one.wire)
        batch.load(one.body, one.types)
        found.append((one.req_guid, batch.events()))
    spool.close()
    return sorted(found)


def damage(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)
    db.close()


def test_owners_living_and_dead(path: Path, fill: Fill) -> None:
    dead = fill(record("1", "a", "b", accepted_at=10.5), record("2", "a", accepted_at=30.5))
    living = fill(record("3", "c", accepted_at=20.5))
    idle = fill()
    idle.adopt()
    names = [dead.owner, living.owner, idle.owner]
    dead.close()
    with SpoolView(path) as view:
        owners = view.owners()
    assert [(owner.name, owner.alive) for owner in owners] == [(names[0], False), (names[1], True), (names[2], True)]
    first, second, third = (owner.content for owner in owners)
    assert (first.records, first.types, first.oldest_at, first.newest_at) == (2, {"a": 2, "b": 1}, 10.5, 30.5)
    assert first.nbytes == len(record("1", "a", "b").body) + len(record("2", "a").body)
    assert (second.records, second.types) == (1, {"c": 1})
    assert (third.records, third.oldest_at) == (0, None)


def test_looking_leaves_nothing_behind_and_takes_nothing_away(path: Path, fill: Fill) -> None:
    fill(record("1", "a")).close()
    before = path.read_bytes()
    with SpoolView(path) as view:
        assert view.owners()
        assert view.orphans().records == 1
        assert not list(view.damage())
        assert view.quarantine()[0].records == 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
    living = fill(record("2", "a"))
    beside = {file.name for file in path.parent.iterdir()}
    with SpoolView(path) as view:
        assert len(view.owners()) == 2
    assert {file.name for file in path.parent.iterdir()} == beside
    assert [one.req_guid for one in living.take(1000)] == ["2"]


@pytest.mark.parametrize("wire", ["proto", "json"])
def test_drop_by_type_leaves_the_other_events_of_a_batch(path: Path, fill: Fill, wire: str) -> None:
    fill(record("1", "a", "b", "a", wire=wire), record("2", "a", wire=wire), record("3", "c", "b", wire=wire)).close()
    with SpoolView(path) as view:
        wanted = Filter(event_type="a")
        assert view.orphans(wanted).types == {"a": 3}
        assert view.drop(wanted) == {"a": 3}
        assert view.orphans(wanted).records == 0
        assert not list(view.damage())
    assert events_of(path) == [("1", [("b", b"b 1")]), ("3", [("c", b"c 3"), ("b", b"b 3")])]


def test_drop_by_owner_and_age(path: Path, fill: Fill) -> None:
    first = fill(record("old", "a", accepted_at=10.0), record("new", "a", accepted_at=20.0))
    second = fill(record("other", "b", accepted_at=5.0))
    owner = first.owner
    first.close()
    second.close()
    with SpoolView(path) as view:
        assert view.drop(Filter(owner=owner[:12], before=20.0)) == {"a": 1}
        assert view.drop(Filter(owner="0" * 32)) == {}
    assert [guid for guid, _ in events_of(path)] == ["new", "other"]
    with SpoolView(path) as view:
        assert view.drop(Filter()) == {"a": 1, "b": 1}
        assert view.owners() == []


def test_records_of_a_living_owner_stay(path: Path, fill: Fill) -> None:
    living = fill(record("1", "a"))
    with SpoolView(path) as view:
        assert view.orphans().records == 0
        assert view.drop(Filter()) == view.drop(Filter(event_type="a")) == {}
    assert [one.req_guid for one in living.take(1000)] == ["1"]


def test_records_adopted_before_the_drop_stay(path: Path, fill: Fill, monkeypatch) -> None:
    fill(*(record(str(number), "a") for number in range(200))).close()
    with SpoolView(path) as view:
        find = view._orphans

        def find_late(wanted: Filter) -> Iterator[object]:
            found = list(find(wanted))
            heir = fill()
            heir.adopt()
            heir.remove([one.id for one in heir.take(1 << 30)][:50])
            return iter(found)

        monkeypatch.setattr(view, "_orphans", find_late)
        assert view.drop(Filter()) == {}
        assert view.owners()[0].content.records == 150


def test_many_are_dropped_in_several_transactions(path: Path, fill: Fill) -> None:
    fill(*(record(str(number), "a", "b") for number in range(300))).close()
    statements: list[str] = []
    with SpoolView(path) as view:
        view._db.set_trace_callback(statements.append)
        assert view.drop(Filter()) == {"a": 300, "b": 300}
    assert statements.count("COMMIT") == 5


def test_damage_is_reported_and_then_in_quarantine(path: Path, fill: Fill) -> None:
    fill(record("1", "a"), record("2", "a"), record("3", "b")).close()
    damage(path, "UPDATE records SET body = zeroblob(3) WHERE req_guid = '2'")
    damage(path, "UPDATE records SET accepted_at = 'noon' WHERE req_guid = '3'")
    with SpoolView(path) as view:
        faults = list(view.damage())
        assert [fault.split("request ")[1] for fault in faults] == [
            f"{guid}: its checksum does not hold" for guid in "23"
        ]
        assert view.drop(Filter(event_type="nothing")) == {}
    assert [guid for guid, _ in events_of(path)] == ["1"]
    with SpoolView(path) as view:
        assert not list(view.damage())
        content, reasons = view.quarantine()
        assert (content.records, content.types) == (2, {"a": 1, "b": 1})
        assert reasons == {"its checksum does not hold": 2}
        assert view.drop_quarantine() == 2
        assert view.quarantine()[0].records == 0


def test_a_damaged_record_of_several_types_is_dropped_only_as_a_whole(path: Path, fill: Fill) -> None:
    fill(record("1", "a", "b")).close()
    damage(path, "UPDATE records SET body = zeroblob(3)")
    with SpoolView(path) as view:
        assert view.drop(Filter(event_type="a")) == {}
        assert view.drop(Filter()) == {"a": 1, "b": 1}


def test_a_damaged_file_is_reported(path: Path, fill: Fill) -> None:
    fill(*(record(f"{number:04}", *["a"] * 100) for number in range(100))).close()
    data = bytearray(path.read_bytes())
    data[40_000:60_000] = bytes(20_000)
    path.write_bytes(data)
    with SpoolView(path) as view:
        faults = []
        try:
            faults += view.damage()
        except SpoolError as error:
            faults.append(str(error))
    assert faults


def test_files_set_aside_are_shown(path: Path, fill: Fill) -> None:
    path.write_bytes(b"no database" * 1000)
    fill(record("1", "a"))
    with SpoolView(path) as view:
        (aside,) = view.set_aside()
    assert aside.read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a spool"),
        (b"text" * 1000, "is not a spool"),
        ("CREATE TABLE other (id)", "is not a spool"),
        ("PRAGMA user_version = 7", "another release"),
    ],
)
def test_a_file_that_is_not_a_spool_is_left_alone(path: Path, fill: Fill, content: bytes | str, message: str) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        if "version" in content:
            fill().adopt()
        damage(path, content)
    before = path.read_bytes()
    with pytest.raises(SpoolError, match=message):
        SpoolView(path)
    assert path.read_bytes() == before


def test_a_missing_file_is_not_created(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such spool"):
        SpoolView(path)
    assert not path.exists()


def test_a_spool_that_another_writes_to_is_an_error_that_says_so(path: Path, fill: Fill, monkeypatch) -> None:
    monkeypatch.setattr("raccoon_fast.spool.view._BUSY_S", 0.05)
    fill(record("1", "a")).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with SpoolView(path) as view:
        assert view.orphans().types == Counter(a=1)
        with pytest.raises(SpoolError, match="locked"):
            view.drop(Filter())
    other.close()
