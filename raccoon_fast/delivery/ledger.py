"""What became of every event: counted by batch, in total and by type."""

from __future__ import annotations

import contextlib
import sys
import time
import weakref
from _thread import get_ident
from collections import Counter, deque
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from raccoon_fast.counts import Counts
from raccoon_fast.threads import is_main, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["MAX_TYPES", "OTHER_TYPES", "Change", "Ledger"]

#: Event types that are counted by name, where nothing else is said; an id in a type would make them ever more.
MAX_TYPES = 10_000
#: What all further ones are counted under.
OTHER_TYPES = "(other types)"

QUEUED = "queued"
IN_FLIGHT = "in_flight"
ACKED = "acked"
EXPIRED = "expired"
SPOOLED = "spooled"
SAMPLED = "sampled"
FILTERED = "filtered"
DISCARDED = "discarded"
FAILED = "failed:"
DROPPED = "dropped:"
DAMAGED = FAILED + "damaged"

# Events by type, the state they were in (None: they are new) and the one they are in now.
_Move: TypeAlias = "tuple[Mapping[str, int], str | None, str]"
# Events by state; of each type, and under None of all types together.
_Rows: TypeAlias = "dict[str | None, dict[str, int]]"
_T = TypeVar("_T")
_NO_EVENTS: dict[str, int] = {}
# Each lets other threads run.
_TRIES = 50
# The main thread leaves its moves to others until there are so many.
_MANY_LEFT = 100


class Ledger:
    """Moves events from one state to the next. Safe from any thread, and no call waits for another one.

    A signal handler or a finalizer may use a producer while the thread that it interrupts moves events. So nobody waits
    for a lock here: whoever finds that another one writes leaves its move in a deque, and the other one makes it. The
    main thread, where a Ctrl-C may come between any two steps, leaves all of its moves: that is a single step. The
    states of a type are replaced, never changed, so that a reader has each type as it was at one moment.

    Args by type are mappings of event type to number of events: a batch's. A type that was counted by name once is
    always; so the moves of a batch are counted alike.

    Args:
        max_types: Types that are counted by name, at most; the first ones are. See OTHER_TYPES.
    """

    def __init__(self, max_types: int = MAX_TYPES) -> None:
        self._max_rows = max_types + 2
        self._rows: _Rows = {None: _NO_EVENTS, OTHER_TYPES: _NO_EVENTS}
        # Who writes: a list of the thread's id, under the key True. To enter it takes one step.
        self._writers: dict[bool, list[int]] = {}
        self._left: deque[_Move] = deque()
        # The one of them that is being made, as it is counted, and the rows as they were before it.
        self._making: tuple[_Move, _Move, _Rows] | None = None
        # What moves events from elsewhere into the ledger at this moment, and the last that did.
        self._changes: list[weakref.ref[Change]] = []
        self._last_change: object = None

    def add(self, types: Mapping[str, int], state: str) -> None:
        """Events that were not here before."""
        self._move(types, None, state)

    def move(self, types: Mapping[str, int], before: str, after: str) -> None:
        """Events that were in state `before`."""
        self._move(types, before, after)

    def change(self) -> Change:
        """A context around whatever takes events from where they wait and adds them here: see `consistent`."""
        return Change(self._changes, self._note)

    def adding(self, types: Mapping[str, int], state: str) -> Iterator[object]:
        """As `add`, for `threads.at_once`; call `make_moves` afterwards."""
        return map(self._left.append, (({**types}, None, state),))

    def make_moves(self) -> None:
        """Make those that were left."""
        while self._left and self._may_write():
            self._make_one_left()

    def consistent(self, read: Callable[[], _T]) -> _T:
        """What `read` returns where no change happens meanwhile, so that it sees no events twice and misses none.

        It is tried some times only: a signal handler may have interrupted a change, which then cannot end.
        """
        for _ in range(_TRIES):
            last = self._last_change
            if not self._is_changing():
                seen = read()
                if not self._is_changing() and self._last_change is last:
                    return seen
            time.sleep(0)
        return read()

    def _is_changing(self) -> bool:
        for change in [*self._changes]:
            if change() is not None:
                return True
            with contextlib.suppress(ValueError):  # another thread was faster
                self._changes.remove(change)  # a Ctrl-C ended it in its first or last step
        return False

    def seen(self) -> _Rows:
        """The states of each type, and under None those of all together, as they are now."""
        rows = self._rows.copy()
        for move in self._to_make(rows):
            _apply(rows, self._counted(rows, move))
        return rows

    def totals(self, waiting: int) -> Counts:
        """Counts of all events together; the cost does not depend on how many types there are.

        Args:
            waiting: Events that wait in the accumulator.
        """
        rows: _Rows = {None: self._rows[None]}
        for types, before, after in self._to_make(rows):
            _apply(rows, ({}, before, after), sum(types.values()))
        return _counts(rows[None], waiting)

    def by_type(self, waiting: Mapping[str, int], seen: _Rows | None = None) -> dict[str, Counts]:
        """Counts of each type.

        Args:
            waiting: Events that wait in the accumulator.
            seen: What `seen` returned; None asks it.
        """
        rows = self.seen() if seen is None else seen
        waiting = self._named(rows, waiting)
        types = {one for one, states in rows.items() if one is not None and states}
        return {one: _counts(rows.get(one, _NO_EVENTS), waiting.get(one, 0)) for one in sorted({*types, *waiting})}

    def total(self, waiting: int, seen: _Rows | None = None) -> Counts:
        """Counts of all events together, as the sum of each type's; arguments as in by_type."""
        total: Counter[str] = Counter()
        for one, states in (self.seen() if seen is None else seen).items():
            if one is not None:
                total.update(states)
        return _counts(total, waiting)

    def _to_make(self, rows: _Rows) -> list[_Move]:
        """The moves that are left to be made; of one that is half made the rows are put back to before it."""
        left = snapshot(self._left)
        making = self._making
        if making is not None:
            # Whoever makes it was interrupted here, and it may still be in the deque.
            first, move, rows_before = making
            rows.update(rows_before)
            left = [move, *(one for one in left if one is not first)]
        return left

    def _move(self, types: Mapping[str, int], before: str | None, after: str) -> None:
        if is_main() or not self._may_write():
            self._left.append(({**types}, before, after))
            if len(self._left) < _MANY_LEFT and is_main():
                return
        else:
            try:
                if self._making is None:
                    _apply(self._rows, self._counted(self._rows, (types, before, after)))
                else:
                    self._left.append(({**types}, before, after))
            finally:
                self._end_writing()
        self.make_moves()

    def _may_write(self) -> bool:
        """Begin to write, unless another one does."""
        mine = [get_ident()]
        writer = self._writers.setdefault(True, mine)
        if writer is not mine and writer[0] == mine[0] and is_main() and not self._is_interrupted():
            # A Ctrl-C ended that call of this thread.
            self._writers[True] = writer = mine
        return writer is mine

    def _end_writing(self) -> None:
        self._writers.pop(True, None)

    def _is_interrupted(self) -> bool:
        """Whether `_may_write`, whose caller asks it, interrupts a call of the same thread that makes a move."""
        frame = sys._getframe(2).f_back  # noqa: SLF001
        while frame is not None:
            if frame.f_code in _WRITING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _make_one_left(self) -> None:
        try:
            if self._left or self._making is not None:
                with self.change():
                    if self._making is None:
                        first = self._left[0]
                        move = self._counted(self._rows, first)
                        self._making = first, move, {one: self._rows.get(one, _NO_EVENTS) for one in (None, *move[0])}
                    first, move, rows_before = self._making
                    # An exception of a signal handler may have left it half made.
                    self._rows.update(rows_before)
                    _apply(self._rows, move)
                    if self._left and self._left[0] is first:
                        self._left.popleft()
                    self._making = None
        finally:
            self._end_writing()

    def _counted(self, rows: _Rows, move: _Move) -> _Move:
        types, before, after = move
        return self._named(rows, types), before, after

    def _named(self, rows: _Rows, types: Mapping[str, int]) -> Mapping[str, int]:
        """Events by the name that they are counted under."""
        room = self._max_rows - len(rows)
        if len(types) <= room:
            return types
        named: dict[str, int] = {}
        for one, count in types.items():
            name = one
            if one not in rows:
                if room > 0:
                    room -= 1
                else:
                    name = OTHER_TYPES
            named[name] = named.get(name, 0) + count
        return named

    def _note(self) -> None:
        self._last_change = object()


_WRITING = {one.__code__ for one in (Ledger._may_write, Ledger.make_moves, Ledger._make_one_left)}  # noqa: SLF001


class Change:
    """See Ledger.change."""

    __slots__ = ("__weakref__", "_changes", "_note", "_reference")

    def __init__(self, changes: list[weakref.ref[Change]], note: Callable[[], object]) -> None:
        self._changes = changes
        self._note = note
        self._reference = weakref.ref(self)

    def __enter__(self) -> None:
        self._changes.append(self._reference)
        self._note()

    def __exit__(self, *exc_info: object) -> None:
        self._changes.remove(self._reference)


def _apply(rows: _Rows, move: _Move, others: int = 0) -> None:
    """Move events, of which `others` are counted under no type."""
    types, before, after = move
    for one, count in (*types.items(), (None, sum(types.values()) + others)):
        states = rows.get(one, _NO_EVENTS).copy()
        if before is not None:
            states[before] = states.get(before, 0) - count
        states[after] = states.get(after, 0) + count
        rows[one] = states


def _counts(states: Mapping[str, int], waiting: int) -> Counts:
    return Counts(
        accepted=sum(states.values()) + waiting,
        acked=states.get(ACKED, 0),
        failed=_reasons(states, FAILED),
        dropped=_reasons(states, DROPPED),
        expired=states.get(EXPIRED, 0),
        spooled=states.get(SPOOLED, 0),
        queued=states.get(QUEUED, 0) + waiting,
        in_flight=states.get(IN_FLIGHT, 0),
        sampled=states.get(SAMPLED, 0),
        filtered=states.get(FILTERED, 0),
        discarded=states.get(DISCARDED, 0),
    )


def _reasons(states: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {state[len(prefix) :]: count for state, count in states.items() if state.startswith(prefix) and count}
