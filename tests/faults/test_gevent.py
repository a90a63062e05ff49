"""Real programs with gevent's monkey patching: waits let other greenlets run, and no event is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patient, wait_until
from program import finish, run, start

from raccoon_fast.collector import Collector

pytestmark = pytest.mark.slow

pytest.importorskip("gevent")

HEAD = """
from gevent import monkey
monkey.patch_all()
import sys, threading, time
import gevent
from raccoon_fast import RAW, BufferFull, GrpcClient, Producer, RestClient, StatsD, WebSocketClient
url = sys.argv[1]
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1

gevent.spawn(tick)

def others_run(function, *arguments):
    before = ticks
    result = function(*arguments)
    assert ticks > before, "nobody else ran"
    return result
"""


# Notes which threads make a hub.
NOTE_HUBS = """
from gevent.hub import Hub
made = []
original = Hub.__init__

def init(self, *arguments, **options):
    made.append(threading.get_ident())
    original(self, *arguments, **options)

Hub.__init__ = init
"""


@pytest.fixture(params=["ws", "http", "grpc"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def url_of(collector: Collector, scheme: str) -> str:
    return {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]


def test_a_producer(collector: Collector, scheme: str) -> None:
    program = """
callbacks = []
def on_delivery(receipt):
    gevent.sleep(0.0001)  # a callback is a greenlet
    callbacks.append((receipt.req_guid, threading.get_native_id()))

producer = Producer(url, serializer=RAW, logger=None, batch_events=10, linger=0.001, on_delivery=on_delivery)
acks = producer.acks()
receipts = []

def emit(who):
    for number in range(100):
        receipt = producer.emit(who, b"%d" % number)
        receipts.append(receipt)
        if number % 10 == 0:
            assert receipt.result(10).status.name == "SUCCESS"

gevent.joinall([gevent.spawn(emit, f"greenlet {number}") for number in range(20)], raise_error=True)
assert producer.flush(10) == 0
assert others_run(producer.close).total.acked == 2000
guids = {receipt.req_guid for receipt in receipts}
assert {guid for guid, _ in callbacks} == guids and len(callbacks) == len(guids)
assert {ident for _, ident in callbacks} == {threading.get_native_id()}
assert {ack.req_guid for ack in acks} == guids
"""
    run(HEAD + program, url_of(collector, scheme))
    received = Counter((event.type, event.data) for event in collector.events)
    assert received == Counter((f"greenlet {who}", b"%d" % n) for who in range(20) for n in range(100))


def test_only_the_main_thread_gets_a_hub(collector: Collector, scheme: str) -> None:
    """If the loop's thread created one while the main thread creates its own, both could deadlock in imports."""
    program = """
with Producer(url, serializer=RAW, logger=None) as producer:
    receipt = producer.emit("a", b"x")
    assert receipt.result(20)
assert {*made} <= {threading.main_thread().ident}, made
"""
    assert run(HEAD + NOTE_HUBS + program, url_of(collector, scheme)) == []


def test_the_calling_thread_has_a_hub_before_a_thread_that_uses_sockets_starts() -> None:
    program = """
sleep = monkey.get_original("time", "sleep")  # which makes no hub
with StatsD("127.0.0.1", 9, flush_interval=0.01) as stats:
    stats.count("a")
    while not made:
        sleep(0.001)
assert made[0] == threading.main_thread().ident, made
"""
    assert run(HEAD.replace("gevent.spawn(tick)", "") + NOTE_HUBS + program, "") == []


def test_a_signal_handler_emits_while_the_hub_is_created(collector: Collector, scheme: str) -> None:
    """Its greenlet starts on a second hub, which gevent replaces, and must end on the one that runs."""
    code = """
from gevent import monkey
monkey.patch_all()
import signal, sys
from gevent.hub import Hub
from raccoon_fast import RAW, Producer
original, called = Hub.__init__, []

def emit(data):
    producer.emit("page", data).add_done_callback(lambda one: called.append(one.result(0).status.name))

def interrupted(self, *arguments, **options):
    Hub.__init__ = original
    signal.raise_signal(signal.SIGALRM)
    original(self, *arguments, **options)

Hub.__init__ = interrupted
signal.signal(signal.SIGALRM, lambda *_: emit(b"handler"))
producer = Producer(sys.argv[1], serializer=RAW, logger=None)
emit(b"main")
assert Hub.__init__ is original
total = producer.close(20).total
assert (total.acked, called) == (2, ["SUCCESS"] * 2), (total, called)
"""
    run(code, url_of(collector, scheme))


def test_waits_for_a_server_that_does_not_answer(collector: Collector, scheme: str) -> None:
    collector.faults.drop_acks()
    program = """
producer = Producer(
    url, serializer=RAW, logger=None, batch_bytes=10_000, buffer_bytes=20_000, block_timeout=0.1, linger=0.001
)
def fill():
    try:
        while True:
            receipts.append(producer.emit("a", bytes(1000)))
    except BufferFull:
        print("full")
receipts = []
others_run(fill)
assert others_run(producer.flush, 0.1) == len(receipts)
try:
    others_run(receipts[0].result, 0.1)
except TimeoutError:
    print("no result")
def interrupted():
    with gevent.Timeout(0.1, False):
        producer.flush()
others_run(interrupted)
waiting = gevent.spawn(receipts[0].exception)
gevent.sleep(0.01)
assert others_run(producer.close, 0.1).total.failed == {"closed": len(receipts)}
print(type(waiting.get()).__name__)
"""
    assert run(HEAD + program, url_of(collector, scheme)) == ["full", "no result", "ClientClosedError"]


def test_a_client(collector: Collector, scheme: str) -> None:
    program = """
client = {"w": WebSocketClient, "h": RestClient, "g": GrpcClient}[url[0]](url, serializer=RAW, logger=None)
def send(who):
    for number in range(10):
        client.send([(who, b"%d" % number)])
others_run(gevent.joinall, [gevent.spawn(send, f"greenlet {number}") for number in range(20)])
called = []
receipt = client.submit([("last", b"x")])
receipt.add_done_callback(called.append)
assert receipt.result(10).status.name == "SUCCESS"
client.close()
assert called == [receipt]
"""
    run(HEAD + program, url_of(collector, scheme))
    assert collector.event_count == 201


@pytest.mark.parametrize("end", ["", "raise SystemExit", "gevent.wait(timeout=0.1)"])
def test_exit_delivers_waiting_events(collector: Collector, end: str) -> None:
    program = f"""
producer = Producer(url, serializer=RAW, logger=None, linger=60)
for number in range(50):
    producer.emit("a", b"%d" % number)
{end}
"""
    run(HEAD + program, collector.ws_url)
    assert collector.event_count == 50


def test_a_spool(collector: Collector, tmp_path: Path) -> None:
    program = """
def new(**options):
    return Producer(url, serializer=RAW, logger=None, spool=sys.argv[2], **options)
producer = new(durable=True, linger=0.001)
for number in range(50):
    producer.emit("a", b"%d" % number)
print(others_run(producer.close, 0.2).total.spooled)
gevent.spawn(lambda: print("go on", flush=True)).join()
input()
producer = new()
deadline = time.monotonic() + 10
while producer.stats().total.acked < 50 and time.monotonic() < deadline:
    gevent.sleep(0.01)
print(producer.close().total.acked)
"""
    collector.faults.drop_acks()
    process = start(HEAD + program, collector.ws_url, tmp_path / "spool")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["50\n", "go on\n"]
    collector.faults.clear()
    assert process.stdin is not None
    process.stdin.write("\n")
    assert finish(process) == ["50"]


def test_stats(collector: Collector) -> None:
    program = """
with StatsD("127.0.0.1", int(sys.argv[2]), flush_interval=0.01) as stats:
    with Producer(url, serializer=RAW, logger=None, stats=stats) as producer:
        producer.emit("a", b"x").result(10)
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(patient(10))
        run(HEAD + program, collector.ws_url, daemon.getsockname()[1])
        while b"ack_tt_ms" not in daemon.recv(65536):  # whatever was sent before it
            pass


def test_without_threads_patched_all_protocols_work_and_block(collector: Collector) -> None:
    program = """
from gevent import monkey
monkey.patch_all(thread=False)
import sys
from raccoon_fast import RAW, Producer
for url in sys.argv[1:]:
    with Producer(url, serializer=RAW, logger=None) as producer:
        assert producer.emit("a", b"x").result(10).status.name == "SUCCESS"
"""
    run(program, collector.ws_url, collector.url, f"grpc://{collector.grpc_target}")
    assert collector.event_count == 3


def test_patched_after_the_import(collector: Collector) -> None:
    program = """
from raccoon_fast import RAW, Producer
from gevent import monkey
monkey.patch_all()
import sys
with Producer(sys.argv[1], serializer=RAW, logger=None) as producer:
    assert producer.emit("a", b"x").result(10).status.name == "SUCCESS"
"""
    run(program, collector.ws_url)


def test_gunicorn_s_gevent_workers(collector: Collector, tmp_path: Path) -> None:
    """With --preload the producer is made before gevent patches, in a process that forks later."""
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(
        f"""
import gevent
from raccoon_fast import RAW, Producer
delivered = set()
producer = Producer({collector.ws_url!r}, serializer=RAW, logger=None, on_delivery=delivered.add)

def app(environ, start_response):
    receipt = producer.emit("request", environ["PATH_INFO"].encode())
    receipt.result(10)
    while receipt not in delivered:
        gevent.sleep(0.001)
    start_response("200 OK", [])
    return [b"done"]
"""
    )
    listening = socket.create_server(("127.0.0.1", 0))
    port, inherited = listening.getsockname()[1], listening.fileno()
    command = [sys.executable, "-m", "gunicorn", "--preload", "-k", "gevent", "-w", "2", "-b", f"fd://{inherited}"]
    command += ["--graceful-timeout", "5"]  # a worker that is still starting does not hear of the end

    def is_answered(path: str) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=patient(20)) as it,
        ):
            return bool(it.read() == b"done")
        return False

    with (
        listening,
        subprocess.Popen(
            [*command, "service:app"], cwd=tmp_path, pass_fds=(inherited,), stderr=subprocess.PIPE, text=True
        ) as server,
        concurrent.futures.ThreadPoolExecutor(20) as users,
    ):
        try:
            wait_until(lambda: is_answered("/up"), 30)
            assert all(users.map(is_answered, [f"/{number}" for number in range(60)]))
        finally:
            server.terminate()
            _, err = server.communicate(timeout=patient(20))
    received = {event.data for event in collector.events}
    assert {b"/%d" % number for number in range(60)} <= received, err
