"""What a URL may be, and what it means."""

from __future__ import annotations

import pytest

from raccoon_fast.net.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "protocol", "expected"),
    [
        ("http://h", "REST", Address("http", "h", 80, "/api/v1/events", False)),
        ("http://h/", "REST", Address("http", "h", 80, "/api/v1/events", False)),
        ("https://h", "REST", Address("https", "h", 443, "/api/v1/events", True)),
        ("https://h:80/other?x=1", "REST", Address("https", "h", 80, "/other?x=1", True)),
        ("http://h?x=1", "REST", Address("http", "h", 80, "/api/v1/events?x=1", False)),
        ("HTTP://H:8080", "REST", Address("http", "h", 8080, "/api/v1/events", False)),
        ("ws://h:8080", "WebSocket", Address("ws", "h", 8080, "/api/v1/events", False)),
        ("wss://h", "WebSocket", Address("wss", "h", 443, "/api/v1/events", True)),
        ("h:8081", "gRPC", Address("grpc", "h", 8081, "", False)),
        ("h", "gRPC", Address("grpc", "h", 8081, "", False)),
        ("grpc://h", "gRPC", Address("grpc", "h", 8081, "", False)),
        ("grpcs://h", "gRPC", Address("grpcs", "h", 443, "", True)),
        ("grpc://[::1]:5/", "gRPC", Address("grpc", "::1", 5, "", False)),
        ("http://[::1]:8080", "REST", Address("http", "::1", 8080, "/api/v1/events", False)),
        ("http://u:p@h", "REST", Address("http", "h", 80, "/api/v1/events", False, ("u", "p"))),
        ("http://u@h", "REST", Address("http", "h", 80, "/api/v1/events", False, ("u", ""))),
        ("http://b\u00fccher.example", "REST", Address("http", "b\u00fccher.example", 80, "/api/v1/events", False)),
    ],
)
def test_what_it_means(url: str, protocol: str, expected: Address) -> None:
    assert parse_address(url, protocol) == expected


@pytest.mark.parametrize(
    ("url", "protocol", "said"),
    [
        ("ftp://h", "REST", "http://host:port or https://host:port for REST"),
        ("ws://h", "REST", "for REST"),
        ("http://h", "WebSocket", "ws://host:port or wss://host:port for WebSocket"),
        ("http://h", "gRPC", "grpc://host:port or grpcs://host:port for gRPC"),
        ("h:8080", "REST", "for REST"),
        ("http://", "REST", "must name a host"),
        ("http://:80", "REST", "must name a host"),
        ("", "REST", "for REST"),
        ("", "gRPC", "must name a host"),
        ("http://h:0", "REST", "1 to 65535"),
        ("http://h:65536", "REST", "ort"),
        ("http://h:eight", "REST", "ort"),
        ("http://h/#top", "REST", "#fragment"),
        ("http://h/\u20ac", "REST", "percent-encoded"),
        ("http://h\r\nX-Evil: 1", "REST", "control characters"),
        ("http://h /", "REST", "spaces"),
        ("http://h\x7f/", "REST", "control characters"),
        ("grpc://h/path", "gRPC", "must not have a path"),
        ("grpc://h?x", "gRPC", "must not have a path"),
        ("http://" + "a" * 64 + ".example", "REST", "not a valid name"),
        ("http://[::1", "REST", "."),
    ],
)
def test_what_is_none_is_refused(url: str, protocol: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(url, protocol)


@pytest.mark.parametrize("url", [None, b"http://h", 8080])
def test_only_text(url: object) -> None:
    with pytest.raises(TypeError, match=type(url).__name__):
        parse_address(url, "REST")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://h", "h"),
        ("http://h:443", "h:443"),
        ("https://h:443", "h"),
        ("http://[::1]", "[::1]"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_authority(url: str, authority: str) -> None:
    assert parse_address(url, "REST").authority == authority
    assert parse_address("h:8081", "gRPC").authority == "h:8081"


def test_a_password_is_never_shown() -> None:
    assert str(parse_address("http://user:secret@h:8080", "REST")) == "http://h:8080/api/v1/events"
    for url in ("http://user:secret@h:0", "ftp://user:secret@h", "http://user:secret@", "user:secret@h"):
        with pytest.raises(ValueError, match=r"url") as caught:
            parse_address(url, "REST")
        assert "secret" not in str(caught.value)
        assert "user" not in str(caught.value)
