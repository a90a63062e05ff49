"""The types that _frames_py.py is compiled with."""

cimport cython

cdef int _WHOLE_TEXT
cdef int _WHOLE_BINARY
cdef int _PING
cdef int _PONG


cdef class AnswerReader:
    cdef bytes _rest
    cdef bint _gave_up

    @cython.locals(
        stream=bytes,
        items=list,
        at=Py_ssize_t,
        size=Py_ssize_t,
        end=Py_ssize_t,
        header=Py_ssize_t,
        length=Py_ssize_t,
        first=int,
        is_answer=bint,
    )
    cpdef list feed(self, data)
