"""Fixtures for the tests of several sinks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from raccoon_fast.collector import Collector


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running
