"""The answers of a Raccoon server, word for word, and the errors behind them."""

from __future__ import annotations

import time
from typing import Any, Final

from raccoon_fast.collector.go_json import decode_json_request, encode_json_answer
from raccoon_fast.collector.go_proto import decode_proto_request
from raccoon_fast.collector.messages import SendEventResponse

__all__ = [
    "DEFAULT_GROUP",
    "JSON",
    "PROTO",
    "decode_request",
    "duplicate_connection",
    "encode_answer",
    "failure",
    "max_connections",
    "success",
    "unreadable",
]

JSON: Final = "json"
PROTO: Final = "proto"

#: The group of a connection without a group header.
DEFAULT_GROUP: Final = "--default--"

_SUCCESS, _ERROR = 1, 2
_OK, _BAD_REQUEST, _INTERNAL_ERROR, _MAX_CONNECTIONS, _MAX_USERS = 1, 2, 3, 4, 5


def decode_request(data: bytes, encoding: str) -> Any:
    """Decode a request in PROTO or JSON.

    Returns:
        A SendEventRequest.

    Raises:
        MalformedRequest: The request is malformed; the message has the server's words.
        HandlerPanic: The server closes the connection and answers nothing.
    """
    return decode_json_request(data) if encoding == JSON else decode_proto_request(data)


def encode_answer(answer: Any, encoding: str) -> bytes:
    """Encode a SendEventResponse in PROTO or JSON."""
    if encoding == JSON:
        return encode_json_answer(answer)
    encoded: bytes = answer.SerializeToString()
    return encoded


def success(req_guid: str) -> Any:
    """The request was received or published, depending on event.ack."""
    return _answer(_SUCCESS, _OK, req_guid=req_guid)


def failure(req_guid: str, reason: str = "") -> Any:
    """The request's events were not published."""
    return _answer(_ERROR, _INTERNAL_ERROR, reason, req_guid)


def failure_without_guid(reason: str) -> Any:
    """The request could not be read off the connection."""
    return _answer(_ERROR, _INTERNAL_ERROR, reason)


def unreadable(reason: str, req_guid: str | None = None) -> Any:
    """The request could not be decoded; over WebSocket the answer has an empty guid, over REST no guid."""
    return _answer(_ERROR, _BAD_REQUEST, reason, req_guid)


def max_connections() -> Any:
    """Refuses a WebSocket connection because there are too many."""
    return _answer(_ERROR, _MAX_CONNECTIONS, "max connection reached")


def duplicate_connection(group: str, connection_id: str) -> Any:
    """Refuses a WebSocket connection because its group and id are already connected."""
    return _answer(_ERROR, _MAX_USERS, f"duplicated connection: [{group}] {connection_id},")


def _answer(status: int, code: int, reason: str = "", req_guid: str | None = None) -> Any:
    answer = SendEventResponse(status=status, code=code, sent_time=int(time.time()), reason=reason)
    if req_guid is not None:
        answer.data["req_guid"] = req_guid  # the constructor would copy a mapping in Python
    return answer
