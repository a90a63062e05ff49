"""Functions with which the compiled envelope writes an event. The bytes are the same as those of the pure form."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from raccoon_fast.core._base64 cimport write_base64
from raccoon_fast.core._bytes cimport varint_size, write_varint

cdef enum:
    # Most Event.type fields fit into this many bytes. Copying this fixed number is faster than copying the exact one.
    _SHORT_FIELD = 32
    # With up to this many bytes of data and such a type, the length of the event is a varint of at most two bytes.
    _TWO_BYTES = 0x3FFF - 3 - _SHORT_FIELD
    # The most bytes besides the data in an event of such a type: two tags, two varints, and the copied type field.
    _AROUND = 2 + 2 * 10 + _SHORT_FIELD


cdef inline uint64_t inner_size(Py_ssize_t text_size, Py_ssize_t size) noexcept:
    """Return the size of an Event in bytes: type (2) and event_bytes (1)."""
    return 1 + varint_size(text_size) + <uint64_t> text_size + data_size(size)


cdef inline uint64_t data_size(Py_ssize_t size) noexcept:
    """Return the size of Event.event_bytes in bytes. The field is left out when empty."""
    return 1 + varint_size(size) + <uint64_t> size if size else 0


cdef inline uint8_t* write_data(uint8_t* out, uint64_t inner, const uint8_t* data, Py_ssize_t size) noexcept:
    """Write an event of `inner` bytes up to its type, and return where the type goes."""
    # SendEventRequest.events = 3; Event.event_bytes = 1, left out when empty; Event.type = 2.
    out[0] = 0x1A
    out = write_varint(out + 1, inner)
    if size:
        out[0] = 0x0A
        out = write_varint(out + 1, size)
        memcpy(out, data, size)
        out += size
    return out


cdef inline uint8_t* write_short(
    uint8_t* out, const uint8_t* field, Py_ssize_t field_size, const uint8_t* data, Py_ssize_t size
) noexcept:
    """Write an event whose type field has at most _SHORT_FIELD bytes, and return where it ends.

    The caller guarantees _SHORT_FIELD readable bytes at `field`, and `size` + _AROUND free bytes at `out`.
    """
    cdef uint64_t inner
    if 0x7F < size <= _TWO_BYTES:
        # Most events: both lengths are varints of two bytes.
        inner = <uint64_t> (3 + size + field_size)
        out[0] = 0x1A
        out[1] = <uint8_t> (inner | 0x80)
        out[2] = <uint8_t> (inner >> 7)
        out[3] = 0x0A
        out[4] = <uint8_t> (size | 0x80)
        out[5] = <uint8_t> (size >> 7)
        memcpy(out + 6, data, size)
        out += 6 + size
    else:
        out = write_data(out, data_size(size) + <uint64_t> field_size, data, size)
    memcpy(out, field, _SHORT_FIELD)
    return out + field_size


cdef inline uint64_t json_size(Py_ssize_t size, bytes form) noexcept:
    """Return the size of an event in JSON, with a comma. `form` is the text after its data."""
    return 17 + (<uint64_t> size + 2) // 3 * 4 + <uint64_t> PyBytes_GET_SIZE(form)


cdef inline uint8_t* write_json(
    uint8_t* out, bint comma, bytes form, const uint8_t* data, Py_ssize_t size, const uint8_t* pairs, bint by_avx2
) noexcept:
    """Write an event in JSON, and return where it ends. write_base64 gets `pairs` and `by_avx2`."""
    if comma:
        out[0] = c","
        out += 1
    memcpy(out, b'{"event_bytes":"', 16)
    out = write_base64(out + 16, data, size, pairs, by_avx2)
    memcpy(out, PyBytes_AS_STRING(form), PyBytes_GET_SIZE(form))
    return out + PyBytes_GET_SIZE(form)
