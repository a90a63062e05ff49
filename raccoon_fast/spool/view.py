"""A spool's file seen from outside, by one who is no owner: what everyone has there, and how to drop what is nobody's.

Reads are short, one after the other, so that a living owner is not kept from anything; what is written is what belongs
to owners that are no more.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.core.batch import Batch
from raccoon_fast.spool.file import VERSION, SpoolError, is_alive, lock_path
from raccoon_fast.spool.records import checksum_of, counts_of, decode_text, fault_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Content", "Filter", "Owner", "SpoolView"]

_BUSY_S = 5.0
# Records dropped in one transaction: a living owner that wants to write waits for no more.
_DROPS = 64


@dataclass
class Content:
    """Records, summed up.

    Attributes:
        records: How many.
        nbytes: Of their bodies.
        types: Events by type.
        oldest_at: UNIX time at which the oldest was accepted; None where there is none.
        newest_at: The same of the newest.
    """

    records: int = 0
    nbytes: int = 0
    types: Counter[str] = field(default_factory=Counter)
    oldest_at: float | None = None
    newest_at: float | None = None

    def add(self, nbytes: int, types: Mapping[str, int], accepted_at: object) -> None:
        """Counts one record; its columns."""
        self.records += 1
        self.nbytes += nbytes
        self.types.update(types)
        if isinstance(accepted_at, float):  # what is damaged may hold anything
            self.oldest_at = accepted_at if self.oldest_at is None else min(self.oldest_at, accepted_at)
            self.newest_at = accepted_at if self.newest_at is None else max(self.newest_at, accepted_at)


class Owner(NamedTuple):
    """Who records belong to: an open spool of a process, or one that is no more.

    Attributes:
        name: 32 hexadecimal digits.
        alive: Whether it is open. What is left of one that is not goes to the next that opens the file.
        content: Its records.
    """

    name: str
    alive: bool
    content: Content


class Filter(NamedTuple):
    """Which events are meant; all where nothing is said.

    Attributes:
        event_type: Those of this type, also in records that hold others as well.
        owner: Those of owners whose names begin so: hexadecimal digits.
        before: Those of records accepted before this UNIX time.
    """

    event_type: str | None = None
    owner: str = ""
    before: float = float("inf")


_ALL = Filter()


class SpoolView:
    """Reads a spool, and drops what belongs to owners that are no more. Used by one thread, in `with`.

    Args:
        path: The file; it is neither made nor mended.

    Raises:
        FileNotFoundError: There is none.
        SpoolError: It is no spool, or cannot be read. So do all methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(f"no such spool: {path}")
        with self._named_errors():
            # Not mode=ro, which would leave SQLite's own files behind beside the spool.
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
        """Everyone who has records, or the file open; who has the oldest record first."""
        contents: dict[str, Content] = {}
        with self._named_errors():
            for owner, nbytes, types, accepted_at in self._db.execute(
                "SELECT owner, length(body), types, accepted_at FROM records ORDER BY id"
            ):
                contents.setdefault(owner, Content()).add(nbytes, counts_of(types), accepted_at)
        for lock in self.path.parent.glob(lock_path(self.path, "*").name):
            owner = lock.name.removeprefix(f"{self.path.name}.").removesuffix(".lock")
            if is_alive(self.path, owner):
                contents.setdefault(owner, Content())
        return [Owner(name, is_alive(self.path, name), content) for name, content in contents.items()]

    def quarantine(self) -> tuple[Content, Counter[str]]:
        """The records that could not be read, and how many of them for which reason."""
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
        """Files that could not be read as a whole, kept beside the spool under another name."""
        names = self.path.parent.glob(f"{self.path.name}.damaged-*")
        return sorted(path for path in names if not path.name.endswith(("-wal", "-shm")))

    def damage(self) -> Iterator[str]:
        """Look at the file's structure and at every record; what is wrong, a line each."""
        with self._named_errors():
            for (line,) in self._db.execute("PRAGMA quick_check"):
                if line != "ok":
                    yield line
            number = -1
            # A read for each: one long read would keep the owners' log from being reset.
            while row := self._first(number + 1):
                number, owner, *columns = row
                if fault := fault_of(columns):
                    yield f"record {number} of owner {owner}, request {str(columns[0])[:64]}: {fault}"

    def orphans(self, wanted: Filter = _ALL) -> Content:
        """What there is of owners that are no more: what `drop` would drop, and the next owner takes over."""
        content = Content()
        with self._named_errors():
            for _, nbytes, types, accepted_at in self._orphans(wanted):
                content.add(nbytes, types, accepted_at)
        return content

    def drop(self, wanted: Filter) -> Counter[str]:
        """Delete events of owners that are no more.

        Returns:
            How many, by type: fewer than `orphans` found where another process took records over meanwhile.
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
        """Delete all records of the quarantine; how many that were."""
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
            return {}  # taken over, or sent, meanwhile
        req_guid, wire, accepted_at, text, _, body = row[2:]
        types = counts_of(text)
        if event_type is None or types.keys() == {event_type}:
            self._db.execute("DELETE FROM records WHERE id = ?", [number])
            return types
        if fault_of(row[2:]):
            return {}  # what cannot be read cannot be taken apart
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
        """The first record of this number or a higher one: its number, owner and columns; None after the last."""
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
