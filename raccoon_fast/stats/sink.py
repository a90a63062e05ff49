"""The metrics of requests, and the interface of sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from raccoon_fast.logs import DEFAULT, resolve_logger
from raccoon_fast.stats.background import BackgroundSink, Writer
from raccoon_fast.stats.ledger import LEDGER
from raccoon_fast.threads import is_main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raccoon_fast.logs import Log
    from raccoon_fast.stats.ledger import Source
    from raccoon_fast.stats.ledger_totals import Key, LedgerValues

__all__ = [
    "ACK_TT_MS",
    "COUNTERS",
    "OFF",
    "SENT_TT_MS",
    "TIMINGS",
    "TOTAL_BYTES_RECIEVED",
    "TOTAL_BYTES_SENT",
    "TOTAL_CONN_ERR",
    "Measurement",
    "MetricsSink",
    "ledger_of",
    "resolve_stats",
]

SENT_TT_MS = "sent_tt_ms"
"""Timing: from the call until the request was written."""
ACK_TT_MS = "ack_tt_ms"
"""Timing: from that write until the answer."""
TOTAL_BYTES_SENT = "total_bytes_sent"
"""Counter: bytes written, including HTTP headers and the frames of WebSocket and HTTP/2."""
TOTAL_BYTES_RECIEVED = "total_bytes_recieved"
"""Counter: bytes read, counted in the same way. Dashboards use this spelling."""
TOTAL_CONN_ERR = "total_conn_err"
"""Counter: connections that failed, at connect or later."""

#: Descriptions for sinks that show them; units in UCUM notation.
TIMINGS = {
    SENT_TT_MS: "Milliseconds from the call until the request was written.",
    ACK_TT_MS: "Milliseconds from the request's write until its answer.",
}
COUNTERS = {
    TOTAL_BYTES_SENT: ("By", "Bytes written to servers."),
    TOTAL_BYTES_RECIEVED: ("By", "Bytes read from servers."),
    TOTAL_CONN_ERR: ("{error}", "Connections that failed, at connect or later."),
}


@runtime_checkable
class MetricsSink(Protocol):
    """The interface of `stats=`. It is called from any thread and from event loops, and must not block.

    If the object also has `ledger(measurements)`, it gets the ledger of each producer once a second and on close, as a
    list of Measurement, on a separate thread where it may block.
    """

    def timing(self, name: str, ms: float) -> object:
        """Records one duration in milliseconds."""

    def count(self, name: str, n: int) -> object:
        """Adds `n` to a counter."""


class Measurement(NamedTuple):
    """One value of the ledger, as passed to a sink's `ledger`.

    Attributes:
        name: The metric's name, such as "events.acked".
        kind: "counter", "gauge" or "histogram".
        value: The increase of a counter since the last call, the current value of a gauge, or one sample of a
            histogram.
        labels: The label values by name.
    """

    name: str
    kind: str
    value: float
    labels: dict[str, str]


def ledger_of(stats: MetricsSink) -> BackgroundSink | None:
    """The reader of producers' ledgers for a sink from `resolve_stats`; None if it reads none."""
    return stats.ledgers if isinstance(stats, _Guarded) else stats if isinstance(stats, BackgroundSink) else None


def resolve_stats(value: object, logger: object = DEFAULT) -> MetricsSink:
    """Turns the `stats` option into a sink that never raises.

    Args:
        value: None for no stats, a sink of this package, or an object with `timing` and `count` (see MetricsSink).
        logger: Logs once if the user's object raises. As for a client.

    Raises:
        TypeError: `value` lacks `timing` or `count`.
    """
    if value is None:
        return OFF
    if value is OFF or isinstance(value, (BackgroundSink, _Guarded)):
        return value
    if not isinstance(value, MetricsSink):
        raise TypeError(
            "stats must be a StatsD, DogStatsD, Prometheus or OpenTelemetry, an object with timing(name, ms) and "
            f"count(name, n), or None, not {value!r}"
        )
    return _Guarded(value, resolve_logger(logger))


class _Off:
    """Counts nothing."""

    def timing(self, name: str, ms: float) -> None:
        pass

    def count(self, name: str, n: int) -> None:
        pass


#: The result for None.
OFF = _Off()


class _Guarded:
    """Wraps a user's sink: its errors are logged once and not raised.

    Attributes:
        ledgers: Passes the ledger of producers to the user's sink, if it accepts one.
    """

    def __init__(self, sink: MetricsSink, log: Log) -> None:
        self._sink = sink
        self._log = log
        self._failed = False
        self.ledgers: BackgroundSink | None = None
        if callable(getattr(sink, "ledger", None)):
            self.ledgers = _Ledgers(sink, log)

    def timing(self, name: str, ms: float) -> None:
        try:
            self._sink.timing(name, ms)
        except BaseException as error:  # noqa: BLE001 - a fault of the user's sink must not cost an event or a thread
            self._report(error)

    def count(self, name: str, n: int) -> None:
        try:
            self._sink.count(name, n)
        except BaseException as error:  # noqa: BLE001 - as above
            self._report(error)

    def _report(self, error: BaseException) -> None:
        if not isinstance(error, Exception) and is_main():
            raise error  # it may be raised by a signal handler: Ctrl-C, or sys.exit()
        if not self._failed:
            self._failed = True
            self._log.error("the stats sink raised %r; further failures are not logged", error)


_FLUSH_S = 1.0
_METRICS = {metric.name: metric for metric in LEDGER}


class _Ledgers(BackgroundSink):
    """Reads producers for a user's sink."""

    def __init__(self, sink: Any, log: Log) -> None:
        self._sink = sink
        super().__init__(_FLUSH_S, log)

    def unwatch(self, source: Source) -> None:
        super().unwatch(source)
        self.close(0)  # it was the last one

    @property
    def _target(self) -> str:
        return "stats.ledger"

    def _new_writer(self) -> Writer:
        return _LedgerWriter(self._sink)


class _LedgerWriter(Writer):
    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._counted: dict[Key, int] = {}

    def write(self, timings: Sequence[tuple[str, float]], counts: Mapping[str, float]) -> None:
        pass  # the user's sink already gets these

    def write_ledger(self, values: LedgerValues) -> None:
        grown = ((key, total - self._counted.get(key, 0)) for key, total in values.counters.items())
        found = [*grown, *values.gauges.items(), *values.samples]
        self._sink.ledger([_measurement(key, value) for key, value in found])
        self._counted.update(values.counters)


def _measurement(key: Key, value: float) -> Measurement:
    metric = _METRICS[key[0]]
    return Measurement(metric.name, metric.kind, value, dict(zip(metric.labels, key[1], strict=False)))
