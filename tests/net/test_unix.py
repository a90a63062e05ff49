"""Servers on Unix sockets, such as sidecars."""

from __future__ import annotations

from pathlib import Path

import pytest
from any_client import ASYNC, PROTOCOLS, OnLoop, new_client
from patience import patient
from unix_socket import forwarded

from raccoon_fast import RAW, ConnectError, Producer
from raccoon_fast.collector import Collector


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client(tmp_path: Path, protocol: str, is_async: bool) -> None:
    with Collector() as collector:
        path = tmp_path / "r s.sock"
        url = f"unix://{str(path).replace(' ', '%20')}"
        port = collector.grpc_port if protocol == "grpc" else collector.port
        with forwarded(path, port) as heads:
            client = OnLoop(new_client(protocol, url, ASYNC)) if is_async else new_client(protocol, url)
            with client:
                client.send([("t", b"x")])
            if protocol != "grpc":
                assert b"\r\nHost: localhost\r\n" in heads[0]
        assert collector.event_count == 1


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_a_producer(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "r.sock"
    with Collector() as collector:
        port = collector.grpc_port if scheme == "grpc" else collector.port
        with forwarded(path, port), Producer(f"{scheme}+unix://{path}", serializer=RAW, logger=None) as producer:
            producer.emit("t", b"x")
            assert producer.flush(patient(20)) == 0
        assert collector.event_count == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_socket(tmp_path: Path, protocol: str) -> None:
    with new_client(protocol, f"unix://{tmp_path}/none") as client, pytest.raises(ConnectError, match="unix:///"):
        client.send([("t", b"x")])


def test_options_for_tcp_only(tmp_path: Path) -> None:
    for options in ({"proxy": "http://proxy:3128"}, {"server_hostname": "a.test"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            new_client("rest", f"unix://{tmp_path}/r", **options)
