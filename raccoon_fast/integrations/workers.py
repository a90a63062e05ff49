"""One producer per worker process, however many tasks the process runs, in sequence or at once.

An engine runs thousands of tasks in few processes. With one connection per task a server would reach its limit of
connections, and spend its time on handshakes. So tasks borrow the producer of their process, and return it.

A server may recognize guids that it has seen on the same WebSocket connection: it then answers at once, before the
outcome of the first request is known, and two simultaneous answers can crash it. So a task that may repeat guids,
because it or its epoch has run before, never gets the connection on which they were sent.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast import forks

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from raccoon_fast.integrations.options import SinkOptions
    from raccoon_fast.producers.producer import Producer

__all__ = ["Scope", "borrow"]

#: Seconds after which an unused producer is closed.
IDLE_S = 30.0
# The most tasks remembered per producer; beyond that it is replaced.
_MAX_TASKS = 10_000


class Scope(NamedTuple):
    """Identifies what a task writes; the same for every attempt of the task.

    Attributes:
        query: The streaming query, or the job.
        epoch: The query's epoch (micro-batch), from 0.
        partition: The task's part of the epoch.
    """

    query: str
    epoch: int
    partition: int


class Worker:
    """A producer, and the rate limit of its tasks. Thread-safe.

    Attributes:
        producer: Shared by the tasks.
    """

    def __init__(self, producer: Producer, rate: float | None) -> None:
        self.producer = producer
        self.tasks = 0
        self.retired = False
        self.timer: threading.Timer | None = None
        self._rate = rate
        self._free_s = 0.0
        self._pace = threading.Lock()
        self._epochs: dict[tuple[str, int], int] = {}

    def wait(self, events: int) -> None:
        """Wait until the rate allows this many more events."""
        if self._rate is None:
            return
        with self._pace:
            now_s = time.monotonic()
            start_s = max(now_s, self._free_s)
            self._free_s = start_s + events / self._rate
        time.sleep(start_s - now_s)

    def take(self, scope: Scope) -> bool:
        """Note that the scope's guids are sent here; False if they were sent before."""
        part = scope.query, scope.partition
        if self._epochs.get(part, -1) >= scope.epoch or len(self._epochs) >= _MAX_TASKS:
            return False
        self._epochs[part] = scope.epoch
        return True

    def close(self) -> None:
        """End the producer at once, and drop the events for which no task waits."""
        if self.timer is not None:
            self.timer.cancel()
        self.producer.close(timeout=0)


@contextlib.contextmanager
def borrow(options: SinkOptions, scope: Scope) -> Iterator[Worker]:
    """Lends this process's worker to a task.

    After a failed task the worker is not lent again: its batches may still be in flight, and will be resent.

    Args:
        options: Of the sink.
        scope: Of the task.
    """
    with _lock:
        worker = _workers.get(options.key)
        if worker is not None and not worker.take(scope):
            _retire(options.key, worker)
            worker = None
        if worker is None:
            worker = _workers[options.key] = Worker(options.new_producer(), options.worker_rate)
            worker.take(scope)
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        worker.tasks += 1
    try:
        yield worker
    except BaseException:
        with _lock:
            _retire(options.key, worker)
        raise
    finally:
        with _lock:
            worker.tasks -= 1
            is_last = not worker.tasks
            if is_last and not worker.retired:
                worker.timer = threading.Timer(IDLE_S, _close_idle, (options.key, worker))
                worker.timer.daemon = True
                worker.timer.start()
        if is_last and worker.retired:
            worker.close()


def _retire(key: Hashable, worker: Worker) -> None:
    """Stop lending the worker; call it under the lock. The last of its tasks closes it."""
    if _workers.get(key) is worker:
        del _workers[key]
    worker.retired = True
    if not worker.tasks:
        worker.close()


def _close_idle(key: Hashable, worker: Worker) -> None:
    with _lock:
        if not worker.tasks and not worker.retired:
            _retire(key, worker)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it, but does not exist here
    _workers.clear()


_lock = threading.Lock()
_workers: dict[Hashable, Worker] = {}
forks.in_child(_after_fork_in_child)
