"""What a check found, and what is to be done."""

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
        check: What was looked at.
        status: OK, WARN (it works, and should be looked into), FAIL, or SKIP.
        detail: What was seen.
        fix: What to do; "" where there is nothing.
    """

    check: str
    status: str
    detail: str
    fix: str = ""


#: A check: yields its findings as they come, and returns what the next checks have need of.
Findings: TypeAlias = Generator[Finding, None, _T]


def fix_for(error: Exception) -> str:
    """What to do about an error of a client."""
    if isinstance(error, TLSError):
        return "see the check tls; a client's certificate, where the server wants one, is --cert and --key"
    if isinstance(error, ConnectError):
        return "start the server, or look for what is in between: a firewall, a proxy, a wrong port"
    if isinstance(error, AckTimeoutError):
        return "give it longer (--timeout), or look into the server's log: it took the request and did not answer"
    if isinstance(error, ServerError):
        if error.response is not None and error.response.code is Code.INTERNAL_ERROR:
            return "the server could not publish: name an event type it has a topic for (--type), or see its log"
        if error.response is not None and error.response.code is Code.MAX_CONNECTION_LIMIT_REACHED:
            return "the server has all the connections it takes: raise its limit, or use http:// or grpc://"
        return fix_for_status(error.status)
    return _SEE_LOG


def fix_for_status(status: int | str | None) -> str:
    """What to do about an HTTP status, or a gRPC code of this name."""
    return _STATUSES.get(status, _SEE_LOG)


_SEE_LOG = "look into the log of the server, or of the proxy before it"
_LET_IN = "log in: --token or RACCOON_FAST_AUTH_TOKEN, user and password in the URL, or --header 'Authorization: …'"
_STATUSES: dict[int | str | None, str] = {
    401: _LET_IN,
    403: _LET_IN,
    "UNAUTHENTICATED": _LET_IN,
    "PERMISSION_DENIED": _LET_IN,
    404: "name the path in the URL: the server's own is /api/v1/events, a proxy may have put another before it",
    405: "is there a proxy that lets no POST through?",
    413: "raise the size that the proxy before the server lets through",
    "DEADLINE_EXCEEDED": "is this a gRPC port? Give it longer by --timeout if it is",
    "UNAVAILABLE": "is this the gRPC port (8081 unless set otherwise), and for plain text or TLS as said?",
    "UNIMPLEMENTED": "is this a Raccoon's gRPC port (8081 unless set otherwise)?",
}
