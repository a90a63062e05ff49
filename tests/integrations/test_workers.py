"""Tasks borrow their process's producer."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from patience import patient, wait_until

from raccoon_fast.collector import Collector
from raccoon_fast.integrations import workers
from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.integrations.workers import Scope, Worker, borrow
from raccoon_fast.tables.columns import Columns


@pytest.fixture
def options(collector: Collector) -> Iterator[SinkOptions]:
    made = SinkOptions(collector.ws_url, Columns("a"), uuid.uuid4(), logger=None)
    yield made
    worker = workers._workers.pop(made.key, None)
    if worker is not None:
        worker.close()


def is_closed(worker: Worker) -> bool:
    return bool(worker.producer._closed)


def test_consecutive_and_concurrent_tasks_share_a_producer(options: SinkOptions) -> None:
    with borrow(options, Scope("q", 0, 0)) as first:
        pass
    with borrow(options, Scope("q", 0, 1)) as second, borrow(options, Scope("q", 0, 2)) as third:
        assert first is second is third
    with borrow(options, Scope("q", 1, 0)) as fourth:
        assert fourth is first
    assert not is_closed(first)


def test_another_sink_has_another(options: SinkOptions, collector: Collector) -> None:
    other = SinkOptions(collector.ws_url, Columns("b"), uuid.uuid4(), logger=None)
    with borrow(options, Scope("q", 0, 0)) as one, borrow(other, Scope("q", 0, 0)) as two:
        assert one is not two
    workers._workers.pop(other.key).close()


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_repeated_task_gets_a_new_producer(options: SinkOptions, epoch: int) -> None:
    with borrow(options, Scope("q", 1, 0)) as first:
        pass
    with borrow(options, Scope("q", epoch, 0)) as second:
        assert second is not first
        assert is_closed(first)


def test_new_tasks_do_not_reuse_a_failed_task_s_producer(options: SinkOptions) -> None:
    with borrow(options, Scope("q", 0, 0)) as first:
        with pytest.raises(KeyError), borrow(options, Scope("q", 0, 1)) as second:
            raise KeyError
        assert second is first
        assert not is_closed(first)  # its other task goes on
        with borrow(options, Scope("q", 0, 2)) as third:
            assert third is not first
    assert is_closed(first)
    assert not is_closed(third)


def test_tasks_per_producer_are_bounded(options: SinkOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_MAX_TASKS", 3)
    seen = []
    for partition in range(7):
        with borrow(options, Scope("q", 0, partition)) as worker:
            seen.append(worker)
    assert [seen.count(worker) for worker in dict.fromkeys(seen)] == [3, 3, 1]


def test_an_idle_producer_is_closed(
    options: SinkOptions, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with borrow(options, Scope("q", 0, 0)) as worker:
        assert worker.producer.emit_batch([("a", b"x")]).result(patient(10))
        monkeypatch.setattr(workers, "IDLE_S", 0.05)
    wait_until(lambda: is_closed(worker))
    collector.wait_until(lambda it: not it.connections)
    with borrow(options, Scope("q", 0, 1)) as another:
        assert another is not worker
        assert another.timer is None


def test_the_rate_is_kept_among_threads() -> None:
    worker = Worker(producer=None, rate=1000.0)  # type: ignore[arg-type]
    began_s = time.monotonic()
    threads = [threading.Thread(target=worker.wait, args=(100,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began_s >= 0.4  # the first goes at once


def _send_in_child(options: Any, done: Any) -> None:
    with borrow(options, Scope("q", 0, 1)) as worker:
        done.put(str(worker.producer.emit_batch([("a", b"child")]).result(patient(10)).status))


def test_a_forked_child_starts_fresh(options: SinkOptions, collector: Collector) -> None:
    context = multiprocessing.get_context("fork")
    done = context.SimpleQueue()
    with borrow(options, Scope("q", 0, 0)) as worker, workers._lock:  # held by a thread that the child does not have
        assert worker.producer.emit_batch([("a", b"parent")]).result(patient(10))
        child = context.Process(target=_send_in_child, args=(options, done), daemon=True)
        child.start()
    child.join(patient(20))
    assert child.exitcode == 0
    assert {event.data for event in collector.events} == {b"parent", b"child"}
    assert len({event.connection_id for event in collector.events}) == 2
