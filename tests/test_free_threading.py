"""Without a GIL: it stays off, whatever is imported and used. On other Pythons the tests are skipped."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL, and no build without one"
)

USE = """
import asyncio, importlib, pkgutil, sys
import raccoon_fast
from raccoon_fast import AsyncProducer, GrpcClient, JSON, Producer, RestClient, WebSocketClient
from raccoon_fast.collector import Collector
from raccoon_fast.stats.statsd import StatsD

def check(what):
    assert not sys._is_gil_enabled(), what

if raccoon_fast.has_extensions():
    raccoon_fast.has_extensions(raise_=True)
check("the compiled modules")
for module in pkgutil.walk_packages(raccoon_fast.__path__, "raccoon_fast."):
    if module.name.rpartition(".")[2] == "__main__":
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:  # of an extra that is not installed
        if (error.name or "").startswith("raccoon_fast"):
            raise
    check(module.name)
with Collector() as collector, StatsD("127.0.0.1", 9) as stats:
    urls = [collector.url, collector.ws_url, "grpc://" + collector.grpc_target]
    for client, url in zip([RestClient, WebSocketClient, GrpcClient], urls, strict=True):
        with client(url, serializer=JSON) as one:
            one.send([("page", {"n": 1})])
        check(url)
        with Producer(url, serializer=JSON, stats=stats) as producer:
            producer.emit("page", {"n": 1})
            producer.emit_many([("page", {"n": 1})] * 5)
        assert producer.stats().total.acked == 6
        check(f"a producer over {url}")

        async def emit():
            async with AsyncProducer(url, serializer=JSON) as producer:
                await producer.emit("page", {"n": 1})

        asyncio.run(emit())
        check(f"an async producer over {url}")
print("off")
"""


def test_the_gil_stays_off_whatever_is_imported_and_used() -> None:
    # Where the variable is not set, an extension module that does not declare itself turns the GIL on.
    run = subprocess.run([sys.executable, "-W", "error", "-c", USE], capture_output=True, text=True, env={})
    assert (run.stdout, run.stderr, run.returncode) == ("off\n", "", 0)
