"""The engines' examples run with the commands in their first lines."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from patience import patient

from raccoon_fast.collector import Collector

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "engines"


def run(example: str, collector: Collector, *arguments: str) -> Counter[str]:
    environ = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "RACCOON_FAST_URL": collector.ws_url,
        "RAY_USAGE_STATS_ENABLED": "0",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=patient(200))
    assert done.returncode == 0, done.stderr
    return Counter(event.type for event in collector.events)


@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="needs pyspark")
def test_spark_write(collector: Collector, tmp_path: Path) -> None:
    types = run("spark_write.py", collector, str(tmp_path))
    assert (types.pop("order"), types.pop("refund")) == (2, 1)
    assert types.keys() == {"tick"}


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_ray_write(collector: Collector) -> None:
    assert run("ray_write.py", collector) == {"order": 2, "refund": 1}
