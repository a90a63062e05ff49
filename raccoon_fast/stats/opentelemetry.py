"""OpenTelemetry metrics: records samples in the instruments of a meter, exported with the program's own metrics."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raccoon_fast.client_info import client_info
from raccoon_fast.logs import DEFAULT
from raccoon_fast.stats.instruments import InstrumentSink
from raccoon_fast.stats.ledger import BUCKETS, LEDGER, Metric
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    from raccoon_fast.stats.ledger_totals import LedgerValues

__all__ = ["OpenTelemetry"]


class OpenTelemetry(InstrumentSink):
    """Records timings in histograms, in milliseconds, and counts in counters, of the meter "raccoon_fast".

    Their names are `raccoon_fast.sent_tt_ms`, `raccoon_fast.total_bytes_sent` and so on. The ledger
    of each producer is read every `flush_interval` (`raccoon_fast.events.accepted` and others). Needs only the
    API; without an SDK the samples are discarded. In a forked child the ledger's counters and gauges start at zero; all
    other metrics continue from the parent's values, if the SDK does so.

    Args:
        meter_provider: The provider of the meter; None uses the global one, which may be set later.
        attributes: Attributes of every sample.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).
        by_type: Split the counts of events by event type, in an attribute `type`: at most this many types, the rest is
            "other".

    Raises:
        TypeError, ValueError: An option is of the wrong type or out of range; the message names it.
        ImportError: opentelemetry-api is not installed.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        attributes: Mapping[str, str | bool | int | float] | None = None,
        flush_interval: float = 1.0,
        logger: object = DEFAULT,
        by_type: int = 0,
    ) -> None:
        try:
            from opentelemetry import metrics
        except ImportError as error:
            raise ImportError(
                "OpenTelemetry needs one more package: pip install 'raccoon_fast[opentelemetry]'"
            ) from error
        if not isinstance(meter_provider, (metrics.MeterProvider, type(None))):
            raise TypeError(f"meter_provider must be an OpenTelemetry MeterProvider, not {meter_provider!r}")
        if not isinstance(attributes, (Mapping, type(None))):
            raise TypeError(f"attributes must be a mapping of text to values, not {attributes!r}")
        meter = metrics.get_meter("raccoon_fast", client_info().version, meter_provider)
        self._attributes = with_attributes = dict(attributes or {})
        self._histograms = {
            metric.name: meter.create_histogram(
                f"raccoon_fast.{metric.name}",
                metric.unit,
                metric.text,
                explicit_bucket_boundaries_advisory=BUCKETS[metric.name],
            )
            for metric in LEDGER
            if metric.kind == "histogram"
        }
        super().__init__(
            {
                name: functools.partial(
                    meter.create_histogram(f"raccoon_fast.{name}", "ms", text).record, attributes=with_attributes
                )
                for name, text in TIMINGS.items()
            },
            {
                name: functools.partial(
                    meter.create_counter(f"raccoon_fast.{name}", unit, text).add, attributes=with_attributes
                )
                for name, (unit, text) in COUNTERS.items()
            },
            self._take_ledger,
            flush_interval,
            logger,
            by_type,
        )
        # Last: it may be read as soon as it is registered.
        key: object = _GLOBAL if meter_provider in (None, metrics.get_meter_provider()) else meter_provider
        if key not in _observed:
            _observed[key] = []
            _observe(meter, _observed[key])
        _observed[key].append(self)

    def _reset(self) -> None:
        super()._reset()
        self._values: LedgerValues | None = None

    def _take_ledger(self, values: LedgerValues) -> None:
        self._values = values
        for (name, labels), value in values.samples:
            self._histograms[name].record(value, self._with(_METRICS[name], labels))

    def _with(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, Any]:
        return {**self._attributes, **dict(zip((*metric.labels, "type"), labels, strict=False))}


class _Global:
    """Represents the global provider, which may be set later."""


_GLOBAL = _Global()
_METRICS = {metric.name: metric for metric in LEDGER}
# A meter registers an instrument once, with its first callback. The callback asks all sinks, past ones included,
# because the last counts of a sink may be exported after it is closed and gone.
_observed: weakref.WeakKeyDictionary[object, list[OpenTelemetry]] = weakref.WeakKeyDictionary()


def _observe(meter: Meter, sinks: list[OpenTelemetry]) -> None:
    for metric in LEDGER:
        if metric.kind == "histogram":
            continue
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        callback = functools.partial(_observations, metric, sinks)
        create(f"raccoon_fast.{metric.name}", [callback], metric.unit, metric.text)


def _observations(metric: Metric, sinks: list[OpenTelemetry], options: CallbackOptions) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    found: Counter[tuple[tuple[str, Any], ...]] = Counter()
    for sink in [*sinks]:
        values = sink._values  # noqa: SLF001 - the other half of it
        if values is None:
            continue
        for (name, labels), value in (values.counters if metric.kind == "counter" else values.gauges).items():
            if name != metric.name:
                continue
            attributes = (*sink._with(metric, labels).items(),)  # noqa: SLF001 - as above
            if name == "endpoint_up":
                found[attributes] = min(found.get(attributes, 1), int(value))
            else:
                found[attributes] += value  # type: ignore[assignment]  # bytes and events are whole
    return [Observation(value, dict(attributes)) for attributes, value in found.items()]
