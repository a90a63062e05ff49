"""The memory of the collector and of the inspector's page stays constant, whatever arrives.

RACCOON_FAST_INSPECTOR_EVENTS=10000000 RACCOON_FAST_INSPECTOR_TYPES=100000 runs for an hour; -s shows the figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import patient

from raccoon_fast import RAW, Producer, json_codec

EVENTS = int(os.environ.get("RACCOON_FAST_INSPECTOR_EVENTS", "600000"))
TYPES = int(os.environ.get("RACCOON_FAST_INSPECTOR_TYPES", "60000"))
PARTS = 10
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory off /proc")


class Collector:
    """`raccoon-fast collect` in a process of its own."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None
        addresses = json_codec.loads(program.stdout.readline())
        self.url, self.ws_url, self._pid = addresses["rest"], addresses["websocket"], program.pid

    @property
    def rss(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.fixture
def collector() -> Iterator[Collector]:
    command = [sys.executable, "-m", "raccoon_fast.cli", "collect", "--port", "0", "--grpc-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        yield Collector(program)
        program.terminate()
        assert program.wait(patient(30)) == 0


def used(page: Any) -> tuple[int, int]:
    """The bytes of the page's heap, garbage left out, and how many nodes its document has."""
    page.browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    metrics = page.browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    by_name = {it["name"]: it["value"] for it in metrics}
    return int(by_name["JSHeapUsedSize"]), int(by_name["Nodes"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_flat(collector: Collector, open_page: Callable[..., Any]) -> None:
    page = open_page(collector)
    page.browser.execute_cdp_cmd("Performance.enable", {})
    names = [f"com.shop.type_{number}" for number in range(TYPES)]
    data = json_codec.dumps({"name": "home", "session": "0123456789abcdef", "items": list(range(40))})
    figures = []
    with Producer(collector.ws_url, serializer=RAW, logger=None, delivery_timeout=600) as producer:
        for part in range(PARTS):
            first = part * EVENTS // PARTS
            count = (part + 1) * EVENTS // PARTS - first
            producer.emit_many((names[number % TYPES], data) for number in range(first, first + count))
            assert producer.flush(600) == 0
            expected = f"{first + count:,}"
            page.wait(lambda expected=expected: page.tile("Events") == expected)
            figures.append((collector.rss, *used(page)))
            if part == PARTS // 2:  # what is asked for now and then costs no more than once
                page.find("#types [data-key] button").click()
                page.wait(lambda: page.find("#type-view").is_displayed())
    for part, (rss, heap, nodes) in enumerate(figures, 1):
        came = f"{part * EVENTS // PARTS:>12,} events"
        print(f"{came}  collector {rss / 2**20:6.1f} MiB  page {heap / 2**20:5.2f} MiB, {nodes:,} nodes")
    counted = httpx.get(f"{collector.url}/inspect/summary").json()
    assert sum(it["events"] for it in counted["protocols"].values()) == EVENTS
    assert counted["type_count"] == min(TYPES, 20_000)
    # From when all types were seen, and the caches are full.
    for index, slack in ((0, 24 << 20), (1, 3 << 20), (2, 3000)):
        warm, last = figures[PARTS // 2 - 1][index], figures[-1][index]
        assert last < warm * 1.15 + slack, figures
