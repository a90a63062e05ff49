"""Writes that the operating system refuses: the connection is given up, and the next one delivers."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fault_proxy import FaultProxy
from patience import patient, wait_until
from trial import port_of

from raccoon_fast import RAW, AsyncProducer, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.transports.rest.connection import HTTPConnection
from raccoon_fast.transports.shared_connection import SharedConnection

NewTrial = Callable[..., Any]
SIZE = 1 << 20


@pytest.fixture
def unreadable() -> Iterator[memoryview]:
    """Memory that may not be read: the kernel answers a write of it with EFAULT (Bad address)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    no_access = 0
    address = libc.mmap(None, SIZE, no_access, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    yield memoryview((ctypes.c_char * SIZE).from_address(address)).cast("B")
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(SIZE))


class Refused:
    """A transport whose writes of at least `least` bytes the kernel refuses, as long as `left` counts any."""

    def __init__(self, unreadable: memoryview, least: int) -> None:
        self.unreadable = unreadable
        self.least = least
        self.left = 0
        self.errors: list[BaseException | None] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in (SharedConnection, HTTPConnection):
            made, lost = kind.connection_made, kind.connection_lost

            def connection_made(connection: Any, transport: Any, made: Any = made) -> None:
                made(connection, _Transport(transport, self))

            def connection_lost(connection: Any, error: BaseException | None, lost: Any = lost) -> None:
                self.errors.append(error)
                lost(connection, error)

            monkeypatch.setattr(kind, "connection_made", connection_made)
            monkeypatch.setattr(kind, "connection_lost", connection_lost)

    def spoils(self, nbytes: int) -> bool:
        if not self.left or nbytes < self.least:
            return False
        self.left -= 1
        return True


class _Transport:
    def __init__(self, transport: Any, refused: Refused) -> None:
        self._transport = transport
        self._refused = refused
        # uvloop passes each buffer to the kernel. asyncio reads what it joins or keeps, which would end the process.
        self._joins = not type(transport).__module__.startswith("uvloop")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self._transport.write(self._refused.unreadable[: len(data)] if self._is_spoilt(len(data)) else data)

    def writelines(self, parts: Any) -> None:
        nbytes = sum(map(len, parts))
        if not self._is_spoilt(nbytes):
            self._transport.writelines(parts)
        elif self._joins:
            self._transport.write(self._refused.unreadable[:nbytes])
        else:
            self._transport.writelines([parts[0], self._refused.unreadable[:nbytes]])

    def _is_spoilt(self, nbytes: int) -> bool:
        return not (self._joins and self._transport.get_write_buffer_size()) and self._refused.spoils(nbytes)


# Any write, a greeting too; a batch in one buffer; a batch in several buffers.
@pytest.mark.parametrize(("size", "least"), [(100, 0), (100, 500), (20_000, 50_000)])
def test_a_producer_delivers_over_the_next_connection(
    new_trial: NewTrial, monkeypatch: pytest.MonkeyPatch, unreadable: memoryview, size: int, least: int
) -> None:
    refused = Refused(unreadable, least)
    refused.install(monkeypatch)
    trial = new_trial(timeout=5.0, batch_bytes=1 << 18)
    trial.emit(10, size)
    assert trial.producer.flush(patient(10)) == 0
    connections = trial.proxy.connections
    refused.left = 3
    trial.emit(100, size)
    wait_until(lambda: refused.left == 0, what=lambda: trial.producer.stats())
    assert trial.producer.flush(patient(20)) == 0, trial.producer.stats()
    assert [error.errno for error in refused.errors if isinstance(error, OSError)].count(errno.EFAULT) >= 1, (
        refused.errors
    )
    assert trial.proxy.connections > connections
    trial.judge()


@pytest.mark.parametrize("size", [100, 20_000])
def test_an_async_producer_delivers_over_the_next_connection(
    scheme: str, monkeypatch: pytest.MonkeyPatch, unreadable: memoryview, run: Any, size: int
) -> None:
    refused = Refused(unreadable, 500)
    refused.install(monkeypatch)

    async def emit(port: int) -> Any:
        async with AsyncProducer(
            f"{scheme}://127.0.0.1:{port}",
            serializer=RAW,
            logger=None,
            linger=0.001,
            batch_events=10,
            retry=RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1),
        ) as producer:
            for left in (0, 3):
                refused.left = left
                for _ in range(100):
                    await producer.emit("fault", bytes(size))
                assert await asyncio.wait_for(producer.flush(), patient(20)) == 0
            return producer.stats().total

    with Collector() as collector, FaultProxy(port_of(collector, scheme)) as proxy:
        total = run(emit(proxy.port))
        assert (total.acked, total.lost) == (200, 0)
        assert refused.left == 0
        assert [error.errno for error in refused.errors if isinstance(error, OSError)].count(errno.EFAULT) >= 1, (
            refused.errors
        )
        assert proxy.connections >= 2
