"""JSON is read and written as Go's encoding/json does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raccoon_fast.collector.decode_errors import HandlerPanic, MalformedRequest
from raccoon_fast.collector.go_json import decode_json_request, encode_json_answer
from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse


def fields(text: str | bytes) -> Any:
    request = decode_json_request(text if isinstance(text, bytes) else text.encode())
    assert isinstance(request, SendEventRequest)
    return request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", SendEventRequest()),
        ("null", SendEventRequest()),
        (' {"req_guid": "g"}\n', SendEventRequest(req_guid="g")),
        ('{"req_guid": null, "events": null, "sent_time": null}', SendEventRequest()),
        # Names match exactly or without regard to case, and the last of several counts; null changes nothing.
        ('{"REQ_GUID": "g"}', SendEventRequest(req_guid="g")),
        ('{"Req_Guid": "a", "req_guid": "b"}', SendEventRequest(req_guid="b")),
        ('{"req_guid": "a", "REQ_guid": "b"}', SendEventRequest(req_guid="b")),
        ('{"req_guid": "a", "req_guid": null}', SendEventRequest(req_guid="a")),
        ('{"reqGuid": "g"}', SendEventRequest()),
        ('{"unknown": [1e999, {"a": []}], "req_guid": "g"}', SendEventRequest(req_guid="g")),
        ('{"req_guid": "\\ud83d\\ude00"}', SendEventRequest(req_guid="\U0001f600")),
        ('{"req_guid": "a\\ud83d"}', SendEventRequest(req_guid="a\ufffd")),
        (b'{"req_guid": "a\xff"}', SendEventRequest(req_guid="a\ufffd")),
        (
            '{"events": [{"event_bytes": "aGk=", "type": "t"}, {}]}',
            SendEventRequest(events=[{"event_bytes": b"hi", "type": "t"}, {}]),
        ),
        ('{"events": [null], "EVENTS": null}', SendEventRequest()),
        ('{"events": [null], "Events": [{"type": "t"}]}', SendEventRequest(events=[{"type": "t"}])),
        ('{"events": [{"event_bytes": [104, null, 105]}]}', SendEventRequest(events=[{"event_bytes": b"h\0i"}])),
        (
            '{"events": [{"event_bytes": "aGk=", "type": "a"}, {}], "events": [{"type": "b"}]}',
            SendEventRequest(events=[{"event_bytes": b"hi", "type": "b"}]),
        ),
        ('{"unknown": %s, "req_guid": "g"}' % ("9" * 6000), SendEventRequest(req_guid="g")),
        ('{"unknown": %s, "req_guid": "g"}' % ("[" * 9999 + "]" * 9999), SendEventRequest(req_guid="g")),
        ('{"unknown": ["%s"], "req_guid": "g"}' % ('[{\\"' * 10_000), SendEventRequest(req_guid="g")),
        ('{"unknown": [%s[]], "req_guid": "g"}' % ("[{}]," * 10_000), SendEventRequest(req_guid="g")),
        ('{"events": [{"event_bytes": "aG\\nk="}]}', SendEventRequest(events=[{"event_bytes": b"hi"}])),
        ('{"events": [{"event_bytes": ""}]}', SendEventRequest(events=[{}])),
    ],
)
def test_accepts(text: str | bytes, expected: Any) -> None:
    assert fields(text) == expected


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(0, 0), (1_700_000_000, 123_456_789), (-1, -1), (2**63 - 1, 2**31 - 1), (-(2**63), -(2**31))]
)
def test_sent_time(seconds: int, nanos: int) -> None:
    request = fields(json.dumps({"sent_time": {"seconds": seconds, "nanos": nanos, "unknown": 1}}))
    assert (request.sent_time.seconds, request.sent_time.nanos) == (seconds, nanos)
    assert request.HasField("sent_time")


def test_an_empty_sent_time_is_present() -> None:
    assert fields('{"sent_time": {}}').HasField("sent_time")
    assert not fields('{"sent_time": null}').HasField("sent_time")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '"text"',
        "{} {}",
        "{}x",
        '\ufeff{"req_guid": "g"}',
        '{"req_guid": 1}',
        '{"req_guid": ["g"]}',
        '{"req_guid": NaN}',
        '{"unknown": Infinity}',
        '{"req_guid": "a\x01"}',
        '{"sent_time": "2023-11-14T22:13:20Z"}',
        '{"sent_time": 1700000000}',
        '{"sent_time": []}',
        '{"sent_time": {"seconds": "1700000000"}}',
        '{"sent_time": {"seconds": 1.5}}',
        '{"sent_time": {"seconds": 1.0}}',
        '{"sent_time": {"seconds": 1e3}}',
        '{"sent_time": {"seconds": true}}',
        '{"sent_time": {"seconds": 9223372036854775808}}',
        '{"sent_time": {"nanos": 2147483648}}',
        '{"events": {}}',
        '{"events": "aGk="}',
        '{"events": [1]}',
        '{"events": [{"type": 1}]}',
        '{"events": [{"event_bytes": 1}]}',
        '{"events": [{"event_bytes": "aGk"}]}',
        '{"events": [{"event_bytes": "aGk=="}]}',
        '{"events": [{"event_bytes": "____"}]}',
        '{"events": [{"event_bytes": "a k="}]}',
        '{"events": [{"event_bytes": "="}]}',
        "[" * 100_000,
        '{"unknown": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        fields(text)


@pytest.mark.parametrize("text", ["", "{", '{"req_guid"', '{"req_guid":', '{"req_guid": "g', '{"req_guid": "g"', "[1,"])
def test_reports_truncated_json_as_go_does(text: str) -> None:
    with pytest.raises(ValueError, match=r"^unexpected end of JSON input$"):
        fields(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"unknown": %s' % ("[" * 10_000), "exceeded max depth"),
        ('{"unknown": "\\"[", "b": ' + '{"a":' * 9_999 + "{}" + "}" * 10_000, "exceeded max depth"),
        ("{} %s" % ("[" * 10_001), "after top-level value"),
        ('{"unknown": "%s' % ("[" * 10_001), "unexpected end of JSON input|invalid character '\"'"),
    ],
    ids=["lists", "objects", "behind the value", "in a string without an end"],
)
def test_refuses_json_nested_deeper_than_go_reads(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fields(text)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (SendEventResponse(), b"{}"),
        (
            SendEventResponse(status=1, code=1, sent_time=5, data={"req_guid": "g"}),
            b'{"status":1,"code":1,"sent_time":5,"data":{"req_guid":"g"}}',
        ),
        (SendEventResponse(data={"req_guid": ""}), b'{"data":{"req_guid":""}}'),
        (SendEventResponse(reason='<&>"\\\u2028'), b'{"reason":"\\u003c\\u0026\\u003e\\"\\\\\\u2028"}'),
        (SendEventResponse(reason="\u00e9"), '{"reason":"\u00e9"}'.encode()),
        (SendEventResponse(data={"b": "2", "a": "1"}), b'{"data":{"a":"1","b":"2"}}'),
    ],
)
def test_encodes(answer: Any, expected: bytes) -> None:
    assert encode_json_answer(answer) == expected


@pytest.mark.parametrize(
    ("text", "req_guid"),
    [
        ('{"req_guid": "g", "events": "x"}', "g"),
        ('{"events": "x", "req_guid": "g"}', "g"),
        ('{"req_guid": "g", "req_guid": 1}', "g"),
        ('{"req_guid": "g", "events": [{"event_bytes": "_"}, {"type": 1}]}', "g"),
        ('{"req_guid": "g"', ""),
        ('{"req_guid": "g", "x": NaN}', ""),
        ('{"req_guid": "g"} x', ""),
        ('["g"]', ""),
    ],
)
def test_the_guid_is_what_go_had_read_before_it_failed(text: str, req_guid: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode_json_request(text.encode())
    assert caught.value.req_guid == req_guid


def test_an_event_that_is_null_makes_the_handler_panic() -> None:
    with pytest.raises(HandlerPanic, match="null"):
        decode_json_request(b'{"events": [{"type": "a"}, null]}')


@pytest.mark.parametrize(
    ("torn", "read"),
    [
        (b"\xf0\x9f\x98", "\N{REPLACEMENT CHARACTER}" * 3),
        (b"\xe2\x82\xe2\x82\xac", "\N{REPLACEMENT CHARACTER}" * 2 + "\N{EURO SIGN}"),
        (b"\xed\xa0\x80", "\N{REPLACEMENT CHARACTER}" * 3),
    ],
)
def test_each_byte_that_is_not_utf_8_is_replaced(torn: bytes, read: str) -> None:
    assert decode_json_request(b'{"req_guid": "%s"}' % torn).req_guid == read
