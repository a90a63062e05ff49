"""The result of a check, and what to do about it."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

from raccoon_fast.errors import AckTimeoutError, ConnectError, ServerError, TLSError
from raccoon_fast.events import Code

__all__ = ["FAIL", "OK", "SKIP", "WARN", "Finding", "Findings", "fix_for", "fix_for_status"]

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"

_T = TypeVar("_T")


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        check: The name of the check.
        status: OK, WARN (it works, but deserves a look), FAIL, or SKIP.
        detail: The result.
        fix: What to do; "" if nothing.
    """

    check: str
    status: str
    detail: str
    fix: str = ""


#: A check: yields its findings one by one, and returns what later checks need.
Findings: TypeAlias = Generator[Finding, None, _T]


def fix_for(error: Exception) -> str:
    """What to do about an error of a client."""
    if isinstance(error, TLSError):
        return "see the check tls; if the server wants a client certificate, set --cert and --key"
    if isinstance(error, ConnectError):
        return "start the server, or check for a firewall, a proxy or a wrong port in between"
    if isinstance(error, AckTimeoutError):
        return "raise --timeout, or look at the server's log: it received the request and did not answer"
    if isinstance(error, ServerError):
        if error.response is not None and error.response.code is Code.INTERNAL_ERROR:
            return "the server could not publish: use an event type that has a topic (--type), or look at its log"
        if error.response is not None and error.response.code is Code.MAX_CONNECTION_LIMIT_REACHED:
            return "the server is at its connection limit: raise the limit, or use http:// or grpc://"
        return fix_for_status(error.status)
    return _SEE_LOG


def fix_for_status(status: int | str | None) -> str:
    """What to do about an HTTP status, or a gRPC code of this name."""
    return _STATUSES.get(status, _SEE_LOG)


_SEE_LOG = "look at the log of the server, or of the proxy in front of it"
_LET_IN = "log in: --token or RACCOON_FAST_AUTH_TOKEN, user and password in the URL, or --header 'Authorization: …'"
_STATUSES: dict[int | str | None, str] = {
    401: _LET_IN,
    403: _LET_IN,
    "UNAUTHENTICATED": _LET_IN,
    "PERMISSION_DENIED": _LET_IN,
    404: "add the path to the URL: the server's own is /api/v1/events, but a proxy may add a prefix",
    405: "does a proxy block POST?",
    413: "raise the body size limit of the proxy in front of the server",
    "DEADLINE_EXCEEDED": "is this a gRPC port? If it is, raise --timeout",
    "UNAVAILABLE": "is this the gRPC port (default 8081), and does the scheme (grpc or grpcs) match?",
    "UNIMPLEMENTED": "is this a Raccoon's gRPC port (default 8081)?",
}
