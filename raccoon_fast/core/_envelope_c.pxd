"""What the compiled batch calls of the compiled envelope."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef class _Block:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t exports

    cdef int resize(self, Py_ssize_t size) except -1


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
    # The last type whose form on the wire is kept, or None.
    cdef object last_type

    cdef head_bound(self, req_guid)
    cdef bytes encode_head(self, req_guid, seconds, nanos)
    # These two run no Python code for a type that is exactly str: no other thread can come between. Both return the
    # event's size, as `measure` does.
    cdef uint64_t size_of(self, object type_, Py_ssize_t size) except 0
    cdef int64_t write(self, object type_, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t write_run(
        self, list events, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most_bytes, Py_ssize_t most_in_all
    ) noexcept
    cdef object view(self, Py_ssize_t start)
    cdef int finish(self) except -1
    cdef int own(self) except -1
    cdef void flip(self) noexcept
    cdef int trim(self) except -1
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
