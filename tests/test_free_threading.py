"""Without a GIL: it stays off, whatever is imported and used. On other Pythons the tests are skipped."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL, and no build without one"
)

USE = """
import asyncio, contextlib, importlib, io, pkgutil, sys
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

# The other parts. What needs a package that has no build for this Python is left out.
from raccoon_fast import Lane
from raccoon_fast.cli import main as cli
sinks = []
for name in ("Prometheus", "OpenTelemetry"):
    try:
        sinks.append(getattr(raccoon_fast, name)())
    except ImportError:
        pass
with Collector(inspect=True) as collector:
    options = {"serializer": JSON, "logger": None, "lanes": {"log": Lane(priority="low")}, "spool": sys.argv[1]}
    for stats in (None, *sinks):
        with Producer(collector.url, stats=stats, **options) as producer:
            producer.emit("page", {"n": 1}).add_done_callback(check)
            producer.emit_batch([("log", {"n": 1})])
            assert producer.flush(30) == 0 and producer.health().ok
            producer.stats()
        check(f"a producer with a spool, lanes and {stats}")
    collector.faults.refuse()
    with Producer(collector.ws_url, overflow="spool", **options) as producer:
        producer.emit("page", {"n": 1})
        producer.close(0)
    check("a spool with an event")
    collector.faults.accept()
    with WebSocketClient(collector.ws_url, serializer=JSON) as client, client.acks() as acks:
        client.submit([("page", {"n": 1})])
        assert acks.get(30) is not None
    check("acks")
    for command in (["doctor", collector.url], ["spool", "ls", sys.argv[1]]):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            cli(command)
        check(command)
print("off")
"""


def test_the_gil_stays_off_whatever_is_imported_and_used(tmp_path: Path) -> None:
    # Where the variable is not set, an extension module that does not declare itself turns the GIL on.
    command = [sys.executable, "-W", "error", "-c", USE, str(tmp_path / "spool")]
    run = subprocess.run(command, capture_output=True, text=True, env={})
    assert (run.stdout, run.stderr, run.returncode) == ("off\n", "", 0)
