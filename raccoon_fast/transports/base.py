"""What every transport is told, what it is given to send, and what it answers."""

from __future__ import annotations

import abc
import asyncio
import functools
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from raccoon_fast.core.answers import MAX_ANSWER_BYTES
from raccoon_fast.errors import ConnectError, ConnectionLostError, TLSError, TransportError
from raccoon_fast.guids import new_guid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raccoon_fast.events import Response
    from raccoon_fast.logs import Log
    from raccoon_fast.stats import MetricsSink
    from raccoon_fast.tls import TLS
    from raccoon_fast.transports.address import Address
    from raccoon_fast.transports.attempt import AnyAttempt

__all__ = [
    "GRACE_S",
    "MAX_ANSWER_BYTES",
    "Envelope",
    "Identity",
    "Link",
    "Request",
    "Transport",
    "connect_error",
    "lost_error",
]

#: After the loop, or the whole process, was held up, timers are run before the sockets are read: an overdue answer may
#: lie there already. So nothing expires before one more round of reading.
GRACE_S = 0.005


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
    """

    __slots__ = ("envelope", "req_guid", "size", "wire", "written_s")

    def __init__(self, req_guid: str, envelope: Envelope, wire: str, size: int) -> None:
        self.req_guid = req_guid
        self.envelope = envelope
        self.wire = wire
        self.size = size
        self.written_s = 0.0


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
    headers: dict[str, str]
    authorization: Callable[[], str] | None
    tls: ssl.SSLContext | TLS | None
    user_agent: str
    connect_timeout_s: float
    stats: MetricsSink
    logger: Log
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def request_headers(self, identity: Mapping[str, str] | None = None) -> dict[str, str]:
        """User-Agent, the user's own headers, identity and Authorization; made anew for each use.

        Args:
            identity: What `self.identity.headers()` once returned; None for a fresh one.
        """
        headers = {"User-Agent": self.user_agent, **self.headers, **(identity or self.identity.headers())}
        if self.authorization is not None:
            headers["Authorization"] = self.authorization()
        return headers

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
            if self.address.scheme == "grpcs":  # for which no context of the user's is taken
                self._context.set_alpn_protocols(["h2"])
        return self._context


class Transport(abc.ABC):
    """One protocol to one server. Used from one event loop only: the one of its first `send`."""

    #: Largest message the protocol's servers take; None where there is no such limit.
    max_request_bytes: int | None = None

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

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every connection; whatever is still in flight fails with ConnectionLostError. Idempotent."""


def connect_error(error: BaseException, address: Address) -> TransportError:
    """Name a failure to connect: TLSError where the certificates are at fault, ConnectError otherwise."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"cannot trust {address}: {error.verify_message or error}")
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return TLSError(f"TLS with {address} failed: {error.reason or error}; is this a TLS port?")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return ConnectError(f"cannot connect to {address}: timed out")
    if isinstance(error, socket.gaierror):
        return ConnectError(f"cannot resolve {address.host}: {error.strerror or error}")
    return ConnectError(f"cannot connect to {address}: {error or type(error).__name__}")


def lost_error(error: BaseException | None, address: Address) -> TransportError:
    """Name the end of a connection that had a request on it."""
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        # TLS 1.3: the server's verdict on a client certificate arrives after the handshake.
        return TLSError(f"{address} refused our certificate: {error.reason}")
    why = f": {error}" if error is not None and str(error) else ""
    return ConnectionLostError(f"connection to {address} was lost before the answer{why}")
