"""Batches move between memory and disk with their records, receipts and counts."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from disk import InlineThread

from raccoon_fast.core.batch import Accumulator, Batch
from raccoon_fast.delivery import ledger as states
from raccoon_fast.delivery.lanes import LaneQueue, Lanes
from raccoon_fast.delivery.ledger import Ledger
from raccoon_fast.delivery.receipts import AsyncReceipt
from raccoon_fast.delivery.reserve import Reserve
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.delivery.waiting import Waiting
from raccoon_fast.errors import ClientClosedError, DeliveryError, Outcome
from raccoon_fast.logs import resolve_logger
from raccoon_fast.spool import worker
from raccoon_fast.spool.records import checksum_of
from raccoon_fast.spool.store import Spool
from raccoon_fast.spool.worker import Spooling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

SILENT = resolve_logger(None)


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
        self.lanes = Lanes([LaneQueue(self.accumulator, linger_s=0.01, delivery_timeout_s=60.0)])
        self.thread = InlineThread()
        self.reserve = Reserve(
            lambda turned: Spooling(self.spool, self.thread, turned, SILENT),  # type: ignore[arg-type]
            self.lanes,
            self.ledger,
            self.waiting,
            lambda types: self.new_batch(),
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

    async def split(self, req_guid: str, is_stored: bool = False) -> tuple[Batch, Batch, Batch]:
        """A batch that was split, and its two parts."""
        batch = self.queued(req_guid)
        if is_stored:
            self.reserve.secure(batch)
            await turn()
            self.waiting.pop_all()
        self.ledger.move(batch.types, states.QUEUED, states.DISCARDED)  # its parts are counted
        batch.settlement.split(2)
        self.reserve.split(batch)
        parts = [self.queued(f"{req_guid}/{name}", ("a", name.encode())) for name in "01"]
        for part in parts:
            part.settlement = batch.settlement
        return batch, parts[0], parts[1]


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
    (tmp_path / "house").mkdir()
    return tmp_path / "house" / "spool"


def test_a_batch_back_from_disk_is_possibly_delivered(path: Path) -> None:
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


def put_by_another(path: Path, **changed: Any) -> None:
    """A record of a process that is no more; its checksum holds."""
    whole = {"req_guid": "theirs", "wire": "proto", "accepted_at": 1000.5, "types": '{"a": 1}', "body": BODY, **changed}
    if not path.exists():
        spool = Spool(path, max_bytes=1 << 20, logger=SILENT)
        spool.adopt()  # makes the file
        spool.close()
    row = [whole[name] for name in ("req_guid", "wire", "accepted_at", "types")]
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO records (owner, req_guid, wire, accepted_at, types, checksum, body)"
            " VALUES ('dead', ?, ?, ?, ?, ?, ?)",
            [*row, checksum_of(*row, whole["body"]), whole["body"]],
        )


BODY = b"\x1a\x06\x0a\x01x\x12\x01a"
NONSENSE: dict[str, dict[str, Any]] = {
    "unknown wire": {"wire": "avro"},
    "negative count": {"types": '{"a": -5}'},
    "no count": {"types": "{}"},
    "absurd count": {"types": '{"a": 1000000000000000000000}'},
    "too many": {"types": '{"a": 7}'},
    "count of another type": {"types": '{"b": 1}'},
    "huge guid": {"req_guid": "g" * 100_000},
    "no guid": {"req_guid": ""},
    "absurd time": {"accepted_at": 1e300},
    "no events": {"body": b"\xff" * 8},
    "cut off": {"body": BODY[:-1]},
}


@pytest.mark.parametrize("changed", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("wire", ["proto", "json"])
def test_a_nonsensical_record_blocks_none_of_the_later_ones(path: Path, changed: dict[str, Any], wire: str) -> None:
    async def main() -> None:
        put_by_another(path, **changed)
        put_by_another(path)
        house = House(path, wire=wire)
        await turn()
        accepted = house.ledger.total(0)
        house.reserve.fetch(1 << 20)
        await turn()
        assert [batch.req_guid for batch in house.waiting.pop_all()] == ["theirs"]
        total = house.ledger.total(0)
        assert (total.spooled, total.queued) == (0, 1)
        assert total.accepted == accepted.accepted
        assert sum(total.failed.values()) == total.accepted - 1
        for counts in [total, *house.ledger.by_type({}).values()]:
            assert min(counts.accepted, counts.spooled, counts.queued, *counts.failed.values()) >= 0
        assert house.reserve.fetch_s == float("inf")
        assert len(rows(path, "quarantine")) == 1
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())


def test_a_batch_lost_on_disk_fails_its_receipt(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batches = [house.queued(guid) for guid in ("well", "damaged")]
        for batch in batches:
            house.reserve.set_aside(batch, pytest.fail)
        await turn()
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE records SET body = x'00' WHERE req_guid = 'damaged'")
        house.reserve.fetch(1 << 20)
        await turn()
        assert house.ledger.total(0).failed == {"damaged": 1}
        assert house.settled == [batches[1].settlement]
        error = batches[1].receipt.exception()
        assert isinstance(error, DeliveryError)
        assert (error.req_guid, error.outcome) == ("damaged", Outcome.POSSIBLY_DELIVERED)
        assert not batches[0].receipt.done()
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())


def test_a_batch_whose_record_is_gone_is_stored_again(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batch = house.queued("g")
        house.reserve.secure(batch)
        await turn()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").write_bytes(b"damaged" * 1000)
        house.reserve.secure(house.queued("other"))
        await turn()
        assert len(house.waiting) == 2
        assert batch is house.waiting.pop_ready()
        house.reserve.set_aside(batch, pytest.fail)
        await turn()
        assert "g" in [row[0] for row in rows(path)]
        total = house.ledger.total(0)
        assert (total.spooled, total.failed) == (1, {})
        await house.reserve.close([], pytest.fail, 1.0)

    run(main())


@pytest.mark.parametrize("pause_s", [None, 0.0, 600.0], ids=["stored", "refused at once", "refused"])
def test_durable_bounds_the_batches_that_wait_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float | None
) -> None:
    """Also while the disk refuses, when batches are sent without being stored."""
    refuses = pause_s is not None
    if refuses:
        monkeypatch.setattr(worker, "_PAUSE_S", pause_s)

    async def main() -> None:
        house = House(path, max_waiting=4)
        await turn()
        if refuses:
            house.spool.max_bytes = 0
        secured = 0
        for tried in range(50):
            while house.reserve.may_secure(time.monotonic()):
                house.reserve.secure(house.queued(f"g{secured}"))
                secured += 1
            assert house.reserve.pending <= 4
            await turn()
            # One more each time that the disk may be tried again.
            assert len(house.waiting) <= (8 + tried if pause_s == 0.0 else 8)
        assert secured == len(house.waiting) if refuses else secured >= 50
        assert house.ledger.total(0).spooled == secured - len(house.waiting)
        await house.reserve.close(house.waiting.pop_all(), lambda batch: None, 5.0)

    run(main())


def test_close_keeps_stored_batches_and_fails_the_others(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        stored, refused = house.queued("stored"), house.queued("refused")
        house.reserve.set_aside(stored, pytest.fail)
        await turn()
        house.spool.max_bytes = 0
        failed: list[Batch] = []
        await house.reserve.close([refused], failed.append, 5.0)
        assert failed == [refused]
        assert isinstance(stored.receipt.exception(), ClientClosedError)
        assert house.ledger.total(0).spooled == 1
        assert [row[0] for row in rows(path)] == ["stored"]

    run(main())


def test_close_settles_a_batch_whose_parts_are_all_on_disk(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batch, early, late = await house.split("whole")
        house.reserve.set_aside(early, pytest.fail)
        await turn()
        assert not batch.receipt.done()
        await house.reserve.close([late], pytest.fail, 5.0)
        assert isinstance(batch.receipt.exception(), ClientClosedError)
        assert house.ledger.total(0).spooled == 2
        assert [row[0] for row in rows(path)] == ["whole/0", "whole/1"]

    run(main())


@pytest.mark.parametrize("aside", ["none", "one", "both"])
def test_close_removes_the_record_of_a_batch_whose_parts_have_their_own(path: Path, aside: str) -> None:
    async def main() -> None:
        house = House(path)
        batch, *parts = await house.split("whole", is_stored=True)
        count = ["none", "one", "both"].index(aside)
        for part in parts[:count]:
            house.reserve.set_aside(part, pytest.fail)
        await turn()
        assert "whole" in [row[0] for row in rows(path)]
        await house.reserve.close(parts[count:], pytest.fail, 5.0)
        assert [row[0] for row in rows(path)] == ["whole/0", "whole/1"]
        assert batch.receipt.done()

    run(main())


def test_close_keeps_the_record_of_a_split_batch_that_is_not_stored_in_time(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        _, first, second = await house.split("whole", is_stored=True)
        house.reserve.set_aside(first, pytest.fail)
        await turn()
        house.thread.is_held = True
        failed: list[Batch] = []
        await house.reserve.close([second], failed.append, 0.01)
        house.thread.run()
        assert failed == [second]
        assert [row[0] for row in rows(path)] == ["whole", "whole/0", "whole/1"]

    run(main())


def test_close_reports_records_nobody_will_find(path: Path) -> None:
    async def main() -> None:
        house = House(path)
        batch = house.queued("g")
        house.reserve.set_aside(batch, pytest.fail)
        await turn()
        shutil.rmtree(path.parent)
        await house.reserve.close([], pytest.fail, 5.0)
        total = house.ledger.total(0)
        assert (total.spooled, total.failed) == (0, {"damaged": 1})
        assert isinstance(batch.receipt.exception(), DeliveryError)
        assert "lost" in str(batch.receipt.exception())

    run(main())
