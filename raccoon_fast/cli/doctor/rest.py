"""REST checks without an event: whether a Raccoon is there, and whether it answers a request."""

from __future__ import annotations

import http.client
import ssl
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from raccoon_fast.cli.doctor.finding import FAIL, OK, WARN, Finding, Findings, fix_for_status
from raccoon_fast.cli.doctor.network import speaks_tls
from raccoon_fast.cli.doctor.way import open_secure, open_socket
from raccoon_fast.core.answers import decode_proto_answer
from raccoon_fast.errors import DecodeError
from raccoon_fast.events import Code, Status

if TYPE_CHECKING:
    from raccoon_fast.transports.base import Link

__all__ = ["check_rest"]

_MOST_BYTES = 65536  # bytes read of an answer; a proxy's page may be longer


def check_rest(link: Link, timeout_s: float) -> Findings[bool]:
    """Requests /ping, then sends a request without events; returns whether that was answered."""
    try:
        began_s = time.perf_counter()
        status, body = _ask(link, "GET", "/ping", timeout_s)
        took_ms = (time.perf_counter() - began_s) * 1e3
        if (status, body.strip()) == (200, b"pong"):
            yield Finding("ping", OK, f"/ping answers pong in {took_ms:.1f} ms, including the connection")
        else:
            fix = "is this a Raccoon? It is fine if a proxy only forwards the path of events"
            yield Finding("ping", WARN, f"/ping answers HTTP {status}: {_shown(body)}", fix)
        status, body = _ask(link, "POST", link.address.path, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        yield _unanswered(link, error, timeout_s)
        return False
    try:
        response = decode_proto_answer(body)
    except DecodeError:
        said = f"HTTP {status} to a request without events: {_shown(body)}"
        fix = "is this a Raccoon's port and path? The server here does not speak its protocol"
        yield Finding("rest", FAIL, said, fix if status == HTTPStatus.OK else fix_for_status(status))
        return False
    if response.status is Status.SUCCESS:
        yield Finding("rest", OK, "a request without events is answered")
        return True
    said = f"a request without events is answered {response.code.name}: {response.reason}"
    if response.code is Code.INTERNAL_ERROR:
        yield Finding("rest", WARN, said, "the server cannot publish: see its log")
        return True
    yield Finding("rest", FAIL, said, fix_for_status(status))
    return False


def _ask(link: Link, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    address = link.address
    connection = http.client.HTTPConnection(address.host, address.port)
    context = link.ssl_context()
    connection.sock = open_socket(link, timeout_s) if context is None else open_secure(link, context, timeout_s)
    try:
        headers = {"Host": address.authority, **link.request_headers(), "Content-Type": "application/proto"}
        connection.request(method, path, body=None if method == "GET" else b"", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES)
    finally:
        connection.close()


def _unanswered(link: Link, error: Exception, timeout_s: float) -> Finding:
    address = link.address
    if isinstance(error, ssl.SSLError) or (address.secure and isinstance(error, ConnectionError)):
        # With TLS 1.3 the server judges a client certificate after the handshake, and may send an alert or just close.
        fix = "does it want a client certificate, or another one? Set --cert and --key (RACCOON_FAST_TLS_CERT, _KEY)"
        return Finding("rest", FAIL, f"the server ended the connection: {error}", fix)
    if not address.secure and speaks_tls(link, timeout_s):
        return Finding("rest", FAIL, f"port {address.port} speaks TLS", "use https:// (wss:// for WebSocket)")
    if isinstance(error, TimeoutError):
        fix = "is this a port for HTTP? If it is, raise --timeout"
        return Finding("rest", FAIL, f"no answer within {timeout_s:g} s", fix)
    fix = "is this a port for HTTP? A Raccoon's default is 8080; 8081 is for gRPC (grpc://)"
    return Finding("rest", FAIL, f"no answer: {error or type(error).__name__}", fix)


def _shown(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return repr(text[:60] + "…" if len(text) > 60 else text)
