"""Connection checks: resolves the host, opens TCP, asks the proxy for a tunnel, negotiates TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.doctor.finding import FAIL, OK, WARN, Finding, Findings
from raccoon_fast.cli.doctor.way import open_secure, open_socket
from raccoon_fast.errors import ConnectError, TLSError
from raccoon_fast.net import resolver
from raccoon_fast.net.spread import Spread

if TYPE_CHECKING:
    from raccoon_fast.transports.base import Link

__all__ = ["can_connect", "check_network", "speaks_tls"]

_EXPIRES_SOON_DAYS = 30
_DAY_S = 86400
# Results of a verification (openssl/x509_vfy.h), as in SSLCertVerificationError.verify_code.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUERS = (18, 19, 20, 21)  # self-signed, an untrusted root, no issuer found, a single certificate
_OTHER_NAMES = (62, 64)  # wrong host, wrong address


def check_network(link: Link, timeout_s: float) -> Findings[bool]:
    """Resolves, connects (through the proxy, if any) and checks certificates; returns whether to continue."""
    address, proxy = link.address, link.proxy
    if address.unix_path:
        if not (yield from _open("connect", link, timeout_s, str(address), "start the server, or check the path")):
            return False
    else:
        host, port = (address.host, address.port) if proxy is None else (proxy.host, proxy.port)
        found = yield from _resolve(host, port, "" if proxy is None else f"the proxy {proxy}: ")
        if not (yield from _connect(port, found, timeout_s)):
            return False
        if proxy is not None and not (yield from _tunnel(link, timeout_s)):
            return False
    return (yield from _check_tls(link, timeout_s)) if address.secure else True


def can_connect(link: Link, timeout_s: float) -> bool:
    """Whether something listens there."""
    try:
        open_socket(link, timeout_s).close()
    except OSError:
        return False
    return True


def speaks_tls(link: Link, timeout_s: float) -> bool:
    """Whether a TLS handshake succeeds there, with any certificate."""
    try:
        with open_secure(link, _trusting_context(), timeout_s):
            return True
    except OSError:
        return False


def _resolve(host: str, port: int, whose: str) -> Findings[list[str]]:
    """The addresses, in the order in which clients try them."""
    began_s = time.perf_counter()
    try:
        found = asyncio.run(_look_up(host, port))
    except OSError as error:
        fix = "check the name; if it is right, check this machine's DNS (/etc/resolv.conf) or its search domain"
        yield Finding("resolve", FAIL, f"{whose}{host}: {error.strerror or error}", fix)
        return []
    yield Finding("resolve", OK, f"{whose}{host} is {', '.join(found)} ({_ms(time.perf_counter() - began_s)})")
    return found


async def _look_up(host: str, port: int) -> list[str]:
    found = Spread().order(await resolver.look_up(host, port))
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _connect(port: int, hosts: list[str], timeout_s: float) -> Findings[bool]:
    """Tries each address, including addresses that clients would skip."""
    answers: list[str] = []
    works = slow = refused = False
    for host in hosts:
        began_s = time.perf_counter()
        try:
            socket.create_connection((host, port), timeout_s).close()
        except OSError as error:
            slow |= isinstance(error, TimeoutError)
            refused |= isinstance(error, ConnectionRefusedError)
            answers.append(f"{host}: {error.strerror or error}")
        else:
            works = True
            answers.append(f"{host} in {_ms(time.perf_counter() - began_s)}")
    if works:
        detail = f"port {port}: {', '.join(answers)}"
        fix = "a new connection may wait 0.25 s for the address that does not answer: remove it from DNS, or fix it"
        yield Finding("connect", WARN, detail, fix) if slow else Finding("connect", OK, detail)
    elif hosts:
        fix = (
            "nothing listens there: start the server, or check the port"
            if refused
            else ("no answer: look for a firewall, and check address and port")
        )
        yield Finding("connect", FAIL, f"port {port}: {', '.join(answers)}", fix)
    return works


def _tunnel(link: Link, timeout_s: float) -> Findings[bool]:
    detail = f"{link.proxy} connects to {link.address.authority}"
    fix = (
        "have the proxy allow this host and port, give its user and password (--proxy), or exempt the "
        "server from it (NO_PROXY)"
    )
    return (yield from _open("proxy", link, timeout_s, detail, fix))


def _open(check: str, link: Link, timeout_s: float, detail: str, fix: str) -> Findings[bool]:
    began_s = time.perf_counter()
    try:
        open_socket(link, timeout_s).close()
    except OSError as error:
        said = str(error) if isinstance(error, ConnectError) else f"{link.address}: {error.strerror or error}"
        yield Finding(check, FAIL, said, fix)
        return False
    yield Finding(check, OK, f"{detail} in {_ms(time.perf_counter() - began_s)}")
    return True


def _check_tls(link: Link, timeout_s: float) -> Findings[bool]:
    address = link.address
    try:
        context = link.ssl_context()
    except TLSError as error:
        yield Finding("tls", FAIL, str(error), "set RACCOON_FAST_TLS_PASSWORD")
        return False
    assert context is not None
    is_grpc = address.scheme == "grpcs"
    if is_grpc:
        context.set_alpn_protocols(["h2"])
    failure: ssl.SSLError | None = None
    version = alpn = ""
    try:
        with open_secure(link, context, timeout_s) as connection:
            version, alpn = connection.version() or "", connection.selected_alpn_protocol() or ""
    except ssl.SSLError as error:
        failure = error
    except OSError as error:
        yield Finding("tls", FAIL, f"the handshake ended early: {error}", "is this the port of a TLS server?")
        return False
    chain = _chain(link, timeout_s)
    if failure is not None and not chain:
        plain = {"https": "http", "wss": "ws", "grpcs": "grpc"}[address.scheme]
        fix = f"is this a port for plain text? Then use {plain}://"
        yield Finding("tls", FAIL, f"no handshake: {failure.reason or failure}", fix)
        return False
    names = [_name(certificate, "subject") for certificate in chain]
    detail = " <- ".join(dict.fromkeys([*names, _name(chain[-1], "issuer")])) if chain else "the certificate"
    if failure is not None:
        yield _untrusted(link, failure, chain, detail)
        return False
    if is_grpc and alpn != "h2":
        fix = "the proxy before the server must offer HTTP/2 (h2) by ALPN, which gRPC needs"
        yield Finding("tls", FAIL, f"{version}, without HTTP/2", fix)
        return False
    yield _expiry(chain, f"{version}: {detail}")
    return True


def _untrusted(link: Link, failure: ssl.SSLError, chain: list[dict[str, Any]], detail: str) -> Finding:
    code = getattr(failure, "verify_code", 0)
    said = getattr(failure, "verify_message", "") or failure.reason or str(failure)
    if code in (_EXPIRED, _NOT_YET_VALID):
        dates = ", ".join(f"{one['notBefore']} to {one['notAfter']}" for one in chain)
        return Finding("tls", FAIL, f"{detail}: {said} ({dates})", "renew the certificate, or set this machine's clock")
    if code in _OTHER_NAMES:
        names = ", ".join(value for _, value in chain[0].get("subjectAltName", ()))
        asked = link.server_hostname or link.address.server_name
        fix = (
            f"use a name in the certificate ({names or 'it has none'}), set it as --server-hostname, or get a "
            f"certificate for {asked}"
        )
        return Finding("tls", FAIL, f"{detail}: {said}", fix)
    if code in _UNKNOWN_ISSUERS:
        fix = "set the CA's certificate with --ca (RACCOON_FAST_TLS_CA), or make the server send its whole chain"
        return Finding("tls", FAIL, f"{detail}: {said}", fix)
    return Finding(
        "tls", FAIL, f"{detail}: {said}", "check the server's TLS settings; for a client certificate set --cert"
    )


def _expiry(chain: list[dict[str, Any]], detail: str) -> Finding:
    if not chain:
        return Finding("tls", OK, detail)
    first = min(chain, key=lambda one: ssl.cert_time_to_seconds(one["notAfter"]))
    days = int((ssl.cert_time_to_seconds(first["notAfter"]) - time.time()) // _DAY_S)
    detail = f"{detail}; valid until {first['notAfter']} ({days} days)"
    if days < _EXPIRES_SOON_DAYS:
        return Finding("tls", WARN, detail, f"renew the certificate of {_name(first, 'subject')}")
    return Finding("tls", OK, detail)


def _trusting_context() -> ssl.SSLContext:
    """A context to inspect certificates with; nothing is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _chain(link: Link, timeout_s: float) -> list[dict[str, Any]]:
    """The server's certificates as from getpeercert(), its own first; empty if they cannot be read."""
    try:
        with open_secure(link, _trusting_context(), timeout_s) as connection:
            # The ssl module has no public API for untrusted certificates, and those are the interesting ones.
            inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
            return [one.get_info() for one in inner.get_unverified_chain()]
    except (OSError, AttributeError):
        return []


def _name(certificate: dict[str, Any], whose: str) -> str:
    """The most useful part of a distinguished name."""
    parts = {key: value for pairs in certificate.get(whose, ()) for key, value in pairs}
    for key in ("commonName", "organizationalUnitName", "organizationName"):
        if key in parts:
            return str(parts[key])
    return "an empty name"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
