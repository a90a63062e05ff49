"""The spool's database file: opened, owned, looked after before each use, and set aside when it is damaged.

Strategy. SQLite finds its files by name when it opens them and by descriptor from then on; what happens to either in
between it does not notice, and its locks do not survive a fork. So each transaction begins with a look at both (some
microseconds): whether the names still lead to the files that are open, and whether the descriptors are still those of
these files. Where they are not, the connection is *dropped*: its descriptors are first replaced by ones that cannot be
locked, so that SQLite, when it closes the connection, neither writes to files that are not its own any more nor deletes
those of other processes, and forgets what it knew of the locks.
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

__all__ = ["VERSION", "SpoolDamaged", "SpoolError", "SpoolFile", "SpoolFull", "SpoolLocked", "is_alive", "lock_path"]

#: The database's user_version.
VERSION = 1
# How long a transaction waits for those of other processes, and how often it tries meanwhile.
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
    """The disk did not do what it was asked for."""


class SpoolFull(SpoolError):
    """There is no room for more records: by `max_bytes`, or on the disk."""


class SpoolLocked(SpoolError):
    """Another program holds the file's lock, and did not let go of it in time."""


class SpoolDamaged(SpoolError):
    """The file could not be read, and was set aside: the next call begins a new one."""


class _Process:
    """What the spools of this process share.

    Attributes:
        working: Held while SQLite works, and over a fork: a child could never get a lock of SQLite's that another
            thread held then. Nothing waits for another process, and no user's code runs, while it is held.
        pid: Whose it is.
        is_stuck: Whether SQLite was at work when this process was forked, and may not be touched here.
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
        """Idempotent. Called by the hook, or late, by whoever noticed a fork that ran no hooks."""
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
        path: The database; made when it is not there. Beside it stand SQLite's own files and one lock file per owner.
        logger: Told of a file that is set aside, missing or replaced.
        on_lost: Called when all of this owner's records are gone with the file.
        on_moved: Called when they were copied to a new file, with their new ids by their old ones.

    Attributes:
        owner: 32 hexadecimal digits; "" before the file is opened and after it is closed.
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
        # What is open, by descriptor, and where it was found, by name.
        self._descriptors: dict[int, Identity] = {}
        self._names: dict[str, Identity | None] = {}
        # This owner's records, while they are on their way from a file that is gone to another.
        self._rescued: Path | None = None
        self._is_homeless = False
        self._unusable = ""
        self._lines: list[tuple[Any, ...]] = []

    @contextlib.contextmanager
    def transaction(self, *, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, opened on first use.

        Args:
            lasting: Whether it is to store something, which a file that has lost its name cannot.

        Raises:
            SpoolLocked, SpoolFull, SpoolError: It was rolled back.
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
        """Keep an error to be logged once the transaction is over, or by `tell`."""
        self._lines.append((text, *args))

    def close(self) -> None:
        """Close the database and let go of the lock. Idempotent."""
        with _process.working:
            if self._db is not None or self._rescued is not None:
                with contextlib.suppress(SpoolError), self._named_errors():
                    self._look_after()  # what is left is found by name
            if self._rescued is not None:
                self.say(
                    "the records of the spool %s are kept as %s: no new file could be made", self.path, self._rescued
                )
            if self._db is not None and self._names_lead_elsewhere():
                self.say("the records of the spool %s are lost: its directory is gone", self.path)
                self._on_lost()
                self._drop()
            self._close()
        self.tell()

    def after_fork(self) -> None:
        """In a forked child: let go of what is the parent's."""
        _process.after_fork_in_child()
        if self._db is not None:
            if _process.is_stuck:
                self._abandon("this process was forked while the disk was at work: make the producer after the fork")
            else:
                self._drop()
        self._unlock(unlink=False)  # the parent's descriptor keeps it
        self.owner = ""
        self._rescued = None
        self._is_homeless = False
        self._lines.clear()

    # Transactions

    def _begin(self, lasting: bool) -> Any:
        """Begin one, with `working` held, which is returned."""
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
                _sleep(_TRY_AGAIN_S)  # while a fork may take its turn
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
        """Log what was said; with nothing locked, for a logger is anybody's code."""
        lines, self._lines = self._lines, []
        for line in lines:
            self._logger.error(*line)

    # Looking after it; with `working` held

    def _look_after(self) -> None:
        """Open the file, or open it again where that is needed."""
        if self._db is not None and any(identity_of(fd) != found for fd, found in self._descriptors.items()):
            self.say("the descriptors of the spool %s were closed by this program; it is opened again", self.path)
            self._drop()
        if self._unusable:
            raise SpoolError(f"the spool {self.path} cannot be used: {self._unusable}")
        if self._db is None:
            self._open()
        elif self._names_lead_elsewhere():
            self._move()
        else:
            self._lock_owner()  # where its file was deleted, others take this one for dead

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
            real = os.path.realpath(self.path)  # which SQLite names its files after
            self._names = {name: identity_of(name) for name in (str(self.path), f"{real}-wal", f"{real}-shm")}
            known = set(self._names.values())
            self._descriptors = {fd: one for fd, one in open_files().items() if fd not in before and one in known}
            if not self.owner:
                self.owner = uuid.uuid4().hex
            self._lock_owner()
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
        # Made here so that nobody else may read it: events can be private. Never opened when it is there: to close any
        # descriptor of it drops the locks that SQLite holds on it for another spool of this process.
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
        import fcntl  # not on Windows, where no spool is made

        if self._lock >= 0 and identity_of(self._lock) == identity_of(lock_path(self.path, self.owner)):
            return
        self._unlock(unlink=False)
        lock = os.open(lock_path(self.path, self.owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):  # another process is asking `is_alive`
                raise SpoolLocked(f"the spool {self.path} cannot be used: its owner's lock is held") from error
            raise
        self._lock = lock
        self._lock_identity = identity_of(lock)

    def _unlock(self, *, unlink: bool) -> None:
        lock, self._lock = self._lock, -1
        if unlink:
            with contextlib.suppress(OSError):
                lock_path(self.path, self.owner).unlink(missing_ok=True)
        if lock >= 0 and identity_of(lock) == self._lock_identity:  # not what another has opened under its number since
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

    # What happens to it

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """A file that SQLite cannot read is kept under another name, and a new one is begun."""
        self._roll_back()
        name = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        others = (f"{name}-{number}" for number in itertools.count(1))
        aside = next(one for one in itertools.chain([name], others) if not Path(one).exists())
        self.say("the spool %s is damaged (%s); it is kept as %s, and a new file is begun", self.path, error, aside)
        if self._rescued is None:
            self._on_lost()
        self._close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")

    def _move(self) -> None:
        """The file was deleted or replaced, or one of SQLite's beside it: bring the records to the one of its name."""
        assert self._db is not None
        if not self._is_homeless:
            self.say(
                "the spool %s was deleted or replaced by another program; its records move to a new file", self.path
            )
        rescued = self.path.with_name(f"{self.path.name}.{self.owner}.rescued")
        try:
            os.close(os.open(rescued, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        except OSError:
            self._is_homeless = True  # what is open still can be read
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
            # SQLite would take the log of the old file for that of the new one.
            for name, found in self._names.items():
                if identity_of(name) == found:
                    with contextlib.suppress(OSError):
                        Path(name).unlink()
        self._drop()
        self._open()

    def _take_in(self, db: sqlite3.Connection, rescued: Path) -> None:
        """Copy the records that were rescued, as far as the file does not have them."""
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
        """Close a connection whose files or locks are not its own any more: see Strategy."""
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
            self._abandon("its descriptors were closed, and opened by something else: make the producer after closing")
            return
        self._descriptors = {}
        self._names = {}

    def _abandon(self, why: str) -> None:
        """Keep a connection that cannot be closed, and with it whatever SQLite thinks of this file."""
        assert self._db is not None
        _process.abandoned.append(self._db)
        self._db = None
        if self._descriptors:  # or it is as if the connection were a good one of somebody else's
            self._unusable = why
        self._descriptors = {}
        self._names = {}


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


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _sleep(seconds: float) -> None:
    """As time.sleep, also where gevent has made that a greenlet's."""
    lock = new_lock()
    lock.acquire()
    lock.acquire(True, seconds)
