"""Sends a probe event over each protocol: checks its acknowledgement, latency and the server's clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.cli.doctor.finding import FAIL, OK, WARN, Finding, Findings, fix_for
from raccoon_fast.clients.grpc import GrpcClient
from raccoon_fast.clients.rest import RestClient
from raccoon_fast.clients.websocket import WebSocketClient
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.errors import RaccoonError, ServerError
from raccoon_fast.events import Code
from raccoon_fast.serializers import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raccoon_fast.events import Response

__all__ = ["WAYS", "Way", "check_clock", "send_probe"]

_PROBE = b'{"probe":"raccoon-fast doctor"}'
_SLOW_ACK_MS = 1000.0
# The server sends its time in whole seconds.
_SKEW_S = 2.0


class Way(NamedTuple):
    """How to send a probe: its name in the report, the client class, and options of that client."""

    name: str
    client: Any
    options: Mapping[str, Any]


WAYS = {
    "rest": [Way("rest", RestClient, {"wire": "proto"}), Way("rest/json", RestClient, {"wire": "json"})],
    "websocket": [Way("ws", WebSocketClient, {"wire": "proto"}), Way("ws/json", WebSocketClient, {"wire": "json"})],
    "grpc": [Way("grpc", GrpcClient, {})],
}


def send_probe(way: Way, url: str, event_type: str, options: Mapping[str, Any]) -> Findings[Response | None]:
    """Sends one event, once.

    Args:
        way: How to send it.
        url: A URL of that protocol.
        event_type: The type of the event.
        options: The options of any client, see ClientOptions.

    Returns:
        The server's answer; None if it is not an acknowledgement.
    """
    check = f"ack {way.name}"
    once = RetryPolicy(max_attempts=1)
    try:
        with way.client(url, **{**options, "serializer": RAW, "retry": once}, **way.options) as client:
            acks = client.acks()
            response: Response = client.send([(event_type, _PROBE)]).response
            ack = acks.get(0)
    except RaccoonError as error:
        yield Finding(check, FAIL, f"not acknowledged: {error}", _fix(way, error))
        return None
    detail = f"{ack.ack_ms:.1f} ms after the event was written"
    if way.options.get("wire") == "json":
        detail += "; sent_time was read as an object of seconds and nanos"
    if ack.ack_ms > _SLOW_ACK_MS:
        fix = "does it acknowledge after publishing (event.ack=1)? Keep timeout= and delivery_timeout= well above that"
        yield Finding(check, WARN, detail, fix)
    else:
        yield Finding(check, OK, detail)
    return response


def check_clock(response: Response, began_s: float) -> Finding:
    """Compares the server's clock with ours, as precisely as whole seconds allow.

    Args:
        response: An answer that just arrived.
        began_s: time.time() before its request.
    """
    now_s = time.time()
    if not response.sent_time:
        return Finding("clock", WARN, "the server sent no time", "check whether a proxy answers instead of the server")
    # The server answered within this second, at some moment between the two times.
    ahead_s = max(0.0, response.sent_time - now_s) or min(0.0, response.sent_time + 1 - began_s)
    if abs(ahead_s) <= _SKEW_S:
        return Finding("clock", OK, "the server's clock is within about 2 s of this machine's")
    which = "ahead of" if ahead_s > 0 else "behind"
    fix = "synchronize both by NTP (timedatectl, chronyc tracking): events carry the times of the clients' clocks"
    return Finding("clock", WARN, f"the server's clock is {abs(ahead_s):,.0f} s {which} this machine's", fix)


def _fix(way: Way, error: RaccoonError) -> str:
    is_unread = isinstance(error, ServerError) and error.response and error.response.code is Code.BAD_REQUEST
    if is_unread and way.options.get("wire") == "json":
        return 'the server does not read JSON with sent_time as an object: use wire="proto"'
    return fix_for(error)
