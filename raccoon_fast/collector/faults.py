"""Faults on request: each failure that a client must survive, switched on while the collector runs."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from raccoon_fast.collector.fault_table import FaultTable, Refusal
from raccoon_fast.collector.grpc_status import GrpcCode
from raccoon_fast.collector.options import check_integer, check_number

__all__ = ["Faults"]

_HTML_502 = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n"
    b"<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)

# The code that a gRPC client derives from an HTTP status (grpc/grpc, doc/http-grpc-status-mapping.md).
_GRPC_CODES = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}


class Network(Protocol):
    """The actions of faults on the collector's sockets."""

    @property
    def is_refusing(self) -> bool:
        """Whether the collector runs but does not listen."""

    def close_connections(self) -> None:
        """End every live connection."""

    def refuse(self) -> None:
        """Stop listening."""

    def accept(self) -> None:
        """Listen again."""


class Faults:
    """A collector's faults. Each method switches one on. Thread-safe, before or while the collector runs.

    `times` is how often the fault happens; None lasts until `clear()`. A second call replaces the first. Different
    faults combine, except `hang_up` and `drop_acks`, which leave no answer. Faults apply to all three
    protocols if their method does not say otherwise.

    Raises:
        TypeError, ValueError: Raised by every method if an argument is invalid.
    """

    def __init__(self, table: FaultTable, network: Network) -> None:
        self._table = table
        self._network = network

    @property
    def fired(self) -> dict[str, int]:
        """How often each fault has happened so far, by method name."""
        return self._table.fired

    def clear(self) -> None:
        """Switch every fault off, and listen again after `refuse`."""
        self._table.clear()
        if self._network.is_refusing:
            self._network.accept()

    # Answers

    def drop_acks(self, times: int | None = None) -> None:
        """The request is accepted and never answered; the connection stays open."""
        self._set("drop_acks", True, times)

    def hang_up(self, times: int | None = None) -> None:
        """The request is accepted, but the connection is reset without an answer (gRPC: the call ends UNAVAILABLE)."""
        self._set("hang_up", True, times)

    def duplicate_acks(self, times: int | None = None) -> None:
        """The answer is sent twice. WebSocket and REST only."""
        self._set("duplicate_acks", True, times)

    def reorder_acks(self, times: int | None = None) -> None:
        """Answers are held for 50 ms, then sent in reverse order. WebSocket only."""
        self._set("reorder_acks", True, times)

    def unknown_acks(self, times: int | None = None) -> None:
        """An answer with an unknown guid precedes the right one. WebSocket only."""
        self._set("unknown_acks", True, times)

    def wrong_guid(self, times: int | None = None) -> None:
        """The answer carries an unknown guid."""
        self._set("wrong_guid", True, times)

    def bad_answer(self, body: bytes, *, times: int | None = None) -> None:
        """The answer is `body` (REST: with status 200; WebSocket: in a frame of the request's kind)."""
        if not isinstance(body, bytes):
            raise TypeError(f"body must be bytes, not {body!r}")
        self._set("bad_answer", body, times)

    def cut_answers(self, after_bytes: int = 0, *, times: int | None = None) -> None:
        """The answer ends after this many bytes, including its head, and the connection closes. WebSocket and REST."""
        check_integer("after_bytes", after_bytes, 0)
        self._set("cut_answers", after_bytes, times)

    def delay(self, seconds: float, *, times: int | None = None) -> None:
        """The answer is sent `seconds` later."""
        check_number("seconds", seconds, low=0)
        self._set("delay", seconds, times)

    # Requests

    def fail_publish(self, rate: float = 1.0, *, times: int | None = None) -> None:
        """Publishing fails for this share of the batches; clients only notice with acks="sync"."""
        check_number("rate", rate, low=0, high=1)
        self._set("fail_publish", rate, times)

    def status(
        self,
        status: int,
        *,
        times: int | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        retry_after: float | str | None = None,
        grpc_code: str | None = None,
    ) -> None:
        """The request is refused: REST and the WebSocket handshake answer with this HTTP status.

        Args:
            status: From 200 to 599.
            times: How often.
            body: The answer's body.
            headers: The answer's headers; the default Content-Type is text/plain.
            retry_after: The Retry-After header, as it is written.
            grpc_code: The name of the code for gRPC calls; None uses the one that a gRPC client derives from `status`.
        """
        self._set("status", _refusal(status, body, headers, retry_after, grpc_code), times)

    def html_502(self, times: int | None = None) -> None:
        """Like `status(502)` with an HTML page, as from a proxy whose backend is down."""
        self.status(502, times=times, body=_HTML_502, headers={"content-type": "text/html"})

    def reject_events(self, event_type: str, *, times: int | None = None) -> None:
        """A request that contains an event of this type is refused as one that cannot be decoded."""
        if not isinstance(event_type, str):
            raise TypeError(f"event_type must be text, not {event_type!r}")
        self._set("reject_events", event_type, times)

    def too_large(self, max_bytes: int, *, times: int | None = None) -> None:
        """A request of more than `max_bytes` is refused as too large: 413, close code 1009, RESOURCE_EXHAUSTED."""
        check_integer("max_bytes", max_bytes, 1)
        self._set("too_large", max_bytes, times)

    def early_error(self, status: int = 503, *, times: int | None = None) -> None:
        """The answer is sent before the body is read, and the connection is closed. REST only."""
        self._set("early_error", _refusal(status, b"", None, None, None), times)

    def stop_ponging(self, times: int | None = None) -> None:
        """A client's ping is not answered. WebSocket only."""
        self._set("stop_ponging", True, times)

    # Connections

    def close_connections(self) -> None:
        """Reset every open connection now; a WebSocket gets no close frame. The collector continues to listen.

        Raises:
            RuntimeError: The collector is not running.
        """
        self._network.close_connections()

    def refuse(self) -> None:
        """Refuse new connections from now on. Open gRPC connections end too, because the gRPC server has to stop.

        Raises:
            RuntimeError: The collector is not running.
        """
        self._network.refuse()

    def accept(self) -> None:
        """Accept connections again after `refuse`, on the same ports.

        Raises:
            RuntimeError: The collector is not running.
        """
        self._network.accept()

    def _set(self, name: str, value: object, times: int | None) -> None:
        if times is not None:
            check_integer("times", times, 1)
        self._table.set(name, value, times)


def _refusal(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None,
    retry_after: float | str | None,
    grpc_code: str | None,
) -> Refusal:
    check_integer("status", status, 200, 599)
    if not isinstance(body, bytes):
        raise TypeError(f"body must be bytes, not {body!r}")
    code = grpc_code or _GRPC_CODES.get(status, "UNKNOWN")
    if code not in GrpcCode.__members__ or code == "OK":
        raise ValueError(f"grpc_code must be the name of a gRPC status other than OK, not {grpc_code!r}")
    named = {name.lower(): str(value) for name, value in (headers or {}).items()}
    named.setdefault("content-type", "text/plain; charset=utf-8")
    if retry_after is not None:
        named["retry-after"] = str(retry_after)
    return Refusal(status, tuple(named.items()), body or _phrase(status).encode(), code)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
