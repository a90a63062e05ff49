"""`raccoon-fast collect`, the real command with real clients."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
from unittest.mock import ANY

import pytest
from patience import patient

from raccoon_fast import RAW, GrpcClient, RestClient, RetryPolicy, ServerError, WebSocketClient

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")

UNTIL_IT_IS_UP = RetryPolicy(max_attempts=100, initial=0.1, maximum=patient(0.1))
ANY_PORTS = ["--port", "0", "--grpc-port", "0"]


def addresses(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The four lines that say it is ready."""
    return dict(process.stdout.readline().decode().split() for _ in range(4))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_all_three_until_a_signal_and_counts(command, number):
    process = command.start("collect", *ANY_PORTS)
    urls = addresses(process)
    assert list(urls) == ["REST", "WebSocket", "gRPC", "inspector"]
    makers = {"REST": RestClient, "WebSocket": WebSocketClient, "gRPC": GrpcClient}
    for count, (protocol, make) in enumerate(makers.items(), 1):
        with make(urls[protocol], serializer=RAW) as client:
            client.send([("t", b"x")] * count)
    process.send_signal(number)
    out, err = process.communicate(timeout=patient(10))
    assert (process.returncode, err) == (0, b"")
    assert out.decode() == "received 6 events: 1 over rest, 2 over websocket, 3 over grpc\n"


def test_json_for_scripts(command):
    process = command.start("collect", *ANY_PORTS, "--json", "--no-inspect")
    said = json.loads(process.stdout.readline())
    assert list(said) == ["rest", "websocket", "grpc", "inspector", "port", "grpc_port"]
    assert said["rest"] == f"http://127.0.0.1:{said['port']}"
    assert said["grpc"] == f"grpc://127.0.0.1:{said['grpc_port']}"
    assert said["inspector"] is None
    with WebSocketClient(said["websocket"], serializer=RAW) as client:
        client.send([("t", b"x")])
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=patient(10))
    assert (process.returncode, err) == (0, b"")
    nothing = {"requests": 0, "events": 0}
    one = {"requests": 1, "events": 1}
    assert json.loads(out) == {"received": {"rest": nothing, "websocket": one, "grpc": nothing}, "bad": 0}


def test_options_reach_the_server(command):
    options = ["--acks", "sync", "--publish-failure-rate", "1", "--id-header", "X-Me"]
    process = command.start("collect", *ANY_PORTS, *options)
    urls = addresses(process)
    once = RetryPolicy(max_attempts=1)
    with RestClient(urls["REST"], serializer=RAW, retry=once) as client, pytest.raises(ServerError):
        client.send([("t", b"x")])
    with GrpcClient(urls["gRPC"], serializer=RAW, retry=once) as client, pytest.raises(ServerError, match="id header"):
        client.send([("t", b"x")])
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=patient(10))[0] == b"received 0 events\n"


def test_a_file_as_sink(command, tmp_path):
    process = command.start("collect", *ANY_PORTS, "--sink", "events.jsonl")
    with RestClient(addresses(process)["REST"], serializer=RAW) as client:
        client.send([("t", b"\x00\xff"), ("u", b"{}")])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=patient(10))
    records = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(one["type"], base64.b64decode(one["data"])) for one in records] == [("t", b"\x00\xff"), ("u", b"{}")]


def test_quiet(command, unused_port):
    process = command.start("collect", "--quiet", "--port", unused_port, "--grpc-port", "0")
    with RestClient(f"http://127.0.0.1:{unused_port}", serializer=RAW, retry=UNTIL_IT_IS_UP) as client:
        client.send([("t", b"x")])
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=patient(10)) == (b"", b"")
    assert process.returncode == 0


def test_a_port_that_is_taken(command, collector):
    run = command("collect", "--port", str(collector.port), "--grpc-port", "0")
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(
        rf"raccoon-fast collect: .*:{collector.port}: .* in use; choose another address with .*--port.*\n", run.stderr
    )


def test_events_are_printed_and_those_that_do_not_match_are_counted(command, tmp_path):
    (tmp_path / "page.json").write_text('{"type": "object"}')
    process = command.start("collect", *ANY_PORTS, "--json", "--print", "--type", "page", "--schema", "page=page.json")
    said = json.loads(process.stderr.readline())
    with RestClient(said["rest"], serializer=RAW) as client:
        client.send([("page", b'{"name":"home"}'), ("click", b"x"), ("page", b"\xff")])
    assert [json.loads(process.stdout.readline()) for _ in range(2)] == [
        {"type": "page", "req_guid": ANY, "protocol": "rest", "data": {"name": "home"}},
        {"type": "page", "req_guid": ANY, "protocol": "rest", "base64": "/w=="},
    ]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=patient(10))
    assert (process.returncode, out, json.loads(err)["bad"]) == (0, b"", 1)


def test_it_ends_when_the_reader_of_its_events_has_left(command):
    process = command.start("collect", *ANY_PORTS, "--json", "--print")
    with RestClient(json.loads(process.stderr.readline())["rest"], serializer=RAW) as client:
        client.send([("t", b"1")])
        process.stdout.readline()
        process.stdout.close()
        client.send([("t", b"2"), ("t", b"3")])
    assert (process.wait(patient(10)), process.stderr.read()) == (1, b"")


def test_standard_output_as_sink(command):
    process = command.start("collect", *ANY_PORTS, "--json", "--sink", "-")
    with RestClient(json.loads(process.stderr.readline())["rest"], serializer=RAW) as client:
        client.send([("t", b"x")])
    assert json.loads(process.stdout.readline())["data"] == "eA=="
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=patient(10))[0] == b""


def test_a_type_without_print(command):
    run = command("collect", *ANY_PORTS, "--type", "page")
    assert (run.returncode, run.stderr) == (
        2,
        "raccoon-fast collect: --type selects the events that --print shows: add --print\n",
    )
