"""JSON encoders on events: which one `JSON` should be.

    python benchmarks/bench_json.py

Each figure is the median of interleaved rounds in this one process; the ratios are to orjson. msgspec is
measured where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson

FLIGHT = {
    "year": 2013,
    "month": 1,
    "day": 1,
    "dep_time": 517.0,
    "sched_dep_time": 515,
    "dep_delay": 2.0,
    "arr_time": 830.0,
    "sched_arr_time": 819,
    "arr_delay": 11.0,
    "carrier": "UA",
    "flight": 1545,
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "air_time": 227.0,
    "distance": 1400,
    "hour": 5,
    "minute": 15,
    "time_hour": "2013-01-01T10:00:00Z",
}
PAGE = {
    "id": "7f3e4f5e-53c5-4b8a-9c2f-0a3b6a1b2c3d",
    "user": "u-1234567",
    "name": "page-viewed",
    "page": "/home/orders/history",
    "ts": 1700000000123,
    "lat": -6.2,
    "lng": 106.816,
    "tags": ["a", "b"],
    "source": "bench",
    "ok": True,
}
ROUNDS = 15
CALLS = 5_000


def encoders() -> dict[str, Callable[[Any], bytes]]:
    found: dict[str, Callable[[Any], bytes]] = {
        "orjson": orjson.dumps,
        "json": lambda data: json.dumps(data, separators=(",", ":")).encode(),
    }
    if importlib.util.find_spec("msgspec"):
        found["msgspec"] = importlib.import_module("msgspec.json").Encoder().encode
    return found


def ns_per_call(encode: Callable[[Any], bytes], data: Any) -> float:
    start = time.perf_counter_ns()
    for _ in range(CALLS):
        encode(data)
    return (time.perf_counter_ns() - start) / CALLS


def main() -> None:
    candidates = encoders()
    for label, data in (("flight", FLIGHT), ("page", PAGE)):
        rounds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(ROUNDS):
            for name, encode in candidates.items():
                rounds[name].append(ns_per_call(encode, data))
        medians = {name: statistics.median(times) for name, times in rounds.items()}
        base = medians["orjson"]
        print(f"{label}, {len(candidates['orjson'](data))} B")
        for name, median in medians.items():
            print(f"  {name:8} {median:7.0f} ns  {median / base:5.2f}")


if __name__ == "__main__":
    main()
