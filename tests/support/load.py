"""Sends numbered events through a producer, and checks their outcomes against the collector's sink."""

from __future__ import annotations

import base64
import itertools
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patience import patient
from proxies import wait_for

from raccoon_fast import RAW, Producer

__all__ = ["CLOSED", "EVENTS", "FEW", "Load", "Log", "judge_a_mend", "wait_until_refused"]

#: The number of events in a scenario under load.
EVENTS = int(os.environ.get("RACCOON_FAST_PROXY_EVENTS", "200000"))
#: The number of events in a scenario that first refuses everything.
FEW = 5_000
#: A regular expression for the error after a proxy has closed the connection.
CLOSED = "closed the connection|was lost|reset the call|does not speak HTTP/2"

# In base64 these are 20 digits.
_ID_BYTES = 15
# A line torn by the collector's death has no closing quote, or is followed by the text of another line.
_RECORDED = re.compile(rb'"data":"([A-Za-z0-9+/]{20})[A-Za-z0-9+/=]*"')
_numbers = itertools.count()
_CHUNK = 1000
_FLUSH_S = patient(30.0)
_CLOSE_S = 5.0


class Log:
    """A logger that keeps messages as (level, text)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, msg: str, *args: object) -> None:
        self.lines.append(("info", msg % args if args else msg))

    def warning(self, msg: str, *args: object) -> None:
        self.lines.append(("warning", msg % args if args else msg))

    def error(self, msg: str, *args: object) -> None:
        self.lines.append(("error", msg % args if args else msg))


class Load:
    """A producer with distinguishable events; use it in `with`.

    Args:
        url: The producer's URL or URLs.
        sink: The file of the collector that receives all events.
        size: The size of an event in bytes, 15 or more.
        **options: Options of the producer.

    Attributes:
        producer: The producer; `judge` closes it.
        log: The producer's log messages.
    """

    def __init__(self, url: str | list[str], sink: Path, *, size: int = 100, **options: Any) -> None:
        self.log = Log()
        self.producer = Producer(url, **{"serializer": RAW, "logger": self.log, "batch_events": 500, **options})
        self._sink = sink
        self._sink_start = sink.stat().st_size if sink.exists() else 0
        self._padding = b"." * (size - _ID_BYTES)
        self._sent: dict[Any, list[bytes]] = {}
        self._accepted = 0

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.producer.close(timeout=0)

    def emit(self, count: int) -> None:
        """Emits this many events."""
        emit, sent, padding = self.producer.emit, self._sent, self._padding
        for number in itertools.islice(_numbers, count):
            event = b"%0*d" % (_ID_BYTES, number)
            sent.setdefault(emit("load", event + padding), []).append(event)
        self._accepted += count

    def run(
        self, count: int, during: Callable[[], object] | None = None, *, steps: int = 0, over_s: float = 0.0
    ) -> None:
        """Emits events while something happens to the server.

        Args:
            count: The number of events.
            during: Called `steps` times, after equal parts of the events have been acknowledged. It runs on the
                caller's thread, since Envoy ends with the thread that started it.
            steps: The number of calls.
            over_s: Seconds over which the events are spread, so that some are under way during the calls; 0.0 for none.
        """
        failed: list[BaseException] = []

        def emit() -> None:
            began_s = time.monotonic()
            try:
                for first in range(0, count, _CHUNK):
                    time.sleep(max(0.0, began_s + over_s * first / count - time.monotonic()))
                    self.emit(min(_CHUNK, count - first))
            except BaseException as error:  # noqa: BLE001 - raised again on the test's thread
                failed.append(error)

        thread = threading.Thread(target=emit, name="load")
        thread.start()
        try:
            for step in range(1, steps + 1):
                self.wait_for_acked(count * step // (steps + 2))
                assert during is not None
                during()
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def wait_for_acked(self, count: int, timeout_s: float = _FLUSH_S) -> None:
        """Waits until this many events are acknowledged."""
        deadline_s = time.monotonic() + timeout_s
        while self.producer.stats().total.acked < count:
            assert time.monotonic() < deadline_s, self.picture()
            time.sleep(0.002)

    def judge(self, flush_s: float = _FLUSH_S) -> Counter[bytes]:
        """Ends the load, and asserts that no event was lost or has a wrong outcome.

        Every acknowledged event was received. The ledger is balanced. Every event was acknowledged, because the server
        is healthy now and none had to expire. No more events arrived twice than the resends explain.

        Returns:
            How often each event was received.
        """
        unflushed = self.producer.flush(flush_s)
        report = self.producer.close(_CLOSE_S)
        picture = self.picture()
        total = report.total
        settled = total.acked + sum(total.failed.values()) + sum(total.dropped.values()) + total.expired
        settled += total.sampled + total.filtered + total.discarded
        assert total.accepted == settled + total.spooled + total.queued + total.in_flight == self._accepted, picture
        acked = [event for receipt, sent in self._sent.items() if receipt.exception(0) is None for event in sent]
        assert len(acked) == total.acked, picture
        received = self.received()
        lost = [event for event in acked if event not in received]
        assert lost == [], f"{len(lost)} acknowledged events were not received\n{picture}"
        assert (unflushed, total.acked) == (0, self._accepted), picture
        twice = sum(received.values()) - len(received)
        most = report.retries * self.producer._options.batch_events
        assert twice <= most, f"{twice} duplicates with {report.retries} retries\n{picture}"
        return received

    def received(self) -> Counter[bytes]:
        """How often each event has been received so far."""
        with self._sink.open("rb") as file:
            file.seek(self._sink_start)
            counts = Counter(_RECORDED.findall(file.read()))
        return Counter({base64.b64decode(text): times for text, times in counts.items()})

    def picture(self) -> str:
        """The state of the load, as the message of a failed assertion."""
        stats = self.producer.stats()
        lines = Counter(self.log.lines)
        said = "\n".join(f"  {times} x {level}: {text}" for (level, text), times in lines.most_common(20))
        failures = Counter(
            f"{type(error).__name__}: {error}" for error in map(_error_of, self._sent) if error is not None
        )
        why = "\n".join(f"  {times} x {text}" for text, times in failures.most_common(5))
        return f"{stats}\n{self.producer.health()}\nfailed batches:\n{why}\nlog:\n{said}"


def _error_of(receipt: Any) -> BaseException | None:
    error: BaseException | None = receipt.exception(0) if receipt.done() else None
    return error


def wait_until_refused(load: Load) -> None:
    """Waits until the producer has failed, and has had time for several more attempts."""
    wait_for(lambda: not load.producer.health().ok or load.producer.stats().total.lost > 0, "nothing fails")
    time.sleep(1.0)  # the first waits between attempts are about 0.1 s


def judge_a_mend(load: Load, said: str, mend: Callable[[], None]) -> None:
    """Asserts that nothing is settled and `said` is logged while all is refused; then `mend` must deliver all."""
    load.emit(FEW)
    wait_until_refused(load)
    producer = load.producer
    total = producer.stats().total
    assert (total.acked, total.lost) == (0, 0), load.picture()
    health = producer.health()
    assert not health.ok
    assert re.search(said, health.servers[0].last_error, re.IGNORECASE), load.picture()
    # A failure that no retry can repair is logged as an error. A proxy that closes the connection may be restarting.
    levels = ("error", "warning") if CLOSED in said else ("error",)
    lines = [text for level, text in load.log.lines if level in levels]
    assert re.search(said, "\n".join(lines), re.IGNORECASE), load.picture()
    assert not load.received()
    mend()
    load.judge()
