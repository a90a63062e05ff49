"""Valid and invalid URLs, and their meaning."""

from __future__ import annotations

import pytest

from raccoon_fast.net.address import Address, parse_address, protocol_of


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
        ("http://b\u00fccher.example", "REST", Address("http", "xn--bcher-kva.example", 80, "/api/v1/events", False)),
        ("grpc://\u4f8b\u3048.test:1", "gRPC", Address("grpc", "xn--r8jz45g.test", 1, "", False)),
        ("ws://h.test.:5", "WebSocket", Address("ws", "h.test.", 5, "/api/v1/events", False)),
        ("ws://my_service", "WebSocket", Address("ws", "my_service", 80, "/api/v1/events", False)),
        ("grpc://[fe80::1%25lo]:1", "gRPC", Address("grpc", "fe80::1%lo", 1, "", False)),
        ("grpc://[fe80::1%lo]:1", "gRPC", Address("grpc", "fe80::1%lo", 1, "", False)),
        ("http://us%40er:p%3Ass%2F@h", "REST", Address("http", "h", 80, "/api/v1/events", False, ("us@er", "p:ss/"))),
        ("unix:///run/r.sock", "gRPC", Address("grpc", "localhost", 0, "", False, None, "/run/r.sock")),
        ("unix:///a%20b", "REST", Address("http", "localhost", 0, "/api/v1/events", False, None, "/a b")),
        ("ws+unix:///r", "WebSocket", Address("ws", "localhost", 0, "/api/v1/events", False, None, "/r")),
    ],
)
def test_valid_urls(url: str, protocol: str, expected: Address) -> None:
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
        ("http://a..b", "REST", "not a valid name"),
        ("grpc://.b", "gRPC", "not a valid name"),
        ("ws://\u200d.test", "WebSocket", "not a valid name"),
        ("http://a%62/", "REST", "not a valid name"),
        ("http://a%3Ab:c@h", "REST", "must not contain a colon"),
        ("http://a:%0d@h", "REST", "control characters"),
        ("http://a:%ff@h", "REST", "percent-encoded UTF-8"),
        ("http+unix:///r", "gRPC", "for gRPC"),
        ("unix://run/r.sock", "REST", "unix:///run/r.sock"),
        ("unix:///", "REST", "must have a path"),
        ("unix:///r?x", "REST", "query"),
        ("unix:///" + "r" * 107, "REST", "at most 107 bytes"),
    ],
)
def test_invalid_urls_are_refused(url: str, protocol: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(url, protocol)


@pytest.mark.parametrize("url", [None, b"http://h", 8080])
def test_only_text(url: object) -> None:
    with pytest.raises(TypeError, match="not None: " if url is None else type(url).__name__):
        parse_address(url, "REST")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "protocol", "authority", "server_name", "shown"),
    [
        ("http://h", "REST", "h", "h", "http://h/api/v1/events"),
        ("http://h:443", "REST", "h:443", "h", "http://h:443/api/v1/events"),
        ("https://h:443", "REST", "h", "h", "https://h/api/v1/events"),
        ("https://h:80", "REST", "h:80", "h", "https://h:80/api/v1/events"),
        ("http://[::1]", "REST", "[::1]", "::1", "http://[::1]/api/v1/events"),
        ("http://[::1]:8080", "REST", "[::1]:8080", "::1", "http://[::1]:8080/api/v1/events"),
        ("https://[fe80::1%25lo]", "REST", "[fe80::1]", "fe80::1", "https://[fe80::1]/api/v1/events"),
        ("wss://h.test.", "WebSocket", "h.test.", "h.test", "wss://h.test./api/v1/events"),
        ("h:8081", "gRPC", "h:8081", "h", "grpc://h:8081"),
        ("grpc://h:80", "gRPC", "h", "h", "grpc://h:80"),
        ("grpcs://h", "gRPC", "h", "h", "grpcs://h:443"),
        ("grpcs://h:8443", "gRPC", "h:8443", "h", "grpcs://h:8443"),
        ("unix:///r", "gRPC", "localhost", "localhost", "grpc+unix:///r"),
        ("unix:///r", "REST", "localhost", "localhost", "http+unix:///r"),
    ],
)
def test_one_url_has_several_uses(url: str, protocol: str, authority: str, server_name: str, shown: str) -> None:
    address = parse_address(url, protocol)
    assert (address.authority, address.server_name, str(address)) == (authority, server_name, shown)
    assert address.uri == f"{address.scheme}://{authority}{address.path}"


@pytest.mark.parametrize(
    ("url", "protocol"),
    [("http://h", "REST"), ("WSS://h", "WebSocket"), ("grpc://h", "gRPC"), ("ws+unix:///r", "WebSocket")],
)
def test_a_scheme_names_a_protocol(url: str, protocol: str) -> None:
    assert protocol_of(url) == protocol


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8080", "http://localhost:8080, ws://localhost:8080 or grpc://localhost:8080$"),
        ("u:secret@h", "http://…@h, ws://…@h or grpc://…@h$"),
        ("unix:///r", r"http\+unix:///r, ws\+unix:///r or grpc\+unix:///r$"),
        ("unix://u:secret@h", r"http\+unix://…@h, ws\+unix://…@h or grpc\+unix://…@h$"),
        ("ftp://h", "one of http, https, http.unix, ws, "),
    ],
)
def test_a_url_without_a_protocol_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        protocol_of(url)
    with pytest.raises(TypeError, match="bytes"):
        protocol_of(b"http://h")


def test_secrets_are_never_shown() -> None:
    address = parse_address("http://user:secret@h:8080/e?key=secret", "REST")
    assert (str(address), repr(address)) == ("http://h:8080/e", "<Address http://h:8080/e>")
    assert address.uri == "http://h:8080/e?key=secret"
    wrong = ("http://user:secret@h:0", "ftp://user:secret@h", "http://user:secret@", "user:secret@h")
    unix = ("http+unix://user:secret@h/x", "unix:///x?key=secret", "unix:///x#secret")
    query = (
        "http://h:0/?key=secret",
        "http://h/?a=b@c&key=secret#f",
        "http://h/#secret",
        "http://h/#a@secret",
        "ftp://h?key=secret",
    )
    for url in (*wrong, *unix, *query):
        with pytest.raises(ValueError, match=r"url") as caught:
            parse_address(url, "REST")
        assert "secret" not in str(caught.value)
        assert "user" not in str(caught.value)


ODD = [
    "http://u:secret x@h",
    "http://u:secret\n@h",
    "http://u:secret@h:99999",
    "http://u:secret@h:port",
    "http://u:secret/x@h",
    "http://u:secret#@h/",
    "http://u:secret?@h/",
    "http://u:secret@h/é",
    "http://u:1/secret@h/é",
    "http://u:secret@h#f",
    "http://u:secret@[::1",
    "http://u:[secret@h",
    "http://u:secret@h..x",
    "http:/u:secret@h",
    "//u:secret@h",
    "http://u:secret@h\u2100",
    "http://u:secret\uff20h\u2100",
    "http://u:secret\uff20h",
    "grpc://u:secret@h/path",
]


@pytest.mark.parametrize("url", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("protocol", ["REST", "WebSocket", "gRPC"])
def test_a_password_that_needs_percent_encoding_is_never_shown(url: str, protocol: str) -> None:
    with pytest.raises(ValueError, match="url") as caught:
        parse_address(url, protocol)
    assert "secret" not in f"{caught.value!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
