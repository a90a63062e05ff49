"""The pure-Python form of the envelopes: a list of the events' pieces, joined when a message is read."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from raccoon_fast.core._request import (
    MAX_EVENTS_BYTES,
    check_capacity,
    check_events_size,
    encode_json_head,
    encode_proto_head,
    encode_websocket_header,
    json_head_bound,
    json_text,
    proto_head_bound,
    refuse_data,
    refuse_type,
)
from raccoon_fast.core._wire_py import encode_varint

if TYPE_CHECKING:
    from typing_extensions import Self

b64encode: Callable[[bytes], bytes]
try:
    from pybase64 import b64encode
except ImportError:
    b64encode = partial(b2a_base64, newline=False)

__all__ = ["JsonEnvelope", "ProtoEnvelope"]

# The most forms to keep, of event types and of lengths. An application has few of either.
_MAX_FORMS = 256


class _Envelope:
    """One SendEventRequest, kept in wire format from the first event on.

    Add events, stamp the request with its guid and the time, and read the message in the shape that the transport
    needs. Not thread-safe.

    A returned view never changes: before a change to bytes that it shows, the envelope moves to other memory. So drop
    views as soon as they are written; otherwise the move costs a copy.

    Args:
        capacity: Bytes of wire format to allocate at once. More memory is allocated as needed.
    """

    __slots__ = ("_chunks", "_count", "_forms", "_head", "_size")

    _tail = b""
    # Bytes by which the first event is shorter than `measure` says.
    _less = 0
    _forms: dict[str, Any]

    def __init__(self, capacity: int = 4096) -> None:
        check_capacity(capacity)
        self._chunks: list[bytes] = []
        self._count = 0
        self._size = 0
        self._head: bytes | None = None

    @property
    def count(self) -> int:
        """Events in the envelope."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of `payload()` as last stamped; before the first stamp, bytes of the events (and of JSON's end)."""
        return len(self._head or b"") + self._size + len(self._tail)

    @property
    def exported(self) -> bool:
        """Whether views of this envelope's memory are alive. If so, `clear` and `stamp` move it to other memory."""
        return False

    def nbytes_for(self, req_guid: str) -> int:
        """Return the most bytes that `payload()` can have after a stamp with this guid, whatever the time.

        Raises:
            TypeError, ValueError: As in `stamp`.
        """
        return self._head_bound(req_guid) + self._size + len(self._tail)

    def stamp(self, req_guid: str, seconds: int, nanos: int) -> None:
        """Set req_guid and sent_time, replacing those of the previous stamp. Every attempt has its own stamp.

        Args:
            req_guid: At most `MAX_GUID_BYTES` of UTF-8.
            seconds: UNIX time in seconds, in the years 1 to 9999.
            nanos: From 0 to 999,999,999.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument is out of range. The envelope stays as it was.
        """
        self._head = self._encode_head(req_guid, seconds, nanos)

    def payload(self) -> memoryview:
        """Return the whole message, read-only: one dimension, format 'B'.

        Raises:
            RuntimeError: The envelope was never stamped.
        """
        return memoryview(b"".join(self._pieces()))

    def prefixed(self, head: bytes) -> bytes | memoryview:
        """Return `head` and the message in one piece, for an HTTP request.

        Raises:
            RuntimeError: The envelope was never stamped.
            TypeError: `head` is not bytes.
        """
        if not isinstance(head, bytes):
            raise TypeError(f"head should be bytes, not {type(head).__name__}")
        return b"".join([head, *self._pieces()])

    def websocket_frame(self, opcode: int, key: bytes) -> bytes | memoryview:
        """Return the message as one final, masked client frame (RFC 6455, sections 5.2 and 5.3).

        Args:
            opcode: 1 (text) or 2 (binary).
            key: The frame's masking key: 4 bytes, unpredictable, never used before.

        Raises:
            RuntimeError: The envelope was never stamped.
            TypeError, ValueError: An argument is invalid.
        """
        message = b"".join(self._pieces())
        return encode_websocket_header(opcode, key, len(message)) + _masker()(message, key)

    def add_run(self, events: list[tuple[str, bytes]], at: int) -> int:
        """Append events as `add` does, from index `at` on, as far as that is faster than one by one.

        It stops at the latest at an event that `add` would refuse, or that is not a tuple of exactly a str and bytes.

        Args:
            events: The events.
            at: The index of the first.

        Returns:
            The index of the first event that was not appended; `at` if none was.

        Raises:
            MemoryError: The events before it stay.
        """
        return at

    def measure(self, type: str, size: int) -> int:  # noqa: A002 - the proto field's name
        """Return the bytes that an event of `type` with `size` bytes of data takes (in JSON with a comma).

        Raises:
            TypeError, ValueError: The type is invalid, as in `add`.
        """
        raise NotImplementedError

    def fill(self, events: Sequence[tuple[str, bytes, int]], nbytes: int) -> None:
        """Replace the events, and remove the stamp. Faster than `add_many`, and only for the pure-Python accumulator.

        Args:
            events: One or more events, each a type that is exactly a str, data that is exactly bytes, and any number.
            nbytes: The sum of what `measure` returns for them.

        Raises:
            MessageTooLargeError: As in `add`. The envelope stays as it was.
        """
        check_events_size(nbytes)
        self._chunks, self._size = self._encode(events), nbytes - self._less
        self._count, self._head = len(events), None

    def lean(self, events: Sequence[tuple[str, bytes, int]], nbytes: int) -> Self:
        """Return another envelope with these events, as lean as after `make_lean`. Otherwise like `fill`."""
        other = self.__class__.__new__(self.__class__)
        other._forms = self._forms  # noqa: SLF001 - what `_encode` looks up
        other.fill(events, nbytes)
        other.make_lean()
        return other

    def body(self) -> bytes:
        """Return a copy of the events in wire format, for `load`. It does not include guid, time and JSON's end."""
        return b"".join(self._chunks)

    def load(self, body: bytes, count: int) -> None:
        """Replace the events with those of a `body`, and remove the stamp.

        Args:
            body: The `body()` of an envelope with the same wire format.
            count: The number of events in it.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"body should be bytes, not {body.__class__.__name__}")
        check_events_size(len(body))
        self.clear()
        self._chunks.append(body)
        self._size = len(body)
        self._count = count

    def clear(self) -> None:
        """Remove all events and the stamp, for reuse."""
        self._chunks = []
        self._count = 0
        self._size = 0
        self._head = None

    def make_lean(self) -> None:
        """Join the events into one piece, and drop everything that helps to add more."""
        self._chunks = [b"".join(self._chunks)]
        self._forms = {}

    def _pieces(self) -> list[bytes]:
        if self._head is None:
            raise RuntimeError("the envelope has no req_guid and time yet: stamp it first")
        return [self._head, *self._chunks, self._tail]

    def _encode(self, events: Iterable[tuple[str, bytes, int]]) -> list[bytes]:
        """Return the pieces of the events in wire format."""
        raise NotImplementedError

    def _head_bound(self, req_guid: str) -> int:
        raise NotImplementedError

    def _encode_head(self, req_guid: str, seconds: int, nanos: int) -> bytes:
        raise NotImplementedError


class ProtoEnvelope(_Envelope):
    __doc__ = _Envelope.__doc__

    __slots__ = ()

    def __init__(self, capacity: int = 4096) -> None:
        super().__init__(capacity)
        # For each type: the bytes after the data, and for each length of data the bytes in front of it.
        self._forms: dict[str, tuple[bytes, dict[int, bytes]]] = {}

    def add(self, type: str, data: bytes | bytearray | memoryview) -> None:  # noqa: A002 - the proto field's name
        """Append one event; the data is copied.

        Args:
            type: The proto field Event.type, not empty.
            data: The proto field Event.event_bytes. A memoryview must have one dimension and be contiguous.

        Raises:
            TypeError, ValueError: An argument is invalid. The envelope stays as it was.
            MessageTooLargeError: The events would be over `MAX_EVENTS_BYTES`. The envelope stays as it was.
        """
        if data.__class__ is not bytes:
            data = own_data(data)
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        tail, heads = self._forms.get(type) or self._learn(type)
        size = len(data)
        head = heads.get(size) or _learn_head(heads, size, tail)
        total = self._size + len(head) + size + len(tail)
        if total > MAX_EVENTS_BYTES:
            check_events_size(total)
        self._chunks += (head, data, tail)
        self._size = total
        self._count += 1

    def add_many(self, events: Iterable[tuple[str, bytes]]) -> int:
        """Append events, each as `add` does, but faster than one by one.

        Returns:
            The number of events appended.

        Raises:
            TypeError, ValueError, MessageTooLargeError: As in `add`, at the first wrong event. The events before it
                stay. The same holds for an exception that iterating over `events` raises.
        """
        before = self._count
        forms = self._forms
        for type_, data in events:
            if data.__class__ is not bytes:
                data = own_data(data)
            if type_.__class__ is not str:
                type_ = plain_type(type_)
            tail, heads = forms.get(type_) or self._learn(type_)
            size = len(data)
            head = heads.get(size) or _learn_head(heads, size, tail)
            total = self._size + len(head) + size + len(tail)
            if total > MAX_EVENTS_BYTES:
                check_events_size(total)
            self._chunks += (head, data, tail)
            self._size = total
            self._count += 1
        return self._count - before

    def measure(self, type: str, size: int) -> int:  # noqa: A002 - as in the base
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        tail, heads = self._forms.get(type) or self._learn(type)
        return len(heads.get(size) or _learn_head(heads, size, tail)) + size + len(tail)

    def _learn(self, type_: str) -> tuple[bytes, dict[int, bytes]]:
        text = type_.encode()
        if not text:
            refuse_type(type_)
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        form = self._forms[type_] = (b"\x12" + encode_varint(len(text)) + text, {})
        return form

    def _encode(self, events: Iterable[tuple[str, bytes, int]]) -> list[bytes]:
        forms = self._forms
        chunks: list[bytes] = []
        last_type = ""
        for type_, data, _ in events:
            if type_ is not last_type:
                tail, heads = forms.get(type_) or self._learn(type_)
                last_type = type_
            size = len(data)
            chunks += (heads.get(size) or _learn_head(heads, size, tail), data, tail)
        return chunks

    def _head_bound(self, req_guid: str) -> int:
        return proto_head_bound(req_guid)

    def _encode_head(self, req_guid: str, seconds: int, nanos: int) -> bytes:
        return encode_proto_head(req_guid, seconds, nanos)


class JsonEnvelope(_Envelope):
    __doc__ = _Envelope.__doc__

    __slots__ = ()

    _tail = b"]}"
    _less = 1

    def __init__(self, capacity: int = 4096) -> None:
        super().__init__(capacity)
        # For each type: the bytes after the data.
        self._forms: dict[str, bytes] = {}

    def add(self, type: str, data: bytes | bytearray | memoryview) -> None:  # noqa: A002 - the proto field's name
        """Append one event, with its data as base64. Otherwise the same as `ProtoEnvelope.add`."""
        if data.__class__ is not bytes:
            data = own_data(data)
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        tail = self._forms.get(type) or self._learn(type)
        head = b',{"event_bytes":"' if self._count else b'{"event_bytes":"'
        total = self._size + len(head) + (len(data) + 2) // 3 * 4 + len(tail)
        if total > MAX_EVENTS_BYTES:
            check_events_size(total)
        self._chunks += (head, b64encode(data), tail)
        self._size = total
        self._count += 1

    def add_many(self, events: Iterable[tuple[str, bytes]]) -> int:
        """Append events, each as `add` does. Otherwise the same as `ProtoEnvelope.add_many`."""
        before = self._count
        for type_, data in events:
            self.add(type_, data)
        return self._count - before

    def measure(self, type: str, size: int) -> int:  # noqa: A002 - as in the base
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        return 17 + (size + 2) // 3 * 4 + len(self._forms.get(type) or self._learn(type))

    def _learn(self, type_: str) -> bytes:
        if not type_:
            refuse_type(type_)
        type_.encode()
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        form = self._forms[type_] = b'","type":' + json_text(type_) + b"}"
        return form

    def _encode(self, events: Iterable[tuple[str, bytes, int]]) -> list[bytes]:
        forms = self._forms
        chunks: list[bytes] = []
        head = b'{"event_bytes":"'
        for type_, data, _ in events:
            chunks += (head, b64encode(data), forms.get(type_) or self._learn(type_))
            head = b',{"event_bytes":"'
        return chunks

    def _head_bound(self, req_guid: str) -> int:
        return json_head_bound(req_guid)

    def _encode_head(self, req_guid: str, seconds: int, nanos: int) -> bytes:
        return encode_json_head(req_guid, seconds, nanos)


def _learn_head(heads: dict[int, bytes], size: int, tail: bytes) -> bytes:
    data_head = b"\x0a" + encode_varint(size) if size else b""
    head = b"\x1a" + encode_varint(len(data_head) + size + len(tail)) + data_head
    if len(heads) >= _MAX_FORMS:
        heads.clear()
    heads[size] = head
    return head


def plain_type(type_: object) -> str:
    if not isinstance(type_, str):
        refuse_type(type_)
    return str.__str__(type_)


def own_data(data: object) -> bytes:
    """Return a copy of an event's data as exactly bytes, or raise if it cannot be data."""
    if isinstance(data, memoryview) and not (data.ndim == 1 and data.c_contiguous):
        refuse_data(data)
    if not isinstance(data, bytes | bytearray | memoryview):
        refuse_data(data)
    with memoryview(data) as view:
        check_events_size(view.nbytes)
        return view.tobytes()


@cache
def _masker() -> Callable[[bytes, bytes], bytes]:
    # Imported only when there is a frame to mask. The C form is a hundred times faster than Python's integers.
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        from websockets.utils import apply_mask
    return apply_mask
