"""Prometheus: records samples in a registry of prometheus_client, exposed with the program's own metrics."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raccoon_fast.logs import DEFAULT
from raccoon_fast.stats.instruments import InstrumentSink
from raccoon_fast.stats.ledger import BUCKETS, LEDGER
from raccoon_fast.stats.ledger_totals import known_series
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

    from raccoon_fast.stats.ledger_totals import Key, LedgerValues

__all__ = ["Prometheus"]

_BUCKETS_MS = (0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)


class Prometheus(InstrumentSink):
    """Keeps timings as histograms, in milliseconds, and counters, in a registry.

    Their names are `raccoon_fast_sent_tt_ms`, `raccoon_fast_total_bytes_sent_total` and so on. The
    ledger of each producer is read every `flush_interval` (`raccoon_fast_events_accepted_total` and others).
    The sink serves no endpoint: use `prometheus_client.start_http_server` or your own. Several sinks on
    one registry share its metrics, each with its own labels. In a forked child the ledger starts at zero; the timings
    and the byte counters continue from the parent's values, as all metrics of prometheus_client do. With
    PROMETHEUS_MULTIPROC_DIR each process has its own values.

    Args:
        registry: A prometheus_client.CollectorRegistry; None uses prometheus_client's default.
        labels: Constant labels, such as {"producer": "orders"}; all sinks on one registry must use the same names.
        buckets: Upper bounds of the timings' buckets, in milliseconds.
        flush_interval: Seconds between two flushes: the largest age of scraped values.
        logger: As for a client (see raccoon_fast.logs).
        by_type: Split the counts of events by event type, in a label `type`: at most this many types, the rest is
            "other". All sinks on one registry must have it above 0, or all 0.

    Raises:
        TypeError, ValueError: An option is of the wrong type or out of range; the message names it.
        ImportError: prometheus-client is not installed.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        buckets: Sequence[float] = _BUCKETS_MS,
        flush_interval: float = 1.0,
        logger: object = DEFAULT,
        by_type: int = 0,
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise ImportError("Prometheus needs one more package: pip install 'raccoon_fast[prometheus]'") from error
        registry = prometheus_client.REGISTRY if registry is None else registry
        if not isinstance(registry, prometheus_client.CollectorRegistry):
            raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
        if not isinstance(labels, (Mapping, type(None))):
            raise TypeError(f"labels must be a mapping of text to text, not {labels!r}")
        labels = dict(labels or {})
        if taken := {*labels} & _TAKEN:
            raise ValueError(f"labels must not use the names of the ledger's labels: {', '.join(sorted(taken))}")
        known = _metrics_of(registry, tuple(labels), tuple(buckets), by_type=bool(by_type))
        timings, counters = known.timings, known.counters
        if labels:
            timings = {name: metric.labels(**labels) for name, metric in timings.items()}
            counters = {name: metric.labels(**labels) for name, metric in counters.items()}
        self._ledger = _Ledger(known, labels, [] if by_type else known_series())
        super().__init__(
            {name: metric.observe for name, metric in timings.items()},
            {name: metric.inc for name, metric in counters.items()},
            self._ledger.write,
            flush_interval,
            logger,
            by_type,
        )
        self._ledger.show()

    def _reset(self) -> None:
        super()._reset()
        self._ledger.forget()


_TAKEN = {"le", "type", *(label for metric in LEDGER for label in metric.labels)}
# How to combine the gauges of several processes.
_MODES = {"endpoint_up": "livemin"}


class _Known:
    """The metrics of one registry, created by the first sink on it.

    Args:
        registry: The registry.
        labels: The names of each sink's constant labels.
        buckets: The buckets of the timings.
        by_type: Whether counts of events have a label for the type.
    """

    def __init__(
        self, registry: CollectorRegistry, labels: tuple[str, ...], buckets: tuple[float, ...], *, by_type: bool
    ) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.labels = labels
        self.by_type = by_type
        self.pid = os.getpid()
        options: dict[str, Any] = {"namespace": "raccoon_fast", "registry": registry}
        self.timings: dict[str, Histogram] = {
            name: Histogram(name, text, labels, buckets=buckets, **options) for name, text in TIMINGS.items()
        }
        self.counters: dict[str, Counter] = {
            name: Counter(name, text, labels, **options) for name, (_, text) in COUNTERS.items()
        }
        # Whether each server is healthy according to each sink, by label values.
        self.up: dict[tuple[str, ...], dict[int, float]] = {}
        self.ledger: dict[str, Any] = {}
        for metric in LEDGER:
            names = (*labels, *metric.labels, *(["type"] if by_type and metric.counts_events else []))
            name = metric.name.replace(".", "_")
            if metric.kind == "counter":
                self.ledger[metric.name] = Counter(name, metric.text, names, **options)
            elif metric.kind == "gauge":
                mode: Any = _MODES.get(metric.name, "livesum")
                self.ledger[metric.name] = Gauge(name, metric.text, names, multiprocess_mode=mode, **options)
            else:
                self.ledger[metric.name] = Histogram(name, metric.text, names, buckets=BUCKETS[metric.name], **options)


class _Ledger:
    """One sink's share of the ledger's metrics, which others may share: it adds its values, and removes them again.

    Used on the sink's thread; `forget` is called in a forked child.

    Args:
        known: The registry's metrics.
        labels: The sink's labels.
        shown: Counters that exist from the start, at zero.
    """

    def __init__(self, known: _Known, labels: Mapping[str, str], shown: Sequence[Key]) -> None:
        self._known = known
        self._shown = shown
        self._labels = tuple(labels[name] for name in known.labels)
        self.forget()

    def forget(self) -> None:
        """Forget the written values: they belong to the parent."""
        self._written: dict[Key, float] = {}

    def show(self) -> None:
        """Create counters at zero, so that their first change is visible."""
        for name, values in self._shown:
            self._metric(name, values)

    def write(self, values: LedgerValues) -> None:
        """Set the metrics to these values."""
        self._begin_anew_in_child()
        written = self._written
        for key, value in (*values.counters.items(), *values.gauges.items()):
            if key[0] == "endpoint_up":
                self._show_up(key, value)
            elif value != written.get(key, None):
                self._metric(*key).inc(value - written.get(key, 0))
            written[key] = value
        for key in [*written.keys() - values.counters.keys() - values.gauges.keys()]:
            if key[0] == "endpoint_up":
                self._show_up(key, None)
            else:
                self._metric(*key).inc(-written[key])
            del written[key]
        for (name, labels), value in values.samples:
            self._metric(name, labels).observe(value)

    def _metric(self, name: str, labels: tuple[str, ...]) -> Any:
        metric = self._known.ledger[name]
        labels = self._labels + labels
        return metric.labels(*labels) if labels else metric

    def _show_up(self, key: Key, value: float | None) -> None:
        """A server is down if one of the sinks says so; without any sink its metric is removed."""
        labels = self._labels + key[1]
        by_sink = self._known.up.setdefault(labels, {})
        if value is not None:
            by_sink[id(self)] = value
        else:
            by_sink.pop(id(self), None)
        if by_sink or _is_multiprocess():  # this only removes values of dead processes
            self._metric(*key).set(min(by_sink.values(), default=1.0))
        else:
            self._known.ledger["endpoint_up"].remove(*labels)

    def _begin_anew_in_child(self) -> None:
        known = self._known
        if known.pid == os.getpid():
            return
        known.pid = os.getpid()
        known.up.clear()
        if not _is_multiprocess():  # in that mode each process has its own values
            for metric in known.ledger.values():
                metric.clear()
        self.show()


def _is_multiprocess() -> bool:
    from prometheus_client import values

    return values.ValueClass is not values.MutexValue


_known: weakref.WeakKeyDictionary[CollectorRegistry, _Known] = weakref.WeakKeyDictionary()


def _metrics_of(
    registry: CollectorRegistry, labels: tuple[str, ...], buckets: tuple[float, ...], *, by_type: bool
) -> _Known:
    if registry not in _known:
        _known[registry] = _Known(registry, labels, buckets, by_type=by_type)
    known = _known[registry]
    if {*known.labels} != {*labels}:
        raise ValueError(
            f"labels must have the same names as the first Prometheus on this registry, {known.labels}, not {labels}"
        )
    if known.by_type != by_type:
        raise ValueError(f"by_type must be {'above 0' if known.by_type else '0'}, as of the first one on this registry")
    return known
