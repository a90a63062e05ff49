"""Debian's Prometheus server, which scrapes this process's registries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import patient


class PrometheusServer:
    """A running server.

    Attributes:
        url: The URL of its API.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the current value of each series of an expression. Fails if the expression is invalid."""
        found = self._ask("query", query=promql)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def value(self, promql: str) -> float:
        """The sum of the expression's values."""
        return sum(value for _, value in self.query(promql))

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[tuple[dict[str, str], list[Any]]]:
        """The labels and the (time, value as text) pairs of each series of an expression over a period."""
        found = self._ask("query_range", query=promql, start=start_s, end=end_s, step=step_s)["result"]
        return [(one["metric"], one["values"]) for one in found]

    def label_values(self, label: str) -> list[str]:
        """All values of a label."""
        return list(self._ask(f"label/{label}/values"))

    def wait_for(self, promql: str, value: float, timeout_s: float = 30.0) -> None:
        """Wait until a scrape has brought the expression to this value."""
        deadline_s = time.monotonic() + patient(timeout_s)
        while (now := self.value(promql)) != value:
            assert time.monotonic() < deadline_s, f"{promql} is {now}, not {value}"
            time.sleep(0.1)

    def _ask(self, what: str, **arguments: object) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]


@contextmanager
def prometheus_server(
    folder: Path, targets: Mapping[str, str], rules: Sequence[Path] = (), interval: str = "200ms"
) -> Iterator[PrometheusServer]:
    """Start the server; skips the test if it is not installed.

    Args:
        folder: The folder for its configuration and data.
        targets: host:port of the scraped servers, by job.
        rules: The files with alerts.
        interval: The time between scrapes, and between evaluations of the alerts.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Debian's package prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    every = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config = folder / "prometheus.json"  # JSON is YAML
    config.write_text(json.dumps({"global": every, "rule_files": [str(one) for one in rules], "scrape_configs": jobs}))
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = PrometheusServer(f"http://127.0.0.1:{port}")
        try:
            _wait_ready(server, process, folder)
            yield server
        finally:
            process.kill()


def _wait_ready(server: PrometheusServer, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + patient(30)
    while not _is_ready(server):
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _is_ready(server: PrometheusServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=1):
            return True
    except urllib.error.HTTPError as not_yet:
        not_yet.close()
    except OSError:
        pass
    return False
