"""The embedded Raccoon server, for development, demos and tests.

    with Collector() as collector:
        ...  # clients connect to collector.url, collector.ws_url, collector.grpc_target
        collector.wait_for(100)
        collector.events

It needs the extra `collector`: `pip install 'raccoon_fast[collector]'`.
"""

from __future__ import annotations

try:
    import h2 as _h2  # noqa: F401
except ImportError as error:
    raise ImportError("the collector needs more packages: pip install 'raccoon_fast[collector]'") from error

from raccoon_fast.collector.collector import Collector
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.judging import BadEvent
from raccoon_fast.collector.records import Counts, ReceivedEvent, ReceivedRequest

__all__ = ["BadEvent", "Collector", "Counts", "Faults", "ReceivedEvent", "ReceivedRequest"]
