"""What an HTTP answer means: shared by REST over our own connections, REST over httpx, and the WebSocket handshake."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer
from raccoon_fast.errors import DecodeError, MessageTooLargeError, Outcome, ProtocolError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.events import Response
    from raccoon_fast.transports.address import Address

__all__ = ["CONTENT_TYPES", "read_answer", "retry_after_s", "status_error", "status_is_retryable"]

#: The server compares these to the letter: a charset parameter is refused with 400.
CONTENT_TYPES = {"proto": "application/proto", "json": "application/json"}

_MAX_RETRY_AFTER_S = 300.0
_PROTO_FIRST = (decode_proto_answer, decode_json_answer)
_JSON_FIRST = (decode_json_answer, decode_proto_answer)


def status_is_retryable(status: int) -> bool:
    """408, 429 and every 5xx may pass; other statuses will not change by asking again."""
    return status in (408, 429) or 500 <= status <= 599


def retry_after_s(value: str) -> float | None:
    """Seconds in a Retry-After header (RFC 9110 10.2.3): a number, or a date; kept within 0 to 300; None if unreadable.

    A date is turned into a span at once, so that a clock set later cannot stretch the wait.
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
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def read_answer(
    status: int, body: bytes, header: Callable[[str], str], *, wire: str, req_guid: str, address: Address
) -> Response:
    """Turn an HTTP answer to an events request into a Response.

    A Raccoon's answer is decoded whatever the status; the status decides where the two disagree.

    Args:
        status: Its status.
        body: The whole of it.
        header: Returns a header's first value, or "", for a name in lower case.
        wire: The request's encoding, "proto" or "json".
        req_guid: The request's guid.
        address: The server, for errors.

    Raises:
        ServerError: A status other than 200 without an answer of a Raccoon in it.
        MessageTooLargeError: 413.
        ProtocolError: 200, and not an answer of a Raccoon, or the answer to another request.
    """
    if status == 413:
        raise MessageTooLargeError(f"{address} refused a request as too large (413); send fewer events at once")
    response = _decode(body, wire)
    if status == 200:
        if response is None:
            content_type = header("content-type") or "no content type"
            raise ProtocolError(
                f"{address} answered 200 with {content_type} that is not a Raccoon's answer "
                f"({body[:60]!r}); is this a Raccoon server?"
            )
        if response.req_guid != req_guid:
            raise ProtocolError(f"{address} answered for {response.req_guid!r} when asked about {req_guid!r}")
        return response
    raise status_error(status, address, retry_after=header("retry-after"), response=response)


def status_error(
    status: int, address: Address, *, retry_after: str = "", response: Response | None = None
) -> ServerError:
    """The error for an HTTP status other than success."""
    if response is not None and response.reason:
        why = f": {response.code.name}, {response.reason}"
    elif 300 <= status <= 399:
        why = ": redirects are not followed, give the server's own URL"
    elif status == 404:
        why = ": no Raccoon at this path, give the URL without a path or with /api/v1/events"
    else:
        why = ""
    return ServerError(
        f"{address} answered {status}{why}",
        response=response,
        status=status,
        retryable=status_is_retryable(status),
        # A failed publish may have published a part of the batch.
        outcome=Outcome.POSSIBLY_DELIVERED if status >= 500 else Outcome.NOT_DELIVERED,
        retry_after_s=retry_after_s(retry_after),
    )


def _decode(body: bytes, wire: str) -> Response | None:
    if not body:
        return None
    # The server answers in the request's encoding, except that it refuses a content type it does not know in JSON under
    # the type that was sent: so either encoding is tried, whatever is announced. No answer in protobuf begins with "{".
    for decode in _JSON_FIRST if wire == "json" or body.startswith(b"{") else _PROTO_FIRST:
        try:
            response = decode(body)
        except DecodeError:
            continue
        if response.status or response.code:
            return response
    return None
