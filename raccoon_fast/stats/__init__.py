"""Numbers about delivery: what is counted, under which names, and what takes them.

Of each request, what is counted is named by the five constants; times are in milliseconds. Of each producer, the ledger
is read at an interval: see raccoon_fast.stats.ledger for its metrics. Sinks are StatsD
(raccoon_fast.stats.statsd, with DogStatsD), Prometheus, OpenTelemetry, or whatever the user counts with.
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
