"""Gives clients of every protocol, sync or async, the same interface."""

from __future__ import annotations

import asyncio
import contextlib

from raccoon_fast import (
    RAW,
    AsyncGrpcClient,
    AsyncRestClient,
    AsyncWebSocketClient,
    GrpcClient,
    RestClient,
    RetryPolicy,
    WebSocketClient,
)

PROTOCOLS = ("rest", "websocket", "grpc")
SYNC = {"rest": RestClient, "websocket": WebSocketClient, "grpc": GrpcClient}
ASYNC = {"rest": AsyncRestClient, "websocket": AsyncWebSocketClient, "grpc": AsyncGrpcClient}


def address_of(protocol: str, collector) -> str:
    return {"rest": collector.url, "websocket": collector.ws_url, "grpc": collector.grpc_target}[protocol]


def silent_address(protocol: str, host: str, secure: str = "") -> str:
    """The address of a server at `host` that is no Collector."""
    return f"{ {'rest': 'http', 'websocket': 'ws', 'grpc': 'grpc'}[protocol] }{secure}://{host}"


def new_client(protocol: str, server, classes=SYNC, **options):
    """A client without a logger and without retries, for a Collector or an address."""
    options = {"serializer": RAW, "logger": None, "retry": RetryPolicy(max_attempts=1), "timeout": 10.0, **options}
    address = server if isinstance(server, str) else address_of(protocol, server)
    return classes[protocol](address, **options)


class OnLoop:
    """Lets tests call an async client like a sync one; its event loop runs only during a call.

    Leaving `with` closes the client and the loop.
    """

    def __init__(self, client) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()

    def send(self, events, **options):
        return self.run(self.client.send(events, **options))

    def submit(self, events, **options):
        return _ReceiptOnLoop(self.call(self.client.submit, events, **options), self)

    def acks(self, maxsize: int = 10_000):
        return _AcksOnLoop(self.call(self.client.acks, maxsize), self)

    def set_app(self, app) -> None:
        self.call(self.client.set_app, app)

    def close(self, timeout: float = 5.0) -> None:
        self.run(self.client.close(timeout))

    def run(self, coroutine):
        return self._loop.run_until_complete(coroutine)

    def call(self, function, *args, **options):
        async def call():
            return function(*args, **options)

        return self.run(call())

    def __enter__(self) -> OnLoop:
        self.run(self.client.__aenter__())
        return self

    def __exit__(self, *exc_info) -> None:
        try:
            self.run(self.client.__aexit__(*exc_info))
        finally:
            self.run(self._loop.shutdown_asyncgens())
            self.run(self._loop.shutdown_default_executor())
            self._loop.close()


class _ReceiptOnLoop:
    def __init__(self, receipt, client: OnLoop) -> None:
        self.req_guid = receipt.req_guid
        self._receipt = receipt
        self._client = client

    def done(self) -> bool:
        return self._receipt.done()

    def result(self, timeout: float | None = None):
        if self._receipt.done():
            return self._receipt.result()

        async def result():
            return await asyncio.wait_for(self._wait(), timeout)

        return self._client.run(result())

    def exception(self, timeout: float | None = None):
        with contextlib.suppress(Exception):
            self.result(timeout)
        return self._receipt.exception()

    def add_done_callback(self, callback) -> None:
        self._receipt.add_done_callback(lambda _: callback(self))

    async def _wait(self):
        return await self._receipt


class _AcksOnLoop:
    def __init__(self, stream, client: OnLoop) -> None:
        self._stream = stream
        self._client = client

    @property
    def dropped(self) -> int:
        return self._stream.dropped

    def close(self) -> None:
        self._stream.close()

    def __iter__(self) -> _AcksOnLoop:
        return self

    def __next__(self):
        async def following():
            return await anext(self._stream, None)

        ack = self._client.run(following())
        if ack is None:
            raise StopIteration
        return ack
