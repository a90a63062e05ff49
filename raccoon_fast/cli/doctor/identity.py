"""Identity checks: which header the server reads ids from, and whether it refuses an id twice. Sends no event."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from raccoon_fast.cli.doctor.finding import FAIL, OK, WARN, Finding, Findings, fix_for, fix_for_status
from raccoon_fast.cli.doctor.way import open_socket
from raccoon_fast.core.answers import decode_proto_answer
from raccoon_fast.core.envelope import ProtoEnvelope
from raccoon_fast.errors import AckTimeoutError, DecodeError, RaccoonError, ServerError, TLSError
from raccoon_fast.events import Code
from raccoon_fast.timeouts import timeout
from raccoon_fast.transports.base import Request
from raccoon_fast.transports.grpc.transport import GrpcTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

    from raccoon_fast.transports.base import Identity, Link

__all__ = ["check_grpc", "check_websocket"]

#: Header names that servers commonly use, tried after the user's own.
_ID_HEADERS = ("X-User-ID", "X-Client-ID", "X-Device-ID", "X-Session-ID", "X-Connection-ID", "GO-User-ID")
_SILENT = logging.Logger("raccoon_fast.doctor", logging.CRITICAL + 1)


def check_websocket(link: Link, timeout_s: float) -> Findings[bool]:
    """Connects, finds the id header, and connects twice with one id; returns whether WebSocket works."""
    findings, works = asyncio.run(_examine_websocket(link, timeout_s))
    yield from findings
    return works


def check_grpc(link: Link, timeout_s: float) -> Findings[bool]:
    """Calls without an event, trying each id header; returns whether gRPC works with the user's header."""
    wanted = link.identity.id_header
    for name in dict.fromkeys((wanted, *_ID_HEADERS)):
        error = asyncio.run(_call(link, name, timeout_s))
        if error is not None and "id header missing" not in str(error):
            yield Finding("grpc", FAIL, str(error), _fix_for_grpc(error))
            return False
        if error is None:
            yield Finding("grpc", OK, "a request without events is answered")
            yield from _header_found("grpc", wanted, name)
            return name == wanted
    fix = "find out its SERVER_WEBSOCKET_CONN_ID_HEADER, and set --id-header (RACCOON_FAST_ID_HEADER, id_header=)"
    found = f"gRPC: the server requires an id, but reads none of {', '.join(_ID_HEADERS)}"
    yield Finding("id header", FAIL, found, fix)
    return False


# WebSocket


class _Refused(Exception):
    """The server accepted a connection and closed it at once."""

    def __init__(self, code: Code | None, said: str) -> None:
        super().__init__(said)
        self.code = code


async def _examine_websocket(link: Link, timeout_s: float) -> tuple[list[Finding], bool]:
    findings: list[Finding] = []
    try:
        async with _connected(link, link.identity.id_header, _new_id(), timeout_s) as (_, pong_s):
            findings.append(Finding("websocket", OK, f"connected; a pong came in {pong_s * 1e3:.1f} ms"))
    except InvalidStatus as error:
        status = error.response.status_code
        fix = "check the path in the URL; a proxy must forward Upgrade and Connection, and accept your credentials"
        return [Finding("websocket", FAIL, f"the server answered HTTP {status} to the handshake", fix)], False
    except _Refused as error:
        findings.append(Finding("websocket", FAIL, str(error), _fix_refusal(error)))
        return findings, False
    except (WebSocketException, OSError, asyncio.TimeoutError) as error:
        fix = "does a proxy in between not support WebSocket? REST (http://) may work"
        return [Finding("websocket", FAIL, f"no handshake: {error or type(error).__name__}", fix)], False
    wanted = link.identity.id_header
    try:
        for name in dict.fromkeys((wanted, *_ID_HEADERS)):
            if await _tells_apart(link, name, timeout_s):
                findings += _header_found("websocket", wanted, name)
                findings.append(await _examine_duplicate(link, name, timeout_s))
                break
        else:
            fix = "find out its SERVER_WEBSOCKET_CONN_ID_HEADER: without it the server accepts one connection at a time"
            findings.append(Finding("id header", FAIL, f"the server reads none of {', '.join(_ID_HEADERS)}", fix))
    except (_Refused, WebSocketException, OSError, asyncio.TimeoutError) as error:
        fix = _fix_refusal(error) if isinstance(error, _Refused) else fix_for_status(None)
        findings.append(Finding("id header", WARN, f"could not be determined: {error or type(error).__name__}", fix))
    return findings, True


async def _tells_apart(link: Link, name: str, timeout_s: float) -> bool:
    """Whether the server accepts two connections with different ids in a header; if not, both have the id ""."""
    try:
        async with _connected(link, name, _new_id(), timeout_s), _connected(link, name, _new_id(), timeout_s):
            return True
    except _Refused as error:
        if error.code is Code.MAX_USER_LIMIT_REACHED:
            return False
        raise


async def _examine_duplicate(link: Link, name: str, timeout_s: float) -> Finding:
    same = _new_id()
    async with _connected(link, name, same, timeout_s):
        try:
            async with _connected(link, name, same, timeout_s):
                detail = "a second connection with one id is accepted: several servers may share this address"
                return Finding("duplicate id", OK, detail)
        except _Refused as error:
            if error.code is not Code.MAX_USER_LIMIT_REACHED:
                raise
    detail = "a second connection with one id is refused; with a fixed user_id a reconnect may have to wait a minute"
    return Finding("duplicate id", OK, detail)


@contextlib.asynccontextmanager
async def _connected(
    link: Link, id_header: str, user_id: str, timeout_s: float
) -> AsyncIterator[tuple[ClientConnection, float]]:
    """A connection that the server accepted, and the seconds from a ping to its pong."""
    address = link.address
    loop = asyncio.get_running_loop()
    # Our own socket, as in a client: the library would use the proxy of the environment.
    sock = await loop.run_in_executor(None, open_socket, link, timeout_s)
    secure: dict[str, Any] = {}
    if address.secure:
        secure = {"ssl": link.ssl_context(), "server_hostname": link.server_hostname or address.server_name}
    headers = _headers_with(link, id_header, user_id)
    async with connect(
        address.uri,
        sock=sock,
        additional_headers={name: value for name, value in headers.items() if name != "User-Agent"},
        user_agent_header=link.user_agent,
        compression=None,
        open_timeout=timeout_s,
        close_timeout=1.0,
        logger=_SILENT,
        **secure,
    ) as connection:
        began_s = loop.time()
        try:
            async with timeout(timeout_s):
                await (await connection.ping())
        except ConnectionClosed as closed:
            raise await _refusal(connection, closed) from None
        yield connection, loop.time() - began_s


async def _refusal(connection: ClientConnection, closed: ConnectionClosed) -> _Refused:
    code = None
    with contextlib.suppress(ConnectionClosed, DecodeError):
        frame = await connection.recv()
        code = decode_proto_answer(frame if isinstance(frame, bytes) else frame.encode()).code
    return _Refused(code, f"the server closed the connection: {closed.rcvd or closed}")


def _fix_refusal(error: _Refused) -> str:
    if error.code is Code.MAX_CONNECTION_LIMIT_REACHED:
        return "the server is at its connection limit: raise the limit, or use http:// or grpc://"
    if error.code is Code.MAX_USER_LIMIT_REACHED:
        return "leave out --user-id, or wait: this id has an open connection, or one that broke less than a minute ago"
    return fix_for_status(None)


# gRPC


async def _call(link: Link, id_header: str, timeout_s: float) -> RaccoonError | None:
    """Sends a request without events, and returns its error."""
    envelope = ProtoEnvelope()
    request = Request(str(uuid.uuid4()), envelope, "proto", 0)
    envelope.stamp(request.req_guid, int(time.time()), 0)
    transport = GrpcTransport(dataclasses.replace(link, identity=_identity_with(link, id_header, _new_id())))
    try:
        await transport.send(request, timeout_s)
    except RaccoonError as error:
        return error
    finally:
        await transport.close()
    return None


def _fix_for_grpc(error: RaccoonError) -> str:
    if isinstance(error, TLSError):
        return fix_for(error)
    if isinstance(error, ServerError):
        return fix_for_status(error.status)
    return fix_for_status("DEADLINE_EXCEEDED" if isinstance(error, AckTimeoutError) else "UNAVAILABLE")


def _header_found(protocol: str, wanted: str, name: str) -> list[Finding]:
    if name == wanted:
        return [Finding("id header", OK, f"{protocol}: the server reads {name}")]
    fix = f"set --id-header {name} (RACCOON_FAST_ID_HEADER, id_header=)"
    return [Finding("id header", FAIL, f"{protocol}: the server reads {name}, not {wanted}", fix)]


def _headers_with(link: Link, id_header: str, user_id: str) -> dict[str, str]:
    return dataclasses.replace(link, identity=_identity_with(link, id_header, user_id)).request_headers()


def _identity_with(link: Link, id_header: str, user_id: str) -> Identity:
    return dataclasses.replace(link.identity, id_header=id_header, user_id=user_id)


def _new_id() -> str:
    return f"raccoon_fast-doctor-{uuid.uuid4().hex[:12]}"
