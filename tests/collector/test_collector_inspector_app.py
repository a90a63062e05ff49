"""The inspector's JSON API over HTTP."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from patience import patient
from websockets.exceptions import ConnectionClosed, InvalidStatus

import raccoon_fast.cli
from raccoon_fast.cli.flights import flight_message, read_flights
from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]
DESCRIPTORS = Path(raccoon_fast.cli.__file__).parent / "flight.desc"


def get(collector: Collector, path: str, **query: Any) -> Any:
    response = httpx.get(f"{collector.url}/inspect/{path}", params=query)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json"), response.text
    return response.json()


def refused(collector: Collector, path: str, **query: Any) -> Any:
    """Why a request is refused."""
    response = httpx.get(f"{collector.url}/inspect/{path}", params=query)
    assert response.status_code >= 400, response.text
    return response.json()["error"]


def post(collector: Collector, path: str, order: Any) -> Any:
    response = httpx.post(f"{collector.url}/inspect/{path}", json=order)
    assert response.status_code == 200, response.text
    return response.json()


def use_all_three(peer: Any, collector: Collector) -> None:
    peer.post(collector, peer.request("r", events=2), {"X-User-ID": "rest-user", "User-Agent": "agent/1"})
    websocket = peer.websocket(collector, "ws-user")
    websocket.send(json.dumps({"req_guid": "w", "events": [{"type": "click", "event_bytes": "eyJhIjoxfQ=="}]}))
    websocket.recv(timeout=patient(10))
    peer.call(collector, peer.request("g"))


@pytest.mark.parametrize("sink", ["memory", "null", "file"])
def test_summary(sink: str, peer: Any, new_collector: NewCollector, tmp_path: Path) -> None:
    path = str(tmp_path / "events.jsonl") if sink == "file" else sink
    collector = new_collector(inspect=True, sink=path)
    began = time.time()
    use_all_three(peer, collector)
    summary = get(collector, "summary")
    assert began - 60 < summary["since"] <= summary["time"] < began + 60
    assert (summary["port"], summary["grpc_port"], summary["tls"]) == (collector.port, collector.grpc_port, False)
    assert (summary["acks"], summary["sink"], summary["faults"]) == ("async", path, [])
    nothing = {"rejected": 0, "latency": None}
    assert summary["protocols"] == {
        "rest": {"requests": 1, "events": 2, **nothing},
        "websocket": {"requests": 1, "events": 1, **nothing},
        "grpc": {"requests": 1, "events": 1, **nothing},
    }
    types = {it["type"]: it["events"] for it in summary["types"]}
    assert types == {
        "page": {"rest": 2, "websocket": 0, "grpc": 1},
        "click": {"rest": 0, "websocket": 1, "grpc": 0},
    }
    assert summary["connection_count"] == 1
    (connection,) = summary["connections"]
    assert (connection["connection_id"], connection["group"]) == ("ws-user", "--default--")
    assert "websockets" in connection["user_agent"]
    assert began - 1 < connection["since"] <= summary["time"]


def test_latency(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    message = SendEventRequest(req_guid="g", sent_time={"seconds": int(time.time()) - 100})
    peer.post(collector, message.SerializeToString())
    latency = get(collector, "summary")["protocols"]["rest"]["latency"]
    assert latency["requests"] == 1
    assert latency["median"] == latency["p95"] == latency["maximum"] == pytest.approx(100, abs=5)


def test_events(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, sink="null")
    use_all_three(peer, collector)
    answer = get(collector, "events")
    assert answer["last"] == 4
    assert [event["number"] for event in answer["events"]] == [1, 2, 3, 4]
    assert [event["req_guid"] for event in answer["events"]] == ["r", "r", "w", "g"]
    first, _, third, _ = answer["events"]
    assert first.pop("received_time") == pytest.approx(time.time(), abs=60)
    assert first == {
        "number": 1,
        "type": "page",
        "protocol": "rest",
        "size": 1,
        "format": "json",
        "data": 0,
        "text": "0",
        "message": None,
        "problem": "",
        "req_guid": "r",
        "sent_time": None,
        "connection_id": "rest-user",
        "group": "--default--",
        "user_agent": "agent/1",
        "probe": False,
        "bad": None,
        "faults": [],
    }
    assert (third["type"], third["data"], third["text"]) == ("click", {"a": 1}, '{"a":1}')


def test_events_by_type_limit_and_cursor(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    use_all_three(peer, collector)

    def numbers(**query: Any) -> tuple[list[int], int]:
        answer = get(collector, "events", **query)
        return [event["number"] for event in answer["events"]], answer["last"]

    assert numbers(limit=2) == ([3, 4], 4)
    assert numbers(limit=2, after=0) == ([1, 2], 2)
    assert numbers(limit=2, after=2) == ([3, 4], 4)
    assert numbers(after=4) == ([], 4)
    assert numbers(type="click") == ([3], 3)
    assert numbers(type="page", after=1) == ([2, 4], 4)
    assert numbers(type="other") == ([], 0)
    assert numbers(limit=500) == ([1, 2, 3, 4], 4)


def test_events_by_filter_say_what_is_hidden(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    use_all_three(peer, collector)
    answer = get(collector, "events", type="page", client="rest", search="1", limit=1)
    assert [event["number"] for event in answer["events"]] == [2]
    assert (answer["searched"], answer["hidden"]) == (4, {"type": 1, "client": 1, "search": 1})
    assert [event["number"] for event in get(collector, "events", until=2)["events"]] == [1, 2]
    assert [event["number"] for event in get(collector, "good", protocol="grpc")["events"]] == [4]
    response = httpx.get(f"{collector.url}/inspect/events?quality=fine")
    assert (response.status_code, response.json()["error"]) == (400, "quality must be one of good, bad, not 'fine'")


def test_one_event_with_headers_and_bytes(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "X-Api-Key": "s3cret", "X-Auth-Token": "s3cret"}
    peer.post(collector, headers={"X-Shop": "one", **secrets})
    answer = httpx.get(f"{collector.url}/inspect/event?number=1")
    assert "s3cret" not in answer.text + httpx.get(f"{collector.url}/inspect/export").text
    event = answer.json()
    assert (event["number"], event["type"], event["base64"], event["headers"]["x-shop"]) == (1, "page", "MA==", "one")
    assert {event["headers"][name.lower()] for name in secrets} == {"(masked)"}
    assert httpx.get(f"{collector.url}/inspect/event?number=2").status_code == 404
    assert httpx.get(f"{collector.url}/inspect/event").json()["error"].startswith("number is missing")


def test_export_writes_filtered_events_as_json_lines(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    use_all_three(peer, collector)
    response = httpx.get(f"{collector.url}/inspect/export?type=page")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["content-disposition"] == 'attachment; filename="events.jsonl"'
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [(line["number"], line["data"], line["base64"]) for line in lines] == [
        (1, 0, "MA=="),
        (2, 1, "MQ=="),
        (4, 0, "MA=="),
    ]


def test_types_are_searched_sorted_and_paged(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    events = [{"type": f"type_{number:04}"} for number in range(1000)]
    peer.post(collector, SendEventRequest(events=[*events, {"type": "type_0500"}]).SerializeToString())
    answer = get(collector, "types", search="PE_05", sort="events", limit=3)
    assert [it["type"] for it in answer["types"]] == ["type_0500", "type_0501", "type_0502"]
    assert answer["types"][0]["events"] == {"rest": 2, "websocket": 0, "grpc": 0}
    assert (answer["matched"], answer["type_count"], answer["uncounted"]) == (100, 1000, None)
    answer = get(collector, "types", offset=998, sort="name")
    assert [it["type"] for it in answer["types"]] == ["type_0998", "type_0999"]
    summary = get(collector, "summary")
    assert (len(summary["types"]), summary["types"][-1]["type"]) == (201, None)
    assert summary["types"][-1]["events"]["rest"] == 801
    assert (summary["type_count"], summary["last_number"]) == (1000, 1001)
    response = httpx.get(f"{collector.url}/inspect/types?sort=size")
    assert response.json()["error"] == "sort must be one of events, name, rate, bad, last, not 'size'"


def test_one_type(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"page": {"maximum": 0}})
    use_all_three(peer, collector)
    found = get(collector, "type", type="page")["found"]
    assert (found["type"], found["events"], found["bad"]) == ("page", {"rest": 2, "websocket": 0, "grpc": 1}, 1)
    assert (len(found["minutes"]), sum(found["minutes"]), found["sampled"]) == (60, 3, 3)
    assert found["size"] == {"sampled": 3, "minimum": 1, "median": 1, "p95": 1, "maximum": 1}
    assert (found["lateness"], found["fields"]) == (
        None,
        [{"path": "$", "kinds": {"number": 3}, "examples": ["0", "1"]}],
    )
    assert get(collector, "type", type="other") == {"found": None}
    assert httpx.get(f"{collector.url}/inspect/type").json()["error"].startswith("type is missing")


def test_timeline(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    use_all_three(peer, collector)
    peer.post(collector, b"\xff")
    timeline = get(collector, "timeline")
    assert timeline.pop("period") == 10
    assert {name: (len(counts), sum(counts)) for name, counts in timeline.items()} == {
        "events": (360, 4),
        "requests": (360, 3),
        "acks": (360, 3),
        "rejected": (360, 1),
    }
    assert sum(timeline["events"][-6:]) == 4
    post(collector, "reset", {})
    assert sum(get(collector, "timeline")["events"]) == 0


def test_protobuf_events_are_decoded(peer: Any, new_collector: NewCollector) -> None:
    messages = {"flight": "raccoon_fast.flights.v1.Flight"}
    collector = new_collector(inspect=True, descriptors=DESCRIPTORS, messages=messages)
    flight = flight_message(json.loads(read_flights(1)[0])).SerializeToString()
    request = SendEventRequest(events=[{"type": "flight", "event_bytes": flight}, {"type": "x", "event_bytes": flight}])
    peer.post(collector, request.SerializeToString())
    decoded, plain = get(collector, "events")["events"]
    assert (decoded["format"], decoded["message"], decoded["data"]["carrier"]) == ("protobuf", messages["flight"], "DL")
    assert json.loads(decoded["text"]) == decoded["data"]
    assert (plain["format"], plain["data"], bytes.fromhex(plain["text"])) == ("hex", None, flight)


def test_long_numbers_and_duplicate_names_are_shown_as_sent(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    data = b'{"n":123456789012345678901234567890,"n":1.10}'
    peer.post(collector, SendEventRequest(events=[{"event_bytes": data}]).SerializeToString())
    assert b'"data":' + data in httpx.get(f"{collector.url}/inspect/events").content


class TestBad:
    def of(self, collector: Collector) -> list[tuple[str, str, str]]:
        return [(it["protocol"], it["code"], it["reason"]) for it in get(collector, "bad")["bad"]]

    def test_rest(self, peer: Any, new_collector: NewCollector) -> None:
        collector = new_collector(inspect=True)
        peer.post(collector, b"{", {"content-type": "application/json", "x-user-id": "me", "user-agent": "agent/1"})
        peer.post(collector, b"\xff", {})
        peer.post(collector, b"", {"content-type": "text/plain"})
        httpx.post(f"{collector.url}/events")
        httpx.get(f"{collector.url}/api/v1/events")
        httpx.delete(f"{collector.url}/api/v1/events")
        httpx.get(f"{collector.url}/favicon.ico")
        assert self.of(collector) == [
            ("rest", "400", "deserialization failure: unexpected end of JSON input"),
            ("rest", "400", "deserialization failure: proto:\N{NO-BREAK SPACE}cannot parse invalid wire-format data"),
            ("rest", "400", "invalid content type: text/plain"),
            ("rest", "404", "POST /events: 404 page not found"),
            ("rest", "400", "GET without an upgrade to WebSocket"),
            ("rest", "405", "method DELETE"),
        ]
        answer = get(collector, "bad", limit=1, after=0)
        (first,) = answer["bad"]
        assert answer["last"] == first.pop("number") == 1
        assert first.pop("time") == pytest.approx(time.time(), abs=60)
        assert first == {
            "protocol": "rest",
            "code": "400",
            "reason": "deserialization failure: unexpected end of JSON input",
            "req_guid": "",
            "connection_id": "me",
            "group": "--default--",
            "user_agent": "agent/1",
            "probe": False,
            "size": 1,
            "format": "text",
            "text": "{",
            "problem": "",
        }
        assert get(collector, "summary")["protocols"]["rest"]["rejected"] == 6

    def test_websocket(self, peer: Any, new_collector: NewCollector) -> None:
        collector = new_collector(inspect=True, max_connections=2)
        websocket = peer.websocket(collector, "a")
        websocket.send(b"\xff")
        websocket.recv(timeout=patient(10))
        for user_id in ("a", "b", "c"):
            peer.websocket(collector, user_id)
        with pytest.raises(InvalidStatus, match="HTTP 404"):
            peer.websocket(collector, path="/wrong")
        collector.faults.too_large(10)
        websocket.send(peer.request())
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=patient(10))
        assert self.of(collector) == [
            (
                "websocket",
                "BAD_REQUEST",
                "cannot deserialize request: proto:\N{NO-BREAK SPACE}cannot parse invalid wire-format data",
            ),
            ("websocket", "MAX_USER_LIMIT_REACHED", "duplicate connection: a"),
            ("websocket", "MAX_CONNECTION_LIMIT_REACHED", "Max connection reached"),
            ("websocket", "404", "handshake of /wrong: 404 page not found"),
            ("websocket", "1009", "over the limit of 10 bytes"),
        ]

    def test_grpc(self, peer: Any, new_collector: NewCollector) -> None:
        collector = new_collector(inspect=True)
        with pytest.raises(grpc.RpcError):
            peer.call(collector, b"\xff")
        with grpc.insecure_channel(collector.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            for method in ("/raystack.raccoon.v1beta1.EventService/SendEvent", "/old.EventService/SendEvent"):
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(method)(peer.request(), timeout=10)
        assert self.of(collector) == [
            (
                "grpc",
                "INTERNAL",
                "grpc: error unmarshalling request: proto:\N{NO-BREAK SPACE}cannot parse invalid wire-format data",
            ),
            ("grpc", "UNKNOWN", "connection id header missing"),
            ("grpc", "UNIMPLEMENTED", "unknown service old.EventService"),
        ]

    @pytest.mark.parametrize(("acks", "code"), [("sync", "INTERNAL_ERROR"), ("async", "")])
    def test_unpublished_events(self, acks: str, code: str, peer: Any, new_collector: NewCollector) -> None:
        collector = new_collector(inspect=True, acks=acks, publish_failure_rate=1.0)
        peer.post(collector, peer.request("guid"))
        assert self.of(collector) == [("rest", code, "cannot publish events: injected publish failure")]
        assert get(collector, "bad")["bad"][0]["req_guid"] == "guid"
        assert get(collector, "events")["events"] == []

    def test_faults(self, peer: Any, new_collector: NewCollector) -> None:
        collector = new_collector(inspect=True)
        collector.faults.status(503, times=2)
        peer.post(collector)
        with pytest.raises(grpc.RpcError):
            peer.call(collector)
        collector.faults.early_error(500, times=1)
        peer.post(collector)
        collector.faults.too_large(1, times=1)
        peer.post(collector)
        assert self.of(collector) == [
            ("rest", "503", "Service Unavailable"),
            ("grpc", "UNAVAILABLE", "HTTP status 503"),
            ("rest", "500", "before the body was read"),
            ("rest", "413", "request entity too large"),
        ]


def test_reset_forgets_what_came_in(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    use_all_three(peer, collector)
    peer.post(collector, b"\xff")
    summary = post(collector, "reset", {})
    assert {name: it["events"] for name, it in summary["protocols"].items()} == {"rest": 0, "websocket": 0, "grpc": 0}
    assert (summary["types"], summary["connection_count"]) == ([], 1)
    assert (get(collector, "events")["events"], get(collector, "bad")["bad"]) == ([], [])
    assert (collector.events, collector.event_count) == ([], 0)
    peer.post(collector)
    assert [event["number"] for event in get(collector, "events")["events"]] == [5]


def test_clear_resets_it_too(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    peer.post(collector)
    collector.clear()
    assert get(collector, "events")["events"] == get(collector, "summary")["types"] == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("events?limit=0", "limit must be a whole number from 1 to 500, not '0'"),
        ("events?limit=501", "limit must be a whole number from 1 to 500, not '501'"),
        ("events?limit=ten", "limit must be a whole number from 1 to 500, not 'ten'"),
        ("events?limit=", "limit must be a whole number"),
        ("events?after=-1", "after must be a whole number from 0 to "),
        ("events?after=1e3", "after must be a whole number"),
        ("events?after=%C2%B2", "after must be a whole number"),
        ("events?after=" + "9" * 60, "after must be a whole number"),
        ("events?limit=1&limit=2", "limit is given twice"),
        (
            "events?typ=page",
            "'typ' is not a parameter here: type, guid, client, protocol, quality, search, limit, after, until",
        ),
        ("bad?type=page", "'type' is not a parameter here: limit, after"),
        ("summary?x=1", "'x' is not a parameter here: there are none"),
    ],
)
def test_a_wrong_query_is_refused_with_the_reason(path: str, words: str, new_collector: NewCollector) -> None:
    response = httpx.get(f"{new_collector(inspect=True).url}/inspect/{path}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("reset", b'{"x": 1}', 400, "reset takes no arguments"),
        ("reset", b"[]", 400, "the body must be a JSON object, not []"),
        ("reset", b"{", 400, "the body must be a JSON object, such as {}: "),
        ("faults", b'{"a": "' + b"x" * 70_000 + b'"}', 413, "an order may have up to 65536 bytes"),
    ],
)
def test_a_wrong_order_is_refused_with_the_reason(
    path: str, body: bytes, status: int, words: str, new_collector: NewCollector
) -> None:
    url = f"{new_collector(inspect=True).url}/inspect/{path}"
    response = httpx.post(url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/inspect/nothing", 404),
        ("GET", "/inspect/page/nothing.js", 404),
        ("GET", "/inspect/page/..%2Fapp.py", 404),
        ("POST", "/inspect/summary", 405),
        ("GET", "/inspect/reset", 405),
        ("DELETE", "/inspect/faults", 405),
        ("HEAD", "/inspect/summary", 200),
        ("GET", "/inspected", 404),
        ("GET", "/ping", 200),
    ],
)
def test_other_paths_and_methods(method: str, path: str, status: int, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    response = httpx.request(method, collector.url + path, headers={"content-type": "application/json"})
    assert response.status_code == status
    if path.startswith("/inspect/") and status >= 400:
        assert response.json()["error"]


def test_many_connections_are_counted_and_some_listed(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    for number in range(205):
        peer.raw_websocket(collector, f"u{number}")
    summary = get(collector, "summary")
    assert (summary["connection_count"], len(summary["connections"])) == (205, 200)
    assert summary["connections"][0]["connection_id"] == "u204"


@pytest.mark.parametrize("path", ["/inspect", "/inspect/summary", "/inspect/page/main.js"])
def test_its_paths_are_ordinary_without_the_inspector(path: str, new_collector: NewCollector) -> None:
    response = httpx.get(new_collector().url + path)
    assert (response.status_code, response.text) == (404, "404 page not found\n")


def test_the_inspector_is_not_loaded_unless_used() -> None:
    script = (
        "import sys; from raccoon_fast.collector import Collector\n"
        "with Collector(): print([n for n in sys.modules if 'inspector' in n or n.startswith('starlette')])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_address_others_can_reach_causes_a_warning(
    host: str, warns: bool, new_collector: NewCollector, caplog: pytest.LogCaptureFixture
) -> None:
    new_collector(host=host)
    assert caplog.messages == []
    collector = new_collector(inspect=True, host=host)
    assert bool(caplog.records) == warns
    if warns:
        assert caplog.records[0].levelno == logging.WARNING
        assert f"anyone who can reach port {collector.port} sees all events" in caplog.messages[0]


def test_close_is_quick_while_the_page_is_open(new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    with httpx.Client() as client:
        client.get(f"{collector.url}/inspect/summary")
        start_s = time.monotonic()
        collector.close()
        assert time.monotonic() - start_s < patient(2)


def test_tls(new_collector: NewCollector, tmp_path: Path) -> None:
    import ssl

    import trustme

    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    collector = new_collector(inspect=True, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with httpx.Client(verify=context) as client:
        assert client.get(f"{collector.url}/inspect/summary").json()["tls"] is True
        own = client.post(f"{collector.url}/inspect/reset", json={}, headers={"origin": collector.url})
        other = client.post(
            f"{collector.url}/inspect/reset", json={}, headers={"origin": collector.url.replace("https", "http")}
        )
        assert (own.status_code, other.status_code) == (200, 403)


def test_faults_name_the_clients_they_hit(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    collector.faults.drop_acks(times=1)
    websocket = peer.websocket(collector, user_id="w")
    websocket.send(peer.request("lost", events=3))
    collector.wait_until(lambda it: it.faults.fired == {"drop_acks": 1})
    collector.faults.status(503, times=2)
    for _ in range(2):
        peer.post(collector, peer.request("refused", events=2), {"X-User-ID": "r"})
    collector.faults.fail_publish(times=1)
    peer.post(collector, peer.request("unpublished"), {"X-User-ID": "r"})
    collector.faults.close_connections()
    hits = get(collector, "summary")["fault_hits"]
    assert all(hit.pop("last_time") == pytest.approx(time.time(), abs=60) for hit in hits)
    shown = [
        [hit[name] for name in ("fault", "protocol", "connection_id", "times", "requests", "events")] for hit in hits
    ]
    assert shown == [
        ["close_connections", "websocket", "w", 1, 0, 0],
        ["fail_publish", "rest", "r", 1, 1, 1],
        ["status", "rest", "r", 2, 2, 4],
        ["drop_acks", "websocket", "w", 1, 1, 3],
    ]
    assert [event["faults"] for event in get(collector, "events")["events"]] == [["drop_acks"]] * 3
    collector.clear()
    assert get(collector, "summary")["fault_hits"] == []


def test_acks_shown_are_the_acks_sent(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    peer.call(collector)
    peer.post(collector)
    websocket = peer.websocket(collector)
    for _ in range(2):
        websocket.send(peer.request())
        websocket.recv()
    for switch_on in (collector.faults.drop_acks, collector.faults.wrong_guid):
        switch_on(times=1)
        websocket.send(peer.request())
        collector.wait_until(lambda it: not it.faults._table.switched_on)
    collector.wait_until(lambda it: it.event_count == 6)
    timeline = get(collector, "timeline")
    assert {name: sum(timeline[name]) for name in ("events", "requests", "acks")} == {
        "events": 6,
        "requests": 6,
        "acks": 4,
    }


def test_sizes_and_lateness_of_a_type(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    for size, late_s in ((0, 0), (5, 0), (7, 300), (4096, -100)):
        message = SendEventRequest(
            sent_time={"seconds": int(time.time()) - late_s}, events=[{"type": "t", "event_bytes": bytes(size)}] * 2
        )
        peer.post(collector, message.SerializeToString())
    found = get(collector, "type", type="t")["found"]
    sizes = [(it["start"], it["end"], it["events"]) for it in found["size_buckets"]]
    assert [it for it in sizes if it[2]] == [(0, 1, 2), (4, 8, 4), (4096, 8192, 2)]
    assert [it[0] for it in sizes] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    late = {it["start"]: it["events"] for it in found["late_buckets"]}
    assert sum(late.values()) == 8
    assert late[262144] == 2  # ms
    assert late[0] >= 2  # the clock of the client is ahead


def test_the_data_of_a_large_event_is_paged(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, sink="null")
    large = json.dumps({"a": "\u00e9" * 50_000}, ensure_ascii=False).encode()
    events = [{"type": "t", "event_bytes": it} for it in (b"small", large, bytes(5 << 20))]
    peer.post(collector, SendEventRequest(events=events).SerializeToString())
    first = get(collector, "data", number=2)
    assert (first["format"], first["problem"], first["next"], first["characters"]) == ("json", "", None, 50_009)
    assert first["text"].encode() == large
    assert get(collector, "data", number=1)["text"] == "small"
    assert "only the first of the" in refused(collector, "data", number=3)
    assert "not kept any more" in refused(collector, "data", number=4)
    assert "number is missing" in refused(collector, "data")
    # Older ones make room: 20 of 2 MiB.
    for _ in range(20):
        body = SendEventRequest(events=[{"type": "t", "event_bytes": b"x" * (2 << 20)}]).SerializeToString()
        peer.post(collector, body)
    assert "only the first of the" in refused(collector, "data", number=2)
    text, offset = "", 0
    while offset is not None:
        part = get(collector, "data", number=23, offset=offset)
        text, offset = text + part["text"], part["next"]
    assert text == "x" * (2 << 20)


def test_as_many_good_events_as_asked_for(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"t": {"type": "object"}})
    events = [{"type": "t", "event_bytes": it} for it in (b"{}", b"{}", b"{}", b"1", b"2")]
    peer.post(collector, SendEventRequest(events=events).SerializeToString())
    assert [event["number"] for event in get(collector, "good", limit=2)["events"]] == [2, 3]
    assert get(collector, "good", quality="bad")["events"] == []
