"""Freed blocks of the compiled envelopes are used again: each holds only its own events, in any thread."""

from __future__ import annotations

import mmap
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from raccoon_fast import has_extensions

pytestmark = pytest.mark.skipif(not has_extensions(), reason="the pure form has no blocks")


def filled(source: random.Random, number: int) -> tuple[Any, bytes]:
    """An envelope with two events, of sizes around those from which on a block is a mapping."""
    from raccoon_fast.core._envelope_c import ProtoEnvelope

    envelope = ProtoEnvelope(source.choice([0, 4096, 65536]))
    data = number.to_bytes(4, "big") * source.choice([10, 4000, 16_000, 17_000, 50_000, 90_000, 250_000])
    envelope.add("a", data)
    envelope.add("a", data)
    return envelope, data


def test_each_envelope_holds_its_own_events() -> None:
    troubles: list[int] = []

    def churn(seed: int) -> None:
        source = random.Random(seed)
        kept: list[tuple[Any, bytes]] = []
        for number in range(300):
            kept.append(filled(source, seed << 16 | number))
            if len(kept) > 8:
                envelope, data = kept.pop(source.randrange(len(kept)))
                if envelope.body().count(data) != 2:
                    troubles.append(number)
                if source.random() < 0.3:
                    envelope.clear()
                    envelope.add("a", data * 2)
                    kept.append((envelope, data))

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles


def test_a_view_keeps_its_block() -> None:
    from raccoon_fast.core._envelope_c import ProtoEnvelope

    source = random.Random(1)
    views = []
    for number in range(50):
        envelope, _ = filled(source, number)
        envelope.stamp("guid", 1, 1)
        views.append((envelope.payload(), bytes(envelope.payload())))
        envelope.clear()
        ProtoEnvelope(65536).add("b", bytes(1_000_000))
    assert all(view == content for view, content in views)


def new_accumulator(limit: int, max_events: int, capacity: int = 4096) -> Any:
    from raccoon_fast.core._batch_c import Accumulator, Batch

    accumulator = Accumulator(
        lambda: Batch("proto", capacity),
        serializer=None,
        wire="proto",
        max_events=max_events,
        max_bytes=1 << 20,
        max_event_bytes=1 << 20,
        buffer_bytes=limit,
        batch_cost=1024,
    )
    accumulator.on_full = lambda types, size: None
    return accumulator


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are mappings on Linux only")
@pytest.mark.parametrize("capacity", [4096, 225_000, 270_000, 400_000])
def test_only_memory_that_was_used_counts(capacity: int) -> None:
    limit = 16 << 20
    accumulator = new_accumulator(limit, 1000, capacity)
    for number, size in enumerate((200, 200, 260, 330)):
        accepted = 0
        while accumulator.buffered < limit * 0.97:
            accumulator.emit("page", bytes(size))
            accepted += size + 12
        # The first batches get blocks that were freed by something else.
        assert accepted > (0.93 if number else 0.85) * limit, size
        accumulator.seal()
        while accumulator.sealed:
            accumulator.release(accumulator.take().cost)
        assert accumulator.buffered == 0


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are mappings on Linux only")
def test_pages_that_a_used_block_does_not_need_are_returned() -> None:
    def rss() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    def fill(events: int, capacity: int) -> Any:
        accumulator = new_accumulator(limit, events, capacity)
        while accumulator.buffered < limit * 0.97:
            accumulator.emit("page", data)
        return accumulator

    limit, data = 64 << 20, bytes(100_000)
    larger = fill(9, 950_000)
    del larger  # its blocks are kept
    before = rss()
    smaller = fill(5, 750_000)
    assert rss() - before < 8 << 20
    assert smaller.sealed > 100


def test_memory_that_python_cannot_return_counts_as_used() -> None:
    limit = 64 << 20
    accumulator = new_accumulator(limit, 1)
    accumulator.emit("a", b"x")
    while accumulator.emit("a", b"x") is None and accumulator.buffered < limit * 0.99:
        pass
    costs = [accumulator.take().cost for _ in range(accumulator.sealed)]
    assert accumulator.buffered == sum(costs)
    left = sum(costs)
    seen = [accumulator.buffered]
    most = 0
    for cost in costs:
        accumulator.release(cost)
        left -= cost
        seen.append(accumulator.buffered)
        most = max(most, seen[-1] - left)
    # Each batch makes some room, but not all that it took; until few are left, with which the memory is free.
    assert seen == sorted(seen, reverse=True)
    assert 16 << 20 < most < limit * 3 // 4
    assert seen[-1] == left == 0
    assert all(one == sum(costs[at:]) for at, one in enumerate(seen[-1000:], len(costs) - 999))
