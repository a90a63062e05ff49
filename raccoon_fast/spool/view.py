"""A spool file for command-line tools: lists records by owner, and drops those of dead owners.

Reads are short and separate, so that living owners are not blocked. Only records of dead owners are changed.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.core.batch import Batch
from raccoon_fast.spool.file import VERSION, SpoolError, is_alive, locking_owners
from raccoon_fast.spool.records import checksum_of, counts_of, decode_text, fault_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Content", "Filter", "Owner", "SpoolView"]

_BUSY_S = 5.0
# Records dropped per transaction, which limits how long a living owner waits to write.
_DROPS = 64


@dataclass
class Content:
    """Totals of records.

    Attributes:
        records: The number of records.
        nbytes: The bytes of their bodies.
        types: Events by type.
        oldest_at: The UNIX time at which the oldest was accepted; None without records.
        newest_at: The same for the newest.
    """

    records: int = 0
    nbytes: int = 0
    types: Counter[str] = field(default_factory=Counter)
    oldest_at: float | None = None
    newest_at: float | None = None

    def add(self, nbytes: int, types: Mapping[str, int], accepted_at: object) -> None:
        """Counts one record, given by its columns."""
        self.records += 1
        self.nbytes += nbytes
        self.types.update(types)
        if isinstance(accepted_at, float):  # damaged columns may contain anything
            self.oldest_at = accepted_at if self.oldest_at is None else min(self.oldest_at, accepted_at)
            self.newest_at = accepted_at if self.newest_at is None else max(self.newest_at, accepted_at)


class Owner(NamedTuple):
    """The owner of records: a spool that a process has open, or one that has ended.

    Attributes:
        name: The owner id, 32 hexadecimal digits.
        alive: Whether it is open. The records of a dead owner go to the next spool that opens the file.
        content: Its records.
    """

    name: str
    alive: bool
    content: Content


class Filter(NamedTuple):
    """Selects events; without arguments, all events.

    Attributes:
        event_type: Only events of this type, also in records with other types.
        owner: Only events of owners whose id starts with these hexadecimal digits.
        before: Only events of records accepted before this UNIX time.
    """

    event_type: str | None = None
    owner: str = ""
    before: float = float("inf")


_ALL = Filter()


class SpoolView:
    """Reads a spool, and drops records of dead owners. For use by one thread, in `with`.

    Args:
        path: The file; it is neither created nor repaired.

    Raises:
        FileNotFoundError: The file does not exist.
        SpoolError: The file is not a spool, or cannot be read. All methods may raise it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(f"no such spool: {path}")
        with self._named_errors():
            # Not mode=ro, which would leave SQLite's own files beside the spool.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
            try:
                self._check()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._db.close()

    def owners(self) -> list[Owner]:
        """All owners that have records or the file open; the owner of the oldest record comes first."""
        contents: dict[str, Content] = {}
        with self._named_errors():
            for owner, nbytes, types, accepted_at in self._db.execute(
                "SELECT owner, length(body), types, accepted_at FROM records ORDER BY id"
            ):
                contents.setdefault(owner, Content()).add(nbytes, counts_of(types), accepted_at)
        for owner in locking_owners(self.path):
            if is_alive(self.path, owner):
                contents.setdefault(owner, Content())
        return [Owner(name, is_alive(self.path, name), content) for name, content in contents.items()]

    def quarantine(self) -> tuple[Content, Counter[str]]:
        """The totals of unreadable records, and their number by reason."""
        content = Content()
        reasons: Counter[str] = Counter()
        with self._named_errors():
            for reason, nbytes, types, accepted_at in self._db.execute(
                "SELECT reason, length(body), types, accepted_at FROM quarantine"
            ):
                content.add(nbytes or 0, counts_of(types), accepted_at)
                reasons[reason] += 1
        return content, reasons

    def set_aside(self) -> list[Path]:
        """Unreadable spool files that were renamed beside the spool."""
        names = self.path.parent.glob(f"{glob.escape(self.path.name)}.damaged-*")
        return sorted(path for path in names if not path.name.endswith(("-wal", "-shm")))

    def damage(self) -> Iterator[str]:
        """Check the file's structure and every record. Returns one line per fault."""
        with self._named_errors():
            for (line,) in self._db.execute("PRAGMA quick_check"):
                if line != "ok":
                    yield line
            number = -1
            # One read per record: a long read would prevent SQLite from resetting the owners' log.
            while row := self._first(number + 1):
                number, owner, *columns = row
                if fault := fault_of(columns):
                    yield f"record {number} of owner {owner}, request {str(columns[0])[:64]}: {fault}"

    def orphans(self, wanted: Filter = _ALL) -> Content:
        """The totals of dead owners, which `drop` would drop and the next owner would take over."""
        content = Content()
        with self._named_errors():
            for _, nbytes, types, accepted_at in self._orphans(wanted):
                content.add(nbytes, types, accepted_at)
        return content

    def drop(self, wanted: Filter) -> Counter[str]:
        """Delete events of dead owners.

        Returns:
            The number deleted, by type; fewer than `orphans` found if another process took over records meanwhile.
        """
        dropped: Counter[str] = Counter()
        with self._named_errors():
            numbers = [number for number, *_ in self._orphans(wanted)]
            for start in range(0, len(numbers), _DROPS):
                with self._transaction():
                    for number in numbers[start : start + _DROPS]:
                        dropped.update(self._drop(number, wanted.event_type))
        return dropped

    def drop_quarantine(self) -> int:
        """Delete all records of the quarantine, and return their number."""
        with self._named_errors(), self._transaction():
            return self._db.execute("DELETE FROM quarantine").rowcount

    def _orphans(self, wanted: Filter) -> Iterator[tuple[int, int, Mapping[str, int], object]]:
        is_dead = functools.cache(lambda owner: not is_alive(self.path, owner))
        for number, owner, nbytes, text, accepted_at in self._db.execute(
            "SELECT id, owner, length(body), types, accepted_at FROM records"
            " WHERE owner GLOB ? AND accepted_at < ? ORDER BY id",
            [f"{wanted.owner}*", wanted.before],
        ):
            types = counts_of(text)
            if wanted.event_type is not None:
                types = {name: count for name, count in types.items() if name == wanted.event_type}
                if not types:
                    continue
            if is_dead(owner):
                yield number, nbytes, types, accepted_at

    def _drop(self, number: int, event_type: str | None) -> Mapping[str, int]:
        row = self._first(number)
        if row is None or row[0] != number or is_alive(self.path, row[1]):
            return {}  # taken over or sent meanwhile
        req_guid, wire, accepted_at, text, _, body = row[2:]
        types = counts_of(text)
        if event_type is None or types.keys() == {event_type}:
            self._db.execute("DELETE FROM records WHERE id = ?", [number])
            return types
        if fault_of(row[2:]):
            return {}  # an unreadable record cannot be split
        batch = Batch(wire)
        batch.load(body, types)
        rest = Batch(wire)
        rest.add_many(event for event in batch.events() if event[0] != event_type)
        text, body = text_of(rest.types), rest.envelope.body()
        self._db.execute(
            "UPDATE records SET types = ?, checksum = ?, body = ? WHERE id = ?",
            [text, checksum_of(req_guid, wire, accepted_at, text, body), body, number],
        )
        return {event_type: types[event_type]}

    def _check(self) -> None:
        self._db.text_factory = decode_text
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"records", "quarantine"} <= tables:
            raise SpoolError(f"{self.path} is not a spool")
        if version != VERSION:
            raise SpoolError(
                f"the spool {self.path} was written by another release (its version is {version}, not {VERSION}): "
                "use that release's raccoon-fast"
            )

    def _first(self, least: int) -> Any:
        """The first record with this number or a higher one: number, owner and columns; None after the last."""
        return self._db.execute(
            "SELECT id, owner, req_guid, wire, accepted_at, types, checksum, body FROM records"
            " WHERE id >= ? ORDER BY id LIMIT 1",
            [least],
        ).fetchone()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:  # commits, or rolls back
            yield

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise SpoolError(f"{self.path} is not a spool") from error
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error
