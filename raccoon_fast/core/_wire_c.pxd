"""The types that _wire_py.py is compiled with, and the functions that other compiled modules call."""

cimport cython


cpdef bytes encode_varint(object value)


@cython.locals(value="unsigned long long", byte="unsigned long long", shift=int)
cpdef (unsigned long long, Py_ssize_t) take_varint(bytes data, Py_ssize_t pos, Py_ssize_t end) except *


@cython.locals(tag="unsigned long long", after=Py_ssize_t)
cpdef (unsigned long long, Py_ssize_t) take_tag(bytes data, Py_ssize_t pos, Py_ssize_t end) except *


@cython.locals(length="unsigned long long", rest="unsigned long long", after=Py_ssize_t)
cpdef (Py_ssize_t, Py_ssize_t) take_length(bytes data, Py_ssize_t pos, Py_ssize_t end) except *


@cython.locals(groups=list, wire_type=int, length=Py_ssize_t)
cpdef Py_ssize_t skip_field(
    bytes data, Py_ssize_t pos, Py_ssize_t end, unsigned long long tag, Py_ssize_t max_depth
) except -1
