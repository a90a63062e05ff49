"""Prometheus: samples in a registry of prometheus_client, which the program exposes as it does its own metrics."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raccoon_fast.logs import DEFAULT
from raccoon_fast.stats.instruments import InstrumentSink
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["Prometheus"]

_BUCKETS_MS = (0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)


class Prometheus(InstrumentSink):
    """Keeps timings as histograms, in milliseconds, and counters, in a registry.

    Their names are `raccoon_fast_sent_tt_ms`, `raccoon_fast_total_bytes_sent_total` and so on. Nothing is served here:
    `prometheus_client.start_http_server`, or the program's own endpoint, does that. Several on one registry share its
    metrics, each under its own labels. A forked child goes on from the values the parent had, as all metrics of
    prometheus_client do; with PROMETHEUS_MULTIPROC_DIR each process has its own.

    Args:
        registry: A prometheus_client.CollectorRegistry; prometheus_client's own when None.
        labels: Constant labels, such as {"producer": "orders"}; with one registry always of the same names.
        buckets: Upper bounds of the histograms' buckets, in milliseconds.
        flush_interval: Seconds between two flushes: how old what is scraped may be.
        logger: As for a client (see raccoon_fast.logs).

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
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise ImportError("Prometheus needs one more package: pip install raccoon_fast[prometheus]") from error
        registry = prometheus_client.REGISTRY if registry is None else registry
        if not isinstance(registry, prometheus_client.CollectorRegistry):
            raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
        if not isinstance(labels, (Mapping, type(None))):
            raise TypeError(f"labels must be a mapping of text to text, not {labels!r}")
        labels = dict(labels or {})
        timings, counters = _metrics_of(registry, tuple(labels), tuple(buckets))
        if labels:
            timings = {name: metric.labels(**labels) for name, metric in timings.items()}
            counters = {name: metric.labels(**labels) for name, metric in counters.items()}
        super().__init__(
            {name: metric.observe for name, metric in timings.items()},
            {name: metric.inc for name, metric in counters.items()},
            flush_interval,
            logger,
        )


_Metrics = tuple[dict[str, "Histogram"], dict[str, "Counter"]]
_known: weakref.WeakKeyDictionary[CollectorRegistry, tuple[tuple[str, ...], _Metrics]] = weakref.WeakKeyDictionary()


def _metrics_of(registry: CollectorRegistry, labels: tuple[str, ...], buckets: tuple[float, ...]) -> _Metrics:
    """The metrics of a registry, made with the first sink on it."""
    if registry in _known:
        names, metrics = _known[registry]
        if set(names) != set(labels):
            raise ValueError(
                f"labels must have the same names as the first Prometheus on this registry, {names}, not {labels}"
            )
        return metrics
    from prometheus_client import Counter, Histogram

    options: dict[str, Any] = {"labelnames": labels, "namespace": "raccoon_fast", "registry": registry}
    metrics = (
        {name: Histogram(name, text, buckets=buckets, **options) for name, text in TIMINGS.items()},
        {name: Counter(name, text, **options) for name, (_, text) in COUNTERS.items()},
    )
    _known[registry] = labels, metrics
    return metrics
