"""What every transport is told, what it is given to send, and what it answers."""

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
from raccoon_fast.transports.attempt import AnyAttempt, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

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
    "Envelope",
    "Identity",
    "Link",
    "Request",
    "Transport",
    "end_attempts",
    "lost_error",
    "refuses_certificate",
    "worse",
]

#: After the loop, or the whole process, was held up, timers are run before the sockets are read: an overdue answer may
#: lie there already. So nothing expires before one more round of reading.
GRACE_S = 0.005

#: How grpc-go begins when it could not decode a request (server.go, processUnaryRPC); the code is INTERNAL.
GRPC_UNREAD = "grpc: error unmarshalling request"

# Of a peer's answer, characters that are told, and bytes that are looked at for them.
_MOST_WORDS = 200
_MOST_READ = 64 * 1024
# Shorter values of headers are no secrets, and may be a part of any word.
_SHORTEST_SECRET = 6


class Envelope(Protocol):
    """The face of ProtoEnvelope and JsonEnvelope that transports use; raccoon_fast.core.envelope has the contracts."""

    @property
    def nbytes(self) -> int: ...

    def stamp(self, req_guid: str, seconds: int, nanos: int) -> None: ...

    def payload(self) -> memoryview: ...

    def prefixed(self, head: bytes) -> bytes | memoryview: ...

    def websocket_frame(self, opcode: int, key: bytes) -> bytes | memoryview: ...


class Request:
    """One SendEventRequest on its way; owned by the delivery that sends it, lent to a transport for an attempt.

    Attributes:
        req_guid: Constant over all attempts.
        envelope: The stamped message.
        wire: "proto" or "json".
        size: Bytes of the message, at most (its time varies in length from attempt to attempt).
        written_s: time.monotonic() at which the last attempt's bytes were written; set by the transport. (An event
            loop's own time may have a resolution of a millisecond only.)
        was_written: Whether any byte of the request may have reached a socket during this attempt. The sender resets
            it when an attempt starts; the transport sets it before it writes.
        resends: How often the transport wrote the request again, onto a further connection, within this attempt. The
            sender resets it when an attempt starts.
        headers: Of this request beside those of all; a WebSocket has none for a request.
        trace: Of a client's request, ended with its delivery.
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
    """Who the client says it is, and under which header names the server looks for it."""

    user_id: str | None = None
    group: str | None = None
    id_header: str = "X-User-ID"
    group_header: str = "X-User-Group"

    def headers(self) -> dict[str, str]:
        """The identity's headers; without a fixed `user_id` the id is fresh at every call."""
        headers = {self.id_header: self.user_id if self.user_id is not None else _fresh_id()}
        if self.group is not None:
            headers[self.group_header] = self.group
        return headers


def _fresh_id() -> str:
    # A server keeps the id of a connection that broke silently for up to a minute and refuses it meanwhile.
    return f"{_process_id(os.getpid())}-{new_guid()[-12:]}"


@functools.lru_cache(maxsize=1)
def _process_id(pid: int) -> str:
    return f"raccoon_fast-{socket.gethostname()}-{pid}"


@dataclass
class Link:
    """One server, and how to speak to it. Validated by the clients; shared by reference, so `user_agent` may change."""

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
        """User-Agent, the user's own headers, identity and Authorization; made anew for each use.

        Args:
            identity: What `self.identity.headers()` once returned; None for a fresh one.
        """
        headers = {"User-Agent": self.user_agent, **self.headers, **(identity or self.identity.headers())}
        if self.authorization is not None:
            headers["Authorization"] = self._authorization = self.authorization()
        return headers

    def words(self, said: bytes | str) -> str:
        """A peer's own words, fit for an error and a log: one line of at most 200 printable characters.

        A peer may repeat the request's headers: the values of the user's headers and of Authorization are left out.
        """
        text = said[:_MOST_READ].decode("utf-8", "replace") if isinstance(said, bytes) else said[:_MOST_READ]
        for value in (self._authorization, *self.headers.values()):
            for secret in (value, value.rpartition(" ")[2]):  # "Bearer token", and the token alone
                if len(secret) >= _SHORTEST_SECRET:
                    text = text.replace(secret, "***")
        return "".join(filter(str.isprintable, " ".join(text.split())))[:_MOST_WORDS]

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
    """One protocol to one server. Used from one event loop only: the one of its first `send`."""

    #: Largest message the protocol's servers take; None where there is no such limit.
    max_request_bytes: int | None = None

    @property
    def connections(self) -> int:
        """Open connections of our own; safe from any thread."""
        return 0

    @abc.abstractmethod
    async def send(self, request: Request, timeout_s: float) -> Response:
        """Make one attempt, connecting first where needed.

        Args:
            request: Stamped; its buffer is the transport's until this returns or raises.
            timeout_s: Seconds for the whole attempt.

        Returns:
            The server's answer, SUCCESS or not.

        Raises:
            DeliveryError: The attempt failed; `retryable` and `outcome` are set. On cancellation the attempt is
                abandoned: its events are possibly delivered.
        """

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """Begin an attempt, which has what `send` returns or raises.

        To be overridden where there is a way without a task. The attempt may be cancelled by who closes the transport
        next.
        """
        return asyncio.ensure_future(self.send(request, timeout_s))

    def hold(self) -> None:  # noqa: B027 - most transports have nothing to gather
        """Gather what the next calls of `start` write, until `release` in the same step of the event loop.

        To be overridden where requests share a connection: small ones then leave in one write.
        """

    def release(self) -> None:  # noqa: B027
        """Write what was gathered since `hold`. Idempotent."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every connection; whatever is still in flight fails with ConnectionLostError. Idempotent."""


async def end_attempts(attempts: Collection[AnyAttempt], transports: Collection[Transport], timeout_s: float) -> None:
    """Cancel attempts and close the transports that they are on; if cancelled itself, it waits no longer.

    Args:
        attempts: Attempts under way.
        transports: At least one.
        timeout_s: Seconds to wait until they have ended.
    """
    for attempt in attempts:
        attempt.cancel()
    closing = [asyncio.ensure_future(transport.close()) for transport in transports]
    tasks = [attempt for attempt in attempts if not isinstance(attempt, Attempt)]
    ending: list[asyncio.Future[Any]] = [*closing, *tasks]
    try:
        await asyncio.wait(ending, timeout=timeout_s)
    except asyncio.CancelledError:
        for one in closing:
            one.cancel()  # they then end at once
        raise


def lost_error(error: BaseException | None, address: Address, *, is_silent: bool = False) -> TransportError:
    """Name the end of a connection that had a request on it.

    Args:
        error: What the event loop says of it.
        address: The server.
        is_silent: Whether nothing came over the connection since its TLS handshake. In TLS 1.3 a server's verdict on
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
    """What is known after two writes of the same events: what one of them left possible, the other does not undo."""
    return max(one, other, key=_LEVELS.__getitem__)


_LEVELS = {Outcome.NOT_DELIVERED: 0, Outcome.POSSIBLY_DELIVERED: 1, Outcome.DELIVERED: 2}
