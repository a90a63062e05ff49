"""The server and credentials that the command uses: from its options, otherwise from the environment."""

from __future__ import annotations

import json

import pytest
import trustme

from raccoon_fast import RAW, Producer
from raccoon_fast.cli import main
from raccoon_fast.collector import Collector


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.delenv("RACCOON_FAST_URL", raising=False)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"RACCOON_FAST_{name}", value)

    return set_all


@pytest.fixture
def line(tmp_path):
    path = tmp_path / "line.jsonl"
    path.write_text("1\n")
    return str(path)


def test_the_environment_fills_in_missing_options(collector, variables, line):
    variables(URL=collector.url, USER_ID="me", GROUP="us", AUTH_TOKEN="secret", TIMEOUT="5")
    assert main(["send", line, "--type", "t"]) == 0
    assert main(["send", line, "--type", "t", "--group", "them", "--header", "Authorization: Basic eDp5"]) == 0
    first, second = collector.requests
    assert (first.connection_id, first.group, first.headers["authorization"]) == ("me", "us", "Bearer secret")
    assert (second.connection_id, second.group, second.headers["authorization"]) == ("me", "them", "Basic eDp5")


def test_header_names_of_the_environment(variables, line):
    with Collector(id_header="X-Device") as collector:
        variables(URL=f"grpc://{collector.grpc_target}", ID_HEADER="X-Device", USER_ID="me")
        assert main(["send", line, "--type", "t"]) == 0
        assert collector.requests[0].connection_id == "me"


@pytest.mark.parametrize("said_by", ["options", "environment"])
def test_the_command_fails_over_among_several_servers(collector, variables, line, unused_port, said_by):
    urls = [f"ws://127.0.0.1:{unused_port}", collector.ws_url]
    options = [part for url in urls for part in ("--url", url)]
    if said_by == "environment":
        variables(URL=",".join(urls))
        options = []
    assert main(["send", line, "--type", "t", *options]) == 0
    assert collector.event_count == 1


def test_replay_takes_the_server_from_the_environment(collector, variables, tmp_path, unused_port):
    producer = Producer(f"ws://127.0.0.1:{unused_port}", serializer=RAW, spool=tmp_path / "spool", logger=None)
    producer.emit("a", b"x")
    producer.close(0.01)
    variables(URL=collector.url)
    assert main(["spool", "replay", str(tmp_path / "spool")]) == 0
    assert collector.event_count == 1


def test_the_demo_ignores_the_environment(variables, capsys):
    variables(URL="http://127.0.0.1:1", TLS_CA=__file__, USER_ID="me", SPOOL="/no/such", LINGR="x")
    assert main(["demo", "--records", "5"]) == 0
    assert capsys.readouterr().err == ""


def test_the_rest_of_a_producer_s_environment_is_not_for_the_command(collector, variables, line, tmp_path):
    variables(URL=collector.url, SPOOL=str(tmp_path / "spool"), DURABLE="1", OVERFLOW="nonsense")
    assert main(["send", line, "--type", "t"]) == 0
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no server: give its URL on the command line, or set RACCOON_FAST_URL"),
        ({"URL": "localhost:8080"}, "RACCOON_FAST_URL: url must name the protocol: http://localhost:8080"),
        ({"URL": "http://a", "TIMEOUT": "soon"}, "RACCOON_FAST_TIMEOUT must be a number of seconds, not 'soon'"),
        ({"URL": "http://a", "TIMEOUT": "-1"}, "RACCOON_FAST_TIMEOUT: timeout must be above 0"),
        ({"URL": "http://a", "TLS_CA": "nix"}, "RACCOON_FAST_TLS_CA must be a file that exists"),
        ({"URL": "http://a", "TLS_CA": "ca.pem"}, "RACCOON_FAST_TLS_CA: tls is given, but http://a"),
        (
            {"URL": "https://a", "TLS_CA": "line.jsonl"},
            "--ca, --cert or --key (RACCOON_FAST_TLS_CA, _CERT, _KEY) does not",
        ),
        ({"URL": "ftp://a"}, "RACCOON_FAST_URL: url must start with one of http"),
    ],
)
def test_wrong_variables_are_one_line(capsys, variables, line, values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trustme.CA().cert_pem.write_to_path("ca.pem")
    variables(**values)
    assert main(["send", line, "--type", "t"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"raccoon-fast send: {message}")
    assert err.count("\n") == 1


def test_unknown_variables_cause_a_warning(capsys, collector, variables, line):
    variables(URL=collector.url, USERID="me")
    assert main(["send", line, "--type", "t", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["acknowledged"] == 1
    said = "RACCOON_FAST_USERID is not a variable of raccoon_fast; did you mean RACCOON_FAST_USER_ID?"
    assert err == f"raccoon-fast send: {said}\n"
