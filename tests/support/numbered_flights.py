"""Real flights with unique numbers, and checks of their outcomes."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raccoon_fast.cli.flights import read_flights
from raccoon_fast.collector import Collector
from raccoon_fast.collector.records import ReceivedEvent, ReceivedRequest

_NUMBER = re.compile(rb'"number":(\d+)')


def write_flights(folder: Path, files: int, flights: int = 25_000) -> int:
    """Writes `files` files of `flights` flights each, one JSON object per line, numbered from 0. Returns the total."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line[1:] for line in read_flights(flights)]
    for file in range(files):
        numbered = (b'{"number":%d,' % (file * flights + row) + line for row, line in enumerate(lines))
        (folder / f"part-{file:03}.json").write_bytes(b"\n".join(numbered))
    return files * flights


def number_of(event: ReceivedEvent) -> int:
    match = _NUMBER.search(event.data)
    assert match is not None, event
    return int(match[1])


def judge(events: Iterable[ReceivedEvent], count: int) -> int:
    """Asserts that no event is lost, and that repeated events are identical and have the same guid.

    Returns the number of repeated events.
    """
    first: dict[int, ReceivedEvent] = {}
    again = 0
    for event in events:
        number = number_of(event)
        before = first.setdefault(number, event)
        if before is not event:
            again += 1
            assert (event.req_guid, event.type, event.data) == (before.req_guid, before.type, before.data)
    assert first.keys() == set(range(count))
    return again


@contextmanager
def one_worker_killed(collector: Collector, kill: Callable[[int], None]) -> Iterator[list[int]]:
    """Calls `kill` with the pid of a worker in the middle of its first task with ten or more batches.

    Yields a list that contains that pid in the end.
    """
    killed: list[int] = []

    def is_killed(_: Collector) -> bool:
        if not killed:
            batches = Counter(_worker_of(request) for request in collector.requests)
            pid = next((pid for pid, count in batches.items() if 3 <= count <= 6), None)
            if pid is not None:
                kill(pid)
                killed.append(pid)
        return bool(killed)

    killer = threading.Thread(target=collector.wait_until, args=(is_killed, 120))
    killer.start()
    yield killed
    killer.join()


def judge_a_kill(collector: Collector, killed: Sequence[int], count: int) -> None:
    """Asserts that one worker was killed, that no event is lost, and that another worker completed its task."""
    assert killed
    again = judge(collector.events, count)
    assert 3000 <= again <= 25_000  # sent by the killed task; other tasks repeat nothing
    by_killed = {request.req_guid for request in collector.requests if _worker_of(request) == killed[0]}
    by_others = {request.req_guid for request in collector.requests if _worker_of(request) != killed[0]}
    assert by_killed & by_others


def _worker_of(request: ReceivedRequest) -> int:
    return int(request.connection_id.split("-")[-2])
