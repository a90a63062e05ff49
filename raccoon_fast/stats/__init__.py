"""Metrics of delivery: their names, how they are counted, and the sinks that receive them.

The five constants name the metrics per request; times are in milliseconds. The ledger of each producer
is read at an interval: see raccoon_fast.stats.ledger for its metrics. Sinks are StatsD
(raccoon_fast.stats.statsd, with DogStatsD), Prometheus, OpenTelemetry, or an object of the user.
"""

from __future__ import annotations

from raccoon_fast.stats.sink import (
    ACK_TT_MS,
    COUNTERS,
    OFF,
    SENT_TT_MS,
    TIMINGS,
    TOTAL_BYTES_RECIEVED,
    TOTAL_BYTES_SENT,
    TOTAL_CONN_ERR,
    Measurement,
    MetricsSink,
    resolve_stats,
)

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
    "resolve_stats",
]
