"""OpenTelemetry metrics: samples in the instruments of a meter, which the program exports as it does its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raccoon_fast.client_info import client_info
from raccoon_fast.logs import DEFAULT
from raccoon_fast.stats.instruments import InstrumentSink
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["OpenTelemetry"]


class OpenTelemetry(InstrumentSink):
    """Records timings in histograms, in milliseconds, and counts in counters, of the meter "raccoon_fast".

    Their names are `raccoon_fast.sent_tt_ms`, `raccoon_fast.total_bytes_sent` and so on. Needs the API only; without an
    SDK, nothing becomes of them. A forked child goes on from the values the parent had, as far as the SDK does.

    Args:
        meter_provider: Where the meter comes from; the global one when None, which may be set later.
        attributes: Of every sample.
        flush_interval: Seconds between two flushes.
        logger: As for a client (see raccoon_fast.logs).

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
    ) -> None:
        try:
            from opentelemetry import metrics
        except ImportError as error:
            raise ImportError(
                "OpenTelemetry needs one more package: pip install raccoon_fast[opentelemetry]"
            ) from error
        if not isinstance(meter_provider, (metrics.MeterProvider, type(None))):
            raise TypeError(f"meter_provider must be an OpenTelemetry MeterProvider, not {meter_provider!r}")
        if not isinstance(attributes, (Mapping, type(None))):
            raise TypeError(f"attributes must be a mapping of text to values, not {attributes!r}")
        meter = metrics.get_meter("raccoon_fast", client_info().version, meter_provider)
        with_attributes = dict(attributes or {})
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
            flush_interval,
            logger,
        )
