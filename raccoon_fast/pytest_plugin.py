"""A pytest plugin that comes with the package: the fixture `raccoon_collector`.

    def test_a_visit_is_sent(raccoon_collector):
        shop.visit("home", events_to=raccoon_collector.url)
        raccoon_collector.wait_until(lambda it: it.events[0].type == "page")

Its options come from the fixture `raccoon_collector_options` and from a marker, which takes precedence:

    @pytest.mark.raccoon_collector(acks="sync", publish_failure_rate=0.5)

Pytest imports this module in every run, so modules that only the fixture needs are not imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from raccoon_fast.collector import Collector

__all__ = ["pytest_configure", "raccoon_collector", "raccoon_collector_options"]


@pytest.fixture
def raccoon_collector_options() -> Mapping[str, Any]:
    """Options of `raccoon_collector`; none by default. Override it in a conftest.py, module or class."""
    return {}


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "raccoon_collector(**options): options of the test's raccoon_collector, which override those of the fixture",
    )


@pytest.fixture
def raccoon_collector(
    request: pytest.FixtureRequest, raccoon_collector_options: Mapping[str, Any]
) -> Iterator[Collector]:
    """One Raccoon server per test, on free ports: a `raccoon_fast.collector.Collector`, closed after the test.

    Send to `.url`, `.ws_url` or `.grpc_target`; wait with `.wait_for(count, type=…, where=…)` or
    `.wait_until(condition)`; read `.events` and `.requests`; make it fail with `.faults`.
    """
    try:
        from raccoon_fast.collector import Collector
    except ImportError as error:
        pytest.fail(f"raccoon_collector: {error}", pytrace=False)
    options = dict(raccoon_collector_options)
    for marker in reversed(list(request.node.iter_markers("raccoon_collector"))):  # the closest marker takes precedence
        options.update(marker.kwargs)
    with Collector(**options) as collector:
        yield collector
