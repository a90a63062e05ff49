"""Counts the outcome of every event, batch by batch, in total and by type."""

from __future__ import annotations

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

#: The default number of event types counted by name; types that contain an id would otherwise grow without limit.
MAX_TYPES = 10_000
#: The name under which all further types are counted.
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

# Events by type, their previous state (None: they are new) and their new state.
_Move: TypeAlias = "tuple[Mapping[str, int], str | None, str]"
# Events by state, for each type, and under None for all types together.
_Rows: TypeAlias = "dict[str | None, dict[str, int]]"
_T = TypeVar("_T")
_NO_EVENTS: dict[str, int] = {}
# Each lets other threads run. Without a GIL, many readers that try again and again would keep them from running.
_TRIES = 5
# How long a reader waits for changes of other threads: they take microseconds once these threads run.
_CHANGE_S = 1.0
# How long a reader waits for the writer. Only a writer that a signal handler has interrupted takes so long.
_WRITER_S = 5.0
# How long a change waits for readers. It is longer than a read takes, even if the reader's thread must wait for a CPU.
_READ_S = 0.1
# How long they wait between two looks, first and at most.
_LOOK_S, _LAST_LOOK_S = 0.0005, 0.01
# The main thread leaves its moves to others until there are this many.
_MANY_LEFT = 100


class Ledger:
    """Moves events from one state to the next. Thread-safe, and no call waits for another.

    A signal handler or a finalizer may use a producer while the interrupted thread moves events. So no thread waits
    for a lock here: a thread that finds another one writing leaves its move in a deque, and the other one makes it. The
    main thread, where a Ctrl-C may come between any two steps, leaves all its moves, which is a single step. The
    states of a type are replaced, never changed, so that a reader sees each type at one moment.

    Arguments by type map event types of a batch to numbers of events. A type that was once counted by name always
    is, so all moves of a batch are counted alike.

    Args:
        max_types: The largest number of types counted by name: the first ones. See OTHER_TYPES.
    """

    def __init__(self, max_types: int = MAX_TYPES) -> None:
        self._max_rows = max_types + 2
        self._rows: _Rows = {None: _NO_EVENTS, OTHER_TYPES: _NO_EVENTS}
        # The writer: a list with the thread's id, under the key True. Entering it takes one step.
        self._writers: dict[bool, list[int]] = {}
        self._left: deque[_Move] = deque()
        # The move that is being made, with its types as they are counted, and the rows before it.
        self._making: tuple[_Move, _Move, _Rows] | None = None
        # The changes under way, which take waiting events and add them here, and the last one.
        self._changes: dict[object, weakref.ref[Active]] = {}
        self._last_change: object = None
        # Readers that make the moves, and for which changes wait.
        self._readers: dict[object, weakref.ref[Active]] = {}

    def add(self, types: Mapping[str, int], state: str) -> None:
        """Add new events."""
        self._move(types, None, state)

    def move(self, types: Mapping[str, int], before: str, after: str) -> None:
        """Move events from state `before`."""
        self._move(types, before, after)

    def change(self) -> Change:
        """A context for code that takes waiting events and adds them here; see `consistent`."""
        return Change(self._changes, self._note, self._readers)

    def adding(self, types: Mapping[str, int], state: str) -> Iterator[object]:
        """Like `add`, for `threads.at_once`; call `make_moves` afterwards."""
        return map(self._left.append, (({**types}, None, state),))

    def make_moves(self) -> None:
        """Make the moves that were left, unless a reader makes them."""
        while self._left and not self._readers and self._may_write():
            self._make_one_left()

    def consistent(self, read: Callable[[], _T]) -> _T:
        """Call `read` without a change meanwhile, so that it counts no events twice and misses none.

        If other threads always change something, they leave their moves to this call, and their next changes wait for
        it, up to a tenth of a second. It waits for those under way, up to a second. After that, events that are being
        taken may be missing or be counted twice. A change of this thread cannot end: a signal handler has interrupted
        it.
        """
        for _ in range(_TRIES):
            seen, changing = self._read_at_once(read)
            if not changing:
                return seen[0]
            if get_ident() in changing:
                return read()
            time.sleep(0)
        begun_s, look_s = time.monotonic(), _LOOK_S
        with Active(self._readers):
            while (waited_s := time.monotonic() - begun_s) < _WRITER_S:
                seen = self._read_alone(read, despite_changes=waited_s > _CHANGE_S)
                if seen:
                    return seen[0]
                time.sleep(look_s)
                look_s = min(2.0 * look_s, _LAST_LOOK_S)
            return read()

    def _read_alone(self, read: Callable[[], _T], *, despite_changes: bool) -> list[_T]:
        """Like `_read_at_once`, but as the writer, so that other threads leave their moves meanwhile."""
        # Looking whether they are empty takes no lock, for which many readers would wait.
        if self._writers or self._is_changed(despite_changes) or not self._may_write():
            return []
        try:
            for _ in range(len(self._left)):
                self._make_first()
            last = self._last_change
            seen = [] if self._is_changed(despite_changes) else [read()]
            return [] if self._is_changed(despite_changes) or self._last_change is not last else seen
        finally:
            self._end_writing()

    def _is_changed(self, despite_changes: bool) -> bool:
        return not despite_changes and bool(self._changes and _active(self._changes))

    def _read_at_once(self, read: Callable[[], _T]) -> tuple[list[_T], list[int]]:
        """The result of `read` in a list; or an empty list, and the threads that changed something meanwhile."""
        last = self._last_change
        changing = self._changing()
        if changing:
            return [], changing
        seen = read()
        changing = self._changing()
        if self._last_change is not last:
            changing = changing or [0]  # it has ended
        return [] if changing else [seen], changing

    def _changing(self) -> list[int]:
        """The threads that change something."""
        if not (self._writers or self._changes):
            return []
        writer = self._writers.get(True)
        threads = [] if writer is None else [writer[0]]
        return threads + [one.thread for one in _active(self._changes)]

    def seen(self) -> _Rows:
        """The current states of each type, and under None those of all types together."""
        rows = self._rows.copy()
        for move in self._to_make(rows):
            _apply(rows, self._counted(rows, move))
        return rows

    def totals(self, waiting: int) -> Counts:
        """Counts of all events together; the cost does not depend on the number of types.

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
            seen: The result of `seen`; None calls it.
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
        """The remaining moves; the rows of a half-made move are restored first."""
        left = snapshot(self._left)
        making = self._making
        if making is not None:
            # The thread making the move was interrupted here, and the move may still be in the deque.
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
                    if len(types) > self._max_rows - len(self._rows):
                        types = self._named(self._rows, types)
                    _apply(self._rows, (types, before, after))
                    # A reader that has read the rows before this move may see a later one in the deque.
                    self._note()
                else:
                    self._left.append(({**types}, before, after))
            finally:
                self._writers.pop(True, None)
        if self._left:
            self.make_moves()

    def _may_write(self) -> bool:
        """Begin to write, unless another thread does."""
        mine = [get_ident()]
        writer = self._writers.setdefault(True, mine)
        if writer is not mine and writer[0] == mine[0] and is_main() and not self._is_interrupted():
            # A Ctrl-C ended that call of this thread.
            self._writers[True] = writer = mine
        return writer is mine

    def _end_writing(self) -> None:
        self._writers.pop(True, None)

    def _is_interrupted(self) -> bool:
        """Whether this call of `_may_write` interrupts a move of the same thread."""
        frame = sys._getframe(2).f_back  # noqa: SLF001
        while frame is not None:
            if frame.f_code in _WRITING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _make_one_left(self) -> None:
        try:
            if self._left or self._making is not None:
                self._make_first()
        finally:
            self._end_writing()

    def _make_first(self) -> None:
        """Make the first move that was left. The caller is the writer."""
        self._note()
        if self._making is None:
            first = self._left[0]
            move = self._counted(self._rows, first)
            self._making = first, move, {one: self._rows.get(one, _NO_EVENTS) for one in (None, *move[0])}
        first, move, rows_before = self._making
        # An exception of a signal handler may have left the move half made.
        self._rows.update(rows_before)
        _apply(self._rows, move)
        if self._left and self._left[0] is first:
            self._left.popleft()
        self._making = None

    def _counted(self, rows: _Rows, move: _Move) -> _Move:
        types, before, after = move
        return self._named(rows, types), before, after

    def _named(self, rows: _Rows, types: Mapping[str, int]) -> Mapping[str, int]:
        """Events by the name under which they are counted."""
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


_WRITING = {
    one.__code__
    for one in (Ledger._may_write, Ledger.make_moves, Ledger._make_one_left, Ledger._read_alone)  # noqa: SLF001
}


class Active:
    """A context for what a thread does. If a Ctrl-C prevents its exit, it ends when it is freed.

    Args:
        others: Gets a reference to it meanwhile.
    """

    __slots__ = ("__weakref__", "_key", "_others", "_reference", "thread")

    def __init__(self, others: dict[object, weakref.ref[Active]]) -> None:
        self.thread = get_ident()
        self._key = object()
        self._others = others
        self._reference = weakref.ref(self)

    def __enter__(self) -> None:
        self._others[self._key] = self._reference

    def __exit__(self, *exc_info: object) -> None:
        self._others.pop(self._key, None)


class Change(Active):
    """See Ledger.change."""

    __slots__ = ("_note", "_readers")

    def __init__(
        self,
        changes: dict[object, weakref.ref[Active]],
        note: Callable[[], object],
        readers: dict[object, weakref.ref[Active]],
    ) -> None:
        super().__init__(changes)
        self._note = note
        self._readers = readers

    def __enter__(self) -> None:
        if self._readers:
            _let_finish(self._readers)
        self._others[self._key] = self._reference
        self._note()


def _active(some: dict[object, weakref.ref[Active]]) -> list[Active]:
    """Those that have begun and not ended."""
    found = []
    for key, reference in some.copy().items():
        if (one := reference()) is not None:
            found.append(one)
        else:
            some.pop(key, None)  # a Ctrl-C ended it in its first or last step
    return found


def _let_finish(readers: dict[object, weakref.ref[Active]]) -> None:
    """Wait for the current readers of other threads."""
    until_s, look_s = time.monotonic() + _READ_S, _LOOK_S
    waiting = [one for one in _active(readers) if one.thread != get_ident()]
    while waiting and time.monotonic() < until_s:
        time.sleep(look_s)
        look_s = min(2.0 * look_s, _LAST_LOOK_S)
        left = _active(readers)
        waiting = [one for one in waiting if one in left]


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
