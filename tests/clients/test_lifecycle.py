"""The start and end of clients: close, the interpreter's exit, signals, garbage collection, and leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from any_client import ASYNC, PROTOCOLS, SYNC, OnLoop, address_of, new_client, silent_address
from begun import Begun
from patience import patient, wait_until
from scripted import tcp_server

from raccoon_fast import ClientClosedError, Outcome, Status
from raccoon_fast.collector import Collector
from raccoon_fast.delivery import loop_thread
from raccoon_fast.logs import resolve_logger

EVENTS = [("page", b"{}")]

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")


@pytest.fixture(scope="module")
def running():
    with Collector() as collector:
        yield collector


@pytest.fixture
def collector(running):
    running.faults.clear()
    running.clear()
    return running


@pytest.fixture(scope="module")
def black_hole():
    """A server that takes connections and all that is sent on them, and never says a word; host:port."""
    with tcp_server(lambda connection: connection.wait_closed()) as host:
        yield host


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@contextlib.contextmanager
def opened(kind, protocol, server, **options):
    client = new_client(protocol, server, ASYNC if kind == "async" else SYNC, **options)
    with OnLoop(client) if kind == "async" else client as client:
        yield client


class TestClose:
    def test_twice_and_again(self, kind, protocol, collector):
        with opened(kind, protocol, collector) as client:
            client.send(EVENTS)
            client.close()
            client.close()
            client.close(timeout=0)

    def test_of_a_client_that_was_never_used(self, kind, protocol, collector):
        begun = Begun()
        client = new_client(protocol, collector, ASYNC if kind == "async" else SYNC)
        assert begun.threads() == []
        if kind == "async":
            asyncio.run(client.close())
        else:
            client.close()
        assert begun.threads() == []
        assert collector.connections == 0

    def test_afterwards_nothing_else_works(self, kind, protocol, collector):
        with opened(kind, protocol, collector) as client:
            client.close()
            for call in (client.send, client.submit):
                with pytest.raises(ClientClosedError, match="was closed"):
                    call(EVENTS)
            for call in (client.acks, lambda: client.set_app(None)):
                with pytest.raises(ClientClosedError, match="was closed"):
                    call()
        assert collector.request_count == 0

    @pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", None])
    def test_a_wrong_timeout_is_named_and_closes_nothing(self, timeout, collector):
        with opened("sync", "rest", collector) as client:
            with pytest.raises((TypeError, ValueError), match="timeout"):
                client.close(timeout)
            client.send(EVENTS)

    def test_waits_for_requests_in_flight(self, kind, protocol, collector):
        collector.faults.delay(0.2)
        with opened(kind, protocol, collector) as client:
            receipts = [client.submit(EVENTS) for _ in range(5)]
            client.close()
            assert all(receipt.done() for receipt in receipts)
            assert [receipt.result(0).status for receipt in receipts] == [Status.SUCCESS] * 5

    @pytest.mark.parametrize("timeout", [0, 0.2])
    def test_fails_requests_not_acknowledged_in_time(self, kind, protocol, collector, timeout):
        collector.faults.drop_acks()
        with opened(kind, protocol, collector, timeout=30.0) as client:
            receipts = [client.submit(EVENTS, req_guid=f"g{i}") for i in range(20)]
            called = []
            for receipt in receipts:
                receipt.add_done_callback(called.append)
            if timeout:
                wait = functools.partial(collector.wait_until, lambda c: c.request_count >= 8)
                client.run(asyncio.to_thread(wait)) if kind == "async" else wait()
            began_s = time.monotonic()
            client.close(timeout=timeout)
            assert timeout <= time.monotonic() - began_s < timeout + 0.9
            assert all(receipt.done() for receipt in receipts)
            errors = [receipt.exception(0) for receipt in receipts]
            assert [type(error) for error in errors] == [ClientClosedError] * 20
            assert [error.req_guid for error in errors] == [f"g{i}" for i in range(20)]
            if timeout:
                received = {request.req_guid for request in collector.requests}
                assert all(
                    error.outcome is Outcome.POSSIBLY_DELIVERED for error in errors if error.req_guid in received
                )
            wait_until(lambda: len(called) == 20)  # the callback thread may be slower than `close`
            assert sorted(receipt.req_guid for receipt in called) == sorted(f"g{i}" for i in range(20))

    @pytest.mark.parametrize("secure", ["", "s"], ids=["plain", "tls"])
    def test_fails_requests_that_wait_for_a_connection(self, kind, protocol, black_hole, secure):
        with opened(kind, protocol, silent_address(protocol, black_hole, secure), timeout=30.0) as client:
            receipts = [client.submit(EVENTS) for _ in range(12)]
            began_s = time.monotonic()
            client.close(timeout=0.1)
            assert 0.1 <= time.monotonic() - began_s < patient(1)  # nothing had to be waited for
            assert [type(receipt.exception(patient(10))) for receipt in receipts] == [ClientClosedError] * 12

    def test_ends_a_send_of_another_thread(self, protocol, collector):
        collector.faults.drop_acks()
        errors = []
        with opened("sync", protocol, collector, timeout=30.0) as client:

            def send():
                with pytest.raises(ClientClosedError) as closed:
                    client.send(EVENTS, req_guid="g")
                errors.append(closed.value)

            thread = threading.Thread(target=send)
            thread.start()
            collector.wait_until(lambda c: c.request_count == 1)
            client.close(timeout=0)
            thread.join(patient(5))
            assert not thread.is_alive()
        assert [(error.req_guid, error.outcome) for error in errors] == [("g", Outcome.POSSIBLY_DELIVERED)]

    def test_by_many_threads_at_once_while_others_send(self, protocol, collector):
        outcomes = []
        receipts = []
        with opened("sync", protocol, collector) as client:
            barrier = threading.Barrier(7)

            def send():
                barrier.wait(patient(10))
                try:
                    while True:
                        client.send(EVENTS)
                except ClientClosedError as error:
                    outcomes.append(error)

            def submit():
                barrier.wait(patient(10))
                with contextlib.suppress(ClientClosedError):
                    while True:
                        receipts.append(client.submit(EVENTS))

            def close():
                barrier.wait(patient(10))
                client.close(timeout=0.1)

            threads = [threading.Thread(target=target) for target in (send, send, send, submit, close, close, close)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(patient(20))
        assert not any(thread.is_alive() for thread in threads)
        assert len(outcomes) == 3
        assert {type(receipt.exception(patient(10))) for receipt in receipts} <= {type(None), ClientClosedError}

    def test_from_a_callback(self, protocol, collector):
        closed = threading.Event()
        with opened("sync", protocol, collector) as client:

            def close(_):
                client.close()
                closed.set()

            client.submit(EVENTS).add_done_callback(close)
            assert closed.wait(patient(10))
            with pytest.raises(ClientClosedError):
                client.send(EVENTS)


@pytest.mark.parametrize(
    "new_event_loop", [asyncio.new_event_loop, loop_thread.new_event_loop], ids=["asyncio", "ours"]
)
def test_a_request_submitted_just_before_close_begins_and_fails_with_its_own_error(monkeypatch, new_event_loop):
    """A task that is cancelled before its first step would end without an error of its own."""
    monkeypatch.setattr(loop_thread, "new_event_loop", new_event_loop)
    thread = loop_thread.LoopThread(resolve_logger(None))
    held, gate = threading.Event(), threading.Event()
    thread.loop.call_soon_threadsafe(lambda: (held.set(), gate.wait(patient(10))))
    thread.start()
    assert held.wait(patient(10))

    async def fail():
        raise ClientClosedError("closed")

    future = thread.submit(fail)
    stopping = threading.Thread(target=thread.stop, args=(10.0,))
    stopping.start()
    while not thread._is_stopped:
        time.sleep(0.001)
    gate.set()
    stopping.join(patient(10))
    assert isinstance(future.exception(0), ClientClosedError)


def descriptors() -> list[str]:
    """Open descriptors, by what they are; gRPC's and the collector's own come and go at their leisure."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
class TestNothingIsLeft:
    CYCLES = 20

    def settled(self, before, begun) -> None:
        """Wait until no thread and no descriptor is left of those begun: the server's side ends a little later."""
        deadline_s = time.monotonic() + patient(10)
        while True:
            gc.collect()
            threads = [one for one in begun.threads() if one is not threading.current_thread()]
            if len(descriptors()) <= before and not threads:
                return
            assert time.monotonic() < deadline_s, (before, descriptors(), threads)
            time.sleep(0.02)

    def test_by_sync_clients(self, protocol, collector):
        def cycle():
            with opened("sync", protocol, collector) as client:
                client.send(EVENTS)
                client.submit(EVENTS).add_done_callback(lambda _: None)

        cycle()
        collector.wait_until(lambda c: c.connections == 0)
        before, begun = len(descriptors()), Begun()
        for _ in range(self.CYCLES):
            cycle()
        self.settled(before, begun)

    def test_by_async_clients_on_one_loop(self, protocol, collector):
        async def main():
            async def cycle():
                async with new_client(protocol, collector, ASYNC) as client:
                    await client.send(EVENTS)
                    client.submit(EVENTS)

            await cycle()
            await asyncio.sleep(0.05)
            before, begun = len(descriptors()), Begun()
            for _ in range(self.CYCLES):
                await cycle()
            await asyncio.to_thread(self.settled, before, begun)
            await asyncio.sleep(0)
            # gRPC's own clean-up of a channel is a task as well
            deadline_s = time.monotonic() + patient(10)
            while asyncio.all_tasks() != {asyncio.current_task()}:
                assert time.monotonic() < deadline_s, asyncio.all_tasks()
                await asyncio.sleep(0.01)

        asyncio.run(main())

    def test_by_failures_to_connect(self, protocol, collector):
        """The clients find no server and are closed while their requests still wait."""

        def cycle():
            with opened("sync", protocol, collector, timeout=5.0) as client:
                receipt = client.submit(EVENTS)
                client.close(timeout=0)
            assert receipt.done()

        collector.faults.refuse()
        cycle()
        before, begun = len(descriptors()), Begun()
        for _ in range(self.CYCLES):
            cycle()
        self.settled(before, begun)
        collector.faults.accept()

    def test_by_a_client_that_was_made_and_never_used(self, kind, protocol, collector):
        before, begun = len(descriptors()), Begun()
        client = weakref.ref(new_client(protocol, collector, ASYNC if kind == "async" else SYNC))
        gc.collect()
        assert client() is None
        assert len(descriptors()) <= before
        assert begun.threads() == []


PREAMBLE = """
import asyncio, gc, logging, signal, sys, threading, time
import raccoon_fast
from raccoon_fast import CONSOLE, RAW

# On a machine that is busy asyncio's debug mode tells of steps that took long.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
protocol, address = sys.argv[1:]
options = {"serializer": RAW, "logger": None}
kinds = {"rest": "Rest", "websocket": "WebSocket", "grpc": "Grpc"}

def new(twin="", **more):
    return getattr(raccoon_fast, f"{twin}{kinds[protocol]}Client")(address, **{**options, **more})

events = [("page", b"{}")]
"""


@contextlib.contextmanager
def started(script: str, protocol: str, address: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PREAMBLE + textwrap.dedent(script), protocol, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(script: str, protocol: str, address: str) -> tuple[str, str, int]:
    """Output, errors and exit code of a program."""
    with started(script, protocol, address) as process:
        return ended(process)


def ended(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    out, err = process.communicate(timeout=patient(30))
    return out, err, process.returncode


class TestExit:
    """Of an interpreter of its own, where every warning is an error and shows on stderr."""

    def test_with_a_black_hole_at_the_other_end_is_bounded_and_silent(self, black_hole):
        script = """
        client = new()
        receipts = [client.submit(events) for _ in range(20)]
        time.sleep(0.1)
        print("leaving", flush=True)
        sys.exit(3)
        """
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(started(script, protocol, silent_address(protocol, black_hole)))
                for protocol in PROTOCOLS
            ]
            began_s = time.monotonic()
            assert [ended(process) for process in processes] == [("leaving\n", "", 3)] * 3
        # `close` waits for 5 s at most.
        assert time.monotonic() - began_s < patient(15)

    def test_reports_unacknowledged_requests(self, black_hole):
        script = """
        client = new(logger=CONSOLE)
        client.submit(events)
        threading.Thread(target=client.close, args=(1.0,)).start()
        """
        out, err, code = run(script, "rest", silent_address("rest", black_hole))
        assert (out, code) == ("", 0)
        assert "closed with 1 request not acknowledged" in err
        assert "Traceback" not in err

    def test_delivers_requests_of_a_client_nobody_references(self, protocol, collector):
        script = """
        def submit():
            client = new()
            for _ in range(20):
                client.submit(events)

        submit()
        gc.collect()
        """
        assert run(script, protocol, address_of(protocol, collector)) == ("", "", 0)
        assert collector.event_count == 20

    def test_keeps_an_unhandled_errors_code_and_traceback(self, protocol, collector):
        script = """
        client = new()
        client.send(events)
        raise LookupError("the program's own")
        """
        out, err, code = run(script, protocol, address_of(protocol, collector))
        assert (out, code) == ("", 1)
        assert err.count("Traceback") == 1
        assert err.endswith("LookupError: the program's own\n")

    def test_of_a_program_that_only_made_one(self, protocol):
        for twin in ("", "Async"):
            assert run(f"client = new({twin!r})", protocol, silent_address(protocol, "127.0.0.1:9")) == ("", "", 0)

    def test_with_an_async_client_left_open_warns_at_most(self, protocol, collector):
        script = """
        async def main():
            client = new("Async")
            print((await client.send(events)).response.status.name)

        asyncio.run(main())
        """
        out, err, code = run(script, protocol, address_of(protocol, collector))
        assert (out, code) == ("SUCCESS\n", 0)
        assert "ResourceWarning" in err or err == ""
        assert collector.event_count == 1

    def test_while_another_thread_waits_for_an_acknowledgement(self, protocol, collector):
        script = """
        client = new()
        ready = threading.Barrier(3)

        def follow():
            acks = client.acks()
            ready.wait()
            for ack in acks:
                pass

        client.send(events)
        for target in (follow, follow):
            threading.Thread(target=target, daemon=True).start()
        ready.wait()  # acks() raises once the client is closed
        """
        assert run(script, protocol, address_of(protocol, collector)) == ("", "", 0)


@posix
class TestSignals:
    @pytest.fixture
    def hole(self):
        """A black hole, and the event that something was sent into it."""
        reached = threading.Event()

        def swallow(connection):
            connection.sock.recv(1)
            reached.set()
            connection.wait_closed()

        with tcp_server(swallow) as host:
            yield host, reached

    def test_ctrl_c_ends_a_send_at_once_and_close_works(self, protocol, hole):
        script = """
        client = new()
        try:
            client.send(events)
        except KeyboardInterrupt:
            began_s = time.monotonic()
            client.close()
            print(f"closed {time.monotonic() - began_s < 2}")
        """
        host, reached = hole
        with started(script, protocol, silent_address(protocol, host)) as process:
            assert reached.wait(patient(20))
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            assert ended(process) == ("closed True\n", "", 0)
            assert time.monotonic() - began_s < patient(5)

    def test_uncaught_ctrl_c_leaves_the_with_block(self, protocol, hole):
        script = """
        with new() as client:
            client.send(events)
        """
        host, reached = hole
        with started(script, protocol, silent_address(protocol, host)) as process:
            assert reached.wait(patient(20))
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            out, err, code = ended(process)
            assert time.monotonic() - began_s < patient(5)
            assert (out, code) == ("", -signal.SIGINT)
            assert err.count("Traceback") == 1
            assert err.endswith("KeyboardInterrupt\n")

    def test_ctrl_c_that_wakes_nobody_is_noticed(self, protocol, hole):
        """A signal that comes just as the wait begins is noted by the interpreter, which waits nevertheless."""
        script = """
        import _thread
        signalled = []

        def interrupt():
            signalled.append(time.monotonic())
            _thread.interrupt_main()

        with new(timeout=20.0) as client:
            try:
                threading.Timer(0.2, interrupt).start()
                client.send(events)
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - signalled[0] < 15)
        """
        host, _ = hole
        assert run(script, protocol, silent_address(protocol, host)) == ("interrupted True\n", "", 0)

    def test_ctrl_c_cancels_an_async_send(self, protocol, hole):
        script = """
        async def main():
            async with new("Async") as client:
                await client.send(events)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
        host, reached = hole
        with started(script, protocol, silent_address(protocol, host)) as process:
            assert reached.wait(patient(20))
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            out, err, code = ended(process)
            assert time.monotonic() - began_s < patient(5)
            assert (out, code) == ("interrupted\n", 0)
            # Python 3.10 interrupts asyncio wherever it is, and leaves things open.
            assert err == "" or sys.version_info < (3, 11)

    def test_sigterm_ends_the_process_like_any_other(self, protocol, hole):
        script = """
        new().send(events)
        """
        host, reached = hole
        with started(script, protocol, silent_address(protocol, host)) as process:
            assert reached.wait(patient(20))
            process.send_signal(signal.SIGTERM)
            assert ended(process) == ("", "", -signal.SIGTERM)
