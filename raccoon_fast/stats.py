"""Numbers about delivery, to a StatsD daemon or to whatever the user counts with.

What is counted, and under which name, is fixed by the five constants; times are in milliseconds.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from raccoon_fast.logs import CONSOLE, Log, resolve_logger
from raccoon_fast.threads import new_event, new_lock, new_thread

if TYPE_CHECKING:
    from statsd import StatsClient
    from statsd.client.udp import Pipeline

    from raccoon_fast.threads import Thread

__all__ = [
    "ACK_TT_MS",
    "SENT_TT_MS",
    "TOTAL_BYTES_RECIEVED",
    "TOTAL_BYTES_SENT",
    "TOTAL_CONN_ERR",
    "Stats",
    "StatsD",
    "resolve_stats",
]

SENT_TT_MS = "sent_tt_ms"
"""Timing: from the call until the request was written."""
ACK_TT_MS = "ack_tt_ms"
"""Timing: from that write until the answer."""
TOTAL_BYTES_SENT = "total_bytes_sent"
"""Counter: bytes written, HTTP heads and WebSocket frames included (gRPC: those of the messages)."""
TOTAL_BYTES_RECIEVED = "total_bytes_recieved"
"""Counter: bytes read, counted as those written. Dashboards know it by this spelling."""
TOTAL_CONN_ERR = "total_conn_err"
"""Counter: connections that failed, at connect or later."""


@runtime_checkable
class Stats(Protocol):
    """What `stats=` takes. Called from any thread and from event loops: it must not block."""

    def timing(self, name: str, ms: float) -> object:
        """Takes one measured duration, in milliseconds."""

    def count(self, name: str, n: int) -> object:
        """Adds `n` to a counter."""


class StatsD:
    """Sends timings and counters to a StatsD daemon over UDP, behind the callers' backs.

    `timing` and `count` only append to a bounded deque: no lock, no socket, no look-up of names. One daemon thread,
    started with the first sample and anew in a forked child, sends what has gathered every `flush_interval`; counters
    are added up first. UDP tells nobody whether a daemon listens, so an absent one goes unnoticed; a host that cannot
    be resolved is logged once and tried again at each flush.

    Args:
        host: The daemon's name or address; looked up by the thread, and again once a minute.
        port: Its UDP port.
        prefix: Put before each name, with a dot.
        tags: Sent with every sample as `|#key:value`, the form of DogStatsD, which the StatsD daemon understands since
            0.9 (it hands them on as Graphite's `;key=value`), and Telegraf and statsd_exporter do as well.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).

    Names, prefix, tag keys and values are letters, digits, `_`, `.` and `-`: the daemon would take anything else for
    syntax, or strip it.

    Raises:
        TypeError, ValueError: An option is of the wrong type or out of range; the message names it.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8125,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        flush_interval: float = 1.0,
        logger: object = CONSOLE,
    ) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host must be a host name or address, not {host!r}")
        if not isinstance(port, int):
            raise TypeError(f"port must be an integer, not {port!r}")
        if not isinstance(flush_interval, (int, float)):
            raise TypeError(f"flush_interval must be a number of seconds, not {flush_interval!r}")
        if not isinstance(tags, (Mapping, type(None))):
            raise TypeError(f"tags must be a mapping of text to text, not {tags!r}")
        if not host:
            raise ValueError("host must not be empty")
        if not 0 < port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {port!r}")
        if not 0 < flush_interval < threading.TIMEOUT_MAX:
            raise ValueError(f"flush_interval must be above 0 and finite, not {flush_interval!r}")
        self._host = host
        self._port = port
        self._prefix = _checked("prefix", prefix) if prefix != "" else ""
        pairs = [f"{_checked('tags', key)}:{_checked('tags', value)}" for key, value in (tags or {}).items()]
        self._suffix = "|#" + ",".join(pairs) if pairs else ""
        self._flush_interval_s = flush_interval
        self._log = resolve_logger(logger)
        self._names: set[str] = set()
        self._closed = False
        self._thread: Thread | None
        self._reset()
        _load_pipeline()  # here, since a thread in the middle of an import at a fork would leave its lock to the child
        _open.add(self)

    @property
    def dropped(self) -> int:
        """How many samples were not sent, because too many came within one flush, or the host was not resolved."""
        return self._dropped

    def timing(self, name: str, ms: float) -> None:
        """Takes one measured duration, in milliseconds. Never blocks.

        Raises:
            ValueError: `name` has characters that StatsD cannot carry.
        """
        self._add((name, ms, True))

    def count(self, name: str, n: int = 1) -> None:
        """Adds `n` to a counter. Never blocks.

        Raises:
            ValueError: `name` has characters that StatsD cannot carry.
        """
        self._add((name, n, False))

    def close(self, timeout: float = 1.0) -> None:
        """Sends what has gathered, waiting for it at most `timeout` seconds. Later samples are ignored.

        Leaving a `with` block calls it, and so does the interpreter's exit.
        """
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def __enter__(self) -> StatsD:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _add(self, sample: tuple[str, float, bool]) -> None:
        if self._closed:
            return
        name = sample[0]
        if name not in self._names:
            self._names.add(_checked("name", name))
        if len(self._samples) >= _MAX_SAMPLES:
            self._dropped += 1
            return
        self._samples.append(sample)
        if self._thread is None and self._starting.acquire(blocking=False):
            self._start()

    def _start(self) -> None:
        thread = new_thread(self._run, "raccoon-fast-statsd")
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads, or the interpreter is shutting down
            self._starting.release()
            return
        self._thread = thread

    def _reset(self) -> None:
        """Begins anew, also in a forked child, where the thread is gone and the parent's samples are not ours."""
        self._samples: deque[tuple[str, float, bool]] = deque()
        self._dropped = 0
        self._thread = None
        self._starting = new_lock()
        self._wake = new_event()

    def _run(self) -> None:
        sender = _Sender(self._host, self._port, self._prefix, self._suffix, self._log)
        try:
            while not self._wake.wait(self._flush_interval_s):
                self._flush(sender)
            self._flush(sender)
        finally:
            sender.close()

    def _flush(self, sender: _Sender) -> None:
        samples = self._samples
        batch = [samples.popleft() for _ in range(len(samples))]
        if batch:
            unsent = sender.send(batch)  # apart from the +=, whose left side is read first: callers add to it meanwhile
            self._dropped += unsent


class _Sender:
    """The thread's side of a StatsD: adds up, resolves, sends."""

    def __init__(self, host: str, port: int, prefix: str, suffix: str, log: Log) -> None:
        self._host = host
        self._port = port
        self._prefix = prefix
        self._suffix = suffix
        self._log = log
        self._client: StatsClient | None = None
        self._resolve_at_s = 0.0
        self._failed = False

    def send(self, samples: list[tuple[str, float, bool]]) -> int:
        """Sends `samples`; returns how many could not be sent."""
        try:
            client = self._connected()
            pipeline = _load_pipeline()(client, self._suffix)
            counters: dict[str, float] = {}
            timings = 0
            for name, value, is_timing in samples:
                if not is_timing:
                    counters[name] = counters.get(name, 0) + value
                    continue
                pipeline.timing(name, value)
                timings += 1
                if timings % _BURST == 0:
                    pipeline.send()
                    time.sleep(_PAUSE_S)
            for name, n in counters.items():
                pipeline.incr(name, n)
            pipeline.send()
        except Exception as error:  # noqa: BLE001 - the numbers must not end the thread that sends the next ones
            if not self._failed:
                self._failed = True
                self._log.warning("statsd at %s:%d: %s; not logged again", self._host, self._port, error)
            return len(samples)
        return 0

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> StatsClient:
        """A client whose address is at most a minute old: in a cluster the daemon moves."""
        now_s = time.monotonic()
        if self._client is not None and now_s < self._resolve_at_s:
            return self._client
        try:
            client = self._resolved()
        except OSError:
            if self._client is None:
                raise
            client = self._client  # the old address is better than none
        else:
            self.close()
        self._client = client
        self._resolve_at_s = now_s + _RESOLVE_EVERY_S
        return client

    def _resolved(self) -> StatsClient:
        from statsd import StatsClient

        options = {"prefix": self._prefix or None, "maxudpsize": _MAX_PACKET_BYTES}
        try:
            return StatsClient(self._host, self._port, **options)
        except OSError:  # it looks for IPv4 alone unless told otherwise
            return StatsClient(self._host, self._port, ipv6=True, **options)


@functools.cache
def _load_pipeline() -> type[Pipeline]:
    from statsd.client.udp import Pipeline

    class TaggedPipeline(Pipeline):  # type: ignore[misc]
        """statsd's batch of samples, which has no notion of tags."""

        def __init__(self, client: StatsClient, suffix: str) -> None:
            super().__init__(client)
            self._suffix = suffix

        def _after(self, data: str | None) -> None:
            super()._after(data + self._suffix if data else None)

    return TaggedPipeline


class _Off:
    """Counts nothing."""

    def timing(self, name: str, ms: float) -> None:
        pass

    def count(self, name: str, n: int) -> None:
        pass


class _Guarded:
    """A user's Stats, whose failures are logged once and go no further."""

    def __init__(self, stats: Stats, log: Log) -> None:
        self._stats = stats
        self._log = log
        self._failed = False

    def timing(self, name: str, ms: float) -> None:
        try:
            self._stats.timing(name, ms)
        except Exception as error:  # noqa: BLE001 - a fault of the user's stats must not cost an event
            self._report(error)

    def count(self, name: str, n: int) -> None:
        try:
            self._stats.count(name, n)
        except Exception as error:  # noqa: BLE001 - as above
            self._report(error)

    def _report(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._log.error("stats failed: %r; not logged again", error)


def resolve_stats(value: object, logger: object = CONSOLE) -> Stats:
    """Turns the `stats` option into what the package counts with; it never raises.

    Args:
        value: None for no stats, a StatsD, or an object with `timing` and `count` (see Stats).
        logger: Told, once, when the user's object raises. As for a client.

    Raises:
        TypeError: `value` lacks `timing` or `count`.
    """
    if value is None:
        return _Off()
    if isinstance(value, (StatsD, _Off, _Guarded)):
        return value
    if not isinstance(value, Stats):
        raise TypeError(f"stats must be a StatsD, have timing(name, ms) and count(name, n), or be None, not {value!r}")
    return _Guarded(value, resolve_logger(logger))


_MAX_SAMPLES = 65536  # of one flush; bounds the memory (about 10 MB) while a look-up of the host hangs
_RESOLVE_EVERY_S = 60.0
_MAX_PACKET_BYTES = 1432  # one Ethernet frame, with room for IPv6 and a tunnel's header
# Some 30 packets, which fit a receive buffer of Linux's default size (212,992 bytes); a longer burst loses its end.
_BURST = 1000
_PAUSE_S = 0.01
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")
_open: weakref.WeakSet[StatsD] = weakref.WeakSet()


def _checked(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be text, not {text!r}")
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{what} must be letters, digits, '_', '.' and '-', not {text!r}")
    return text


def _begin_anew_after_fork() -> None:
    for stats in _open:
        stats._reset()  # noqa: SLF001 - the hook is the class's own; it holds instances weakly


def _close_at_exit() -> None:
    for stats in list(_open):
        stats.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
atexit.register(_close_at_exit)
