"""Publishes batches to the sink as the server does: five workers, a queue of 100 batches, and failures on request."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable

from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.judging import EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.records import Batch, ReceivedEvent
from raccoon_fast.collector.sinks import Sink

__all__ = ["Done", "Publisher"]

#: Called once per batch, with "" when it is published, or with the reason if it is not.
Done = Callable[[str], None]

_log = logging.getLogger("raccoon_fast.collector")

_WORKERS = 5
_QUEUE_BATCHES = 100  # the server stops reading a connection while this many wait

# The server's workers finish in any order. Varying the time per batch has the same effect.
_SPREAD = 0.2
_MIN_SPREAD_S = 0.001


class Publisher:
    """Publishes batches; used on the collector's event loop.

    With acks="async" and no delay, `submit` publishes the batch before it returns.
    """

    def __init__(self, options: Options, sink: Sink, ledger: Ledger, faults: FaultTable, judge: EventJudge) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._sink = sink
        self._ledger = ledger
        self._faults = faults
        self._judge = judge
        self._follow = options.follow
        self._queue: deque[tuple[Batch, Done]] = deque()
        self._working: dict[int, tuple[asyncio.TimerHandle, Batch, Done]] = {}
        self._next_key = 0
        self._waiting_for_room: list[Callable[[], None]] = []

    @property
    def is_immediate(self) -> bool:
        """Whether `submit` publishes before it returns."""
        return not self._options.is_sync and not self._options.publish_delay

    @property
    def is_full(self) -> bool:
        """Whether readers should wait for `when_room` before they submit."""
        return len(self._queue) >= _QUEUE_BATCHES

    def submit(self, batch: Batch, done: Done) -> None:
        """Publish `batch`, now or when a worker is free."""
        if self.is_immediate:
            self._publish(batch, done)
        elif len(self._working) < _WORKERS:
            self._work(batch, done)
        else:
            self._queue.append((batch, done))

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the queue has room again."""
        self._waiting_for_room.append(callback)

    async def room(self) -> None:
        """Wait until the queue has room."""
        while self.is_full:
            has_room: asyncio.Future[None] = self._loop.create_future()
            self.when_room(lambda future=has_room: future.done() or future.set_result(None))  # type: ignore[misc]
            await has_room

    def finish(self) -> None:
        """Publish all batches in the queue and with the workers at once."""
        while self._working:
            key = next(iter(self._working))
            self._working[key][0].cancel()
            self._finish(key)

    def _work(self, batch: Batch, done: Done) -> None:
        delay_s = self._options.publish_delay
        delay_s += random.uniform(0, max(delay_s * _SPREAD, _MIN_SPREAD_S))  # noqa: S311 - no secret
        self._next_key += 1
        timer = self._loop.call_later(delay_s, self._finish, self._next_key)
        self._working[self._next_key] = (timer, batch, done)

    def _finish(self, key: int) -> None:
        _, batch, done = self._working.pop(key)
        if self._queue:
            self._work(*self._queue.popleft())
        self._publish(batch, done)
        if self._waiting_for_room and not self.is_full:
            callbacks, self._waiting_for_room = self._waiting_for_room, []
            for callback in callbacks:
                callback()

    def _publish(self, batch: Batch, done: Done) -> None:
        rate = self._options.publish_failure_rate
        if (rate and random.random() < rate) or self._faults.fails_publish(lambda: Target.of(batch)):  # noqa: S311 - no secret
            self._fail(batch, done, "injected publish failure")
            return
        try:
            self._sink.publish(batch)
        except OSError as error:
            self._fail(batch, done, str(error))
            return
        faults = self._judge.judge(batch)
        if self._follow is not None:
            self._tell(self._follow, batch)
        self._ledger.published(batch, faults)
        done("")

    def _tell(self, follow: Callable[[ReceivedEvent], object], batch: Batch) -> None:
        try:
            for event in batch.events():
                follow(event)
        except Exception:  # noqa: BLE001 - the cause may be anything, but not the client
            _log.exception("the collector's follow callback failed for request %s", batch.message.req_guid)

    def _fail(self, batch: Batch, done: Done, reason: str) -> None:
        code = "INTERNAL_ERROR" if self._options.is_sync else ""  # with acks="async" the client was told SUCCESS
        self._ledger.rejected(batch.source, code, f"cannot publish events: {reason}", req_guid=batch.message.req_guid)
        done(reason)
