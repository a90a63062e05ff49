"""Functions with which the compiled code writes bytes. They touch no Python object and check no length."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t varint_size(uint64_t value) noexcept nogil:
    """Return how many bytes `write_varint` writes."""
    cdef uint64_t size = 3
    if value <= 0x7F:
        return 1
    if value <= 0x3FFF:
        return 2
    value >>= 14
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* write_varint(uint8_t* out, uint64_t value) noexcept nogil:
    """Write a varint and return where it ends. `out` must have room for it, up to 10 bytes."""
    if value > 0x7F:
        out[0] = <uint8_t> (value | 0x80)
        value >>= 7
        out += 1
        while value > 0x7F:
            out[0] = <uint8_t> (value | 0x80)
            value >>= 7
            out += 1
    out[0] = <uint8_t> value
    return out + 1


cdef inline void toggle_mask(uint8_t* data, Py_ssize_t size, uint32_t key) noexcept nogil:
    """Mask or unmask `data` (RFC 6455, section 5.3).

    Eight bytes at a time; the C compiler turns that into sixteen or more.
    """
    cdef uint64_t wide = <uint64_t> key << 32 | key
    cdef uint64_t word
    cdef Py_ssize_t i
    cdef Py_ssize_t words = size >> 3
    cdef uint8_t* narrow = <uint8_t*> &wide
    for i in range(words):
        memcpy(&word, data + (i << 3), 8)
        word ^= wide
        memcpy(data + (i << 3), &word, 8)
    for i in range(words << 3, size):
        data[i] ^= narrow[i & 7]
