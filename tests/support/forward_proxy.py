"""A forward proxy on this machine: HTTP CONNECT or SOCKS5, optionally with a password, and with chosen refusals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading

from patience import patient


class ForwardProxy:
    """Runs inside `with`. Attributes may be set at any time.

    Args:
        kind: "http" or "socks5".
        user, password: The credentials that clients must send, if given.
        tls: The TLS context of the proxy's own port, if given.

    Attributes:
        port: The proxy's port.
        targets: host:port of each requested tunnel.
        refusal: The answer that replaces a tunnel: the bytes of an HTTP answer, or the code of a SOCKS5 reply.
    """

    def __init__(self, kind: str = "http", *, user: str = "", password: str = "", tls: ssl.SSLContext | None = None):
        self.kind = kind
        self.port = 0
        self.targets: list[str] = []
        self.refusal: bytes | int | None = None
        self._credentials = (user, password)
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forward-proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> ForwardProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def die(self) -> None:
        """Stop listening, and reset every tunnel."""
        self._call(self._die())

    def live(self) -> None:
        """Listen again on the same port."""
        self._call(self._listen())

    def url(self, scheme: str = "", userinfo: str = "") -> str:
        return f"{scheme or self.kind}://{userinfo}{'@' if userinfo else ''}localhost:{self.port}"

    def _call(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(patient(10))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _die(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()

    async def _end(self) -> None:
        await self._die()
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patient(5.0))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            target = await (self._ask_socks(reader, writer) if self.kind == "socks5" else self._ask(reader, writer))
            if target is not None:
                await self._forward(*target, reader, writer)
        writer.close()
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        self.targets.append(target)
        wanted = base64.b64encode(":".join(self._credentials).encode()).decode()
        if isinstance(self.refusal, bytes):
            writer.write(self.refusal)
        elif self._credentials[0] and f"Proxy-Authorization: Basic {wanted}\r\n" not in head:
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="corp"\r\nContent-Length: 0\r\n\r\n'
            )
        elif method != "CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            host, _, port = target.rpartition(":")
            return host.strip("[]"), int(port)
        await writer.drain()
        return None

    async def _ask_socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        """Read a SOCKS5 request (RFC 1928 and 1929)."""
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 2 if self._credentials[0] else 0
        writer.write(bytes([5, method if method in methods else 255]))
        if method not in methods:
            return None
        if method:
            await reader.readexactly(1)
            user = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            is_right = (user, password) == self._credentials
            writer.write(bytes([1, not is_right]))
            if not is_right:
                return None
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append(f"{host}:{port}")
        code = self.refusal if isinstance(self.refusal, int) else 0
        writer.write(bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0]))
        await writer.drain()
        return None if code else (host, port)

    async def _forward(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(host, port)
        self._writers.add(there)
        await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
        self._writers.discard(there)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
