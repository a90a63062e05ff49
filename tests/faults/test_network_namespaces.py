"""Half-open connections between network namespaces: the link is up, and every packet is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patient, wait_until
from program import finish, start
from trial import SCHEMES

CLIENT, SERVER = "10.231.77.1", "10.231.77.2"
PORT, GRPC_PORT = 8080, 8081

PROGRAM = """
import json, sys, time
from raccoon_fast import RAW, Producer, RetryPolicy
from raccoon_fast.net import tcp

urls, options, keepalive = map(json.loads, sys.argv[1:])
tcp._KEEPALIVE.update(keepalive)
quick = RetryPolicy(max_attempts=10_000, initial=0.05, maximum=0.2)
common = {"serializer": RAW, "logger": None, "linger": 0.001, "connect_timeout": 0.5, "retry": quick}
producers = [Producer(url, **common, **options) for url in urls]

def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)

def is_dead(producer):
    (transport,) = producer._engine._endpoints.all[0].transports
    if urls[producers.index(producer)].startswith("ws"):
        return transport._dialer.connection.error is not None
    return not any(connection.reusable for connection in transport._pool._idle)

for line in sys.stdin:
    command = line.strip()
    for producer in producers:
        if command == "emit":
            for number in range(20):
                producer.emit("event", b"%d" % number)
        elif command == "flush":
            assert producer.flush(20) == 0, producer.stats()
        elif command == "wait until unwell":
            wait_until(lambda: not producer.health().ok)
        elif command == "wait until dead":
            wait_until(lambda: is_dead(producer))
        elif command == "say":
            print(producer.health().servers[0].last_error)
        elif command == "close":
            report = producer.close()
            print(report.total.accepted, report.total.acked, report.retries > 0)
    print("done", flush=True)
"""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Hosts:
    """Two hosts and the link between them."""

    def __init__(self) -> None:
        self.client, self.server = f"rf{os.getpid()}c", f"rf{os.getpid()}s"

    def make(self) -> None:
        for host in (self.client, self.server):
            ip("netns", "add", host)
        ip("-n", self.client, "link", "add", self.client, "type", "veth", "peer", self.server, "netns", self.server)
        for host, address in ((self.client, CLIENT), (self.server, SERVER)):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", host)
            ip("-n", host, "link", "set", host, "up")
            ip("-n", host, "link", "set", "lo", "up")

    def remove(self) -> None:
        for host in (self.client, self.server):
            with contextlib.suppress(OSError):
                ip("netns", "del", host)

    def lose_packets(self) -> None:
        ip("-n", self.server, "addr", "flush", "dev", self.server)

    def heal(self) -> None:
        ip("-n", self.server, "addr", "add", f"{SERVER}/24", "dev", self.server)

    def on(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", host]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    made = Hosts()
    try:
        made.make()
        yield made
    except OSError as error:
        pytest.skip(f"needs the right to make network namespaces: {error}")
    finally:
        made.remove()


@pytest.fixture
def sink(hosts: Hosts, tmp_path: Path) -> Iterator[Path]:
    """A collector on the server's host writes there what it receives."""
    path = tmp_path / "events.jsonl"
    program = (
        "from raccoon_fast.collector import Collector; import sys\n"
        f"with Collector(host={SERVER!r}, port={PORT}, grpc_port={GRPC_PORT}, sink=sys.argv[1]):\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    collector = start(program, path, before=hosts.on(hosts.server))
    assert collector.stdout is not None
    assert collector.stdout.readline() == "ready\n"
    yield path
    finish(collector)


class Client:
    """Producers on the client's host, told what to do line by line."""

    def __init__(self, hosts: Hosts, schemes: tuple[str, ...], keepalive: dict[str, int], **options: Any) -> None:
        urls = [f"{scheme}://{SERVER}:{GRPC_PORT if scheme == 'grpc' else PORT}" for scheme in schemes]
        arguments = map(json.dumps, (urls, options, keepalive))
        self._process = start(PROGRAM, *arguments, before=hosts.on(hosts.client))

    def do(self, *commands: str) -> list[str]:
        said: list[str] = []
        for command in commands:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
            while (line := self._process.stdout.readline()) not in ("", "done\n"):
                said.append(line.strip())
            assert line, self._process.communicate()
        return said

    def close(self) -> list[str]:
        said = self.do("flush", "close")
        finish(self._process)
        return said


def received(sink: Path) -> int:
    return len(sink.read_bytes().splitlines()) if sink.exists() else 0


def test_a_missing_acknowledgement_reveals_a_dead_link_with_data_in_flight(hosts: Hosts, sink: Path) -> None:
    client = Client(hosts, SCHEMES, {}, timeout=0.5)
    client.do("emit", "flush")
    hosts.lose_packets()
    client.do("emit", "wait until unwell")
    hosts.heal()
    assert client.close() == ["40 40 True"] * 3
    wait_until(lambda: received(sink) >= 3 * 40)


def test_the_kernel_reveals_a_dead_link_with_data_in_flight(hosts: Hosts, sink: Path) -> None:
    """Keepalive is silent while data is in flight, and the kernel alone would try for a quarter of an hour."""
    client = Client(hosts, ("ws", "http"), {"TCP_USER_TIMEOUT": 1000}, timeout=60.0)
    client.do("emit", "flush")
    hosts.lose_packets()
    start_s = time.monotonic()
    for said in client.do("emit", "wait until unwell", "say"):
        assert "was lost before the answer" in said or "cannot connect" in said
    assert time.monotonic() - start_s < patient(20)
    hosts.heal()
    assert client.close() == ["40 40 True"] * 2
    wait_until(lambda: received(sink) >= 2 * 40)


@pytest.mark.parametrize(
    ("schemes", "keepalive", "options"),
    [
        # TCP_USER_TIMEOUT overrides the count of probes: tcp(7).
        (("ws", "http"), {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_USER_TIMEOUT": 1000}, {"ping_interval": None}),
        (("ws",), {}, {"ping_interval": 0.2, "pong_timeout": 0.5}),
    ],
    ids=["keepalive", "ping"],
)
def test_an_idle_dead_link_is_found_before_the_next_batch(
    hosts: Hosts, sink: Path, schemes: tuple[str, ...], keepalive: dict[str, int], options: dict[str, Any]
) -> None:
    client = Client(hosts, schemes, keepalive, timeout=60.0, **options)
    client.do("emit", "flush")
    hosts.lose_packets()
    client.do("wait until dead")
    hosts.heal()
    client.do("emit", "flush")
    assert client.close() == ["40 40 False"] * len(schemes)
    wait_until(lambda: received(sink) == 40 * len(schemes))
