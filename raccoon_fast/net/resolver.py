"""Resolves names, again for each connection, because deployments change the addresses of a name."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import weakref
from typing import Any, TypeAlias

from raccoon_fast.threads import is_green, new_thread
from raccoon_fast.timeouts import shield

__all__ = ["AddrInfo", "is_literal", "look_up"]

#: An entry of the result of socket.getaddrinfo.
AddrInfo: TypeAlias = "tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]"

_STREAMS: dict[str, Any] = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
# Lookups in progress, so that an unresponsive name server costs only one thread per name.
_asked: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], asyncio.Future[list[AddrInfo]]]] = (
    weakref.WeakKeyDictionary()
)


async def look_up(host: str, port: int) -> list[AddrInfo]:
    """The addresses of a host, in the system's order of preference (RFC 6724).

    Args:
        host: A name in ASCII, or an IP address, which needs no lookup.
        port: The port for the results.

    Raises:
        OSError: The name has no address, or nobody answered (socket.gaierror).
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        if is_literal(host, family):
            sockaddr: tuple[str, int] | tuple[str, int, int, int] = (host, port)
            if family == socket.AF_INET6:
                sockaddr = (host, port, 0, 0)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr)]
    loop = asyncio.get_running_loop()
    asked = _asked.setdefault(loop, {})
    if (host, port) not in asked:
        asked[host, port] = future = loop.create_future()
        future.add_done_callback(lambda _: asked.pop((host, port)))
        try:
            new_thread(functools.partial(_ask, host, port, loop, future), "raccoon_fast-resolver").start()
        except RuntimeError:  # the interpreter is about to end, and cannot start threads
            future.cancel()
            found: list[AddrInfo] = await loop.getaddrinfo(host, port, **_STREAMS)  # type: ignore[assignment]
            return found
    return await shield(asked[host, port])


def _ask(host: str, port: int, loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[AddrInfo]]) -> None:
    """Resolve in a daemon thread that nothing waits for.

    An executor's threads are joined at exit, however long a lookup takes, and libuv's threads crash a forked child.
    """
    getaddrinfo: Any = socket.getaddrinfo
    if is_green():
        from gevent.monkey import get_original

        getaddrinfo = get_original("socket", "getaddrinfo")
    found: list[AddrInfo] | Exception
    try:
        found = list(dict.fromkeys(getaddrinfo(host, port, **_STREAMS)))  # a hosts file may contain duplicates
    except Exception as error:  # noqa: BLE001 - raised where it is awaited
        found = error
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_settle, future, found)


def _settle(future: asyncio.Future[list[AddrInfo]], found: list[AddrInfo] | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
        future.exception()  # the waiting task may be gone
    else:
        future.set_result(found)


def is_literal(host: str, family: int | None = None) -> bool:
    """Whether `host` is an IP address (of `family`, if given) that needs no lookup; an address with a zone does."""
    for one in (socket.AF_INET, socket.AF_INET6) if family is None else (family,):
        try:
            socket.inet_pton(one, host)
        except (OSError, ValueError):
            continue
        return True
    return False
