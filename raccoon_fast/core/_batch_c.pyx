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

Threads without a GIL. If all threads appended to one open batch, they would wait for one another at every event. So a
thread gets its own accumulator when it fills a batch that other threads use too. Its own accumulator has an open batch,
but no queue: sealed batches go to the queue of the shared accumulator. If such a batch is sealed before it is full, the
thread returns to the shared batch, so threads that emit little share requests. A thread changes accumulators only while
all its events are in sealed batches, so its events keep their order. Its own accumulator reserves room in the buffer
for some events at a time. To move a batch or room, a thread locks both accumulators.
"""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint64_t

from raccoon_fast.core._envelope_c cimport _Envelope, give_back, keep_up_to, surplus, take_buffer

from collections import deque

from raccoon_fast import forks
from raccoon_fast.core._body import read_json_body, read_proto_body
from raccoon_fast.core._envelope_c import JsonEnvelope, ProtoEnvelope
from raccoon_fast.core._request import (
    check_events,
    pair_of,
    place_error,
    refuse_batch,
    refuse_event,
    refuse_type,
)
from raccoon_fast.errors import ClientClosedError, Outcome

__all__ = ["Accumulator", "Batch", "Buffer", "Router", "types_of"]

# For tests.
HAS_OWN_BATCHES = bool(_HAS_OWN_BATCHES)

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
    _OWN

# By how much the buffer and freed memory together may exceed the limit. As the buffer drains and is filled again, their
# sum changes little.
cdef int64_t _MOST_SURPLUS = 4 << 20
# The most bytes of freed blocks that are kept for the next ones.
cdef int64_t _MOST_KEPT = 64 << 20
# The most bytes of a batch's cost that are small objects, which are in arenas of Python's allocator. Of these, about
# three quarters are really used.
cdef int64_t _SMALL_OBJECTS = 1536
# An arena is returned once nothing is left in it. So after very many small batches, the objects of a few new ones can
# keep all arenas. Only so much of such memory is not counted as used.
cdef int64_t _MOST_SCATTERED = 12 << 20
# The most bytes of an event that are neither data nor type.
cdef int64_t _MOST_AROUND = 64

cdef extern from *:
    """
    #include <stdint.h>
    /* Whether threads get open batches of their own. With a GIL, they do not: it would cost every event something. */
    #ifndef RF_OWN_BATCHES
    #ifdef Py_GIL_DISABLED
    #define RF_OWN_BATCHES 1
    #else
    #define RF_OWN_BATCHES 0
    #endif
    #endif
    #define RF_OWN_SLOTS 64

    /* Different threads mostly get different ones. */
    static inline Py_ssize_t rf_slot(uint64_t thread) {
        return (Py_ssize_t) (((thread >> 6) * UINT64_C(0x9E3779B97F4A7C15)) >> 58);
    }

    /* A thread that waits for an object's lock may be given it just before a fork, and is not in the child. Where every
       nanosecond counts, the lock that a critical section would take is taken directly. */
    #ifdef Py_GIL_DISABLED
    #define rf_forget_lock(object) (((PyObject*) (object))->ob_mutex = (PyMutex) {0})
    #define rf_lock(object) PyMutex_Lock(&((PyObject*) (object))->ob_mutex)
    #define rf_unlock(object) PyMutex_Unlock(&((PyObject*) (object))->ob_mutex)
    #else
    #define rf_lock(object) ((void) (object))
    #define rf_unlock(object) ((void) (object))
    #define rf_forget_lock(object) ((void) (object))
    #endif

    /* These are read without a lock. An entry of the list is set once, from None to an object. */
    #if defined(__GNUC__)
    #define rf_flag(flag) __atomic_load_n(&(flag), __ATOMIC_RELAXED)
    #define rf_set_flag(flag, value) __atomic_store_n(&(flag), value, __ATOMIC_RELAXED)
    #define rf_add(sum, number) __atomic_add_fetch(&(sum), number, __ATOMIC_RELAXED)
    #define rf_entry(entries, slot) __atomic_load_n(&PyList_GET_ITEM(entries, slot), __ATOMIC_ACQUIRE)
    #define rf_set_entry(entries, slot, entry) \
        __atomic_store_n(&PyList_GET_ITEM(entries, slot), entry, __ATOMIC_RELEASE)
    static inline double rf_seconds(const double* at) {
        double seconds;
        __atomic_load(at, &seconds, __ATOMIC_RELAXED);
        return seconds;
    }
    static inline void rf_set_seconds(double* at, double seconds) {
        __atomic_store(at, &seconds, __ATOMIC_RELAXED);
    }
    #else
    #define rf_flag(flag) (flag)
    #define rf_set_flag(flag, value) ((flag) = (value))
    #define rf_add(sum, number) ((sum) += (number))
    #define rf_entry(entries, slot) PyList_GET_ITEM(entries, slot)
    #define rf_set_entry(entries, slot, entry) PyList_SET_ITEM(entries, slot, entry)
    #define rf_seconds(at) (*(at))
    #define rf_set_seconds(at, seconds) (*(at) = (seconds))
    #endif
    """
    const bint _HAS_OWN_BATCHES "RF_OWN_BATCHES"
    const Py_ssize_t _SLOTS "RF_OWN_SLOTS"
    Py_ssize_t slot_of "rf_slot" (uint64_t thread) noexcept
    PyObject* entry_at "rf_entry" (PyObject* entries, Py_ssize_t slot) noexcept
    void set_entry "rf_set_entry" (PyObject* entries, Py_ssize_t slot, PyObject* entry) noexcept
    bint get_flag "rf_flag" (int flag) noexcept
    void set_flag "rf_set_flag" (int flag, int value) noexcept
    int64_t add_to "rf_add" (int64_t sum, int64_t number) noexcept
    double get_seconds "rf_seconds" (const double* at) noexcept
    void set_seconds "rf_set_seconds" (double* at, double seconds) noexcept
    void forget_lock "rf_forget_lock" (PyObject* object) noexcept
    void lock "rf_lock" (PyObject* object) noexcept
    void unlock "rf_unlock" (PyObject* object) noexcept

cdef extern from "Python.h":
    ctypedef struct PyObject
    unsigned long PyThread_get_thread_ident() noexcept
    void Py_INCREF(object)
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
    cdef double since_s
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
            try:
                self.add(type_, data)
            except (TypeError, ValueError) as error:
                place_error(error, index)
                raise
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
        self.since_s = self.deadline_s = 0.0
        self.attempts = 0
        self.size = self.beside = 0
        return 0

    @property
    def accepted_s(self):
        """When it got its first event, by time.monotonic(). A thread may set it while the loop reads it."""
        return get_seconds(&self.since_s)

    @accepted_s.setter
    def accepted_s(self, double seconds):
        set_seconds(&self.since_s, seconds)

    cdef inline int64_t put(self, object type_, const uint8_t* data, Py_ssize_t length) except -1:
        """Append an event whose type is exactly str, and return its size. This runs in critical sections: see the
        module's docstring for what it must not do.
        """
        cdef int64_t size = self.envelope.write(type_, data, length)
        self.size += size
        return size


@cython.final
cdef class Buffer:
    """A memory limit that several accumulators divide among themselves."""

    cdef int64_t nbytes
    # Bytes of sealed batches of all accumulators; changed without a lock.
    cdef int64_t held

    def __init__(self, nbytes):
        self.nbytes = nbytes


cdef struct _Sums:
    int64_t accepted
    int64_t open
    int64_t buffered


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
    cdef Buffer buffer
    cdef int64_t most_scattered
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
    # Bytes in use, including those `scattered`.
    cdef int64_t held
    # Bytes of small objects: now; at most since the buffer was drained; and what counts as used although it was freed.
    cdef int64_t small
    cdef int64_t most_small
    cdef int64_t scattered
    cdef int64_t events_in
    cdef int64_t events_out
    # Only without a GIL; see the module's docstring. The accumulators that threads own, by slot, otherwise None; how
    # many of them are in use; how many batches came from them; and the thread that opened the open batch.
    cdef list owns
    cdef int owns_in_use
    cdef int64_t moves
    cdef uint64_t opener
    # Only in an accumulator that a thread owns. There, `buffer_bytes` is the room that it reserved in the shared
    # accumulator, `held` the part in use, and `events_in` the events in its open batch.
    cdef PyObject* shared
    cdef uint64_t owner
    # Whether the thread uses it; true as long as it has an open batch. The locks of both guard changes.
    cdef int is_in_use

    def __init__(
        self, make_batch, *, serializer, wire, max_events, max_bytes, max_event_bytes, buffer_bytes, batch_cost=0,
        Buffer buffer=None, rescue=None
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
        self.buffer = Buffer(buffer_bytes) if buffer is None else buffer
        self.most_scattered = <int64_t> (_MOST_SCATTERED * (<double> self.buffer_bytes / self.buffer.nbytes))
        self.is_open = &_PAGE[0]
        keep_up_to(min(self.buffer_bytes, _MOST_KEPT))
        if _HAS_OWN_BATCHES:
            self.owns = [None] * _SLOTS
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
        """Bytes of the events that were accepted and not released. A sealed batch counts with its `cost`.

        After very many small batches, memory that Python cannot return yet counts too.
        """
        cdef _Sums sums
        if _HAS_OWN_BATCHES:
            self.add_up(&sums)
            return sums.buffered
        with cython.critical_section(self):
            self.recount()
            return self.held

    @property
    def accepted(self):
        """Events accepted so far."""
        cdef _Sums sums
        if _HAS_OWN_BATCHES:
            self.add_up(&sums)
            return sums.accepted
        with cython.critical_section(self):
            return self.events_in

    @property
    def taken(self):
        """Events in the batches that were taken or dropped so far."""
        with cython.critical_section(self):
            return self.events_out

    @property
    def open_count(self):
        """Events that are not in a sealed batch yet."""
        cdef _Sums sums
        if _HAS_OWN_BATCHES:
            self.add_up(&sums)
            return sums.open
        with cython.critical_section(self):
            return self.batch.envelope.events if self.batch is not None else 0

    @property
    def open_since_s(self):
        """The `accepted_s` of the oldest open batch; infinity if there is none."""
        cdef double since_s
        with cython.critical_section(self):
            since_s = get_seconds(&self.batch.since_s) if self.batch is not None else INFINITY
        if _HAS_OWN_BATCHES:
            for own in self.all_owns():
                since_s = min(since_s, (<Accumulator> own).open_since_s)
        return since_s

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
            return get_seconds(&batch.since_s)

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
        return self.accept(type, data)

    def emit_many(self, events):
        """Accept events, each as `emit` does. The first wrong event raises; the events before it stay accepted.

        Returns:
            The receipts of the batches that carry the events, each once, in order.

        Raises:
            TypeError: An event is not a pair of a str and data. Otherwise as in `emit`; the messages name its index.
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
                receipts[self.accept_at(type_, data, at)] = None
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

    def seal(self, before_s=None):
        """Seal the open batch, unless its `accepted_s` is later than `before_s`. Returns whether there was one."""
        cdef double limit_s = INFINITY if before_s is None else before_s
        cdef bint has_sealed = self.seal_open(limit_s)
        if _HAS_OWN_BATCHES:
            for own in self.all_owns():
                has_sealed = (<Accumulator> own).seal_open(limit_s) or has_sealed
        if has_sealed:
            self.tell_sealed()
        return has_sealed

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
            self.count(more)

    def release(self, nbytes):
        """Subtract the cost of a batch from `buffered`."""
        cdef int64_t less = nbytes
        with cython.critical_section(self):
            self.count(-less)

    def releasing(self, nbytes):
        """Like `release`, but returns an iterator for `threads.at_once`."""
        return map(self.release, (nbytes,))

    def limit_bytes(self, int64_t max_bytes):
        """From now on, seal batches before they exceed this many bytes, if that is less than the current limit."""
        with cython.critical_section(self):
            self.max_bytes = min(self.max_bytes, max_bytes)
        if _HAS_OWN_BATCHES:
            for own in self.all_owns():
                own.limit_bytes(max_bytes)

    def close(self):
        """Accept nothing from now on. Idempotent."""
        with cython.critical_section(self):
            self.is_open = &_CLOSED
        if _HAS_OWN_BATCHES:
            for own in self.all_owns():
                own.close()

    def reset(self):
        """Forget all batches and all counts. Called in a forked child."""
        if forks.is_alone:
            forget_lock(<PyObject*> self)
        self.batch = self.untold = None
        self.one_type = self.one_name = None
        self.one_count = 0
        self.batches = deque()
        self.held = self.small = self.most_small = self.scattered = 0
        if self.buffer is not None:
            self.buffer.held = 0  # all accumulators are reset
        self.events_in = self.events_out = 0
        if _HAS_OWN_BATCHES:
            for own in self.all_owns():
                own.reset()
                (<Accumulator> own).buffer_bytes = 0
                set_flag((<Accumulator> own).is_in_use, 0)
            set_flag(self.owns_in_use, 0)

    def waiting_types(self):
        """The number of events per type in the batches that were not taken yet, all at one moment."""
        cdef dict counts = {}
        cdef Batch batch
        cdef Accumulator own
        cdef list owns = self.all_owns()
        cdef int64_t moves = -1
        with cython.critical_section(self):
            # First what may have to be repeated: waiting for another lock releases this one.
            while moves != self.moves:
                moves = self.moves
                counts.clear()
                for own in owns:
                    with cython.critical_section(own):
                        if own.batch is not None:
                            _add_up(counts, own.batch.envelope.tally())
            for batch in self.batches:
                _add_up(counts, batch.envelope.tally())
            if self.batch is not None:
                _add_up(counts, self.batch.envelope.tally())
        return counts

    cdef bint keep_new(self, Batch batch, int64_t size) except -1:
        """Add a batch with its events, if there is room for it and the accumulator is open. Returns whether it did."""
        with cython.critical_section(self):
            self.recount()
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

    cdef bint seal_open(self, double before_s) except -1:
        """Like `seal`, but leaves out the batches that threads own, and calls no hook."""
        cdef Accumulator shared = self.queue()
        cdef Batch batch
        with cython.critical_section(self, shared):
            batch = self.batch
            if batch is not None:
                if get_seconds(&batch.since_s) > before_s:
                    return False
                self.keep(batch)
                self.batch = None
            if get_flag(self.is_in_use):
                set_flag(self.is_in_use, 0)
                set_flag(shared.owns_in_use, shared.owns_in_use - 1)
            if self.shared is not NULL:
                shared.held -= self.buffer_bytes
                self.buffer_bytes = 0
        return batch is not None

    cdef int keep(self, Batch batch) except -1:
        """Queue a batch as sealed. The caller has locked the queue too."""
        cdef Accumulator shared = self.queue()
        shared.batches.append(batch)
        shared.trim(batch)
        shared.held -= batch.size
        shared.count(batch.size + batch.beside)
        if self.shared is not NULL:
            shared.moves += 1
            shared.events_in += batch.envelope.events
            self.events_in -= batch.envelope.events
            self.held -= batch.size
            self.buffer_bytes -= batch.size
        return 0

    cdef inline void count(self, int64_t nbytes) noexcept:
        """Add the cost of a sealed batch to `held`; or subtract it, if it is negative."""
        cdef int64_t scattered = 0
        cdef bint is_drained = add_to(self.buffer.held, nbytes) < self.buffer.nbytes >> 3
        self.held += nbytes
        self.small += min(max(nbytes, -_SMALL_OBJECTS), _SMALL_OBJECTS)
        if self.small > self.most_small or is_drained:
            self.most_small = self.small
        elif self.most_small * 3 > self.most_scattered * 4:
            # In proportion, so that each batch that goes makes some room.
            scattered = <int64_t> ((1 - <double> self.small / self.most_small)
                                   * (self.most_small * 3 // 4 - self.most_scattered))
        self.held += scattered - self.scattered
        self.scattered = scattered

    cdef inline void recount(self) noexcept:
        """Look again whether the batches of other accumulators are gone."""
        if self.scattered:
            self.count(0)

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
                        batch.beside = self.batch_cost + batch.envelope.block.memory() - batch.size
                        return 0
                    self.one_type = types
                    self.one_name = name
                    self.one_count = count
        batch.beside = self.batch_cost + batch.envelope.footprint() - batch.size
        return 0

    cdef inline Accumulator queue(self):
        """Return the accumulator in which its sealed batches wait."""
        return self if self.shared is NULL else <Accumulator> self.shared

    cdef inline PyObject* mine(self) noexcept:
        """Return the accumulator for the events of this thread: its own or this one. The reference is borrowed, because
        threads that count references to one object wait for one another too.
        """
        cdef uint64_t thread
        cdef PyObject* own
        if get_flag(self.owns_in_use) == 0:
            return <PyObject*> self
        thread = PyThread_get_thread_ident()
        own = entry_at(<PyObject*> self.owns, slot_of(thread))
        if own != <PyObject*> None and (<Accumulator> own).owner == thread and get_flag((<Accumulator> own).is_in_use):
            return own
        return <PyObject*> self

    cdef Accumulator own_of(self, uint64_t thread):
        """Return the accumulator that this thread should own, which may be a new one. None if it needs none, if this is
        one, or if another thread has its slot.
        """
        cdef Py_ssize_t slot = slot_of(thread)
        cdef PyObject* entry
        cdef Accumulator own
        with cython.critical_section(self):
            if self.shared is not NULL or not self.is_crowded(thread):
                return None
        entry = entry_at(<PyObject*> self.owns, slot)
        if entry == <PyObject*> None:
            own = Accumulator.__new__(Accumulator)
            own.shared = <PyObject*> self  # which owns it
            own.owner = thread
            own.gauge = type(self.gauge)(0)
            own.max_events = self.max_events
            own.max_event_bytes = self.max_event_bytes
            own.reset()
            with cython.critical_section(self):
                own.max_bytes = self.max_bytes
                own.is_open = self.is_open
                entry = entry_at(<PyObject*> self.owns, slot)
                if entry == <PyObject*> None:
                    Py_INCREF(own)
                    entry = <PyObject*> own
                    set_entry(<PyObject*> self.owns, slot, entry)  # not by the list's own lock, which may wait
        own = <Accumulator> entry
        return own if own.owner == thread else None

    cdef inline bint is_crowded(self, uint64_t thread) noexcept:
        """Whether other threads emit too, so that this thread should have its own batch. The caller has locked this."""
        return self.opener != thread or self.owns_in_use > 0

    cdef inline void use(self, Accumulator own) noexcept:
        if not get_flag(own.is_in_use):
            set_flag(own.is_in_use, 1)
            set_flag(self.owns_in_use, self.owns_in_use + 1)

    cdef list all_owns(self):
        return [own for own in self.owns if own is not None] if self.owns is not None else []

    cdef int add_up(self, _Sums* sums) except -1:
        """Compute what this and the accumulators that threads own have, at one moment."""
        cdef int64_t moves = -1
        cdef Accumulator own
        cdef list owns = self.all_owns()
        with cython.critical_section(self):
            while moves != self.moves:  # see waiting_types
                moves = self.moves
                self.recount()
                sums.accepted = self.events_in
                sums.open = self.batch.envelope.events if self.batch is not None else 0
                sums.buffered = self.held
                for own in owns:
                    with cython.critical_section(own):
                        sums.accepted += own.events_in
                        sums.open += own.events_in
                        sums.buffered += own.held - own.buffer_bytes
        return 0

    cdef bint reserve(self, Accumulator shared, int64_t size) except -1:
        """Let a thread's own accumulator have room for an event of this size. The caller has locked both."""
        cdef int64_t more = self.held + size - self.buffer_bytes
        cdef int64_t left = shared.buffer_bytes - shared.held
        if self.shared is NULL or more > left:
            return False
        more = min(left, max(more, shared.buffer_bytes >> 10))
        shared.held += more
        self.buffer_bytes += more
        return True

    cdef inline Py_ssize_t accept_run(self, list events, Py_ssize_t at, Py_ssize_t stop, dict receipts) except -1:
        """Accept events from index `at` up to, not including, `stop`, as long as the open batch knows the event's type,
        certainly has room for it and is not full afterwards. Returns the index of the first event not accepted.
        """
        cdef PyObject* mine
        if _HAS_OWN_BATCHES:
            mine = self.mine()
            return (<Accumulator> mine).accept_run_here(events, at, stop, receipts)
        return self.accept_run_here(events, at, stop, receipts)

    cdef Py_ssize_t accept_run_here(self, list events, Py_ssize_t at, Py_ssize_t stop, dict receipts) except -1:
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
            receipt = self.accept_at(type_, data, first + number)
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

    cdef inline object accept(self, object type_, object data):
        """Accept one event."""
        if self.serializer is not None:
            data = self.serialized(type_, data, -1)
        return self.accept_encoded(type_, data)

    cdef object accept_at(self, object type_, object data, Py_ssize_t index):
        """Accept one of several events. The error that refuses it names its index; a serializer's own is unchanged."""
        if self.serializer is not None:
            data = self.serialized(type_, data, index)
        try:
            return self.accept_encoded(type_, data)
        except (TypeError, ValueError) as error:
            place_error(error, index)
            raise

    cdef inline object accept_encoded(self, object type_, object data):
        cdef Py_buffer buffer
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
        cdef PyObject* mine
        if _HAS_OWN_BATCHES:
            mine = self.mine()
            return (<Accumulator> mine).put_here(type_, raw, length)
        return self.put_here(type_, raw, length)

    cdef inline object put_here(self, object type_, const uint8_t* raw, Py_ssize_t length):
        cdef PyObject* batch  # borrowed from the section
        lock(<PyObject*> self)
        try:
            batch = <PyObject*> self.batch
            if self.fits(<Batch> batch, type_, length):
                self.append(<Batch> batch, type_, raw, length)
                return (<Batch> batch).receipt
        finally:
            unlock(<PyObject*> self)
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
        cdef Accumulator shared = self.queue()
        cdef Accumulator own = None
        cdef uint64_t thread = 0
        cdef Batch batch = None
        cdef Batch fresh = None
        cdef object receipt = None
        cdef int64_t size = 0
        cdef int step = _AGAIN
        cdef bint opened = False
        cdef bint sealed = False
        if _HAS_OWN_BATCHES:
            thread = PyThread_get_thread_ident()
            own = self.own_of(thread)
        while True:
            if step == _NO_BATCH:
                fresh = shared.make_batch()
            elif step == _TOO_LARGE:
                refuse_event(size, self.max_event_bytes)
            elif step == _FULL:
                receipt = shared.on_full({type_: 1}, size)
                if receipt is not True:
                    return receipt
            self.require_open()
            with cython.critical_section(self, shared):
                shared.recount()
                size = <int64_t> self.gauge.size_of(type_, length)
                batch = self.batch
                if size > self.max_event_bytes:
                    step = _TOO_LARGE
                elif self.held + size > self.buffer_bytes and not self.reserve(shared, size):
                    step = _FULL
                elif not self.is_open[0]:
                    step = _AGAIN
                elif (
                    own is not None and batch is not None and batch.size + size > self.max_bytes
                    and self.is_crowded(thread)
                ):
                    self.keep(batch)
                    self.batch = None
                    self.use(own)
                    step = _OWN
                elif fresh is None and (batch is None or batch.size + size > self.max_bytes):
                    step = _NO_BATCH
                else:
                    step = _ACCEPTED
                    if batch is None or batch.size + size > self.max_bytes:
                        if self is not shared:
                            shared.use(self)  # `seal` may have ended that while this thread waited for room
                        fresh.put(type_, raw, length)
                        if batch is not None:
                            self.keep(batch)
                            sealed = True
                        self.batch = self.untold = batch = fresh
                        self.opener = thread
                        opened = True
                    else:
                        batch.put(type_, raw, length)
                    self.held += size
                    self.events_in += 1
                    if batch.envelope.events >= self.max_events:
                        self.keep(batch)
                        self.batch = None
                        sealed = True
                        if own is not None and self.is_crowded(thread):
                            self.use(own)
                    receipt = batch.receipt  # before another thread takes the batch and clears it
            if step == _OWN:
                self.tell_sealed()
                return own.put_here(type_, raw, length)
            if step == _ACCEPTED:
                break
        if opened:
            self.tell(True)
        if sealed:
            shared.tell_sealed()
        if not opened:
            self.tell(False)
        return receipt

    cdef int tell_sealed(self) except -1:
        cdef object hook
        cdef int64_t excess = surplus()
        with cython.critical_section(self):
            hook = self.sealed_hook
            excess += self.held - self.buffer_bytes - _MOST_SURPLUS
        if excess > 0:
            with nogil:
                give_back(excess)
        hook()
        return 0

    cdef int tell(self, bint is_ours) except -1:
        """Call `on_open` for the open batch if it was not called yet or did not return."""
        cdef Accumulator shared = self.queue()
        cdef Batch batch
        cdef object hook
        with cython.critical_section(self, shared):
            batch = self.untold
            hook = shared.open_hook
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
