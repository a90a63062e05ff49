"""What the compiled batch calls of the compiled envelope."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from raccoon_fast.core._event_bytes cimport _SHORT_FIELD


cdef class _Block:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t exports

    cdef int resize(self, Py_ssize_t size) except -1


cdef class _Type:
    # An event type, whose text is at hand where it is ASCII; else its size is -1.
    cdef object name
    cdef const char* text
    cdef Py_ssize_t size
    # Its form on the wire: for protobuf the field, of which 0 bytes are here if it is longer; for JSON what stands
    # behind the data.
    cdef uint8_t[_SHORT_FIELD] field
    cdef Py_ssize_t field_size
    cdef bytes form
    # Events that `counts` does not have yet.
    cdef Py_ssize_t events


cdef class _Envelope:
    # Positions in the block: the stamped head's first byte (the events' while there is no head), the events' first
    # byte, and the one behind the last event.
    cdef _Block block
    cdef Py_ssize_t head
    cdef Py_ssize_t start
    cdef Py_ssize_t stop
    cdef Py_ssize_t tail_size
    cdef Py_ssize_t events
    cdef uint32_t mask
    cdef bint masked
    # Types that events had, by name, so that their form is at hand, or None; the last of them; events by type, but for
    # those that `tally` adds, in a dict that lean envelopes may share: to be replaced, not changed, after `make_lean`.
    cdef dict known
    cdef _Type last
    cdef dict counts

    cdef head_bound(self, req_guid)
    cdef bytes encode_head(self, req_guid, seconds, nanos)
    # These run no Python code for a type that is exactly str: no other thread can come between. The two return the
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
