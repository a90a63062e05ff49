"""Fixtures used by several folders of tests."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from missing import missing_in
from passes import is_for_other_pass
from patience import PATIENCE, patient
from ports import free_port

from raccoon_fast.collector import Collector

ROOT = Path(__file__).parent.parent

# Programs are interrupted here, and a shell makes what it runs in the background, children included, ignore that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing on a machine that is busy.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before pytest-timeout reads it; workers of xdist are given what this sets.
    if config.option.timeout is None:
        config.option.timeout = patient(float(config.getini("timeout")))
    for method in (Collector.wait_for, Collector.wait_until):
        assert method.__defaults__ is not None
        *others, timeout_s = method.__defaults__
        method.__defaults__ = (*others, patient(timeout_s))
    # The servers are on this machine: a proxy that the developer's environment names does not reach them.
    for name in [*os.environ]:
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            del os.environ[name]
    if sys.version_info < (3, 11):
        # Its TLS transports warn if they ended and were never closed, which the library websockets does not do.
        ignored = "ignore:.*_SSLProtocolTransport:pytest.PytestUnraisableExceptionWarning"
        config.addinivalue_line("filterwarnings", ignored)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A test that hangs fails with a traceback. Where even that hangs, in C code or a finalizer, faulthandler ends the
    # process; its limit is fixed, and every other one stays below it.
    most_s = float(config.getini("faulthandler_timeout")) - 10
    for item in items:
        if (marker := item.get_closest_marker("timeout")) is not None and PATIENCE != 1:
            item.add_marker(pytest.mark.timeout(min(patient(marker.args[0]), most_s)), append=False)


def pytest_itemcollected(item: pytest.Item) -> None:
    if is_for_other_pass(item):
        item.add_marker("other_pass")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report: pytest.CollectReport = yield
    if report.outcome == "failed" and (reason := missing_in(str(report.longrepr))):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: {reason}")
    return report  # type: ignore[return-value]  # it is


class StatsdDaemon:
    """A running StatsD daemon (npm package `statsd`), read back through its management port.

    It never flushes, so counters and timers hold all it was ever sent.
    """

    def __init__(self, port: int, mgmt_port: int) -> None:
        self.port = port
        self._mgmt_port = mgmt_port

    def counters(self) -> dict[str, float]:
        listing = self._ask("counters")
        return {name: float(value) for name, value in re.findall(r"'?([\w.;=-]+)'?: (-?[\d.]+)", listing)}

    def timers(self) -> dict[str, list[float]]:
        lists = re.findall(r"'?([\w.;=-]+)'?: \[([^\]]*)\]", self._ask("timers"))
        return {name: [float(value) for value in values.split(",") if value.strip()] for name, values in lists}

    def bad_lines(self) -> float:
        return self.counters()["statsd.bad_lines_seen"]

    def wait_for(self, what: Callable[[StatsdDaemon], bool], timeout_s: float = 10) -> None:
        deadline_s = time.monotonic() + patient(timeout_s)
        while not what(self):
            assert time.monotonic() < deadline_s, f"the daemon has {self.counters()}"
            time.sleep(0.02)

    def ready(self) -> bool:
        try:
            return "up" in self._ask("health", end=b"\n")
        except ConnectionError:
            return False

    def _ask(self, command: str, end: bytes = b"END\n\n") -> str:
        with socket.create_connection(("127.0.0.1", self._mgmt_port), timeout=patient(5)) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while not answer.endswith(end):
                chunk = connection.recv(65536)
                if not chunk:
                    raise ConnectionError(f"the daemon closed after {answer!r}")
                answer += chunk
        return answer.decode()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end on a new loop of each kind."""
    if request.param == "asyncio":
        return asyncio.run
    if sys.platform == "win32":
        pytest.skip("uvloop does not exist on Windows")
    import uvloop

    return uvloop.run


@pytest.fixture
def unused_port() -> int:
    """Nobody listens there."""
    return free_port()


@pytest.fixture
def statsd_daemon(tmp_path: Path) -> Iterator[StatsdDaemon]:
    """Starts the daemon that `make statsd` installs, or the one whose stats.js RACCOON_STATSD names."""
    node = shutil.which("node")
    script = Path(os.environ.get("RACCOON_STATSD", ROOT / ".venv/statsd/node_modules/statsd/stats.js"))
    if node is None or not script.exists():
        pytest.skip(f"needs node and the npm package statsd (make statsd): {script}")
    daemon = StatsdDaemon(free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM))
    config = tmp_path / "statsd.js"
    config.write_text(
        f"{{address: '127.0.0.1', port: {daemon.port}, mgmt_address: '127.0.0.1', mgmt_port: {daemon._mgmt_port}, "
        "backends: [], flushInterval: 3600000}"
    )
    with subprocess.Popen([node, script, config], stdout=subprocess.DEVNULL) as process:
        try:
            daemon.wait_for(StatsdDaemon.ready)
            yield daemon
        finally:
            process.kill()
