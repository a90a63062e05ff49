"""TLS and client certificates on all three protocols."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from patience import patient
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from raccoon_fast.collector import Collector

SEND_EVENT = "/raystack.raccoon.v1beta1.EventService/SendEvent"


class Files:
    """A CA, and certificates of it, as PEM files."""

    def __init__(self, path: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost")
        client = authority.issue_cert("client.example")
        self.ca, self.cert, self.key = path / "ca.pem", path / "server.pem", path / "server.key"
        self.client_cert, self.client_key = path / "client.pem", path / "client.key"
        authority.cert_pem.write_to_path(self.ca)
        for issued, cert, key in ((server, self.cert, self.key), (client, self.client_cert, self.client_key)):
            issued.private_key_pem.write_to_path(key)
            cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def context(self, *, with_client: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if with_client:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context

    def credentials(self, *, with_client: bool) -> grpc.ChannelCredentials:
        if not with_client:
            return grpc.ssl_channel_credentials(self.ca.read_bytes())
        pair = self.client_key.read_bytes(), self.client_cert.read_bytes()
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def over_rest(collector: Collector, files: Files, body: bytes, with_client: bool) -> None:
    with httpx.Client(verify=files.context(with_client=with_client), trust_env=False) as client:
        headers = {"content-type": "application/proto"}
        assert client.post(f"{collector.url}/api/v1/events", content=body, headers=headers).status_code == 200


def over_websocket(collector: Collector, files: Files, body: bytes, with_client: bool) -> None:
    # Not by the client of websockets.sync: its threads read and write one TLS session at once, and at times it hangs.
    async def exchange() -> None:
        context = files.context(with_client=with_client)
        async with connect(f"{collector.ws_url}/api/v1/events", ssl=context, proxy=None) as websocket:
            await websocket.send(body)
            await asyncio.wait_for(websocket.recv(), patient(10))

    asyncio.run(exchange())


def over_grpc(collector: Collector, files: Files, body: bytes, with_client: bool) -> None:
    credentials = files.credentials(with_client=with_client)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(collector.grpc_target, credentials, options) as channel:
        channel.unary_unary(SEND_EVENT)(body, metadata=[("x-user-id", "u")], timeout=10)


WAYS = [over_rest, over_websocket, over_grpc]
Way = Callable[[Collector, Files, bytes, bool], None]


@pytest.mark.parametrize("way", WAYS)
def test_tls(way: Way, files: Files, peer: Any, event_loop_kind: str) -> None:
    with Collector(tls_cert=files.cert, tls_key=files.key) as collector:
        assert collector.url == f"https://127.0.0.1:{collector.port}"
        assert collector.ws_url == f"wss://127.0.0.1:{collector.port}"
        way(collector, files, peer.request(), False)
        assert collector.event_count == 1


@pytest.mark.parametrize("way", WAYS)
def test_mutual_tls(way: Way, files: Files, peer: Any, event_loop_kind: str) -> None:
    with Collector(tls_cert=files.cert, tls_key=files.key, tls_client_ca=files.ca) as collector:
        way(collector, files, peer.request(), True)
        assert collector.event_count == 1
        with pytest.raises((httpx.TransportError, OSError, WebSocketException, grpc.RpcError)):
            way(collector, files, peer.request(), False)
        assert collector.event_count == 1


def test_plain_text_is_refused(files: Files, peer: Any) -> None:
    with Collector(tls_cert=files.cert, tls_key=files.key) as collector:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{collector.port}/ping")
        with pytest.raises(grpc.RpcError):
            peer.call(collector, timeout=patient(5))


def test_close_does_not_wait_for_a_peer_that_says_nothing(files: Files, peer: Any, event_loop_kind: str) -> None:
    collector = Collector(tls_cert=files.cert, tls_key=files.key).start()
    never_shakes_hands = peer.tcp(collector.port)
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(
            files.context(with_client=False).wrap_socket(peer.tcp(collector.port), server_hostname="localhost")
        )
        peer.ping(idle)
        start_s = time.monotonic()
        collector.close()
        assert time.monotonic() - start_s < patient(0.5)
        with contextlib.suppress(ConnectionResetError):
            assert never_shakes_hands.recv(1) == b""


def test_connections_over_tls_can_be_reset(files: Files, peer: Any, event_loop_kind: str) -> None:
    with Collector(tls_cert=files.cert, tls_key=files.key) as collector:
        raw = peer.tcp(collector.port)
        with files.context(with_client=False).wrap_socket(raw, server_hostname="localhost") as idle:
            peer.ping(idle)
            # The ssl module takes a reset for an end.
            with socket.socket(fileno=os.dup(idle.fileno())) as below_tls:
                collector.faults.close_connections()
                with pytest.raises(ConnectionResetError):
                    below_tls.recv(1)


def test_invalid_files_are_reported_at_the_start(files: Files, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    with pytest.raises(ssl.SSLError):
        Collector(tls_cert=wrong, tls_key=files.key).start()
