"""The command's output on every kind of terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from patience import patient

from raccoon_fast import RAW, Producer
from raccoon_fast.texts import counted, shown

NARROW = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
LOUD = "s\u00e9ance \u2603 \x1b[31m"


@pytest.mark.parametrize("environment", NARROW, ids=lambda one: next(iter(one.values())))
class TestNarrowTerminals:
    def test_bench(self, command, collector, environment):
        run = command("bench", collector.url, "--rate", 200, "--seconds", 0.2, **environment)
        assert (run.returncode, run.stderr) == (0, "")
        assert "s/event" in run.stdout
        if environment.get("PYTHONIOENCODING") != "cp1252":
            assert "us/event" in run.stdout
            assert re.search("[#=]", run.stdout)

    def test_types_of_any_text(self, command, collector, environment):
        line = json.dumps({"kind": LOUD}).encode()
        run = command("send", "-", "--type-field", "kind", "--dry-run", stdin=line, **environment)
        assert run.returncode == 0
        assert "\x1b" not in run.stdout
        assert r"\u2603 \x1b[31m" in run.stdout
        run = command("send", "-", "--type-field", "kind", "--dry-run", "--json", stdin=line, **environment)
        assert json.loads(run.stdout)["types"] == {LOUD: 1}

    def test_an_error(self, command, environment):
        run = command("send", "no-\u2603-file", "--type", "t", "--url", "http://h", **environment)
        assert run.returncode == 2
        assert "No such file" in run.stderr
        assert "Traceback" not in run.stderr

    @pytest.mark.parametrize("words", [["--help"], ["bench", "--help"], ["doctor", "--help"]])
    def test_help(self, command, environment, words):
        run = command(*words, **environment)
        assert (run.returncode, run.stderr) == (0, "")
        assert "usage" in run.stdout


class TestClosedStreams:
    def run(self, command, closing, *arguments):
        """Runs it to its end with streams that a shell closed."""
        program = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "raccoon_fast.cli"]
        options = {"env": command.environment, "capture_output": True, "timeout": patient(50)}
        return subprocess.run([*program, *map(str, arguments)], **options)

    @pytest.mark.parametrize(
        ("closing", "has_out", "has_err"),
        [
            ("<&-", True, True),
            (">&-", False, True),
            ("2>&-", True, False),
            (">&- 2>&-", False, False),
            ("<&- >&- 2>&-", False, False),
        ],
    )
    def test_send(self, command, collector, tmp_path, closing, has_out, has_err):
        file = tmp_path / "two.jsonl"
        file.write_bytes(b"1\n2\n")
        run = self.run(command, closing, "send", file, "--url", collector.url, "--type", "t")
        assert (run.returncode, bool(run.stdout), run.stderr) == (0, has_out, b"")
        assert [event.data for event in collector.events] == [b"1", b"2"]
        run = self.run(command, closing, "send", tmp_path / "none", "--url", collector.url, "--type", "t")
        assert (run.returncode, bool(run.stderr)) == (2, has_err)

    @pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
    @pytest.mark.parametrize(
        ("words", "code"), [(["--version"], 0), (["--help"], 0), (["completion", "bash"], 0), (["sned"], 2), ([], 2)]
    )
    def test_words(self, command, closing, words, code):
        run = self.run(command, closing, *words)
        assert run.returncode == code
        assert b"Traceback" not in run.stderr

    @pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-"])
    def test_doctor(self, command, collector, closing):
        run = self.run(command, closing, "doctor", collector.url)
        assert (run.returncode, run.stderr) == (0, b"")


def test_types_in_a_spool_are_escaped(command, tmp_path):
    path = tmp_path / "spool.db"
    with Producer("http://127.0.0.1:9", serializer=RAW, spool=path, logger=None) as producer:
        producer.emit(LOUD, b"x")
        producer.close(0.2)
    run = command("spool", "ls", path)
    assert run.returncode == 0
    assert "\x1b" not in run.stdout
    assert "s\u00e9ance" in run.stdout
    assert r"\x1b[31m" in run.stdout


def on_a_terminal(command, *arguments, **environment):
    """What it writes to a terminal."""
    ours, theirs = pty.openpty()
    env = {**command.environment, "TERM": "xterm", **environment}
    process = command.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # Linux: the last that held the terminal is gone
        pass
    os.close(ours)
    process.wait(40)
    return written.decode()


def test_doctor_has_colours_on_a_terminal(command, collector):
    written = on_a_terminal(command, "doctor", collector.url, "--yes")
    assert "\x1b[32mok\x1b[0m" in written
    assert re.search(r"\x1b\[32m\d+ ok\x1b\[0m, .*, 0 fail", written)  # a pure build is a warning
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[" not in on_a_terminal(command, "doctor", collector.url, "--yes", **environment)
    assert "\x1b" not in command("doctor", collector.url, "--yes").stdout


def test_numbers_and_nouns_agree():
    assert [counted(number, "event") for number in (0, 1, 2, 1500)] == [
        "0 events",
        "1 event",
        "2 events",
        "1,500 events",
    ]
    assert counted(2, "batch", "batches") == "2 batches"


def test_terminal_control_sequences_are_escaped():
    assert shown("plain \u00e9 \u2603") == "plain \u00e9 \u2603"
    assert shown("\x00\x1b\x7f\x9b\u2028\u202e\ud800") == r"\x00\x1b\x7f\x9b\u2028\u202e\ud800"
