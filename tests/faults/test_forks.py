"""Forks that run none of Python's fork hooks, like uWSGI's and other forks in C; and what a child releases."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patient
from ports import free_port
from program import run

from raccoon_fast.collector import Collector

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks by the C library, as on Linux")
SCHEMES = ("ws", "http", "grpc")
HEAD = """
import ctypes, gc, os, sys, threading, time, warnings
from raccoon_fast import RAW, AsyncProducer, Producer, RestClient
warnings.simplefilter("ignore", DeprecationWarning)
url = sys.argv[1]
libc = ctypes.PyDLL(None)

def forked(child):
    '''Run `child` in a child that runs no fork hooks.'''
    # CPython's own lock does not survive such a fork while another thread is about to take it.
    time.sleep(0.2)
    pid = libc.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def url_of(collector: Collector, scheme: str) -> str:
    return {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]


def received(collector: Collector) -> Counter[tuple[str, bytes]]:
    return Counter((event.type, event.data) for event in collector.events)


class TestWithoutHooks:
    @pytest.mark.parametrize("form", ["", "1"], ids=["compiled", "pure"])
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_child_sends_its_own_events_and_each_once(self, collector: Collector, scheme: str, form: str) -> None:
        """This also holds for a child that continues a batch opened by its parent."""
        program = """
producer = Producer(url, serializer=RAW, logger=None, linger=60)
producer.emit("before", b"")
assert producer.flush() == 0
for number in range(5): producer.emit("parent", b"%d" % number)
def child():
    assert producer.stats().total.accepted == 0 and producer.health().ok
    for number in range(3): producer.emit("child", b"%d" % number)
    begun_s = time.monotonic()
    assert producer.flush(20) == 0 and time.monotonic() - begun_s < 10
    assert producer.close().total.acked == 3
forked(child)
assert producer.close().total.acked == 6
"""
        run(HEAD + program, url_of(collector, scheme), RACCOON_FAST_NO_EXTENSIONS=form)
        expected = {("parent", b"%d" % number): 1 for number in range(5)}
        expected |= {("child", b"%d" % number): 1 for number in range(3)}
        assert received(collector) == expected | {("before", b""): 1}

    @pytest.mark.parametrize("form", ["", "1"], ids=["compiled", "pure"])
    @pytest.mark.parametrize("call", ["emit('a', b'x')", "emit_many([('a', b'x')])", "emit_batch([('a', b'x')])"])
    def test_any_first_call_in_a_child(self, collector: Collector, call: str, form: str) -> None:
        program = f"""
producer = Producer(url, serializer=RAW, logger=None, linger=60)
for number in range(5): producer.emit("parent", b"%d" % number)
def child():
    producer.{call}
    assert producer.close().total.acked == 1
forked(child)
assert producer.close().total.acked == 5
"""
        run(HEAD + program, collector.ws_url, RACCOON_FAST_NO_EXTENSIONS=form)
        assert received(collector)["a", b"x"] == 1

    def test_an_ack_stream_of_the_parent_s_ends_in_a_child(self, collector: Collector) -> None:
        program = """
producer = Producer(url, serializer=RAW, logger=None)
parents, unread = producer.acks(), producer.acks()
assert producer.emit("a", b"1").result(20)
assert parents.get(20)
def child():
    assert [*parents] == [*unread] == []
    assert producer.emit("a", b"2").result(20)
    assert not parents._acks  # those who wait for an answer are told last
    own = producer.acks()
    assert producer.emit("a", b"3").result(20).req_guid == own.get(20).req_guid
    assert not parents._acks
    producer.close()
forked(child)
receipt = producer.emit("a", b"4")
assert receipt.result(20) and parents.get(20).req_guid == receipt.req_guid
producer.close()
"""
        run(HEAD + program, collector.ws_url)

    def test_an_async_producer_s_ack_stream_ends_in_a_child(self, collector: Collector) -> None:
        program = """
import asyncio

async def rest_of(stream):
    return [ack async for ack in stream]

async def main():
    async with AsyncProducer(url, serializer=RAW, logger=None) as producer:
        stream = producer.acks()
        assert await (await producer.emit("a", b"1"))
        pid = os.fork()
        if pid == 0:
            try:
                rest_of(stream).send(None)  # without the parent's event loop, which must not run here
            except StopIteration as end:
                os._exit(len(end.value))
            os._exit(100)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(await rest_of(stream)) == 1

asyncio.run(main())
"""
        run(HEAD + program, collector.ws_url)

    def test_a_client(self, collector: Collector) -> None:
        program = """
client = RestClient(url, serializer=RAW, logger=None)
parents = client.acks()
client.send([("parent", b"")])
def child():
    assert [*parents] == []
    client.send([("child", b"")], timeout=20)
forked(child)
client.send([("parent", b"2")])
client.close()
assert len([*parents]) == 2
"""
        run(HEAD + program, collector.url)
        assert {kind for kind, _ in received(collector)} == {"parent", "child"}
        assert len({request.req_guid for request in collector.requests}) == 3

    def test_exit_is_not_delayed(self, collector: Collector) -> None:
        program = """
producer = Producer(url, serializer=RAW, logger=None)
producer.emit("a", b"x")
assert producer.flush() == 0
from raccoon_fast.delivery import lifetime
def child():
    begun_s = time.monotonic()
    lifetime._close_all()
    assert time.monotonic() - begun_s < 2
forked(child)
"""
        run(HEAD + program, collector.ws_url)

    def test_child_after_child(self, collector: Collector) -> None:
        program = """
producer = Producer(url, serializer=RAW, logger=None, linger=0.001)
for number in range(20):
    producer.emit("parent", b"%d" % number)
    assert producer.flush() == 0
    def child():
        producer.emit("child", b"%d" % number)
        assert producer.close(20).total.acked == 1
    forked(child)
assert producer.close(20).total.acked == 20
"""
        run(HEAD + program, collector.ws_url)
        events = received(collector)
        assert set(events.values()) == {1}
        assert Counter(kind for kind, _ in events) == {"parent": 20, "child": 20}


def test_a_child_lets_go_of_its_parent_s_connections(collector: Collector) -> None:
    """A server sees the end of the parent although its child still runs."""
    program = """
producer = Producer(url, serializer=RAW, logger=None)
producer.emit("a", b"x")
assert producer.flush() == 0
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + program, collector.ws_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(patient(20)) == 0
        collector.wait_until(lambda one: one.connections == 0, timeout=20)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_an_async_producer_s_child_releases_the_spool_and_starts_fresh(collector: Collector, tmp_path: Path) -> None:
    program = f"""
import asyncio
async def fill():
    one = AsyncProducer("http://127.0.0.1:9", serializer=RAW, logger=None, spool={str(tmp_path / "spool")!r},
                        durable=True, batch_events=10)
    for number in range(100): await one.emit("a", b"%d" % number)
    while one.stats().total.queued > 0 and one._spool.owner == "": await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    return one
producer = asyncio.new_event_loop().run_until_complete(fill())
child = os.fork()
if child == 0:
    async def again():
        assert producer.stats().total.accepted == 0
        with_server = AsyncProducer(url, serializer=RAW, logger=None)
        await with_server.emit("child", b"x")
        assert (await with_server.close()).total.acked == 1
    asyncio.run(again())
    print(os.getpid(), flush=True)
    time.sleep(60)
os.kill(os.getpid(), 9) if not time.sleep(3) else None
"""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + program, collector.ws_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(patient(20)) == -signal.SIGKILL
        run(
            HEAD
            + f"""
producer = Producer(url, serializer=RAW, logger=None, spool={str(tmp_path / "spool")!r})
deadline_s = time.monotonic() + 25
while producer.stats().total.acked < 100:
    assert time.monotonic() < deadline_s, producer.stats().total
    time.sleep(0.01)
producer.close()
""",
            collector.ws_url,
        )
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
    assert {data for kind, data in received(collector) if kind == "a"} == {b"%d" % number for number in range(100)}


UWSGI = Path(sysconfig.get_path("scripts")) / "uwsgi"
APP = """
import os
from raccoon_fast import RAW, Producer
producer = Producer(os.environ["URL"], serializer=RAW, logger=None)
if os.environ["AT_IMPORT"] == "1":
    producer.emit("boot", b"")
    producer.flush(5)

def application(environ, start_response):
    producer.emit("request", environ["PATH_INFO"].encode())
    left = producer.flush(20) if environ["PATH_INFO"] == "/flush" else -1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {left}".encode()]
"""


class Uwsgi:
    """A uWSGI server with one worker."""

    def __init__(self, folder: Path, url: str, at_import: bool, *options: str) -> None:
        (folder / "app.py").write_text(APP)
        self.port = free_port()
        fixed = ["--master", "--processes", "1", "--die-on-term", "--disable-logging", "--need-app"]
        where = ["--http-socket", f"127.0.0.1:{self.port}", "--virtualenv", sys.prefix, "--wsgi-file", "app.py"]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [UWSGI, *fixed, *where, *options],
                cwd=folder,
                env={**os.environ, "URL": url, "AT_IMPORT": str(int(at_import))},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> str:
        deadline_s = time.monotonic() + patient(30)
        answer = ""
        while not answer:
            assert time.monotonic() < deadline_s, self.log.read_text()
            with contextlib.suppress(urllib.error.URLError):  # it has not begun to listen
                answer = (
                    urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=patient(30)).read().decode()
                )
        return answer

    def stop(self) -> float:
        """End it; returns the seconds that took."""
        begun_s = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(patient(30))
        finally:
            self.process.kill()
        return time.monotonic() - begun_s


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed: pip install uwsgi (needs a C compiler)")
class TestUwsgi:
    # A fork made in C while another thread holds the GIL hangs the child, whatever the package does. With
    # --py-call-osafterfork uWSGI calls PyOS_AfterFork_Child only after the child has the GIL. So where the producer has
    # threads before the fork, only what takes the GIL for the fork, or forks first, is safe.
    @pytest.mark.parametrize(
        ("options", "at_import"),
        [
            (["--enable-threads"], False),
            (["--threads", "2"], False),
            (["--enable-threads", "--py-call-uwsgi-fork-hooks"], False),
            (["--enable-threads", "--lazy-apps"], True),
            (["--enable-threads", "--py-call-uwsgi-fork-hooks"], True),
            (["--enable-threads", "--py-call-osafterfork"], False),
        ],
        ids=str,
    )
    def test_events_of_a_worker_arrive(
        self, collector: Collector, tmp_path: Path, options: list[str], at_import: bool
    ) -> None:
        server = Uwsgi(tmp_path, collector.ws_url, at_import, *options)
        try:
            assert server.get("/0")
            assert server.get("/flush").endswith(" 0")
            assert server.get("/1")
            collector.wait_for(3 + at_import, timeout=patient(30))
        finally:
            took_s = server.stop()
        assert took_s < 8
        expected = {("request", b"/0"): 1, ("request", b"/flush"): 1, ("request", b"/1"): 1}
        assert received(collector) == expected | ({("boot", b""): 1} if at_import else {})

    def test_without_threads_the_first_event_names_the_option(self, collector: Collector, tmp_path: Path) -> None:
        server = Uwsgi(tmp_path, collector.ws_url, False)
        try:
            deadline_s = time.monotonic() + patient(30)
            while "--enable-threads" not in server.log.read_text():
                assert time.monotonic() < deadline_s, server.log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=patient(30)).close()
                except urllib.error.HTTPError as failed:  # the application raised
                    failed.close()
                except OSError:
                    time.sleep(0.05)
        finally:
            assert server.stop() < 8
