"""Spreads the connections to one name evenly over its addresses."""

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

# How long a failed address is tried last; longer if it fails again. Together with _LOOK_S it limits the
# time from a server's return to its share of the load: under a minute.
_AVOID_S = (10.0, 20.0, 30.0)
# A connection that lasts this long clears the earlier failures of its address.
_PROVEN_S = 60.0
# How often connections are counted: for a name with several addresses, and for a name with one.
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
    """Selects the address of the next connection, and the connections that should move.

    A new connection goes to the address with the fewest connections; recently failed addresses come last. From time to
    time the name is resolved and the connections are counted. If an address has two more than another, connections are
    asked to `move_on`, which they do when their requests are done. So a restarted or added server gets its share.

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
        """Count a connection that is opening to this address."""
        reserved = self._reserved
        reserved[host] += 1
        try:
            yield
        finally:
            reserved[host] -= 1

    def failed(self, hosts: Sequence[str]) -> None:
        """Note that these addresses did not accept a connection, or not before another one did."""
        now_s = time.monotonic()
        for host in hosts:
            times = self._avoided[host].times if host in self._avoided else 0
            seconds = _AVOID_S[min(times, len(_AVOID_S) - 1)]
            self._avoided[host] = _Avoided(now_s + seconds, times + 1)

    def opened(self, connection: Any, host: str, name: tuple[str, int], addresses: int) -> None:
        """Note that a connection is open.

        Args:
            connection: Has a `transport`, and a method `move_on` to leave this address.
            host: The address that it goes to.
            name: The host and port that were resolved.
            addresses: The number of addresses found.
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
            pass  # the next connection attempt reports it
        finally:
            self._looking = None
        self._settle()
        for connection in self._crowded({_host(info) for info in found}):
            connection.move_on()
        self._schedule(name, len(found))

    def _crowded(self, hosts: set[str]) -> list[Any]:
        """The connections that must move to make the counts even; they are no longer counted."""
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
        """Forget ended connections. If a connection ends by itself, the next one uses another address if possible."""
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
