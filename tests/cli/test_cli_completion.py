"""The completion scripts in real shells."""

from __future__ import annotations

import argparse
import os
import select
import shutil
import subprocess
import time

import pytest
from patience import patient

from raccoon_fast.cli import main
from raccoon_fast.cli.arguments import make_parser


def script_of(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    path = tmp_path / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def shell_or_skip(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def bash(tmp_path, capsys):
    program = shell_or_skip("bash")
    script = script_of("bash", tmp_path, capsys)
    (tmp_path / "a file.jsonl").touch()

    def complete(*words):
        """What is offered for the last of the words."""
        lines = [f"source {script}", "COMP_WORDS=(raccoon-fast " + " ".join(f"'{word}'" for word in words) + ")"]
        lines += [f"COMP_CWORD={len(words)}", "_raccoon_fast", 'printf "%s\\n" "${COMPREPLY[@]}"']
        run = subprocess.run(
            [program, "--norc", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert run.stderr == ""
        return run.stdout.splitlines()

    return complete


def levels(parser, *path):
    """Every subcommand with its parser."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from levels(subparser, *path, name)


LEVELS = dict(levels(make_parser()))


def shown(parser):
    return [action for action in parser._actions if action.help is not argparse.SUPPRESS]


@pytest.mark.parametrize("path", LEVELS)
def test_bash_offers_every_option_of_every_command(bash, path):
    flags = {flag for action in shown(LEVELS[path]) for flag in action.option_strings}
    assert set(bash(*path, "-")) == flags


def test_bash(bash):
    assert bash("s") == ["send", "spool"]
    assert bash("spool", "") == ["ls", "verify", "replay", "drop", "-h", "--help"]
    assert bash("send", "--wire", "") == ["proto", "json"]
    assert bash("send", "--wire", "j") == ["json"]
    assert bash("send", "--type", "") == [""]
    assert bash("send", "--type", "t", "--sk") == ["--skip-bad"]
    assert bash("send", "a") == ["a file.jsonl"]
    assert bash("send", "--ca", "a") == ["a file.jsonl"]
    assert bash("completion", "") == ["-h", "--help", "bash", "zsh", "fish"]
    assert bash("send", "--type", "spool", "l") == [""]


def test_fish(tmp_path, capsys):
    program = shell_or_skip("fish")
    script = script_of("fish", tmp_path, capsys)
    (tmp_path / "events.jsonl").touch()

    def complete(line):
        run = subprocess.run(
            [program, "--no-config", "-c", f"source {script}; complete -C '{line}'"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        assert run.stderr == ""
        return dict(line.partition("\t")[::2] for line in run.stdout.splitlines())

    assert complete("raccoon-fast sp") == {"spool": "list, check, send or delete the events in a spool"}
    assert set(complete("raccoon-fast spool ")) == {"ls", "verify", "replay", "drop"}
    assert set(complete("raccoon-fast send --wire ")) == {"proto", "json"}
    assert "events.jsonl" in complete("raccoon-fast send ev")
    assert "events.jsonl" in complete("raccoon-fast send --ca ev")
    assert complete("raccoon-fast collect ev") == {}
    for path, parser in LEVELS.items():
        flags = {flag for action in shown(parser) for flag in action.option_strings if flag.startswith("--")}
        assert set(complete(f"raccoon-fast {' '.join([*path, '--'])}")) == flags


class Terminal:
    """An interactive zsh."""

    def __init__(self, program, folder):
        pty = pytest.importorskip("pty", reason="there is no pseudo-terminal here")
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(program, [program, "-f", "-i"], {"TERM": "dumb", "HOME": str(folder), "PATH": os.environ["PATH"]})

    def type(self, text, expected):
        """Types, and reads until `expected` shows."""
        os.write(self._fd, text.encode())
        seen = b""
        deadline_s = time.monotonic() + patient(20)
        while expected not in seen.decode(errors="replace"):
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline_s - time.monotonic()))
            assert ready, f"expected {expected!r} in {seen!r}"
            seen += os.read(self._fd, 65536)
        return seen.decode(errors="replace")

    def end(self):
        os.close(self._fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_zsh(tmp_path, capsys):
    program = shell_or_skip("zsh")
    script = script_of("zsh", tmp_path, capsys)
    (tmp_path / "events.jsonl").touch()
    terminal = Terminal(program, tmp_path)
    try:
        terminal.type(f"autoload -Uz compinit; compinit -D -u; source {script}; PS1=; echo re''ady\n", "ready")
        terminal.type("raccoon-fast sp\t", "spool ")
        terminal.type("v\t", "verify ")
        terminal.type("ev\t", "events.jsonl")
        terminal.type("\x15raccoon-fast send --wire j\t", "json")
        terminal.type("\x15raccoon-fast send --ca ev\t", "events.jsonl")
        listed = terminal.type("\x15raccoon-fast spool \t\t", "verify")
        assert "-- check the file for damage" in listed
        terminal.type("\x15raccoon-fast spool drop --ol\t", "older-than")
    finally:
        terminal.end()


def test_a_shell_must_be_named(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["completion", "tcsh"])
    assert caught.value.code == 2
    assert "invalid choice: 'tcsh' (choose from" in capsys.readouterr().err
