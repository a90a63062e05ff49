"""Interprets HTTP answers, for REST over built-in connections or httpx, and for the WebSocket handshake."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer
from raccoon_fast.errors import DecodeError, MessageTooLargeError, Outcome, ProtocolError, ServerError
from raccoon_fast.events import Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.events import Response
    from raccoon_fast.net.address import Address

__all__ = [
    "CONTENT_TYPES",
    "MAX_RETRY_AFTER_S",
    "http_advice",
    "http_outcome",
    "read_answer",
    "retry_after_s",
    "status_error",
    "status_is_retryable",
    "too_large",
]

#: The server compares the exact text: it refuses a charset parameter with 400.
CONTENT_TYPES = {"proto": "application/proto", "json": "application/json"}

#: The longest wait, even if a server asks for more.
MAX_RETRY_AFTER_S = 300.0
_PROTO_FIRST = (decode_proto_answer, decode_json_answer)
_JSON_FIRST = (decode_json_answer, decode_proto_answer)
_VERDICTS = (Status.SUCCESS, Status.ERROR)

# What to check if something between client and server answers, by status.
_ADVICE = {
    400: "a proxy or another server refused the request, not the events: check for http:// at a TLS port, a missing "
    "client certificate, and headers over the proxy's limit",
    401: "check auth= and the token",
    403: "check auth=, and the rules of any filter between client and server",
    404: "no Raccoon at this path, give the URL without a path or with /api/v1/events",
    405: "no Raccoon at this URL, check host, port and path",
    407: "the proxy asks for credentials",
    421: "check the URL's host name",
    426: "the proxy does not pass WebSockets on, check its Upgrade headers",
    429: "the server or a proxy limits the rate of requests",
    431: "check the size of headers= and of the token",
    502: "the proxy does not reach the server behind it",
    503: "the proxy has no server behind it, or the server is overloaded",
    504: "the server behind the proxy did not answer it in time",
}
_ADVICE_4XX = "a proxy or another server refused the request, not the events: check the URL and the proxy's log"


def status_is_retryable(status: int) -> bool:
    """Whether a retry may help: 408, 429 and every 5xx may be temporary, other statuses are not."""
    return status in (408, 429) or 500 <= status <= 599


def retry_after_s(value: str) -> float | None:
    """Seconds in a Retry-After header (RFC 9110 10.2.3): a number, or a date; kept within 0 to 300; None if unreadable.

    A date is converted to seconds at once, so that a later change of the clock cannot lengthen the wait.
    """
    value = value.strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    if seconds != seconds:  # NaN
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def http_outcome(status: int) -> Outcome:
    """The outcome by status alone: only 3xx and 4xx say that the events were not accepted (RFC 9110, 15)."""
    return Outcome.NOT_DELIVERED if 300 <= status <= 499 else Outcome.POSSIBLY_DELIVERED


def http_advice(status: int) -> str:
    """What to check if something other than a Raccoon answered with this status; "" if unknown."""
    if 300 <= status <= 399:
        return "redirects are not followed, give the server's own URL"
    return _ADVICE.get(status, _ADVICE_4XX if 400 <= status <= 499 else "")


def read_answer(
    status: int,
    body: bytes,
    header: Callable[[str], str],
    *,
    wire: str,
    req_guid: str,
    address: Address,
    words: Callable[[bytes | str], str],
) -> Response:
    """Turn an HTTP answer to an events request into a Response.

    A Raccoon's answer is decoded whatever the HTTP status; if the two disagree, the HTTP status decides.

    Args:
        status: Its status.
        body: The whole of it.
        header: Returns a header's first value, or "", for a name in lower case.
        wire: The request's encoding, "proto" or "json".
        req_guid: The request's guid.
        address: The server, for errors.
        words: As Link.words.

    Raises:
        ServerError: The status is not 200; `response` is None if the body is not a Raccoon's answer.
        MessageTooLargeError: 413.
        ProtocolError: The status is 200 but the body is not a Raccoon's answer; or the body answers another request,
            with any status. Then the connection must not be used for further requests (RFC 9112, 9.2).
    """
    response = _decode(body, wire)
    if response is not None and response.req_guid != req_guid and (response.req_guid or status == 200):
        raise ProtocolError(f"{address} answered for {response.req_guid!r:.60} when asked about {req_guid!r}")
    if response is not None and status == 200:
        return response
    coding = "" if response is not None else _coding(body, header)
    said = words(f"a body in {coding}, which was not asked for" if coding else body)
    if status == 413:
        raise too_large(address, "413", said)
    if status != 200:
        if response is not None:
            said = words(response.reason) if response.reason else ""
        raise status_error(status, address, said, retry_after=header("retry-after"), response=response)
    if coding:
        raise ProtocolError(
            f"{address} answered 200 with {said}; switch off the compression of answers in the proxy or server, and "
            "give no Accept-Encoding in headers="
        )
    content_type = words((header("content-type") or "no content type").encode("latin-1", "replace"))
    raise ProtocolError(
        f"{address} answered 200 with {content_type} that is not a Raccoon's answer "
        f"({said!r}); is this a Raccoon server?"
    )


def too_large(address: Address, status: str, said: str = "") -> MessageTooLargeError:
    """The error for a request that the server, or something in front of it, refuses as too large."""
    told = f": {said}" if said else ""
    return MessageTooLargeError(f"{address} refused a request as too large ({status}{told}); send fewer events at once")


def status_error(
    status: int,
    address: Address,
    said: str = "",
    *,
    retry_after: str = "",
    response: Response | None = None,
    outcome: Outcome | None = None,
) -> ServerError:
    """The error for an HTTP status other than success.

    Args:
        status: The status.
        address: The server.
        said: The peer's own words, or the reason of a Raccoon's answer (Link.words).
        retry_after: The header's value.
        response: A Raccoon's decoded answer, if it is one.
        outcome: The outcome of the events, if the status does not determine it.
    """
    if response is None:
        parts = [part for part in (said, http_advice(status)) if part]
        return ServerError(
            f"{address} answered {status}{': ' if parts else ''}{'; '.join(parts)}",
            status=status,
            retryable=status_is_retryable(status),
            outcome=outcome or http_outcome(status),
            retry_after_s=retry_after_s(retry_after),
            said=said,
        )
    # A failed publish may have published part of the batch.
    unread = response.code is Code.BAD_REQUEST and response.status is Status.ERROR
    return ServerError(
        f"{address} answered {status}: {response.code.name}{', ' if said else ''}{said}",
        response=response,
        status=status,
        retryable=status_is_retryable(status),
        outcome=http_outcome(status) if unread else Outcome.POSSIBLY_DELIVERED,
        retry_after_s=retry_after_s(retry_after),
    )


def _coding(body: bytes, header: Callable[[str], str]) -> str:
    """The Content-Encoding that makes the body unreadable, or "" (RFC 9110, 8.4); httpx may have undone it already."""
    try:
        body.decode()
    except UnicodeDecodeError:
        coding = header("content-encoding").strip()[:40]
        return "" if coding.lower() == "identity" else coding
    return ""


def _decode(body: bytes, wire: str) -> Response | None:
    if not body:
        return None
    # The server answers in the request's encoding. But it refuses an unknown content type with JSON that is labelled
    # with the type of the request. So both encodings are tried, whatever the label says. No answer in protobuf begins
    # with "{".
    for decode in _JSON_FIRST if wire == "json" or body.startswith(b"{") else _PROTO_FIRST:
        try:
            response = decode(body)
        except DecodeError:
            continue
        if response.status in _VERDICTS:  # a Raccoon always sends it; a gateway's {"code":2} is not a Raccoon's
            return response
    return None
