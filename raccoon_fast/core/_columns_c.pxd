"""The part of the compiled columns that the compiled batch calls."""

from libc.stdint cimport uint8_t


cdef class Slices:
    cdef public Py_ssize_t at
    cdef Py_buffer data
    cdef Py_buffer offsets
    cdef Py_ssize_t first
    cdef Py_ssize_t count
    cdef Py_ssize_t width
    cdef bint has_data
    cdef bint has_offsets

    cdef int check_range(self, Py_ssize_t start, Py_ssize_t stop) except -1
    cdef int find_all(self, Py_ssize_t start, Py_ssize_t stop, const uint8_t** begin, Py_ssize_t* size) except -1
    cdef int find(self, Py_ssize_t index, const uint8_t** start, Py_ssize_t* size) except -1
