"""An open loop: events are emitted when they are due, whether earlier ones were acknowledged or not.

Strategy. Time is divided into ticks. The events of a tick are emitted at its start, and their latency counts from that
start. If an emit is late, because the previous one took long, the machine was busy or this process was stopped, the
delay counts as latency (no coordinated omission). Overdue events are emitted at once. The load ends when everything was
emitted, or when its time is over: the requested seconds plus the pauses. The acknowledgement time of an event comes
from its batch: the time when the batch was opened, plus the durations in its acknowledgement, which the producer's loop
measures.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.cli.summary import Latencies
from raccoon_fast.errors import BufferFull
from raccoon_fast.events import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from raccoon_fast.events import Ack
    from raccoon_fast.producers.producer import Producer

__all__ = ["Step", "run_step"]

_TICK_S = 0.001
_DRAIN_POLL_S = 0.002
_POLL_S = 0.1
# A tick that takes this long was interrupted: the process was stopped, or got no CPU time.
_PAUSE_S = 0.25
# A machine that cannot emit fast enough may take this many times the requested seconds.
_MOST_LATE_S = 1.0


class Step(NamedTuple):
    """The result of the load at one rate.

    Attributes:
        rate: Events due per second.
        due: All events that were due.
        emitted: Events that the producer accepted.
        acknowledged: Events that the server acknowledged.
        failed: Other events, by reason; "unacknowledged" counts those still open at the end.
        seconds: The longer of two times: while events were due, or from the first acknowledgement to the last.
        cpu_s: CPU time of this process, including the loop.
        latencies: The time from when each event was due until its acknowledgement.
    """

    rate: float
    due: int
    emitted: int
    acknowledged: int
    failed: Mapping[str, int]
    seconds: float
    cpu_s: float
    latencies: Latencies

    @property
    def achieved(self) -> float:
        """Acknowledged events per second."""
        return self.acknowledged / self.seconds if self.seconds else 0.0

    @property
    def kept_up(self) -> bool:
        """Whether nearly all events were emitted in time and acknowledged, with nothing left for the next step."""
        is_left = self.failed.get("unacknowledged", 0) > 0
        return not is_left and self.acknowledged >= 0.99 * self.due and self.achieved >= 0.9 * self.rate


def run_step(
    producer: Producer,
    events: Sequence[tuple[str, bytes]],
    rate: float,
    seconds: float,
    *,
    drain_s: float,
    is_stopped: Callable[[], bool],
) -> Step:
    """Emits events at a rate, then waits for the acknowledgements.

    Args:
        producer: Used only here, with overflow="raise".
        events: (type, data) pairs, sent in order and repeated.
        rate: Events per second.
        seconds: For how long.
        drain_s: The longest wait for acknowledgements at the end, in seconds.
        is_stopped: Called at each tick; once it returns true, nothing more is emitted.
    """
    before = producer.stats().total
    with producer.acks(maxsize=1 << 30) as acks:  # counted at every tick
        recorder = _Recorder()
        cpu_s = time.process_time()
        due, emitted, overflown = _emit(producer, events, rate, seconds, recorder, acks.get, is_stopped)
        deadline_s = time.monotonic() + drain_s
        producer.flush(0)
        while recorder.waits and time.monotonic() < deadline_s and _unsettled(producer):
            recorder.take(acks.get)
            time.sleep(_DRAIN_POLL_S)
        recorder.take(acks.get)
        cpu_s = time.process_time() - cpu_s
    after = producer.stats().total
    failed = Counter(after.failed) - Counter(before.failed)
    failed.update({"expired": after.expired - before.expired, "overflow": overflown, "unacknowledged": after.unsettled})
    return Step(
        rate=rate,
        due=due,
        emitted=emitted,
        acknowledged=after.acked - before.acked,
        failed=+failed,
        seconds=max(due / rate, recorder.last_s - recorder.first_s),
        cpu_s=cpu_s,
        latencies=recorder.latencies,
    )


def _unsettled(producer: Producer) -> int:
    return producer.stats().total.unsettled


class _Recorder:
    """Derives the latencies of events from the acknowledgements of batches."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.first_s = self.last_s = 0.0
        # By guid: when the batch was opened, and how many of its events were due at each time.
        self._batches: dict[str, tuple[float, list[tuple[float, int]]]] = {}

    @property
    def waits(self) -> bool:
        """Whether batches are still unacknowledged."""
        return bool(self._batches)

    def emitted(self, req_guid: str, opened_s: float, due_s: float, count: int) -> None:
        """Notes that `count` events were added to a batch."""
        self._batches.setdefault(req_guid, (opened_s, []))[1].append((due_s, count))

    def take(self, get: Callable[[float], Ack | None]) -> None:
        """Counts the acknowledgements that have arrived."""
        try:
            while (ack := get(0)) is not None:
                if ack.response.status is Status.SUCCESS and ack.req_guid in self._batches:
                    opened_s, events = self._batches.pop(ack.req_guid)
                    acked_s = opened_s + (ack.sent_ms + ack.ack_ms) / 1e3
                    self.first_s = min(self.first_s or acked_s, acked_s)
                    self.last_s = max(self.last_s, acked_s)
                    for due_s, count in events:
                        self.latencies.add(acked_s - due_s, count)
        except TimeoutError:
            pass


def _emit(
    producer: Producer,
    events: Sequence[tuple[str, bytes]],
    rate: float,
    seconds: float,
    recorder: _Recorder,
    get: Callable[[float], Ack | None],
    is_stopped: Callable[[], bool],
) -> tuple[int, int, int]:
    """Returns how many events were due, how many the producer accepted, and how many it had no room for."""
    emit, number_of_events = producer.emit, len(events)
    tick_s = max(_TICK_S, 1.0 / rate)
    total = max(1, round(rate * seconds))
    due = emitted = overflown = tick = 0
    receipt = None
    opened_s = 0.0
    began_s = seen_s = time.monotonic()
    end_s = began_s + seconds + _MOST_LATE_S
    while due < total:
        due_s = began_s + tick * tick_s
        tick += 1
        now_s = time.monotonic()
        if (pause_s := now_s - max(seen_s, due_s - tick_s)) > _PAUSE_S:
            end_s += pause_s
        seen_s = now_s
        if now_s > end_s:
            due = total  # this machine cannot emit that many
            break
        while (wait_s := due_s - time.monotonic()) > 0 and not is_stopped():
            recorder.take(get)
            time.sleep(min(wait_s, _POLL_S))
        if is_stopped():
            break
        until = min(total, round(tick * tick_s * rate))
        count = 0
        for index in range(due, until):
            emit_s = time.monotonic()
            try:
                taken = emit(*events[index % number_of_events])
            except BufferFull:
                overflown += 1
                continue
            if taken is not receipt:
                if receipt is not None and count:
                    recorder.emitted(receipt.req_guid, opened_s, due_s, count)
                receipt, opened_s, count = taken, emit_s, 0
            count += 1
            emitted += 1
        if receipt is not None and count:
            recorder.emitted(receipt.req_guid, opened_s, due_s, count)
        due = until
    return due, emitted, overflown
