"""StatsD and DogStatsD: against the real daemon and sockets, across forks, and with failures."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from begun import Begun
from patience import patient

from raccoon_fast import stats
from raccoon_fast.stats import background
from raccoon_fast.stats import statsd as module
from raccoon_fast.stats.statsd import DogStatsD, StatsD

if sys.version_info >= (3, 12):
    # Forking with threads alive is what the fork tests are about.
    pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

STATS_THREAD = "raccoon-fast-stats"


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, *args: Any) -> None:
        self.lines.append(msg % args)

    error = info


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def port_of(receiver: socket.socket) -> int:
    return receiver.getsockname()[1]


def lines_of(receiver: socket.socket) -> list[str]:
    """What has arrived, without waiting for more: a datagram over loopback is there once it was sent."""
    receiver.setblocking(False)
    lines: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines += receiver.recv(65536).decode().splitlines()
    return lines


class TestDaemon:
    def test_timings_and_counters_arrive_with_prefix_and_tags(self, statsd_daemon):
        with StatsD("127.0.0.1", statsd_daemon.port, prefix="shop.web", tags={"env": "test", "zone": "a-1"}) as statsd:
            statsd.timing(stats.SENT_TT_MS, 1.5)
            statsd.timing(stats.SENT_TT_MS, 2)
            statsd.count(stats.TOTAL_BYTES_SENT, 4096)
            statsd.count(stats.TOTAL_BYTES_SENT, 1)
        statsd_daemon.wait_for(lambda daemon: daemon.counters().get("shop.web.total_bytes_sent;env=test;zone=a-1"))
        assert statsd_daemon.counters()["shop.web.total_bytes_sent;env=test;zone=a-1"] == 4097
        assert statsd_daemon.timers() == {"shop.web.sent_tt_ms;env=test;zone=a-1": [1.5, 2.0]}
        assert statsd_daemon.bad_lines() == 0

    @forks
    def test_parent_and_forked_child_each_arrive_once(self, statsd_daemon):
        statsd = StatsD("127.0.0.1", statsd_daemon.port, flush_interval=0.01)
        statsd.count("warm", 1)
        statsd_daemon.wait_for(lambda daemon: daemon.counters().get("warm"))
        unsent = StatsD("127.0.0.1", statsd_daemon.port, flush_interval=60)
        unsent.count("before_fork", 1)

        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                statsd.count("child", 3)
                unsent.count("child_of_unsent", 4)
                statsd.close(5)
                unsent.close(5)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        statsd.count("parent", 2)
        statsd.close(5)
        unsent.close(5)
        statsd_daemon.wait_for(lambda daemon: daemon.counters().get("parent") and daemon.counters().get("before_fork"))
        counters = statsd_daemon.counters()
        assert {name: n for name, n in counters.items() if not name.startswith("statsd.")} == {
            "warm": 1,
            "before_fork": 1,
            "child": 3,
            "child_of_unsent": 4,
            "parent": 2,
        }


class TestSending:
    def test_counters_are_added_up_within_a_flush(self, receiver):
        with StatsD("127.0.0.1", port_of(receiver), flush_interval=60) as statsd:
            for n in range(1000):
                statsd.count("a", n)
            statsd.count("b")
        assert sorted(lines_of(receiver)) == ["a:499500|c", "b:1|c"]

    def test_flushes_by_itself(self, receiver):
        with StatsD("127.0.0.1", port_of(receiver), flush_interval=0.01) as statsd:
            statsd.count("a", 1)
            assert receiver.recv(100) == b"a:1|c"
            statsd.count("a", 2)
            assert receiver.recv(100) == b"a:2|c"

    def test_packets_stay_under_an_ethernet_frame(self, receiver):
        with StatsD("127.0.0.1", port_of(receiver), prefix="p" * 40, tags={"k": "v" * 40}) as statsd:
            for _ in range(100):
                statsd.timing("t", 1)
        sizes = []
        received = 0
        while received < 100:
            packet = receiver.recv(65536)
            sizes.append(len(packet))
            received += len(packet.splitlines())
        assert max(sizes) <= 1432
        assert len(sizes) < 15

    def test_a_receiver_that_reads_in_the_pauses_gets_all_of_a_flush(self, receiver, monkeypatch):
        lines: list[str] = []
        pauses = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: lines.extend(lines_of(receiver)))
        monkeypatch.setattr(module, "time", pauses)
        statsd = StatsD("127.0.0.1", port_of(receiver), prefix="p" * 40, tags={"k": "v" * 40}, flush_interval=60)
        for n in range(20_000):
            statsd.timing(stats.ACK_TT_MS, n)
        statsd.close(10)
        lines += lines_of(receiver)
        assert [int(line.partition(":")[2].partition(".")[0]) for line in lines] == list(range(20_000))
        assert statsd.dropped == 0

    def test_samples_of_many_threads_are_all_counted(self, receiver):
        statsd = StatsD("127.0.0.1", port_of(receiver), flush_interval=60)
        threads = [threading.Thread(target=lambda: [statsd.count("a", 1) for _ in range(2_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statsd.close(5)
        assert lines_of(receiver) == ["a:16000|c"]

    def test_ipv6_only_daemon(self):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("::1", 0))
            receiver.settimeout(10)
            with StatsD("::1", port_of(receiver)) as statsd:
                statsd.count("a", 1)
            assert receiver.recv(100) == b"a:1|c"

    def test_address_is_looked_up_again(self, receiver, monkeypatch):
        monkeypatch.setattr(module, "_RESOLVE_EVERY_S", 0.0)
        resolve = socket.getaddrinfo
        address = "127.0.0.2"
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: resolve(address, *rest))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as old:
            old.bind(("127.0.0.2", port_of(receiver)))
            old.settimeout(10)
            with StatsD("statsd.test", port_of(receiver), flush_interval=0.01) as statsd:
                statsd.count("a", 1)
                assert old.recv(100) == b"a:1|c"
                address = "127.0.0.1"
                statsd.count("a", 2)
                assert receiver.recv(100) == b"a:2|c"

    def test_last_address_serves_while_the_name_cannot_be_resolved(self, receiver, monkeypatch):
        monkeypatch.setattr(module, "_RESOLVE_EVERY_S", 0.0)
        with StatsD("127.0.0.1", port_of(receiver), flush_interval=0.01) as statsd:
            statsd.count("a", 1)
            assert receiver.recv(100) == b"a:1|c"
            monkeypatch.setattr(socket, "getaddrinfo", fail_to_resolve)
            statsd.count("a", 2)
            assert receiver.recv(100) == b"a:2|c"


def fail_to_resolve(*_: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class TestTrouble:
    def test_unknown_host_is_logged_once_and_tried_again(self, receiver, monkeypatch):
        log = Recorder()
        resolve = socket.getaddrinfo
        tries = threading.Semaphore(0)

        def fail(*args: object) -> None:
            tries.release()
            fail_to_resolve()

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with StatsD("127.0.0.1", port_of(receiver), flush_interval=0.01, logger=log) as statsd:
            for _ in range(3):
                statsd.timing("t", 1)
                assert tries.acquire(timeout=patient(10))  # IPv4 ...
                assert tries.acquire(timeout=patient(10))  # ... and IPv6
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            while True:
                statsd.count("a", 1)
                receiver.settimeout(0.05)
                try:
                    assert receiver.recv(100).startswith(b"a:")
                    break
                except TimeoutError:
                    continue
            assert statsd.dropped >= 3
        (line,) = log.lines
        assert line.startswith(f"statsd at 127.0.0.1:{port_of(receiver)}: ")
        assert "Name or service not known" in line

    def test_a_hanging_lookup_does_not_delay_the_caller(self, monkeypatch):
        hanging = threading.Event()
        release = threading.Event()

        def hang(*_: object) -> None:
            hanging.set()
            release.wait(patient(30))
            fail_to_resolve()

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        begun = Begun()
        statsd = StatsD("statsd.test", flush_interval=0.001, logger=None)
        statsd.count("a", 1)
        assert hanging.wait(patient(10))
        start_s = time.monotonic()
        for _ in range(background._MAX_SAMPLES + 500):
            statsd.count("a", 1)
        statsd.close(timeout=0.05)
        assert time.monotonic() - start_s < patient(5)
        assert statsd.dropped == 500
        release.set()
        statsd._thread.join(patient(10))
        assert begun.threads(STATS_THREAD) == []
        assert statsd.dropped == 500 + background._MAX_SAMPLES + 1

    def test_no_daemon_is_no_error(self):
        log = Recorder()
        with StatsD("127.0.0.1", 9, flush_interval=0.001, logger=log) as statsd:
            for _ in range(3):
                statsd.count("a", 1)
                time.sleep(0.005)
        assert log.lines == []

    def test_a_bad_number_does_not_end_the_thread(self, receiver):
        log = Recorder()
        with StatsD("127.0.0.1", port_of(receiver), flush_interval=0.01, logger=log) as statsd:
            statsd.timing("t", "fast")
            statsd.count("a", 3)
            statsd.count("a", "many")
            while not log.lines:
                time.sleep(0.005)
            statsd.count("a", 1)
            assert receiver.recv(100) == b"a:1|c"

    def test_thread_that_cannot_start_is_started_later(self, receiver, monkeypatch):
        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with StatsD("127.0.0.1", port_of(receiver)) as statsd:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                statsd.count("a", 1)
            statsd.count("a", 1)
        assert lines_of(receiver) == ["a:2|c"]


class TestLifeCycle:
    def test_no_thread_before_the_first_sample(self):
        begun = Begun()
        statsd = StatsD()
        assert begun.threads() == []
        statsd.close()

    def test_close_ends_the_thread_and_ignores_later_samples(self, receiver):
        begun = Begun()
        statsd = StatsD("127.0.0.1", port_of(receiver), flush_interval=60)
        statsd.count("a", 1)
        deadline_s = time.monotonic() + patient(10)
        while not (threads := begun.threads()):
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        assert [(thread.name, thread.daemon) for thread in threads] == [(STATS_THREAD, True)]
        statsd.close(5)
        statsd.count("a", 1)
        statsd.close()
        assert lines_of(receiver) == ["a:1|c"]
        assert begun.threads() == []

    def test_interpreter_exit_sends_remaining_samples(self, receiver):
        script = f"""
            from raccoon_fast.stats.statsd import StatsD
            StatsD("127.0.0.1", {port_of(receiver)}, flush_interval=60).count("a", 7)
        """
        subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True, timeout=patient(30))
        assert receiver.recv(100) == b"a:7|c"

    @forks
    def test_forked_child_neither_sends_nor_counts_the_parents_samples(self, receiver):
        statsd = StatsD("127.0.0.1", port_of(receiver), flush_interval=60)
        statsd.count("a", 1)
        pid = os.fork()
        if pid == 0:
            try:
                statsd.close(5)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert lines_of(receiver) == []
        statsd.close(5)
        assert lines_of(receiver) == ["a:1|c"]

    @forks
    def test_forked_children_while_samples_pour_in(self, receiver):
        statsd = StatsD("127.0.0.1", port_of(receiver), flush_interval=0.005)
        stop = threading.Event()

        def pour() -> None:
            while not stop.is_set():
                statsd.count("parent", 1)
                time.sleep(0.0001)

        thread = threading.Thread(target=pour)
        thread.start()
        lines: list[str] = []
        try:
            for _ in range(20):
                process = multiprocessing.get_context("fork").Process(target=count_and_close, args=(statsd,))
                process.start()
                process.join(patient(20))
                assert process.exitcode == 0
                lines += lines_of(receiver)  # now, or the receive buffer would overflow with the parent's
        finally:
            stop.set()
            thread.join()
            statsd.close(5)
        lines += lines_of(receiver)
        assert lines.count("child:1|c") == 20


def count_and_close(statsd: StatsD) -> None:
    statsd.count("child", 1)
    statsd.close(5)


class TestOptions:
    @pytest.mark.parametrize("text", ["a b", "a:b", "a|b", "a@b", "a#b", "a\nb", "a,b", "a;b", "a=b", "é", "a\n"])
    def test_characters_of_the_protocol_are_refused(self, text):
        with pytest.raises(ValueError, match="prefix"):
            StatsD(prefix=text)
        with pytest.raises(ValueError, match="tags"):
            StatsD(tags={text: "v"})
        with pytest.raises(ValueError, match="tags"):
            StatsD(tags={"k": text})
        with StatsD() as statsd:
            with pytest.raises(ValueError, match="name"):
                statsd.count(text, 1)
            with pytest.raises(ValueError, match="name"):
                statsd.timing(text, 1)
            assert not statsd._samples

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"host": ""}, ValueError),
            ({"host": None}, TypeError),
            ({"port": 0}, ValueError),
            ({"port": 65536}, ValueError),
            ({"port": "8125"}, TypeError),
            ({"flush_interval": 0}, ValueError),
            ({"flush_interval": -1}, ValueError),
            ({"flush_interval": float("inf")}, ValueError),
            ({"flush_interval": float("nan")}, ValueError),
            ({"flush_interval": "1"}, TypeError),
            ({"prefix": None}, TypeError),
            ({"tags": ["k:v"]}, TypeError),
            ({"tags": {"k": 1}}, TypeError),
            ({"tags": {"": "v"}}, ValueError),
            ({"logger": "stderr"}, TypeError),
        ],
    )
    def test_wrong_options_are_named(self, options, error):
        with pytest.raises(error, match=next(iter(options))):
            StatsD(**options)


class TestDogStatsD:
    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch):
        for name in ("AGENT_HOST", "DOGSTATSD_PORT", "ENV", "SERVICE", "VERSION", "ENTITY_ID"):
            monkeypatch.delenv(f"DD_{name}", raising=False)
        return lambda **values: [monkeypatch.setenv(f"DD_{name}", value) for name, value in values.items()]

    def test_timings_are_distributions_and_everything_has_the_tags(self, receiver):
        tags = {"env": "test", "url": "http://a:80/b", "team/name": "x-1"}
        with DogStatsD("127.0.0.1", port_of(receiver), prefix="shop", tags=tags) as dog:
            dog.timing(stats.ACK_TT_MS, 1.5)
            dog.timing(stats.ACK_TT_MS, 2)
            dog.count(stats.TOTAL_BYTES_SENT, 4096)
            dog.count(stats.TOTAL_BYTES_SENT, 1)
        suffix = "|#env:test,url:http://a:80/b,team/name:x-1"
        assert lines_of(receiver) == [
            f"shop.ack_tt_ms:1.500000|d{suffix}",
            f"shop.ack_tt_ms:2.000000|d{suffix}",
            f"shop.total_bytes_sent:4097|c{suffix}",
        ]

    def test_the_agent_s_environment(self, receiver, variables):
        variables(
            AGENT_HOST="127.0.0.1",
            DOGSTATSD_PORT=str(port_of(receiver)),
            ENV="prod",
            SERVICE="shop",
            VERSION="1.2",
            ENTITY_ID="pod-1",
        )
        with DogStatsD(tags={"env": "mine"}) as dog:
            dog.count("a")
        assert lines_of(receiver) == ["a:1|c|#env:mine,service:shop,version:1.2,dd.internal.entity_id:pod-1"]

    @pytest.mark.parametrize(
        ("value", "sent"),
        [
            ("1.2.3+git.abc", "1.2.3_git.abc"),
            ("my service", "my_service"),
            ("a,b|c#d\n", "a_b_c_d_"),
            ("caf\u00e9:", "caf__"),
            (":", "_"),
            ("http://a:80/b", "http://a:80/b"),
            ("long" * 60, ("long" * 60)[:192]),
        ],
    )
    def test_any_value_of_the_environment_becomes_a_tag(self, receiver, variables, value, sent):
        variables(VERSION=value)
        with DogStatsD("127.0.0.1", port_of(receiver)) as dog:
            dog.count("a")
        assert lines_of(receiver) == [f"a:1|c|#version:{sent}"]

    @pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "8125.0"])
    def test_a_wrong_port_is_named(self, variables, port):
        variables(DOGSTATSD_PORT=port)
        with pytest.raises(ValueError, match=f"DD_DOGSTATSD_PORT must be from 1 to 65535, not '{port}'"):
            DogStatsD()
        DogStatsD(port=8125).close(0)

    @pytest.mark.parametrize("how", ["url", "url of datagrams", "host"])
    def test_a_unix_socket(self, tmp_path, variables, how, monkeypatch):
        monkeypatch.setattr(module, "_UNIX_TIMEOUT_S", patient(10))  # no packet is dropped, however slow the machine
        path = tmp_path / "dsd.socket"
        scheme = "unixgram" if how == "url of datagrams" else "unix"
        variables(DOGSTATSD_URL="udp://192.0.2.1:1" if how == "host" else f"{scheme}://{path}", AGENT_HOST="192.0.2.1")
        logger = Recorder()
        with DogStatsD(f"unix://{path}" if how == "host" else None, flush_interval=0.05, logger=logger) as dog:
            dog.count("early", 1)  # nobody listens yet: that is said
            deadline_s = time.monotonic() + patient(10)
            while not logger.lines:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            for name in ("one", "again"):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
                    agent.bind(str(path))
                    agent.settimeout(patient(10))
                    for number in range(2000):
                        dog.timing(f"{name}.{number % 7}", number)
                    lines = []
                    while len([line for line in lines if line.startswith(name)]) < 2000:
                        lines += agent.recv(65536).decode().splitlines()
                path.unlink()
        (line,) = logger.lines
        assert f"unix://{path}" in line

    @pytest.mark.parametrize(
        ("url", "host", "port"),
        [("udp://agent:99", "agent", 99), ("udp://agent", "agent", 8126), ("", "other", 8126)],
    )
    def test_the_url_overrides_the_host(self, variables, url, host, port):
        variables(DOGSTATSD_URL=url, AGENT_HOST="other", DOGSTATSD_PORT="8126")
        assert DogStatsD()._target == f"statsd at {host}:{port}"
        assert DogStatsD("mine")._target == "statsd at mine:8126"
        assert DogStatsD(port=7)._target == f"statsd at {host}:7"

    @pytest.mark.parametrize("url", ["unix://relative/path", "tcp://h:1", "udp://", "udp://h:x", "/path"])
    def test_a_wrong_url_is_named(self, variables, url):
        variables(DOGSTATSD_URL=url)
        with pytest.raises(ValueError, match="DD_DOGSTATSD_URL"):
            DogStatsD()

    def test_a_forked_child_sends_its_own(self, receiver):
        dog = DogStatsD("127.0.0.1", port_of(receiver), flush_interval=60)
        dog.count("parent")
        pid = os.fork()
        if pid == 0:
            try:
                dog.count("child")
                dog.close(5)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        dog.close(5)
        assert sorted(lines_of(receiver)) == ["child:1|c", "parent:1|c"]

    @pytest.mark.parametrize(
        "tag",
        [("1a", "b"), ("a", ""), ("a", "b:"), ("a", "b,c"), ("a", "b|c"), ("a", "b\n"), ("é", "b"), ("a", "b" * 199)],
    )
    def test_tags_that_datadog_would_not_have_are_refused(self, tag):
        with pytest.raises(ValueError, match="tags must start with a letter"):
            DogStatsD(tags=dict([tag]))

    @pytest.mark.parametrize("tags", [["a:b"], {"a": 1}])
    def test_tags_of_the_wrong_type(self, tags):
        with pytest.raises(TypeError, match="tags must be a mapping"):
            DogStatsD(tags=tags)

    def test_the_longest_tag(self):
        DogStatsD(tags={"a": "b" * 198}).close()
