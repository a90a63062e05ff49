"""The meaning of HTTP answers."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from scripted import answer

from raccoon_fast.errors import MessageTooLargeError, Outcome, ProtocolError, ServerError
from raccoon_fast.events import Code, Status
from raccoon_fast.net.address import parse_address
from raccoon_fast.texts import one_line
from raccoon_fast.transports.http_answers import read_answer, retry_after_s, status_is_retryable

ADDRESS = parse_address("http://h", "REST")
JSON = b'{"status":1,"code":1,"sent_time":7,"data":{"req_guid":"g"}}'


def read(status: int, body: bytes, content_type: str = "application/proto", retry_after: str = "", wire: str = "proto"):
    headers = {"content-type": content_type, "retry-after": retry_after}
    return read_answer(status, body, headers.__getitem__, wire=wire, req_guid="g", address=ADDRESS, words=repr)


def test_transient_statuses() -> None:
    retryable = [status for status in range(100, 700) if status_is_retryable(status)]
    assert retryable == [408, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("100000", 300.0),
        ("inf", 300.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Thu, 01 Jan 2150 00:00:00 GMT", 300.0),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_retry_after_a_date() -> None:
    assert 50.0 < retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60.0


@pytest.mark.parametrize("wire", ["proto", "json"])
@pytest.mark.parametrize("body", [answer("g"), JSON], ids=["proto", "json"])
@pytest.mark.parametrize("content_type", ["application/proto", "application/json; charset=utf-8", "", "text/odd"])
def test_an_answer_of_any_content_type_is_read(wire: str, body: bytes, content_type: str) -> None:
    response = read(200, body, content_type, wire=wire)
    assert (response.status, response.code, response.req_guid) == (Status.SUCCESS, Code.OK, "g")


@pytest.mark.parametrize("body", [b"", b"hello", b"{}", b"\x00", b"<html>", b"[1]", b'{"status":0,"code":0}'])
def test_a_bare_200_is_not_an_acknowledgement(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a Raccoon's answer"):
        read(200, body)


LONG = "cannot publish:\nERROR forged \x1b[31m " + "x" * 100_000


@pytest.mark.parametrize(("status", "body"), [(500, answer("g", status=2, code=3, reason=LONG)), (200, answer(LONG))])
def test_a_server_s_words_are_one_short_line(status: int, body: bytes) -> None:
    def words(said: bytes | str) -> str:
        return one_line(said if isinstance(said, str) else said.decode("latin-1"))

    with pytest.raises((ServerError, ProtocolError)) as caught:
        read_answer(status, body, lambda name: "", wire="proto", req_guid="g", address=ADDRESS, words=words)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    if isinstance(caught.value, ServerError):
        assert caught.value.response is not None
        assert caught.value.response.reason == LONG


def test_an_answer_to_another_request_is_not_an_acknowledgement() -> None:
    with pytest.raises(ProtocolError, match="answered for 'other' when asked about 'g'"):
        read(200, answer("other"))


def test_too_large() -> None:
    with pytest.raises(MessageTooLargeError, match="413"):
        read(413, b"")


@pytest.mark.parametrize(
    ("status", "retryable", "outcome", "said"),
    [
        (302, False, Outcome.NOT_DELIVERED, "redirects are not followed"),
        (400, False, Outcome.NOT_DELIVERED, "answered 400"),
        (404, False, Outcome.NOT_DELIVERED, "no Raccoon at this path"),
        (429, True, Outcome.NOT_DELIVERED, "answered 429"),
        (500, True, Outcome.POSSIBLY_DELIVERED, "answered 500"),
        (503, True, Outcome.POSSIBLY_DELIVERED, "answered 503"),
    ],
)
def test_other_statuses(status: int, retryable: bool, outcome: Outcome, said: str) -> None:
    with pytest.raises(ServerError, match=said) as caught:
        read(status, b"<html>", "text/html", retry_after="2")
    error = caught.value
    assert (error.status, error.retryable, error.outcome, error.response) == (status, retryable, outcome, None)
    assert error.retry_after_s == 2.0


def test_the_error_contains_the_given_reason() -> None:
    with pytest.raises(ServerError, match="400: BAD_REQUEST, 'no such thing'") as caught:
        read(400, answer(None, status=2, code=2, reason="no such thing"))
    assert caught.value.response.reason == "no such thing"
