"""Spreads the connections to one name over its addresses, and keeps them spread."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.net import resolver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raccoon_fast.net.resolver import AddrInfo

__all__ = ["Spread"]

# An address that failed is tried last for so long, and longer when it fails again. Together with _LOOK_S it bounds the
# time from a server's return to its share of the load: under a minute.
_AVOID_S = (10.0, 20.0, 30.0)
# A connection that lasted so long clears its address of what came before.
_PROVEN_S = 60.0
# How often connections are counted: where the name has several addresses, and where it had one only.
_LOOK_S = 15.0
_LOOK_ONE_S = 60.0


class _Open(NamedTuple):
    connection: weakref.ref[Any]
    host: str
    since_s: float


class _Avoided(NamedTuple):
    until_s: float
    times: int


class Spread:
    """Which address the next connection goes to; which connections should move to another one.

    A new connection goes to the address that has the fewest, those that failed lately last. From time to time the name
    is looked up and the connections are counted: where an address has two more than another one, connections are asked
    to `move_on`, which they do when their requests are done. So a server that was restarted, or added, gets its share.

    Shared by the connections of one event loop; on another loop, as after a fork, it starts afresh.
    """

    def __init__(self) -> None:
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._open: list[_Open] = []
        self._reserved: Counter[str] = Counter()
        self._avoided: dict[str, _Avoided] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def order(self, found: Sequence[AddrInfo]) -> list[AddrInfo]:
        """The addresses in the order in which to try them (RFC 8305, 4: families alternate)."""
        self._settle()
        counts = self._counts()
        now_s = time.monotonic()
        ordered = sorted(found, key=lambda info: (self._is_avoided(_host(info), now_s), counts[_host(info)]))
        families: dict[int, list[AddrInfo]] = {}
        for info in ordered:
            if not self._is_avoided(_host(info), now_s):
                families.setdefault(info[0], []).append(info)
        turns = max((len(infos) for infos in families.values()), default=0)
        alternating = [infos[turn] for turn in range(turns) for infos in families.values() if turn < len(infos)]
        return alternating + ordered[len(alternating) :]

    @contextlib.contextmanager
    def reserved(self, host: str) -> Iterator[None]:
        """Count a connection that is being opened to that address."""
        reserved = self._reserved
        reserved[host] += 1
        try:
            yield
        finally:
            reserved[host] -= 1

    def failed(self, hosts: Sequence[str]) -> None:
        """Those addresses did not take a connection, or not as soon as another one did."""
        now_s = time.monotonic()
        for host in hosts:
            times = self._avoided[host].times if host in self._avoided else 0
            seconds = _AVOID_S[min(times, len(_AVOID_S) - 1)]
            self._avoided[host] = _Avoided(now_s + seconds, times + 1)

    def opened(self, connection: Any, host: str, name: tuple[str, int], addresses: int) -> None:
        """A connection is open.

        Args:
            connection: Has a `transport` and, to leave this address, a method `move_on`.
            host: The address that it goes to.
            name: What was looked up: host and port.
            addresses: How many were found.
        """
        self._settle()
        if host in self._avoided:
            self._avoided[host] = self._avoided[host]._replace(until_s=0.0)
        self._open.append(_Open(weakref.ref(connection), host, time.monotonic()))
        if self._timer is None and self._looking is None and not resolver.is_literal(name[0]):
            self._schedule(name, addresses)

    def _schedule(self, name: tuple[str, int], addresses: int) -> None:
        self._timer = None
        if len(self._open) > 1:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LOOK_S if addresses > 1 else _LOOK_ONE_S, self._begin_look, name)

    def _begin_look(self, name: tuple[str, int]) -> None:
        self._timer = None
        self._looking = asyncio.ensure_future(self._look(name))

    async def _look(self, name: tuple[str, int]) -> None:
        found: Sequence[AddrInfo] = ()
        try:
            found = await resolver.look_up(*name)
        except OSError:
            pass  # whoever connects next says so
        finally:
            self._looking = None
        self._settle()
        for connection in self._crowded({_host(info) for info in found}):
            connection.move_on()
        self._schedule(name, len(found))

    def _crowded(self, hosts: set[str]) -> list[Any]:
        """The connections whose move to another address makes the counts even; no longer counted from here on."""
        now_s = time.monotonic()
        counts = self._counts()
        leaving = []
        free = [host for host in hosts if not self._is_avoided(host, now_s)]
        while free:
            most = max(hosts, key=lambda host: counts[host])
            least = min(free, key=lambda host: counts[host])
            if counts[most] < counts[least] + 2:
                break
            one = next(one for one in self._open if one.host == most)
            self._open.remove(one)
            counts[most] -= 1
            counts[least] += 1
            leaving.append(one.connection())
        return [connection for connection in leaving if connection is not None]

    def _counts(self) -> Counter[str]:
        return self._reserved + Counter(one.host for one in self._open)

    def _is_avoided(self, host: str, now_s: float) -> bool:
        return host in self._avoided and now_s < self._avoided[host].until_s

    def _settle(self) -> None:
        """Forget what has ended. Where a connection ended by itself, the next one goes elsewhere, if it can."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            self._loop = weakref.ref(loop)
            self._open, self._reserved, self._avoided, self._timer, self._looking = [], Counter(), {}, None, None
            return
        now_s = time.monotonic()
        ended = [one for one in self._open if _has_ended(one.connection())]
        if ended:
            self._open = [one for one in self._open if one not in ended]
            for one in ended:
                if now_s - one.since_s > _PROVEN_S:
                    self._avoided.pop(one.host, None)
            self.failed(sorted({one.host for one in ended}))


def _host(info: AddrInfo) -> str:
    return info[4][0]


def _has_ended(connection: Any) -> bool:
    return connection is None or connection.transport is None or connection.transport.is_closing()
