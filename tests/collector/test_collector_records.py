"""The received events and requests as a program sees them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import patient

from raccoon_fast.collector import Collector, Counts, ReceivedEvent
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]


def test_events_of_all_three_protocols_in_order(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(group_header="X-User-Group")
    message = SendEventRequest(req_guid="a", events=[{"type": "t", "event_bytes": b"\x00\xff"}])
    message.sent_time.seconds = 1_700_000_000
    message.sent_time.nanos = 500_000_000
    peer.post(collector, message.SerializeToString(), {"X-User-ID": "rest-user", "X-User-Group": "g"})
    websocket = peer.websocket(collector, "ws-user")
    websocket.send(json.dumps({"req_guid": "b", "events": [{"type": "u", "event_bytes": "aGk="}] * 2}))
    websocket.recv(timeout=patient(10))
    peer.call(collector, peer.request("c"))

    assert collector.events == [
        ReceivedEvent("a", "t", b"\x00\xff", "rest", 1_700_000_000.5, "rest-user", "g"),
        ReceivedEvent("b", "u", b"hi", "websocket", None, "ws-user", "--default--"),
        ReceivedEvent("b", "u", b"hi", "websocket", None, "ws-user", "--default--"),
        ReceivedEvent("c", "page", b"0", "grpc", None, "u", "--default--"),
    ]
    assert collector.events is not collector.events
    assert (collector.event_count, collector.request_count) == (4, 3)
    assert collector.counts == {"rest": Counts(1, 1), "websocket": Counts(1, 2), "grpc": Counts(1, 1)}


def test_requests_show_their_headers(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    before_s = time.time()
    peer.post(collector, peer.request("a", events=3), {"User-Agent": "me/1.0", "X-Extra": "1"})
    peer.websocket(collector, user_agent_header="me/2.0").send(peer.request("b"))
    peer.call(collector, peer.request("c"))
    collector.wait_for(5)
    rest, websocket, grpc = collector.requests
    assert (rest.req_guid, rest.event_count, rest.protocol, rest.user_agent) == ("a", 3, "rest", "me/1.0")
    assert rest.headers["x-extra"] == "1"
    assert before_s <= rest.received_time <= time.time()
    assert (websocket.req_guid, websocket.protocol, websocket.user_agent) == ("b", "websocket", "me/2.0")
    assert (grpc.req_guid, grpc.protocol, grpc.connection_id) == ("c", "grpc", "u")
    assert grpc.user_agent.startswith("grpc-python")


def test_headers_that_identify_are_configurable(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(id_header="X-Device", group_header="X-Team")
    peer.post(collector, headers={"x-device": "d", "X-TEAM": "t", "X-User-ID": "ignored"})
    (event,) = collector.events
    assert (event.connection_id, event.group) == ("d", "t")


def test_an_unpublished_request_counts_as_received(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="sync", publish_failure_rate=1.0)
    assert peer.post(collector).status_code == 500
    assert (collector.request_count, collector.event_count) == (1, 0)
    assert collector.events == []
    assert [request.req_guid for request in collector.requests] == ["g"]


def test_with_async_acks_a_publish_failure_is_invisible_to_the_client(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="async", publish_failure_rate=1.0)
    assert peer.post(collector).status_code == 200
    assert collector.event_count == 0


def test_with_async_acks_the_answer_does_not_wait_for_the_publishing(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(acks="async", publish_delay=0.3)
    assert peer.post(collector).status_code == 200
    assert (collector.request_count, collector.event_count) == (1, 0)
    collector.wait_for(1)


def test_clear(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    peer.websocket(collector)
    peer.post(collector)
    assert collector.events
    peer.post(collector)  # one batch taken apart already, one not
    collector.clear()
    assert (collector.events, collector.requests, collector.event_count, collector.request_count) == ([], [], 0, 0)
    assert collector.connections == 1
    peer.post(collector)
    assert collector.event_count == len(collector.events) == 1


def test_wait_for_waits_for_the_count(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    waiting = threading.Thread(target=collector.wait_for, args=(3, 10))
    waiting.start()
    peer.post(collector, peer.request(events=2))
    waiting.join(0.05)
    assert waiting.is_alive()
    peer.post(collector, peer.request(events=2))
    waiting.join(patient(10))
    assert not waiting.is_alive()


def test_wait_for_reports_its_progress(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    peer.post(collector)
    with pytest.raises(TimeoutError, match=r"^1 of 2 events arrived within 0\.05 s$"):
        collector.wait_for(2, timeout=0.05)


def test_wait_until(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector()
    peer.websocket(collector)
    collector.wait_until(lambda it: it.connections == 1)
    with pytest.raises(TimeoutError, match="1 connections"):
        collector.wait_until(lambda it: it.connections == 2, timeout=0.05)


def test_received_events_stay_readable_after_close(peer: Any) -> None:
    with Collector() as collector:
        peer.post(collector)
    assert len(collector.events) == collector.event_count == 1
    assert collector.url.startswith("http://127.0.0.1:")


def test_the_null_sink_counts_and_keeps_nothing(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(sink="null")
    peer.post(collector)
    assert (collector.event_count, collector.request_count) == (1, 1)
    assert (collector.events, collector.requests) == ([], [])


@pytest.mark.parametrize("acks", ["async", "sync"])
def test_the_file_holds_acknowledged_events(acks: str, peer: Any, new_collector: NewCollector, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"was": "there"}\n')
    collector = new_collector(acks=acks, sink=path)
    peer.post(collector, peer.request("a", events=2))
    was_there, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert was_there == {"was": "there"}
    assert [base64.b64decode(line.pop("data")) for line in lines] == [b"0", b"1"]
    for line in lines:
        assert line.pop("received_time") == pytest.approx(time.time(), abs=60)
        assert line == {"req_guid": "a", "type": "page", "protocol": "rest"}
    assert collector.events == []


def test_a_file_that_cannot_be_written_fails_the_publishing(peer: Any, new_collector: NewCollector) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    collector = new_collector(acks="sync", sink="/dev/full")
    response = peer.post(collector)
    assert response.status_code == 500
    assert "No space left" in peer.decode(response.content).reason
    assert collector.event_count == 0


def test_a_batch_that_does_not_fit_on_the_disk_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    script = """
import resource, signal, sys
from raccoon_fast.collector.messages import SendEventRequest
from raccoon_fast.collector.records import Batch, Source
from raccoon_fast.collector.sinks import FileSink

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sink = FileSink(sys.argv[1])
sink.open()
for guid, events, fits in (("a", 5, True), ("b", 50, False), ("c", 1, True)):
    message = SendEventRequest(req_guid=guid, events=[{"type": "page"}] * events)
    try:
        sink.publish(Batch(message, Source("rest", "", "", {}), 1.5))
        assert fits
    except OSError:
        assert not fits
sink.close()
"""
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert [json.loads(line)["req_guid"] for line in path.read_text().splitlines()] == ["a"] * 5 + ["c"]


def test_a_file_that_cannot_be_opened_is_reported_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Collector(sink=tmp_path / "missing" / "events.jsonl"):
        pass
