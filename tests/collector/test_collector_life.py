"""Start and end of the collector, in a thread and in the foreground: threads, sockets and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from begun import Begun
from patience import patient

from raccoon_fast.collector import Collector, runner

NewCollector = Callable[..., Collector]

SEND_EVENT = "/raystack.raccoon.v1beta1.EventService/SendEvent"


def open_sockets() -> int:
    return sum("socket:" in str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def use(peer: Any, collector: Collector) -> None:
    assert peer.post(collector).status_code == 200
    websocket = peer.websocket(collector)
    websocket.send(peer.request())
    websocket.recv(timeout=patient(10))
    peer.call(collector)


def test_nothing_is_left_after_close(peer: Any, event_loop_kind: str) -> None:
    begun = Begun()
    with Collector() as collector:
        use(peer, collector)  # the clients' connections stay open
        assert [thread.name for thread in begun.threads("raccoon")] == ["raccoon-collector"]
        ports = collector.port, collector.grpc_port
    assert begun.threads("raccoon") == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_200_starts_and_stops(peer: Any, event_loop_kind: str) -> None:
    begun = Begun()
    with Collector():
        pass
    gc.collect()
    before = open_sockets() if sys.platform == "linux" else 0
    start_s = time.monotonic()
    for _ in range(200):
        with Collector() as collector, socket.create_connection(("127.0.0.1", collector.port)) as client:
            peer.ping(client)
    assert time.monotonic() - start_s < patient(20)
    gc.collect()
    assert begun.threads("raccoon") == []
    if sys.platform == "linux":
        assert open_sockets() <= before


def test_close_is_quick_whatever_clients_do(peer: Any, event_loop_kind: str) -> None:
    collector = Collector(acks="sync", publish_delay=60, sink="null").start()
    waiting = peer.raw_websocket(collector, "waiting")
    waiting.sendall(b"\x82\x80\x00\x00\x00\x00" * 200)
    half_a_request = peer.tcp(collector.port)
    half_a_request.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n")
    half_a_request.sendall(b"Content-Length: 9\r\n\r\n")
    silent = peer.tcp(collector.port)
    collector.wait_until(lambda it: it.request_count == 105)
    collector.faults.drop_acks()
    with grpc.insecure_channel(collector.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(SEND_EVENT).future(b"", metadata=[("x-user-id", "u")])
        start_s = time.monotonic()
        collector.close()
        assert time.monotonic() - start_s < patient(1)
        assert call.exception(timeout=patient(10)).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    with contextlib.suppress(ConnectionResetError):  # where it had not been accepted yet
        assert silent.recv(1) == b""


def test_close_publishes_and_answers_accepted_requests(peer: Any, event_loop_kind: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    collector = Collector(acks="sync", publish_delay=60, sink=path).start()
    websocket = peer.websocket(collector)
    for _ in range(20):
        websocket.send(peer.request("ws"))
    body = peer.request("rest")
    rest = peer.tcp(collector.port)
    rest.sendall(
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    with grpc.insecure_channel(collector.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(SEND_EVENT).future(peer.request("grpc"), metadata=[("x-user-id", "u")])
        collector.wait_until(lambda it: it.request_count == 22)
        collector.close()
        assert peer.decode(call.result(timeout=patient(10))).status == 1
    assert rest.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [peer.decode(websocket.recv(timeout=patient(10))).status for _ in range(20)] == [1] * 20
    assert collector.event_count == 22
    assert len(path.read_text().splitlines()) == 22


def test_close_is_idempotent_and_may_be_left_out_before_the_start() -> None:
    collector = Collector()
    collector.close()
    collector.start()
    for _ in range(3):
        collector.close()


def test_it_serves_once() -> None:
    with Collector() as collector, pytest.raises(RuntimeError, match="serves only once"):
        collector.start()
    with pytest.raises(RuntimeError, match="serves only once"):
        collector.start()


def test_addresses_are_known_once_the_collector_runs() -> None:
    collector = Collector()
    for name in ("port", "grpc_port", "url", "ws_url", "grpc_target"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(collector, name)
    with collector:
        assert collector.url == f"http://127.0.0.1:{collector.port}"
        assert collector.ws_url == f"ws://127.0.0.1:{collector.port}"
        assert collector.grpc_target == f"127.0.0.1:{collector.grpc_port}"


def test_another_collector_takes_over_the_ports(peer: Any, new_collector: NewCollector) -> None:
    first = new_collector()
    use(peer, first)
    first.close()
    second = new_collector(port=first.port, grpc_port=first.grpc_port)
    assert (second.url, second.grpc_target) == (first.url, first.grpc_target)
    assert peer.call(second).status == 1


@pytest.mark.parametrize("option", ["port", "grpc_port"])
def test_a_taken_port_is_reported_and_nothing_stays_open(option: str, event_loop_kind: str, capfd: Any) -> None:
    begun = Begun()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            Collector(**{option: port}).start()
    assert begun.threads("raccoon") == []
    assert capfd.readouterr() == ("", "")


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(OSError):
        Collector(host="no-such-host.invalid").start()


def test_ipv6_and_every_address(peer: Any) -> None:
    with Collector(host="0.0.0.0") as collector:
        assert collector.url.startswith("http://127.0.0.1:")
        use(peer, collector)
    if not has_ipv6():
        return
    with Collector(host="::1") as collector:
        assert collector.url.startswith("http://[::1]:")
        use(peer, collector)


def test_many_at_once_in_one_process(peer: Any, event_loop_kind: str) -> None:
    with contextlib.ExitStack() as stack:
        collectors = [stack.enter_context(Collector()) for _ in range(8)]
        for collector in collectors:
            use(peer, collector)
        assert {collector.event_count for collector in collectors} == {3}
        assert len({collector.port for collector in collectors}) == 8


def test_nothing_is_printed_or_logged_above_debug(peer: Any, capfd: Any, caplog: Any, event_loop_kind: str) -> None:
    caplog.set_level(logging.DEBUG)
    with Collector(ping_interval=0.05) as collector:
        use(peer, collector)
        collector.faults.close_connections()
        peer.tcp(collector.port).close()
    mine = [record for record in caplog.records if record.name.startswith(("raccoon_fast", "h2", "grpc"))]
    assert {record.levelname for record in mine} == {"DEBUG"}
    assert "POST /api/v1/events: 200" in [record.getMessage() for record in mine]
    assert {record.name for record in mine if record.name.startswith(("raccoon_fast", "h2"))} == {
        "raccoon_fast.collector"
    }
    out, err = capfd.readouterr()
    # grpc itself, in the peer's hand, may tell of a connection that ends under it.
    assert (out, [line for line in err.splitlines() if "chttp2_transport.cc" not in line]) == ("", [])


def test_an_action_that_comes_as_the_server_ends_fails(monkeypatch: pytest.MonkeyPatch, recwarn: Any) -> None:
    handed_over = threading.Event()

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
            handle = super().call_soon_threadsafe(*args, **options)
            handed_over.set()
            return handle

    class Ended:
        async def open(self) -> None:
            pass

        async def close(self) -> None:
            handed_over.clear()
            other.start()
            assert handed_over.wait(patient(20))  # and the loop has no turn meanwhile

        async def refuse(self) -> None:
            await asyncio.sleep(patient(60))

    def refuse() -> None:
        with pytest.raises(RuntimeError, match="the collector was closed"):
            running.refuse()
        refused.append(True)

    monkeypatch.setattr(runner, "_new_event_loop", Loop)
    other = threading.Thread(target=refuse)
    refused: list[bool] = []
    running = runner.Runner(Ended)  # type: ignore[arg-type]
    running.start()
    running.close()
    other.join()
    gc.collect()
    assert refused
    assert [str(one.message) for one in recwarn] == []


def test_signal_handlers_are_left_alone_by_start() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Collector():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_grpc_aio_clients_on_other_loops_log_nothing(peer: Any, caplog: Any, capfd: Any) -> None:
    """Several event loops of one process use grpc.aio: older grpcio wakes all of them for an event of one."""

    async def talk(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary(SEND_EVENT)
            for _ in range(10):
                calls = [call(b"", metadata=[("x-user-id", "u")], timeout=10) for _ in range(20)]
                await asyncio.gather(*calls)

    with Collector() as first, Collector() as second:
        asyncio.run(talk(first.grpc_target))
        asyncio.run(talk(second.grpc_target))
        assert first.request_count == second.request_count == 200
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert capfd.readouterr() == ("", "")


FOREGROUND = """
import logging, sys
from raccoon_fast.collector import Collector

# On a machine that is busy asyncio's debug mode tells of steps that took long.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
if sys.argv[1] == "asyncio":
    sys.modules["uvloop"] = None
Collector(sink=sys.argv[2], acks="sync", publish_delay=60).run(ready=lambda it: print(it.url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_until_a_signal(
    number: signal.Signals, event_loop_kind: str, peer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", FOREGROUND, event_loop_kind, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            body = peer.request(events=3)
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=patient(10)) as client:
                client.sendall(
                    b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n"
                    b"Content-Length: %d\r\n\r\n%bGET /ping HTTP/1.1\r\nHost: x\r\n\r\n" % (len(body), body)
                )
                with socket.create_connection(client.getpeername(), timeout=patient(10)) as other:
                    peer.ping(other)
                process.send_signal(number)
                assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            out, err = process.communicate(timeout=patient(10))
        finally:
            process.kill()
    assert (out, err, process.returncode) == ("ended\n", "", 0)
    assert len(path.read_text().splitlines()) == 3


def test_in_the_foreground_of_another_thread_until_close(peer: Any) -> None:
    collector = Collector()
    ready = threading.Event()
    thread = threading.Thread(target=collector.run, args=(lambda it: ready.set(),))
    thread.start()
    assert ready.wait(patient(10))
    use(peer, collector)
    collector.close()
    thread.join(patient(10))
    assert not thread.is_alive()


def test_close_from_ready_ends_the_run() -> None:
    Collector().run(ready=lambda it: it.close())


def test_signal_handlers_are_put_back_after_run() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during = []

    def ready(collector: Collector) -> None:
        during.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        collector.close()

    Collector().run(ready)
    assert not set(during) & set(before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=patient(50))


def test_a_program_that_forgets_to_close_still_ends() -> None:
    done = run_python("from raccoon_fast.collector import Collector; c = Collector().start(); print(c.event_count)")
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_a_collector_that_never_starts_leaves_nothing_to_warn_of(tmp_path: Path) -> None:
    done = run_python(f"from raccoon_fast.collector import Collector; Collector(sink={str(tmp_path / 'x')!r})")
    assert (done.stderr, done.returncode) == ("", 0)
    assert not (tmp_path / "x").exists()


def test_the_collector_imports_neither_clients_nor_core() -> None:
    done = run_python(
        "import sys, raccoon_fast.collector; "
        "print([n for n in ('clients', 'core', 'delivery', 'transports') if f'raccoon_fast.{n}' in sys.modules])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_without_its_packages_the_import_says_what_to_install() -> None:
    done = run_python("import sys; sys.modules['h2'] = None\nimport raccoon_fast.collector")
    assert "ImportError: the collector needs more packages: pip install 'raccoon_fast[collector]'" in done.stderr
