"""The client's pings, which detect dead connections (RFC 6455, 5.5.2; RFC 9113, 6.7)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.transports.base import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.logs import Log

__all__ = ["Keepalive", "Pinger", "PolitePinger"]

# A server disconnects a client that has not answered its pings for a minute.
_STALL_S = 30.0
# grpc-go's default enforcement policy (keepalive.EnforcementPolicy): after an answer one ping is free;
# further pings must be this far apart: while calls are open, and while none is open.
_BUSY_S, _IDLE_S = 300.0, 7200.0


class Keepalive(NamedTuple):
    """Pings are sent every `interval_s` (None: never), and their pong is due within `timeout_s`."""

    interval_s: float | None
    timeout_s: float


class Pinger:
    """Sends a ping one interval after the last one was answered.

    Owned by the event loop of its connection.

    Args:
        keepalive: The interval and the timeout.
        send: Sends a ping of this payload, if the connection is still open.
        missed: Called once when a pong is late.
        logger: Logs a warning if the event loop was blocked so long that the server may disconnect the client.
    """

    def __init__(
        self, keepalive: Keepalive, send: Callable[[bytes], None], missed: Callable[[], None], logger: Log
    ) -> None:
        self._keepalive = keepalive
        self._send = send
        self._missed = missed
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._payload = b""

    def start(self) -> None:
        """Wait for the next interval."""
        self.stop()
        if self._keepalive.interval_s is not None:
            self._due_s = self._loop.time() + self._keepalive.interval_s
            self._timer = self._loop.call_at(self._due_s, self._ping)

    def stop(self) -> None:
        """Stop sending pings and waiting for pongs. Idempotent."""
        self._payload = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pong(self, payload: bytes) -> None:
        """A pong arrived. A pong for an earlier ping, or without a ping, changes nothing (RFC 6455 5.5.3)."""
        if self._payload and payload == self._payload:
            self.start()

    def _ping(self) -> None:
        stalled_s = self._loop.time() - self._due_s
        if stalled_s > _STALL_S:
            self._logger.warning(
                "the event loop was blocked for %.0f s; servers close connections whose pings go unanswered for 60 s",
                stalled_s,
            )
        self._payload = os.urandom(8)
        self._send(self._payload)
        self._timer = self._loop.call_later(
            self._keepalive.timeout_s, self._loop.call_later, GRACE_S, self._late, self._payload
        )

    def _late(self, payload: bytes) -> None:
        if self._payload == payload:
            self.stop()
            self._missed()


class PolitePinger(Pinger):
    """Sends HTTP/2 pings if no answer came for an interval, but no more than a gRPC server allows.

    A grpc-go server, like others, ends a connection with GOAWAY (too_many_pings) after three pings that it considers
    too frequent. So one ping is sent an interval after the server's last answer to a call. If the server still answers
    no call, the next ping follows after five minutes while calls are open, and after two hours otherwise.

    Args:
        keepalive: The interval and the timeout.
        send: As Pinger's.
        missed: As Pinger's.
        logger: As Pinger's.
        answered_s: Loop time of the server's last answer to a call; a pong is not an answer.
        is_busy: Whether calls are open.
    """

    def __init__(
        self,
        keepalive: Keepalive,
        send: Callable[[bytes], None],
        missed: Callable[[], None],
        logger: Log,
        answered_s: Callable[[], float],
        is_busy: Callable[[], bool],
    ) -> None:
        super().__init__(keepalive, send, missed, logger)
        self._answered_s = answered_s
        self._is_busy = is_busy
        self._pinged_s = float("-inf")
        self._seen_s = float("-inf")  # the last answer before that ping

    def _ping(self) -> None:
        interval_s = self._keepalive.interval_s
        assert interval_s is not None
        now_s = self._loop.time()
        answered_s = self._answered_s()
        due_s = answered_s + interval_s
        # Not compared with the time of the ping: uvloop's clock has steps of a millisecond, so both may be equal.
        if answered_s == self._seen_s:
            due_s = self._pinged_s + max(interval_s, _BUSY_S if self._is_busy() else _IDLE_S)
        if due_s > now_s:  # the next answer may change when the ping is due
            self._due_s = min(due_s, now_s + interval_s)
            self._timer = self._loop.call_at(self._due_s, self._ping)
            return
        self._pinged_s, self._seen_s = now_s, answered_s
        super()._ping()
