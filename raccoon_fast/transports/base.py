"""The interface of transports: their options, the requests that they send, and the answers."""

from __future__ import annotations

import abc
import asyncio
import functools
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from raccoon_fast.core.answers import MAX_ANSWER_BYTES
from raccoon_fast.errors import ConnectionLostError, Outcome, TLSError, TransportError
from raccoon_fast.guids import new_guid
from raccoon_fast.net.spread import Spread
from raccoon_fast.net.tls import refused_certificate, refuses_certificate
from raccoon_fast.texts import one_line
from raccoon_fast.transports.attempt import AnyAttempt, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from raccoon_fast.events import Response
    from raccoon_fast.logs import Log
    from raccoon_fast.net.address import Address
    from raccoon_fast.net.proxy import Proxy
    from raccoon_fast.stats import MetricsSink
    from raccoon_fast.tls import TLS
    from raccoon_fast.transports.tracing import Trace

__all__ = [
    "GRACE_S",
    "GRPC_UNREAD",
    "MAX_ANSWER_BYTES",
    "Ending",
    "Envelope",
    "Identity",
    "Link",
    "Request",
    "Transport",
    "lost_error",
    "refuses_certificate",
    "worse",
]

#: After the loop or the process was blocked, timers run before sockets are read, although an overdue answer may have
#: arrived. So nothing expires until the sockets were read once more.
GRACE_S = 0.005

#: The start of grpc-go's message for a request that it cannot decode (server.go, processUnaryRPC); the code is
#: INTERNAL.
GRPC_UNREAD = "grpc: error unmarshalling request"

# How many bytes of a peer's answer are read for its words.
_MOST_READ = 64 * 1024
# Shorter header values are not secrets, and may be part of any word.
_SHORTEST_SECRET = 6


class Envelope(Protocol):
    """The methods of ProtoEnvelope and JsonEnvelope that transports use; see raccoon_fast.core.envelope."""

    @property
    def nbytes(self) -> int: ...

    def stamp(self, req_guid: str, seconds: int, nanos: int) -> None: ...

    def payload(self) -> memoryview: ...

    def prefixed(self, head: bytes) -> bytes | memoryview: ...

    def websocket_frame(self, opcode: int, key: bytes) -> bytes | memoryview: ...


class Request:
    """One SendEventRequest in flight; owned by the delivery that sends it, and lent to a transport for an attempt.

    Attributes:
        req_guid: Constant over all attempts.
        envelope: The stamped message.
        wire: "proto" or "json".
        size: The largest size of the message in bytes (the length of its time varies between attempts).
        written_s: time.monotonic() at which the last attempt's bytes were written; set by the transport. (An event
            loop's own time may have a resolution of a millisecond only.)
        was_written: Whether any byte of the request may have reached a socket during this attempt. The sender resets
            it when an attempt starts; the transport sets it before it writes.
        resends: How often the transport wrote the request again, to another connection, within this attempt. The
            sender resets it when an attempt starts.
        headers: Headers of this request only. A WebSocket cannot send headers per request.
        trace: The trace of a client's request, ended with its delivery.
    """

    __slots__ = (
        "envelope", "headers", "req_guid", "resends", "size", "trace", "was_written", "wire", "written_s",
    )  # fmt: skip

    def __init__(self, req_guid: str, envelope: Envelope, wire: str, size: int) -> None:
        self.req_guid = req_guid
        self.envelope = envelope
        self.wire = wire
        self.size = size
        self.written_s = 0.0
        self.was_written = False
        self.resends = 0
        self.headers: Mapping[str, str] | None = None
        self.trace: Trace | None = None


@dataclass(frozen=True)
class Identity:
    """The client's identity, and the header names that carry it."""

    user_id: str | None = None
    group: str | None = None
    id_header: str = "X-User-ID"
    group_header: str = "X-User-Group"

    def headers(self) -> dict[str, str]:
        """The identity's headers; without a fixed `user_id` the id is new at every call."""
        headers = {self.id_header: self.user_id if self.user_id is not None else _fresh_id()}
        if self.group is not None:
            headers[self.group_header] = self.group
        return headers


def _fresh_id() -> str:
    # A server keeps the id of a silently broken connection for up to a minute, and refuses it meanwhile.
    return f"{_process_id(os.getpid())}-{new_guid()[-12:]}"


@functools.lru_cache(maxsize=1)
def _process_id(pid: int) -> str:
    return f"raccoon_fast-{socket.gethostname()}-{pid}"


@dataclass
class Link:
    """A server and the options for requests to it, validated by the clients; `user_agent` may change later."""

    address: Address
    identity: Identity
    headers: dict[str, str] = field(repr=False)
    authorization: Callable[[], str] | None = field(repr=False)
    tls: ssl.SSLContext | TLS | None
    user_agent: str
    connect_timeout_s: float
    stats: MetricsSink
    logger: Log
    proxy: Proxy | None = None
    server_hostname: str | None = None
    spread: Spread = field(default_factory=Spread, repr=False)
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _authorization: str = field(default="", repr=False)

    def request_headers(self, identity: Mapping[str, str] | None = None) -> dict[str, str]:
        """User-Agent, the user's own headers, identity and Authorization; created for each use.

        Args:
            identity: An earlier result of `self.identity.headers()`; None for a new identity.
        """
        headers = {"User-Agent": self.user_agent, **self.headers, **(identity or self.identity.headers())}
        if self.authorization is not None:
            headers["Authorization"] = self._authorization = self.authorization()
        return headers

    def words(self, said: bytes | str) -> str:
        """A peer's own words for an error or a log: one line of at most 200 printable characters.

        A peer may repeat the request: the URL's query, and the values of the user's headers and of Authorization, are
        left out.
        """
        text = said[:_MOST_READ].decode("utf-8", "replace") if isinstance(said, bytes) else said[:_MOST_READ]
        query = self.address.path.partition("?")[2]
        for value in (query, self._authorization, *self.headers.values()):
            for secret in (value, value.rpartition(" ")[2]):  # "Bearer token", and the token alone
                if len(secret) >= _SHORTEST_SECRET:
                    text = text.replace(secret, "***")
        return one_line(text)

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain text; otherwise one verifying context, made once (loading CA files takes milliseconds)."""
        if not self.address.secure:
            return None
        if self._context is None:
            if isinstance(self.tls, ssl.SSLContext):
                self._context = self.tls
            elif self.tls is not None:
                self._context = self.tls.ssl_context()
            else:
                self._context = ssl.create_default_context()
            if self.address.scheme == "grpcs":
                self._context.set_alpn_protocols(["h2"])
        return self._context


class Transport(abc.ABC):
    """Sends requests to one server over one protocol. Bound to the event loop of its first `send`."""

    #: The largest message that the protocol's servers accept; None if there is no limit.
    max_request_bytes: int | None = None

    @property
    def connections(self) -> int:
        """The number of open connections. Thread-safe."""
        return 0

    @abc.abstractmethod
    async def send(self, request: Request, timeout_s: float) -> Response:
        """Make one attempt, connecting first if needed.

        Args:
            request: A stamped request; the transport owns its buffer until this returns or raises.
            timeout_s: Seconds for the whole attempt.

        Returns:
            The server's answer, SUCCESS or not.

        Raises:
            DeliveryError: The attempt failed; `retryable` and `outcome` are set. On cancellation the attempt is
                abandoned: its events are possibly delivered.
        """

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """Begin an attempt, which ends with the result or exception of `send`.

        Override it if an attempt needs no task. A caller that cancels the attempt closes the transport next.
        """
        return asyncio.ensure_future(self.send(request, timeout_s))

    def hold(self) -> None:  # noqa: B027 - most transports have nothing to gather
        """Buffer the writes of the next calls of `start`, until `release` in the same step of the event loop.

        Override it if requests share a connection: small requests then leave in one write.
        """

    def release(self) -> None:  # noqa: B027
        """Write everything buffered since `hold`. Idempotent."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every connection; requests in flight fail with ConnectionLostError. Idempotent."""


class Ending:
    """Cancels attempts and closes their transports, at once. Owned by one event loop.

    Args:
        attempts: Attempts under way.
        transports: At least one.
        closing: Tasks that close other transports; `connections` waits for them too.
    """

    def __init__(
        self, attempts: Iterable[AnyAttempt], transports: Iterable[Transport], closing: Iterable[asyncio.Task[None]]
    ) -> None:
        attempts = [*attempts]
        for attempt in attempts:
            attempt.cancel()
        self._closing = [*(asyncio.ensure_future(transport.close()) for transport in transports), *closing]
        # Other attempts have ended by now.
        self._tasks = [attempt for attempt in attempts if not isinstance(attempt, Attempt)]

    async def attempts(self, timeout_s: float) -> None:
        """Wait until the attempts have ended, which takes almost no time; if cancelled, `hurry`."""
        if self._tasks:
            await self._wait(self._tasks, timeout_s)

    async def connections(self, timeout_s: float) -> None:
        """Wait until the connections are closed, for which servers may take their time; if cancelled, `hurry`."""
        await self._wait(self._closing, timeout_s)

    def hurry(self) -> None:
        """Close the connections at once."""
        for task in self._closing:
            task.cancel()

    async def _wait(self, futures: Sequence[asyncio.Future[Any]], timeout_s: float) -> None:
        try:
            await asyncio.wait(futures, timeout=timeout_s)
        except asyncio.CancelledError:
            self.hurry()
            raise


def lost_error(error: BaseException | None, address: Address, *, is_silent: bool = False) -> TransportError:
    """Make the error for a connection that ended with a request on it.

    Args:
        error: The event loop's error.
        address: The server.
        is_silent: Whether nothing was received since the TLS handshake. In TLS 1.3 a server's verdict on
            the client's certificate comes after the handshake, before anything else, and before the server reads a
            request (RFC 8446, 4.4.2.4).
    """
    if is_silent and refuses_certificate(error):
        return refused_certificate(error, address)
    if is_silent and isinstance(error, ssl.SSLError) and "ALERT_HANDSHAKE_FAILURE" in (error.reason or ""):
        return TLSError(f"{address} ended the TLS handshake: {error.reason}; does it ask for a client certificate?")
    why = f": {error}" if error is not None and str(error) else ""
    return ConnectionLostError(f"connection to {address} was lost before the answer{why}")


def worse(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of two writes of the same events: "possibly delivered" if either was."""
    return max(one, other, key=_LEVELS.__getitem__)


_LEVELS = {Outcome.NOT_DELIVERED: 0, Outcome.POSSIBLY_DELIVERED: 1, Outcome.DELIVERED: 2}
