"""The compiled form of the decoding of answers: of those that are as a server writes them.

All others go to the pure form: unknown fields, numbers of more bytes than need be, values without a name, and whatever
is wrong. What they come to, errors included, is said there alone.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact
from cpython.exc cimport PyErr_Clear
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp


from raccoon_fast.core import _answers_py as pure
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.json_codec import loads as decode_json

__all__ = ["MAX_ANSWER_BYTES", "decode_json_answer", "decode_proto_answer"]

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_alloc)(PyTypeObject* type, Py_ssize_t items)
    bint PyUnicode_CheckExact(object text)
    PyObject* PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

MAX_ANSWER_BYTES = pure.MAX_ANSWER_BYTES

cdef Py_ssize_t _MAX_BYTES = MAX_ANSWER_BYTES
# By number; a look-up here is several times cheaper than the enum's call.
cdef tuple _STATUSES = tuple(Status)
cdef tuple _CODES = tuple(Code)


def decode_proto_answer(data):
    """Decode a SendEventResponse in protobuf's wire format."""
    answer = read_proto(data) if PyBytes_CheckExact(data) else None
    return pure.decode_proto_answer(data) if answer is None else answer


def decode_json_answer(data):
    """Decode a SendEventResponse in JSON as the server writes it."""
    answer = read_json(data) if PyBytes_CheckExact(data) else None
    return pure.decode_json_answer(data) if answer is None else answer


cdef object read_proto(bytes data):
    """Return the Response, or None if it is for the pure form."""
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef int64_t status = 0
    cdef int64_t code = 0
    cdef int64_t sent_time = 0
    cdef int64_t length
    cdef uint8_t tag
    cdef str reason = ""
    cdef dict entries = {}
    if PyBytes_GET_SIZE(data) > _MAX_BYTES:
        return None
    while at < end:
        tag = at[0]
        at += 1
        if tag == 0x08:
            status = take_varint(&at, end, 8)
            if status < 0:
                return None
        elif tag == 0x10:
            code = take_varint(&at, end, 8)
            if code < 0:
                return None
        elif tag == 0x18:
            sent_time = take_varint(&at, end, 8)
            if sent_time < 0:
                return None
        elif tag == 0x22:
            length = take_length(&at, end)
            if length < 0:
                return None
            reason = take_text(at, length)
            if reason is None:
                return None
            at += length
        elif tag == 0x2A:
            length = take_length(&at, end)
            if length < 0 or not take_entry(at, at + length, entries):
                return None
            at += length
        else:
            return None
    return new_response(status, code, sent_time, reason, entries)


cdef object new_response(int64_t status, int64_t code, object sent_time, str reason, dict entries):
    """Return a Response, as `Response(…)` does, or None: its status or code has no name here."""
    cdef object response
    if not (0 <= status < len(_STATUSES) and 0 <= code < len(_CODES)):
        return None
    response = (<PyTypeObject*> Response).tp_alloc(<PyTypeObject*> Response, 5)
    put(response, 0, _STATUSES[status])
    put(response, 1, _CODES[code])
    put(response, 2, sent_time)
    put(response, 3, reason)
    put(response, 4, entries)
    return response


cdef inline void put(object response, Py_ssize_t at, object item) noexcept:
    Py_INCREF(item)
    PyTuple_SET_ITEM(response, at, item)


cdef bint take_entry(const uint8_t* at, const uint8_t* end, dict entries) except -1:
    """Read a map's entry that is a key and a value, in that order; say whether it was one."""
    cdef int64_t length
    cdef const uint8_t* name
    cdef int64_t name_size
    cdef str key
    cdef str text
    if at == end or at[0] != 0x0A:
        return False
    at += 1
    name_size = take_length(&at, end)
    if name_size < 0:
        return False
    name = at
    at += name_size
    if at == end or at[0] != 0x12:
        return False
    at += 1
    length = take_length(&at, end)
    if length != end - at:
        return False
    key = "req_guid" if name_size == 8 and memcmp(name, b"req_guid", 8) == 0 else take_text(name, name_size)
    text = take_text(at, length)
    if key is None or text is None:
        return False
    entries[key] = text
    return True


cdef str take_text(const uint8_t* at, Py_ssize_t size):
    """Return the text, or None: it is not UTF-8."""
    cdef str text
    cdef PyObject* new = PyUnicode_DecodeUTF8(<const char*> at, size, NULL)
    if new is NULL:
        PyErr_Clear()
        return None
    text = <str> <object> new
    Py_DECREF(text)  # `new` was a reference of its own
    return text


cdef inline int64_t take_length(const uint8_t** at, const uint8_t* end) noexcept:
    """Read the length of what follows, or return -1: it is cut off, or reaches beyond `end`."""
    cdef int64_t length = take_varint(at, end, 4)
    return length if length <= end - at[0] else -1


cdef inline int64_t take_varint(const uint8_t** at, const uint8_t* end, int most_bytes) noexcept:
    """Read a number, or return -1: it is cut off, or has more bytes; eight at most."""
    cdef const uint8_t* place = at[0]
    cdef int64_t value = 0
    cdef int shift = 0
    while place < end and shift < 7 * most_bytes:
        value |= <int64_t> (place[0] & 0x7F) << shift
        if place[0] < 0x80:
            at[0] = place + 1
            return value
        place += 1
        shift += 7
    return -1


cdef object read_json(bytes data):
    """Return the Response, or None if it is for the pure form."""
    cdef object reason
    cdef object entries
    cdef object value
    if PyBytes_GET_SIZE(data) > _MAX_BYTES:
        return None
    try:
        answer = decode_json(data)
    except ValueError:
        return None
    if not PyDict_CheckExact(answer):
        return None
    reason = (<dict> answer).get("reason", "")
    entries = (<dict> answer).get("data")
    if not (PyUnicode_CheckExact(reason) and PyDict_CheckExact(entries)):
        return None
    for value in (<dict> entries).values():
        if not PyUnicode_CheckExact(value):
            return None
    value = (<dict> answer).get("sent_time")
    if whole(value) < 0:
        return None
    return new_response(
        whole((<dict> answer).get("status")), whole((<dict> answer).get("code")), value, reason, entries
    )


cdef int64_t whole(object number) except? -1:
    """Return a whole number, or -1: it is none, negative, or has no room in 64 bits."""
    cdef int overflow = 0
    cdef int64_t value
    if not PyLong_CheckExact(number):
        return -1
    value = PyLong_AsLongLongAndOverflow(number, &overflow)
    return value if not overflow and value >= 0 else -1
