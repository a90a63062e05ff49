"""The part of the compiled envelope that the compiled batch calls."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from raccoon_fast.core._event_bytes cimport _SHORT_FIELD


cdef class _Block:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t exports
    # Of a mapping, the bytes that may have been used, by this block too if it `is_measured`; otherwise -1.
    cdef Py_ssize_t touched
    cdef bint is_measured

    cdef int resize(self, Py_ssize_t size) except -1
    cdef void measure(self, Py_ssize_t used) noexcept
    cdef Py_ssize_t memory(self) noexcept


cdef class _Type:
    # An event type. `text` points to its text if it is ASCII; otherwise `size` is -1.
    cdef object name
    cdef const char* text
    cdef Py_ssize_t size
    # How it is written. For protobuf: the whole field, or nothing (`field_size` 0) if that is longer than _SHORT_FIELD.
    # For JSON: the text after the data.
    cdef uint8_t[_SHORT_FIELD] field
    cdef Py_ssize_t field_size
    cdef bytes form
    # Events that are not in `counts` yet.
    cdef Py_ssize_t events


cdef class _Envelope:
    # Positions in the block: the first byte of the stamped head (of the events, if there is no head), the first byte of
    # the events, and the byte after the last event.
    cdef _Block block
    cdef Py_ssize_t head
    cdef Py_ssize_t start
    cdef Py_ssize_t stop
    cdef Py_ssize_t tail_size
    cdef Py_ssize_t events
    cdef uint32_t mask
    cdef bint masked
    # The known types by name, with the form to write, or None; the last type used; and the number of events per type,
    # without those that `tally` adds. Lean envelopes may share the last dict: after `make_lean`, replace it instead of
    # changing it.
    cdef dict known
    cdef _Type last
    cdef dict counts

    cdef head_bound(self, req_guid)
    cdef bytes encode_head(self, req_guid, seconds, nanos)
    # These two run no Python code for a type that is exactly str, so no other thread can run meanwhile. They return the
    # event's size, as `measure` does.
    cdef uint64_t size_of(self, object type_, Py_ssize_t size) except 0
    cdef int64_t write(self, object type_, const uint8_t* data, Py_ssize_t size) except -1

    @cython.final
    cdef Py_ssize_t write_run(
        self, list events, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most_bytes, Py_ssize_t most_in_all
    ) noexcept

    @cython.final
    cdef Py_ssize_t room(self) noexcept

    @cython.final
    cdef bint knows(self, object type_) except -1

    @cython.final
    cdef bint remembers(self, object type_) except -1

    @cython.final
    cdef _Type learn(self, object name)

    @cython.final
    cdef int count_more(self, object name, Py_ssize_t events) except -1

    @cython.final
    cdef dict tally(self)

    cdef object view(self, Py_ssize_t start)
    cdef int finish(self) except -1
    cdef int own(self) except -1
    cdef void flip(self) noexcept
    cdef int trim(self, bint tightly) except -1
    cdef int make_lean(self) except -1

    @cython.final
    cdef int64_t footprint(self) except -1

    cdef int widen(self, Py_ssize_t headroom) except -1

    @cython.final
    cdef uint8_t* reserve(self, uint64_t size) except NULL
    cdef uint8_t* make_room(self, uint64_t size) except NULL

    @cython.final
    cdef int64_t append(self, object type_, object data) except -1

    @cython.final
    cdef int64_t append_buffer(self, object type_, object data) except -1

    @cython.final
    cdef int append_event(self, object event) except -1


cdef int take_buffer(object data, Py_buffer* buffer) except -1

# Of _memory.pxd. This module has the only counts, because it has all blocks.
cdef int64_t surplus() noexcept nogil
cdef void give_back(int64_t nbytes) noexcept nogil
cdef void keep_up_to(int64_t nbytes) noexcept nogil
