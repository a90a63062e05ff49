"""The results of name lookups, and their cost."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading

import pytest
from patience import patient

from raccoon_fast.net import resolver
from raccoon_fast.net.resolver import is_literal, look_up

V4, V6 = socket.AF_INET, socket.AF_INET6


def info(host: str, family: int = V4) -> tuple:
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 80) if family == V4 else (host, 80, 0, 0))


@pytest.mark.parametrize("found", [info("127.0.0.1"), info("::1", V6)])
def test_an_address_is_not_looked_up(run, monkeypatch: pytest.MonkeyPatch, found: tuple) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert run(look_up(found[4][0], 80)) == [found]


def test_literal_addresses_are_recognized() -> None:
    assert is_literal("127.0.0.1")
    assert is_literal("::1")
    assert not is_literal("fe80::1%lo")  # its zone is a name
    assert not is_literal("localhost")
    assert not is_literal("1")


def test_each_lookup_asks_again_and_concurrent_lookups_share_one(run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    may_answer = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple]:
        asked.append(host)
        assert may_answer.wait(patient(10))
        return [info("10.0.0.1"), info("10.0.0.2"), info("10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> list[list[tuple]]:
        together = asyncio.gather(*(look_up("a.test", 80) for _ in range(3)))
        given_up = asyncio.ensure_future(look_up("a.test", 80))
        await asyncio.sleep(0)
        given_up.cancel()
        may_answer.set()
        return [*await together, await look_up("a.test", 80)]

    assert run(main()) == [[info("10.0.0.1"), info("10.0.0.2")]] * 4
    assert asked == ["a.test"] * 2


def test_a_lookup_failure_is_the_system_s_error(run) -> None:
    with pytest.raises(socket.gaierror):
        run(look_up("nobody.invalid", 80))


def test_the_loop_resolves_when_no_thread_can_start(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(resolver, "new_thread", refuse)
    found = run(look_up("localhost", 80))
    assert {one[4][0] for one in found} & {"127.0.0.1", "::1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_after_a_look_up_exits_as_any_interpreter() -> None:
    program = """
import os, sys
from raccoon_fast.delivery.loop_thread import LoopThread
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.resolver import look_up
thread = LoopThread(resolve_logger(None))
assert thread.submit(look_up, "localhost", 80).result(20)
pid = os.fork()
if pid:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    # From Python 3.12 on os.fork() warns of every thread.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(50), check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
