"""The spool's database file: opens it, owns it, checks it before each use, and sets it aside when it is damaged.

Strategy. SQLite finds its files by name when it opens them, and uses descriptors from then on. It does not notice later
changes of either, and its locks do not survive a fork. So each transaction starts with a check of both (a few
microseconds): whether the names still lead to the open files, and whether the descriptors still belong to
these files. If not, the connection is *dropped*: its descriptors are first replaced by ones that cannot be
locked, so that SQLite, when it closes the connection, does not write to files that are no longer its own, does not
delete files of other processes, and forgets its locks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sqlite3
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_fast.errors import RaccoonError
from raccoon_fast.spool.descriptors import identity_of, null_above, open_files, replace
from raccoon_fast.spool.records import decode_text
from raccoon_fast.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from raccoon_fast.logs import Log
    from raccoon_fast.spool.descriptors import Identity

__all__ = [
    "VERSION",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFile",
    "SpoolFull",
    "SpoolLocked",
    "is_alive",
    "lock_path",
    "locking_owners",
    "unlink_dead",
]

#: The database's user_version.
VERSION = 1
# How long a transaction waits for those of other processes, and how often it retries.
_BUSY_S = 1.0
_TRY_AGAIN_S = 0.005
# How long a fork waits while SQLite works; after that the child has no spool.
_FORK_WAIT_S = 0.5
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


class SpoolError(RaccoonError):
    """A disk operation failed."""


class SpoolFull(SpoolError):
    """There is no room for more records, within `max_bytes` or on the disk."""


class SpoolLocked(SpoolError):
    """Another program holds the file's lock, and did not release it in time."""


class SpoolDamaged(SpoolError):
    """The file could not be read and was set aside; the next call starts a new one."""


class _Process:
    """State shared by the spools of this process.

    Attributes:
        working: Held while SQLite works, and over a fork: a child could never get a SQLite lock that another
            thread held then. Nothing waits for another process, and no user's code runs, while it is held.
        pid: The process that it belongs to.
        is_stuck: Whether SQLite was working when this process was forked, and must not be used here.
        abandoned: Connections that cannot be closed.
    """

    def __init__(self) -> None:
        self.working = new_lock()
        self.pid = os.getpid()
        self.is_stuck = False
        self.abandoned: list[sqlite3.Connection] = []
        self._is_held = False

    def before_fork(self) -> None:
        self._is_held = self.working.acquire(True, _FORK_WAIT_S)

    def after_fork_in_parent(self) -> None:
        if self._is_held:
            self._is_held = False
            self.working.release()

    def after_fork_in_child(self) -> None:
        """Idempotent. Called by the fork hook, or later by code that notices a fork without hooks."""
        if self.pid == os.getpid():
            return
        self.pid = os.getpid()
        self.is_stuck = self.is_stuck or (self.working.locked() and not self._is_held)
        self._is_held = False
        self.working = new_lock()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_process.before_fork,
        after_in_parent=_process.after_fork_in_parent,
        after_in_child=_process.after_fork_in_child,
    )


class SpoolFile:
    """A connection to the database, and the lock of the owner whose records it stores.

    Used by one thread at a time; every call may block on the disk.

    Args:
        path: The database; created if missing. Beside it are SQLite's own files and one lock file per owner.
        logger: Logs a file that is set aside, missing or replaced.
        on_lost: Called when all records of this owner are lost with the file.
        on_moved: Called when they were copied to a new file, with the new ids by old id.

    Attributes:
        owner: The owner id, 32 hexadecimal digits; "" before the file is opened and after it is closed.
    """

    def __init__(
        self, path: Path, logger: Log, on_lost: Callable[[], None], on_moved: Callable[[Mapping[int, int]], None]
    ) -> None:
        self.path = path
        self.owner = ""
        self._logger = logger
        self._on_lost = on_lost
        self._on_moved = on_moved
        self._db: sqlite3.Connection | None = None
        self._lock = -1
        self._lock_identity: Identity | None = None
        # The open files by descriptor, and the names under which they were found.
        self._descriptors: dict[int, Identity] = {}
        self._names: dict[str, Identity | None] = {}
        # This owner's records, while they move from a deleted file to a new one.
        self._rescued: Path | None = None
        self._is_homeless = False
        self._unusable = ""
        self._lines: list[tuple[Any, ...]] = []

    @contextlib.contextmanager
    def transaction(self, *, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a transaction on the database, which is opened on first use.

        Args:
            lasting: Whether it stores data, which is impossible in a file without a name.

        Raises:
            SpoolLocked, SpoolFull, SpoolError: The transaction was rolled back.
        """
        working = self._begin(lasting)
        try:
            with self._named_errors():
                assert self._db is not None
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                finally:
                    self._roll_back()
        finally:
            working.release()
            self.tell()

    def say(self, text: str, *args: object) -> None:
        """Keep an error to log when the transaction is over, or in `tell`."""
        self._lines.append((text, *args))

    def close(self) -> None:
        """Close the database and release the lock. Idempotent."""
        with _process.working:
            if self._db is not None or self._rescued is not None:
                with contextlib.suppress(SpoolError), self._named_errors():
                    self._look_after()  # remaining records are found by name
            if self._rescued is not None:
                self.say(
                    "the records of the spool %s are kept as %s because no new file could be made",
                    self.path,
                    self._rescued,
                )
            if self._db is not None and self._names_lead_elsewhere():
                self.say("the records of the spool %s are lost because its directory is gone", self.path)
                self._on_lost()
                self._drop()
            self._close()
        self.tell()

    def after_fork(self) -> None:
        """In a forked child: release everything that belongs to the parent."""
        _process.after_fork_in_child()
        if self._db is not None:
            if _process.is_stuck:
                self._abandon("this process was forked while SQLite was working; create the producer after the fork")
            else:
                self._drop()
        self._unlock(unlink=False)  # the parent's descriptor keeps the lock
        self.owner = ""
        self._rescued = None
        self._is_homeless = False
        self._lines.clear()

    # Transactions

    def _begin(self, lasting: bool) -> Any:
        """Begin a transaction, with `working` held, which is returned."""
        end_s = time.monotonic() + _BUSY_S
        while True:
            working = _process.working
            working.acquire()
            try:
                with self._named_errors():
                    self._look_after()
                    if lasting and self._is_homeless:
                        raise SpoolError(f"the spool {self.path} cannot be used: its directory is gone")
                    assert self._db is not None
                    self._db.execute("BEGIN IMMEDIATE")
            except BaseException as error:
                working.release()
                self.tell()
                if not isinstance(error, SpoolLocked) or time.monotonic() >= end_s:
                    raise
                _sleep(_TRY_AGAIN_S)  # a fork may happen meanwhile
            else:
                return working

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            kind = SpoolFull if "full" in str(error) else SpoolLocked if "locked" in str(error) else SpoolError
            raise kind(f"the spool {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            kind = SpoolError
            if _is_damage(error):
                self._set_aside(error)
                kind = SpoolDamaged
            raise kind(f"the spool {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def tell(self) -> None:
        """Log kept errors, without holding a lock, because a logger may run any code."""
        lines, self._lines = self._lines, []
        for line in lines:
            self._logger.error(*line)

    # Checks of the file; with `working` held

    def _look_after(self) -> None:
        """Open the file, or reopen it if needed."""
        if self._db is not None and self._are_closed():
            self.say("this program closed the descriptors of the spool %s; the spool is opened again", self.path)
            self._drop()
        if self._unusable:
            raise SpoolError(f"the spool {self.path} cannot be used: {self._unusable}")
        if self._db is None:
            self._open()
        elif self._names_lead_elsewhere():
            self._move()
        else:
            self._lock_owner()  # if its file was deleted, other processes consider this owner dead

    def _are_closed(self) -> bool:
        """Whether this program closed the descriptors.

        Some may belong to another connection of this program, which was opened at the same moment: if one is closed and
        another one of the same file is not, it is forgotten.
        """
        still_open = {fd: found for fd, found in self._descriptors.items() if identity_of(fd) == found}
        if {*still_open.values()} != {*self._descriptors.values()}:
            return True
        self._descriptors = still_open
        return False

    def _names_lead_elsewhere(self) -> bool:
        return any(identity_of(name) != found for name, found in self._names.items())

    def _open(self) -> None:
        if _process.is_stuck:
            raise SpoolError(f"the spool {self.path} cannot be used: SQLite was at work when this process was forked")
        before = open_files()
        try:
            self._db = self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            self._db = self._connect()
        try:
            real = os.path.realpath(self.path)  # SQLite derives its file names from it
            self._names = {name: identity_of(name) for name in (str(self.path), f"{real}-wal", f"{real}-shm")}
            known = set(self._names.values())
            self._descriptors = {fd: one for fd, one in open_files().items() if fd not in before and one in known}
            if not self.owner:
                self.owner = uuid.uuid4().hex
            self._lock_owner()
            self._unlink_dead(self._db)
            if self._rescued is not None:
                self._take_in(self._db, self._rescued)
        except BaseException:
            db, self._db = self._db, None
            db.close()
            self._descriptors = {}
            self._names = {}
            raise
        self._is_homeless = False

    def _connect(self) -> sqlite3.Connection:
        # Created here so that no other user can read it: events can be private. Never opened if it exists: closing any
        # descriptor of it releases the locks that SQLite holds on it for another spool of this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
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
            if version == 0:
                db.execute("BEGIN IMMEDIATE")
                if db.execute("PRAGMA user_version").fetchone() == (0,):
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
            db.execute("SELECT count(*) FROM records").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def _lock_owner(self) -> None:
        import fcntl  # not on Windows, which has no spool

        if self._lock >= 0 and identity_of(self._lock) == identity_of(lock_path(self.path, self.owner)):
            return
        self._unlock(unlink=False)
        lock = os.open(lock_path(self.path, self.owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if identity_of(lock) != identity_of(lock_path(self.path, self.owner)):
                raise BlockingIOError  # deleted by another process's `unlink_dead` before it was locked
        except BaseException as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):  # another process is calling `is_alive` or `unlink_dead`
                raise SpoolLocked(f"the spool {self.path} cannot be used: its owner's lock is held") from error
            raise
        self._lock = lock
        self._lock_identity = identity_of(lock)

    def _unlink_dead(self, db: sqlite3.Connection) -> None:
        """Delete the lock files of processes that were killed; those of owners with records are left to `adopt`."""
        with contextlib.suppress(OSError):
            owners = {*locking_owners(self.path)} - {self.owner}
            if owners:
                owners -= {owner for (owner,) in db.execute("SELECT DISTINCT owner FROM records")}
            for owner in owners:
                unlink_dead(self.path, owner)

    def _unlock(self, *, unlink: bool) -> None:
        lock, self._lock = self._lock, -1
        if unlink:
            with contextlib.suppress(OSError):
                lock_path(self.path, self.owner).unlink(missing_ok=True)
        if lock >= 0 and identity_of(lock) == self._lock_identity:  # not a file that was opened under its number since
            os.close(lock)

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
        if self.owner:
            self._unlock(unlink=True)
        self._descriptors = {}
        self._names = {}
        self.owner = ""

    # Damage and replacement

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Rename a file that SQLite cannot read, and start a new one."""
        self._roll_back()
        name = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        others = (f"{name}-{number}" for number in itertools.count(1))
        aside = next(one for one in itertools.chain([name], others) if not Path(one).exists())
        self.say("the spool %s is damaged (%s); it is kept as %s, and a new file is started", self.path, error, aside)
        if self._rescued is None:
            self._on_lost()
        self._close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")

    def _move(self) -> None:
        """Move the records to a new file, because the file or one of SQLite's beside it was deleted or replaced."""
        assert self._db is not None
        if not self._is_homeless:
            self.say(
                "the spool %s was deleted or replaced by another program; its records move to a new file", self.path
            )
        rescued = self.path.with_name(f"{self.path.name}.{self.owner}.rescued")
        try:
            os.close(os.open(rescued, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        except OSError:
            self._is_homeless = True  # open files can still be read
            return
        try:
            self._db.execute("ATTACH ? AS rescued", [str(rescued)])
            self._db.execute(
                "CREATE TABLE rescued.records AS SELECT * FROM main.records WHERE owner = ?",
                [self.owner],
            )
            self._db.execute("DETACH rescued")
        except sqlite3.DatabaseError as error:
            self.say("the records of the spool %s are lost: %s", self.path, error)
            rescued.unlink()
            self._on_lost()
        else:
            self._rescued = rescued
        if identity_of(self.path) != self._names[str(self.path)]:
            # SQLite would mistake the log of the old file for that of the new one.
            for name, found in self._names.items():
                if identity_of(name) == found:
                    with contextlib.suppress(OSError):
                        Path(name).unlink()
        self._drop()
        self._open()

    def _take_in(self, db: sqlite3.Connection, rescued: Path) -> None:
        """Copy the rescued records that the file does not have yet."""
        db.execute("ATTACH ? AS rescued", [str(rescued)])
        moved: dict[int, int] = {}
        try:
            db.execute("BEGIN IMMEDIATE")
            for number, req_guid in db.execute("SELECT id, req_guid FROM rescued.records ORDER BY id").fetchall():
                found = db.execute("SELECT owner, req_guid FROM main.records WHERE id = ?", [number]).fetchone()
                if found == (self.owner, req_guid):
                    moved[number] = number
                    continue
                cursor = db.execute(
                    "INSERT INTO main.records (owner, req_guid, wire, accepted_at, types, checksum, body)"
                    " SELECT ?, req_guid, wire, accepted_at, types, checksum, body FROM rescued.records WHERE id = ?",
                    [self.owner, number],
                )
                assert cursor.lastrowid is not None
                moved[number] = cursor.lastrowid
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute("DETACH rescued")
        self._rescued = None
        rescued.unlink()
        self._on_moved(moved)

    def _drop(self) -> None:
        """Close a connection whose files or locks are no longer its own; see Strategy."""
        assert self._db is not None
        try:
            null = null_above(max(self._descriptors, default=0))
        except OSError as error:
            self._abandon(f"it cannot be opened again: {error}")
            return
        db, self._db = self._db, None
        try:
            is_safe = all([replace(fd, found, null) for fd, found in self._descriptors.items()])  # noqa: C419 - all of them
        finally:
            os.close(null)
        if is_safe and self._descriptors:
            with contextlib.suppress(sqlite3.Error):
                db.close()
        else:
            self._db = db
            self._abandon(
                "its descriptors were closed and reused by other code; create the producer after closing descriptors"
            )
            return
        self._descriptors = {}
        self._names = {}

    def _abandon(self, why: str) -> None:
        """Keep a connection that cannot be closed, together with SQLite's view of this file."""
        assert self._db is not None
        _process.abandoned.append(self._db)
        self._db = None
        if self._descriptors:  # otherwise it would look like a valid connection of another spool
            self._unusable = why
        self._descriptors = {}
        self._names = {}


def lock_path(path: Path, owner: str) -> Path:
    """The file on which an owner of the spool at `path` holds a lock."""
    return path.with_name(f"{path.name}.{owner}.lock")


def locking_owners(path: Path) -> list[str]:
    """The owners of the spool at `path` that have a lock file, living and dead."""
    name = re.compile(re.escape(path.name) + r"\.([0-9a-f]{32})\.lock")
    return [found[1] for file in path.parent.iterdir() if (found := name.fullmatch(file.name))]


def is_alive(path: Path, owner: str) -> bool:
    """Whether an owner of the spool at `path` has it open, in any process."""
    if not re.fullmatch("[0-9a-f]{32}", owner):
        return False
    import fcntl

    try:
        lock = os.open(lock_path(path, owner), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two simultaneous callers do not mistake each other for the owner.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def unlink_dead(path: Path, owner: str) -> None:
    """Delete an owner's lock file if no process has it locked."""
    import fcntl

    name = lock_path(path, owner)
    with contextlib.suppress(OSError):
        lock = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if identity_of(lock) == identity_of(name):
                name.unlink()
        finally:
            os.close(lock)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _sleep(seconds: float) -> None:
    """The real time.sleep, even if gevent has patched it."""
    lock = new_lock()
    lock.acquire()
    lock.acquire(True, seconds)
