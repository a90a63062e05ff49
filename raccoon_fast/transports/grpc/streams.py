"""One exchange on an HTTP/2 connection: the unwritten rest of its request, and its answer so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.errors import ProtocolError
from raccoon_fast.transports.base import MAX_ANSWER_BYTES
from raccoon_fast.transports.grpc import frames as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.errors import RaccoonError
    from raccoon_fast.transports.base import Request
    from raccoon_fast.transports.grpc.frames import Fields

__all__ = ["HTTP2Answer", "HTTP2Stream"]


_WITHOUT_BODY = (b"204", b"304")


class HTTP2Answer(NamedTuple):
    """A final answer; `written_s` is time.monotonic() of its request's last write."""

    fields: Fields
    body: bytes
    trailers: Fields
    written_s: float


class HTTP2Stream:
    """One exchange. Owned by its connection; other code only passes it to `HTTP2Connection.cancel`.

    Args:
        head: The request's header block.
        message: Its body, not empty.
        began_s: The current loop time.
        deadline_s: Loop time by which the answer must be complete.
        ended: Called once with the outcome.
        request: Its `was_written` and `resends` are kept; None without a request.

    Attributes:
        id: The stream's number; 0 while it waits to be opened.
        window: How many more bytes of the body the server accepts on this stream.
        size: Bytes of the body.
        written_s: time.monotonic() of the last write.
        is_written: Whether its last frame was written: before that a server cannot act on the request.
    """

    __slots__ = (
        "_at", "_body", "_ended", "_fields", "_head", "_message",
        "began_s", "deadline_s", "id", "is_written", "request", "size", "window", "written_s",
    )  # fmt: skip

    def __init__(
        self,
        head: bytes,
        message: bytes | memoryview,
        began_s: float,
        deadline_s: float,
        ended: Callable[[HTTP2Answer | RaccoonError], None],
        request: Request | None = None,
    ) -> None:
        self.request = request
        self.id = 0
        self.window = 0
        self.is_written = False
        self.began_s = began_s
        self.deadline_s = deadline_s
        self._head = head
        self._message = memoryview(message)
        self.size = len(self._message)
        self._at = 0
        self.written_s = 0.0
        self._fields: Fields | None = None
        self._body = bytearray()
        self._ended: Callable[[HTTP2Answer | RaccoonError], None] | None = ended

    @property
    def has_ended(self) -> bool:
        """Whether it was cancelled."""
        return self._ended is None

    @property
    def is_unanswered(self) -> bool:
        """Whether no part of an answer has arrived."""
        return self._fields is None

    def head_frames(self, frame_size: int) -> list[bytes | memoryview]:
        """The HEADERS frame, and CONTINUATION frames for the rest of the block; the caller must write them."""
        request = self.request
        if request is not None:
            request.resends += request.was_written
            request.was_written = True
        block, kind = self._head, wire.HEADERS
        frames: list[bytes | memoryview] = []
        while len(block) > frame_size:
            frames.append(wire.encode_frame(kind, 0, self.id, block[:frame_size]))
            block, kind = block[frame_size:], wire.CONTINUATION
        frames.append(wire.encode_frame(kind, wire.END_HEADERS, self.id, block))
        return frames

    def whole_frames(self, frame_size: int) -> list[bytes | memoryview]:
        """All frames of a request whose body fits into one frame and into the windows; the caller must write them."""
        frames = self.head_frames(frame_size)
        size = self.size
        frames.append(wire.FRAME_HEAD.pack(size >> 16, size & 0xFFFF, wire.DATA, wire.END_STREAM, self.id))
        frames.append(self._message)
        self._at = size
        self.is_written = True
        self.window -= size
        self.written_s = time.monotonic()
        return frames

    def body_frames(self, most: int, frame_size: int, frames: list[bytes | memoryview]) -> int:
        """Append DATA frames, heads and views of the body in turn; returns how many bytes of the body they hold.

        Args:
            most: How many bytes the connection's window or the socket accepts.
            frame_size: The largest frame that the server accepts.
            frames: Appended to.
        """
        at, message = self._at, self._message
        size = len(message)
        stop = min(size, at + min(self.window, most))
        taken = stop - at
        if taken <= 0:
            return 0
        while at < stop:
            end = min(at + frame_size, stop)
            length = end - at
            flags = wire.END_STREAM if end == size else 0
            frames.append(wire.FRAME_HEAD.pack(length >> 16, length & 0xFFFF, wire.DATA, flags, self.id))
            frames.append(message[at:end])
            at = end
        self._at = at
        self.is_written = at == size
        self.window -= taken
        self.written_s = time.monotonic()
        return taken

    def block_received(self, fields: Fields, is_end: bool) -> bool:
        """Take a header block; returns whether the answer is complete.

        Raises:
            FrameError: There should be none.
            MalformedError: The head, the trailers or the length of the body are not valid for an answer.
        """
        has_status = fields[:1] and fields[0][0] == b":status"
        if self._fields is None:
            if not has_status:
                raise wire.MalformedError("an answer without :status")
            if fields[0][1][:1] == b"1":
                if is_end:
                    raise wire.MalformedError("an interim answer that ends the stream")
                return False  # it only announces the answer (RFC 9110 15.2)
            self._fields = fields
            if is_end:
                self._answered(())
        elif not is_end:
            raise wire.FrameError("trailers that do not end the stream")
        elif has_status:
            raise wire.MalformedError("trailers with :status")
        else:
            self._answered(fields)
        return is_end

    def data_received(self, data: bytes, is_end: bool) -> bool:
        """Take a part of the body; returns whether the exchange has ended, successfully or not.

        Raises:
            FrameError: There should be none.
            MalformedError: The body does not have the announced length.
        """
        if self._fields is None:
            raise wire.FrameError("DATA before HEADERS")
        self._body += data
        if len(self._body) > MAX_ANSWER_BYTES:
            self.end(ProtocolError(f"an answer of over {MAX_ANSWER_BYTES} bytes"))
            return True
        if is_end:
            self._answered(())
        return is_end

    def _answered(self, trailers: Fields) -> None:
        assert self._fields is not None
        for name, value in self._fields:
            # A 204 and a 304 have no body, but may announce its length (RFC 9113, 8.1.1).
            if name == b"content-length" and value != b"%d" % len(self._body):
                if self._fields[0][1] in _WITHOUT_BODY:
                    continue
                said = f"content-length {value[:20].decode('latin-1')!r} with a body of {len(self._body)} bytes"
                raise wire.MalformedError(said)
        self.end(HTTP2Answer(self._fields, bytes(self._body), trailers, self.written_s))

    def end(self, outcome: HTTP2Answer | RaccoonError | None) -> None:
        """Report the outcome, if a caller waits for it."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._message = memoryview(b"")  # the request's buffer belongs to its owner again
        if outcome is not None:
            ended(outcome)
