"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raccoon_fast.collector import Collector

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_is_python():
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks(number, capsys):
    with Collector() as collector:
        code = BLOCKS[number].replace("http://localhost:8080", collector.url)
        code = code.replace("ws://localhost:8080", collector.ws_url).replace("localhost:8081", collector.grpc_target)
        names: dict = {}
        exec(compile(code, f"README block {number}", "exec"), names)
        if "AsyncGrpcClient" in names:
            from google.protobuf.timestamp_pb2 import Timestamp

            names["asyncio"].run(names["send"](Timestamp(seconds=1)))
        for name in [name for name in names if name.startswith("test_")]:
            names[name](collector)
        sent = collector.event_count
    assert sent or "Collector" in names
