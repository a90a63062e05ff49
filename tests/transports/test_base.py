"""Code shared by transports: the peer's own texts, and TLS's errors about certificates."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from raccoon_fast.errors import ConnectionLostError, Outcome, TLSError
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.net.tcp import connect_error
from raccoon_fast.stats import resolve_stats
from raccoon_fast.transports.base import Identity, Link, lost_error, worse

ADDRESS = parse_address("https://h", "REST")
# As OpenSSL names the alerts of RFC 8446, 6.2.
REFUSALS = [
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_DECRYPT_ERROR",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
]


def link(**options: Any) -> Link:
    given: dict[str, Any] = {"headers": {}, "authorization": None, **options}
    return Link(
        address=ADDRESS,
        identity=Identity(),
        tls=None,
        user_agent="tests",
        connect_timeout_s=1.0,
        stats=resolve_stats(None),
        logger=resolve_logger(None),
        **given,
    )


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", ""),
        (b"<html>\r\n<h1>No</h1>\t you\n", "<html> <h1>No</h1> you"),
        ("caf\u00e9\nline", "caf\u00e9 line"),
        (b"\x1b[31mred\x00\x07", "[31mred"),
        ("left\u202eright", "leftright"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 5000, "x" * 200),
    ],
)
def test_quoted_text_is_one_line_and_bounded(said: bytes | str, words: str) -> None:
    assert link().words(said) == words


def test_quoted_text_contains_no_secrets() -> None:
    """A proxy may show the request's headers on its error page."""
    one = link(headers={"X-Api-Key": "key-of-mine", "X-Short": "a"}, authorization=lambda: "Bearer " + "t" * 3000)
    one.request_headers()
    shown = "GET a X-Api-Key: key-of-mine Authorization: Bearer " + "t" * 3000 + " and token " + "t" * 3000
    assert one.words(shown) == "GET a X-Api-Key: *** Authorization: *** and token ***"
    assert "key-of-mine" not in repr(one.words(shown))


def test_quoted_text_does_not_contain_the_query() -> None:
    """A server that sends back what it receives shows the request's first line."""
    one = link()
    one.address = ADDRESS._replace(path="/api/v1/events?key=of-mine")
    assert one.words(b"GET /api/v1/events?key=of-mine HTTP/1.1\r\n") == "GET /api/v1/events?*** HTTP/1.1"


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_certificate(reason: str) -> None:
    """With TLS 1.2 the alert ends the handshake; with TLS 1.3 it comes after the handshake."""
    for error in (connect_error(alert(reason), ADDRESS), lost_error(alert(reason), ADDRESS, is_silent=True)):
        assert isinstance(error, TLSError)
        assert (error.outcome, error.retryable) == (Outcome.NOT_DELIVERED, False)
        assert "refused the client's certificate" in str(error)
        assert reason in str(error)


@pytest.mark.parametrize("reason", [*REFUSALS, "TLSV1_ALERT_INTERNAL_ERROR"])
def test_an_alert_after_an_answer_is_about_something_else(reason: str) -> None:
    error = lost_error(alert(reason), ADDRESS)
    assert type(error) is ConnectionLostError
    assert error.outcome is Outcome.POSSIBLY_DELIVERED


def test_a_failed_handshake() -> None:
    for error in (
        connect_error(alert("SSLV3_ALERT_HANDSHAKE_FAILURE"), ADDRESS),
        lost_error(alert("SSLV3_ALERT_HANDSHAKE_FAILURE"), ADDRESS, is_silent=True),
    ):
        assert isinstance(error, TLSError)
        assert "client certificate?" in str(error)
    assert "TLS port?" in str(connect_error(alert("WRONG_VERSION_NUMBER"), ADDRESS))


def test_possibly_delivered_stays_possibly_delivered() -> None:
    no, perhaps = Outcome.NOT_DELIVERED, Outcome.POSSIBLY_DELIVERED
    assert [worse(no, no), worse(no, perhaps), worse(perhaps, no)] == [no, perhaps, perhaps]
