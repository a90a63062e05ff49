"""The types that _answers_py.py is compiled with."""

cimport cython

from raccoon_fast.core cimport _wire_c as wire


cdef Py_ssize_t _MAX_DEPTH
cdef tuple _STATUSES
cdef tuple _CODES
cdef long long _2_TO_31
cdef long long _2_TO_32
cdef object _2_TO_63
cdef object _2_TO_64
cdef object _new


cpdef decode_proto_answer(data)


cpdef decode_json_answer(data)


cdef int _check(data) except -1


@cython.locals(
    tag="unsigned long long",
    value="unsigned long long",
    length=Py_ssize_t,
    pos=Py_ssize_t,
    end=Py_ssize_t,
    sent_time=object,
    reason=str,
    entries=dict,
)
cdef _take_answer(bytes data)


@cython.locals(tag="unsigned long long", length=Py_ssize_t, whole=bint)
cdef int _take_entry(bytes data, Py_ssize_t pos, Py_ssize_t end, dict entries) except -1


cdef str _text(bytes data, Py_ssize_t start, Py_ssize_t end)


@cython.locals(low="long long")
cdef long long _signed_32(unsigned long long value) noexcept


cdef object _signed_64(unsigned long long value)


cdef object _status(long long number)


cdef object _code(long long number)


cdef object _number(dict answer, str name, object limit)
