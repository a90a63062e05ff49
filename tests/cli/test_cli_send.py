"""`raccoon-fast send`, the real command against a real collector."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import trustme
from patience import patient

from raccoon_fast.cli import main, send
from raccoon_fast.collector import Collector

LINES = [b'{"n": %d, "kind": "k%d", "text": "\xc3\xa9"}' % (number, number % 3) for number in range(2500)]
TEXT = b"".join(line + b"\n" for line in LINES)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(TEXT)
    return path


@pytest.fixture
def impatient(monkeypatch):
    """The command, in this process, gives a server up soon."""
    monkeypatch.setattr(send, "PATIENCE_S", 0.5)
    monkeypatch.setattr(send, "GRACE_S", 0.1)


def address(collector, protocol):
    return {"rest": collector.url, "websocket": collector.ws_url, "grpc": f"grpc://{collector.grpc_target}"}[protocol]


def arrived(collector, count):
    """What was received, in the order of the file: requests may have come in any."""
    collector.wait_for(count)
    return sorted((event.data for event in collector.events), key=lambda data: json.loads(data)["n"])


class TestDelivery:
    @pytest.mark.parametrize(
        ("protocol", "options"),
        [("rest", []), ("rest", ["--wire", "json"]), ("websocket", []), ("grpc", ["--batch-events", "999"])],
    )
    def test_every_line_arrives_as_it_is(self, command, collector, file, protocol, options):
        run = command("send", file, "--url", address(collector, protocol), "--type", "page", "--json", *options)
        assert (run.returncode, run.stderr) == (0, "")
        assert arrived(collector, 2500) == LINES
        assert {(event.type, event.protocol) for event in collector.events} == {("page", protocol)}
        most = 999 if protocol == "grpc" else 1000
        sizes = Counter(event.req_guid for event in collector.events)
        assert sorted(sizes.values()) == [2500 - 2 * most, most, most]
        summary = json.loads(run.stdout)
        assert (summary["events"], summary["acknowledged"], summary["requests"]) == (2500, 2500, 3)
        assert summary["bytes"] == sum(map(len, LINES))
        assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["max"] < summary["seconds"] * 1000

    def test_gzip_from_stdin_with_types_of_its_own(self, command, collector):
        run = command("send", "-", "--url", collector.ws_url, "--type-field", "kind", stdin=gzip.compress(TEXT))
        assert (run.returncode, run.stderr) == (0, "")
        assert arrived(collector, 2500) == LINES
        assert all(event.type == json.loads(event.data)["kind"] for event in collector.events)
        assert run.stdout.splitlines()[0] == "events        2,500 in 3 requests"

    def test_identity_and_headers_are_sent(self, command, collector):
        options = ["--user-id", "me", "--group", "us", "--header", "X-Extra: yes: really"]
        run = command("send", "-", "--url", collector.url, "--type", "t", *options, stdin=b"1")
        assert run.returncode == 0
        (request,) = collector.requests
        assert (request.connection_id, request.group, request.headers["x-extra"]) == ("me", "us", "yes: really")

    @pytest.mark.parametrize("stdin", [b"", b"\n"])
    def test_nothing_to_send(self, command, collector, stdin):
        run = command("send", "-", "--url", collector.url, "--type", "t", "--json", stdin=stdin)
        assert (run.returncode, json.loads(run.stdout)["events"], collector.request_count) == (0, 0, 0)

    def test_files_after_an_empty_one_are_sent(self, command, collector, tmp_path):
        (tmp_path / "empty.jsonl").touch()
        (tmp_path / "two.jsonl").write_bytes(b"".join(line + b"\n" for line in LINES[:2]))
        run = command("send", "empty.jsonl", "two.jsonl", "--url", collector.url, "--type", "t")
        assert (run.returncode, run.stderr) == (0, "")
        assert arrived(collector, 2) == LINES[:2]

    def test_a_pipe_that_pauses_holds_nothing_back(self, command, collector):
        process = command.start("send", "-", "--url", collector.url, "--type", "t", stdin=subprocess.PIPE, bufsize=0)
        process.stdin.write(b"1\n2\n")
        collector.wait_for(2)
        process.stdin.write(b"3\n")
        collector.wait_for(3)
        process.communicate()
        assert process.returncode == 0

    def test_a_reader_that_leaves_early(self, command, collector):
        reading, writing = os.pipe()
        os.close(reading)
        process = command.start(
            "send", "-", "--url", collector.url, "--type", "t", stdin=subprocess.PIPE, stdout=writing
        )
        os.close(writing)
        _, err = process.communicate(b"1")
        assert (process.returncode, err) == (1, b"")


class TestBadLines:
    BAD = b'{"n":0}\n{"n":\n\n{"n":1}\n[\n'

    def test_the_first_bad_line_ends_the_run_after_the_lines_before_it(self, command, collector):
        run = command("send", "-", "--url", collector.url, "--type", "t", stdin=self.BAD)
        assert run.returncode == 2
        assert run.stderr.startswith("raccoon-fast send: stdin:2: not JSON: ")
        assert run.stderr.count("\n") == 1
        assert "--skip-bad" in run.stderr
        assert arrived(collector, 1) == [b'{"n":0}']

    def test_skipped(self, command, collector, tmp_path):
        (tmp_path / "bad.jsonl").write_bytes(self.BAD)
        run = command("send", "bad.jsonl", "--url", collector.url, "--type", "t", "--skip-bad", "--json")
        assert run.returncode == 0
        assert [line.split(": ")[0] for line in run.stderr.splitlines()] == ["bad.jsonl:2", "bad.jsonl:5"]
        assert arrived(collector, 2) == [b'{"n":0}', b'{"n":1}']
        summary = json.loads(run.stdout)
        assert (summary["events"], summary["bad_lines"]) == (2, 2)

    def test_torn_gzip(self, command, collector, tmp_path):
        (tmp_path / "torn.gz").write_bytes(gzip.compress(TEXT)[:-8])
        run = command("send", "torn.gz", "--url", collector.url, "--type", "t", "--json")
        assert run.returncode == 2
        assert run.stderr == "raccoon-fast send: torn.gz: cannot be read past line 2500: the gzip data ends early\n"
        assert arrived(collector, 2500) == LINES


class TestPace:
    def test_a_rate_is_kept(self, command, collector):
        lines = b"".join(b'{"n":%d}\n' % number for number in range(40))
        run = command("send", "-", "--url", collector.url, "--type", "t", "--rate", 40, "--json", stdin=lines)
        assert run.returncode == 0
        assert json.loads(run.stdout)["seconds"] > 0.8  # a tenth of a second's goes at once
        assert set(Counter(event.req_guid for event in collector.events).values()) == {4}
        assert len(arrived(collector, 40)) == 40

    def test_a_signal_ends_the_wait_for_the_rate(self, command, collector):
        lines = b"1\n" * 40
        process = command.start(
            "send", "-", "--url", collector.url, "--type", "t", "--rate", "0.1", stdin=subprocess.PIPE
        )
        process.stdin.write(lines)
        process.stdin.flush()
        collector.wait_for(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert b"nothing after line 1 of stdin was sent" in err
        assert collector.event_count == 1


class TestFromLine:
    def test_only_lines_from_there_on_are_sent(self, command, collector, file):
        run = command("send", file, "--url", collector.url, "--type", "t", "--from-line", 2499)
        assert (run.returncode, run.stderr) == (0, "")
        assert arrived(collector, 2) == LINES[2498:]

    def test_where_a_run_has_ended(self, command, collector, tmp_path):
        (tmp_path / "bad.jsonl").write_bytes(b'{"n":0}\n{"n":\n{"n":1}\n')
        options = ["bad.jsonl", "--url", collector.url, "--type", "t"]
        assert command("send", *options).returncode == 2
        assert command("send", *options, "--from-line", 3).returncode == 0
        assert arrived(collector, 2) == [b'{"n":0}', b'{"n":1}']

    def test_a_file_that_ends_before_the_line(self, command, collector, file):
        run = command("send", file, "--url", collector.url, "--type", "t", "--from-line", 2501)
        assert (run.returncode, collector.event_count) == (2, 0)
        assert run.stderr == (f"raccoon-fast send: {file} ends at line 2500: there is no line 2501 to start at\n")

    def test_an_abandoned_run_says_where_to_continue(self, command, unused_port, file):
        url = f"http://127.0.0.1:{unused_port}"
        run = command("send", file, "--url", url, "--type", "t", "--max-attempts", 1, "--in-flight", 1)
        assert run.returncode == 1
        assert "; continue with --from-line " in run.stderr


class TestDryRun:
    def test_prints_what_would_be_sent(self, command, file, collector):
        run = command("send", file, "--url", collector.url, "--type-field", "kind", "--dry-run", "--json")
        assert (run.returncode, run.stderr, collector.request_count) == (0, "", 0)
        found = json.loads(run.stdout)
        assert found["types"] == dict(Counter(json.loads(line)["kind"] for line in LINES))
        assert (found["events"], found["requests"], found["bytes"]) == (2500, 3, sum(map(len, LINES)))
        assert (found["bad_lines"], found["dry_run"]) == (0, True)

    def test_needs_no_server_and_escapes_the_types(self, command):
        line = json.dumps({"kind": "\x1b[2Jpage\u202e\n"}).encode()
        run = command("send", "-", "--type-field", "kind", "--dry-run", stdin=line)
        assert run.returncode == 0
        assert run.stdout.splitlines() == [
            "would send                1 event in 1 request",
            f"bytes                     {len(line)}",
            r"type \x1b[2Jpage\u202e\n  1",
        ]

    @pytest.mark.parametrize(("options", "code"), [([], 2), (["--skip-bad"], 0)])
    def test_names_every_bad_line(self, command, options, code):
        run = command("send", "-", "--type", "t", "--dry-run", *options, stdin=TestBadLines.BAD)
        assert run.returncode == code
        assert [line.split(": ")[0] for line in run.stderr.splitlines()] == ["stdin:2", "stdin:5"]
        assert run.stdout.splitlines()[0] == "would send  2 events in 1 request"


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"id,name\n1,home\n", "it looks like CSV: "),
            (b'"id";"name"\n', "it looks like CSV: "),
            (b'[\n{"a":1},\n{"a":2}\n]\n', "it looks like a JSON array: convert it to lines"),
            (b'{\n  "a": 1\n}\n', "it looks like JSON over several lines"),
            (b"PAR1\x15\x04\n", "it looks like Parquet: "),
            (b"\xef\xbb\xbf{}\n", "it looks like JSON after a byte order mark"),
            ("{}".encode("utf-16"), "it looks like UTF-16"),
            (b"\x28\xb5\x2f\xfd\n", "it looks like compressed with zstd"),
        ],
    )
    def test_a_hint(self, command, collector, data, words):
        run = command("send", "-", "--url", collector.url, "--type", "t", stdin=data)
        assert (run.returncode, collector.event_count) == (2, 0)
        assert run.stderr.startswith("raccoon-fast send: stdin:1: not JSON: ")
        assert words in run.stderr
        assert run.stderr.count("\n") == 1

    def test_an_array_of_objects(self, command, collector):
        array = b'[{"a":1},{"a":2}]\n'
        run = command("send", "-", "--url", collector.url, "--type-field", "a", stdin=array)
        assert run.returncode == 2
        assert "it looks like a JSON array" in run.stderr
        run = command("send", "-", "--url", collector.url, "--type", "t", stdin=array)
        assert run.returncode == 0
        assert "stdin has one line, which was sent as one event; it looks like a JSON array" in run.stderr
        run = command("send", "-", "--url", collector.url, "--type", "t", stdin=array * 2)
        assert (run.returncode, run.stderr) == (0, "")

    def test_broken_json_gets_no_hint(self, command, collector):
        run = command("send", "-", "--url", collector.url, "--type", "t", stdin=b"nonsense\n")
        assert "looks like" not in run.stderr


class TestToken:
    def test_is_a_bearer_token(self, command, collector):
        run = command("send", "-", "--url", collector.url, "--type", "t", "--token", "s3cret", stdin=b"1")
        assert run.returncode == 0
        assert collector.requests[0].headers["authorization"] == "Bearer s3cret"

    def test_takes_precedence_over_the_environment(self, command, collector):
        options = ["--url", collector.url, "--type", "t", "--token", "mine"]
        assert command("send", "-", *options, stdin=b"1", RACCOON_FAST_AUTH_TOKEN="theirs").returncode == 0
        assert collector.requests[0].headers["authorization"] == "Bearer mine"

    def test_is_not_given_twice(self, command, collector):
        options = [
            "--url",
            collector.url,
            "--type",
            "t",
            "--token",
            "s3cret",
            "--header",
            "Authorization: Basic s3cret",
        ]
        run = command("send", "-", *options, stdin=b"1")
        assert run.returncode == 2
        assert "--token" in run.stderr
        assert "s3cret" not in run.stderr


class TestFailures:
    def test_failed_events_are_kept_and_can_be_sent_again(self, command, file, tmp_path):
        with Collector(acks="sync", publish_failure_rate=1.0) as refusing:
            options = ["--max-attempts", "1", "--failed", "failed.jsonl"]
            run = command("send", file, "--url", refusing.url, "--type", "t", "--json", *options)
        assert run.returncode == 1
        summary = json.loads(run.stdout)
        assert (summary["events"], summary["acknowledged"], sum(summary["failed"].values())) == (2500, 0, 2500)
        assert "INTERNAL_ERROR" in str(summary["failed"])
        assert run.stderr == (
            "raccoon-fast send: not acknowledged: 2,500 of 2,500 events; their lines are in failed.jsonl\n"
        )
        assert sorted((tmp_path / "failed.jsonl").read_bytes().splitlines()) == sorted(LINES)
        with Collector() as healthy:
            assert command("send", "failed.jsonl", "--url", healthy.ws_url, "--type", "t").returncode == 0
            assert arrived(healthy, 2500) == LINES

    def test_a_part_fails(self, command, file, tmp_path):
        (tmp_path / "failed.jsonl").write_bytes(b"0\n")
        with Collector(acks="sync") as collector:
            collector.faults.fail_publish(times=40)
            options = ["--max-attempts", "1", "--batch-events", "10", "--in-flight", "64", "--failed", "failed.jsonl"]
            run = command("send", file, "--url", collector.url, "--type", "t", "--json", *options)
            published = {event.data for event in collector.events}
        failed = (tmp_path / "failed.jsonl").read_bytes().splitlines()
        summary = json.loads(run.stdout)
        assert run.returncode == 1
        assert failed[0] == b"0"
        assert not published & set(failed[1:])
        assert published | set(failed[1:]) <= set(LINES)
        assert (len(published), len(failed) - 1) == (summary["acknowledged"], sum(summary["failed"].values()))

    def test_no_server_listens(self, file, tmp_path, unused_port, impatient, capsys):
        failed = tmp_path / "failed.jsonl"
        options = ["--batch-events", "100", "--in-flight", "2", "--max-attempts", "1", "--failed", str(failed)]
        code = main(["send", str(file), "--url", f"ws://127.0.0.1:{unused_port}", "--type", "t", *options])
        out, err = capsys.readouterr()
        assert code == 1
        assert "cannot connect to ws://127.0.0.1" in out
        first, given_up, _ = err.splitlines()
        assert "cannot connect to ws://127.0.0.1" in first
        assert "gave up because the server cannot be reached: cannot connect to" in given_up
        lines = failed.read_bytes().splitlines()
        assert f"(run raccoon-fast doctor to find out why): nothing after line {len(lines)} of" in given_up
        assert sorted(lines) == sorted(LINES[: len(lines)])

    def test_gives_up_on_a_server_that_refuses_all(self, file, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(send, "GIVE_UP_AFTER", 4)
        failed = tmp_path / "failed.jsonl"
        with Collector(acks="sync", publish_failure_rate=1.0) as refusing:
            options = ["--max-attempts", "1", "--batch-events", "10", "--in-flight", "2", "--failed", str(failed)]
            assert main(["send", str(file), "--url", refusing.url, "--type", "t", *options]) == 1
        lines = failed.read_bytes().splitlines()
        assert 40 <= len(lines) <= 60
        assert (
            f"gave up because 4 requests in a row failed: nothing after line {len(lines)} of" in capsys.readouterr().err
        )
        assert sorted(lines) == sorted(LINES[: len(lines)])

    def test_gives_up_on_a_server_that_takes_nothing(self, file, tmp_path, impatient, capsys):
        failed = tmp_path / "failed.jsonl"
        with Collector() as collector:
            collector.faults.status(401)
            options = ["--in-flight", "2", "--failed", str(failed), "--json"]
            code = main(["send", str(file), "--url", collector.url, "--type", "t", *options])
        out, err = capsys.readouterr()
        assert code == 1
        assert "gave up because the server failed for 0.5 s: " in err
        assert "401" in err
        assert sum(json.loads(out)["failed"].values()) == 2000
        assert sorted(failed.read_bytes().splitlines()) == sorted(LINES[:2000])

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("{rest}/nope", "answered 404"),
            ("{websocket}/nope", "answered 404"),
            ("http://no.such.invalid", "cannot resolve no.such.invalid"),
            ("grpc://no.such.invalid", "cannot resolve no.such.invalid"),
            ("https://{host}", "WRONG_VERSION_NUMBER"),
            ("wss://{host}", "WRONG_VERSION_NUMBER"),
            ("grpcs://{grpc}", "WRONG_VERSION_NUMBER"),
            ("grpc://{host}", "does not speak HTTP/2"),
            ("http://{grpc}", "did not answer in HTTP/1.1|was lost before the answer"),
            ("ws://{grpc}", "its answer is not valid HTTP/1.1"),
        ],
    )
    def test_the_cause_is_printed_first_and_is_the_reason(self, collector, file, impatient, capsys, url, said):
        places = {"rest": collector.url, "websocket": collector.ws_url, "grpc": collector.grpc_target}
        url = url.format(host=collector.url.partition("//")[2], **places)
        assert main(["send", str(file), "--url", url, "--type", "t", "--json"]) == 1
        out, err = capsys.readouterr()
        assert re.search(f"^raccoon-fast send: .*({said}).*; trying again", err)
        assert re.search(f"gave up because .*({said})", err)
        for reason in json.loads(out)["failed"]:
            assert re.search(rf"({said}).*delivered\)$", reason)

    def test_a_failure_is_printed_when_it_happens(self, command, file, pki):
        with Collector(tls_cert=pki["cert"], tls_key=pki["cert"]) as collector:
            process = command.start("send", file, "--url", collector.url, "--type", "t")
            assert b"cannot trust" in process.stderr.readline()
            assert process.poll() is None  # it waits for the server to be mended
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate()
            assert b"cannot trust" in out

    def test_a_failure_that_was_fixed_is_not_the_final_reason(self, file, impatient, monkeypatch, capsys):
        """The server answers 404 first, then acknowledges, and is then busy until the end."""

        class ThenBusy(send.Summary):
            def count(self, settled, failure=""):
                super().count(settled, failure)
                if settled.error is None:
                    collector.faults.status(503)

        monkeypatch.setattr(send, "Summary", ThenBusy)
        monkeypatch.setattr(send, "PATIENCE_S", 3.0)
        with Collector() as collector:
            collector.faults.status(404, times=1)
            assert main(["send", str(file), "--url", collector.url, "--type", "t", "--in-flight", "1", "--json"]) == 1
        out, err = capsys.readouterr()
        assert err.count("answered 404") == 1
        summary = json.loads(out)
        assert summary["acknowledged"] == 1000
        assert "answered 503" in str(summary["failed"])
        assert "answered 404" not in str(summary["failed"])

    def test_a_line_too_large_for_grpc_fails_alone(self, command, collector, tmp_path):
        (tmp_path / "large.jsonl").write_bytes(b'0\n"' + b"x" * (5 << 20) + b'"\n1\n')
        run = command("send", "large.jsonl", "--url", f"grpc://{collector.grpc_target}", "--type", "t", "--json")
        assert run.returncode == 1
        collector.wait_for(2)
        assert sorted(event.data for event in collector.events) == [b"0", b"1"]
        assert "the most that fits into buffer_bytes and into a request to this server" in run.stdout

    def test_failed_must_not_be_the_input(self, command, file):
        run = command("send", file, "--url", "http://localhost:1", "--type", "t", "--failed", "events.jsonl")
        assert (run.returncode, run.stdout) == (2, "")
        assert "--failed events.jsonl is the input file" in run.stderr
        assert file.read_bytes() == TEXT

    def test_failed_cannot_be_written(self, command, file):
        run = command("send", file, "--url", "http://localhost:1", "--type", "t", "--failed", "no/such/folder")
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == "raccoon-fast send: no/such/folder: No such file or directory\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
    def test_failed_is_full(self, file, unused_port, impatient, capsys):
        options = ["--max-attempts", "1", "--failed", "/dev/full", "--json"]
        assert main(["send", str(file), "--url", f"http://127.0.0.1:{unused_port}", "--type", "t", *options]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["failed"]
        assert "/dev/full: No space left on device; not every failed line is in it" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")
class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_stops_reading_and_sums_up(self, command, collector, number, code):
        process = command.start("send", "-", "--url", collector.url, "--type", "t", "--json", stdin=subprocess.PIPE)
        process.stdin.write(TEXT)
        process.stdin.flush()
        collector.wait_for(2500)
        process.send_signal(number)
        out, err = process.stdout.read(), process.stderr.read()
        assert process.wait(patient(10)) == code
        assert json.loads(out)["acknowledged"] == 2500
        assert err.decode() == f"raccoon-fast send: ended by {number.name}: nothing after line 2500 of stdin was sent\n"

    def test_requests_in_flight_get_a_grace_period_and_are_then_kept(self, file, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(send, "GRACE_S", 0.2)
        failed = tmp_path / "failed.jsonl"
        with Collector() as collector:
            collector.faults.drop_acks()

            def interrupt():
                collector.wait_for(2000)
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            options = ["--in-flight", "2", "--failed", str(failed), "--json"]
            code = main(["send", str(file), "--url", collector.url, "--type", "t", *options])
            thread.join()
        out, err = capsys.readouterr()
        assert code == 130
        assert list(json.loads(out)["failed"].values()) == [2000]
        assert "(possibly delivered)" in out
        assert sorted(failed.read_bytes().splitlines()) == sorted(LINES[:2000])
        assert "nothing after line 2000 of" in err

    def test_a_second_signal_ends_the_run_at_once(self, command, file):
        with Collector() as collector:
            collector.faults.drop_acks()
            process = command.start("send", file, "--url", collector.ws_url, "--type", "t")
            collector.wait_for(2500)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=patient(8))
        assert (process.returncode, out, err) == (130, b"", b"")  # the end of the grace period says what is lost


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    files = {"ca": folder / "ca.pem", "cert": folder / "server.pem", "client": folder / "client.pem"}
    authority.cert_pem.write_to_path(files["ca"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files["cert"])
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(files["client"])
    return files


class TestTLS:
    @pytest.mark.parametrize("protocol", ["rest", "websocket", "grpc"])
    def test_mutual(self, command, pki, protocol):
        with Collector(tls_cert=pki["cert"], tls_key=pki["cert"], tls_client_ca=pki["ca"]) as collector:
            url = address(collector, protocol).replace("grpc:", "grpcs:")
            run = command(
                "send", "-", "--url", url, "--type", "t", "--ca", pki["ca"], "--cert", pki["client"], stdin=b"1"
            )
            assert (run.returncode, run.stderr) == (0, "")
            collector.wait_for(1)

    def test_a_server_that_is_not_trusted_gets_nothing(self, pki, file, impatient, capsys):
        with Collector(tls_cert=pki["cert"], tls_key=pki["cert"]) as collector:
            assert main(["send", str(file), "--url", collector.url, "--type", "t"]) == 1
            assert "cannot trust" in capsys.readouterr().out
            assert collector.request_count == 0


MEASURED = """
import re, resource, sys
from pathlib import Path
from raccoon_fast.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status")  # ru_maxrss is inherited over exec on Linux
peak = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.exists() else (
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(peak, file=sys.stderr)
sys.exit(code)
"""


class TestMemory:
    @pytest.mark.parametrize("packed", [False, True])
    def test_does_not_grow_with_the_file(self, command, tmp_path, packed):
        pytest.importorskip("resource", reason="the highest memory use is not known here")
        path = tmp_path / "large"
        chunk = b"".join(b'{"n":%d,"text":"%s"}\n' % (number, b"x" * 260) for number in range(4000))
        peaks = []
        with Collector(sink="null") as collector:
            for copies in (10, 100):
                with gzip.open(path, "wb", 1) if packed else path.open("wb") as out:
                    for _ in range(copies):
                        out.write(chunk)
                arguments = ["send", str(path), "--url", collector.url, "--type", "t", "--json"]
                run = subprocess.run(
                    [sys.executable, "-c", MEASURED, *arguments],
                    env=command.environment,
                    capture_output=True,
                    check=True,
                )
                assert json.loads(run.stdout)["acknowledged"] == copies * 4000
                peaks.append(int(run.stderr))
        assert peaks[1] - peaks[0] < 16 * 1024, f"peaks of 11 MB and 110 MB of events: {peaks} KiB"
