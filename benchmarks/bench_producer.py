"""What an event costs a program's CPU, from emit_many to its acknowledgement, beside a bare sendall of the same bytes.

    python benchmarks/bench_producer.py [--json]

200 B events as bytes, batches of 1000, 8 in flight, against a collector with a null sink in a process of its own. CPU
time of the whole client process, user and system; each transport and the floor (a blocking `sendall` to a process that
discards what it reads) in turn, medians of the rounds. Every run asserts that every event was acknowledged.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection

from raccoon_fast import RAW, Producer
from raccoon_fast.collector import Collector

EVENTS = 500_000
BATCH = [("page", bytes(200))] * 1000
ROUNDS = 5


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def collect(pipe: Connection) -> None:
    with Collector(sink="null") as collector:
        pipe.send((collector.url, collector.ws_url, f"grpc://{collector.grpc_target}"))
        pipe.recv()


def discard(pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname())
        connection, _ = server.accept()
        buffer = bytearray(1 << 20)
        while connection.recv_into(buffer):
            pass


def run_producer(url: str) -> tuple[float, float]:
    """Nanoseconds of CPU an event, and events a second."""
    with Producer(url, serializer=RAW, logger=None) as producer:
        producer.emit_many(BATCH)
        assert producer.flush() == 0
        start_s, start_cpu_s = time.perf_counter(), cpu_s()
        for _ in range(EVENTS // len(BATCH)):
            producer.emit_many(BATCH)
        assert producer.flush(60) == 0
        taken_s, taken_cpu_s = time.perf_counter() - start_s, cpu_s() - start_cpu_s
    assert producer.report.total.acked == EVENTS + len(BATCH)
    return taken_cpu_s / EVENTS * 1e9, EVENTS / taken_s


def run_floor(connection: socket.socket) -> tuple[float, float]:
    message = bytes(len(BATCH) * 209)
    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    for _ in range(EVENTS // len(BATCH)):
        connection.sendall(message)
    return (cpu_s() - start_cpu_s) / EVENTS * 1e9, EVENTS / (time.perf_counter() - start_s)


def main() -> None:
    context = multiprocessing.get_context("spawn")
    pipes = []
    for target in (collect, discard):
        ours, theirs = context.Pipe()
        context.Process(target=target, args=(theirs,), daemon=True).start()
        pipes.append(ours)
    rest, websocket, grpc = pipes[0].recv()
    figures: dict[str, list[tuple[float, float]]] = {}
    with socket.create_connection(pipes[1].recv()) as connection:
        for _ in range(ROUNDS):
            figures.setdefault("sendall", []).append(run_floor(connection))
            for name, url in (("WebSocket", websocket), ("REST", rest), ("gRPC", grpc)):
                figures.setdefault(name, []).append(run_producer(url))
    pipes[0].send(None)
    floor = statistics.median(cpu for cpu, _ in figures["sendall"])
    table = {
        name: {
            "cpu_ns_an_event": round(statistics.median(cpu for cpu, _ in runs), 1),
            "times_the_floor": round(statistics.median(cpu for cpu, _ in runs) / floor, 2),
            "events_a_second": round(statistics.median(rate for _, rate in runs)),
        }
        for name, runs in figures.items()
    }
    if "--json" in sys.argv:
        print(json.dumps(table, indent=2))
        return
    for name, row in table.items():
        cpu, times, rate = row.values()
        print(f"{name:10} {cpu:7.1f} ns of CPU an event  {times:5.2f} x  {rate:>10,} events/s")


if __name__ == "__main__":
    main()
