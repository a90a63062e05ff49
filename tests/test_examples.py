"""The examples run with the commands in their first lines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import patient

from raccoon_fast.collector import Collector
from raccoon_fast.producers import environment

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(group_header="X-User-Group") as running:
        yield running


@contextlib.contextmanager
def started(
    *command: object, cwd: Path = EXAMPLES, listening: socket.socket | None = None, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """A Python process with these arguments, which inherits a socket; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environ},
        pass_fds=() if listening is None else (listening.fileno(),),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + patient(timeout_s)
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """For a server to inherit: a port that was free when it was asked for may be somebody else's when it is bound."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def get(server: socket.socket, path: str) -> httpx.Response:
    """What a server answers; one that is still starting is waited for."""
    # Without verify=False each call would load the system's certificates.
    url = f"http://127.0.0.1:{server.getsockname()[1]}{path}"
    return httpx.get(url, trust_env=False, verify=False, timeout=patient(30))


def get_at_once(server: socket.socket, paths: list[str]) -> list[int]:
    """The statuses of the answers to requests on connections that are all open before the first request is sent.

    A sync worker of gunicorn waits for the request of the connection it took, and connections are taken in order. So by
    the time the last one is answered, each of the others has a worker of its own.
    """
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(server.getsockname(), timeout=patient(30))) for _ in paths
        ]
        statuses = []
        for path, connection in reversed([*zip(paths, connections, strict=True)]):
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                statuses.append(int(answer.readline().split()[1]))
    return statuses


def finished(*command: object, **environ: str) -> str:
    with started(*command, **environ) as process:
        out, err = process.communicate(timeout=patient(40))
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if path.stem not in source] == []


def test_rest_client(collector: Collector) -> None:
    out = finished("rest_client.py", RACCOON_FAST_URL=collector.url)
    (request,) = collector.requests
    assert out == f"{request.req_guid}: SUCCESS\n"
    assert [(event.type, json.loads(event.data)) for event in collector.events] == [
        ("page", {"name": "home"}),
        ("click", {"x": 3, "y": 4}),
    ]
    assert request.user_agent.endswith("shop/1.0 (shop-1)")


def test_rest_client_without_a_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with started("rest_client.py", RACCOON_FAST_URL=f"http://127.0.0.1:{taken.getsockname()[1]}") as process:
            _, err = process.communicate(timeout=patient(40))
    assert process.returncode == 75
    assert "after 3 attempts" in err


def test_websocket_client(collector: Collector) -> None:
    out = finished("websocket_client.py", RACCOON_FAST_URL=collector.ws_url)
    lines = out.splitlines()
    assert lines[0] == "100 of 100 requests acknowledged"
    assert re.fullmatch(r"the slowest acknowledgement took [\d.]+ ms", lines[1])
    assert sorted(json.loads(event.data)["number"] for event in collector.events) == list(range(100))


def test_grpc_client(collector: Collector) -> None:
    assert (
        finished("grpc_client.py", RACCOON_FAST_URL=f"grpc://{collector.grpc_target}") == "10 requests acknowledged\n"
    )
    assert {(event.type, event.group) for event in collector.events} == {("order", "shop")}
    assert collector.event_count == 10


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")
def test_asyncio_service(collector: Collector) -> None:
    with started("asyncio_service.py", 0, RACCOON_FAST_URL=collector.ws_url) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        with socket.create_connection(("127.0.0.1", port), timeout=patient(10)) as connection:
            connection.sendall(b"".join(b"line %d\n" % number for number in range(500)))
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=patient(20))
    assert out == "500 accepted, 500 acknowledged, 0 lost\n"
    assert [event.data for event in collector.events] == [b"line %d" % number for number in range(500)]


@pytest.mark.parametrize("scheme", ["ws", "http", "grpc"])
def test_flask_under_gunicorn(collector: Collector, listening: socket.socket, scheme: str) -> None:
    pytest.importorskip("gunicorn")
    url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
    command = ["-m", "gunicorn", "--preload", "--workers", "3", "--bind", f"fd://{listening.fileno()}", "flask_app:app"]
    with started(*command, listening=listening, RACCOON_FAST_URL=url) as process:
        assert get(listening, "/ready").json() == {"ok": True, "events": {"ok": True, "reasons": []}}
        for first in range(0, 60, 3):
            paths = [f"/page/{number}" for number in range(first, first + 3)]
            assert get_at_once(listening, paths) == [200, 200, 200]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=patient(20))
    assert process.returncode == 0, err
    assert "Traceback" not in err
    received = Counter(json.loads(event.data)["name"] for event in collector.events)
    assert received == {str(number): 1 for number in range(60)}
    if scheme == "ws":
        assert len({event.connection_id for event in collector.events}) == 3


def test_fastapi_under_uvicorn(collector: Collector, listening: socket.socket) -> None:
    command = ["-m", "uvicorn", "--fd", listening.fileno(), "fastapi_app:app"]
    with started(*command, listening=listening, RACCOON_FAST_URL=collector.ws_url) as process:
        assert get(listening, "/ready").json() == {"ok": True, "events": {"ok": True, "reasons": []}}
        for number in range(50):
            assert get(listening, f"/page/{number}").json() == {"page": str(number)}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=patient(20))
    # From 0.29 on uvicorn ends by the signal, once the application's shutdown is over.
    assert process.returncode in (0, -signal.SIGTERM), err
    assert "Traceback" not in err
    assert "50 accepted, 50 acknowledged, 0 lost\n" in out
    assert Counter(json.loads(event.data)["name"] for event in collector.events) == {str(n): 1 for n in range(50)}


WEB = {
    "flask": ["-m", "gunicorn", "--preload", "--workers", "1", "--bind", "fd://{fd}", "flask_app:app"],
    "fastapi": ["-m", "uvicorn", "--fd", "{fd}", "fastapi_app:app"],
}


@pytest.mark.parametrize("framework", WEB)
def test_liveness_readiness_and_metrics_while_the_event_server_is_down(
    listening: socket.socket, framework: str
) -> None:
    if framework == "flask":
        pytest.importorskip("gunicorn")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        command = [part.format(fd=listening.fileno()) for part in WEB[framework]]
        with started(*command, listening=listening, RACCOON_FAST_URL=url) as process:
            assert get(listening, "/page/1").status_code == 200
            wait_until(lambda: not get(listening, "/ready").json()["events"]["ok"], process)
            for path in ("/live", "/ready"):
                answer = get(listening, path)
                assert (answer.status_code, answer.json()["ok"]) == (200, True)
            assert "no server is healthy" in str(get(listening, "/ready").json()["events"]["reasons"])
            wait_until(
                lambda: bool(re.search(r"\nraccoon_fast_total_conn_err_total [1-9]", scraped(listening))),
                process,
            )


def scraped(server: socket.socket) -> str:
    answer = get(server, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def test_examples_read_the_variables_of_the_package() -> None:
    known = {f"RACCOON_FAST_{name}" for name in environment._VARIABLES}
    for path in EXAMPLES.rglob("*.py"):
        named = re.findall(r"RACCOON_\w+", path.read_text(encoding="utf-8"))
        assert {*named} <= known, path


@pytest.mark.filterwarnings("default")  # of the imported celery
def test_celery_prefork(collector: Collector, tmp_path: Path) -> None:
    celery = pytest.importorskip("celery")
    # A broker of two directories. What one side writes to the other reads from.
    for name in ("data_in", "data_out"):
        (tmp_path / name).mkdir()
    folders = {"data_folder_in": "data_out", "data_folder_out": "data_in", "control_folder": "control"}
    options = {option: str(tmp_path / name) for option, name in folders.items()}
    command = ["-m", "celery", "--app", "celery_app", "worker", "--concurrency", "2", "--pool", "prefork"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    environ = {"BROKER_URL": "filesystem://", "RACCOON_FAST_URL": collector.ws_url, "PYTHONPATH": str(EXAMPLES)}
    with started(*command, *quiet, cwd=tmp_path, **environ) as process:
        with celery.Celery("test", broker="filesystem://") as publisher:
            publisher.conf.broker_transport_options = options
            for number in range(30):
                publisher.send_task("celery_app.place_order", [number])
        wait_until(lambda: collector.event_count == 30, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=patient(30))  # Celery makes log lines of what its processes print
    assert process.returncode == 0, err
    assert sorted(json.loads(event.data)["number"] for event in collector.events) == list(range(30))
    reports = [tuple(map(int, line)) for line in re.findall(r"(\d+) accepted, (\d+) acknowledged, (\d+) lost", err)]
    assert len(reports) == 2, err
    assert [sum(column) for column in zip(*reports, strict=True)] == [30, 30, 0]


def test_short_job_that_is_frozen_between_two_calls(collector: Collector) -> None:
    with started("short_job.py", RACCOON_FAST_URL=collector.url) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def call(*records: dict[str, Any]) -> Any:
            print(json.dumps({"records": records}), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        assert call({"n": 1}, {"n": 2}) == {"acknowledged": 2}
        assert collector.event_count == 2
        process.send_signal(signal.SIGSTOP)
        collector.faults.close_connections()
        process.send_signal(signal.SIGCONT)
        assert call({"n": 3}) == {"acknowledged": 1}
        collector.faults.status(503)
        print(json.dumps({"records": [{"n": 4}]}), file=process.stdin, flush=True)
        _, err = process.communicate(timeout=patient(30))
    assert process.returncode == 1
    assert "AckTimeoutError" in err
    assert [json.loads(event.data)["n"] for event in collector.events] == [1, 2, 3]
