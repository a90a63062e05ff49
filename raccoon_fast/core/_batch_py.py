"""The pure-Python form of Batch and Accumulator; their contracts are here."""

from __future__ import annotations

import contextlib
import sys
import time
from _thread import get_ident
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from raccoon_fast import forks
from raccoon_fast.core._body import read_json_body, read_proto_body
from raccoon_fast.core._envelope_py import JsonEnvelope, ProtoEnvelope, own_data, plain_type
from raccoon_fast.core._request import check_events, pair_of, refuse_batch, refuse_event
from raccoon_fast.core._router_py import Router
from raccoon_fast.errors import ClientClosedError, Outcome
from raccoon_fast.threads import at_once, new_lock

if TYPE_CHECKING:
    import threading
    from types import FrameType

__all__ = ["Accumulator", "Batch", "Router"]

_PAGE = forks.PAGE
# As an event's place among several: its data is not to be serialized.
FINISHED = -1
# Another thread has the lock for moments; a finalizer that runs in one of them may have it for long.
_PATIENCE_S = 0.05
_STUCK_S = 5.0
# Numbers that are added up whenever their sum is asked for, at most.
_MOST_NUMBERS = 32
# Events whose types a Counter counts faster than a loop.
_MANY = 16
# Bytes of memory, about: an event that is not in one piece with the others yet, beside its own; a dict of event types;
# an entry there with its count, beside the type's text; what an envelope keeps of a type, and of a length.
_LOOSE_BYTES = 150
_DICT_BYTES = 184
_ENTRY_BYTES = 112
_FORM_BYTES = 700

# An event in the open batch: its type, its data, and the bytes of the batch up to its end.
_Event = tuple[str, bytes, int]
_Events = Sequence[_Event]
_FIRST, _SECOND, _THIRD, _LAST = itemgetter(0), itemgetter(1), itemgetter(2), itemgetter(-1)
_GATHERED = attrgetter("gathered")


class Batch:
    """Events that are sent, acknowledged and tried again together; wire format from the first one on.

    Not thread-safe: whoever took it from an accumulator owns it.

    Args:
        wire: "proto" or "json".
        capacity: Bytes of wire format to make room for at once.

    Attributes:
        wire: As given.
        gathered: What an accumulator has put in, and is not in the envelope yet; a deque until the batch is sealed.
        receipt: What `emit` returns for its events.
        settlement: Whoever wants to know of its outcome.
        req_guid: Its guid.
        accepted_s: time.monotonic() of its first event.
        deadline_s: When it expires, on the same clock.
        attempts: How often it was sent.
        outcome: What is known of its delivery.
        trouble: What the engine noted when an attempt failed; None if none has.
    """

    __slots__ = (
        "_beside",
        "_counts",
        "_envelope",
        "_is_lean",
        "_last_type",
        "_nbytes",
        "_run",
        "accepted_s",
        "attempts",
        "deadline_s",
        "gathered",
        "outcome",
        "receipt",
        "req_guid",
        "settlement",
        "trouble",
        "wire",
    )

    def __init__(self, wire: str, capacity: int = 4096) -> None:
        if wire not in ("proto", "json"):
            raise ValueError(f'wire should be "proto" or "json", not {wire!r}')
        self.wire = wire
        self._envelope: ProtoEnvelope | JsonEnvelope = (ProtoEnvelope if wire == "proto" else JsonEnvelope)(capacity)
        self._beside: int
        self._is_lean: bool
        self._counts: dict[str, int]
        self.gathered: _Events
        self._last_type: str
        self._run: int
        self.receipt: Any
        self.settlement: Any
        self.trouble: Any
        self.clear()

    @property
    def envelope(self) -> ProtoEnvelope | JsonEnvelope:
        """The request."""
        if events := self.gathered:
            # Again from the beginning, where an exception of a signal handler ended it.
            self._envelope.clear()
            self._envelope.add_many(_pairs(events))
            self.gathered = ()
        return self._envelope

    @property
    def count(self) -> int:
        """Events in the batch."""
        return len(self.gathered) or self._envelope.count

    @property
    def nbytes(self) -> int:
        """Bytes that its events take in wire format; in JSON with a comma each, so that parts add up to the whole."""
        return self._nbytes or _nbytes(self.gathered)

    @property
    def cost(self) -> int:
        """Bytes that the accumulator counts for it: `nbytes`, and from `weigh` on what it takes beside them."""
        return self.nbytes + self._beside

    @property
    def is_lean(self) -> bool:
        """Whether it gave up what it would need for more events, in a crowded accumulator."""
        return self._is_lean

    @property
    def types(self) -> Mapping[str, int]:
        """Events by type; to be read only."""
        if self._run:
            self._counts[self._last_type] = self._counts.get(self._last_type, 0) + self._run
            self._run = 0
        return self._counts

    def types_so_far(self) -> Mapping[str, int]:
        """As `types`, for another thread than its owner's: changes nothing."""
        while True:
            events = self.gathered
            counts = self._counts.copy()
            if run := self._run:
                counts[self._last_type] = counts.get(self._last_type, 0) + run
            if counts:
                return counts
            counts = _counted(events)
            if events is self.gathered:  # and not sealed just now
                return counts

    def add(self, type: str, data: bytes | bytearray | memoryview) -> None:  # noqa: A002 - the proto field's name
        """Append one event; arguments and errors as those of the envelope's `add`."""
        if data.__class__ is not bytes:
            data = own_data(data)
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        size = self.envelope.measure(type, len(data))
        self.envelope.add(type, data)
        self._nbytes += size
        if type == self._last_type:
            self._run += 1
        else:
            _ = self.types  # counts what there was of the type before
            self._last_type = type
            self._run = 1

    def add_many(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Append events, each as `add` does; at the first wrong one raise, and keep those before it."""
        for index, event in enumerate(events):
            self.add(*pair_of(index, event))

    def events(self) -> list[tuple[str, bytes]]:
        """Read its events back out of the wire format.

        Raises:
            DecodeError: What was loaded is not a body.
        """
        return (read_proto_body if self.wire == "proto" else read_json_body)(self.envelope.body())

    def load(self, body: bytes, types: Mapping[str, int]) -> None:
        """Replace its events by those of another batch of the same wire: its `envelope.body()` and its `types`."""
        self._envelope.load(body, sum(types.values()))
        self.gathered = ()
        self._nbytes = len(body) + (1 if self.wire == "json" else 0)
        self._beside = 0
        self._counts = {**types}
        self._last_type = ""
        self._run = 0

    def clear(self) -> None:
        """Take everything out, for reuse; the memory is kept."""
        self._envelope.clear()
        self.gathered = ()
        self.receipt = None
        self.settlement = None
        self.trouble = None
        self.req_guid = ""
        self.accepted_s = 0.0
        self.deadline_s = 0.0
        self.attempts = 0
        self.outcome = Outcome.NOT_DELIVERED
        self._nbytes = 0
        self._beside = 0
        self._is_lean = False
        self._counts = {}
        self._last_type = ""
        self._run = 0

    def weigh(self, batch_cost: int, one_type: Mapping[str, int] | None, *, is_crowded: bool) -> Mapping[str, int]:
        """As the accumulator's, which says whether memory is tight, and what types the last such batch had.

        Returns:
            Its types.
        """
        if is_crowded:
            self.envelope.make_lean()
            self._is_lean = True
        self._beside, self._counts = _weighed(self.types, self.count, batch_cost, one_type, is_crowded=is_crowded)
        return self._counts


def _pairs(events: Iterable[_Event]) -> Iterable[tuple[str, bytes]]:
    return ((event_type, data) for event_type, data, _ in events)


def _counted(events: _Events) -> dict[str, int]:
    if len(events) > _MANY:
        return {**Counter(map(_FIRST, [*events]))}
    counts: dict[str, int] = {}
    for event_type, _, _ in [*events]:
        counts[event_type] = counts.get(event_type, 0) + 1
    return counts


def _nbytes(events: _Events) -> int:
    try:
        return events[-1][2]
    except IndexError:
        return 0


def _weighed(
    types: Mapping[str, int], count: int, batch_cost: int, one_type: Mapping[str, int] | None, *, is_crowded: bool
) -> tuple[int, dict[str, int]]:
    """The bytes that a batch takes beside its events, and the dict that its types may share with another one."""
    beside = batch_cost if is_crowded else batch_cost + _LOOSE_BYTES * count + _FORM_BYTES * len(types)
    if is_crowded and types == one_type:
        assert isinstance(one_type, dict)
        return beside, one_type
    beside += _DICT_BYTES
    for name in types:
        beside += _ENTRY_BYTES + len(name) * (1 if name.isascii() else 4)
    assert isinstance(types, dict)
    return beside, types


class Accumulator:
    """Events in, sealed batches out, within a bound of memory.

    Any thread may call anything at any time. The hooks are called in the thread that caused them, with nothing locked,
    so they may call back. Each change is one step: an exception of a signal handler ends a call before it or after it,
    and what a handler calls sees all of it or nothing.

    Args:
        make_batch: Returns an empty batch for the next event. Two threads may ask at once; what the slower one got is
            then not used.
        serializer: Turns an event's data into bytes, before anything else is done; None where it is bytes already.
        wire: "proto" or "json", that of the batches.
        max_events: A batch with so many is sealed.
        max_bytes: A batch is sealed before it grows over so many bytes of wire format; a larger event is alone in its
            batch.
        max_event_bytes: A larger event is refused.
        buffer_bytes: Bytes of events that were accepted and not released, and of what sealed batches take beside them,
            at most, but for what the last batch takes beside its events. From an eighth of that on batches give up what
            they do not need.
        batch_cost: Bytes of memory that a batch takes beside that of its events and their types: its objects, and what
            `make_batch` puts there. 0 counts the events' bytes alone.
        rescue: Called with the data of which the serializer raised a TypeError, the event's type, and its place among
            several or None; has the bytes, or raises.

    Attributes:
        on_open: Called with a batch that got its first event.
        on_sealed: Called when there is one more batch to take.
        on_full: Called with the events, by type, and the size of what has no room. True means that there may be room
            now; anything else is returned by `emit`, which then has not accepted the event.
    """

    def __init__(
        self,
        make_batch: Callable[[], Batch],
        *,
        serializer: Callable[[Any], bytes] | None,
        wire: str,
        max_events: int,
        max_bytes: int,
        max_event_bytes: int,
        buffer_bytes: int,
        batch_cost: int = 0,
        rescue: Callable[[Any, str, int | None], bytes] | None = None,
    ) -> None:
        self.on_open: Callable[[Batch], object] = _nothing
        self.on_sealed: Callable[[], object] = _nothing
        self.on_full: Callable[[Mapping[str, int], int], Any] = _nothing
        self._make_batch = make_batch
        self._serializer = serializer
        self._rescue = rescue
        self._gauge = Batch(wire).envelope
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_event_bytes = max_event_bytes
        self._buffer_bytes = buffer_bytes
        self._batch_cost = batch_cost
        # The types of the last lean batch of one type.
        self._one_type: Mapping[str, int] | None
        self._closed = False
        # The open batch while `on_open` has not returned for it: whoever comes meanwhile calls it too.
        self._untold: Batch | None
        self.reset()

    # What is counted is the sum of numbers in a deque, and of what waits in batches that are not sealed yet.

    @property
    def buffered(self) -> int:
        """Bytes of events that were accepted and not released; of sealed batches, what they cost."""
        try:
            return sum(chain(self._bytes, map(_THIRD, map(_LAST, map(_GATHERED, chain(self._opened, self._sealing))))))
        except IndexError:  # the only event of one was withdrawn
            return sum(self._bytes) + sum(_nbytes(batch.gathered) for batch in [*self._opened, *self._sealing])

    @property
    def accepted(self) -> int:
        """Events accepted so far."""
        return sum(chain(self._accepted, map(len, map(_GATHERED, chain(self._opened, self._sealing)))))

    @property
    def taken(self) -> int:
        """Events of the batches that were taken or dropped so far."""
        return sum(self._taken)

    @property
    def open_count(self) -> int:
        """Events in the batch that is not sealed yet."""
        batch = self._open_batch()
        return batch.count if batch is not None else 0

    @property
    def sealed(self) -> int:
        """Batches to take."""
        return len(self._sealed)

    @property
    def oldest_s(self) -> float:
        """When the batch that `take` has next got its first event (its `accepted_s`); infinity if there is none."""
        try:
            return self._sealed[0][0].accepted_s
        except IndexError:
            return float("inf")

    def emit(self, type: str, data: Any) -> Any:  # noqa: A002 - the proto field's name
        """Accept one event.

        Returns:
            The receipt of the batch that carries it.

        Raises:
            MessageTooLargeError: It is over `max_event_bytes`.
            ClientClosedError: `close` was called.
            TypeError, ValueError: As the envelope's `add`.
        """
        return self._accept(type, data, None)

    def _accept(self, type: str, data: Any, index: int | None) -> Any:  # noqa: A002
        if not _PAGE[0]:
            forks.check()
        if self._serializer is not None and index != FINISHED:
            data = self._serialized(type, data, index)
        # Whatever may be wrong with the event is found before anything is changed for it.
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        if data.__class__ is not bytes:
            data = own_data(data)
        fresh: Batch | None = None
        opened = sealed = False
        while True:
            lock = self._enter()
            if lock is None:
                return self._emit_alone(type, data)
            try:
                if self._closed:
                    raise ClientClosedError("the producer was closed")
                size = self._gauge.measure(type, len(data))
                if size > self._max_event_bytes:
                    refuse_event(size, self._max_event_bytes)
                if self._sealing:
                    sealed = self._finish_sealing() or sealed
                batch: Any = None
                events: Any = None
                nbytes = 0
                try:
                    batch = self._opened[0]
                    events = batch.gathered
                    nbytes = events[-1][2]
                except IndexError:  # there is none, or its only event was withdrawn
                    pass
                if batch is not None and events.__class__ is not deque:
                    continue  # it was sealed just now
                is_full = sum(self._bytes) + nbytes + size > self._buffer_bytes
                if not is_full:
                    is_needed = batch is None or nbytes + size > self._max_bytes
                    if not is_needed or fresh is not None:
                        if is_needed:
                            if batch is not None:
                                sealed = self._seal(batch) or sealed
                            assert fresh is not None
                            batch, nbytes = fresh, 0
                            events = batch.gathered = deque()
                        receipt = batch.receipt  # whoever takes the batch once it is sealed may clear it
                        event = (type, data, nbytes + size)
                        events.append(event)
                        if is_needed:
                            self._untold = batch
                            self._opened.append(batch)
                            opened = True
                            fresh = None
                        if (self._closed or batch.gathered is not events) and _withdraw(events, event):
                            continue  # a signal handler, or another thread, has closed it or sealed the batch
                        if len(events) >= self._max_events:
                            sealed = self._seal(batch) or sealed
                        break
            finally:
                self._leave(lock)
            if is_full:
                answer = self.on_full({type: 1}, size)
                if answer is not True:
                    return answer
            else:
                fresh = self._make_batch()
        if opened:
            self._tell(True)
        if sealed:
            self.on_sealed()
        if self._untold is not None and not opened:
            self._tell(False)
        return receipt

    def _serialized(self, type: str, data: Any, index: int | None) -> bytes:  # noqa: A002
        assert self._serializer is not None
        if self._rescue is None:
            return self._serializer(data)
        try:
            return self._serializer(data)
        except TypeError:
            pass
        return self._rescue(data, type, index)

    def _tell(self, is_ours: bool) -> None:
        """Call `on_open` for the batch that it was not called for, or not to its end."""
        batch = self._untold
        if batch is None:
            return
        if not is_ours:
            self._untold = None  # first, for the hook may emit
            if batch is not self._open_batch():
                return  # it is sealed by now
        try:
            self.on_open(batch)
        except Exception:
            self._untold = None  # but not after a Ctrl-C
            raise
        if self._untold is batch:
            self._untold = None

    def _emit_alone(self, type: str, data: bytes) -> Any:  # noqa: A002 - the proto field's name
        """Accept one event as a batch of its own, while the code that this call interrupts changes the open one."""
        batch = self._make_batch()
        batch.add(type, data)
        size = batch.nbytes
        if size > self._max_event_bytes:
            refuse_event(size, self._max_event_bytes)
        self.seal()  # or it would overtake what this thread emitted before
        return self._append_alone(batch)

    def _append_alone(self, batch: Batch) -> Any:
        receipt, size = batch.receipt, batch.nbytes
        while True:
            if self._closed:
                raise ClientClosedError("the producer was closed")
            if self.buffered + size <= self._buffer_bytes:
                break
            answer = self.on_full(batch.types, size)
            if answer is not True:
                return answer
        cost, entry = self.weigh(batch), (batch, batch.count)
        at_once(map(deque.append, (self._bytes, self._accepted, self._sealed), (cost, entry[1], entry)))  # type: ignore[arg-type]
        if self._closed:  # a signal handler closed it just now: nobody may be left to take the batch
            numbers = (self._bytes, self._accepted), (-cost, -entry[1])
            with contextlib.suppress(ValueError):  # it was taken
                at_once(map(deque.remove, (self._sealed,), (entry,)), map(deque.append, *numbers))
                raise ClientClosedError("the producer was closed")
        _fold(self._bytes)
        _fold(self._accepted)
        self.on_sealed()
        return receipt

    def emit_many(self, events: Iterable[tuple[str, Any]]) -> list[Any]:
        """Accept events, each as `emit` does; at the first wrong one raise, and keep those before it.

        Returns:
            The receipts of the batches that carry them, each once, in order.

        Raises:
            TypeError: An event is no pair of a str and data; its place is named. Otherwise as `emit`.
        """
        check_events(events)
        receipts: dict[Any, None] = {}
        for index, event in enumerate(events):
            receipts[self._accept(*pair_of(index, event), index)] = None
        return list(receipts)

    def emit_some(
        self, events: Iterator[tuple[str, Any]], most: int, refusal: object, receipts: dict[Any, None], first: int = 0
    ) -> tuple[int, Any]:
        """Go through up to `most` of the events that an iterator has left, with each as `emit` does.

        Args:
            events: Goes on where the last call ended.
            most: 1 or more.
            refusal: What `on_full` answers for an event that is not accepted; the call ends with it.
            receipts: Gets the receipts of the batches that carry them, each once, in order.
            first: The place of the next event among all of them, for errors.

        Returns:
            How many it went through, fewer than `most` when there are no more; and the last of them if it was refused,
            or None.
        """
        number = 0
        for event in events:
            receipt = self._accept(*pair_of(first + number, event), first + number)
            number += 1
            if receipt is refusal:
                return number, event
            receipts[receipt] = None
            if number >= most:
                break
        return number, None

    def add_batch(self, batch: Batch) -> Any:
        """Accept a batch as it is, sealed, behind those that wait; the open one stays open.

        `max_events` and `max_bytes` do not hold for it.

        Returns:
            Its receipt.

        Raises:
            MessageTooLargeError: It is over `max_event_bytes`.
            ClientClosedError: `close` was called.
        """
        forks.check()
        size = batch.nbytes
        if size > self._max_event_bytes:
            refuse_batch(size, self._max_event_bytes, batch.count)
        return self._append_alone(batch)

    def seal(self) -> bool:
        """Seal the open batch. Returns whether there was one."""
        batch = self._open_batch()
        has_sealed = batch is not None and self._seal(batch)
        if self._finish_sealing() or has_sealed:
            self.on_sealed()
            return True
        return False

    def take(self, into: deque[Batch] | None = None) -> Batch | None:
        """Hand over the sealed batch that waits longest, or None.

        Args:
            into: A deque that gets the batch too, in the same step.
        """
        if self._sealing:
            self._finish_sealing()
        try:
            if into is None:
                batch, count = self._sealed.popleft()
                self._taken.append(count)
            else:
                taken: deque[tuple[Batch, int]] = deque()
                at_once(
                    map(deque.append, (taken,), map(deque.popleft, (self._sealed,))),
                    map(deque.append, (self._taken,), map(_SECOND, map(_FIRST, (taken,)))),
                    map(deque.append, (into,), map(_FIRST, map(_FIRST, (taken,)))),
                )
                batch, _ = taken[0]
        except IndexError:
            return None
        if len(self._taken) > _MOST_NUMBERS:
            _fold(self._taken)
        return batch

    def take_all(self) -> tuple[deque[Batch], dict[str, int]]:
        """Hand over every sealed batch, in order, and the events of all of them by type."""
        self._finish_sealing()
        entries: deque[tuple[Batch, int]] = deque()
        at_once(
            map(deque.extend, (entries,), (self._sealed,)),
            map(deque.clear, (self._sealed,)),
            map(deque.append, (self._taken,), map(sum, (map(_SECOND, chain(entries)),))),
        )
        counts: dict[str, int] = {}
        for batch, _ in entries:
            for type_, count in batch.types.items():
                counts[type_] = counts.get(type_, 0) + count
        return deque(map(_FIRST, entries)), counts

    def weigh(self, batch: Batch) -> int:
        """Give a batch its cost, and return it: once, for one that came from elsewhere; nothing is counted here."""
        if self._batch_cost and batch.cost == batch.nbytes:
            is_crowded = self.buffered > self._buffer_bytes >> 3
            types = batch.weigh(self._batch_cost, self._one_type, is_crowded=is_crowded)
            if is_crowded and len(types) == 1:
                self._one_type = types
        return batch.cost

    def hold(self, nbytes: int) -> None:
        """Count bytes that came from elsewhere: the cost of a batch that was stored."""
        self._bytes.append(nbytes)
        if len(self._bytes) > _MOST_NUMBERS:
            _fold(self._bytes)

    def release(self, nbytes: int) -> None:
        """Give back the cost of a batch."""
        self._bytes.append(-nbytes)
        if len(self._bytes) > _MOST_NUMBERS:
            _fold(self._bytes)

    def releasing(self, nbytes: int) -> Iterator[object]:
        """As `release`, for `threads.at_once`."""
        return map(self._bytes.append, (-nbytes,))

    def limit_bytes(self, max_bytes: int) -> None:
        """Seal batches before they grow over so many bytes from now on, if that is less than before."""
        self._max_bytes = min(self._max_bytes, max_bytes)

    def close(self) -> None:
        """Accept nothing from now on. Idempotent."""
        self._closed = True

    def reset(self) -> None:
        """Forget every batch and every count; in a forked child, where another thread may have held the lock."""
        self._lock = new_lock()
        self._holder = 0
        self._stuck_s = 0.0
        self._untold = None
        self._one_type = None
        # One batch or none.
        self._opened: deque[Batch] = deque()
        # Those whose cost is being found; whoever finds one there goes on with it.
        self._sealing: deque[Batch] = deque()
        # With the number of their events.
        self._sealed: deque[tuple[Batch, int]] = deque()
        self._bytes: deque[int] = deque()
        self._accepted: deque[int] = deque()
        self._taken: deque[int] = deque()

    def waiting_types(self) -> dict[str, int]:
        """Events by type of the batches that were not taken yet, all at one moment."""
        counts: dict[str, int] = {}
        for batch in [*chain(map(_FIRST, chain(self._sealed)), self._sealing, self._opened)]:
            for type_, count in batch.types_so_far().items():
                counts[type_] = counts.get(type_, 0) + count
        return counts

    def _open_batch(self) -> Batch | None:
        try:
            return self._opened[0]
        except IndexError:
            return None

    def _seal(self, batch: Batch) -> bool:
        """Seal the open batch, with the lock or without it; False if another call has done so, or it is empty.

        The call that has the lock may be suspended, by the signal handler that this one runs in, and wait for its end.
        """
        events = batch.gathered
        try:
            at_once(
                map(deque.remove, (self._opened,), (batch,)),
                map(deque.append, (self._sealing,), (batch,)),
                map(setattr, (batch,), ("gathered",), map(list, (events,))),
                map(deque.clear, (events,)),  # type: ignore[arg-type]
            )
        except ValueError:
            return False
        return self._finish_sealing()

    def _finish_sealing(self) -> bool:
        """Put batches to those that are sealed. Returns whether there are more of them now."""
        has_sealed = False
        while self._sealing:
            try:
                batch = self._sealing[0]
                events = batch.gathered
                if not events:  # its only event was withdrawn
                    self._sealing.remove(batch)
                    continue
                nbytes, count = events[-1][2], len(events)
                changes = self._changes(events, nbytes, count)
                numbers = nbytes + changes["_beside"], count, (batch, count)
                at_once(
                    map(deque.remove, (self._sealing,), (batch,)),
                    map(setattr, repeat(batch), changes, changes.values()),
                    map(deque.append, (self._bytes, self._accepted, self._sealed), numbers),  # type: ignore[arg-type]
                )
                has_sealed = True
            except (IndexError, ValueError):  # another call was faster
                pass
        if len(self._bytes) > _MOST_NUMBERS or len(self._accepted) > _MOST_NUMBERS:
            _fold(self._bytes)
            _fold(self._accepted)
        return has_sealed

    def _changes(self, events: _Events, nbytes: int, count: int) -> dict[str, Any]:
        """What sealing changes in a batch. It is found beside the batch, which another call may change meanwhile."""
        types = _counted(events)
        beside, is_crowded = 0, False
        if self._batch_cost:
            is_crowded = sum(self._bytes) + nbytes > self._buffer_bytes >> 3
            beside, types = _weighed(types, count, self._batch_cost, self._one_type, is_crowded=is_crowded)
        changes = {"_beside": beside, "_counts": types, "_nbytes": nbytes}
        if is_crowded:
            if len(types) == 1:
                self._one_type = types
            envelope = self._gauge.__class__(0)
            envelope.add_many(_pairs(events))
            envelope.make_lean()
            changes.update(_is_lean=True, _envelope=envelope, gathered=())
        return changes

    # No call waits for good for another one: a finalizer or a signal handler runs in the thread that it interrupts, or
    # makes that thread wait for the one that emits. The lock only keeps two threads from overfilling a batch or the
    # buffer.

    def _enter(self) -> threading.Lock | None:
        """Take the lock; None where the code that this call interrupts has it, or another thread has it for long."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            if self._holder == get_ident():
                if self._is_interrupted():
                    return None
                lock = self._lock = new_lock()
                lock.acquire()
            elif not lock.acquire(timeout=_PATIENCE_S):
                self._look_whether_stuck(lock)
                return None
        self._holder = get_ident()
        return lock

    def _is_interrupted(self) -> bool:
        """Whether the call that enters interrupts one that has the lock, which a Ctrl-C did not end before it left."""
        frame: FrameType | None = sys._getframe(2).f_back  # noqa: SLF001
        while frame is not None:
            if frame.f_code is _ACCEPTING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _look_whether_stuck(self, lock: threading.Lock) -> None:
        """Make a new lock where a Ctrl-C came just after a call had taken it, and nobody will release it."""
        now_s = time.monotonic()
        if not self._stuck_s:
            self._stuck_s = now_s
        if (not self._holder or now_s - self._stuck_s > _STUCK_S) and lock is self._lock:
            self._lock = new_lock()
            self._stuck_s = 0.0

    def _leave(self, lock: threading.Lock) -> None:
        self._stuck_s = 0.0
        self._holder = 0
        lock.release()


def _fold(numbers: deque[int]) -> None:
    """Put their sum in place of many."""
    total: deque[int] = deque()
    at_once(
        map(deque.append, (total,), map(sum, (numbers,))),
        map(deque.clear, (numbers,)),
        map(deque.append, (numbers,), map(deque.popleft, (total,))),
    )


def _withdraw(events: deque[_Event], event: _Event) -> bool:
    """Take an event out of the open batch again; False if the batch was sealed with the event in it."""
    try:
        events.remove(event)
    except ValueError:
        return False
    return True


_ACCEPTING = Accumulator._accept.__code__  # noqa: SLF001


def _nothing(*_: object) -> None:
    pass
