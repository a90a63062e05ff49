"""The compiled form of the tally of event types. The contract is in the pure form.

It runs once over each request that a collector receives. So it reads the fields of events through a pointer, and leaves
all other fields to `skip_field`. A request has few types, and often many events of one type in a row. So the types are
in a short array, which is searched from the last type found. If the array is full, its counts move to a dict.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from raccoon_fast.core cimport _wire_c as wire

from raccoon_fast.errors import DecodeError

__all__ = ["tally_types"]

# google.protobuf's limit on nested messages and groups; an event is one level.
cdef enum:
    _MAX_DEPTH = 100
    _SLOTS = 64


cdef struct _Slot:
    const uint8_t* name
    Py_ssize_t size
    Py_ssize_t count
    Py_ssize_t last


def tally_types(request):
    """Count the events of a SendEventRequest in protobuf's wire format by their type."""
    cdef dict tally
    if not PyBytes_CheckExact(request):
        raise TypeError(f"a request should be bytes, not {type(request).__name__}")
    tally = _tally(request)
    try:
        return {name.decode(): found for name, found in tally.items()}
    except UnicodeDecodeError as error:
        raise DecodeError(f"an event's type is not UTF-8: {error}") from error


cdef dict _tally(bytes request):
    cdef dict tally = {}
    cdef _Slot[_SLOTS] slots
    cdef int used = 0
    cdef int found = 0
    cdef int _probe
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t pos = 0
    cdef Py_ssize_t end = PyBytes_GET_SIZE(request)
    cdef Py_ssize_t at, stop, name, size, skipped
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(request)
    cdef unsigned long long tag
    while pos < end:
        if data[pos] == 0x1A:
            pos += 1
        else:
            tag, pos = wire.take_tag(request, pos, end)
            if tag != 0x1A:
                pos = wire.skip_field(request, pos, end, tag, _MAX_DEPTH)
                continue
        size = _take_size(request, data, &pos, end)
        # Finding the next event does not depend on reading this one, so the processor can work on both at once.
        at = pos
        pos = stop = pos + size
        name = size = 0
        while at < stop:
            tag = data[at]
            if tag == 0x0A or tag == 0x12:
                at += 1
            else:
                tag, at = wire.take_tag(request, at, stop)
            if tag == 0x0A:
                skipped = _take_size(request, data, &at, stop)
                at += skipped
            elif tag == 0x12:
                size = _take_size(request, data, &at, stop)
                name = at
                at += size
            else:
                at = wire.skip_field(request, at, stop, tag, _MAX_DEPTH - 1)
        for _probe in range(used):
            if slots[found].size == size and _same(slots[found].name, data + name, size):
                break
            found += 1
            if found == used:
                found = 0
        else:
            if used == _SLOTS:
                _spill(slots, used, tally)
                used = 0
            found = used
            used += 1
            slots[found].name = data + name
            slots[found].size = size
            slots[found].count = 0
        slots[found].count += 1
        slots[found].last = index
        index += 1
    _spill(slots, used, tally)
    return tally


cdef inline bint _same(const uint8_t* one, const uint8_t* other, Py_ssize_t size) noexcept nogil:
    """Compare from the end, because types often begin alike. For so few bytes, calling memcmp takes longer."""
    while size and one[size - 1] == other[size - 1]:
        size -= 1
    return size == 0


cdef int _spill(_Slot* slots, int used, dict tally) except -1:
    """Add the counts in the slots to the tally."""
    cdef int i
    cdef bytes name
    for i in range(used):
        name = PyBytes_FromStringAndSize(<const char*> slots[i].name, slots[i].size)
        count = slots[i].count + tally.get(name, (0, 0))[0]
        tally[name] = (count, slots[i].last)
    return 0


cdef inline Py_ssize_t _take_size(bytes request, const uint8_t* data, Py_ssize_t* pos, Py_ssize_t end) except -1:
    """Read the length of a field, as `take_length` does, and move `pos` past it."""
    cdef Py_ssize_t at = pos[0]
    cdef Py_ssize_t size
    if at + 2 <= end:
        size = data[at]
        at += 1
        if size > 0x7F:
            size = (size & 0x7F) | <Py_ssize_t> data[at] << 7
            at += 1
        if data[at - 1] < 0x80 and size <= end - at:
            pos[0] = at
            return size
    size, pos[0] = wire.take_length(request, pos[0], end)
    return size
