"""Replays over 2,000 unusual requests that a real server answered: same answers, same number of published events."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd_requests
import pytest
from patience import patient

from raccoon_fast.collector import Collector

pytestmark = pytest.mark.slow

CASES = odd_requests.load(Path(__file__).parent / "odd-requests.json.gz")
KINDS = list(dict.fromkeys((case["protocol"], case["kind"]) for case in CASES))
AT_ONCE = 48


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector(ping_interval=3600, pong_wait=3600) as collector:
        yield collector


async def answered_otherwise(cases: list[dict[str, Any]], collector: Collector, wait_s: float) -> list[tuple[str, Any]]:
    """The names of the cases that differ, and in what."""
    free = asyncio.Semaphore(AT_ONCE)
    http, grpc = ("127.0.0.1", collector.port), ("127.0.0.1", collector.grpc_port)

    async def one(case: dict[str, Any]) -> tuple[str, list[str]]:
        async with free:
            ours = await odd_requests.play(case, http, grpc, wait_s)
        return case["name"], odd_requests.differences(case["protocol"], odd_requests.outcome_of(case), ours)

    return [found for found in await asyncio.gather(*map(one, cases)) if found[1]]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_answers_as_the_server_did(kind: tuple[str, str], collector: Collector) -> None:
    cases = [case for case in CASES if (case["protocol"], case["kind"]) == kind]
    different = asyncio.run(answered_otherwise(cases, collector, 0.1))
    if different:  # again with patience: the machine may be busy
        names = {name for name, _ in different}
        cases = [case for case in cases if case["name"] in names]
        different = asyncio.run(answered_otherwise(cases, collector, patient(1.0)))
    assert different == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", ["http", "ws", "grpc"])
def test_publishes_the_events_that_the_server_did(protocol: str) -> None:
    cases = [case for case in CASES if case["protocol"] == protocol]
    expected: collections.Counter[str] = collections.Counter()
    for case in cases:
        expected.update(case["events"].get("types", {}))
    with Collector(ping_interval=3600, pong_wait=3600) as collector:
        # Long enough that a busy server has read all before the connection ends.
        asyncio.run(answered_otherwise(cases, collector, 1.0))
        collector.wait_until(lambda it: it.event_count >= expected.total(), timeout=30)
        published = collections.Counter(event.type for event in collector.events)
        size = sum(len(event.data) for event in collector.events)
    assert published == expected
    assert size == sum(case["events"].get("bytes", 0) for case in cases)
