"""A trial for each protocol, and a server in a separate process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from begun import Begun
from trial import SCHEMES, Server, Trial

from raccoon_fast.collector import Collector


@pytest.fixture(params=SCHEMES)
def scheme(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def new_trial(scheme: str) -> Iterator[Callable[..., Trial]]:
    begun = Begun()
    trials = []
    with_options: list[Collector] = []

    def new(collector_options: dict[str, Any] | None = None, **options: Any) -> Trial:
        collector = Collector(**(collector_options or {})).start()
        with_options.append(collector)
        trials.append(Trial(scheme, collector, **options))
        return trials[-1]

    yield new
    for trial in trials:
        trial.producer.close(timeout=0)
        trial.proxy.__exit__()
    for collector in with_options:
        collector.close()
    assert begun.threads("raccoon") == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "events.jsonl")
    running.start()
    yield running
    running.end()
