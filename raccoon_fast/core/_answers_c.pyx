"""The compiled decoder of answers. It decodes the answers that servers usually write.

It leaves all others to the pure form: answers with unknown fields, with varints longer than necessary or with enum
numbers that have no name here, and malformed ones. Only the pure form decides what they decode to and which errors
they raise.
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
# Indexed by number. A look-up here is several times cheaper than calling the enum.
cdef tuple _STATUSES = tuple(Status)
cdef tuple _CODES = tuple(Code)


def decode_proto_answer(data):
    """Decode a SendEventResponse in protobuf's wire format."""
    answer = read_proto(data) if PyBytes_CheckExact(data) else None
    return pure.decode_proto_answer(data) if answer is None else answer


def decode_json_answer(data):
    """Decode a SendEventResponse in the JSON that the server writes."""
    answer = read_json(data) if PyBytes_CheckExact(data) else None
    return pure.decode_json_answer(data) if answer is None else answer


cdef object read_proto(bytes data):
    """Return the Response, or None if the pure form has to decode it."""
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
    """Return a Response, as `Response(…)` does; or None if its status or code has no name here."""
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
    """Read a map entry that consists of a key and a value, in that order. Returns whether it did."""
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
    """Return the text, or None if it is not UTF-8."""
    cdef str text
    cdef PyObject* new = PyUnicode_DecodeUTF8(<const char*> at, size, NULL)
    if new is NULL:
        PyErr_Clear()
        return None
    text = <str> <object> new
    Py_DECREF(text)  # `new` holds a reference too
    return text


cdef inline int64_t take_length(const uint8_t** at, const uint8_t* end) noexcept:
    """Read the length of a field. Returns -1 if the length is cut off or the field reaches beyond `end`."""
    cdef int64_t length = take_varint(at, end, 4)
    return length if length <= end - at[0] else -1


cdef inline int64_t take_varint(const uint8_t** at, const uint8_t* end, int most_bytes) noexcept:
    """Read a varint. Returns -1 if it is cut off or longer than `most_bytes`, which is at most 8."""
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
    """Return the Response, or None if the pure form has to decode it."""
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
    """Return the number; or -1 if it is not an int, is negative, or does not fit into a signed 64-bit integer."""
    cdef int overflow = 0
    cdef int64_t value
    if not PyLong_CheckExact(number):
        return -1
    value = PyLong_AsLongLongAndOverflow(number, &overflow)
    return value if not overflow and value >= 0 else -1
