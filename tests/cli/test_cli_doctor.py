"""`raccoon-fast doctor`, with each problem set up for real."""

from __future__ import annotations

import datetime
import functools
import http.server
import json
import os
import re
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
import trustme
from forward_proxy import ForwardProxy
from patience import patient
from unix_socket import forwarded

import raccoon_fast
from raccoon_fast import RAW, App, RestClient
from raccoon_fast.cli import main
from raccoon_fast.cli.doctor import command as doctor
from raccoon_fast.cli.doctor.probes import check_clock
from raccoon_fast.collector import Collector, answers
from raccoon_fast.collector.decode_errors import MalformedRequest
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.net import resolver

PURE = not raccoon_fast.has_extensions()


class Report:
    """What the doctor said, and the exit code."""

    def __init__(self, code, text):
        self.code = code
        self.checks = json.loads(text)["checks"]

    def statuses(self, status):
        # A pure build is a warning, whatever else is well.
        return [
            one["check"] for one in self.checks if one["status"] == status and (one["check"] != "install" or not PURE)
        ]

    def __call__(self, check):
        """The findings of a check, as (status, detail, fix)."""
        return [(one["status"], one["detail"], one["fix"]) for one in self.checks if one["check"] == check]


@pytest.fixture
def examine(capsys, monkeypatch):
    """Examines in this process; nobody is asked."""
    monkeypatch.delenv("RACCOON_FAST_URL", raising=False)
    # Where nothing is: a Raccoon of this machine must not be found.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(doctor, "_GRPC_PORT", unused.getsockname()[1])

        def examine(*arguments):
            code = main(["doctor", *map(str, arguments), "--json"])
            return Report(code, capsys.readouterr().out)

        yield examine


ALL_ACKS = ["ack rest", "ack rest/json", "ack ws", "ack ws/json", "ack grpc"]


class TestAllIsWell:
    def test_every_protocol(self, examine, collector):
        report = examine(collector.url, f"grpc://{collector.grpc_target}", "--yes", "--type", "probe")
        assert (report.code, report.statuses("warn"), report.statuses("fail"), report.statuses("skip")) == (
            0,
            [],
            [],
            [],
        )
        assert [check for check in report.statuses("ok") if check.startswith("ack")] == ALL_ACKS
        for name in ("resolve", "connect", "ping", "rest", "websocket", "id header", "duplicate id", "grpc", "clock"):
            assert report(name), name
        assert "the server reads X-User-ID" in report("id header")[0][1]
        assert "a second connection with one id is refused" in report("duplicate id")[0][1]
        assert "sent_time was read as an object" in report("ack ws/json")[0][1]
        assert {event.type for event in collector.events} == {"probe"}
        assert {event.protocol for event in collector.events} == {"rest", "websocket", "grpc"}
        assert collector.event_count == 5

    def test_its_requests_are_marked_as_probes_in_the_collector(self, examine):
        with Collector(inspect=True) as collector:
            with RestClient(collector.url, serializer=RAW, app=App("1", "shop", "1.0")) as client:
                client.send([("page", b"")])
            examine(collector.url, f"grpc://{collector.grpc_target}", "--yes", "--type", "probe")
            examine(f"grpc://{collector.grpc_target}", "--id-header", "X-Device-ID")  # which is refused
            get = functools.partial(httpx.get, trust_env=False)
            events = get(f"{collector.url}/inspect/events").json()["events"]
            rejected = get(f"{collector.url}/inspect/bad").json()["bad"]
        assert {(event["type"], event["probe"]) for event in events} == {("page", False), ("probe", True)}
        assert rejected
        assert all(one["probe"] for one in rejected)

    def test_tls_and_mutual_tls(self, examine, tls_collector, authority):
        with tls_collector("127.0.0.1", mutual=True) as collector:
            files = ["--ca", authority.ca, "--cert", authority.client, "--key", authority.client]
            report = examine(collector.ws_url, f"grpcs://{collector.grpc_target}", "--yes", *files)
        assert (report.code, report.statuses("fail")) == (0, [])
        assert [check for check in report.statuses("ok") if check.startswith("ack")] == ALL_ACKS
        for _, detail, _ in report("tls"):
            assert detail.startswith("TLSv1.3: Testing cert")
            assert " <- Testing CA" in detail
            assert "; valid until Jan  1 00:00:00 3000 GMT (" in detail

    def test_text(self, command, collector):
        run = command("doctor", collector.url, "--yes")
        version = raccoon_fast.client_info().version
        assert (run.returncode, run.stderr) == (0, "")
        lines = run.stdout.splitlines()
        assert lines[0].startswith(
            f"  ok    install        raccoon_fast {version}, {'pure Python' if PURE else 'compiled'}"
        )
        lines = lines[2 if PURE else 1 :]
        assert lines[0] == f"{collector.url}/api/v1/events"
        assert lines[1].startswith("  ok    resolve        127.0.0.1 is 127.0.0.1")
        assert lines[-1].endswith(" 0 fail, 0 skip") or lines[-1].endswith(" 0 fail, 1 skip")

    def test_servers_of_the_environment(self, examine, collector, monkeypatch):
        monkeypatch.setenv("RACCOON_FAST_URL", f"{collector.ws_url},grpc://{collector.grpc_target}")
        report = examine()
        assert {one["url"] for one in report.checks} == {
            "",
            f"{collector.ws_url}/api/v1/events",
            f"grpc://{collector.grpc_target}",
        }

    @pytest.mark.parametrize(("chosen", "status"), [(True, "ok"), (False, "warn")])
    def test_pure_python_is_named_with_the_reason_and_what_to_do(self, examine, monkeypatch, chosen, status):
        monkeypatch.setattr(doctor, "has_extensions", lambda: False)
        monkeypatch.setattr(doctor, "was_switched_off", lambda: chosen)
        monkeypatch.setattr(doctor, "explain_pure", lambda: ("no compiler", "install one"))
        info = raccoon_fast.client_info()._replace(form="pure Python, about 12 times slower: no compiler; install one")
        monkeypatch.setattr(doctor, "client_info", lambda: info)
        ((found, detail, fix),) = examine("http://127.0.0.1:9")("install")
        assert (found, fix) == (status, "install one")
        assert detail == f"raccoon_fast {info.version}, pure Python, about 12 times slower: no compiler"


class TestTheWayThere:
    """Which addresses, through which proxy, and what each answered."""

    @pytest.mark.parametrize("kind", ["http", "https", "socks5"])
    def test_through_a_proxy(self, examine, tls_collector, authority, tmp_path, kind):
        context = None
        if kind == "https":
            authority.issue("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "proxy.pem")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "proxy.pem")
        with (
            tls_collector("localhost") as collector,
            ForwardProxy("socks5" if kind == "socks5" else "http", user="u", password="s3cret", tls=context) as proxy,
        ):
            urls = [f"https://localhost:{collector.port}", f"grpcs://localhost:{collector.grpc_port}"]
            url = proxy.url(kind, "u:s3cret")
            report = examine(*urls, "--yes", "--ca", authority.ca, "--proxy", url)
            shown = f"{kind}://localhost:{proxy.port}"
            assert (report.code, report.statuses("fail")) == (0, [])
            assert [check for check in report.statuses("ok") if check.startswith("ack")] == ALL_ACKS
            assert report("resolve")[0][1].startswith(f"the proxy {shown}: localhost is ")
            assert report("proxy")[0][1].startswith(f"{shown} connects to localhost:{collector.port} in ")
            assert "TLSv1.3" in report("tls")[0][1]
            assert "s3cret" not in json.dumps(report.checks)
            assert set(proxy.targets) == {f"localhost:{collector.port}", f"localhost:{collector.grpc_port}"}

    def test_a_proxy_of_the_environment_that_refuses(self, examine, collector, monkeypatch):
        with ForwardProxy() as proxy:
            proxy.refusal = b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n"
            monkeypatch.setenv("HTTP_PROXY", proxy.url())
            report = examine(collector.url)
            ((status, detail, fix),) = report("proxy")
            assert (report.code, status) == (1, "fail")
            assert f"http://localhost:{proxy.port} does not connect to {collector.url}" in detail
            assert detail.endswith("403 Forbidden; ERR_ACCESS_DENIED 0")
            assert "NO_PROXY" in fix
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert examine(collector.url).code == 0

    def test_addresses_are_listed_in_the_order_tried(self, examine, collector, monkeypatch):
        real = resolver.look_up

        async def look_up(host, port):
            assert host == "three.test"
            return [info for one in ("127.0.0.8", "::1", "127.0.0.1") for info in await real(one, port)]

        monkeypatch.setattr(resolver, "look_up", look_up)
        report = examine(f"http://three.test:{collector.port}")
        assert report.code == 0
        assert report("resolve")[0][1].startswith("three.test is 127.0.0.8, ::1, 127.0.0.1 (")
        assert re.match(
            rf"port {collector.port}: 127.0.0.8: Connection refused, ::1: Connection refused, 127.0.0.1 in [0-9.]+ ms$",
            report("connect")[0][1],
        )

    @pytest.mark.parametrize("scheme", ["http+unix", "ws+unix", "grpc+unix"])
    def test_a_unix_socket(self, examine, collector, tmp_path, scheme):
        path = tmp_path / "r.sock"
        with forwarded(path, collector.grpc_port if scheme.startswith("grpc") else collector.port):
            report = examine(f"{scheme}://{path}", "--yes")
        assert (report.code, report.statuses("fail"), report.statuses("skip")) == (0, [], [])
        assert report("connect")[0][1].startswith(f"{scheme}://{path} in ")
        assert collector.event_count
        missing = examine(f"{scheme}://{tmp_path}/none")
        assert missing.statuses("fail") == ["connect"]

    def test_another_name_for_tls(self, examine, tls_collector, authority):
        with tls_collector("inner.test") as collector:
            files = ["--ca", authority.ca]
            report = examine(f"https://127.0.0.1:{collector.port}", *files, "--server-hostname", "inner.test")
            assert (report.code, report.statuses("fail")) == (0, [])
            assert "set it as --server-hostname" in examine(f"https://127.0.0.1:{collector.port}", *files)("tls")[0][2]


class TestConsent:
    def test_no_event_is_sent_without_consent(self, examine, collector):
        report = examine(collector.url, f"grpc://{collector.grpc_target}")
        assert report.code == 0
        assert (
            report("probe") == [("skip", "no event was sent: acknowledgements were not tested", "--yes sends some")] * 2
        )
        assert report("websocket")[0][0] == report("rest")[0][0] == report("grpc")[0][0] == "ok"
        assert collector.event_count == 0

    @pytest.mark.parametrize(("answer", "events"), [(b"y\n", 5), (b"n\n", 0)])
    def test_consent_is_asked_for_once(self, command, collector, answer, events):
        pty = pytest.importorskip("pty", reason="there is no pseudo-terminal here")
        ours, theirs = pty.openpty()
        process = command.start("doctor", collector.url, f"grpc://{collector.grpc_target}", stdin=theirs)
        os.close(theirs)
        os.write(ours, answer)
        _, err = process.communicate(timeout=patient(40))
        os.close(ours)
        assert process.returncode == 0
        assert err.count(b"[y/N]") == 1
        assert b"Send an event of type raccoon-fast-doctor over each protocol to 127.0.0.1:" in err
        assert collector.event_count == events


@pytest.fixture
def authority(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return SimpleNamespace(issue=ca.issue_cert, ca=tmp_path / "ca.pem", client=tmp_path / "client.pem")


@pytest.fixture
def tls_collector(authority, tmp_path):
    def make(*names, mutual=False, **validity):
        authority.issue(*names, **validity).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        pem = tmp_path / "server.pem"
        return Collector(tls_cert=pem, tls_key=pem, tls_client_ca=authority.ca if mutual else None)

    return make


def days(number):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=number)


class TestTLS:
    @pytest.mark.parametrize(
        ("names", "validity", "detail", "fix"),
        [
            (
                ["127.0.0.1"],
                {"not_before": days(-30), "not_after": days(-3)},
                "certificate has expired",
                "renew the certificate",
            ),
            (["127.0.0.1"], {"not_before": days(3)}, "certificate is not yet valid", "set this machine's clock"),
            (
                ["a.test", "b.test"],
                {},
                "IP address mismatch",
                "use a name in the certificate (a.test, b.test)",
            ),
        ],
    )
    @pytest.mark.parametrize("scheme", ["https", "grpcs"])
    def test_a_certificate_that_is_not_accepted(
        self, examine, tls_collector, authority, names, validity, detail, fix, scheme
    ):
        with tls_collector(*names, **validity) as collector:
            url = collector.url if scheme == "https" else f"grpcs://{collector.grpc_target}"
            report = examine(url, "--ca", authority.ca, "--yes")
            ((status, said, remedy),) = report("tls")
            assert (report.code, status) == (1, "fail")
            assert detail in said
            assert "Testing cert" in said
            assert fix in remedy
            assert collector.request_count == 0

    def test_a_certificate_that_expires_soon(self, examine, tls_collector, authority):
        with tls_collector("127.0.0.1", not_after=days(10.5)) as collector:
            report = examine(collector.url, "--ca", authority.ca)
        ((status, said, remedy),) = report("tls")
        assert (report.code, status) == (0, "warn")
        assert said.endswith("(10 days)")
        assert remedy.startswith("renew the certificate of Testing cert")

    def test_an_authority_that_is_not_known(self, examine, tls_collector):
        with tls_collector("127.0.0.1") as collector:
            report = examine(collector.url)
        ((status, said, remedy),) = report("tls")
        assert (report.code, status) == (1, "fail")
        assert "unable to get local issuer certificate" in said
        assert "--ca (RACCOON_FAST_TLS_CA)" in remedy

    def test_a_client_s_certificate_that_is_missing(self, examine, tls_collector, authority):
        with tls_collector("127.0.0.1", mutual=True) as collector:
            report = examine(collector.url, "--ca", authority.ca)
        ((status, said, remedy),) = report("rest")
        assert (report.code, status) == (1, "fail")
        assert "the server ended the connection" in said
        assert "--cert and --key" in remedy

    @pytest.mark.parametrize(("secure", "plain"), [("https", "http"), ("wss", "ws"), ("grpcs", "grpc")])
    def test_a_port_for_plain_text(self, examine, collector, secure, plain):
        target = collector.grpc_target if secure == "grpcs" else f"127.0.0.1:{collector.port}"
        report = examine(f"{secure}://{target}")
        ((status, said, remedy),) = report("tls")
        assert (report.code, status) == (1, "fail")
        assert "no handshake" in said
        assert f"use {plain}://" in remedy

    def test_a_port_for_tls(self, examine, tls_collector):
        with tls_collector("127.0.0.1") as collector:
            report = examine(f"http://127.0.0.1:{collector.port}")
        assert report.code == 1
        assert report("rest") == [("fail", f"port {collector.port} speaks TLS", "use https:// (wss:// for WebSocket)")]


class TestNetwork:
    @pytest.mark.parametrize("scheme", ["http", "ws", "grpc", "https"])
    def test_nothing_listens(self, examine, unused_port, scheme):
        report = examine(f"{scheme}://127.0.0.1:{unused_port}")
        ((status, said, remedy),) = report("connect")
        assert (report.code, status) == (1, "fail")
        assert said == f"port {unused_port}: 127.0.0.1: Connection refused"
        assert "start the server, or check the port" in remedy

    def test_a_name_that_is_not_known(self, examine):
        report = examine("http://no-such-host.invalid")
        ((status, said, remedy),) = report("resolve")
        assert (report.code, status) == (1, "fail")
        assert said.startswith("no-such-host.invalid: ")
        assert "check the name" in remedy

    def test_a_connect_without_an_answer(self, examine):
        with socket.socket() as full:  # its queue of connections
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            waiting = [socket.socket() for _ in range(8)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            report = examine(f"http://127.0.0.1:{port}", "--timeout", "0.2")
            for one in waiting:
                one.close()
        ((status, said, remedy),) = report("connect")
        assert (report.code, status) == (1, "fail")
        assert "timed out" in said
        assert "firewall" in remedy

    def test_a_server_that_says_nothing(self, examine):
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen(16)
            report = examine(f"http://127.0.0.1:{mute.getsockname()[1]}", "--timeout", "0.3")
        ((status, said, _),) = report("rest")
        assert (report.code, status, said) == (1, "fail", "no answer within 0.3 s")


class Page(http.server.BaseHTTPRequestHandler):
    """A web server that is no Raccoon."""

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>\x1b[31mWelcome</html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def web_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestServer:
    def test_a_server_that_is_not_raccoon(self, examine, web_server):
        report = examine(web_server)
        assert report.code == 1
        assert report("ping")[0][:2] == ("warn", "/ping answers HTTP 200: '<html>\\x1b[31mWelcome</html>'")
        assert "is this a Raccoon's port and path?" in report("rest")[0][2]

    def test_server_text_is_escaped_for_the_terminal(self, command, unused_port):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()

            def answer():
                for _ in range(6):
                    connection, _ = listener.accept()
                    connection.sendall(b"\x1b[31mred\x1b[0m\r\n\r\n")
                    connection.close()

            threading.Thread(target=answer, daemon=True).start()
            run = command("doctor", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert run.returncode == 1
        assert r"\x1b[31mred\x1b[0m" in run.stdout
        assert "\x1b" not in run.stdout

    @pytest.mark.parametrize(
        ("status", "remedy"), [(401, "RACCOON_FAST_AUTH_TOKEN"), (404, "add the path to the URL"), (503, "log")]
    )
    def test_an_http_status(self, examine, collector, status, remedy):
        collector.faults.status(status)
        report = examine(collector.url)
        ((found, said, fix),) = report("rest")
        assert (report.code, found) == (1, "fail")
        assert f"HTTP {status} to a request without events" in said
        assert remedy in fix

    def test_a_wrong_path(self, examine, collector):
        report = examine(f"{collector.url}/events")
        assert report.code == 1
        assert "add the path to the URL" in report("rest")[0][2]

    def test_a_proxy_that_knows_no_websocket(self, examine, collector):
        collector.faults.status(502)
        report = examine(collector.ws_url)
        ((status, said, fix),) = report("websocket")
        assert (status, said) == ("fail", "the server answered HTTP 502 to the handshake")
        assert "forward Upgrade and Connection" in fix

    @pytest.mark.parametrize("name", ["X-Client-ID", "GO-User-ID"])
    def test_another_id_header(self, examine, name):
        with Collector(id_header=name) as collector:
            urls = collector.url, f"grpc://{collector.grpc_target}"
            report = examine(*urls)
            findings = report("id header")
            assert (report.code, [status for status, _, _ in findings]) == (1, ["fail", "fail"])
            for _, said, fix in findings:
                assert said.endswith(f"the server reads {name}, not X-User-ID")
                assert f"--id-header {name}" in fix
            assert examine(*urls, "--id-header", name).code == 0
            assert collector.event_count == 0

    def test_an_id_header_that_is_not_found(self, examine):
        with Collector(id_header="X-Secret-Name") as collector:
            report = examine(collector.url, f"grpc://{collector.grpc_target}")
        websocket, grpc = report("id header")
        assert (report.code, websocket[0], grpc[0]) == (1, "fail", "fail")
        assert "one connection at a time" in websocket[2]
        assert "the server requires an id" in grpc[1]
        assert "--id-header" in grpc[2]

    def test_too_many_connections(self, examine):
        with Collector(max_connections=1) as collector:
            report = examine(collector.url)
        ((status, said, fix),) = report("id header")
        assert (report.code, status) == (0, "warn")
        assert "Max connection reached" in said
        assert "raise the limit" in fix

    def test_acknowledgements_that_wait_for_publishing(self, examine, monkeypatch):
        monkeypatch.setattr("raccoon_fast.cli.doctor.probes._SLOW_ACK_MS", 200.0)
        with Collector(acks="sync", publish_delay=0.3) as collector:
            report = examine(collector.url, f"grpc://{collector.grpc_target}", "--yes")
        assert (report.code, report.statuses("warn")) == (0, ALL_ACKS)
        assert "event.ack=1" in report("ack grpc")[0][2]

    def test_events_that_cannot_be_published(self, examine):
        with Collector(acks="sync", publish_failure_rate=1.0) as collector:
            report = examine(collector.url, f"grpc://{collector.grpc_target}", "--yes")
        assert (report.code, report.statuses("fail")) == (1, ALL_ACKS)
        for check in ALL_ACKS:
            assert "--type" in report(check)[0][2]

    def test_acknowledgements_that_do_not_come(self, examine, collector):
        collector.faults.drop_acks()
        report = examine(collector.ws_url, "--yes", "--timeout", "0.3")
        assert report.code == 1
        assert "within 0.3 s" in report("rest")[0][1]
        assert "look at the server's log" in report("ack ws")[0][2]

    def test_a_server_that_does_not_read_json(self, examine, collector, monkeypatch):
        def refuse(data):
            raise MalformedRequest("sent_time must be RFC 3339")

        monkeypatch.setattr(answers, "decode_json_request", refuse)
        report = examine(collector.url, "--yes")
        assert (report.code, report.statuses("fail")) == (1, ["ack rest/json", "ack ws/json"])
        assert 'use wire="proto"' in report("ack rest/json")[0][2]

    @pytest.mark.parametrize(("hours", "which"), [(2, "7,200 s ahead of"), (-1, "3,600 s behind")])
    def test_clocks_that_are_apart(self, examine, collector, monkeypatch, hours, which):
        monkeypatch.setattr(answers, "time", SimpleNamespace(time=lambda: time.time() + hours * 3600))
        report = examine(collector.url, "--yes")
        ((status, said, fix),) = report("clock")
        assert (report.code, status) == (0, "warn")
        assert which.split(" s ")[1] in said
        assert abs(int(said.split()[4].replace(",", "")) - abs(hours) * 3600) <= 3
        assert "NTP" in fix

    def test_grpc_is_found_at_its_default_port(self, examine, monkeypatch):
        with Collector() as collector:
            monkeypatch.setattr(doctor, "_GRPC_PORT", collector.grpc_port)
            report = examine(collector.url, "--yes")
            assert report.code == 0
            assert collector.counts["grpc"].events == 1

    def test_missing_grpc_is_not_a_failure(self, examine, collector):
        report = examine(collector.url)
        ((status, said, _),) = report("grpc")
        assert (report.code, status) == (0, "skip")
        assert "nothing listens on port" in said


@pytest.mark.parametrize(
    ("sent_time", "status"),
    [(1000, "ok"), (999, "ok"), (1003, "ok"), (997, "ok"), (990, "warn"), (1010, "warn"), (0, "warn")],
)
def test_clock(monkeypatch, sent_time, status):
    monkeypatch.setattr("raccoon_fast.cli.doctor.probes.time", SimpleNamespace(time=lambda: 1001.5))
    assert check_clock(Response(Status.SUCCESS, Code.OK, sent_time), 999.5).status == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no server: give its URL"),
        (["localhost:8080"], "url must name the protocol: http://localhost:8080"),
        (["http://a/#b"], "url must not have a #fragment"),
        (["http://a", "--ca", __file__], "does not contain valid PEM"),
    ],
)
def test_wrong_usage(capsys, monkeypatch, arguments, message):
    monkeypatch.delenv("RACCOON_FAST_URL", raising=False)
    assert main(["doctor", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
