"""Batches on disk, for a later moment of this process or for the process after it.

SQLite in WAL mode. What `put` returned survives the death of the process at any moment; a power failure may take the
last commits back (synchronous=NORMAL, https://www.sqlite.org/pragma.html#pragma_synchronous).

A record belongs to an owner: an open Spool. An owner holds a lock on a file of its own, which the kernel lets go when
its process dies, however it dies; then a living owner takes its records over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
import uuid
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.errors import RaccoonError
from raccoon_fast.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from raccoon_fast.logs import Log

__all__ = [
    "VERSION",
    "Record",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "checksum_of",
    "counts_of",
    "decode_text",
    "is_alive",
    "lock_path",
]

#: The database's user_version.
VERSION = 1
_BUSY_S = 5.0
_SCHEMA = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, req_guid TEXT NOT NULL, wire TEXT NOT NULL,
    accepted_at REAL NOT NULL, types TEXT NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX records_of_owner ON records (owner);
CREATE TABLE quarantine (
    id INTEGER, reason TEXT, owner TEXT, req_guid TEXT, wire TEXT, accepted_at REAL, types TEXT, checksum INTEGER,
    body BLOB
);
"""
# Connections of a parent process: to close them here would drop the parent's locks on the file.
_inherited: list[sqlite3.Connection] = []
# Held while SQLite works, and over a fork: a child could never get a lock of SQLite's that another thread held then.
_working = new_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_working.acquire, after_in_parent=_working.release, after_in_child=_working.release)


class SpoolError(RaccoonError):
    """The disk did not do what it was asked for."""


class SpoolFull(SpoolError):
    """There is no room for more records: by `max_bytes`, or on the disk."""


class Record(NamedTuple):
    """A batch as it is stored.

    Attributes:
        req_guid: Its guid.
        wire: "proto" or "json".
        accepted_at: UNIX time of its first event.
        types: Events by type.
        body: Its events in wire format (raccoon_fast.core.envelope, `body`).
        id: Its number in the spool; 0 before it is there.
    """

    req_guid: str
    wire: str
    accepted_at: float
    types: Mapping[str, int]
    body: bytes
    id: int = 0


class Spool:
    """Records of this process, in a file that several processes may share.

    Every call may block on the disk. Used by one thread at a time.

    Args:
        path: The database; made when it is not there. Beside it stand SQLite's own files and a lock file an owner.
        max_bytes: Bytes of bodies that this owner keeps, at most.
        logger: Told of records that cannot be read, and of a file that is set aside.
    """

    def __init__(self, path: Path, *, max_bytes: int, logger: Log) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._logger = logger
        self._db: sqlite3.Connection | None = None
        self._owner = ""
        self._lock = -1
        # By number: bytes, and types as text. Of what was not handed out, in order, and of what was.
        self._waiting: dict[int, tuple[int, str]] = {}
        self._taken: dict[int, tuple[int, str]] = {}
        self._lost: Counter[str] = Counter()

    @property
    def owner(self) -> str:
        """Whose the records are in the file, a name for each time that it is opened; "" while it is not."""
        return self._owner

    @property
    def available(self) -> int:
        """How many records `take` would find."""
        return len(self._waiting)

    def adopt(self) -> Counter[str]:
        """Open the file if it is not open, and take over the records of owners that are no more.

        Returns:
            Their events by type.

        Raises:
            SpoolError: The disk would not.
        """
        adopted: list[tuple[int, int, str]] = []
        with self._database() as db:
            owners = [
                owner for (owner,) in db.execute("SELECT DISTINCT owner FROM records WHERE owner != ?", [self._owner])
            ]
            for owner in owners:
                if is_alive(self.path, owner):
                    continue
                with contextlib.suppress(OSError, ValueError):  # what is damaged may be no name
                    lock_path(self.path, owner).unlink()
                adopted += db.execute(
                    "SELECT id, length(body), types FROM records WHERE owner = ? ORDER BY id", [owner]
                )
                db.execute("UPDATE records SET owner = ? WHERE owner = ?", [self._owner, owner])
        types: Counter[str] = Counter()
        for number, size, text in adopted:
            self._waiting[number] = (size, text)
            self.nbytes += size
            types.update(counts_of(text))
        return types

    def put(self, records: Sequence[Record]) -> list[int]:
        """Store records, all or none.

        Returns:
            Their numbers; they count as handed out, as by `take`.

        Raises:
            SpoolFull: There is no room for them.
            SpoolError: The disk would not.
        """
        size = sum(len(record.body) for record in records)
        if self.nbytes + size > self.max_bytes:
            raise SpoolFull(f"the spool is full: {self.nbytes} of {self.max_bytes} bytes")
        numbers = []
        with self._database() as db:
            for record in records:
                text = json.dumps(dict(record.types))
                row = (record.req_guid, record.wire, record.accepted_at, text)
                cursor = db.execute(
                    "INSERT INTO records (owner, req_guid, wire, accepted_at, types, checksum, body)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [self._owner, *row, checksum_of(*row, record.body), record.body],
                )
                assert cursor.lastrowid is not None
                numbers.append((cursor.lastrowid, len(record.body), text))
        self._taken.update((number, (nbytes, text)) for number, nbytes, text in numbers)
        self.nbytes += size
        return [number for number, _, _ in numbers]

    def take(self, max_bytes: int) -> list[Record]:
        """Hand out the oldest records that were not handed out yet: up to `max_bytes` of bodies, or one.

        A record that cannot be read is put into quarantine, and its events count as lost.

        Raises:
            SpoolError: The disk would not.
        """
        numbers: list[int] = []
        size = 0
        for number, (nbytes, _) in self._waiting.items():
            size += nbytes
            if numbers and size > max_bytes:
                break
            numbers.append(number)
        records = []
        with self._database() as db:
            for number in numbers:
                row = db.execute(
                    "SELECT req_guid, wire, accepted_at, types, checksum, body FROM records WHERE id = ?", [number]
                ).fetchone()
                if row is None:
                    reason = "it is not there"
                else:
                    req_guid, wire, accepted_at, text, checksum, body = row
                    if isinstance(body, bytes) and checksum_of(req_guid, wire, accepted_at, text, body) == checksum:
                        records.append(Record(req_guid, wire, accepted_at, counts_of(text), body, number))
                        continue
                    reason = "its checksum does not hold"
                self._logger.error("a record of the spool %s is lost: %s (number %d)", self.path, reason, number)
                _quarantine(db, number, reason)
        kept = {record.id for record in records}
        for number in numbers:
            entry = self._waiting.pop(number)
            if number in kept:
                self._taken[number] = entry
            else:
                self.nbytes -= entry[0]
                self._lost.update(counts_of(entry[1]))
        return records

    def give_back(self, numbers: Iterable[int]) -> None:
        """Let records that were handed out be taken again."""
        for number in numbers:
            if number in self._taken:
                self._waiting[number] = self._taken.pop(number)

    def remove(self, numbers: Iterable[int]) -> None:
        """Delete records: their events are settled.

        Raises:
            SpoolError: The disk would not; they are found again by the next process.
        """
        numbers = [number for number in numbers if number in self._taken]
        with self._database() as db:
            db.executemany("DELETE FROM records WHERE id = ?", [[number] for number in numbers])
        for number in numbers:
            self.nbytes -= self._taken.pop(number)[0]

    def quarantine(self, numbers: Iterable[int], reason: str) -> None:
        """Move records that were handed out into quarantine, for `raccoon-fast spool` to show: they are not sent again.

        Args:
            numbers: Others than those handed out are ignored.
            reason: Why, as a clause: "it was refused by every server".

        Raises:
            SpoolFull: The quarantine holds `max_bytes` of bodies already, or the disk is full.
            SpoolError: The disk would not; they stay where they are.
        """
        numbers = [number for number in numbers if number in self._taken]
        with self._database() as db:
            self._check_quarantine(db, sum(self._taken[number][0] for number in numbers))
            for number in numbers:
                _quarantine(db, number, reason)
        for number in numbers:
            self.nbytes -= self._taken.pop(number)[0]

    def put_quarantined(self, record: Record, reason: str) -> None:
        """Store events that have no record of their own in quarantine; arguments and errors as `quarantine`."""
        text = json.dumps(dict(record.types))
        row = (record.req_guid, record.wire, record.accepted_at, text)
        with self._database() as db:
            self._check_quarantine(db, len(record.body))
            db.execute(
                "INSERT INTO quarantine (reason, owner, req_guid, wire, accepted_at, types, checksum, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [reason, self._owner, *row, checksum_of(*row, record.body), record.body],
            )

    def _check_quarantine(self, db: sqlite3.Connection, size: int) -> None:
        (held,) = db.execute("SELECT coalesce(sum(length(body)), 0) FROM quarantine").fetchone()
        if held + size > self.max_bytes:
            raise SpoolFull(
                f"the quarantine of the spool {self.path} is full: {held} of {self.max_bytes} bytes; "
                "look at it with `raccoon-fast spool ls`, empty it with `raccoon-fast spool drop --quarantine`"
            )

    def pop_lost(self) -> Counter[str]:
        """Events by type of records that were not handed out and cannot be any more, each told once."""
        lost, self._lost = self._lost, Counter()
        return lost

    def close(self) -> None:
        """Let go of the records; whoever opens the file next takes them over. Idempotent."""
        with _working:
            self._close()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
            lock_path(self.path, self._owner).unlink(missing_ok=True)
            os.close(self._lock)
        self._forget()

    def after_fork(self) -> None:
        """In a forked child: the records are the parent's. Nothing of SQLite's may be touched here."""
        if self._db is not None:
            _inherited.append(self._db)
            self._db = None
            os.close(self._lock)  # the parent's descriptor keeps the lock
        self._forget()

    def _forget(self) -> None:
        self._waiting.clear()
        self._taken.clear()
        self.nbytes = 0
        self._owner = ""

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, opened on first use; its errors are named."""
        with _working, self._named_errors():
            db = self._db or self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            self._roll_back()
            kind = SpoolFull if "full" in str(error) else SpoolError
            raise kind(f"the spool {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            self._roll_back()
            if _is_damage(error):
                self._set_aside(error)
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        try:
            db = self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            db = self._connect()
        self._owner = uuid.uuid4().hex
        import fcntl  # not on Windows, where no spool is made

        self._lock = os.open(lock_path(self.path, self._owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._db = db
        return db

    def _connect(self) -> sqlite3.Connection:
        # Made here so that nobody else may read it: events can be private. Never opened when it is there: to close any
        # descriptor of it drops the locks that SQLite holds on it for another spool of this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        db.text_factory = decode_text
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise SpoolError(
                    f"the spool {self.path} was written by another release (its version is {version}, not {VERSION}): "
                    "name another file"
                )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("SELECT count(*) FROM records").fetchone()
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """A file that SQLite cannot read is kept under another name, and a new one is begun."""
        aside = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self._logger.error("the spool %s is damaged (%s); it is kept as %s and begun anew", self.path, error, aside)
        for _, text in self._waiting.values():
            self._lost.update(counts_of(text))
        self._close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")


def lock_path(path: Path, owner: str) -> Path:
    """The file that an owner of the spool at `path` holds a lock on."""
    return path.with_name(f"{path.name}.{owner}.lock")


def is_alive(path: Path, owner: str) -> bool:
    """Whether an owner of the spool at `path` has it open, in whatever process."""
    if not re.fullmatch("[0-9a-f]{32}", owner):
        return False
    import fcntl

    try:
        lock = os.open(lock_path(path, owner), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _quarantine(db: sqlite3.Connection, number: int, reason: str) -> None:
    db.execute(
        "INSERT INTO quarantine SELECT id, ?, owner, req_guid, wire, accepted_at, types, checksum, body"
        " FROM records WHERE id = ?",
        [reason, number],
    )
    db.execute("DELETE FROM records WHERE id = ?", [number])


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def decode_text(data: bytes) -> str:
    """Text of the database; damaged text does not decode: its checksum tells."""
    return data.decode("utf-8", "replace")


def checksum_of(req_guid: str, wire: str, accepted_at: float, types: str, body: bytes) -> int:
    """The checksum that is stored beside a record's other columns."""
    return zlib.crc32(body, zlib.crc32(f"{req_guid}\n{wire}\n{accepted_at!r}\n{types}".encode("utf-8", "replace")))


def counts_of(text: object) -> dict[str, int]:
    """Events by type, from how they are stored; a record whose text is damaged has none."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return {str(name): int(count) for name, count in json.loads(text).items()}  # type: ignore[arg-type]
    return {}
