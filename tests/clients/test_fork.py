"""A client used before a fork: the child starts afresh, the parent continues, and neither hangs.

Each program runs in a separate interpreter, because a fork's effects depend on everything the process did before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from any_client import PROTOCOLS, address_of
from patience import patient

from raccoon_fast.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

PREAMBLE = """
import multiprocessing, os, sys, threading, time
import raccoon_fast
from raccoon_fast import RAW, App, ClientClosedError, RetryPolicy

protocol, address = sys.argv[1:]
kind = {"rest": "Rest", "websocket": "WebSocket", "grpc": "Grpc"}[protocol]

def new(**options):
    options = {"serializer": RAW, "logger": None, "timeout": 10.0, "retry": RetryPolicy(max_attempts=1), **options}
    return getattr(raccoon_fast, f"{kind}Client")(address, **options)

def events(text):
    return [("page", text.encode())]

def fork(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)

def ended(*pids):
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * len(pids), codes

"""


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


def run(script: str, protocol: str, collector: Collector, **environment: str) -> None:
    """Run a program to its end, which must come soon, in silence, and with 0."""
    # From 3.12 on a fork of a process with threads is a DeprecationWarning, whoever makes it.
    options = ["-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *options, "-c", PREAMBLE + textwrap.dedent(script), protocol]
    done = subprocess.run(
        [*command, address_of(protocol, collector)],
        capture_output=True,
        text=True,
        timeout=patient(30),
        env={**os.environ, **environment},
    )
    # asyncio's debug mode tells of steps that take long
    said = [line for line in done.stderr.splitlines() if "Executing <" not in line]
    assert (said, done.returncode) == ([], 0)


def received(collector: Collector) -> list[str]:
    return sorted(event.data.decode() for event in collector.events)


def test_child_and_parent_both_send(protocol, collector):
    script = """
    client = new()
    client.send(events("before"))

    def child():
        for i in range(5):
            client.send(events(f"child {i}"))
        client.close()

    pid = fork(child)
    for i in range(5):
        client.send(events(f"parent {i}"))
    ended(pid)
    client.send(events("after"))
    client.close()
    """
    run(script, protocol, collector)
    assert received(collector) == sorted(
        ["before", "after", *(f"{who} {i}" for who in ("child", "parent") for i in range(5))]
    )
    if protocol == "websocket":
        # One connection each, and what came on each is of one process.
        senders = {}
        for event in collector.events:
            senders.setdefault(event.connection_id, set()).add(event.data.startswith(b"child"))
        assert sorted(map(sorted, senders.values())) == [[False], [True]]


def test_by_multiprocessing(protocol, collector):
    script = """
    client = new()
    client.send(events("before"))

    def child(i):
        client.send(events(f"child {i}"))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child, args=(i,)) for i in range(3)]
    for process in processes:
        process.start()
    client.send(events("parent"))
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0], [process.exitcode for process in processes]
    client.send(events("after"))
    """
    run(script, protocol, collector)
    assert received(collector) == ["after", "before", "child 0", "child 1", "child 2", "parent"]


def test_a_child_of_multiprocessing_delivers_what_was_submitted_when_it_ends(protocol, collector):
    script = """
    client = new()
    process = multiprocessing.get_context("fork").Process(target=lambda: client.submit(events("child")))
    process.start()
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    """
    run(script, protocol, collector)
    assert received(collector) == ["child"]


def test_a_client_made_before_the_fork_and_used_only_after(protocol, collector):
    script = """
    client = new(app=App("i", "shop", "1"))
    pids = [fork(lambda: (client.send(events("child")), client.close())) for _ in range(3)]
    ended(*pids)
    client.send(events("parent"))
    """
    run(script, protocol, collector)
    assert received(collector) == ["child", "child", "child", "parent"]


def test_a_child_that_leaves_without_close_ends_as_any_interpreter(protocol, collector):
    script = """
    client = new()
    client.send(events("before"))
    pid = os.fork()
    if not pid:
        client.submit(events("child"))
        sys.exit(0)
    ended(pid)
    client.send(events("after"))
    """
    run(script, protocol, collector)
    assert received(collector) == ["after", "before", "child"]


def test_a_child_that_does_not_use_it_leaves_the_parents_connections_alone(protocol, collector):
    script = """
    client = new(user_id="the parent")
    client.send(events("before"))
    pid = os.fork()
    if not pid:
        sys.exit(0)
    ended(pid)
    ended(fork(client.close))
    client.send(events("after"))
    """
    run(script, protocol, collector)
    assert received(collector) == ["after", "before"]


def test_requests_in_flight_stay_with_the_parent(protocol, collector):
    collector.faults.delay(0.3)
    script = """
    client = new()
    client.send(events("before"))
    receipts = [client.submit(events(f"parent {i}")) for i in range(5)]

    def child():
        client.send(events("child"))
        client.close()

    pid = fork(child)
    for receipt in receipts:
        receipt.result(10)
    ended(pid)
    """
    run(script, protocol, collector)
    assert received(collector) == sorted(["before", "child", *(f"parent {i}" for i in range(5))])


def test_a_client_closed_before_the_fork_is_closed_in_the_child(protocol, collector):
    script = """
    client = new()
    client.send(events("before"))
    client.close()

    def child():
        try:
            client.send(events("child"))
        except ClientClosedError:
            return
        raise AssertionError

    ended(fork(child))
    """
    run(script, protocol, collector)
    assert received(collector) == ["before"]


def test_the_app_is_kept(protocol, collector):
    script = """
    client = new()
    client.set_app(App("i", "shop", "1"))
    client.send(events("before"))
    ended(fork(lambda: (client.send(events("child")), client.close())))
    """
    run(script, protocol, collector)
    assert all(" shop/1 (i)" in request.user_agent for request in collector.requests)
    assert received(collector) == ["before", "child"]


def test_forks_while_other_threads_send(protocol, collector, tmp_path):
    """A lock that a thread holds at the fork is never released in the child."""
    script = """
    client = new()
    sent = []
    stop = threading.Event()

    def pour(who):
        while not stop.is_set():
            text = f"{who} {time.monotonic_ns()}"
            client.send(events(text))
            sent.append(text)

    threads = [threading.Thread(target=pour, args=(f"thread {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    pids = []
    for i in range(8):
        pids.append(fork(lambda: (client.send(events(f"child {i}")), client.close())))
        time.sleep(0.02)
    ended(*pids)
    stop.set()
    for thread in threads:
        thread.join()
    client.close()
    with open(os.environ["SENT"], "w") as file:
        file.write("\\n".join(sent))
    """
    path = tmp_path / "sent"
    run(script, protocol, collector, SENT=str(path))
    assert received(collector) == sorted([*path.read_text().split("\n"), *(f"child {i}" for i in range(8))])


def test_children_of_children(protocol, collector):
    script = """
    client = new()
    client.send(events("one"))

    def child():
        client.send(events("two"))
        ended(fork(lambda: (client.send(events("three")), client.close())))
        client.send(events("four"))
        client.close()

    ended(fork(child))
    client.send(events("five"))
    """
    run(script, protocol, collector)
    assert received(collector) == ["five", "four", "one", "three", "two"]
