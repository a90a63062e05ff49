"""StatsD and DogStatsD: sends samples as text over UDP or a Unix socket."""

from __future__ import annotations

import functools
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raccoon_fast.logs import DEFAULT
from raccoon_fast.stats.background import BackgroundSink, Writer
from raccoon_fast.stats.ledger import LEDGER, plain_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statsd import StatsClient

    from raccoon_fast.stats.ledger_totals import Key, LedgerValues

__all__ = ["DogStatsD", "StatsD"]

_RESOLVE_EVERY_S = 60.0
_MAX_PACKET_BYTES = 1432  # one Ethernet frame, with room for IPv6 and a tunnel's header
_MAX_UNIX_BYTES = 8192  # what Datadog's own clients send at once
_UNIX_TIMEOUT_S = 0.1  # unlike UDP, a full queue blocks the sender; after this time the packet is dropped
# About 30 packets, which fit a default receive buffer on Linux (212,992 bytes); a longer burst loses its end.
_BURST = 1000
_PAUSE_S = 0.01
_LABELS = {metric.name: (*metric.labels, "type") for metric in LEDGER}
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")
# docs.datadoghq.com/getting_started/tagging: "Define tags".
_DATADOG_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]*:[A-Za-z0-9_.\-/:]*[A-Za-z0-9_.\-/]")
_DATADOG_TAG_LENGTH = 200
_DATADOG_OTHER = re.compile(r"[^A-Za-z0-9_.\-/:]|:\Z")
# docs.datadoghq.com/getting_started/tagging/unified_service_tagging, and for the last developers/dogstatsd: "Origin
# detection over UDP".
_DATADOG_VARIABLES = {
    "env": "DD_ENV",
    "service": "DD_SERVICE",
    "version": "DD_VERSION",
    "dd.internal.entity_id": "DD_ENTITY_ID",
}


class StatsD(BackgroundSink):
    """Sends timings and counters to a StatsD daemon over UDP, from a background thread.

    UDP does not report whether a daemon listens, so a missing daemon goes unnoticed. A host that cannot be resolved, or
    a missing Unix socket, is logged once and tried again at each flush. `timing` and `count` never block; see
    BackgroundSink.

    Args:
        host: The daemon's name or address, which is resolved again once a minute; or "unix:///path" of its
            datagram socket.
        port: Its UDP port; not used with a Unix socket.
        prefix: Put before each name, with a dot.
        tags: Sent with every sample as `|#key:value`, the format of DogStatsD, which the StatsD daemon accepts since
            0.9 (it passes them on as Graphite's `;key=value`), as do Telegraf and statsd_exporter.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).
        by_type: Split the counts of events by event type, in a tag `type`: at most this many types, the rest is
            "other".

    The ledger of each producer is also sent every `flush_interval`: counters as their increase, gauges as they
    are, batch sizes as timings; labels become tags. Gauges belong to one process: give each process its own tags or
    prefix to distinguish them.

    Names, prefix, tag keys and values may contain letters, digits, `_`, `.` and `-`: the daemon would parse anything
    else as syntax, or remove it. For other names `timing` and `count` raise ValueError.

    Raises:
        TypeError, ValueError: An option is of the wrong type or out of range; the message names it.
    """

    _timing_type = "ms"

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8125,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        flush_interval: float = 1.0,
        logger: object = DEFAULT,
        by_type: int = 0,
    ) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host must be a host name or address, not {host!r}")
        if not isinstance(port, int):
            raise TypeError(f"port must be an integer, not {port!r}")
        if not isinstance(tags, (Mapping, type(None))):
            raise TypeError(f"tags must be a mapping of text to text, not {tags!r}")
        if not host:
            raise ValueError("host must not be empty")
        if not 0 < port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {port!r}")
        self._path = host.removeprefix("unix://") if host.startswith("unix://") else ""
        if host.startswith("unix:") and (not self._path.startswith("/") or not hasattr(socket, "AF_UNIX")):
            raise ValueError(f"host must be a host name, an address, or unix:///path of a socket, not {host!r}")
        self._host = host
        self._port = port
        self._prefix = _checked("prefix", prefix) if prefix != "" else ""
        pairs = [self._tag(key, value) for key, value in (tags or {}).items()]
        self._suffix = "|#" + ",".join(pairs) if pairs else ""
        self._names: set[str] = set()
        _load_pipeline()  # here: a fork during an import on another thread would leave the child a locked import lock
        super().__init__(flush_interval, logger, by_type)

    @property
    def _target(self) -> str:
        return f"statsd at {self._host}" if self._path else f"statsd at {self._host}:{self._port}"

    @staticmethod
    def _tag(key: str, value: str) -> str:
        return f"{_checked('tags', key)}:{_checked('tags', value)}"

    def _add(self, sample: tuple[str, float, bool]) -> None:
        name = sample[0]
        if name not in self._names:
            self._names.add(_checked("name", name))
        super()._add(sample)

    def _new_writer(self) -> Writer:
        return _Sender(self._host, self._port, self._path, self._prefix, self._suffix, self._timing_type)


class DogStatsD(StatsD):
    """Like StatsD, in the dialect of a Datadog agent: timings are distributions, and tags follow Datadog's rules.

    Args:
        host: The agent's host, or "unix:///path" of its datagram socket; None reads DD_DOGSTATSD_URL (udp://host:port
            or unix:///path), or else DD_AGENT_HOST, or else localhost.
        port: Its UDP port; None reads DD_DOGSTATSD_URL, or else DD_DOGSTATSD_PORT, or else uses 8125.
        prefix: Put before each name, with a dot.
        tags: Sent with every sample. A key starts with a letter; besides letters, digits, `_`, `.` and `-` it may
            contain `/`, and a value `/` and `:`; key and value together have at most 200 characters. The tags env,
            service and version default to DD_ENV, DD_SERVICE and DD_VERSION, where `_` replaces other characters.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).
        by_type: As for StatsD.

    Raises:
        TypeError, ValueError: An option or a variable is of the wrong type or out of range; the message names it.
    """

    _timing_type = "d"

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        flush_interval: float = 1.0,
        logger: object = DEFAULT,
        by_type: int = 0,
    ) -> None:
        if not isinstance(tags, (Mapping, type(None))):
            raise TypeError(f"tags must be a mapping of text to text, not {tags!r}")
        found_host, found_port = _agent() if host is None else (host, None)
        super().__init__(
            found_host,
            found_port or _agent_port() if port is None else port,
            prefix=prefix,
            tags={**_unified_tags(), **(tags or {})},
            flush_interval=flush_interval,
            logger=logger,
            by_type=by_type,
        )

    @staticmethod
    def _tag(key: str, value: str) -> str:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"tags must be a mapping of text to text, not of {key!r} to {value!r}")
        tag = f"{key}:{value}"
        if len(tag) > _DATADOG_TAG_LENGTH or not _DATADOG_TAG.fullmatch(tag):
            raise ValueError(
                f"tags must start with a letter and contain only letters, digits, '_', '.', '-', '/' and ':', at most "
                f"{_DATADOG_TAG_LENGTH} of them, not {tag!r}"
            )
        return tag


def _unified_tags() -> dict[str, str]:
    """The tags from the environment. Platforms set it, so any value becomes a tag, as with Datadog's own clients."""
    tags = {}
    for key, name in _DATADOG_VARIABLES.items():
        value = os.environ.get(name, "")[: _DATADOG_TAG_LENGTH - len(f"{key}:")]
        if value:
            tags[key] = _DATADOG_OTHER.sub("_", value)
    return tags


def _agent_port() -> int:
    value = os.environ.get("DD_DOGSTATSD_PORT") or "8125"
    try:
        port = int(value)
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise ValueError(f"DD_DOGSTATSD_PORT must be from 1 to 65535, not {value!r}")
    return port


def _agent() -> tuple[str, int | None]:
    """The agent's address from the environment: the host or the URL of a Unix socket, and the port if given."""
    url = os.environ.get("DD_DOGSTATSD_URL")
    if not url:
        return os.environ.get("DD_AGENT_HOST") or "localhost", None
    parts = urlsplit(url)
    if parts.scheme in ("unix", "unixgram") and not parts.netloc and parts.path:
        return f"unix://{parts.path}", None
    try:
        if parts.scheme == "udp" and parts.hostname:
            return parts.hostname, parts.port
    except ValueError:  # of the port
        pass
    raise ValueError(f"DD_DOGSTATSD_URL must be udp://host:port or unix:///path, not {url!r}")


class _Sender(Writer):
    """Resolves the host, and sends packets."""

    def __init__(self, host: str, port: int, path: str, prefix: str, suffix: str, timing_type: str) -> None:
        self._host = host
        self._port = port
        self._path = path
        self._prefix = prefix
        self._suffix = suffix
        self._timing_type = timing_type
        self._client: StatsClient | None = None
        self._resolve_at_s = 0.0
        self._counted: dict[Key, int] = {}
        self._gauges: set[Key] = set()

    def write(self, timings: Sequence[tuple[str, float]], counts: Mapping[str, float]) -> None:
        pipeline = _load_pipeline()(self._connected(), self._suffix)
        for number, (name, ms) in enumerate(timings, 1):
            pipeline.duration(name, ms, self._timing_type)
            if number % _BURST == 0:
                pipeline.send()
                time.sleep(_PAUSE_S)
        for name, n in counts.items():
            pipeline.incr(name, n)
        pipeline.send()

    def write_ledger(self, values: LedgerValues) -> None:
        pipeline = _load_pipeline()(self._connected(), self._suffix)
        for key, total in values.counters.items():
            grown = total - self._counted.get(key, 0)
            if grown or key not in self._counted:  # a zero first, so that the first change shows
                pipeline.labelled(key[0], f"{grown}|c", _tags_of(key))
        for key, value in values.gauges.items():
            pipeline.labelled(key[0], f"{value:.0f}|g", _tags_of(key))
        # A daemon keeps a gauge forever. It keeps this value for a server that is no longer used.
        for key in self._gauges - values.gauges.keys():
            pipeline.labelled(key[0], "1|g" if key[0] == "endpoint_up" else "0|g", _tags_of(key))
        for number, (key, value) in enumerate(values.samples, 1):
            pipeline.labelled(key[0], f"{value:.0f}|{self._timing_type}", _tags_of(key))
            if number % _BURST == 0:
                pipeline.send()
                time.sleep(_PAUSE_S)
        pipeline.send()
        self._counted.update(values.counters)
        self._gauges = {*values.gauges}

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> StatsClient:
        """A client whose address is at most a minute old, because daemons move in a cluster."""
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

        if self._path:
            return _load_unix_client()(self._path, self._prefix or None)
        options = {"prefix": self._prefix or None, "maxudpsize": _MAX_PACKET_BYTES}
        try:
            return StatsClient(self._host, self._port, **options)
        except OSError:  # by default it looks for IPv4 only
            return StatsClient(self._host, self._port, ipv6=True, **options)


@functools.cache
def _load_pipeline() -> Any:
    from statsd.client.udp import Pipeline

    class TaggedPipeline(Pipeline):  # type: ignore[misc]
        """statsd's batch of samples, which does not support tags."""

        def __init__(self, client: StatsClient, suffix: str) -> None:
            super().__init__(client)
            self._suffix = suffix

        def duration(self, name: str, ms: float, kind: str) -> None:
            self._send_stat(name, f"{ms:.6f}|{kind}", 1)

        def labelled(self, name: str, sample: str, tags: str) -> None:
            """A sample with its own tags beside the sink's."""
            suffix = self._suffix
            if tags:
                self._suffix = f"{suffix},{tags}" if suffix else f"|#{tags}"
            self._send_stat(name, sample, 1)
            self._suffix = suffix

        def _after(self, data: str | None) -> None:
            super()._after(data + self._suffix if data else None)

    return TaggedPipeline


@functools.cache
def _load_unix_client() -> Any:
    from statsd import StatsClient

    class UnixClient(StatsClient):  # type: ignore[misc]
        """statsd's client over a Unix datagram socket; the library only has one for stream sockets.

        Raises:
            OSError: Nothing listens there.
        """

        def __init__(self, path: str, prefix: str | None) -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(path)
            self._addr = path  # not connected: a restarted agent makes a new socket
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.settimeout(_UNIX_TIMEOUT_S)
            self._prefix = prefix
            self._maxudpsize = _MAX_UNIX_BYTES

    return UnixClient


def _tags_of(key: Key) -> str:
    name, values = key
    return ",".join(f"{label}:{plain_label(value)}" for label, value in zip(_LABELS[name], values, strict=False))


def _checked(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be text, not {text!r}")
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{what} must be letters, digits, '_', '.' and '-', not {text!r}")
    return text
