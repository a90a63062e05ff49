"""Request targets as Go parses them, and gorilla/mux's redirects."""

from __future__ import annotations

import pytest

from raccoon_fast.collector.go_url import clean_path, origin_host, parse_target


@pytest.mark.parametrize(
    ("target", "path", "location"),
    [
        (b"/ping", b"/ping", None),
        (b"/api/v1/%65vents?a=b", b"/api/v1/events", None),
        (b"//ping?a=b", b"//ping", b"/ping?a=b"),
        (b"//ping?", b"//ping", b"/ping?"),
        (b"/a/../ping/", b"/a/../ping/", b"/ping/"),
        (b"/a%2F..", b"/a/..", b"/"),
        (b"*", b"*", b"/%2A"),
        (b"http://h//ping", b"//ping", b"http://h/ping"),
        (b"http://u@h:1", b"", b"http://u@h:1/"),
        (b"/\xc3\xa9//", b"/\xc3\xa9//", b"/%C3%A9/"),
        (b"http:x/y?a", b"", b"http:x/y?a"),
    ],
)
def test_targets(target: bytes, path: bytes, location: bytes | None) -> None:
    parsed = parse_target(target)
    assert parsed.path == path
    clean = clean_path(path)
    assert (None if clean == path else parsed.redirected(clean)) == location


@pytest.mark.parametrize(
    "target", [b"", b"ping", b"/%zz", b"/\x00", b":x", b"http://h:x/", b"http://[::1/", b"http://a b/", b"http://%78/"]
)
def test_invalid_targets(target: bytes) -> None:
    with pytest.raises(ValueError):
        parse_target(target)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (b"http://x", b"x"),
        (b"https://X:80/a", b"X:80"),
        (b"null", b""),
        (b"", b""),
        (b"::", None),
        (b"http://%zz", None),
        (b"\x01", None),
        (b"//x", b"x"),
        (b"http://%78", None),
        (b"http://%C3%A9", b"\xc3\xa9"),
        (b"http://[::1%25e%6e0]:80", b"[::1%en0]:80"),
        (b"http://[::1%25%2f]", None),
        (b"http://[::1%25%C3%A9]", None),
    ],
)
def test_origins(origin: bytes, host: bytes | None) -> None:
    assert origin_host(origin) == host
