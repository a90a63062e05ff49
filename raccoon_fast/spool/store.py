"""Batches on disk, for a later moment of this process or for the process after it.

SQLite in WAL mode. What `put` returned survives the death of the process at any moment; a power failure may take the
last commits back (synchronous=NORMAL, https://www.sqlite.org/pragma.html#pragma_synchronous).

A record belongs to an owner: an open Spool. An owner holds a lock on a file of its own, which the kernel lets go when
its process dies, however it dies; then a living owner takes its records over.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.spool.file import SpoolDamaged, SpoolError, SpoolFile, SpoolFull, is_alive, lock_path
from raccoon_fast.spool.records import Record, checksum_of, counts_of, fault_of, text_of
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from raccoon_fast.logs import Log

__all__ = ["Record", "Spool", "SpoolDamaged", "SpoolError", "SpoolFull"]

# Records that cannot be read are logged so often, together.
_TELL_S = 60.0


class _Entry(NamedTuple):
    """What is known in memory of a record.

    Attributes:
        row: Its id in the file.
        nbytes: Its body's size.
        text: Its events by type, as they are stored.
        is_own: Whether this object wrote it.
    """

    row: int
    nbytes: int
    text: str
    is_own: bool

    @property
    def types(self) -> Mapping[str, int]:
        """Its events by type; none where the text makes no sense."""
        return counts_of(self.text)


class Spool:
    """Records of this process, in a file that several processes may share.

    Every call may block on the disk. Used by one thread at a time.

    Records are known by numbers of this object's, each used once: ids of the file begin again in a new one.

    Args:
        path: The database; made when it is not there. Beside it stand SQLite's own files and a lock file an owner.
        max_bytes: Bytes of bodies that this owner keeps, at most; and of those in quarantine.
        logger: Told of records that cannot be read, and of a file that is set aside, deleted or replaced.
    """

    def __init__(self, path: Path, *, max_bytes: int, logger: Log) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._file = SpoolFile(path, logger, self._lose_all, self._move)
        self._numbers = itertools.count(1)
        # By number. Those that were not handed out, in order; those that were; and those that were when they were lost.
        self._waiting: dict[int, _Entry] = {}
        self._taken: dict[int, _Entry] = {}
        self._gone: dict[int, _Entry] = {}
        self._untold: list[int] = []
        self._lost: dict[int, Mapping[str, int]] = {}
        self._faults: Counter[str] = Counter()
        self._told_s = float("-inf")

    @property
    def owner(self) -> str:
        """Whose the records are in the file, a name for each time that it is opened; "" while it is not."""
        return self._file.owner

    @property
    def available(self) -> int:
        """How many records `take` would find."""
        return len(self._waiting)

    def adopt(self) -> Counter[str]:
        """Open the file if it is not open, and take over the records of owners that are no more.

        Returns:
            Their events by type, of those that make sense.

        Raises:
            SpoolError: The disk would not.
        """
        adopted: list[_Entry] = []
        with self._database(lasting=True) as db:
            owner = self._file.owner
            for (other,) in db.execute("SELECT DISTINCT owner FROM records WHERE owner != ?", [owner]).fetchall():
                if is_alive(self.path, other):
                    continue
                with contextlib.suppress(OSError, ValueError):  # what is damaged may be no name
                    lock_path(self.path, other).unlink()
                adopted += (
                    _Entry(row, nbytes, text, is_own=False)
                    for row, nbytes, text in db.execute(
                        "SELECT id, length(body), types FROM records WHERE owner = ? ORDER BY id", [other]
                    )
                )
                db.execute("UPDATE records SET owner = ? WHERE owner = ?", [owner, other])
        types: Counter[str] = Counter()
        for entry in adopted:
            self._waiting[next(self._numbers)] = entry
            self.nbytes += entry.nbytes
            types.update(entry.types)
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
        entries = []
        with self._database(lasting=True) as db:
            for record in records:
                text = text_of(record.types)
                row = (record.req_guid, record.wire, record.accepted_at, text)
                cursor = db.execute(
                    "INSERT INTO records (owner, req_guid, wire, accepted_at, types, checksum, body)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [self._file.owner, *row, checksum_of(*row, record.body), record.body],
                )
                assert cursor.lastrowid is not None
                entries.append(_Entry(cursor.lastrowid, len(record.body), text, is_own=True))
        self.nbytes += size
        numbers = [next(self._numbers) for _ in entries]
        self._taken.update(zip(numbers, entries, strict=True))
        return numbers

    def take(self, max_bytes: int, check: Callable[[Record], str] = lambda record: "") -> list[Record]:
        """Hand out the oldest records that were not handed out yet: up to `max_bytes` of bodies, or one.

        A record that cannot be read, or makes no sense, is put into quarantine, and its events count as lost.

        Args:
            max_bytes: As above.
            check: Looks at a record that another process wrote, and returns what is wrong with it, as a clause, or "".

        Raises:
            SpoolError: The disk would not.
        """
        numbers: list[int] = []
        size = 0
        for number, entry in self._waiting.items():
            size += entry.nbytes
            if numbers and size > max_bytes:
                break
            numbers.append(number)
        records = []
        faults = []
        with self._database() as db:
            entries = {number: self._waiting[number] for number in numbers if number in self._waiting}
            for number, entry in entries.items():
                columns = db.execute(
                    "SELECT req_guid, wire, accepted_at, types, checksum, body FROM records WHERE id = ? AND owner = ?",
                    [entry.row, self._file.owner],
                ).fetchone()
                if columns is None:
                    fault = "it is not in the file any more"
                else:
                    req_guid, wire, accepted_at, text, _, body = columns
                    fault = fault_of(columns)
                    if not fault:
                        record = Record(req_guid, wire, accepted_at, counts_of(text), body, number)
                        fault = "" if entry.is_own else check(record)
                    if not fault and text != entry.text:
                        fault = "its counts by type were changed"  # and are known otherwise to the ledger
                    if not fault:
                        records.append(record)
                        continue
                    _quarantine(db, entry.row, fault)
                faults.append(fault)
        kept = {record.id for record in records}
        for number in entries:
            entry = self._waiting.pop(number)
            if number in kept:
                self._taken[number] = entry
            else:
                self.nbytes -= entry.nbytes
                self._lost[number] = entry.types
        self._faults.update(faults)
        if time.monotonic() >= self._told_s + _TELL_S:
            self._tell_faults()
        return records

    def give_back(self, numbers: Iterable[int]) -> None:
        """Let records that were handed out be taken again."""
        for number in numbers:
            if number in self._taken:
                self._waiting[number] = self._taken.pop(number)
            elif number in self._gone:
                self._lost[number] = self._gone.pop(number).types

    def remove(self, numbers: Iterable[int]) -> None:
        """Delete records: their events are settled.

        Raises:
            SpoolError: The disk would not; they stay where they are.
        """
        numbers = [*numbers]
        if any(number in self._taken for number in numbers):
            with self._database() as db:
                rows = [[self._taken[number].row, self._file.owner] for number in numbers if number in self._taken]
                db.executemany("DELETE FROM records WHERE id = ? AND owner = ?", rows)
        self._forget(numbers)

    def quarantine(self, numbers: Iterable[int], reason: str) -> None:
        """Move records that were handed out into quarantine, for `raccoon-fast spool` to show: they are not sent again.

        Args:
            numbers: Others than those handed out are ignored.
            reason: Why, as a clause: "it was refused by every server".

        Raises:
            SpoolFull: The quarantine holds `max_bytes` of bodies already, or the disk is full.
            SpoolError: The disk would not; they stay where they are.
        """
        numbers = [*numbers]
        if any(number in self._taken for number in numbers):
            with self._database(lasting=True) as db:
                entries = [self._taken[number] for number in numbers if number in self._taken]
                self._check_quarantine(db, sum(entry.nbytes for entry in entries))
                for entry in entries:
                    _quarantine(db, entry.row, reason)
        self._forget(numbers)

    def put_quarantined(self, record: Record, reason: str) -> None:
        """Store events that have no record of their own in quarantine; arguments and errors as `quarantine`."""
        row = (record.req_guid, record.wire, record.accepted_at, text_of(record.types))
        with self._database(lasting=True) as db:
            self._check_quarantine(db, len(record.body))
            db.execute(
                "INSERT INTO quarantine (reason, owner, req_guid, wire, accepted_at, types, checksum, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [reason, self._file.owner, *row, checksum_of(*row, record.body), record.body],
            )

    def pop_lost(self) -> dict[int, Mapping[str, int]]:
        """Events by type of records that are only on disk and cannot be handed out any more, by number, told once."""
        lost, self._lost = self._lost, {}
        return lost

    def pop_gone(self) -> list[int]:
        """Numbers of records that were handed out and are not on disk any more, told once."""
        gone, self._untold = self._untold, []
        return gone

    def close(self) -> None:
        """Let go of the records; whoever opens the file next takes them over. Idempotent.

        Those that nobody will find are told by `pop_lost`.
        """
        self._tell_faults()
        self._file.close()
        lost = self._lost
        self._forget_all()
        self._lost = lost

    def after_fork(self) -> None:
        """In a forked child: the records are the parent's."""
        self._file.after_fork()
        self._forget_all()

    def _database(self, *, lasting: bool = False) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """See SpoolFile.transaction."""
        return self._file.transaction(lasting=lasting)

    def _check_quarantine(self, db: sqlite3.Connection, size: int) -> None:
        (held,) = db.execute("SELECT coalesce(sum(length(body)), 0) FROM quarantine").fetchone()
        if held + size > self.max_bytes:
            raise SpoolFull(
                f"the quarantine of the spool {self.path} is full: {held} of {self.max_bytes} bytes; "
                "look at it with `raccoon-fast spool ls`, empty it with `raccoon-fast spool drop --quarantine`"
            )

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._gone.pop(number, None)
            entry = self._taken.pop(number, None)
            if entry is not None:
                self.nbytes -= entry.nbytes

    def _forget_all(self) -> None:
        self._waiting.clear()
        self._taken.clear()
        self._gone.clear()
        self._untold.clear()
        self._lost = {}
        self.nbytes = 0

    def _tell_faults(self) -> None:
        faults, self._faults = self._faults, Counter()
        for fault, count in faults.items():
            self._told_s = time.monotonic()
            self._file.say("the spool %s has lost %s: %s", self.path, counted(count, "record"), fault)
        self._file.tell()

    # What the file tells

    def _lose_all(self) -> None:
        self._move({})

    def _move(self, rows: Mapping[int, int]) -> None:
        """The records have new ids; those that are missing are lost."""
        for number, entry in [*self._waiting.items(), *self._taken.items()]:
            entries = self._waiting if number in self._waiting else self._taken
            row = rows.get(entry.row)
            if row is not None:
                entries[number] = entry._replace(row=row)
                continue
            del entries[number]
            self.nbytes -= entry.nbytes
            if entries is self._waiting:
                self._lost[number] = entry.types
            else:
                self._gone[number] = entry  # in memory still, as a rule
                self._untold.append(number)


def _quarantine(db: sqlite3.Connection, row: int, reason: str) -> None:
    db.execute(
        "INSERT INTO quarantine SELECT id, ?, owner, req_guid, wire, accepted_at, types, checksum, body"
        " FROM records WHERE id = ?",
        [reason, row],
    )
    db.execute("DELETE FROM records WHERE id = ?", [row])
