"""Batches move between memory and the disk, each with its record, receipt and count."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raccoon_fast.core.batch import Accumulator, Batch
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.ledger import Ledger
from raccoon_fast.delivery.receipts import AsyncReceipt
from raccoon_fast.delivery.reserve import Reserve
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.delivery.spool import Spool
from raccoon_fast.delivery.spooling import Spooling
from raccoon_fast.delivery.waiting import Waiting
from raccoon_fast.errors import Outcome
from raccoon_fast.logs import resolve_logger

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

SILENT = resolve_logger(None)


class InlineThread:
    """Stands in for the CallbackThread: runs the disk's work at once, where it is asked for."""

    def submit(self, callback: Callable[..., object], argument: Any) -> None:
        callback(argument)


class House:
    """A Reserve with what is around it in an engine; made on a running loop."""

    def __init__(self, path: Path, max_waiting: int = 4, wire: str = "proto") -> None:
        self.ledger = Ledger()
        self.waiting = Waiting()
        self.settled: list[Settlement] = []
        self.spool = Spool(path, max_bytes=1 << 20, logger=SILENT)
        self.accumulator = Accumulator(
            self.new_batch,
            serializer=None,
            wire=wire,
            max_events=10,
            max_bytes=1 << 16,
            max_event_bytes=1 << 16,
            buffer_bytes=1 << 20,
        )
        self.reserve = Reserve(
            lambda turned: Spooling(self.spool, InlineThread(), turned, SILENT),  # type: ignore[arg-type]
            self.accumulator,
            self.ledger,
            self.waiting,
            self.new_batch,
            self.settled.append,
            lambda batch: None,
            lambda: None,
            wire,
            60.0,
            max_waiting,
        )

    def new_batch(self, req_guid: str = "fresh") -> Batch:
        batch = Batch("proto")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        batch.receipt = AsyncReceipt(req_guid, future)
        batch.settlement = Settlement(batch.receipt, future)
        batch.req_guid = req_guid
        return batch

    def queued(self, req_guid: str, *events: tuple[str, bytes]) -> Batch:
        """A batch as the engine takes it from the accumulator."""
        batch = self.new_batch(req_guid)
        batch.add_many(events or [("a", b"x")])
        batch.deadline_s = 1e9
        self.accumulator.hold(batch.nbytes)
        self.ledger.add(batch.types, states.QUEUED)
        return batch


async def turn() -> None:
    for _ in range(10):  # a turn of the disk comes back by the loop, and may ask for the next
        await asyncio.sleep(0)


def rows(path: Path, table: str = "records") -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT req_guid, types, body FROM {table} ORDER BY rowid").fetchall()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_what_comes_back_may_have_been_delivered(path: Path) -> None:
    """The outcome is not stored, so nothing that returns from the disk claims to know it."""

    async def main() -> None:
        house = House(path)
        batch = house.queued("g")
        assert batch.outcome is Outcome.NOT_DELIVERED
        house.reserve.set_aside(batch, pytest.fail)
        await turn()
        assert house.ledger.total(0).spooled == 1
        house.reserve.fetch(1 << 20)
        await turn()
        back = house.waiting.pop_ready()
        assert (back.req_guid, back.outcome) == ("g", Outcome.POSSIBLY_DELIVERED)
        assert back.receipt is batch.receipt
        assert house.ledger.total(0).spooled == 0
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())


def test_quarantine_moves_a_batch_s_own_record(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batch = house.queued("g")
        house.reserve.secure(batch)
        await turn()
        assert [row[0] for row in rows(path)] == ["g"]
        house.reserve.quarantine(batch, "it was refused")
        house.reserve.settled(batch, is_last=True)
        await turn()
        assert (rows(path), [row[0] for row in rows(path, "quarantine")]) == ([], ["g"])
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())


def test_quarantine_keeps_a_part_of_a_batch_that_was_split(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batch = house.queued("whole", ("a", b"x"), ("b", b"y"))
        house.reserve.secure(batch)
        await turn()
        batch.settlement.split(2)
        house.reserve.split(batch)
        parts = [house.queued(f"part-{name}", event) for name, event in zip("01", batch.events(), strict=True)]
        for part in parts:
            part.settlement = batch.settlement
        house.reserve.settled(parts[0], is_last=False)
        await turn()
        assert [row[0] for row in rows(path)] == ["whole"]
        body = parts[1].envelope.body()
        house.reserve.quarantine(parts[1], "it was refused")
        house.reserve.settled(parts[1], is_last=True)
        parts[1].clear()
        await turn()
        assert (rows(path), rows(path, "quarantine")) == ([], [("part-1", '{"b": 1}', body)])
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())
