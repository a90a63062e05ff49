"""Real flights, each with a number of its own, and the judge of what became of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from raccoon_fast.cli.flights import read_flights
from raccoon_fast.collector.records import ReceivedEvent, ReceivedRequest

_NUMBER = re.compile(rb'"number":(\d+)')


def write_flights(folder: Path, files: int, flights: int = 25_000) -> int:
    """Writes so many files of so many flights, a JSON object a line, numbered from 0; returns how many there are."""
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
    """Asserts that nothing is lost, and that whatever came again is the same under the same guid.

    Returns how many came again.
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


def worker_amid_a_task(requests: Iterable[ReceivedRequest]) -> int | None:
    """The pid of a worker that is in the middle of its first task, if its tasks have some ten batches or more."""
    batches = Counter(int(request.connection_id.split("-")[-2]) for request in requests)
    return next((pid for pid, count in batches.items() if 3 <= count <= 6), None)
