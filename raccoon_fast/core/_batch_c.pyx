"""The compiled form of Batch and Accumulator. The contracts are in the pure form.

Locking. Critical sections of the accumulator guard all its state, including the open batch and the sealed batches. With
a GIL, the section is the GIL and costs nothing; without one, it is the object's own lock. CPython releases either as
soon as Python code runs or the thread waits. So between the first read and the last change in a section, the code must
not run Python code, create an object that the garbage collector tracks (a collection may run finalizers), free an
object that has a finalizer, do I/O, or wait. The serializer, the hooks and `make_batch` may do all that, so they run
before or after a section. A section needs no other lock that a thread may hold: the objects in it, such as the dicts of
types, can only be reached through the accumulator.

A batch belongs to its accumulator from its first event until it is taken. Before and after that, it belongs to one
thread at a time, and that thread passes it on. A list of events that is read by index is locked too, because its items
are borrowed. The only thing that changes in a router is a dict: types are added to it and never removed.
"""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t

from raccoon_fast.core._envelope_c cimport _Envelope, give_back, surplus, take_buffer

from collections import deque

from raccoon_fast import forks
from raccoon_fast.core._body import read_json_body, read_proto_body
from raccoon_fast.core._envelope_c import JsonEnvelope, ProtoEnvelope
from raccoon_fast.core._request import check_events, pair_of, refuse_batch, refuse_event, refuse_type
from raccoon_fast.errors import ClientClosedError, Outcome

__all__ = ["Accumulator", "Batch", "Router", "types_of"]

cdef const uint8_t[::1] _PAGE = forks.PAGE
cdef const uint8_t _CLOSED = 0
cdef object _NOT_DELIVERED = Outcome.NOT_DELIVERED
# How a section of `put_at_edge` ended. It says what to do before the next section.
cdef enum:
    _ACCEPTED
    _AGAIN
    _TOO_LARGE
    _FULL
    _NO_BATCH

# From here on, memory that was freed is worth the time to give it back, if it exceeds the limit.
cdef int64_t _MIN_SURPLUS = 2 << 20
# The most bytes of an event that are neither data nor type.
cdef int64_t _MOST_AROUND = 64

cdef extern from "Python.h":
    ctypedef struct PyObject
    PyObject* PyDict_GetItem(object mapping, object key)
    bint PyUnicode_CheckExact(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    Py_ssize_t PY_SSIZE_T_MAX


@cython.final
cdef class Batch:
    """Events that are sent, acknowledged and retried together. They are in wire format from the first one on."""

    cdef readonly _Envelope envelope
    cdef readonly str wire
    cdef public object receipt
    cdef public object settlement
    cdef public object req_guid
    cdef public object outcome
    cdef public object trouble
    cdef public double accepted_s
    cdef public double deadline_s
    cdef public Py_ssize_t attempts
    cdef int64_t size
    cdef int64_t beside

    def __cinit__(self, wire, capacity=4096):
        if wire not in ("proto", "json"):
            raise ValueError(f'wire should be "proto" or "json", not {wire!r}')
        self.wire = wire
        self.envelope = (ProtoEnvelope if wire == "proto" else JsonEnvelope)(capacity)
        self.reset()

    @property
    def count(self):
        """Events in the batch."""
        return self.envelope.events

    @property
    def nbytes(self):
        """Bytes of the events in wire format; in JSON with a comma per event, so that parts add up to the whole."""
        return self.size

    @property
    def cost(self):
        """Bytes that the accumulator counts for it: `nbytes` and, after `weigh`, the memory it uses besides them."""
        return self.size + self.beside

    @property
    def is_lean(self):
        """Whether it freed the memory needed for adding more events, because the accumulator was crowded."""
        return self.envelope.known is None

    @property
    def types(self):
        """The number of events per type. Do not change the mapping."""
        return self.envelope.tally()

    def add(self, type, data):
        """Append one event."""
        cdef Py_buffer buffer
        take_buffer(data, &buffer)
        try:
            type = _plain(type)
            self.put(type, <const uint8_t*> buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    def add_many(self, events):
        """Append events, each as `add` does. The first wrong event raises; the events before it stay."""
        cdef Py_ssize_t index = 0
        for event in events:
            type_, data = pair_of(index, event)
            self.add(type_, data)
            index += 1

    def events(self):
        """Read its events back out of the wire format."""
        return (read_proto_body if self.wire == "proto" else read_json_body)(self.envelope.body())

    def load(self, body, types):
        """Replace the events with those of another batch of the same wire format."""
        cdef dict counts = dict(types)
        self.envelope.load(body, sum(counts.values()))
        self.beside = 0
        self.size = PyBytes_GET_SIZE(body) + (1 if self.wire == "json" else 0)
        self.envelope.counts = counts

    def clear(self):
        """Remove everything, for reuse. The memory is kept."""
        self.envelope.clear()
        self.reset()

    cdef int reset(self) except -1:
        self.receipt = self.settlement = self.trouble = None
        self.req_guid = ""
        self.outcome = _NOT_DELIVERED
        self.accepted_s = self.deadline_s = 0.0
        self.attempts = 0
        self.size = self.beside = 0
        return 0

    cdef inline int64_t put(self, object type_, const uint8_t* data, Py_ssize_t length) except -1:
        """Append an event whose type is exactly str, and return its size. This runs in critical sections: see the
        module's docstring for what it must not do.
        """
        cdef int64_t size = self.envelope.write(type_, data, length)
        self.size += size
        return size


@cython.final
cdef class Accumulator:
    """Collects events into batches and hands out the sealed batches, within a memory limit."""

    cdef object open_hook
    cdef object sealed_hook
    cdef object full_hook
    cdef object make_batch
    cdef object serializer
    cdef object rescue
    cdef _Envelope gauge
    cdef int64_t max_events
    cdef int64_t max_bytes
    cdef int64_t max_event_bytes
    cdef int64_t buffer_bytes
    cdef int64_t batch_cost
    # The types of the last lean batch that had only one type, and the content of that dict. Other batches may share
    # the dict by now.
    cdef dict one_type
    cdef object one_name
    cdef Py_ssize_t one_count
    # Points to the first byte of forks.PAGE, which is 0 in a forked child that has not started afresh. After `close`,
    # points to a byte that is always 0.
    cdef const uint8_t* is_open
    cdef Batch batch
    # The open batch until `on_open` has returned for it. Until then, every other call that accepts an event calls
    # `on_open` too. Such a call may come from a signal handler or a finalizer in the same thread. It may wait for the
    # delivery of its event, and the call that opened the batch cannot continue until then.
    cdef Batch untold
    cdef object batches
    cdef int64_t held
    cdef int64_t events_in
    cdef int64_t events_out

    def __init__(
        self, make_batch, *, serializer, wire, max_events, max_bytes, max_event_bytes, buffer_bytes, batch_cost=0,
        rescue=None
    ):
        self.open_hook = self.sealed_hook = self.full_hook = _nothing
        self.make_batch = make_batch
        self.serializer = serializer
        self.rescue = rescue
        self.gauge = (<Batch> Batch(wire)).envelope
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.max_event_bytes = max_event_bytes
        self.buffer_bytes = buffer_bytes
        self.batch_cost = batch_cost
        self.is_open = &_PAGE[0]
        self.reset()

    @property
    def on_open(self):
        """Called with each batch that gets its first event. Its return value is ignored."""
        with cython.critical_section(self):
            return self.open_hook

    @on_open.setter
    def on_open(self, hook):
        with cython.critical_section(self):
            self.open_hook, hook = hook, self.open_hook  # the old hook is freed after the section

    @property
    def on_sealed(self):
        """Called when one more batch can be taken. Its return value is ignored."""
        with cython.critical_section(self):
            return self.sealed_hook

    @on_sealed.setter
    def on_sealed(self, hook):
        with cython.critical_section(self):
            self.sealed_hook, hook = hook, self.sealed_hook

    @property
    def on_full(self):
        """Called with the types and the size of events that do not fit. If it returns True, `emit` tries again;
        otherwise `emit` returns its result.
        """
        with cython.critical_section(self):
            return self.full_hook

    @on_full.setter
    def on_full(self, hook):
        with cython.critical_section(self):
            self.full_hook, hook = hook, self.full_hook

    @property
    def buffered(self):
        """Bytes of the events that were accepted and not released. A sealed batch counts with its `cost`."""
        with cython.critical_section(self):
            return self.held

    @property
    def accepted(self):
        """Events accepted so far."""
        with cython.critical_section(self):
            return self.events_in

    @property
    def taken(self):
        """Events in the batches that were taken or dropped so far."""
        with cython.critical_section(self):
            return self.events_out

    @property
    def open_count(self):
        """Events in the batch that is not sealed yet."""
        with cython.critical_section(self):
            return self.batch.envelope.events if self.batch is not None else 0

    @property
    def sealed(self):
        """Batches that are sealed and can be taken."""
        with cython.critical_section(self):
            return len(self.batches)

    @property
    def oldest_s(self):
        """When the batch that `take` returns next got its first event; infinity if there is none."""
        cdef Batch batch
        with cython.critical_section(self):
            if not self.batches:
                return INFINITY
            batch = self.batches[0]
            return batch.accepted_s

    def emit(self, type, data):
        """Accept one event.

        Returns:
            The receipt of the batch that carries the event.

        Raises:
            MessageTooLargeError: The event is over `max_event_bytes`.
            ClientClosedError: `close` was called.
            TypeError, ValueError: As in the envelope's `add`.
        """
        if self.serializer is None and PyUnicode_CheckExact(type) and PyBytes_CheckExact(data):
            # The same as `accept`, but without the call.
            return self.put(type, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.accept(type, data, -1)

    def emit_many(self, events):
        """Accept events, each as `emit` does. The first wrong event raises; the events before it stay accepted.

        Returns:
            The receipts of the batches that carry the events, each once, in order.

        Raises:
            TypeError: An event is not a pair of a str and data; the message names its index. Otherwise as in `emit`.
        """
        cdef dict receipts = {}
        cdef Py_ssize_t at = 0
        if self.serializer is None and PyList_CheckExact(events):
            # Read by index, because the list may change meanwhile. A `for` loop over it would do the same.
            while True:
                at = self.accept_run(<list> events, at, PY_SSIZE_T_MAX, receipts)
                if at >= PyList_GET_SIZE(events):
                    break
                event = (<list> events)[at]
                if isinstance(event, tuple) and len(<tuple> event) == 2 and PyUnicode_Check((<tuple> event)[0]):
                    type_ = (<tuple> event)[0]
                    data = (<tuple> event)[1]
                else:
                    type_, data = pair_of(at, event)
                receipts[self.accept(type_, data, at)] = None
                at += 1
        else:
            check_events(events)
            self.accept_some(events, PY_SSIZE_T_MAX, receipts, receipts, 0)  # no `on_full` returns `receipts`
        return list(receipts)

    def emit_some(self, events, Py_ssize_t most, refusal, dict receipts not None, Py_ssize_t first=0):
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
        return self.accept_some(events, most, refusal, receipts, first)

    def add_batch(self, Batch batch not None):
        """Accept a batch as it is and queue it as sealed, behind the other sealed batches. The open batch stays open.

        `max_events` and `max_bytes` do not apply to it.

        Returns:
            The receipt of the batch.

        Raises:
            MessageTooLargeError: The batch is over `max_event_bytes`.
            ClientClosedError: `close` was called.
        """
        cdef object receipt = batch.receipt
        cdef object answer
        cdef int64_t size = batch.size
        if size > self.max_event_bytes:
            refuse_batch(size, self.max_event_bytes, batch.envelope.events)
        while True:
            self.require_open()
            if self.keep_new(batch, size):
                break
            answer = self.on_full(batch.envelope.tally(), size)
            if answer is not True:
                return answer
        self.tell_sealed()
        return receipt

    def seal(self):
        """Seal the open batch. Returns whether there was one."""
        cdef Batch batch
        with cython.critical_section(self):
            batch = self.batch
            if batch is not None:
                self.keep(batch)
                self.batch = None
        if batch is None:
            return False
        self.tell_sealed()
        return True

    def take(self, into=None):
        """Remove and return the sealed batch that has waited longest, or None.

        Args:
            into: A deque to which the batch is appended too, in the same step.
        """
        cdef Batch batch = None
        with cython.critical_section(self):
            if self.batches:
                batch = self.first_out()
        if batch is not None and into is not None:
            into.append(batch)
        return batch

    def take_all(self):
        """Remove and return all sealed batches, in order, and the number of their events per type."""
        cdef dict counts = {}
        cdef object fresh = deque()
        cdef object batches
        cdef Batch batch
        with cython.critical_section(self):
            batches = self.batches
            self.batches = fresh
            for batch in batches:
                self.events_out += batch.envelope.events
        for batch in batches:
            _add_up(counts, batch.envelope.tally())
        return batches, counts

    def weigh(self, Batch batch not None):
        """Set the cost of a batch that came from elsewhere, once, and return it. `buffered` does not change."""
        with cython.critical_section(self):
            if not batch.beside:
                self.trim(batch)
        return batch.size + batch.beside

    def hold(self, nbytes):
        """Add to `buffered` the cost of a batch that came from elsewhere, such as a stored one."""
        cdef int64_t more = nbytes
        with cython.critical_section(self):
            self.held += more

    def release(self, nbytes):
        """Subtract the cost of a batch from `buffered`."""
        cdef int64_t less = nbytes
        with cython.critical_section(self):
            self.held -= less

    def releasing(self, nbytes):
        """Like `release`, but returns an iterator for `threads.at_once`."""
        return map(self.release, (nbytes,))

    def limit_bytes(self, int64_t max_bytes):
        """From now on, seal batches before they exceed this many bytes, if that is less than the current limit."""
        with cython.critical_section(self):
            self.max_bytes = min(self.max_bytes, max_bytes)

    def close(self):
        """Accept nothing from now on. Idempotent."""
        with cython.critical_section(self):
            self.is_open = &_CLOSED

    def reset(self):
        """Forget all batches and all counts. Called in a forked child."""
        self.batch = self.untold = None
        self.one_type = self.one_name = None
        self.one_count = 0
        self.batches = deque()
        self.held = self.events_in = self.events_out = 0

    def waiting_types(self):
        """The number of events per type in the batches that were not taken yet, all at one moment."""
        cdef dict counts = {}
        cdef Batch batch
        with cython.critical_section(self):
            for batch in self.batches:
                _add_up(counts, batch.envelope.tally())
            if self.batch is not None:
                _add_up(counts, self.batch.envelope.tally())
        return counts

    cdef bint keep_new(self, Batch batch, int64_t size) except -1:
        """Add a batch with its events, if there is room for it and the accumulator is open. Returns whether it did."""
        with cython.critical_section(self):
            if self.held + size > self.buffer_bytes or not self.is_open[0]:
                return False
            self.held += size
            self.keep(batch)
            self.events_in += batch.envelope.events
        return True

    cdef Batch first_out(self):
        cdef Batch batch = self.batches.popleft()
        self.events_out += batch.envelope.events
        return batch

    cdef int require_open(self) except -1:
        if not self.is_open[0]:
            forks.check()  # resets the accumulator in a forked child
            if not self.is_open[0]:
                raise ClientClosedError("the producer was closed")
        return 0

    cdef int keep(self, Batch batch) except -1:
        self.batches.append(batch)
        self.trim(batch)
        self.held += batch.beside
        return 0

    cdef int trim(self, Batch batch) except -1:
        """Free memory that a batch does not need, and record how much it uses besides the bytes of its events."""
        cdef dict types
        cdef Py_ssize_t count
        cdef bint is_crowded = self.held > self.buffer_bytes >> 3
        batch.envelope.trim(self.batch_cost > 0 and is_crowded)
        if self.batch_cost <= 0:
            return 0
        if batch.envelope.known is None:
            types = batch.envelope.counts
            if len(types) == 1:
                for name, number in types.items():
                    count = number
                    if count == self.one_count and name == self.one_name:
                        batch.envelope.counts = self.one_type
                        batch.beside = self.batch_cost + batch.envelope.block.size - batch.size
                        return 0
                    self.one_type = types
                    self.one_name = name
                    self.one_count = count
        batch.beside = self.batch_cost + batch.envelope.footprint() - batch.size
        return 0

    cdef Py_ssize_t accept_run(self, list events, Py_ssize_t at, Py_ssize_t stop, dict receipts) except -1:
        """Accept events from index `at` up to, not including, `stop`, as long as the open batch knows the event's type,
        certainly has room for it and is not full afterwards. Returns the index of the first event not accepted.
        """
        cdef Batch batch
        cdef Py_ssize_t end
        cdef Py_ssize_t size
        cdef object receipt = None
        with cython.critical_section(self, events):
            batch = self.batch
            if batch is None or self.untold is not None or not self.is_open[0]:
                return at
            size = batch.envelope.stop
            end = batch.envelope.write_run(
                events,
                at,
                min(stop, at + <Py_ssize_t> (self.max_events - 1 - batch.envelope.events)),
                <Py_ssize_t> self.max_event_bytes,
                <Py_ssize_t> min(self.buffer_bytes - self.held, self.max_bytes - batch.size),
            )
            if end > at:
                size = batch.envelope.stop - size
                batch.size += size
                self.held += size
                self.events_in += end - at
                receipt = batch.receipt
        if end > at:
            receipts[receipt] = None
        return end

    cdef object accept_some(self, object events, Py_ssize_t most, object refusal, dict receipts, Py_ssize_t first):
        """Accept events until there are no more, `most` events were read, or one was refused."""
        cdef Py_ssize_t number = 0
        cdef object receipt
        cdef object last = None
        cdef object type_
        cdef object data
        for event in events:
            if isinstance(event, tuple) and len(<tuple> event) == 2 and PyUnicode_Check((<tuple> event)[0]):
                type_ = (<tuple> event)[0]
                data = (<tuple> event)[1]
            else:
                type_, data = pair_of(first + number, event)
            receipt = self.accept(type_, data, first + number)
            if receipt is refusal:
                return number + 1, event
            if receipt is not last:
                last = receipt
                receipts[last] = None
            number += 1
            if number >= most:
                break
        return number, None

    cdef object serialized(self, object type_, object data, Py_ssize_t index):
        """Return the bytes of an event. If the serializer raises TypeError and there is a `rescue`, it decides."""
        if self.rescue is None:
            return self.serializer(data)
        try:
            return self.serializer(data)
        except TypeError:
            pass
        return self.rescue(data, type_, index if index >= 0 else None)

    cdef inline object accept(self, object type_, object data, Py_ssize_t index):
        """Accept one event. `index` is its index among several events, or -1."""
        cdef Py_buffer buffer
        if self.serializer is not None:
            data = self.serialized(type_, data, index)
        if not PyUnicode_CheckExact(type_):
            type_ = _plain(type_)
        if PyBytes_CheckExact(data):
            return self.put(type_, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        take_buffer(data, &buffer)
        try:
            return self.put(type_, <const uint8_t*> buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    cdef inline object put(self, object type_, const uint8_t* raw, Py_ssize_t length):
        cdef Batch batch
        with cython.critical_section(self):
            batch = self.batch
            if self.fits(batch, type_, length):
                self.append(batch, type_, raw, length)
                return batch.receipt
        return self.put_at_edge(type_, raw, length)

    cdef inline bint fits(self, Batch batch, object type_, Py_ssize_t length) noexcept:
        """Return whether the open batch certainly has room for an event and is not full afterwards."""
        # The worst case: data as base64, and the type as a JSON string of control characters.
        cdef int64_t most = 2 * <int64_t> length + 6 * <int64_t> PyUnicode_GET_LENGTH(type_) + _MOST_AROUND
        return (
            batch is not None
            and self.untold is None
            and self.is_open[0]
            and batch.envelope.events + 1 < self.max_events
            and most <= self.max_event_bytes
            and self.held + most <= self.buffer_bytes
            and batch.size + most <= self.max_bytes
        )

    cdef inline int append(self, Batch batch, object type_, const uint8_t* raw, Py_ssize_t length) except -1:
        self.held += batch.put(type_, raw, length)
        self.events_in += 1
        return 0

    cdef object put_at_edge(self, object type_, const uint8_t* raw, Py_ssize_t length):
        """Accept an event for which the open batch may have no room, or which may fill it."""
        cdef Batch batch = None
        cdef Batch fresh = None
        cdef object receipt = None
        cdef int64_t size = 0
        cdef int step = _AGAIN
        cdef bint opened = False
        cdef bint sealed = False
        while True:
            if step == _NO_BATCH:
                fresh = self.make_batch()
            elif step == _TOO_LARGE:
                refuse_event(size, self.max_event_bytes)
            elif step == _FULL:
                receipt = self.on_full({type_: 1}, size)
                if receipt is not True:
                    return receipt
            self.require_open()
            with cython.critical_section(self):
                size = <int64_t> self.gauge.size_of(type_, length)
                batch = self.batch
                if size > self.max_event_bytes:
                    step = _TOO_LARGE
                elif self.held + size > self.buffer_bytes:
                    step = _FULL
                elif not self.is_open[0]:
                    step = _AGAIN
                elif fresh is None and (batch is None or batch.size + size > self.max_bytes):
                    step = _NO_BATCH
                else:
                    step = _ACCEPTED
                    if batch is None or batch.size + size > self.max_bytes:
                        fresh.put(type_, raw, length)
                        if batch is not None:
                            self.keep(batch)
                            sealed = True
                        self.batch = self.untold = batch = fresh
                        opened = True
                    else:
                        batch.put(type_, raw, length)
                    self.held += size
                    self.events_in += 1
                    if batch.envelope.events >= self.max_events:
                        self.keep(batch)
                        self.batch = None
                        sealed = True
                    receipt = batch.receipt  # before another thread takes the batch and clears it
            if step == _ACCEPTED:
                break
        if opened:
            self.tell(True)
        if sealed:
            self.tell_sealed()
        if not opened:
            self.tell(False)
        return receipt

    cdef int tell_sealed(self) except -1:
        cdef object hook
        cdef int64_t unused = surplus()
        with cython.critical_section(self):
            hook = self.sealed_hook
            if unused < _MIN_SURPLUS or self.held + unused < self.buffer_bytes:
                unused = 0
        if unused:
            with nogil:
                give_back()
        hook()
        return 0

    cdef int tell(self, bint is_ours) except -1:
        """Call `on_open` for the open batch if it was not called yet or did not return."""
        cdef Batch batch
        cdef object hook
        with cython.critical_section(self):
            batch = self.untold
            hook = self.open_hook
            if batch is not None and not is_ours:
                self.untold = None  # before the call, because the hook may emit
                if batch is not self.batch:
                    batch = None  # it was sealed meanwhile
        if batch is None:
            return 0
        try:
            hook(batch)
        except Exception:
            with cython.critical_section(self):
                self.untold = None  # not after a Ctrl-C: the next call repeats the hook
            raise
        with cython.critical_section(self):
            if self.untold is batch:
                self.untold = None
        return 0


def types_of(batches):
    """Return the number of events per type in all these batches. Do not change the mapping."""
    cdef Batch batch
    cdef dict total
    if len(batches) == 1:
        return (<Batch?> batches[0]).envelope.tally()
    total = {}
    for batch in batches:
        _add_up(total, batch.envelope.tally())
    return total


def _nothing(*_):
    pass


cdef int _add_up(dict counts, dict more) except -1:
    for type_, count in more.items():
        counts[type_] = counts.get(type_, 0) + count
    return 0


cdef object _plain(object type_):
    """Return the type as exactly a str, because a subclass may run Python code."""
    if not PyUnicode_Check(type_):
        refuse_type(type_)
    return type_ if PyUnicode_CheckExact(type_) else str.__str__(type_)


include "_router_c.pxi"
include "_batch_slices_c.pxi"
