"""The pure-Python form of Batch and Accumulator, with their contracts."""

from __future__ import annotations

import contextlib
import sys
import time
from _thread import get_ident
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, repeat
from operator import attrgetter, itemgetter, not_
from typing import TYPE_CHECKING, Any

from raccoon_fast import forks
from raccoon_fast.core._body import read_json_body, read_proto_body
from raccoon_fast.core._envelope_py import JsonEnvelope, ProtoEnvelope, own_data, plain_type
from raccoon_fast.core._memory_py import give_back
from raccoon_fast.core._request import check_events, pair_of, place_error, refuse_batch, refuse_event
from raccoon_fast.core._router_py import Router
from raccoon_fast.core._steps_py import Steps, new_steps
from raccoon_fast.errors import ClientClosedError, Outcome
from raccoon_fast.threads import new_lock, snapshot

if TYPE_CHECKING:
    import threading
    from types import FrameType

__all__ = ["Accumulator", "Batch", "Buffer", "Router", "types_of"]

_PAGE = forks.PAGE
# How long to wait for another thread's lock. It is held for moments, unless a finalizer runs meanwhile and takes long.
_PATIENCE_S = 0.05
_STUCK_S = 5.0
# Each sum is computed from a deque whenever it is read. Once a deque has more numbers, their sum replaces them.
_MOST_NUMBERS = 32
# For more events than this, a Counter counts their types faster than a loop.
_MANY = 16
# Approximate bytes of memory: of a lean batch, more than of a compiled one; of an event that is not joined with the
# others yet, besides its own bytes; of a dict of event types; of an entry in it with its count, besides the type's
# text; of what an envelope keeps per type and length.
_LEAN_BYTES = 256
_LOOSE_BYTES = 150
_DICT_BYTES = 184
_ENTRY_BYTES = 112
_FORM_BYTES = 700
# See _batch_c.pyx. A lean batch without its events has this many bytes of small objects.
_SMALL_OBJECTS = 1280
_MOST_SCATTERED = 12 << 20

# An event in the open batch: its type, its data, and the bytes of the batch up to the event's end.
_Event = tuple[str, bytes, int]
_Events = Sequence[_Event]
_FIRST, _SECOND, _THIRD, _LAST = itemgetter(0), itemgetter(1), itemgetter(2), itemgetter(-1)
_GATHERED = attrgetter("gathered")


class Batch:
    """Events that are sent, acknowledged and retried together. They are in wire format from the first one on.

    Not thread-safe: the thread that took it from an accumulator owns it.

    Args:
        wire: "proto" or "json".
        capacity: Bytes of wire format to allocate at once.

    Attributes:
        wire: The argument.
        gathered: Events that an accumulator added and that are not in the envelope yet; a deque until the batch is
            sealed.
        receipt: What `emit` returns for its events.
        settlement: The object that is told its outcome.
        req_guid: Its guid.
        accepted_s: When it got its first event, by time.monotonic().
        deadline_s: When it expires, on the same clock.
        attempts: How often it was sent.
        outcome: What is known about its delivery.
        trouble: What the engine recorded when an attempt failed; None if no attempt has failed.
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
            self._envelope.fill(events, _nbytes(events))
            self.gathered = ()
        return self._envelope

    @property
    def count(self) -> int:
        """Events in the batch."""
        return len(self.gathered) or self._envelope.count

    @property
    def nbytes(self) -> int:
        """Bytes of the events in wire format; in JSON with a comma per event, so that parts add up to the whole."""
        return self._nbytes or _nbytes(self.gathered)

    @property
    def cost(self) -> int:
        """Bytes that the accumulator counts for it: `nbytes` and, after `weigh`, the memory it uses besides them."""
        return self.nbytes + self._beside

    @property
    def is_lean(self) -> bool:
        """Whether it freed the memory needed for adding more events, because the accumulator was crowded."""
        return self._is_lean

    @property
    def types(self) -> Mapping[str, int]:
        """The number of events per type. Do not change the mapping."""
        if self._run:
            self._counts[self._last_type] = self._counts.get(self._last_type, 0) + self._run
            self._run = 0
        return self._counts

    def types_so_far(self) -> Mapping[str, int]:
        """Like `types`, but for threads that do not own the batch: it changes nothing."""
        while True:
            events = self.gathered
            counts = self._counts.copy()
            if run := self._run:
                counts[self._last_type] = counts.get(self._last_type, 0) + run
            if counts:
                return counts
            counts = _counted(events)
            if events is self.gathered:  # else it was sealed just now
                return counts

    def add(self, type: str, data: bytes | bytearray | memoryview) -> None:  # noqa: A002 - the proto field's name
        """Append one event. The arguments and errors are those of the envelope's `add`."""
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
            _ = self.types  # counts the events of the previous type
            self._last_type = type
            self._run = 1

    def add_many(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Append events, each as `add` does. The first wrong event raises; the events before it stay."""
        for index, event in enumerate(events):
            type_, data = pair_of(index, event)
            try:
                self.add(type_, data)
            except (TypeError, ValueError) as error:
                place_error(error, index)
                raise

    def events(self) -> list[tuple[str, bytes]]:
        """Read its events back out of the wire format.

        Raises:
            DecodeError: `load` got bytes that are not a body.
        """
        return (read_proto_body if self.wire == "proto" else read_json_body)(self.envelope.body())

    def load(self, body: bytes, types: Mapping[str, int]) -> None:
        """Replace the events with those of another batch of the same wire format: its `envelope.body()` and `types`."""
        self._envelope.load(body, sum(types.values()))
        self.gathered = ()
        self._nbytes = len(body) + (1 if self.wire == "json" else 0)
        self._beside = 0
        self._counts = {**types}
        self._last_type = ""
        self._run = 0

    def clear(self) -> None:
        """Remove everything, for reuse. The memory is kept."""
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
        """Like the accumulator's `weigh`.

        Args:
            batch_cost: The `batch_cost` of the accumulator.
            one_type: The types of the last lean batch that had only one type.
            is_crowded: Whether memory is tight. The batch then frees what it does not need.

        Returns:
            The types of this batch.
        """
        if is_crowded:
            self.envelope.make_lean()
            self._is_lean = True
        self._beside, self._counts = _weighed(self.types, self.count, batch_cost, one_type, is_crowded=is_crowded)
        return self._counts


def _counted(events: _Events) -> dict[str, int]:
    if len(events) > _MANY:
        return {**Counter(map(_FIRST, snapshot(events)))}
    counts: dict[str, int] = {}
    for event_type, _, _ in snapshot(events):
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
    """Return the bytes that a batch uses besides its events; and its types, in a dict that batches may share."""
    beside = batch_cost + (_LEAN_BYTES if is_crowded else _LOOSE_BYTES * count + _FORM_BYTES * len(types))
    if is_crowded and types == one_type:
        assert isinstance(one_type, dict)
        return beside, one_type
    beside += _DICT_BYTES
    for name in types:
        beside += _ENTRY_BYTES + len(name) * (1 if name.isascii() else 4)
    assert isinstance(types, dict)
    return beside, types


class Buffer:
    """A memory limit that several accumulators divide among themselves.

    Args:
        nbytes: The limit.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._accumulators: list[Accumulator] = []

    def _part(self, accumulator: Accumulator, nbytes: int) -> float:
        """Add an accumulator with this limit. Returns its part of the buffer."""
        self._accumulators.append(accumulator)
        return nbytes / self._nbytes

    def _is_drained(self) -> bool:
        held = sum(one._total(one._bytes) for one in self._accumulators)  # noqa: SLF001 - the other half of it
        return held < self._nbytes >> 3


class Accumulator:
    """Collects events into batches and hands out the sealed batches, within a memory limit.

    Any thread may call any method at any time. A hook runs in the thread that caused it. No lock is held then, so the
    hook may call the accumulator. Each change is one step: an exception of a signal handler ends a call before or after
    the change, and a call made by a handler sees the whole change or none of it.

    There is one open batch. Only in the compiled form, and without a GIL, threads that fill batches have their own open
    batches; what this class says of the open batch then applies to each of them. The events of one thread keep their
    order.

    Args:
        make_batch: Returns an empty batch for the next event. Two threads may call it at the same time; the batch of
            the slower thread is then not used.
        serializer: Turns an event's data into bytes, before anything else happens; None if the data is bytes already.
        wire: The wire format of the batches, "proto" or "json".
        max_events: A batch with this many events is sealed.
        max_bytes: A batch is sealed before it exceeds this many bytes of wire format. A larger event gets a batch of
            its own.
        max_event_bytes: A larger event is refused.
        buffer_bytes: The most bytes of events that were accepted and not released, plus the memory that sealed batches
            use besides their events. Only this memory of the last batch may exceed the limit. Once an eighth of the
            limit is in use, batches free what they do not need.
        batch_cost: Bytes of memory that a batch uses besides its events and their types: its own objects, and those
            that `make_batch` adds. With 0, only the bytes of events count.
        buffer: What this accumulator has `buffer_bytes` of, if it shares it with others. A forked child resets all of
            them.
        rescue: Called when the serializer raised a TypeError: with the data, the event's type, and its index among
            several events or None. Returns the bytes, or raises.

    Attributes:
        on_open: Called with a batch that got its first event.
        on_sealed: Called when one more batch can be taken.
        on_full: Called with the number of events per type and the size of what does not fit. True means that there may
            be room now. `emit` returns anything else as its result, and has then not accepted the event.
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
        buffer: Buffer | None = None,
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
        self._buffer = Buffer(buffer_bytes) if buffer is None else buffer
        self._most_scattered = int(_MOST_SCATTERED * self._buffer._part(self, buffer_bytes))  # noqa: SLF001 - as above
        # The types of the last lean batch that had only one type.
        self._one_type: Mapping[str, int] | None
        self._closed = False
        # The open batch until `on_open` has returned for it. Until then, other calls call `on_open` too.
        self._untold: Batch | None
        self.reset()

    # Each count is the sum of the numbers in a deque, plus what is in the batches that are not sealed yet.

    @property
    def buffered(self) -> int:
        """Bytes of the events that were accepted and not released. A sealed batch counts with its `cost`.

        After very many small batches, memory that Python cannot return yet counts too.
        """
        try:
            waiting = map(_THIRD, map(_LAST, map(_GATHERED, chain(self._opened, self._sealing))))
            held = self._total(chain(self._bytes, waiting))
        except IndexError:  # the only event of a batch was withdrawn
            batches = self._items(chain(self._opened, self._sealing))
            held = self._total(self._bytes) + sum(_nbytes(batch.gathered) for batch in batches)
        return held + self._scattered(held)

    @property
    def accepted(self) -> int:
        """Events accepted so far."""
        return self._total(chain(self._accepted, map(len, map(_GATHERED, chain(self._opened, self._sealing)))))

    @property
    def taken(self) -> int:
        """Events in the batches that were taken or dropped so far."""
        return self._total(self._taken)

    @property
    def open_count(self) -> int:
        """Events that are not in a sealed batch yet."""
        batch = self._open_batch()
        return batch.count if batch is not None else 0

    @property
    def open_since_s(self) -> float:
        """The `accepted_s` of the oldest open batch; infinity if there is none."""
        batch = self._open_batch()
        return batch.accepted_s if batch is not None else float("inf")

    @property
    def sealed(self) -> int:
        """Batches that are sealed and can be taken."""
        return len(self._sealed)

    @property
    def oldest_s(self) -> float:
        """When the batch that `take` returns next got its first event (its `accepted_s`); infinity if there is none."""
        try:
            return self._sealed[0][0].accepted_s
        except IndexError:
            return float("inf")

    def emit(self, type: str, data: Any) -> Any:  # noqa: A002 - the proto field's name
        """Accept one event.

        Returns:
            The receipt of the batch that carries the event.

        Raises:
            MessageTooLargeError: The event is over `max_event_bytes`.
            ClientClosedError: `close` was called.
            TypeError, ValueError: As in the envelope's `add`.
        """
        if self._serializer is not None:
            data = self._serialized(type, data, None)
        return self._accept(type, data)

    def _accept_at(self, type: str, data: Any, index: int) -> Any:  # noqa: A002
        """Accept one of several events. The error that refuses it names its index; a serializer's own is unchanged."""
        if self._serializer is not None:
            data = self._serialized(type, data, index)
        try:
            return self._accept(type, data)
        except (TypeError, ValueError) as error:
            place_error(error, index)
            raise

    def _accept(self, type: str, data: Any) -> Any:  # noqa: A002
        """Accept one event whose data is serialized already."""
        if not _PAGE[0]:
            forks.check()
        # Check the whole event before changing anything for it.
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
                except IndexError:  # there is no batch, or its only event was withdrawn
                    pass
                if batch is not None and events.__class__ is not deque:
                    continue  # it was sealed just now
                held = self._total(self._bytes) + nbytes + size
                is_full = held + self._scattered(held) > self._buffer_bytes
                if not is_full:
                    is_needed = batch is None or nbytes + size > self._max_bytes
                    if not is_needed or fresh is not None:
                        if batch is None and self._max_events == 1:
                            # Sealed at once, without the steps between.
                            assert fresh is not None
                            receipt = fresh.receipt
                            fresh.gathered = [(type, data, size)]
                            changes = self._changes(fresh.gathered, size, 1)
                            for name, value in changes.items():
                                setattr(fresh, name, value)
                            self._untold = fresh
                            self._append_sealed(fresh, size + changes["_beside"], 1)
                            opened = sealed = True
                            break
                        if is_needed:
                            if batch is not None:
                                sealed = self._seal(batch) or sealed
                            assert fresh is not None
                            batch, nbytes = fresh, 0
                            events = batch.gathered = deque()
                        receipt = batch.receipt  # before another thread takes the sealed batch and clears it
                        event = (type, data, nbytes + size)
                        self._append(events, event)
                        if is_needed:
                            if not self._open(batch):
                                continue
                            opened = True
                            fresh = None
                        if (self._closed or batch.gathered is not events) and self._withdraw(events, event):
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
            self._tell_sealed()
        if self._untold is not None and not opened:
            self._tell(False)
        return receipt

    def _serialized(self, type: str, data: Any, index: int | None) -> bytes:  # noqa: A002
        assert self._serializer is not None
        if not _PAGE[0]:
            forks.check()
        if self._rescue is None:
            return self._serializer(data)
        try:
            return self._serializer(data)
        except TypeError:
            pass
        return self._rescue(data, type, index)

    def _tell(self, is_ours: bool) -> None:
        """Call `on_open` for the open batch if it was not called yet or did not return."""
        batch = self._untold
        if batch is None:
            return
        if not is_ours:
            self._untold = None  # before the call, because the hook may emit
            if batch is not self._open_batch():
                return  # it was sealed meanwhile
        try:
            self.on_open(batch)
        except Exception:
            self._untold = None  # not after a Ctrl-C: the next call repeats the hook
            raise
        if self._untold is batch:
            self._untold = None

    def _emit_alone(self, type: str, data: bytes) -> Any:  # noqa: A002 - the proto field's name
        """Accept one event in its own batch, because the code that this call interrupts is changing the open batch."""
        batch = self._make_batch()
        batch.add(type, data)
        size = batch.nbytes
        if size > self._max_event_bytes:
            refuse_event(size, self._max_event_bytes)
        self.seal()  # or the event would overtake what this thread emitted before
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
        self._append_sealed(batch, self.weigh(batch), batch.count)
        self._tell_sealed()
        return receipt

    def _append_sealed(self, batch: Batch, cost: int, count: int) -> None:
        """Accept a batch that is sealed already. Raises ClientClosedError if a signal handler closes this meanwhile."""
        entry = (batch, count)
        self._at_once(
            map(deque.append, (self._bytes, self._accepted, self._sealed), (cost, count, entry))  # type: ignore[arg-type]
        )
        if self._closed:  # maybe no thread is left to take the batch
            numbers = (self._bytes, self._accepted), (-cost, -count)
            with contextlib.suppress(IndexError, ValueError):  # it was taken
                self._at_once(*self._remove(self._sealed, entry), map(deque.append, *numbers))
                raise ClientClosedError("the producer was closed")
        if len(self._bytes) > _MOST_NUMBERS or len(self._accepted) > _MOST_NUMBERS:
            self._fold(self._bytes)
            self._fold(self._accepted)

    def emit_many(self, events: Iterable[tuple[str, Any]]) -> list[Any]:
        """Accept events, each as `emit` does. The first wrong event raises; the events before it stay accepted.

        Returns:
            The receipts of the batches that carry the events, each once, in order.

        Raises:
            TypeError: An event is not a pair of a str and data. Otherwise as in `emit`; the messages name its index.
        """
        check_events(events)
        receipts: dict[Any, None] = {}
        for index, event in enumerate(events):
            receipts[self._accept_at(*pair_of(index, event), index)] = None
        return list(receipts)

    def emit_some(
        self, events: Iterator[tuple[str, Any]], most: int, refusal: object, receipts: dict[Any, None], first: int = 0
    ) -> tuple[int, Any]:
        """Accept up to `most` of an iterator's remaining events, each as `emit` does.

        Args:
            events: An iterator. The next call continues where this one ends.
            most: 1 or more.
            refusal: The object that `on_full` returns for an event that is not accepted. The call ends at this event.
            receipts: Gets the receipts of the batches that carry the events, each once, in order.
            first: The index of the next event among all events, for error messages.

        Returns:
            The number of events read, less than `most` if there are no more; and the last event read if it was
            refused, otherwise None.
        """
        number = 0
        for event in events:
            receipt = self._accept_at(*pair_of(first + number, event), first + number)
            number += 1
            if receipt is refusal:
                return number, event
            receipts[receipt] = None
            if number >= most:
                break
        return number, None

    def add_batch(self, batch: Batch) -> Any:
        """Accept a batch as it is and queue it as sealed, behind the other sealed batches. The open batch stays open.

        `max_events` and `max_bytes` do not apply to it.

        Returns:
            The receipt of the batch.

        Raises:
            MessageTooLargeError: The batch is over `max_event_bytes`.
            ClientClosedError: `close` was called.
        """
        forks.check()
        size = batch.nbytes
        if size > self._max_event_bytes:
            refuse_batch(size, self._max_event_bytes, batch.count)
        return self._append_alone(batch)

    def seal(self, before_s: float | None = None) -> bool:
        """Seal the open batch, unless its `accepted_s` is later than `before_s`. Returns whether there was one."""
        batch = self._open_batch()
        has_sealed = batch is not None and (before_s is None or batch.accepted_s <= before_s) and self._seal(batch)
        if self._finish_sealing() or has_sealed:
            self._tell_sealed()
            return True
        return False

    def take(self, into: deque[Batch] | None = None) -> Batch | None:
        """Remove and return the sealed batch that has waited longest, or None.

        Args:
            into: A deque to which the batch is appended too, in the same step.
        """
        if self._sealing:
            self._finish_sealing()
        try:
            if into is None and self._has_gil:  # the short way
                batch, count = self._sealed.popleft()
                self._taken.append(count)
            else:
                taken: deque[tuple[Batch, int]] = deque()
                self._at_once(
                    map(deque.append, (taken,), map(deque.popleft, (self._sealed,))),
                    map(deque.append, (self._taken,), map(_SECOND, map(_FIRST, (taken,)))),
                    () if into is None else map(deque.append, (into,), map(_FIRST, map(_FIRST, (taken,)))),
                )
                batch, _ = taken[0]
        except IndexError:
            return None
        if len(self._taken) > _MOST_NUMBERS:
            self._fold(self._taken)
        return batch

    def take_all(self) -> tuple[deque[Batch], dict[str, int]]:
        """Remove and return all sealed batches, in order, and the number of their events per type."""
        self._finish_sealing()
        entries: deque[tuple[Batch, int]] = deque()
        self._at_once(
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
        """Set the cost of a batch that came from elsewhere, once, and return it. `buffered` does not change."""
        if self._batch_cost and batch.cost == batch.nbytes:
            is_crowded = self.buffered > self._buffer_bytes >> 3
            types = batch.weigh(self._batch_cost, self._one_type, is_crowded=is_crowded)
            if is_crowded and len(types) == 1:
                self._one_type = types
        return batch.cost

    def hold(self, nbytes: int) -> None:
        """Add to `buffered` the cost of a batch that came from elsewhere, such as a stored one."""
        self._append(self._bytes, nbytes)
        if len(self._bytes) > _MOST_NUMBERS:
            self._fold(self._bytes)

    def release(self, nbytes: int) -> None:
        """Subtract the cost of a batch from `buffered`."""
        self._append(self._bytes, -nbytes)
        if len(self._bytes) > _MOST_NUMBERS:
            self._fold(self._bytes)
        self._released += nbytes

    def releasing(self, nbytes: int) -> Iterator[object]:
        """Like `release`, but returns an iterator for `threads.at_once`."""
        self._released += nbytes
        return self._step(map(self._bytes.append, (-nbytes,)))

    def limit_bytes(self, max_bytes: int) -> None:
        """From now on, seal batches before they exceed this many bytes, if that is less than the current limit."""
        self._max_bytes = min(self._max_bytes, max_bytes)

    def close(self) -> None:
        """Accept nothing from now on. Idempotent."""
        self._closed = True

    def reset(self) -> None:
        """Forget all batches and all counts. Called in a forked child, where another thread may have held the lock."""
        self._lock = new_lock()
        # These see and change the deques below.
        steps = new_steps()
        self._at_once, self._total, self._items = steps.at_once, steps.total, steps.items
        self._append, self._step, self._remove = steps.append, steps.step, steps.remove
        self._has_gil = isinstance(steps, Steps)
        self._holder = 0
        self._stuck_s = 0.0
        # Bytes released since memory was last given back; not exact, as threads count at the same time.
        self._released = 0
        # The most bytes of small objects since the buffer was drained; not exact either.
        self._most_small = 0
        self._untold = None
        self._one_type = None
        # The open batch, if there is one.
        self._opened: deque[Batch] = deque()
        # Batches whose cost is being computed. Any call that finds one here completes its sealing.
        self._sealing: deque[Batch] = deque()
        # Sealed batches, each with the number of its events.
        self._sealed: deque[tuple[Batch, int]] = deque()
        self._bytes: deque[int] = deque()
        self._accepted: deque[int] = deque()
        self._taken: deque[int] = deque()

    def waiting_types(self) -> dict[str, int]:
        """The number of events per type in the batches that were not taken yet, all at one moment."""
        counts: dict[str, int] = {}
        for batch in self._items(chain(map(_FIRST, chain(self._sealed)), self._sealing, self._opened)):
            _add_up(counts, batch.types_so_far())
        return counts

    def _small(self, held: int) -> int:
        """Estimate how many of the bytes in use are small objects, which are in arenas of Python's allocator."""
        return min(held, len(self._sealed) * _SMALL_OBJECTS)

    def _scattered(self, held: int) -> int:
        """Estimate the bytes of small objects that were freed in arenas in which others are still in use."""
        most = self._most_small
        counted = most * 3 // 4 - self._most_scattered
        if counted <= 0 or (small := self._small(held)) >= most:
            return 0
        if self._buffer._is_drained():  # noqa: SLF001 - as above
            self._most_small = small
            return 0
        # In proportion, so that each batch that goes makes some room.
        return int((1 - small / most) * counted)

    def _tell_sealed(self) -> None:
        if self._batch_cost:
            self._most_small = max(self._most_small, self._small(self._total(self._bytes)))
        # Freed memory of one kind must not stay in addition to new memory of another kind.
        if self._released > self._buffer_bytes >> 3:
            if self.buffered > self._buffer_bytes >> 1:
                give_back()
            self._released = 0
        self.on_sealed()

    def _open_batch(self) -> Batch | None:
        try:
            return self._opened[0]
        except IndexError:
            return None

    def _open(self, batch: Batch) -> bool:
        """Make it the open batch. Returns False if there is one: two calls may be here, see `_look_whether_stuck`."""
        opened: deque[Batch] = deque()
        self._at_once(
            map(deque.extend, (opened,), (compress((batch,), map(not_, (self._opened,))),)),
            map(deque.extend, (self._opened,), (opened,)),
            map(setattr, repeat(self), repeat("_untold"), chain(opened)),
        )
        return bool(opened)

    def _seal(self, batch: Batch) -> bool:
        """Seal the open batch, with or without the lock. Returns False if another call has sealed it, or it is empty.

        If this call runs in a signal handler, the call that holds the lock may be suspended until the handler ends.
        """
        events = batch.gathered
        try:
            self._at_once(
                *self._remove(self._opened, batch),
                map(deque.append, (self._sealing,), (batch,)),
                map(setattr, (batch,), ("gathered",), map(list, (events,))),
                map(deque.clear, (events,)),  # type: ignore[arg-type]
            )
        except (IndexError, ValueError):
            return False
        return self._finish_sealing()

    def _finish_sealing(self) -> bool:
        """Complete the sealing of batches. Returns whether there are more sealed batches now."""
        has_sealed = False
        while self._sealing:
            try:
                # One step: without a GIL, another thread may be about to replace the deque of events. chain() begins to
                # read when the step does.
                batch, events = self._items(
                    zip(chain(self._sealing), map(_GATHERED, chain(self._sealing)), strict=False)
                )[0]
                if not events:  # its only event was withdrawn
                    self._at_once(*self._remove(self._sealing, batch))
                    continue
                nbytes, count = events[-1][2], len(events)
                changes = self._changes(events, nbytes, count)
                numbers = nbytes + changes["_beside"], count, (batch, count)
                self._at_once(
                    *self._remove(self._sealing, batch),
                    map(setattr, repeat(batch), changes, changes.values()),
                    map(deque.append, (self._bytes, self._accepted, self._sealed), numbers),  # type: ignore[arg-type]
                )
                has_sealed = True
            except (IndexError, ValueError):  # another call was faster
                pass
        if len(self._bytes) > _MOST_NUMBERS or len(self._accepted) > _MOST_NUMBERS:
            self._fold(self._bytes)
            self._fold(self._accepted)
        return has_sealed

    def _changes(self, events: _Events, nbytes: int, count: int) -> dict[str, Any]:
        """Return what sealing changes in a batch. The batch itself stays as it is: another call may change it now."""
        types = _counted(events)
        beside, is_crowded = 0, False
        if self._batch_cost:
            is_crowded = self._total(self._bytes) + nbytes > self._buffer_bytes >> 3
            beside, types = _weighed(types, count, self._batch_cost, self._one_type, is_crowded=is_crowded)
        changes = {"_beside": beside, "_counts": types, "_nbytes": nbytes}
        if is_crowded:
            if len(types) == 1:
                self._one_type = types
            changes.update(_is_lean=True, _envelope=self._gauge.lean(events, nbytes), gathered=())
        return changes

    # No call waits forever for another call. A finalizer or a signal handler runs in the thread that it interrupts, or
    # makes that thread wait for the thread that emits. The lock only keeps two threads from overfilling a batch or the
    # buffer.

    def _enter(self) -> threading.Lock | None:
        """Take the lock. Returns None if the code that this call interrupts or, for long, another thread holds it."""
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
        """Whether this call interrupts the holder of the lock. If not, a Ctrl-C ended the holder before the release."""
        frame: FrameType | None = sys._getframe(2).f_back  # noqa: SLF001
        while frame is not None:
            if frame.f_code is _ACCEPTING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _look_whether_stuck(self, lock: threading.Lock) -> None:
        """Make a new lock if nobody will release this one, because a Ctrl-C came just after a call had taken it."""
        now_s = time.monotonic()
        if not self._stuck_s:
            self._stuck_s = now_s
        if (not self._holder or now_s - self._stuck_s > _STUCK_S) and lock is self._lock:
            self._lock = new_lock()
            self._stuck_s = 0.0

    def _fold(self, numbers: deque[int]) -> None:
        """Replace the numbers with their sum."""
        total: deque[int] = deque()
        self._at_once(
            map(deque.append, (total,), map(sum, (numbers,))),
            map(deque.clear, (numbers,)),
            map(deque.append, (numbers,), map(deque.popleft, (total,))),
        )

    def _withdraw(self, events: deque[_Event], event: _Event) -> bool:
        """Remove an event from the open batch again. Returns False if the batch was sealed with the event in it."""
        try:
            self._at_once(*self._remove(events, event))
        except (IndexError, ValueError):
            return False
        return True

    def _leave(self, lock: threading.Lock) -> None:
        self._stuck_s = 0.0
        self._holder = 0
        lock.release()


_ACCEPTING = Accumulator._accept.__code__  # noqa: SLF001


def _nothing(*_: object) -> None:
    pass


def types_of(batches: Sequence[Batch]) -> Mapping[str, int]:
    """Return the number of events per type in all these batches. Do not change the mapping."""
    if len(batches) == 1:
        return batches[0].types
    total: dict[str, int] = {}
    for batch in batches:
        _add_up(total, batch.types)
    return total


def _add_up(total: dict[str, int], types: Mapping[str, int]) -> None:
    for type_, count in types.items():
        total[type_] = total.get(type_, 0) + count
