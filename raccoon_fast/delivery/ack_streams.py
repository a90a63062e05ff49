"""The streams that `acks()` returns: acknowledgements as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast import forks
from raccoon_fast.threads import Condition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from raccoon_fast.events import Ack

__all__ = ["AckStream", "AsyncAckStream"]


class AckStream:
    """The acknowledgements of one sync client or Producer, from the subscription on.

    Iterating waits for the next one and ends when the client or the stream is closed, and in a forked child. Nothing
    waits for the reader: if it is `maxsize` behind, the oldest is dropped and counted.

    Attributes:
        dropped: The number dropped because the reader was too slow.
    """

    def __init__(self, maxsize: int, unsubscribe: Callable[[AckStream], None]) -> None:
        self.dropped = 0
        self._acks: deque[Ack] = deque()
        self._maxsize = maxsize
        self._unsubscribe = unsubscribe
        self._changed = Condition()
        self._ended = False

    def publish(self, ack: Ack) -> None:
        """Append one, dropping the oldest of too many (called by the client)."""
        if len(self._acks) >= self._maxsize:
            with contextlib.suppress(IndexError):  # a reader took the last one
                self._acks.popleft()
                self.dropped += 1
        self._acks.append(ack)
        self._changed.notify_all()

    def end(self) -> None:
        """End the stream (called by the client)."""
        self._ended = True
        self._changed.notify_all()

    def forget(self) -> None:
        """End the stream in a forked child (called by the client).

        Without a GIL, an object that the parent's threads were changing may stay locked here: it is replaced, not used.
        """
        self._acks = deque()
        self._changed = Condition()
        self._ended = True

    def get(self, timeout: float | None = None) -> Ack | None:
        """Return the next acknowledgement, or None once the stream has ended.

        Args:
            timeout: Seconds to wait; None waits until one arrives or the stream ends.

        Raises:
            TimeoutError: No acknowledgement arrived in time.
        """
        forks.check()
        deadline_s = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            is_ended = self._ended  # checked first: nothing is appended after the end
            try:
                return self._acks.popleft()
            except IndexError:
                if is_ended:
                    return None
            left_s = None if timeout is None else deadline_s - time.monotonic()
            if not self._changed.wait_for(lambda: self._acks or self._ended, left_s):
                raise TimeoutError(f"no acknowledgement within {timeout:g} s")

    def close(self) -> None:
        """End the subscription; waiting ones can still be read. Idempotent."""
        self._unsubscribe(self)
        self.end()

    def __iter__(self) -> Iterator[Ack]:
        return self

    def __next__(self) -> Ack:
        ack = self.get()
        if ack is None:
            raise StopIteration
        return ack

    def __repr__(self) -> str:
        return _shown(self)

    def __enter__(self) -> AckStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncAckStream:
    """The acknowledgements of one async client or AsyncProducer, from the subscription on, for `async for`.

    Like AckStream, but for the client's event loop only, with one reader at a time.

    Attributes:
        dropped: The number dropped because the reader was too slow.
    """

    def __init__(self, maxsize: int, unsubscribe: Callable[[AsyncAckStream], None]) -> None:
        self.dropped = 0
        self._acks: deque[Ack] = deque()
        self._maxsize = maxsize
        self._unsubscribe = unsubscribe
        self._changed = asyncio.Event()
        self._ended = False

    def publish(self, ack: Ack) -> None:
        """Append one, dropping the oldest of too many (called by the client)."""
        if len(self._acks) >= self._maxsize:
            self._acks.popleft()
            self.dropped += 1
        self._acks.append(ack)
        self._changed.set()

    def end(self) -> None:
        """End the stream (called by the client)."""
        self._ended = True
        self._changed.set()

    def forget(self) -> None:
        """End the stream in a forked child (called by the client)."""
        self._acks = deque()
        self._changed = asyncio.Event()
        self._ended = True

    def close(self) -> None:
        """End the subscription; waiting ones can still be read. Idempotent."""
        self._unsubscribe(self)
        self.end()

    def __aiter__(self) -> AsyncIterator[Ack]:
        return self

    async def __anext__(self) -> Ack:
        while not self._acks:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._acks.popleft()

    def __repr__(self) -> str:
        return _shown(self)

    async def __aenter__(self) -> AsyncAckStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


def _shown(stream: AckStream | AsyncAckStream) -> str:
    state = "ended" if stream._ended else "open"  # noqa: SLF001 - of this module
    return f"<{type(stream).__name__} {state}: {len(stream._acks)} waiting, {stream.dropped} dropped>"  # noqa: SLF001
