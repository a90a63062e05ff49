"""The types that _acks_py.py is compiled with."""

cimport cython

cdef object _MATCHED
cdef tuple _DUPLICATE
cdef tuple _LATE
cdef tuple _UNKNOWN
cdef object _ACKED
cdef object _NACKED
cdef object _GIVEN_UP


cdef class AckTable:
    cdef Py_ssize_t _remember
    cdef dict _pending
    cdef dict _past
    cdef list _ring
    cdef Py_ssize_t _oldest
    cdef bint _in_order
    cdef double _last_deadline_s
    cdef Py_ssize_t _duplicates
    cdef Py_ssize_t _late
    cdef Py_ssize_t _unknown

    cpdef bint seen(self, req_guid) except -1

    @cython.locals(deadline=double)
    cpdef add(self, req_guid, entry, deadline_s)

    cpdef tuple settle(self, req_guid, ok)

    cpdef next_deadline(self)

    @cython.locals(due=list, now=double)
    cpdef list expire(self, now_s)

    cpdef discard(self, req_guid)

    @cython.locals(drained=list)
    cpdef list drain(self)

    cdef _note(self, req_guid, fate)


@cython.locals(key=Py_ssize_t)
cdef object _key(req_guid)
