"""The inspector's fault switches: their answers, and their effect on the collector."""

from __future__ import annotations

import contextlib
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from patience import patient
from websockets.exceptions import ConnectionClosedError

from raccoon_fast.collector import Collector
from raccoon_fast.collector.faults import Faults

NewCollector = Callable[..., Collector]

# Every way a fault is switched on, and what the program's own call would be.
ORDERS = [
    ({"fault": "drop_acks"}, lambda it: it.drop_acks()),
    ({"fault": "delay"}, lambda it: it.delay(1.0)),
    ({"fault": "delay", "seconds": 0, "times": 3}, lambda it: it.delay(0, times=3)),
    ({"fault": "hang_up", "on": True}, lambda it: it.hang_up()),
    ({"fault": "duplicate_acks", "times": 2}, lambda it: it.duplicate_acks(2)),
    ({"fault": "reorder_acks"}, lambda it: it.reorder_acks()),
    ({"fault": "wrong_guid"}, lambda it: it.wrong_guid()),
    ({"fault": "unknown_acks"}, lambda it: it.unknown_acks()),
    ({"fault": "cut_answers", "after_bytes": 5}, lambda it: it.cut_answers(5)),
    ({"fault": "bad_answer", "body": "é"}, lambda it: it.bad_answer("é".encode())),
    ({"fault": "fail_publish", "rate": 0.5}, lambda it: it.fail_publish(0.5)),
    ({"fault": "status"}, lambda it: it.status(503)),
    ({"fault": "status", "status": 429, "retry_after": "2"}, lambda it: it.status(429, retry_after="2")),
    ({"fault": "early_error"}, lambda it: it.early_error()),
    ({"fault": "too_large", "max_bytes": 9}, lambda it: it.too_large(9)),
    ({"fault": "reject_events", "event_type": "t"}, lambda it: it.reject_events("t")),
    ({"fault": "stop_ponging"}, lambda it: it.stop_ponging()),
]


def order(collector: Collector, **body: Any) -> dict[str, dict[str, Any]]:
    response = httpx.post(f"{collector.url}/inspect/faults", json=body)
    assert response.status_code == 200, response.text
    return {fault["fault"]: fault for fault in response.json()["faults"]}


def state(collector: Collector) -> dict[str, dict[str, Any]]:
    return {fault["fault"]: fault for fault in httpx.get(f"{collector.url}/inspect/faults").json()["faults"]}


@pytest.mark.parametrize(("body", "call"), ORDERS, ids=lambda it: str(it) if isinstance(it, dict) else "")
def test_an_order_is_the_method_of_its_name(
    body: dict[str, Any], call: Callable[[Faults], None], new_collector: NewCollector
) -> None:
    ordered, called = new_collector(inspect=True), new_collector()
    states = order(ordered, **body)
    call(called.faults)
    assert ordered.faults._table.switched_on == called.faults._table.switched_on != {}
    assert [name for name, fault in states.items() if fault["on"]] == [body["fault"]]
    assert order(ordered, fault=body["fault"], on=False)[body["fault"]]["on"] is False
    assert ordered.faults._table.switched_on == {}


def test_every_fault_is_listed_with_its_effect(new_collector: NewCollector) -> None:
    methods = {name for name, _ in inspect.getmembers(Faults, inspect.isfunction) if not name.startswith("_")}
    states = state(new_collector(inspect=True))
    assert set(states) == methods - {"clear", "accept", "html_502"}
    for name, fault in states.items():
        assert len(fault["description"]) > 20, name
        assert {*fault["arguments"], "times"} <= {
            *inspect.signature(getattr(Faults, name)).parameters,
            "times",
            "seconds",
        }


def test_the_state_shows_value_times_and_effects(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    collector.faults.delay(0.01, times=3)
    collector.faults.status(503, times=1)
    peer.post(collector)
    peer.post(collector)
    delay, status = (state(collector)[name] for name in ("delay", "status"))
    assert (delay["on"], delay["value"], delay["times_left"], delay["happened"]) == (True, 0.01, 2, 1)
    assert (status["on"], status["value"], status["times_left"], status["happened"]) == (False, None, None, 1)
    collector.faults.bad_answer(b"no\xff")
    assert state(collector)["bad_answer"]["value"] == "no\ufffd"
    collector.faults.status(429)
    assert state(collector)["status"]["value"] == 429
    summary = httpx.get(f"{collector.url}/inspect/summary").json()
    assert summary["faults"] == ["delay", "bad_answer", "status"]


def test_the_collector_misbehaves_as_ordered(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    order(collector, fault="status", status=418, times=1)
    assert [peer.post(collector).status_code for _ in range(2)] == [418, 200]


def test_all_go_off_at_once(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    with httpx.Client(headers={"content-type": "application/json"}) as client:  # its connection outlives the refusing
        for body in ({"fault": "status"}, {"fault": "delay"}, {"fault": "refuse"}):
            client.post(f"{collector.url}/inspect/faults", json=body)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", collector.port))
        answer = client.post(f"{collector.url}/inspect/faults", json={"on": False}).json()
    assert [fault["fault"] for fault in answer["faults"] if fault["on"]] == []
    assert peer.post(collector).status_code == 200
    assert peer.call(collector).status == 1


def test_refusing_ends_by_itself(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    assert order(collector, fault="refuse", seconds=patient(1.0))["refuse"]["on"] is True
    for port in (collector.port, collector.grpc_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    deadline_s = time.monotonic() + patient(10)
    while True:
        with contextlib.suppress(httpx.ConnectError):
            assert state(collector)["refuse"]["on"] is False
            break
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert peer.post(collector).status_code == 200
    assert peer.call(collector).status == 1


def test_refusing_again_starts_its_time_anew(new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    with httpx.Client() as client:
        for seconds in (0.2, 3600):
            client.post(f"{collector.url}/inspect/faults", json={"fault": "refuse", "seconds": seconds})
        ends_s = time.monotonic() + 0.5
        while time.monotonic() < ends_s:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", collector.port))
            time.sleep(0.02)
        client.post(f"{collector.url}/inspect/faults", json={"fault": "refuse", "on": False})
        socket.create_connection(("127.0.0.1", collector.port)).close()


def test_connections_are_closed_after_the_answer(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    websocket = peer.websocket(collector)
    order(collector, fault="close_connections")
    with pytest.raises(ConnectionClosedError):
        websocket.recv(timeout=patient(10))
    collector.wait_until(lambda it: it.connections == 0)
    assert peer.post(collector).status_code == 200


@pytest.mark.parametrize("seconds", [3600, 0.01])
def test_close_while_refusing(seconds: float, new_collector: NewCollector, event_loop_kind: str) -> None:
    collector = new_collector(inspect=True)
    order(collector, fault="refuse", seconds=seconds)
    collector.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", collector.port))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "fault must be one of drop_acks, delay, "),
        ({"fault": "clear"}, "fault must be one of drop_acks, delay, "),
        ({"fault": "_set"}, "not '_set'"),
        ({"fault": ["delay"]}, "not ['delay']"),
        ({"fault": "delay", "on": 1}, "on must be true or false, not 1"),
        ({"on": False, "seconds": 1}, "fault must be one of"),
        ({"fault": "delay", "second": 1}, "delay takes seconds, times, not second"),
        ({"fault": "close_connections", "times": 1}, "close_connections takes no arguments, not times"),
        ({"fault": "refuse", "times": 1}, "refuse takes seconds, not times"),
        ({"fault": "delay", "seconds": "1"}, "seconds must be a number, not '1'"),
        ({"fault": "delay", "seconds": -1}, "seconds must be at least 0, not -1"),
        ({"fault": "delay", "times": 0}, "times must be at least 1, not 0"),
        ({"fault": "refuse", "seconds": 0}, "seconds must be over 0 and at most 3600.0, not 0"),
        ({"fault": "status", "status": 99}, "status must be from 200 to 599, not 99"),
        ({"fault": "bad_answer", "body": 5}, "body must be bytes, not 5"),
    ],
)
def test_a_wrong_order_is_refused_with_the_reason(
    body: dict[str, Any], words: str, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    response = httpx.post(f"{collector.url}/inspect/faults", json=body)
    assert response.status_code == 400
    assert words in response.json()["error"]
    assert collector.faults._table.switched_on == {}
