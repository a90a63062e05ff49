"""Producers that send nothing: null:// and enabled=False."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raccoon_fast import JSON, TLS, AsyncProducer, Counts, Producer, StatsD, Status
from raccoon_fast.collector import Collector

URL = "http://127.0.0.1:1"  # nobody listens there
WAYS: list[tuple[str, dict[str, Any]]] = [("null://", {}), (URL, {"enabled": False}), ("NULL://", {"enabled": False})]


@pytest.mark.parametrize(("url", "options"), WAYS)
def test_events_are_accepted_serialized_and_discarded(url: str, options: dict[str, Any]) -> None:
    settled: list[Any] = []
    serialized: list[Any] = []

    def serializer(data: object) -> bytes:
        serialized.append(data)
        return JSON(data)

    with Producer(
        url, serializer=serializer, logger=None, batch_events=10, linger=60, on_delivery=settled.append, **options
    ) as producer:
        acks = producer.acks()
        receipts = producer.emit_many([("a", number) for number in range(25)])
        receipts.append(producer.emit_batch([("b", 1)], req_guid="mine"))
        with pytest.raises(TypeError):
            producer.emit("a", object())
        with pytest.raises(ValueError, match="empty"):
            producer.emit("", 1)
        assert producer.flush() == 0
        response = receipts[0].result(10)
        assert (response.status, response.reason) == (Status.SUCCESS, "discarded: nothing is sent to null://")
        assert producer.health().ok
        assert [server.address for server in producer.health().servers] == ["null://"]
    assert producer.report.total == Counts(26, discarded=26)
    assert producer.report.total.lost == 0
    assert producer.report.by_type["b"] == Counts(1, discarded=1)
    assert [*range(25), 1] == [data for data in serialized if isinstance(data, int)][:26]
    assert len(settled) == 4
    assert list(acks) == []  # no server has said anything


@pytest.mark.parametrize(("url", "options"), WAYS)
def test_in_the_caller_s_loop(url: str, options: dict[str, Any]) -> None:
    async def main() -> Counts:
        async with AsyncProducer(url, serializer=JSON, logger=None, **options) as producer:
            assert (await (await producer.emit("a", 1))).status is Status.SUCCESS
            await producer.emit_many([("a", 1)] * 5)
        return producer.report.total

    assert asyncio.run(main()) == Counts(6, discarded=6)


def test_a_spool_stays_untouched(tmp_path: Path) -> None:
    """The batches in the spool were accepted for sending."""
    path = tmp_path / "spool"
    with Producer(URL, spool=path, serializer=JSON, logger=None) as producer:
        producer.emit("a", 1)
        producer.close(timeout=0.01)
    before = path.read_bytes()
    for url, options in WAYS:
        with Producer(
            url, spool=path, durable=True, overflow="spool", serializer=JSON, logger=None, **options
        ) as producer:
            producer.emit("a", 2)
        assert producer.report.total == Counts(1, discarded=1)
    assert path.read_bytes() == before
    with Collector() as collector, Producer(collector.url, spool=path, serializer=JSON, logger=None) as producer:
        collector.wait_for(1)
        assert collector.events[0].data == b"1"


def test_options_of_a_server_are_accepted() -> None:
    options: dict[str, Any] = {"tls": TLS(), "server_hostname": "a.test", "auth": "token", "stats": StatsD("127.0.0.1")}
    with Producer("null://", logger=None, serializer=JSON, **options) as producer:
        producer.emit("a", 1)
    assert producer.report.total.discarded == 1


def test_wrong_options_are_still_refused() -> None:
    with pytest.raises(ValueError, match="url must start with"):
        Producer("nowhere://", enabled=False)
    with pytest.raises(ValueError, match="overflow must be one of"):
        Producer("null://", overflow="never")
    with pytest.raises(TypeError, match="enabled takes True or False, not 0"):
        Producer(URL, enabled=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("urls", [["null://", URL], [URL, "null://"]])
def test_null_cannot_be_combined_with_a_server(urls: list[str]) -> None:
    """It would take events while that server is briefly unavailable."""
    with pytest.raises(ValueError, match="null:// alone"):
        Producer(urls)


def test_a_null_url_has_no_host_or_path() -> None:
    with pytest.raises(ValueError, match="null:// without a path"):
        Producer("null://user:secret@host")
    with pytest.raises(ValueError) as caught:
        Producer("null://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("has_url", [False, True])
def test_a_variable_turns_the_producer_off(monkeypatch: pytest.MonkeyPatch, has_url: bool) -> None:
    monkeypatch.setenv("RACCOON_FAST_ENABLED", "0")
    if has_url:
        monkeypatch.setenv("RACCOON_FAST_URL", URL)
    else:
        monkeypatch.delenv("RACCOON_FAST_URL", raising=False)
    with Producer.from_env(serializer=JSON, logger=None) as producer:
        producer.emit("a", 1)
    assert producer.report.total == Counts(1, discarded=1)


def test_a_variable_that_is_not_boolean_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACCOON_FAST_ENABLED", "maybe")
    with pytest.raises(ValueError, match="RACCOON_FAST_ENABLED must be 1 or 0"):
        Producer.from_env(url=URL)
