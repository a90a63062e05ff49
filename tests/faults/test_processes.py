"""Producers in the processes of frameworks: each sends its own events once, and none remain at its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patient
from program import run

from raccoon_fast.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


MULTIPROCESSING = """
import multiprocessing, sys, warnings
from raccoon_fast import RAW, Producer, WebSocketClient
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and later, for every fork beside a thread
url, method = sys.argv[1:]
producer = Producer(url, serializer=RAW, logger=None, linger=60)
client = WebSocketClient(url, serializer=RAW, logger=None)

def work(number):
    producer.emit("emitted", b"%d" % number)
    client.submit([("submitted", b"%d" % number)])  # and the child returns: nothing is flushed or closed

if __name__ == "__main__":
    producer.emit("parent", b"x")
    children = [multiprocessing.get_context(method).Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert producer.close().total.acked == 1
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(collector: Collector, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    run(program, collector.ws_url, method)
    expected = {(kind, b"%d" % number): 1 for kind in ("emitted", "submitted") for number in range(3)}
    assert Counter((event.type, event.data) for event in collector.events) == expected | {("parent", b"x"): 1}


def test_celery_s_prefork_workers(collector: Collector, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (tmp_path / "queue").mkdir()
    (tmp_path / "service.py").write_text(
        f"""
from celery import Celery
from raccoon_fast import RAW, Producer

folders = {{"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "queue"}}
app = Celery("service", broker="filesystem://", broker_transport_options=folders, task_ignore_result=True)
producer = Producer({collector.ws_url!r}, serializer=RAW, logger=None)

@app.task
def emit(number):
    producer.emit("task", b"%d" % number)

if __name__ == "__main__":
    for number in range(40):
        emit.delay(number)
"""
    )
    subprocess.run([sys.executable, "service.py"], cwd=tmp_path, check=True)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "critical"]
    worker = ["-m", "celery", "--quiet", "--app", "service", "worker", "--pool", "prefork", "-c", "2", *quiet]
    with subprocess.Popen([sys.executable, *worker], cwd=tmp_path, start_new_session=True) as process:
        try:
            collector.wait_for(40, timeout=patient(30))
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a warm shutdown takes celery itself six seconds
    assert Counter(event.data for event in collector.events) == {b"%d" % number: 1 for number in range(40)}
    assert not any(f"-{process.pid}-" in request.connection_id for request in collector.requests)  # its children did
