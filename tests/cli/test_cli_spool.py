"""`raccoon-fast spool`, the real command on spools left by real producers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from patience import patient

from raccoon_fast import RAW, Producer
from raccoon_fast.cli import main, replay
from raccoon_fast.collector import Collector
from raccoon_fast.spool.store import Spool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")

EVENTS = [(f"t{number % 3}", b"%d" % number) for number in range(90)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.spool"


@pytest.fixture
def new_producer(path, unused_port):
    """Producers with nobody to send to; what they hold is in the spool once they are closed."""
    made = []

    def new(url=f"http://127.0.0.1:{unused_port}", **options):
        made.append(Producer(url, serializer=RAW, spool=path, logger=None, batch_events=10, **options))
        return made[-1]

    yield new
    for producer in made:
        producer.close(timeout=0)


@pytest.fixture
def left(path, new_producer):
    """A spool of a producer that is no more; the guids of its batches."""
    producer = new_producer()
    receipts = producer.emit_many(EVENTS)
    assert producer.close(timeout=0.01).total.spooled == 90
    return [receipt.req_guid for receipt in receipts]


@pytest.fixture
def living(new_producer):
    """A producer that has three events in the spool and lives."""
    producer = new_producer(durable=True)
    producer.emit_many([("mine", b"m")] * 3)
    producer.flush(0)
    deadline_s = time.monotonic() + patient(10)
    while not producer._spool.nbytes:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    return producer


class TestLs:
    def test_owners_types_bytes_and_ages(self, command, path, left, living):
        # Whoever lives takes over what the dead left.
        run = command("spool", "ls", path, "--json")
        assert (run.returncode, run.stderr) == (0, "")
        (owner,) = json.loads(run.stdout)["owners"]
        assert (owner["owner"], owner["alive"]) == (living.spool_owner, True)
        assert owner["events"] == {"mine": 3, "t0": 30, "t1": 30, "t2": 30}
        assert owner["bytes"] > sum(len(data) for _, data in EVENTS)
        living.close(timeout=0)
        run = command("spool", "ls", path, "--json")
        (owner,) = json.loads(run.stdout)["owners"]
        assert (owner["alive"], owner["records"]) == (False, 10)
        assert 0 < owner["newest_s"] <= owner["oldest_s"] < 60

    def test_tables(self, command, path, left):
        run = command("spool", "ls", path)
        header, owner, types, *rows = run.stdout.splitlines()
        assert header.split() == ["owner", "state", "records", "events", "bytes", "oldest", "newest"]
        assert owner.split()[1:4] == ["dead", "9", "90"]
        assert types.split() == ["owner", "type", "events"]
        assert sorted(row.split()[1:] for row in rows) == [["t0", "30"], ["t1", "30"], ["t2", "30"]]

    def test_empty(self, command, collector, path, new_producer):
        producer = new_producer(collector.url, durable=True)
        producer.emit("a", b"x")
        assert producer.close().total.acked == 1
        assert command("spool", "ls", path).stdout == "empty\n"

    def test_quarantine_and_files_set_aside(self, command, path, left, new_producer):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE records SET body = x'00' WHERE req_guid = '{left[0]}'")
        db.close()
        path.with_name(f"{path.name}.damaged-20260131T120000Z-7").write_text("x")
        with Collector() as collector:
            command("spool", "replay", path, "--url", collector.url)
        out = command("spool", "ls", path).stdout
        assert "quarantine" in out
        assert "quarantine: 1 record; reason: its checksum does not hold" in out
        assert "a file that could not be read is kept as" in out
        found = json.loads(command("spool", "ls", path, "--json").stdout)
        assert (found["quarantine"]["records"], len(found["set_aside"])) == (1, 1)
        run = command("spool", "drop", path, "--quarantine", "--yes")
        assert (run.returncode, run.stdout) == (0, "dropped the quarantine, 1 record\n")
        assert command("spool", "drop", path, "--quarantine").stdout == "the quarantine is empty\n"


class TestVerify:
    def test_all_is_well(self, command, path, left):
        run = command("spool", "verify", path)
        assert (run.returncode, run.stdout, run.stderr) == (0, "9 records, 0 faults\n", "")

    def test_damage(self, command, path, left):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE records SET types = '{{}}' WHERE req_guid = '{left[4]}'")
        db.close()
        run = command("spool", "verify", path)
        assert run.returncode == 1
        fault, total = run.stdout.splitlines()
        assert f"request {left[4]}: its checksum does not hold" in fault
        assert total == "9 records, 1 fault"
        assert len(json.loads(command("spool", "verify", path, "--json").stdout)["damage"]) == 1


class TestReplay:
    @pytest.mark.parametrize("protocol", ["rest", "websocket", "grpc"])
    def test_remaining_records_are_sent_with_their_guids(self, command, collector, path, left, protocol):
        urls = {"rest": collector.url, "websocket": collector.ws_url, "grpc": f"grpc://{collector.grpc_target}"}
        run = command("spool", "replay", path, "--url", urls[protocol], "--json")
        assert (run.returncode, run.stderr) == (0, "")
        found = json.loads(run.stdout)
        assert (found["acknowledged"], found["failed"], found["spooled"]) == (90, {}, 0)
        collector.wait_for(90)
        assert Counter((event.type, event.data) for event in collector.events) == Counter(EVENTS)
        assert Counter(request.req_guid for request in collector.requests) == Counter(left)
        assert command("spool", "ls", path).stdout == "empty\n"
        again = command("spool", "replay", path, "--url", urls[protocol])
        assert again.returncode == 0
        assert again.stdout.splitlines()[0] == "acknowledged       0"

    def test_adopted_records_are_waited_for(self, collector, path, left, monkeypatch, capsys):
        told = Spool.pop_lost

        def tell_late(spool):
            time.sleep(0.3)  # the file says that it is ours, the ledger does not know it yet
            return told(spool)

        monkeypatch.setattr(Spool, "pop_lost", tell_late)
        assert main(["spool", "replay", str(path), "--url", collector.url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["acknowledged"] == 90

    def test_a_living_owner_is_left_its_own(self, command, collector, path, living):
        run = command("spool", "replay", path, "--url", collector.url)
        assert (run.returncode, collector.request_count) == (0, 0)
        assert living.stats().total.accepted == 3
        (owner,) = json.loads(command("spool", "ls", path, "--json").stdout)["owners"]
        assert (owner["alive"], owner["events"]) == (True, {"mine": 3})

    def test_unacknowledged_records_stay(self, path, left, unused_port, monkeypatch, capsys):
        monkeypatch.setattr(replay, "PATIENCE_S", 0.3)
        assert main(["spool", "replay", str(path), "--url", f"ws://127.0.0.1:{unused_port}", "--json"]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["acknowledged"] == 0
        assert "Connection refused" in err
        assert err.endswith(
            "raccoon-fast spool: gave up because nothing was acknowledged for 0.3 s; left in the spool: 90 events\n"
        )
        monkeypatch.setattr(replay, "PATIENCE_S", 30.0)
        with Collector() as collector:
            assert main(["spool", "replay", str(path), "--url", collector.url]) == 0
            assert {request.req_guid for request in collector.requests} == set(left)

    def test_a_server_that_cannot_publish_loses_nothing(self, path, left, monkeypatch, capsys):
        monkeypatch.setattr(replay, "PATIENCE_S", 1.0)
        with Collector(acks="sync", publish_failure_rate=1.0) as collector:
            assert main(["spool", "replay", str(path), "--url", collector.url, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["failed"] == {}
        main(["spool", "ls", str(path), "--json"])
        (owner,) = json.loads(capsys.readouterr().out)["owners"]
        assert owner["events"] == {"t0": 30, "t1": 30, "t2": 30}

    def test_damage_is_reported(self, command, collector, path, left):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE records SET body = x'00' WHERE req_guid = '{left[0]}'")
        db.close()
        run = command("spool", "replay", path, "--url", collector.url, "--json")
        assert run.returncode == 1
        found = json.loads(run.stdout)
        assert (found["acknowledged"], found["failed"]) == (80, {"damaged": 10})

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted(self, path, left, monkeypatch, capsys, number, code):
        monkeypatch.setattr(replay, "GRACE_S", 0.1)
        with Collector() as collector:
            collector.faults.drop_acks()

            def interrupt():
                collector.wait_for(10)
                os.kill(os.getpid(), number)

            thread = threading.Thread(target=interrupt)
            thread.start()
            assert main(["spool", "replay", str(path), "--url", collector.ws_url]) == code
            thread.join()
        err = capsys.readouterr().err
        assert err == f"raccoon-fast spool: ended by {number.name}; left in the spool: 90 events\n"


class TestDrop:
    def test_asks_for_yes_where_nobody_can_be_asked(self, command, path, left):
        run = command("spool", "drop", path, "--type", "t1")
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == (
            "raccoon-fast spool: Permanently drop 30 events (30 of type t1) of dead owners? "
            "There is no terminal to ask on: pass --yes\n"
        )

    @pytest.mark.parametrize(("answer", "code", "said"), [(b"y\n", 0, b"dropped 30 "), (b"\n", 1, b"nothing was ")])
    def test_asks(self, command, path, left, answer, code, said):
        pty = pytest.importorskip("pty", reason="there is no pseudo-terminal here")
        ours, theirs = pty.openpty()
        process = command.start("spool", "drop", path, "--type", "t1", stdin=theirs)
        os.close(theirs)
        os.write(ours, answer)
        out, err = process.communicate(timeout=patient(40))
        os.close(ours)
        assert (process.returncode, out[: len(said)]) == (code, said)
        assert b"of dead owners? [y/N] " in err

    def test_filters(self, command, path, left):
        assert command("spool", "drop", path, "--older-than", "1d", "--yes").stdout.startswith("nothing to drop")
        assert command("spool", "drop", path, "--owner", "0" * 32, "--yes").stdout.startswith("nothing to drop")
        assert command("spool", "drop", path, "--type", "t2", "--yes").stdout == "dropped 30 events (30 of type t2)\n"
        (owner,) = json.loads(command("spool", "ls", path, "--json").stdout)["owners"]
        assert owner["events"] == {"t0": 30, "t1": 30}
        run = command("spool", "drop", path, "--owner", owner["owner"][:8], "--yes")
        assert run.stdout == "dropped 60 events (30 of type t0, 30 of type t1)\n"
        assert command("spool", "ls", path).stdout == "empty\n"

    def test_a_living_owner_is_left_its_own(self, command, path, living):
        run = command("spool", "drop", path, "--yes")
        assert (run.returncode, run.stdout) == (0, "nothing to drop: no matching events belong to dead owners\n")
        assert living.stats().total.accepted == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["drop", "--older-than", "soon"], "--older-than: must be a number of s, m, h or d, such as 12h, not 'soon'"),
        (["drop", "--owner", "me"], "--owner: must be an owner as `spool ls` shows it"),
        (["drop", "--quarantine", "--type", "t0"], "--quarantine drops the whole quarantine"),
        (["replay"], "no server: give its URL on the command line, or set RACCOON_FAST_URL"),
        (["replay", "--url", "localhost:1"], "url must name the protocol: http://localhost:1"),
    ],
)
def test_wrong_usage(command, path, left, options, words):
    run = command("spool", options[0], path, *options[1:])
    assert run.returncode == 2
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("action", [["ls"], ["verify"], ["replay", "--url", "http://localhost:1"], ["drop", "--yes"]])
def test_a_file_that_is_not_a_spool_is_left_alone(command, tmp_path, action):
    other = tmp_path / "other"
    other.write_text("mine" * 1000)
    run = command("spool", *action, other)
    assert (run.returncode, run.stderr) == (1, f"raccoon-fast spool: {other} is not a spool\n")
    assert other.read_text() == "mine" * 1000
    run = command("spool", *action, "none")
    assert (run.returncode, run.stderr) == (2, "raccoon-fast spool: no such spool: none\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other"]


def test_a_reader_that_leaves_early(command, path, left):
    process = subprocess.Popen(
        f"{sys.executable} -m raccoon_fast.cli spool ls {path} | head -1",
        shell=True,
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=patient(40))
    assert out.startswith(b"owner")
    assert err == b""
