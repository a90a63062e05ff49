"""The pure-Python form of Batch and Accumulator; their contracts are here."""

from __future__ import annotations

import contextlib
import time
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raccoon_fast import forks
from raccoon_fast.core._body import read_json_body, read_proto_body
from raccoon_fast.core._envelope_py import JsonEnvelope, ProtoEnvelope, own_data, plain_type
from raccoon_fast.core._request import check_events, pair_of, refuse_batch, refuse_event
from raccoon_fast.core._router_py import Router
from raccoon_fast.errors import ClientClosedError, Outcome
from raccoon_fast.threads import new_lock

if TYPE_CHECKING:
    import threading

__all__ = ["Accumulator", "Batch", "Router"]

_PAGE = forks.PAGE
# Another thread has the lock for moments; a finalizer that runs in one of them may have it for long.
_PATIENCE_S = 0.05
_STUCK_S = 5.0
# Batches whose events are counted one by one, at most.
_MOST_LATE = 64
# Bytes of memory, about: an event that is not in one piece with the others yet, beside its own; a dict of event types;
# an entry there with its count, beside the type's text; what an envelope keeps of a type, and of a length.
_LOOSE_BYTES = 100
_DICT_BYTES = 184
_ENTRY_BYTES = 112
_FORM_BYTES = 700


class Batch:
    """Events that are sent, acknowledged and tried again together; wire format from the first one on.

    Not thread-safe: whoever took it from an accumulator owns it.

    Args:
        wire: "proto" or "json".
        capacity: Bytes of wire format to make room for at once.

    Attributes:
        wire: As given.
        envelope: The request: a ProtoEnvelope or a JsonEnvelope.
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
        "_is_lean",
        "_last_type",
        "_nbytes",
        "_run",
        "accepted_s",
        "attempts",
        "deadline_s",
        "envelope",
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
        self.envelope: ProtoEnvelope | JsonEnvelope = (ProtoEnvelope if wire == "proto" else JsonEnvelope)(capacity)
        self._beside: int
        self._is_lean: bool
        self._counts: dict[str, int]
        self._last_type: str
        self._run: int
        self.receipt: Any
        self.settlement: Any
        self.trouble: Any
        self.clear()

    @property
    def count(self) -> int:
        """Events in the batch."""
        return self.envelope.count

    @property
    def nbytes(self) -> int:
        """Bytes that its events take in wire format; in JSON with a comma each, so that parts add up to the whole."""
        return self._nbytes

    @property
    def cost(self) -> int:
        """Bytes that the accumulator counts for it: `nbytes`, and from `weigh` on what it takes beside them."""
        return self._nbytes + self._beside

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
        counts = self._counts.copy()
        if run := self._run:
            counts[self._last_type] = counts.get(self._last_type, 0) + run
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
        self.envelope.load(body, sum(types.values()))
        self._nbytes = len(body) + (1 if self.wire == "json" else 0)
        self._beside = 0
        self._counts = {**types}
        self._last_type = ""
        self._run = 0

    def clear(self) -> None:
        """Take everything out, for reuse; the memory is kept."""
        self.envelope.clear()
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
        types = self.types
        if is_crowded:
            self.envelope.make_lean()
            self._is_lean = True
            beside = batch_cost
        else:
            beside = batch_cost + _LOOSE_BYTES * self.count + _FORM_BYTES * len(types)
        if is_crowded and types == one_type:
            assert isinstance(one_type, dict)
            self._counts = one_type
        else:
            beside += _DICT_BYTES
            for name in types:
                beside += _ENTRY_BYTES + len(name) * (1 if name.isascii() else 4)
        self._beside = beside
        return self._counts


class Accumulator:
    """Events in, sealed batches out, within a bound of memory.

    Any thread may call anything at any time. The hooks are called in the thread that caused them, with nothing locked,
    so they may call back.

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
        self._open: Batch | None
        # The open batch while `on_open` has not returned for it: whoever comes meanwhile calls it too.
        self._untold: Batch | None
        self._sealed: deque[Batch]
        self._buffered: int
        self._accepted: int
        self._taken: int
        self.reset()

    @property
    def buffered(self) -> int:
        """Bytes of events that were accepted and not released; of sealed batches, what they cost."""
        return self._buffered + sum([*self._late_bytes])

    @property
    def accepted(self) -> int:
        """Events accepted so far."""
        return self._accepted + sum([*self._late_events])

    @property
    def taken(self) -> int:
        """Events of the batches that were taken or dropped so far."""
        return self._taken + sum([*self._late_taken])

    @property
    def open_count(self) -> int:
        """Events in the batch that is not sealed yet."""
        batch = self._open
        return batch.count if batch is not None else 0

    @property
    def sealed(self) -> int:
        """Batches to take."""
        return len(self._sealed)

    @property
    def oldest_s(self) -> float:
        """When the batch that `take` has next got its first event (its `accepted_s`); infinity if there is none."""
        try:
            return self._sealed[0].accepted_s
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
        if self._serializer is not None:
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
                is_full = (self.buffered if self._late_bytes else self._buffered) + size > self._buffer_bytes
                if not is_full:
                    batch = self._open
                    is_needed = batch is None or batch.nbytes + size > self._max_bytes
                    if not is_needed or fresh is not None:
                        previous = batch
                        if is_needed:
                            batch = fresh
                        assert batch is not None
                        batch.add(type, data)
                        if is_needed and previous is not None:
                            self._keep(previous)
                            sealed = True
                        if is_needed:
                            self._open = self._untold = batch
                            opened = True
                        self._buffered += size
                        self._accepted += 1
                        if batch.count >= self._max_events:
                            self._keep(batch)
                            self._open = None
                            sealed = True
                        receipt = batch.receipt  # whoever takes the batch from here on may clear it
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
            if batch is not self._open:
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
        self._late_bytes.append(self.weigh(batch))
        self._late_events.append(batch.count)
        self._sealed.append(batch)
        self._fold()
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
        lock = self._enter()
        if lock is None:
            self._is_seal_wanted = True
            return False
        try:
            batch = self._open
            if batch is None:
                return False
            self._keep(batch)
            self._open = None
        finally:
            self._leave(lock)
        self.on_sealed()
        return True

    def take(self) -> Batch | None:
        """Hand over the sealed batch that waits longest, or None."""
        try:
            batch = self._sealed.popleft()
        except IndexError:
            return None
        self._late_taken.append(batch.count)
        if len(self._late_taken) >= _MOST_LATE:
            self._fold()
        return batch

    def take_all(self) -> tuple[deque[Batch], dict[str, int]]:
        """Hand over every sealed batch, in order, and the events of all of them by type."""
        batches: deque[Batch] = deque()
        counts: dict[str, int] = {}
        events = 0
        with contextlib.suppress(IndexError):
            while True:
                batch = self._sealed.popleft()
                batches.append(batch)
                events += batch.count
                for type_, count in batch.types.items():
                    counts[type_] = counts.get(type_, 0) + count
        self._late_taken.append(events)
        self._fold()
        return batches, counts

    def weigh(self, batch: Batch) -> int:
        """Give a batch its cost, and return it: once, for one that came from elsewhere; nothing is counted here."""
        if self._batch_cost and batch.cost == batch.nbytes:
            is_crowded = self._buffered > self._buffer_bytes >> 3
            types = batch.weigh(self._batch_cost, self._one_type, is_crowded=is_crowded)
            if is_crowded and len(types) == 1:
                self._one_type = types
        return batch.cost

    def hold(self, nbytes: int) -> None:
        """Count bytes that came from elsewhere: the cost of a batch that was stored."""
        self._late_bytes.append(nbytes)
        self._fold()

    def release(self, nbytes: int) -> None:
        """Give back the cost of a batch."""
        self._late_bytes.append(-nbytes)
        self._fold()

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
        # What is counted while another call holds the lock, until it is counted with the rest.
        self._late_bytes: deque[int] = deque()
        self._late_events: deque[int] = deque()
        self._late_taken: deque[int] = deque()
        self._is_seal_wanted = False
        self._stuck_s = 0.0
        self._open = self._untold = None
        self._one_type = None
        self._sealed = deque()
        self._buffered = 0
        self._accepted = 0
        self._taken = 0

    def waiting_types(self) -> dict[str, int]:
        """Events by type of the batches that were not taken yet, all at one moment."""
        counts: dict[str, int] = {}
        lock = self._enter()
        try:
            open_batch = self._open
            for batch in [*self._sealed] if open_batch is None else [*self._sealed, open_batch]:
                # Where this call interrupts a change of the open batch, the batch is counted as far as that got.
                for type_, count in batch.types_so_far().items():
                    counts[type_] = counts.get(type_, 0) + count
        finally:
            if lock is not None:
                self._leave(lock)
        return counts

    def _keep(self, batch: Batch) -> None:
        """Put the open batch to those that are sealed; under the lock."""
        self._buffered += self.weigh(batch) - batch.nbytes
        self._sealed.append(batch)

    # No call waits for good for another one: a finalizer or a signal handler runs in the thread that it interrupts, or
    # makes that thread wait for the one that emits.

    def _enter(self) -> threading.Lock | None:
        """Take the lock; None where the code that this call interrupts has it, or another thread has it for long."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            if self._holder == get_ident():
                return None
            if not lock.acquire(timeout=_PATIENCE_S):
                if not self._holder:
                    self._look_whether_stuck(lock)
                return None
        self._holder = get_ident()
        return lock

    def _look_whether_stuck(self, lock: threading.Lock) -> None:
        """Make a new lock where a Ctrl-C came just after a call had taken it, and nobody will release it."""
        now_s = time.monotonic()
        if not self._stuck_s:
            self._stuck_s = now_s
        elif now_s - self._stuck_s > _STUCK_S and lock is self._lock:
            self._lock = new_lock()
            self._stuck_s = 0.0

    def _leave(self, lock: threading.Lock) -> None:
        if self._late_bytes or self._late_events or len(self._late_taken) >= _MOST_LATE:
            self._count_late()
        self._stuck_s = 0.0
        self._holder = 0
        lock.release()
        if self._is_seal_wanted:
            self._is_seal_wanted = False
            self.seal()

    def _fold(self) -> None:
        lock = self._lock
        if lock.acquire(blocking=False):
            self._holder = get_ident()
            self._leave(lock)

    def _count_late(self) -> None:
        # Taken out first: for a moment they count too little, where too much would have a flush wait for nothing.
        while self._late_bytes:
            self._buffered += self._late_bytes.popleft()
        while self._late_events:
            self._accepted += self._late_events.popleft()
        while len(self._late_taken) >= _MOST_LATE:
            self._taken += self._late_taken.popleft()


def _nothing(*_: object) -> None:
    pass
