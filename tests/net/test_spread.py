"""Connections to a name with several addresses: the address of each, and what happens when one dies or returns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from any_client import new_client
from patience import patient, wait_until
from trial import SCHEMES, port_of

from raccoon_fast import RAW, Producer, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.net import resolver, spread
from raccoon_fast.net.spread import Spread

HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


class Connection:
    """An open connection, as Spread sees it."""

    def __init__(self) -> None:
        self.transport = self
        self.closing = False
        self.moved = False

    def is_closing(self) -> bool:
        return self.closing

    def move_on(self) -> None:
        self.moved = self.closing = True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(spread, "time", SimpleNamespace(monotonic=lambda: self.now_s))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def infos(*hosts: str) -> list[resolver.AddrInfo]:
    return [
        (socket.AF_INET6, 1, 6, "", (host, 80, 0, 0)) if ":" in host else (socket.AF_INET, 1, 6, "", (host, 80))
        for host in hosts
    ]


def on_loop(test: Callable[[Spread, list[Any]], None]) -> None:
    """Runs `test(spread, kept)` on a loop; what is in `kept` stays alive."""

    async def main() -> None:
        test(Spread(), [])

    asyncio.run(main())


def first(one: Spread, *hosts: str) -> str:
    return one.order(infos(*hosts))[0][4][0]


def connect(one: Spread, host: str) -> Connection:
    connection = Connection()
    one.opened(connection, host, (host, 80), 1)  # a literal: nothing is looked up later
    return connection


def test_each_connection_goes_to_the_address_with_the_fewest() -> None:
    def test(one: Spread, kept: list[Connection]) -> None:
        went = []
        for _ in range(6):
            went.append(first(one, *HOSTS))
            kept.append(connect(one, went[-1]))
        assert went == HOSTS * 2
        with one.reserved(HOSTS[0]):  # one that is being opened counts too
            assert first(one, *HOSTS) == HOSTS[1]
        assert first(one, *HOSTS) == HOSTS[0]

    on_loop(test)


def test_families_alternate() -> None:
    def test(one: Spread, kept: list[Connection]) -> None:
        given = infos("::1", "::2", "::3", "10.0.0.1", "10.0.0.2")
        assert [info[4][0] for info in one.order(given)] == ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]
        kept.append(connect(one, "::1"))
        assert first(one, *(info[4][0] for info in given)) == "::2"

    on_loop(test)


def test_a_failed_address_is_tried_last_for_longer_each_time(clock: Clock) -> None:
    def test(one: Spread, kept: list[Connection]) -> None:
        assert first(one, *HOSTS) == HOSTS[0]
        for seconds in (10, 20, 30, 30):
            one.failed(HOSTS[:1])
            assert [info[4][0] for info in one.order(infos(*HOSTS))] == [*HOSTS[1:], HOSTS[0]]
            clock.now_s += seconds - 0.1
            assert first(one, *HOSTS) == HOSTS[1]
            clock.now_s += 0.2
            assert first(one, *HOSTS) == HOSTS[0]

    on_loop(test)


def test_a_connection_that_ended_is_replaced_elsewhere(clock: Clock) -> None:
    def test(one: Spread, kept: list[Connection]) -> None:
        kept += [connect(one, host) for host in HOSTS]
        kept[0].closing = True
        assert first(one, *HOSTS) == HOSTS[1]
        clock.now_s += 11
        assert first(one, *HOSTS) == HOSTS[0]
        assert first(one, HOSTS[0]) == HOSTS[0]  # where there is one only, that one

    on_loop(test)


def test_excess_connections_move_until_the_counts_are_even(clock: Clock) -> None:
    def test(one: Spread, kept: list[Connection]) -> None:
        kept += [connect(one, HOSTS[1]) for _ in range(5)] + [connect(one, HOSTS[2])]
        one.failed([HOSTS[0]])
        assert len(one._crowded(set(HOSTS[:1] + HOSTS[1:2]))) == 0  # a dead one is nothing to move to
        clock.now_s += 11
        assert len(one._crowded(set(HOSTS))) == 3

    on_loop(test)


def test_counts_start_fresh_on_another_loop() -> None:
    one = Spread()
    kept: list[Connection] = []

    async def main() -> str:
        host = first(one, *HOSTS)
        kept.append(connect(one, host))
        return host

    assert [asyncio.run(main()) for _ in range(2)] == HOSTS[:1] * 2


# Against servers


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean; to be changed at will."""
    known: dict[str, list[str]] = {}
    real = resolver.look_up

    async def look_up(host: str, port: int) -> list[resolver.AddrInfo]:
        return [info for one in known.get(host, [host]) for info in await real(one, port)]

    monkeypatch.setattr(resolver, "look_up", look_up)
    return known


@pytest.fixture
def three() -> Iterator[list[Collector]]:
    """Servers at three addresses and the same ports."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Collector(host=HOSTS[0]))]
        ports = {"port": servers[0].port, "grpc_port": servers[0].grpc_port}
        servers += [stack.enter_context(Collector(host=host, **ports)) for host in HOSTS[1:]]
        yield servers


@contextlib.contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """A listener whose queue is full: SYNs to it are dropped, as by a firewall or by a machine that is gone."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener, contextlib.ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(listener.family))
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def url_of(scheme: str, server: Collector, name: str) -> str:
    return f"{scheme}://{name}:{port_of(server, scheme)}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dead", ["127.0.0.9", "::1"])
def test_a_dead_address_costs_a_moment(names: dict[str, list[str]], scheme: str, dead: str) -> None:
    names["two.test"] = [dead, "127.0.0.1"]
    protocol = {"ws": "websocket", "http": "rest", "grpc": "grpc"}[scheme]
    with Collector(host="127.0.0.1") as server, silent(dead, port_of(server, scheme)):
        began_s = time.monotonic()
        with new_client(protocol, url_of(scheme, server, "two.test"), connect_timeout=9.0) as client:
            client.send([("t", b"x")])
        assert time.monotonic() - began_s < patient(5.0)
        assert server.event_count == 1


def test_a_short_timeout_is_shared_out(names: dict[str, list[str]]) -> None:
    names["many.test"] = ["127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.1"]
    with Collector(host="127.0.0.1") as server, contextlib.ExitStack() as stack:
        for host in names["many.test"][:3]:
            stack.enter_context(silent(host, server.port))
        with new_client("rest", url_of("http", server, "many.test"), connect_timeout=0.6) as client:
            client.send([("t", b"x")])


def test_an_error_names_the_addresses_tried(names: dict[str, list[str]]) -> None:
    names["two.test"] = ["127.0.0.8", "127.0.0.9"]
    tried = pytest.raises(ConnectionError, match=r"\(tried 127.0.0.8, 127.0.0.9\)")
    with new_client("rest", "http://two.test:1", connect_timeout=5.0) as client, tried:
        client.send([("t", b"x")])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_three_servers_share_the_load_and_a_returned_one_regains_its_share(
    names: dict[str, list[str]], three: list[Collector], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(spread, "_AVOID_S", (0.2, 0.4))
    monkeypatch.setattr(spread, "_LOOK_S", 0.2)
    names["three.test"] = HOSTS
    quick = RetryPolicy(max_attempts=10_000, initial=0.01, maximum=0.1)
    # REST has as many connections as requests in flight.
    options: dict[str, Any] = {"connections": 3, "max_in_flight": 1 if scheme == "http" else 8}
    with Producer(
        url_of(scheme, three[0], "three.test"),
        serializer=RAW,
        logger=None,
        linger=0.001,
        batch_events=10,
        retry=quick,
        **options,
    ) as producer:

        def emit_until(servers: list[Collector]) -> None:
            """Until each of these has got further events."""
            before = [server.event_count for server in servers]

            def emit() -> bool:
                for _ in range(100):
                    producer.emit("t", b"x")
                assert producer.flush(patient(20)) == 0
                return all(server.event_count > count for server, count in zip(servers, before, strict=True))

            wait_until(emit, 30.0)

        emit_until(three)
        three[0].faults.refuse()
        three[0].faults.close_connections()
        emit_until(three[1:])
        three[0].faults.accept()
        emit_until(three)
        assert producer.health().ok
        report = producer.close()
    assert report.total.acked == report.total.accepted
