"""The spool's worker: a failed step does not affect other work, and is retried at a bounded rate."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from disk import Clock, InlineThread

from raccoon_fast.core.batch import Batch
from raccoon_fast.spool.store import Record, Spool, SpoolError, SpoolFull
from raccoon_fast.spool.worker import News, Spooling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")


class Disk(Spool):
    """A Spool whose calls fail as they are told to, and are written down."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, max_bytes=1 << 20, logger=Silent())
        self.calls: list[str] = []
        self.errors: dict[str, BaseException] = {}

    def called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.errors:
            raise self.errors[name]

    def put(self, records: Any) -> list[int]:
        self.called("put")
        return super().put(records)

    def take(self, max_bytes: int, check: Callable[[Record], str] = lambda record: "") -> list[Record]:
        self.called("take")
        return super().take(max_bytes, check)

    def remove(self, numbers: Any) -> None:
        self.called("remove")
        super().remove(numbers)

    def quarantine(self, numbers: Any, reason: str) -> None:
        self.called("quarantine")
        super().quarantine(numbers, reason)

    def adopt(self) -> Any:
        self.called("adopt")
        return super().adopt()


class Silent:
    def info(self, msg: str, *args: object) -> None:
        pass

    warning = error = info


class Log(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, msg: str, *args: object) -> None:
        self.lines.append(msg % args)


class House:
    """A Spooling on a Disk; made on a running loop."""

    def __init__(self, path: Path) -> None:
        self.disk = Disk(path)
        self.thread = InlineThread()
        self.clock = Clock()
        self.log = Log()
        self.news: list[News] = []
        self.spooling = Spooling(
            self.disk,
            self.thread,  # type: ignore[arg-type]
            self.news.append,
            self.log,
            clock=self.clock,
            call_later=self.clock.call_later,
        )

    async def store(self, *guids: str) -> list[int | None]:
        stored: list[int | None] = []
        for guid in guids:
            self.spooling.store(new_batch(guid), lambda _, number: stored.append(number))
        while len(stored) < len(guids):
            await asyncio.sleep(0)
        return stored

    async def store_together(self, *guids: str, data: bytes = b"x") -> list[int | None]:
        """Store batches in one turn."""
        stored: list[int | None] = []
        self.thread.is_held = True
        self.spooling.give_back([99])  # a turn is under way: the stores are the next one
        for guid in guids:
            self.spooling.store(new_batch(guid, data), lambda _, number: stored.append(number))
        self.thread.run()
        while len(stored) < len(guids):
            await asyncio.sleep(0)
        return stored

    async def fetch(self) -> list[str]:
        fetched: list[list[Record]] = []
        self.spooling.fetch(1 << 20, fetched.append)
        while not fetched:
            await asyncio.sleep(0)
        return [one.req_guid for one in fetched[0]]

    async def pass_s(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turn()


def new_batch(guid: str, data: bytes = b"x") -> Batch:
    batch = Batch("proto")
    batch.add("a", data)
    batch.req_guid = guid
    return batch


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[House], Coroutine[Any, Any, None]]], None]:
    def run(main: Callable[[House], Coroutine[Any, Any, None]]) -> None:
        async def in_house() -> None:
            house = House(tmp_path / "spool")
            await turn()
            house.disk.calls.clear()
            await main(house)
            await house.spooling.close(5.0)

        asyncio.run(in_house())

    return run


def numbers(stored: list[int | None]) -> list[int]:
    assert None not in stored
    return [number for number in stored if number is not None]


REFUSALS = [SpoolError("it is locked"), sqlite3.ProgrammingError("what nobody foresaw"), MemoryError()]


@pytest.mark.parametrize("error", REFUSALS, ids=["refused", "unexpected", "memory"])
def test_a_failed_step_does_not_affect_the_others(run: Any, error: BaseException) -> None:
    async def main(house: House) -> None:
        kept, removed, aside = numbers(await house.store("kept", "removed", "aside"))
        house.thread.is_held = True
        house.spooling.give_back([99])  # a turn is under way: the others are one turn
        house.disk.errors["quarantine"] = error
        house.spooling.quarantine([aside], "it was refused")
        house.spooling.remove([removed])
        house.spooling.give_back([kept])
        house.thread.run()
        await turn()
        assert (house.spooling.available, len(house.log.lines)) == (1, 1)
        del house.disk.errors["quarantine"]
        house.disk.calls.clear()
        await house.pass_s(2)
        assert house.disk.calls == ["quarantine", "remove"]
        assert await house.fetch() == ["kept"]
        assert house.disk.nbytes == len(new_batch("kept").envelope.body())

    run(main)


def test_all_that_was_due_is_done_at_once_in_the_next_turn(run: Any) -> None:
    """The work comes from several turns that the disk refused; each number is handled once."""

    async def main(house: House) -> None:
        stored = numbers(await house.store("a", "b", "c"))
        house.disk.errors["remove"] = SpoolError("it is locked")
        for number in stored:
            house.spooling.remove([number])
            await house.pass_s(1.5)
        assert house.disk.calls.count("remove") == 3
        del house.disk.errors["remove"]
        house.disk.calls.clear()
        await house.pass_s(1.5)
        assert (house.disk.calls, house.disk.nbytes) == (["remove"], 0)

    run(main)


def test_after_a_refusal_the_disk_is_let_alone_for_a_second(run: Any) -> None:
    async def main(house: House) -> None:
        house.disk.errors["put"] = SpoolError("it is locked")
        assert await house.store("a", "b") == [None, None]
        house.disk.errors.clear()
        house.disk.calls.clear()
        for _ in range(5):
            assert await house.store("c") == [None]
            house.spooling.remove([99])
            house.spooling.give_back([98])
            await house.pass_s(0.15)
        assert house.disk.calls == []
        assert house.spooling.ready_s == pytest.approx(1001.0)
        await house.pass_s(0.3)
        assert house.disk.calls == ["remove"]
        assert None not in await house.store("d")

    run(main)


def test_a_refusal_at_once_is_reported_like_a_turn(run: Any) -> None:
    async def main(house: House) -> None:
        house.disk.errors["put"] = SpoolError("it is locked")
        assert await house.store("a") == [None]
        await turn()
        house.news.clear()
        house.disk.calls.clear()
        assert await house.store("b") == [None]
        await turn()
        assert (house.disk.calls, house.news) == ([], [News({}, {}, [])])

    run(main)


def test_a_full_spool_is_still_read_and_emptied(run: Any) -> None:
    async def main(house: House) -> None:
        first, second = numbers(await house.store("first", "second"))
        house.disk.errors["put"] = SpoolFull("the spool is full")
        assert await house.store("third") == [None]
        house.disk.calls.clear()
        house.spooling.give_back([first])
        assert await house.fetch() == ["first"]
        assert await house.store("third") == [None]
        assert "put" not in house.disk.calls
        del house.disk.errors["put"]
        house.spooling.remove([second])
        await turn()
        assert None not in await house.store("third")  # there is room again: not a second later

    run(main)


@pytest.mark.parametrize("limit", ["spool_bytes", "disk"])
def test_a_full_spool_stores_the_first_batches_of_a_turn(run: Any, limit: str) -> None:
    async def main(house: House) -> None:
        if limit == "disk":
            with house.disk._database() as db:
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                db.execute(f"PRAGMA max_page_count = {pages + 11}")
        else:
            house.disk.max_bytes = 45_000
        guids = [f"g{number}" for number in range(20)]
        stored = await house.store_together(*guids, data=bytes(4000))
        fitting = 20 - stored.count(None)
        assert 5 <= fitting <= 11
        assert stored[fitting:] == [None] * (20 - fitting)
        assert house.disk.calls.count("put") <= 12
        with pytest.raises(SpoolFull):
            Spool.put(house.disk, [Record("one more", "proto", 1.5, {"a": 1}, bytes(4000))])
        assert (len(house.log.lines), house.spooling.is_failing) == (1, True)
        house.spooling.give_back(numbers(stored[:fitting]))
        assert await house.fetch() == guids[:fitting]

    run(main)


def test_a_turn_stores_its_batches_in_one_transaction(run: Any) -> None:
    async def main(house: House) -> None:
        assert len(numbers(await house.store_together(*map(str, range(20))))) == 20
        assert house.disk.calls == ["put"]

    run(main)


def test_a_disk_that_fails_halfway_keeps_the_first_batches(run: Any) -> None:
    async def main(house: House) -> None:
        refusals = iter([SpoolFull("the spool is full"), None, SpoolError("it is locked")])
        put = house.disk.put

        def refuse(records: Any) -> list[int]:
            if (error := next(refusals)) is not None:
                raise error
            return put(records)

        house.disk.put = refuse  # type: ignore[method-assign]
        stored = await house.store_together(*"abcd")
        assert stored[2:] == [None, None]
        house.spooling.give_back(numbers(stored[:2]))
        await house.pass_s(2)
        assert await house.fetch() == ["a", "b"]

    run(main)


def test_refusals_are_logged_once_a_minute(run: Any) -> None:
    async def main(house: House) -> None:
        house.disk.errors["put"] = SpoolError("it is locked")
        for _ in range(100):
            await house.store("a")
            await house.pass_s(1.2)
        assert house.log.lines == ["it is locked"] * 2

    run(main)


def test_records_of_the_dead_are_adopted_while_running(run: Any, tmp_path: Path) -> None:
    async def main(house: House) -> None:
        other = Spool(tmp_path / "spool", max_bytes=1 << 20, logger=Silent())
        other.put([Record("theirs", "proto", 1.5, {"a": 1}, new_batch("").envelope.body())])
        await house.pass_s(10)
        assert (house.disk.calls, house.news[-1].adopted) == (["adopt"], {})
        other.close()
        await house.pass_s(9.9)
        assert (house.disk.calls, house.spooling.available) == (["adopt"], 0)
        await house.pass_s(0.1)
        assert (house.news[-1].adopted, house.spooling.available) == ({"a": 1}, 1)
        assert await house.fetch() == ["theirs"]
        await house.pass_s(10)
        assert house.disk.calls.count("adopt") == 3

    run(main)


def test_an_adoption_that_was_refused_is_tried_again_after_a_second(run: Any) -> None:
    async def main(house: House) -> None:
        house.disk.errors["adopt"] = SpoolError("it is locked")
        await house.pass_s(10)
        await house.pass_s(0.5)
        assert house.disk.calls == ["adopt"]
        await house.pass_s(0.6)
        assert house.disk.calls == ["adopt"] * 2

    run(main)


def test_a_damaged_file_costs_the_turn_nothing(run: Any) -> None:
    async def main(house: House) -> None:
        gone, kept = numbers(await house.store("gone", "kept"))
        put = house.disk.put

        def put_once(records: Any) -> list[int]:
            house.disk.put = put  # type: ignore[method-assign]
            with house.disk._database():
                raise sqlite3.DatabaseError("database disk image is malformed")

        house.disk.put = put_once  # type: ignore[method-assign]
        stored = numbers(await house.store("new"))
        assert not {gone, kept} & {*stored}
        assert sorted(house.news[-1].gone) == [gone, kept]
        house.spooling.give_back([gone])
        house.spooling.remove([kept])
        await turn()
        assert [news.lost for news in house.news if news.lost] == [{gone: {"a": 1}}]
        house.spooling.give_back(stored)
        assert await house.fetch() == ["new"]
        assert house.disk.nbytes == len(new_batch("new").envelope.body())

    run(main)


def test_close_tries_once_more_and_does_not_wait_for_the_pace(run: Any) -> None:
    async def main(house: House) -> None:
        stored = numbers(await house.store("a", "b"))
        house.disk.errors["remove"] = SpoolError("it is locked")
        house.spooling.remove(stored)
        await turn()
        house.disk.calls.clear()
        await house.spooling.close(60.0)
        assert house.disk.calls == ["remove"]
        assert house.disk.owner == ""

    run(main)


@pytest.mark.parametrize("error", [SpoolFull("the spool is full"), SpoolError("it is locked")])
def test_close_tries_to_store_once_more(run: Any, error: SpoolError) -> None:
    async def main(house: House) -> None:
        house.disk.errors["put"] = error
        assert await house.store("refused") == [None]
        del house.disk.errors["put"]
        stored: list[int | None] = []
        for guid in "ab":
            house.spooling.store(new_batch(guid), lambda _, number: stored.append(number))
        await house.spooling.close(60.0)
        assert len(numbers(stored)) == 2

    run(main)


def test_close_does_the_work_that_follows_from_its_stores(run: Any) -> None:
    async def main(house: House) -> None:
        (old,) = numbers(await house.store("old"))
        house.disk.calls.clear()
        stored: list[int | None] = []

        def replace(_: Batch, number: int | None) -> None:
            stored.append(number)
            if len(stored) == 2:
                house.spooling.remove([old])

        for guid in "ab":
            house.spooling.store(new_batch(guid), replace)
        await house.spooling.close(60.0)
        assert house.disk.calls[-1] == "remove"
        house.disk.adopt()
        assert house.disk.available == len(numbers(stored)) == 2

    run(main)


def test_a_result_the_loop_cannot_receive_causes_no_error(tmp_path: Path) -> None:
    async def main() -> House:
        house = House(tmp_path / "spool")
        await turn()
        house.thread.is_held = True
        house.spooling.remove([1])
        return house

    house = asyncio.run(main())
    house.thread.run()
    house.disk.close()
