"""What accepting an event costs: Accumulator.emit and emit_many, sealing and the reuse of batches included.

    python benchmarks/bench_emit.py [--json]

200 B events as bytes, batches of 1000, one thread; CPU time, medians of interleaved rounds. Where confluent-kafka is
installed, its `produce` on its built-in mock cluster is measured in the same run (an application that waits for the
cluster is not: the queue is made large enough for a round, and flushed between rounds, unmeasured).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

EVENTS = 100_000
BATCH = 1000
ROUNDS = 9
DATA = bytes(200)


def accumulator(form: Any) -> Any:
    pool: list[Any] = []

    def make_batch() -> Any:
        batch = pool.pop() if pool else form.Batch("proto", 262_144)
        batch.receipt = object()
        return batch

    made = form.Accumulator(
        make_batch,
        serializer=None,
        wire="proto",
        max_events=BATCH,
        max_bytes=1 << 20,
        max_event_bytes=1 << 20,
        buffer_bytes=64 << 20,
    )

    def reuse() -> None:
        batch = made.take()
        made.release(batch.nbytes)
        batch.clear()
        pool.append(batch)

    made.on_sealed = reuse
    return made


def emit(form: Any, types: list[str]) -> Callable[[], None]:
    one = accumulator(form).emit
    names = [types[number % len(types)] for number in range(BATCH)]

    def case() -> None:
        for _ in range(EVENTS // BATCH):
            for name in names:
                one(name, DATA)

    return case


def emit_many(form: Any, types: list[str]) -> Callable[[], None]:
    many = accumulator(form).emit_many
    events = [(types[number % len(types)], DATA) for number in range(BATCH)]

    def case() -> None:
        for _ in range(EVENTS // BATCH):
            many(events)

    return case


def produce() -> Callable[[], None]:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": "ignored",
            "test.mock.num.brokers": 1,
            "queue.buffering.max.messages": 2 * EVENTS,
            "queue.buffering.max.kbytes": 1 << 20,
            "linger.ms": 5,
        }
    )
    send = producer.produce

    def case() -> None:
        for _ in range(EVENTS):
            send("topic", DATA)

    case.between = lambda: producer.flush(60)  # type: ignore[attr-defined]
    return case


def main() -> None:
    compiled, pure = (import_module(f"raccoon_fast.core._batch_{form}") for form in ("c", "py"))
    four = ["page", "click", "view", "order"]
    cases: dict[str, Callable[[], None]] = {
        "compiled emit": emit(compiled, ["page"]),
        "compiled emit, 4 types in turn": emit(compiled, four),
        "compiled emit_many": emit_many(compiled, ["page"]),
        "compiled emit_many, 4 types in turn": emit_many(compiled, four),
        "pure emit": emit(pure, ["page"]),
        "pure emit_many": emit_many(pure, ["page"]),
    }
    try:
        cases["confluent-kafka produce, mock cluster"] = produce()
    except ImportError:
        print("confluent-kafka is not installed: it is left out", file=sys.stderr)
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start_ns = time.thread_time_ns()
            case()
            figures[name].append((time.thread_time_ns() - start_ns) / EVENTS)
            getattr(case, "between", lambda: None)()
    medians = {name: round(statistics.median(values), 1) for name, values in figures.items()}
    if "--json" in sys.argv:
        print(json.dumps({"unit": "ns of CPU an event", "figures": medians}, indent=2))
        return
    for name, median in medians.items():
        print(f"{name:40} {median:9.1f} ns an event  {median / medians['compiled emit']:6.1f} x")


if __name__ == "__main__":
    main()
