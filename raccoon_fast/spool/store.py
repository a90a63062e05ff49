"""Stores batches on disk, to be sent later by this process or the next one.

SQLite in WAL mode. Records that `put` has returned survive the end of the process at any moment; a power failure may
undo the last commits (synchronous=NORMAL, https://www.sqlite.org/pragma.html#pragma_synchronous).

A record belongs to an owner: an open Spool. An owner holds a lock on its own lock file, which the kernel releases when
its process ends in any way; then a living owner takes over its records.
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

# Seconds between log lines about unreadable records.
_TELL_S = 60.0


class _Entry(NamedTuple):
    """The index entry of a record in memory.

    Attributes:
        row: Its id in the file.
        nbytes: Its body's size.
        text: Its events by type, in stored form.
        is_own: Whether this spool object wrote it.
    """

    row: int
    nbytes: int
    text: str
    is_own: bool

    @property
    def types(self) -> Mapping[str, int]:
        """Its events by type; empty if the text is invalid."""
        return counts_of(self.text)


class Spool:
    """The records of this process, in a file that several processes may share.

    Every call may block on the disk. Used by one thread at a time.

    Records are identified by numbers of this object, each used once, because the ids restart in a new file.

    Args:
        path: The database; created if missing. Beside it are SQLite's own files and one lock file per owner.
        max_bytes: The limit in bytes for the bodies of this owner, and for those in quarantine.
        logger: Logs unreadable records, and a file that is set aside, deleted or replaced.
    """

    def __init__(self, path: Path, *, max_bytes: int, logger: Log) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._file = SpoolFile(path, logger, self._lose_all, self._move)
        self._numbers = itertools.count(1)
        # By number: records not handed out, in order; records handed out; and records lost after they were handed out.
        self._waiting: dict[int, _Entry] = {}
        self._taken: dict[int, _Entry] = {}
        self._gone: dict[int, _Entry] = {}
        self._untold: list[int] = []
        self._lost: dict[int, Mapping[str, int]] = {}
        self._faults: Counter[str] = Counter()
        self._told_s = float("-inf")

    @property
    def owner(self) -> str:
        """The owner id of the records, new each time the file is opened; "" while it is closed."""
        return self._file.owner

    @property
    def available(self) -> int:
        """The number of records that `take` would find."""
        return len(self._waiting)

    def adopt(self) -> Counter[str]:
        """Open the file if needed, and take over the records of dead owners.

        Returns:
            The valid events taken over, by type.

        Raises:
            SpoolError: The disk failed.
        """
        adopted: list[_Entry] = []
        with self._database(lasting=True) as db:
            owner = self._file.owner
            for (other,) in db.execute("SELECT DISTINCT owner FROM records WHERE owner != ?", [owner]).fetchall():
                if is_alive(self.path, other):
                    continue
                with contextlib.suppress(OSError, ValueError):  # a damaged owner may not be an id
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
            Their numbers; they count as handed out, as after `take`.

        Raises:
            SpoolFull: There is no room for the records.
            SpoolError: The disk failed.
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
        """Hand out the oldest records not handed out yet: up to `max_bytes` of bodies, or one record.

        An unreadable or invalid record is put into quarantine, and its events count as lost.

        Args:
            max_bytes: The limit, see above.
            check: Called with a record that another process wrote; returns its fault as a clause, or "".

        Raises:
            SpoolError: The disk failed.
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
                    fault = "it is no longer in the file"
                else:
                    req_guid, wire, accepted_at, text, _, body = columns
                    fault = fault_of(columns)
                    if not fault:
                        record = Record(req_guid, wire, accepted_at, counts_of(text), body, number)
                        fault = "" if entry.is_own else check(record)
                    if not fault and text != entry.text:
                        fault = "its counts by type were changed"  # and the ledger knows other counts
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
        """Make handed-out records available again."""
        for number in numbers:
            if number in self._taken:
                self._waiting[number] = self._taken.pop(number)
            elif number in self._gone:
                self._lost[number] = self._gone.pop(number).types

    def remove(self, numbers: Iterable[int]) -> None:
        """Delete records whose events are settled.

        Raises:
            SpoolError: The disk failed; the records stay where they are.
        """
        numbers = [*numbers]
        if any(number in self._taken for number in numbers):
            with self._database() as db:
                rows = [[self._taken[number].row, self._file.owner] for number in numbers if number in self._taken]
                db.executemany("DELETE FROM records WHERE id = ? AND owner = ?", rows)
        self._forget(numbers)

    def quarantine(self, numbers: Iterable[int], reason: str) -> None:
        """Move handed-out records into quarantine, where `raccoon-fast spool` shows them. They are not sent again.

        Args:
            numbers: The records; numbers that are not handed out are ignored.
            reason: The reason as a clause: "it was refused by every server".

        Raises:
            SpoolFull: The quarantine already holds `max_bytes` of bodies, or the disk is full.
            SpoolError: The disk failed; the records stay where they are.
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
        """Store events without a record in quarantine; arguments and errors as for `quarantine`."""
        row = (record.req_guid, record.wire, record.accepted_at, text_of(record.types))
        with self._database(lasting=True) as db:
            self._check_quarantine(db, len(record.body))
            db.execute(
                "INSERT INTO quarantine (reason, owner, req_guid, wire, accepted_at, types, checksum, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [reason, self._file.owner, *row, checksum_of(*row, record.body), record.body],
            )

    def pop_lost(self) -> dict[int, Mapping[str, int]]:
        """Events by type, by record number, of records that were only on disk and are lost; each is reported once."""
        lost, self._lost = self._lost, {}
        return lost

    def pop_gone(self) -> list[int]:
        """Numbers of handed-out records that are no longer on disk; each is reported once."""
        gone, self._untold = self._untold, []
        return gone

    def close(self) -> None:
        """Release the records; the next owner that opens the file takes them over. Idempotent.

        `pop_lost` reports records that no owner will find.
        """
        self._tell_faults()
        self._file.close()
        lost = self._lost
        self._forget_all()
        self._lost = lost

    def after_fork(self) -> None:
        """In a forked child: forget the records, which belong to the parent."""
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

    # Callbacks of the file

    def _lose_all(self) -> None:
        self._move({})

    def _move(self, rows: Mapping[int, int]) -> None:
        """Note the records' new ids; missing records are lost."""
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
                self._gone[number] = entry  # usually still in memory
                self._untold.append(number)


def _quarantine(db: sqlite3.Connection, row: int, reason: str) -> None:
    db.execute(
        "INSERT INTO quarantine SELECT id, ?, owner, req_guid, wire, accepted_at, types, checksum, body"
        " FROM records WHERE id = ?",
        [reason, row],
    )
    db.execute("DELETE FROM records WHERE id = ?", [row])
