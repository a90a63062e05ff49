"""Names that first do not resolve, and then resolve to other addresses; the programs use their own hosts file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import finish, start

from raccoon_fast.collector import Collector

NAME = "raccoon.test"

PROGRAM = """
import sys
from raccoon_fast import RAW, Producer, RetryPolicy

quick = RetryPolicy(max_attempts=10_000, initial=0.05, maximum=0.2)
options = {"serializer": RAW, "logger": None, "timeout": 2.0, "linger": 0.001, "retry": quick}
producers = [Producer(url, **options) for url in sys.argv[1:]]
for line in sys.stdin:
    for producer in producers:
        producer.emit(line.strip(), b"x")
    for producer in producers:
        if line.startswith("nowhere"):
            while producer.health().ok:
                producer.flush(0.01)
            print(producer.health().servers[0].last_error, flush=True)
        else:
            print(producer.flush(20), flush=True)
for producer in producers:
    print(producer.close().total.acked)
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    return path


@pytest.fixture
def own_files(hosts: Path, tmp_path: Path) -> list[str]:
    """A command that runs another one where /etc has these files."""
    (tmp_path / "nsswitch.conf").write_text("hosts: files\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    mounts = [f"mount --bind {tmp_path}/{name} /etc/{name}" for name in ("hosts", "nsswitch.conf", "resolv.conf")]
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", *as_root, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to make mount namespaces: {getattr(error, 'stderr', error)}")
    return command


@pytest.fixture
def first() -> Iterator[Collector]:
    with Collector(host="127.0.0.1") as running:
        yield running


@pytest.fixture
def second(first: Collector) -> Iterator[Collector]:
    with Collector(host="127.0.0.2", port=first.port, grpc_port=first.grpc_port) as running:
        yield running


def test_a_name_is_looked_up_at_each_connect(
    own_files: list[str], hosts: Path, first: Collector, second: Collector
) -> None:
    ports = {"ws": first.port, "http": first.port, "grpc": first.grpc_port}
    urls = [f"{scheme}://{NAME}:{port}" for scheme, port in ports.items()]
    process = start(PROGRAM, *urls, before=own_files)

    def emit(name: str) -> list[str]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        return [process.stdout.readline().strip() for _ in urls]

    for said in emit("nowhere"):
        assert f"cannot resolve {NAME}" in said
    with hosts.open("a") as file:
        file.write(f"127.0.0.1 {NAME}\n")
    assert emit("first") == ["0"] * 3
    assert first.event_count == 6
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
    first.faults.refuse()
    first.faults.close_connections()
    assert emit("second") == ["0"] * 3
    assert second.event_count == 3
    assert finish(process) == ["3"] * 3
