"""Clients for the collector's tests that are independent of this project: httpx, websockets and grpcio."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from patience import patient
from websockets.sync.client import ClientConnection, connect

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

SEND_EVENT = "/raystack.raccoon.v1beta1.EventService/SendEvent"
HANDSHAKE = (
    "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-User-ID: {}\r\n\r\n"
)


class Peer:
    """Talks to one collector; every connection it makes is closed with it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._http: httpx.Client | None = None

    def request(self, req_guid: str = "g", events: int = 1) -> bytes:
        message = SendEventRequest(
            req_guid=req_guid, events=[{"type": "page", "event_bytes": b"%d" % i} for i in range(events)]
        )
        return bytes(message.SerializeToString())

    def decode(self, answer: bytes | str) -> Any:
        assert isinstance(answer, bytes)
        return SendEventResponse.FromString(answer)

    def post(
        self, collector: Collector, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        if self._http is None:
            self._http = self._stack.enter_context(httpx.Client(timeout=10, trust_env=False))
        headers = {"content-type": "application/proto", **(headers or {})}
        return self._http.post(
            f"{collector.url}/api/v1/events", content=self.request() if body is None else body, headers=headers
        )

    def websocket(
        self, collector: Collector, user_id: str = "u", path: str = "/api/v1/events", **options: Any
    ) -> ClientConnection:
        headers = {"X-User-ID": user_id}
        connection = connect(f"{collector.ws_url}{path}", additional_headers=headers, proxy=None, **options)
        return self._stack.enter_context(connection)

    def raw_websocket(self, collector: Collector, user_id: str = "u") -> socket.socket:
        """A socket after the handshake, which only does what it is told."""
        connection = self._stack.enter_context(self.tcp(collector.port))
        connection.sendall(HANDSHAKE.format(user_id).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return connection

    def tcp(self, port: int) -> socket.socket:
        return self._stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=patient(10)))

    def ping(self, connection: socket.socket) -> None:
        """An exchange that is done when this returns; the connection stays open."""
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"\r\n\r\npong"):
            chunk = connection.recv(4096)
            assert chunk, received
            received += chunk

    def call(self, collector: Collector, body: bytes | None = None, timeout: float = 10.0) -> Any:
        grpc = pytest.importorskip("grpc", reason="there is no grpcio for this Python")
        with grpc.insecure_channel(collector.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            answer = channel.unary_unary(SEND_EVENT)(
                self.request() if body is None else body, metadata=[("x-user-id", "u")], timeout=timeout
            )
        return self.decode(answer)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with contextlib.ExitStack() as stack:
        yield Peer(stack)


@pytest.fixture
def new_collector() -> Iterator[Callable[..., Collector]]:
    """Starts collectors, and closes them in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Collector(**options))


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Collectors run on this kind of event loop."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)  # importing it is an ImportError then
    elif sys.platform == "win32":
        pytest.skip("there is no uvloop on Windows")
    return str(request.param)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from inspector_page import run_browser

    yield from run_browser(tmp_path_factory.mktemp("chromium"))


@pytest.fixture
def open_page(browser: Any, new_collector: Callable[..., Collector]) -> Iterator[Callable[..., Any]]:
    """Opens the page, which may complain of nothing in the browser's console while the collectors are there."""
    from inspector_page import Page

    browser.get_log("browser")

    def open_(collector: Collector, query: str = "") -> Page:
        page = Page(browser, collector, query)
        page.resize(1280, 900)
        page.colours("light")
        return page

    yield open_
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    browser.get("about:blank")
