"""The compiled form of Slices, Field and encode_rows. The contracts are in the pure form.

The buffers belong to others, and another thread may write to them while they are read. So this code reads each length
and offset once, checks it, and uses the value it read.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from raccoon_fast.core._bytes cimport varint_size, write_varint

from raccoon_fast.core._column_kinds import KINDS, check_field, check_slices, refuse_offset

__all__ = ["Field", "Slices", "encode_rows"]

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef const char* _HEX = "0123456789abcdef"
# The most bytes of: a number's digits and sign; a varint; a Timestamp with its length.
cdef enum:
    _MOST_DIGITS = 24
    _MOST_VARINT = 10
    _MOST_MOMENT = 24

cdef enum:
    _INTEGER = 0
    _BOOLEAN = 1
    _STRING = 2
    _TEXT = 3
    _VARINT = 4
    _ZIGZAG = 5
    _FIXED = 6
    _FLAG = 7
    _BYTES = 8
    _MOMENT = 9
    _FINISHED = 10

assert KINDS == (
    "integer", "boolean", "string", "text", "varint", "zigzag", "fixed", "flag", "bytes", "moment", "finished"
)

# The digits of 0 to 99.
cdef uint8_t[200] _PAIRS
cdef int _number
for _number in range(100):
    _PAIRS[2 * _number] = 48 + _number // 10
    _PAIRS[2 * _number + 1] = 48 + _number % 10


@cython.final
cdef class Slices:
    """The bytes of many events, one after the other in one buffer, like a binary column in Arrow."""

    def __cinit__(self, data, offsets, first, count, width):
        check_slices(first, count, width)
        self.first = first
        self.count = count
        self.width = width
        PyObject_GetBuffer(offsets, &self.offsets, PyBUF_SIMPLE)
        self.has_offsets = True
        if data is not None:
            PyObject_GetBuffer(data, &self.data, PyBUF_SIMPLE)
            self.has_data = True
        if self.offsets.len // self.width - 1 < self.first + self.count:
            raise ValueError(
                f"{self.offsets.len} bytes of offsets are too few for {count} slices of {width} bytes from {first} on"
            )

    def __dealloc__(self):
        if self.has_data:
            PyBuffer_Release(&self.data)
        if self.has_offsets:
            PyBuffer_Release(&self.offsets)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        cdef const uint8_t* start
        cdef Py_ssize_t size
        self.find(index, &start, &size)
        return PyBytes_FromStringAndSize(<const char*> start, size)

    def part(self, Py_ssize_t start, Py_ssize_t stop):
        """Return the slices from `start` to before `stop`, which share the buffers."""
        self.check_range(start, stop)
        data = <object> self.data.obj if self.has_data else None
        return Slices(data, <object> self.offsets.obj, self.first + start, stop - start, self.width)

    def nbytes(self, Py_ssize_t start, Py_ssize_t stop):
        """Return how many bytes the slices from `start` to before `stop` have together."""
        cdef const uint8_t* begin
        cdef Py_ssize_t size
        self.check_range(start, stop)
        self.find_all(start, stop, &begin, &size)
        return size

    def joined(self):
        """Return all slices together."""
        cdef const uint8_t* begin
        cdef Py_ssize_t size
        self.find_all(0, self.count, &begin, &size)
        return PyBytes_FromStringAndSize(<const char*> begin, size)

    cdef int check_range(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"there are {self.count} slices, and none from {start} to {stop}")
        return 0

    cdef int find_all(self, Py_ssize_t start, Py_ssize_t stop, const uint8_t** begin, Py_ssize_t* size) except -1:
        """Return the start and the size of the slices from `start` to before `stop`."""
        return find_slice(
            &self.offsets, self.width, self.first + start, self.first + stop, &self.data, self.has_data, begin, size
        )

    cdef int find(self, Py_ssize_t index, const uint8_t** start, Py_ssize_t* size) except -1:
        """Return the start and the size of a slice."""
        if not 0 <= index < self.count:
            raise IndexError(f"there are {self.count} slices, and none is number {index}")
        return self.find_all(index, index + 1, start, size)


cdef inline int find_slice(
    Py_buffer* offsets,
    Py_ssize_t width,
    Py_ssize_t first,
    Py_ssize_t last,
    Py_buffer* data,
    bint has_data,
    const uint8_t** start,
    Py_ssize_t* size,
) except -1:
    """Return the data between two offsets, both of which must exist."""
    cdef int32_t[2] narrow
    cdef int64_t[2] wide
    cdef Py_ssize_t length = data.len if has_data else 0
    if width == 4:
        memcpy(&narrow[0], <const uint8_t*> offsets.buf + first * 4, 4)
        memcpy(&narrow[1], <const uint8_t*> offsets.buf + last * 4, 4)
        wide[0] = narrow[0]
        wide[1] = narrow[1]
    else:
        memcpy(&wide[0], <const uint8_t*> offsets.buf + first * 8, 8)
        memcpy(&wide[1], <const uint8_t*> offsets.buf + last * 8, 8)
    if not 0 <= wide[0] <= wide[1] <= length:
        refuse_offset(wide[0], wide[1], length)
    start[0] = <const uint8_t*> data.buf + wide[0] if has_data else <const uint8_t*> b""
    size[0] = <Py_ssize_t> (wide[1] - wide[0])
    return 0


@cython.final
cdef class Field:
    """One column of the rows that `encode_rows` writes."""

    cdef int kind
    cdef bytes before
    cdef bytes null
    cdef bint skips_zero
    cdef bint is_signed
    cdef Py_ssize_t width
    cdef int64_t per_second
    cdef Py_ssize_t first
    cdef Py_ssize_t rows
    cdef Py_buffer values
    cdef Py_buffer offsets
    cdef Py_buffer validity
    cdef bint has_values
    cdef bint has_offsets
    cdef bint has_validity

    def __cinit__(
        self,
        kind,
        before,
        rows,
        *,
        values=None,
        offsets=None,
        validity=None,
        first=0,
        width=0,
        is_signed=True,
        null=b"",
        skips_zero=False,
        per_second=1
    ):
        cdef Py_ssize_t end
        check_field(kind, before, rows, first, width, null, per_second, values, offsets, is_signed)
        self.kind = KINDS.index(kind)
        self.before = before
        self.null = null
        self.skips_zero = skips_zero
        self.is_signed = is_signed
        self.width = width
        self.per_second = per_second
        self.first = first
        self.rows = rows
        end = self.first + self.rows
        if values is not None:
            PyObject_GetBuffer(values, &self.values, PyBUF_SIMPLE)
            self.has_values = True
        if offsets is not None:
            PyObject_GetBuffer(offsets, &self.offsets, PyBUF_SIMPLE)
            self.has_offsets = True
            if self.offsets.len // self.width - 1 < end:
                raise ValueError(f"{self.offsets.len} bytes of offsets are too few for {end} values of {width} bytes")
        elif self.kind == _BOOLEAN or self.kind == _FLAG:
            if (end + 7) // 8 > self.values.len:
                raise ValueError(f"{self.values.len} bytes of values are too few for {end} bits")
        elif end > self.values.len // self.width:
            raise ValueError(f"{self.values.len} bytes of values are too few for {end} of {width} bytes")
        if validity is not None:
            PyObject_GetBuffer(validity, &self.validity, PyBUF_SIMPLE)
            self.has_validity = True
            if (end + 7) // 8 > self.validity.len:
                raise ValueError(f"{self.validity.len} bytes of validity are too few for {end} bits")

    def __dealloc__(self):
        if self.has_values:
            PyBuffer_Release(&self.values)
        if self.has_offsets:
            PyBuffer_Release(&self.offsets)
        if self.has_validity:
            PyBuffer_Release(&self.validity)


@cython.final
cdef class _Output:
    """A growing buffer."""

    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    def __cinit__(self, Py_ssize_t room):
        self.data = <uint8_t*> PyMem_Malloc(room)
        if self.data is NULL:
            raise MemoryError
        self.room = room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef inline uint8_t* reserve(self, Py_ssize_t need) except NULL:
        """Return where the next `need` bytes go."""
        if need <= self.room - self.size:
            return self.data + self.size
        return self.grow(need)

    cdef uint8_t* grow(self, Py_ssize_t need) except NULL:
        cdef uint8_t* data
        cdef Py_ssize_t room
        if need > PY_SSIZE_T_MAX // 4 - self.size:
            raise MemoryError
        room = max(2 * self.room, self.size + need)
        data = <uint8_t*> PyMem_Realloc(self.data, room)
        if data is NULL:
            raise MemoryError
        self.data = data
        self.room = room
        return self.data + self.size


def encode_rows(fields, rows, end=b""):
    """Write each row: for each field its `before` and its value, then `end`."""
    cdef list columns = list(fields)
    cdef Py_ssize_t count = rows
    cdef Py_ssize_t row
    cdef Py_ssize_t size
    cdef bytes after = end
    cdef bytes ends
    cdef int64_t total = 0
    cdef Field field
    cdef _Output out
    cdef Py_ssize_t around = 0
    for each in columns:
        field = each
        if field.rows < count:
            raise ValueError(f"a field has {field.rows} rows, and {rows} are asked for")
        around += PyBytes_GET_SIZE(field.before) + 8
    if not 0 <= count <= PY_SSIZE_T_MAX // 16:
        raise ValueError(f"rows should be 0 or more, not {rows}")
    out = _Output(min(around * count, 1 << 24) + 64)
    ends = PyBytes_FromStringAndSize(NULL, (count + 1) * 8)
    memcpy(PyBytes_AS_STRING(ends), &total, 8)
    size = PyBytes_GET_SIZE(after)
    for row in range(count):
        for each in columns:
            write_value(<Field> each, row, out)
        memcpy(out.reserve(size), PyBytes_AS_STRING(after), size)
        out.size += size
        total = out.size
        memcpy(PyBytes_AS_STRING(ends) + (row + 1) * 8, &total, 8)
    return Slices(PyBytes_FromStringAndSize(<char*> out.data, out.size), ends, 0, rows, 8)


cdef inline int write_value(Field field, Py_ssize_t row, _Output output) except -1:
    cdef Py_ssize_t place = field.first + row
    cdef Py_ssize_t before = PyBytes_GET_SIZE(field.before)
    cdef Py_ssize_t size = 0
    cdef const uint8_t* raw = NULL
    cdef uint8_t* out
    cdef int kind = field.kind
    cdef uint64_t bits = 0
    cdef bint is_negative = False
    if field.has_validity and not (<const uint8_t*> field.validity.buf)[place >> 3] >> (place & 7) & 1:
        size = PyBytes_GET_SIZE(field.null)
        if size:
            out = output.reserve(before + size)
            memcpy(out, PyBytes_AS_STRING(field.before), before)
            memcpy(out + before, PyBytes_AS_STRING(field.null), size)
            output.size += before + size
        return 0
    if field.has_offsets:
        find_slice(&field.offsets, field.width, place, place + 1, &field.values, field.has_values, &raw, &size)
        if size > PY_SSIZE_T_MAX // 32:
            raise MemoryError
        if field.skips_zero and not size:
            return 0
        # An escape makes at most six bytes out of one. Add the two quotes, or a length.
        out = output.reserve(before + (6 * size + 2 if kind == _STRING else size + _MOST_VARINT))
    else:
        if kind == _BOOLEAN or kind == _FLAG:
            bits = (<const uint8_t*> field.values.buf)[place >> 3] >> (place & 7) & 1
        else:
            bits = read_bits(<const uint8_t*> field.values.buf, field.width, place)
            if field.is_signed and field.width < 8 and kind != _FIXED:
                bits = sign_extended(bits, field.width)
            is_negative = field.is_signed and bits >> 63
        if field.skips_zero and not bits:
            return 0
        out = output.reserve(before + _MOST_DIGITS + _MOST_MOMENT)
    memcpy(out, PyBytes_AS_STRING(field.before), before)
    out += before
    if kind == _INTEGER:
        if is_negative:
            out[0] = c"-"
            out += 1
            bits = 0 - bits
        out = write_digits(out, bits)
    elif kind == _STRING:
        out = write_escaped(out, raw, size)
    elif kind == _BOOLEAN:
        memcpy(out, b"true" if bits else b"false", 4 if bits else 5)
        out += 4 if bits else 5
    elif kind == _TEXT or kind == _FINISHED:
        memcpy(out, raw, size)
        out += size
    elif kind == _BYTES:
        out = write_varint(out, size)
        memcpy(out, raw, size)
        out += size
    elif kind == _ZIGZAG:
        out = write_varint(out, bits << 1 ^ (~<uint64_t> 0 if is_negative else 0))
    elif kind == _FIXED:
        out = write_fixed(out, bits, field.width)
    elif kind == _MOMENT:
        out = write_moment(out, <int64_t> bits, field.per_second)
    else:
        out = write_varint(out, bits)
    output.size = out - output.data
    return 0


cdef inline uint64_t read_bits(const uint8_t* values, Py_ssize_t width, Py_ssize_t place) noexcept:
    cdef uint8_t one
    cdef uint16_t two
    cdef uint32_t four
    cdef uint64_t eight
    if width == 8:
        memcpy(&eight, values + place * 8, 8)
        return eight
    if width == 4:
        memcpy(&four, values + place * 4, 4)
        return four
    if width == 2:
        memcpy(&two, values + place * 2, 2)
        return two
    one = values[place]
    return one


cdef inline uint64_t sign_extended(uint64_t bits, Py_ssize_t width) noexcept:
    if width == 4:
        return <uint64_t> <int64_t> <int32_t> bits
    if width == 2:
        return <uint64_t> <int64_t> <int16_t> bits
    return <uint64_t> <int64_t> <int8_t> bits


cdef inline uint8_t* write_digits(uint8_t* out, uint64_t value) noexcept:
    cdef uint8_t[20] digits
    cdef uint8_t* at = digits + 20
    cdef uint64_t rest
    while value >= 100:
        rest = value // 100
        at -= 2
        memcpy(at, _PAIRS + 2 * (value - 100 * rest), 2)
        value = rest
    if value >= 10:
        at -= 2
        memcpy(at, _PAIRS + 2 * value, 2)
    else:
        at -= 1
        at[0] = <uint8_t> (48 + value)
    memcpy(out, at, digits + 20 - at)
    return out + (digits + 20 - at)


cdef inline uint8_t* write_escaped(uint8_t* out, const uint8_t* raw, Py_ssize_t size) noexcept:
    """Write a JSON string, RFC 8259, section 7, as orjson does."""
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t tops = 0x8080808080808080
    cdef uint64_t quotes
    cdef uint64_t slashes
    cdef uint8_t byte
    out[0] = c'"'
    out += 1
    while at < size:
        while size - at >= 8:
            memcpy(&word, raw + at, 8)
            quotes = word ^ ones * 0x22
            slashes = word ^ ones * 0x5C
            # The top bit is set here for each byte below 0x20, quote and backslash. It may be set for other bytes too.
            if ((word - ones * 0x20) | (quotes - ones) | (slashes - ones)) & ~word & tops:
                break
            memcpy(out, raw + at, 8)
            out += 8
            at += 8
        while at < size:
            byte = raw[at]
            at += 1
            if byte >= 0x20 and byte != 0x22 and byte != 0x5C:
                out[0] = byte
                out += 1
                if not at & 7:
                    break  # back to eight bytes at a time
                continue
            out[0] = c"\\"
            if byte == 0x22 or byte == 0x5C:
                out[1] = byte
            elif byte == 0x08:
                out[1] = c"b"
            elif byte == 0x09:
                out[1] = c"t"
            elif byte == 0x0A:
                out[1] = c"n"
            elif byte == 0x0C:
                out[1] = c"f"
            elif byte == 0x0D:
                out[1] = c"r"
            else:
                memcpy(out + 1, b"u00", 3)
                out[4] = _HEX[byte >> 4]
                out[5] = _HEX[byte & 15]
                out += 4
            out += 2
    out[0] = c'"'
    return out + 1


cdef inline uint8_t* write_fixed(uint8_t* out, uint64_t bits, Py_ssize_t width) noexcept:
    cdef Py_ssize_t i
    for i in range(width):
        out[i] = <uint8_t> (bits >> 8 * i)
    return out + width


@cython.cdivision(True)
cdef inline uint8_t* write_moment(uint8_t* out, int64_t value, int64_t per_second) noexcept:
    """Write a google.protobuf.Timestamp with its length."""
    cdef int64_t seconds = value // per_second
    cdef int64_t part = value % per_second
    cdef uint64_t nanos
    cdef uint64_t size
    if part < 0:
        seconds -= 1
        part += per_second
    nanos = <uint64_t> (part * (1_000_000_000 // per_second))
    size = (1 + varint_size(<uint64_t> seconds) if seconds else 0) + (1 + varint_size(nanos) if nanos else 0)
    out[0] = <uint8_t> size
    out += 1
    # Timestamp.seconds = 1 and nanos = 2, each left out when zero.
    if seconds:
        out[0] = 0x08
        out = write_varint(out + 1, <uint64_t> seconds)
    if nanos:
        out[0] = 0x10
        out = write_varint(out + 1, nanos)
    return out
