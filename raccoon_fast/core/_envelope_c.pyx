"""The compiled form of the envelopes: one buffer, written through pointers, with room for heads in front.

    |<- HEADROOM or more ->|<- events ->|<- TAIL ->|
    [ HTTP head or frame header | request head ]   JSON's end

_Block owns the memory and counts the views of it. An envelope changes a block only while no view of it is alive.
Otherwise it first copies what it needs into a new block, and leaves the old one to the views.

Locking. An envelope, with its block and everything it knows about types, belongs to the owner of its batch: either an
accumulator, which writes to it in critical sections, or one thread. Only the owner makes new views, but a view may end
in any thread, so a critical section of the block guards the count of views. For a type that is exactly a str, `write`
and `size_of` run no Python code, unless they refuse the type; they do that before they change anything.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_FULL_RO,
    PyBUF_ND,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from raccoon_fast.core._base64 cimport fill_base64_pairs, has_avx2
from raccoon_fast.core._bytes cimport toggle_mask, varint_size, write_varint
from raccoon_fast.core._event_bytes cimport (
    _AROUND,
    _SHORT_FIELD,
    inner_size,
    json_size,
    write_data,
    write_json,
    write_short,
)

from raccoon_fast.core._memory cimport (
    PAGE,
    _give_back,
    _keep_up_to,
    _surplus,
    discard,
    free_block,
    new_block,
    resize_block,
)

from raccoon_fast.core._request import (
    HEADROOM,
    MAX_EVENTS_BYTES,
    MAX_FRAME_HEADER_BYTES,
    check_capacity,
    check_events_size,
    encode_json_head,
    encode_proto_head,
    encode_websocket_header,
    json_head_bound,
    proto_head_bound,
    refuse_data,
    refuse_type,
)

__all__ = ["JsonEnvelope", "ProtoEnvelope"]

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_CheckExact(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void* PyUnicode_1BYTE_DATA(object text)
    # These use borrowed references.
    Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PyList_GET_SIZE(object many)
    PyObject* PyList_GET_ITEM(object many, Py_ssize_t at)
    bint PyTuple_Check(PyObject* event)
    bint PyTuple_CheckExact(object event)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* event)
    PyObject* PyTuple_GET_ITEM(PyObject* event, Py_ssize_t at)

cdef Py_ssize_t _HEADROOM = HEADROOM
cdef Py_ssize_t _FRAME_HEADER = MAX_FRAME_HEADER_BYTES
cdef int64_t _MAX_EVENTS = MAX_EVENTS_BYTES
# Bytes kept free after the events, for the end of the JSON object.
cdef Py_ssize_t _TAIL = 2
# The most types whose form an envelope knows. An application has few types, and many would not stay in the CPU's cache.
cdef Py_ssize_t _MAX_KNOWN = 32
# In a crowded buffer, an envelope with at most this many bytes of events frees most of the room in front of them. The
# remainder is enough for most heads; a longer head moves the events.
cdef Py_ssize_t _SMALL = 8192
cdef Py_ssize_t _LEAN_HEADROOM = 72
cdef Py_ssize_t _LEAN_HEADROOM_JSON = 144
# What `add_run` appends by itself: events with a type and data up to this size, while an envelope has at most so much.
cdef Py_ssize_t _USUAL_BYTES = 1 << 20
cdef Py_ssize_t _FAR_FROM_FULL = 1 << 28
# Approximate bytes of memory: of a dict of event types; of an entry in it with its count, besides the type's text; of a
# known type.
cdef int64_t _DICT_BYTES = 184
cdef int64_t _ENTRY_BYTES = 112
cdef int64_t _KNOWN_BYTES = 240

# The longest guid whose length is a varint of one byte; and the room for it with tags and the time.
cdef enum:
    _SHORT_GUID = 127
    _SHORT_HEAD = _SHORT_GUID + 32

cdef uint8_t[8192] _BASE64_PAIRS
fill_base64_pairs(_BASE64_PAIRS)
cdef bint _HAS_AVX2 = has_avx2()


@cython.final
cdef class _Block:
    """Owns one allocation."""

    def __cinit__(self, Py_ssize_t size):
        self.data = new_block(&size, &self.touched)
        if self.data is NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        free_block(self.data, self.size, self.touched if self.is_measured or self.touched < 0 else self.size)

    cdef int resize(self, Py_ssize_t size) except -1:
        """Change the size of the allocation to this or more. No view may be alive."""
        cdef uint8_t* data = resize_block(self.data, self.size, &size, &self.touched)
        if data is NULL:
            raise MemoryError
        self.data = data
        self.size = size
        self.is_measured = False
        return 0

    cdef void measure(self, Py_ssize_t used) noexcept:
        """Note that its content has never been longer than `used` bytes since it was made or resized."""
        if self.touched >= 0:
            self.touched = max(self.touched, used)
            self.is_measured = True

    cdef inline Py_ssize_t memory(self) noexcept:
        """Return how many bytes of memory it takes; pages of a mapping that were never used take none."""
        return min(self.size, (self.touched + PAGE - 1) & ~(PAGE - 1)) if self.is_measured else self.size


@cython.final
@cython.freelist(16)
@cython.no_gc
cdef class _Window:
    """Exports part of a block, read-only."""

    cdef _Block block
    cdef Py_ssize_t start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        # The same as PyBuffer_FillInfo, which would overwrite, and so leak, the reference to None that Cython puts into
        # obj.
        if flags & PyBUF_WRITABLE:
            raise BufferError("Object is not writable.")
        view.buf = self.block.data + self.start
        view.obj = self
        view.len = self.size
        view.itemsize = 1
        view.readonly = 1
        view.ndim = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"B"
        view.shape = &view.len if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL
        with cython.critical_section(self.block):
            self.block.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        with cython.critical_section(self.block):
            self.block.exports -= 1


@cython.final
@cython.no_gc
cdef class _Type:
    """What an envelope knows about an event type."""


# The value of `last` in an envelope that knows no type.
cdef _Type _UNKNOWN = _Type.__new__(_Type)
_UNKNOWN.name = object()
_UNKNOWN.size = -1


cdef class _Envelope:
    def __cinit__(self, capacity=4096):
        if not PyLong_CheckExact(capacity) or not 0 <= capacity <= 65536:
            check_capacity(capacity)
        self.block = _Block(_HEADROOM + <Py_ssize_t> capacity + _TAIL)
        self.head = self.start = self.stop = _HEADROOM
        self.known = {}
        self.last = _UNKNOWN
        self.counts = {}

    @property
    def count(self):
        """Events in the envelope."""
        return self.events

    @property
    def nbytes(self):
        """Bytes of `payload()` as last stamped; before the first stamp, bytes of the events (and of JSON's end)."""
        return self.stop - self.head + self.tail_size

    @property
    def exported(self):
        """Whether views of this envelope's memory are alive. If so, `clear` and `stamp` move it to other memory."""
        return self.block.exports > 0

    def nbytes_for(self, req_guid):
        """Return the most bytes that `payload()` can have after a stamp with this guid, whatever the time."""
        return self.head_bound(req_guid) + self.stop - self.start + self.tail_size

    def add_many(self, events):
        """Append events, each as `add` does. The first wrong event raises; the events before it stay."""
        cdef Py_ssize_t before = self.events
        cdef Py_ssize_t at = 0
        if PyList_CheckExact(events):
            # Read by index, because the list may change meanwhile. The `for` loop below does the same.
            while True:
                at = self.write_run(<list> events, at, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX)
                if at >= PyList_GET_SIZE(events):
                    break
                self.append_event((<list> events)[at])
                at += 1
        else:
            for event in events:
                self.append_event(event)
        return self.events - before

    def add_run(self, list events, Py_ssize_t at):
        """Append events from index `at` on while they are usual. Returns the index of the first one left."""
        cdef object event
        with cython.critical_section(events):
            while True:
                at = self.write_run(events, at, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX)
                if at >= PyList_GET_SIZE(events):
                    return at
                event = events[at]
                if not is_usual(event) or self.stop - self.start > _FAR_FROM_FULL:
                    return at
                self.append((<tuple> event)[0], (<tuple> event)[1])
                at += 1

    def stamp(self, req_guid, seconds, nanos):
        """Set req_guid and sent_time, replacing those of the previous stamp. Every attempt has its own stamp."""
        cdef bytes head = self.encode_head(req_guid, seconds, nanos)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
        self.own()
        if size + _FRAME_HEADER > self.start:
            self.widen(size + _FRAME_HEADER)
        self.head = self.start - size
        memcpy(self.block.data + self.head, PyBytes_AS_STRING(head), size)

    def payload(self):
        """Return the whole message, read-only: one dimension, format 'B'."""
        self.finish()
        return self.view(self.head)

    def prefixed(self, head):
        """Return `head` and the message in one piece, for an HTTP request."""
        cdef Py_ssize_t size
        if not isinstance(head, bytes):
            raise TypeError(f"head should be bytes, not {type(head).__name__}")
        self.finish()
        size = PyBytes_GET_SIZE(head)
        if size > self.head:
            return b"".join([head, self.view(self.head)])
        self.own()
        memcpy(self.block.data + self.head - size, PyBytes_AS_STRING(head), size)
        return self.view(self.head - size)

    def websocket_frame(self, opcode, key):
        """Return the message as one final, masked client frame (RFC 6455, sections 5.2 and 5.3)."""
        cdef bytes header
        cdef Py_ssize_t size
        self.finish()
        header = frame_header(opcode, key, self.stop - self.head + self.tail_size)
        size = PyBytes_GET_SIZE(header)
        self.own()
        memcpy(&self.mask, PyBytes_AS_STRING(key), 4)
        self.flip()
        memcpy(self.block.data + self.head - size, PyBytes_AS_STRING(header), size)
        return self.view(self.head - size)

    def measure(self, type, size):
        """Return the bytes that an event of `type` with `size` bytes of data takes (in JSON with a comma)."""
        return self.size_of(type, size)

    def body(self):
        """Return a copy of the events in wire format, for `load`. It does not include guid, time and JSON's end."""
        if self.masked:
            self.own()
        return PyBytes_FromStringAndSize(<char*> self.block.data + self.start, self.stop - self.start)

    def load(self, body, count):
        """Replace the events with those of a `body`, and remove the stamp."""
        cdef Py_ssize_t size
        if not isinstance(body, bytes):
            raise TypeError(f"body should be bytes, not {type(body).__name__}")
        size = PyBytes_GET_SIZE(body)
        check_events_size(size)
        self.clear()
        memcpy(self.reserve(size), PyBytes_AS_STRING(body), size)
        self.stop += size
        self.events = count

    def clear(self):
        """Remove all events and the stamp, for reuse."""
        if self.block.exports:
            self.block = _Block(self.block.size)
        self.masked = False
        self.events = 0
        self.head = self.stop = self.start
        self.tally()
        self.counts = {}
        if self.start < _HEADROOM:
            self.widen(_HEADROOM)
            self.head = self.start
        if self.known is None:
            self.known = {}
        elif len(self.known) >= _MAX_KNOWN:
            # Other types may be more frequent now.
            self.known.clear()
            self.last = _UNKNOWN

    cdef head_bound(self, req_guid):
        raise NotImplementedError

    cdef bytes encode_head(self, req_guid, seconds, nanos):
        raise NotImplementedError

    cdef uint64_t size_of(self, object type_, Py_ssize_t size) except 0:
        raise NotImplementedError

    cdef int64_t write(self, object type_, const uint8_t* data, Py_ssize_t size) except -1:
        raise NotImplementedError

    @cython.final
    cdef inline int64_t append(self, object type_, object data) except -1:
        if PyBytes_CheckExact(data):
            return self.write(type_, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.append_buffer(type_, data)

    @cython.final
    cdef int64_t append_buffer(self, object type_, object data) except -1:
        cdef Py_buffer buffer
        take_buffer(data, &buffer)
        try:
            return self.write(type_, <const uint8_t*> buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    @cython.final
    cdef inline int append_event(self, object event) except -1:
        if isinstance(event, tuple) and len(<tuple> event) == 2:
            self.append((<tuple> event)[0], (<tuple> event)[1])
        else:
            type_, data = event
            self.append(type_, data)
        return 0

    @cython.final
    cdef Py_ssize_t write_run(
        self, list events, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most_bytes, Py_ssize_t most_in_all
    ) noexcept:
        """Append events of known types, from index `at` up to, not including, `end`. Returns the index where it ends.

        It stops at an event that may take more than `most_bytes`, or with which all of these may take more than
        `most_in_all`. It may also stop earlier, for example at an unknown type or if the block is full. It runs no
        Python code, and creates and frees no object.
        """
        # Therefore borrowed references are enough.
        cdef _Type known = self.last
        cdef PyObject* name = <PyObject*> known.name
        cdef PyObject* event
        cdef PyObject* data
        cdef const uint8_t* raw
        # The index of the first event, and of the first event since the type changed.
        cdef Py_ssize_t first = at
        cdef Py_ssize_t since = at
        cdef Py_ssize_t size
        cdef Py_ssize_t need
        cdef Py_ssize_t room = min(self.room(), most_in_all)
        cdef bint is_json = self.tail_size > 0
        cdef uint8_t* out = self.block.data + self.stop
        cdef uint8_t* after
        if is_json and not self.events:
            return at  # the first event has no comma before it
        end = min(end, PyList_GET_SIZE(events))
        while at < end:
            event = PyList_GET_ITEM(events, at)
            if not PyTuple_Check(event) or PyTuple_GET_SIZE(event) != 2:
                break
            if PyTuple_GET_ITEM(event, 0) != name:
                if not self.knows(<object> PyTuple_GET_ITEM(event, 0)):
                    break
                known.events += at - since
                since = at
                known = self.last
                name = <PyObject*> known.name
            data = PyTuple_GET_ITEM(event, 1)
            if not PyBytes_CheckExact(<object> data):
                break
            size = PyBytes_GET_SIZE(<object> data)
            if is_json:
                need = <Py_ssize_t> json_size(size, known.form)
            else:
                need = size + _AROUND
            if need > room or need > most_bytes or not (is_json or known.field_size):
                break
            raw = <const uint8_t*> PyBytes_AS_STRING(<object> data)
            if is_json:
                after = write_json(out, 1, known.form, raw, size, _BASE64_PAIRS, _HAS_AVX2)
            else:
                after = write_short(out, known.field, known.field_size, raw, size)
            room -= after - out
            out = after
            at += 1
        known.events += at - since
        self.stop = out - self.block.data
        self.events += at - first
        return at

    @cython.final
    cdef inline Py_ssize_t room(self) noexcept:
        """Return how many bytes can be written without moving anything."""
        return 0 if self.masked or self.block.exports else self.block.size - _TAIL - self.stop

    @cython.final
    cdef inline bint knows(self, object type_) except -1:
        """Return whether a type is known. If it is, it becomes `last`."""
        return type_ is self.last.name or self.remembers(type_)

    @cython.final
    cdef bint remembers(self, object type_) except -1:
        cdef _Type known = self.last
        if not PyUnicode_CheckExact(type_):
            return False
        # Usually it is the last type again, in another str: programs take types out of the data they read.
        if (
            PyUnicode_IS_COMPACT_ASCII(type_)
            and PyUnicode_GET_LENGTH(type_) == known.size
            and memcmp(PyUnicode_1BYTE_DATA(type_), known.text, known.size) == 0
        ):
            return True
        if self.known is None:
            return False
        known = self.known.get(type_)
        if known is None:
            return False
        self.last = known
        return True

    @cython.final
    cdef _Type learn(self, object name):
        """Add a type, which is exactly a str, to the known types and make it `last`. None if too many are known."""
        cdef _Type known
        if self.known is None:  # the envelope is lean, and may share its counts
            self.known = {}
            self.counts = dict(self.counts)
        if len(self.known) >= _MAX_KNOWN:
            return None
        known = _Type.__new__(_Type)
        known.name = name
        known.size = -1
        if PyUnicode_IS_COMPACT_ASCII(name):
            known.text = <const char*> PyUnicode_1BYTE_DATA(name)
            known.size = PyUnicode_GET_LENGTH(name)
        self.known[name] = known
        self.last = known
        return known

    @cython.final
    cdef int count_more(self, object name, Py_ssize_t events) except -1:
        """Add a number of events to the count of a type."""
        self.counts[name] = self.counts.get(name, 0) + events
        return 0

    @cython.final
    cdef dict tally(self):
        """Return the number of events per type, without events whose type is not exactly a str."""
        cdef _Type known
        if self.known is None:
            return self.counts
        for known in self.known.values():
            if known.events:
                self.count_more(known.name, known.events)
                known.events = 0
        return self.counts

    cdef inline object view(self, Py_ssize_t start):
        cdef _Window window = _Window.__new__(_Window)
        window.block = self.block
        window.start = start
        window.size = self.stop + self.tail_size - start
        return PyMemoryView_FromObject(window)

    cdef int finish(self) except -1:
        """Complete the message and unmask it."""
        if self.head == self.start:
            raise RuntimeError("the envelope has no req_guid and time yet: stamp it first")
        if self.masked:
            self.own()
        if self.tail_size and not self.block.exports:
            # If there are views, the end is there already: only finished messages have views, and the first event
            # added after that moves the envelope.
            memcpy(self.block.data + self.stop, b"]}", 2)
        return 0

    cdef int own(self) except -1:
        """Make the bytes changeable: unmask them, and move them if views show them."""
        cdef _Block block
        if self.block.exports:
            block = _Block(self.block.size)
            memcpy(block.data + self.head, self.block.data + self.head, self.stop - self.head + self.tail_size)
            self.block = block
        if self.masked:
            self.flip()
        return 0

    cdef void flip(self) noexcept:
        """Mask or unmask the message."""
        toggle_mask(self.block.data + self.head, self.stop - self.head + self.tail_size, self.mask)
        self.masked = not self.masked

    cdef int trim(self, bint tightly) except -1:
        """Free memory: what an earlier, larger request has left; if `tightly`, everything that is not needed."""
        cdef Py_ssize_t size = self.stop + _TAIL
        if self.block.exports or self.masked:
            return 0
        if tightly and self.stop - self.start <= _SMALL:
            self.make_lean()
            return 0
        if self.block.size > 2 * size or (tightly and self.block.touched < 0 and self.block.size - size > size >> 4):
            self.block.resize(size)
        self.block.measure(size)
        if tightly and self.block.touched - size > size >> 4:
            self.block.touched = discard(self.block.data, size, self.block.touched)
        return 0

    cdef int make_lean(self) except -1:
        """Keep the events and little else: little room in front, and nothing that helps to add more events.

        Does nothing if the events were stamped.
        """
        cdef Py_ssize_t headroom = _LEAN_HEADROOM_JSON if self.tail_size else _LEAN_HEADROOM
        cdef Py_ssize_t size = self.stop - self.start
        cdef _Block block
        if self.head < self.start or self.start < headroom:
            return 0
        # In a new block: Python's own allocator handles small blocks, and so leaves no gaps where large blocks were.
        block = _Block(headroom + size + _TAIL)
        memcpy(block.data + headroom, self.block.data + self.start, size)
        self.block = block
        self.head = self.start = headroom
        self.stop = headroom + size
        self.tally()
        self.last = _UNKNOWN
        self.known = None
        return 0

    @cython.final
    cdef int64_t footprint(self) except -1:
        """Return the approximate bytes of memory that the events use, including their types."""
        cdef int64_t nbytes = self.block.memory() + _DICT_BYTES
        if self.known is not None:
            nbytes += _KNOWN_BYTES * len(self.known)
        for name in self.tally():
            nbytes += _ENTRY_BYTES + PyUnicode_GET_LENGTH(name) * (1 if PyUnicode_IS_COMPACT_ASCII(name) else 4)
        return nbytes

    cdef int widen(self, Py_ssize_t headroom) except -1:
        """Move the events back to get `headroom` bytes in front of them. The old head is lost."""
        cdef Py_ssize_t size = self.stop - self.start
        self.block.resize(headroom + size + _TAIL if headroom + size + _TAIL > self.block.size else self.block.size)
        memmove(self.block.data + headroom, self.block.data + self.start, size)
        self.start = headroom
        self.stop = headroom + size
        return 0

    @cython.final
    cdef inline uint8_t* reserve(self, uint64_t size) except NULL:
        """Return where the next `size` bytes of events go. Makes room, and makes the bytes changeable, if necessary."""
        if size <= <uint64_t> (self.block.size - _TAIL - self.stop) and not (self.masked or self.block.exports):
            return self.block.data + self.stop
        return self.make_room(size)

    cdef uint8_t* make_room(self, uint64_t size) except NULL:
        cdef int64_t need = <int64_t> (self.stop - self.start) + <int64_t> size
        cdef int64_t room
        if need > _MAX_EVENTS:
            check_events_size(need)
        if self.masked or self.block.exports:
            self.own()
        room = self.block.size - _TAIL - self.start
        if need > room:
            # Doubling keeps the cost of growth per event constant. The limit keeps the sum within Py_ssize_t.
            room = min(max(room * 2, need), _MAX_EVENTS)
            self.block.resize(self.start + <Py_ssize_t> room + _TAIL)
        return self.block.data + self.stop


@cython.final
cdef class ProtoEnvelope(_Envelope):
    """One SendEventRequest in protobuf's wire format. The contract is in the pure form."""

    # Defined in each class, because CPython is slower at calling methods of a base class.
    def add(self, type, data):
        """Append one event; the data is copied."""
        self.append(type, data)

    cdef uint64_t size_of(self, object type_, Py_ssize_t size) except 0:
        cdef Py_ssize_t text_size
        cdef uint64_t inner
        if not PyUnicode_Check(type_):
            refuse_type(type_)
        utf8(type_, &text_size)
        if text_size == 0:
            refuse_type(type_)
        inner = inner_size(text_size, size)
        return 1 + varint_size(inner) + inner

    cdef int64_t write(self, object type_, const uint8_t* data, Py_ssize_t size) except -1:
        cdef uint8_t* out
        cdef Py_ssize_t whole
        cdef bint is_known = self.knows(type_)
        if is_known and self.last.field_size and self.room() - _AROUND >= size:
            out = self.block.data + self.stop
            whole = write_short(out, self.last.field, self.last.field_size, data, size) - out
            self.stop += whole
            self.events += 1
            self.last.events += 1
            return whole
        return self.write_any(type_, data, size, is_known)

    cdef int64_t write_any(self, object type_, const uint8_t* data, Py_ssize_t size, bint is_known) except -1:
        cdef _Type known
        cdef Py_ssize_t text_size
        cdef const char* text
        cdef uint64_t inner
        cdef uint64_t whole
        cdef uint8_t* out
        if not PyUnicode_Check(type_):
            refuse_type(type_)
        text = utf8(type_, &text_size)
        if text_size == 0:
            refuse_type(type_)
        inner = inner_size(text_size, size)
        whole = 1 + varint_size(inner) + inner
        out = write_data(self.reserve(whole), inner, data, size)
        out[0] = 0x12
        memcpy(write_varint(out + 1, text_size), text, text_size)
        if is_known:
            self.last.events += 1
        elif PyUnicode_CheckExact(type_):
            known = self.learn(type_)
            if known is None:
                self.count_more(type_, 1)
            else:
                known.events = 1
                if text_size <= _SHORT_FIELD - 2:
                    known.field_size = text_size + 2
                    memcpy(known.field, out, known.field_size)
        self.stop += <Py_ssize_t> whole
        self.events += 1
        return <int64_t> whole

    cdef head_bound(self, req_guid):
        cdef Py_ssize_t size
        # Usual guids only. The pure form handles all others, and all errors.
        if PyUnicode_CheckExact(req_guid) and PyUnicode_IS_COMPACT_ASCII(req_guid):
            size = PyUnicode_GET_LENGTH(req_guid)
            if 0 < size <= _SHORT_GUID:
                return 2 + size + 19
        return proto_head_bound(req_guid)

    cdef bytes encode_head(self, req_guid, seconds, nanos):
        cdef uint8_t[_SHORT_HEAD] head
        cdef uint8_t* out = head
        cdef Py_ssize_t text_size
        cdef const char* text
        cdef int64_t unix_s
        cdef int64_t unix_ns
        # Usual guids and times only. The pure form handles all others, and all errors.
        if not (PyUnicode_CheckExact(req_guid) and PyLong_CheckExact(seconds) and PyLong_CheckExact(nanos)):
            return encode_proto_head(req_guid, seconds, nanos)
        text = utf8(req_guid, &text_size)
        if not (0 < text_size <= _SHORT_GUID and 0 < seconds <= 0xFFFFFFFF and 0 < nanos <= 999_999_999):
            return encode_proto_head(req_guid, seconds, nanos)
        unix_s = seconds
        unix_ns = nanos
        # SendEventRequest.req_guid = 1 and sent_time = 2; Timestamp.seconds = 1 and nanos = 2.
        out[0] = 0x0A
        out[1] = <uint8_t> text_size
        memcpy(out + 2, text, text_size)
        out += 2 + text_size
        out[0] = 0x12
        out[1] = <uint8_t> (2 + varint_size(unix_s) + varint_size(unix_ns))
        out[2] = 0x08
        out = write_varint(out + 3, unix_s)
        out[0] = 0x10
        out = write_varint(out + 1, unix_ns)
        return PyBytes_FromStringAndSize(<char*> head, out - head)


@cython.final
cdef class JsonEnvelope(_Envelope):
    """One SendEventRequest in JSON. The contract is in the pure form."""

    def __cinit__(self, capacity=4096):
        self.tail_size = _TAIL

    def add(self, type, data):
        """Append one event; the data is copied."""
        self.append(type, data)

    cdef uint64_t size_of(self, object type_, Py_ssize_t size) except 0:
        return json_size(size, self.form_of(type_))

    cdef int64_t write(self, object type_, const uint8_t* data, Py_ssize_t size) except -1:
        cdef bytes form = self.form_of(type_)
        cdef bint comma = self.events > 0
        cdef uint64_t whole = json_size(size, form)
        cdef uint8_t* out = self.reserve(whole if comma else whole - 1)
        self.stop = write_json(out, comma, form, data, size, _BASE64_PAIRS, _HAS_AVX2) - self.block.data
        self.events += 1
        if self.knows(type_):
            self.last.events += 1
        elif PyUnicode_CheckExact(type_):
            self.count_more(type_, 1)
        return <int64_t> whole

    cdef inline bytes form_of(self, object type_):
        """Return the text after the data of an event. Adds the type to the known types, if possible."""
        return self.last.form if self.knows(type_) else self.make_form(type_)

    cdef bytes make_form(self, object type_):
        cdef _Type known
        cdef bytes form
        cdef Py_ssize_t size
        cdef const char* text
        if not PyUnicode_Check(type_):
            refuse_type(type_)
        text = utf8(type_, &size)
        if size == 0:
            refuse_type(type_)
        form = json_form(<const uint8_t*> text, size)
        if PyUnicode_CheckExact(type_):
            known = self.learn(type_)
            if known is not None:
                known.form = form
        return form

    cdef head_bound(self, req_guid):
        return json_head_bound(req_guid)

    cdef bytes encode_head(self, req_guid, seconds, nanos):
        return encode_json_head(req_guid, seconds, nanos)


cdef inline bint is_usual(object event) noexcept:
    """Return whether an event is a tuple of ASCII text and bytes, none of them large: appending it runs no code."""
    cdef object name
    cdef object data
    if not PyTuple_CheckExact(event) or PyTuple_GET_SIZE(<PyObject*> event) != 2:
        return False
    name = (<tuple> event)[0]
    data = (<tuple> event)[1]
    if not (PyUnicode_CheckExact(name) and PyUnicode_IS_COMPACT_ASCII(name) and PyBytes_CheckExact(data)):
        return False
    return 0 < PyUnicode_GET_LENGTH(name) <= _USUAL_BYTES and PyBytes_GET_SIZE(data) <= _USUAL_BYTES


cdef inline const char* utf8(object text, Py_ssize_t* size) except NULL:
    """Return the text as UTF-8, which stays valid as long as the text exists."""
    if PyUnicode_IS_COMPACT_ASCII(text):
        size[0] = PyUnicode_GET_LENGTH(text)
        return <const char*> PyUnicode_1BYTE_DATA(text)
    return PyUnicode_AsUTF8AndSize(text, size)


cdef bytes json_form(const uint8_t* text, Py_ssize_t size):
    """Return the text after the data of an event whose type is this UTF-8."""
    cdef Py_ssize_t whole = 12 + size
    cdef Py_ssize_t i
    cdef bytes form
    cdef uint8_t* out
    for i in range(size):
        whole += escaped_size(text[i]) - 1
    form = PyBytes_FromStringAndSize(NULL, whole)
    out = <uint8_t*> PyBytes_AS_STRING(form)
    memcpy(out, b'","type":"', 10)
    out += 10
    for i in range(size):
        out = write_escaped(out, text[i])
    memcpy(out, b'"}', 2)
    return form


cdef inline Py_ssize_t escaped_size(uint8_t byte) noexcept:
    """Return how many bytes `write_escaped` writes."""
    if byte == c'"' or byte == c"\\" or byte == 8 or byte == 9 or byte == 10 or byte == 12 or byte == 13:
        return 2
    return 1 if byte >= 0x20 else 6


cdef inline uint8_t* write_escaped(uint8_t* out, uint8_t byte) noexcept:
    """Write a byte of a JSON string (RFC 8259, section 7), and return where it ends."""
    cdef Py_ssize_t size = escaped_size(byte)
    if size == 1:
        out[0] = byte
    elif size == 2:
        out[0] = c"\\"
        # From 8 on, the escapes are b, t, n, an unused one, f and r.
        out[1] = byte if byte > 13 else b"btn-fr"[byte - 8]
    else:
        memcpy(out, b"\\u00", 4)
        out[4] = c"0" + (byte >> 4)
        out[5] = b"0123456789abcdef"[byte & 15]
    return out + size


cdef bytes frame_header(opcode, key, Py_ssize_t length):
    """The same as encode_websocket_header, which it calls for invalid arguments to raise the error."""
    cdef uint8_t[14] header
    cdef int size = 2
    cdef int shift
    if not (PyBytes_CheckExact(key) and PyBytes_GET_SIZE(key) == 4 and (opcode == 1 or opcode == 2)):
        return encode_websocket_header(opcode, key, length)
    header[0] = <uint8_t> (0x80 | <int> opcode)
    if length < 126:
        header[1] = <uint8_t> (0x80 | length)
    else:
        header[1] = 0xFE if length < 1 << 16 else 0xFF
        for shift in range(8 if length < 1 << 16 else 56, -1, -8):
            header[size] = <uint8_t> (length >> shift)
            size += 1
    memcpy(&header[size], PyBytes_AS_STRING(key), 4)
    return PyBytes_FromStringAndSize(<char*> header, size + 4)


cdef int64_t surplus() noexcept nogil:
    return _surplus()


cdef void give_back(int64_t nbytes) noexcept nogil:
    _give_back(nbytes)


cdef void keep_up_to(int64_t nbytes) noexcept nogil:
    _keep_up_to(nbytes)


cdef int take_buffer(object data, Py_buffer* buffer) except -1:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        refuse_data(data)
    PyObject_GetBuffer(data, buffer, PyBUF_FULL_RO)
    if buffer.ndim != 1 or not PyBuffer_IsContiguous(buffer, b"C"):
        PyBuffer_Release(buffer)
        refuse_data(data)
    return 0
