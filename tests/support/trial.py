"""Runs a producer under faults, and checks the outcomes of its events."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fault_proxy import FaultProxy
from patience import patient
from ports import free_port

from raccoon_fast import RAW, EventsRejectedError, Producer, RetryPolicy
from raccoon_fast.collector import Collector

SCHEMES = ("ws", "http", "grpc")


def port_of(collector: Collector, scheme: str) -> int:
    return collector.grpc_port if scheme.startswith("grpc") else collector.port


class Lines:
    """A logger that keeps its messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, *args: object) -> None:
        self.lines.append(msg % args)

    warning = error = info


class Trial:
    """A collector behind a proxy, and a producer that sends to the proxy.

    `judge` ends the trial and checks it as Kafka's own tests do: every acknowledged event was received; every accepted
    event has one outcome; memory is released; the producer makes progress once the faults are gone; close is in time.
    """

    def __init__(self, scheme: str, collector: Collector, **options: Any) -> None:
        self.collector = collector
        self.proxy = FaultProxy(port_of(collector, scheme)).__enter__()
        self.sent: dict[Any, list[bytes]] = {}
        self._number = 0
        options = {
            "serializer": RAW,
            "logger": None,
            "linger": 0.001,
            "batch_events": 10,
            "timeout": 0.5,
            "connect_timeout": 0.5,
            "retry": RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1),
            **options,
        }
        self.producer = Producer(f"{scheme}://127.0.0.1:{self.proxy.port}", **options)

    def emit(self, count: int = 50, size: int = 100) -> list[Any]:
        receipts = []
        for _ in range(count):
            self._number += 1
            data = b"%d " % self._number + bytes(size)
            receipt = self.producer.emit("fault", data)
            self.sent.setdefault(receipt, []).append(data)
            receipts.append(receipt)
        return list(dict.fromkeys(receipts))

    def heal(self) -> None:
        self.collector.faults.clear()
        self.proxy.heal()

    def judge(self, *, all_acked: bool = True) -> None:
        self.heal()
        self.emit(1)  # shows that the producer makes progress
        assert self.producer.flush(patient(20)) == 0, self.producer.stats()
        assert self.producer._accumulator.buffered == 0
        start_s = time.monotonic()
        report = self.producer.close(timeout=2.0)
        assert time.monotonic() - start_s < patient(5.0)
        total = report.total
        assert total.accepted == self._number == total.acked + total.lost
        acked = 0
        acked_data: set[bytes] = set()
        for receipt, sent in self.sent.items():
            error = receipt.exception(0)
            if error is None:
                acked_data.update(sent)
                acked += len(sent)
            elif isinstance(error, EventsRejectedError):
                acked += len(sent) - len(error.rejected)
        assert acked == total.acked
        # By default a server acknowledges before it publishes.
        self.collector.wait_until(lambda it: acked_data <= {event.data for event in it.events})
        if all_acked:
            assert total.acked == self._number
        self.proxy.__exit__()


class Server:
    """`raccoon-fast collect` in a separate process on fixed ports, which writes received events to a file."""

    def __init__(self, path: Path, *options: str) -> None:
        self._options = ["--sink", path, *options]
        self.port, self.grpc_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.grpc_port if scheme == 'grpc' else self.port}"

    def start(self) -> None:
        command = ["collect", "--port", self.port, "--grpc-port", self.grpc_port, "--quiet", *self._options]
        self.process = subprocess.Popen([sys.executable, "-m", "raccoon_fast.cli", *map(str, command)])

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
