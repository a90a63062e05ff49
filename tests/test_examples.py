"""The examples run as their first lines say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raccoon_fast.collector import Collector

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_flask_under_gunicorn(collector: Collector, scheme: str) -> None:
    pytest.importorskip("gunicorn")
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "gunicorn", "--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [sys.executable, *command, "--chdir", EXAMPLES, "flask_app:app"],
        env={**os.environ, "RACCOON_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s = time.monotonic() + 20
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).json() == {"ok": True, "reasons": []}
        for number in range(60):  # a connection each, so that all workers are asked
            assert httpx.get(f"http://127.0.0.1:{port}/page/{number}", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    received = Counter(event.data.split(b'"')[3] for event in collector.events)
    assert received == {b"%d" % number: 1 for number in range(60)}
    if scheme == "ws":
        assert 1 < len({event.connection_id for event in collector.events}) <= 3


def test_asyncio_service(collector: Collector) -> None:
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "asyncio_service.py", "0"],
        env={**os.environ, "RACCOON_URL": collector.ws_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().split()[-1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"".join(b"line %d\n" % number for number in range(500)))
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert out == "500 accepted, 500 acknowledged, 0 lost\n"
    assert [event.data for event in collector.events] == [b"line %d" % number for number in range(500)]
