"""Usage errors with their texts and exit codes, start-up time, and the version."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from raccoon_fast import client_info
from raccoon_fast.cli import main
from raccoon_fast.cli.arguments import make_parser
from raccoon_fast.collector import Collector

SEND = ["send", "-", "--url", "http://localhost:1"]
TYPED = [*SEND, "--type", "t"]


def refused(capsys, *argv: str) -> str:
    """Runs wrong usage in this process; its one line."""
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("raccoon-fast")
    return err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "add a command, such as demo or send"),
        (["sned"], "invalid choice: 'sned'"),
        (["--frobnicate"], "--frobnicate"),
        ([*TYPED, "--frobnicate"], "unrecognized arguments: --frobnicate"),
        ([*TYPED, "--batch", "5"], "unrecognized arguments: --batch"),
        (["send"], "required: FILE"),
        (SEND, "one of the arguments --type --type-field --type-column is required"),
        ([*TYPED, "--type-field", "f"], "not allowed with argument --type"),
        ([*SEND, "--type", ""], "--type: must not be empty"),
        ([*SEND, "--type", "\udcff"], "--type: must be UTF-8 text"),
        ([*TYPED, "--batch-events", "0"], "--batch-events: must be a whole number of 1 or more, not '0'"),
        ([*TYPED, "--in-flight", "-1"], "--in-flight"),
        ([*TYPED, "--in-flight", "1.5"], "--in-flight: must be a whole number"),
        ([*TYPED, "--timeout", "0"], "--timeout: must be a number of seconds above 0"),
        ([*TYPED, "--timeout", "nan"], "--timeout"),
        ([*TYPED, "--wire", "xml"], "--wire: invalid choice: 'xml'"),
        ([*TYPED, "--header", "secret-without-colon"], "--header: must read 'Name: value'"),
        ([*TYPED, "--header", "A: secret", "--header", "a: other"], "--header sets A more than once: a header has one"),
        ([*TYPED, "--header", "A: 1", "--header", "B: 2", "--header", "A: 1"], "--header sets A more than once"),
        (["doctor", "--header", "A: 1", "--header", "A: 2", "http://localhost:1"], "--header sets A more than once"),
        (["bench", "--header", "A: 1", "--header", "A: 2", "http://localhost:1"], "--header sets A more than once"),
        ([*TYPED, "--ca", "no-such-file"], "--ca: no such file: no-such-file"),
        (["collect", "--port", "65536"], "--port: must be a whole number from 0 to 65535, not '65536'"),
        (["collect", "--publish-failure-rate", "1.1"], "--publish-failure-rate: must be a number from 0 to 1"),
        (["collect", "--publish-delay", "-1"], "--publish-delay: must be a number of seconds, 0 or more"),
        (["collect", "--sink", "memory"], "use null, which counts, or a file"),
        (["collect", "--port", "8080", "--grpc-port", "8080"], "grpc_port must differ from port"),
        (["demo", "--url", "ws://localhost"], "--url must start with http:// or https://"),
        (["send", "no-such-file", "--url", "http://localhost:1", "--type", "t"], "no-such-file: No such file"),
        (["send", ".", "--url", "http://localhost:1", "--type", "t"], ".: Is a directory"),
        (
            ["send", "-", "--url", "localhost:8080", "--type", "t"],
            "url must name the protocol: http://localhost:8080",
        ),
        (["send", "-", "--url", "grpc://localhost:1", "--type", "t", "--wire", "json"], "gRPC needs proto"),
        (
            ["send", "-", "--url", "http://localhost:1", "--type", "t", "--header", "Host: x"],
            "'Host' is set by the client",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(capsys, argv, words):
    err = refused(capsys, *argv)
    assert words in err
    assert "secret" not in err


def test_files_that_hold_no_certificate(capsys, tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("x")
    err = refused(capsys, *["send", "-", "--url", "grpcs://localhost:1", "--type", "t", "--ca", str(wrong)])
    assert "does not contain valid PEM" in err
    err = refused(
        capsys, "collect", "--port", "0", "--grpc-port", "0", "--tls-cert", str(wrong), "--tls-key", str(wrong)
    )
    assert "does not contain valid PEM" in err


def test_debug_shows_the_traceback(capsys):
    assert main(["send", "no-such-file", "--url", "http://localhost:1", "--type", "t", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("raccoon-fast send: no-such-file: No such file or directory\n")
    assert make_parser().parse_args(["--debug", "demo"]).debug


def test_an_unexpected_error_is_one_line_too(capsys, monkeypatch):
    from raccoon_fast.cli import demo

    monkeypatch.setattr(demo, "read_flights", lambda count: [][0])
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == (
        "raccoon-fast demo: unexpected IndexError: list index out of range; --debug shows where\n"
    )


def test_version(command):
    run = command("--version")
    info = client_info()
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{info.name} {info.version} (built {info.build_date}), {info.form}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["demo"], ["send"], ["collect"], ["doctor"], ["bench"], ["spool"], ["spool", "ls"], ["spool", "replay"]],
)
def test_help_names_the_exit_codes(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "130  ended by Ctrl-C" in out
    assert max(map(len, out.splitlines())) <= 120


def test_version_loads_nothing_heavy(command):
    script = "import sys; from raccoon_fast.cli import main; main(['--version']); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], env=command.environment, check=True, capture_output=True, text=True
    )
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "raccoon_fast.cli.command" in loaded
    assert not loaded & {
        "asyncio",
        "grpc",
        "google.protobuf",
        "httpx",
        "orjson",
        "rich",
        "ssl",
        "starlette",
        "uvloop",
        "websockets",
    }


def test_collect_has_every_option_of_the_collector():
    parsed = vars(make_parser().parse_args(["collect"]))
    for name, parameter in inspect.signature(Collector).parameters.items():
        if name == "follow":
            continue  # --print
        assert name in parsed, f"collect lacks --{name.replace('_', '-')}"
        if name not in ("port", "grpc_port", "sink", "inspect"):
            assert parsed[name] == parameter.default, name
