"""The server under test: RACCOON_URL and RACCOON_GRPC, or an embedded collector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from raccoon_fast.collector import Collector


class Server(NamedTuple):
    url: str
    grpc_target: str

    @property
    def ws_url(self) -> str:
        return f"ws{self.url.removeprefix('http')}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    url, grpc_target = os.environ.get("RACCOON_URL", ""), os.environ.get("RACCOON_GRPC", "")
    if url and grpc_target:
        yield Server(url.rstrip("/"), grpc_target)
        return
    with Collector() as collector:
        yield Server(collector.url, collector.grpc_target)
