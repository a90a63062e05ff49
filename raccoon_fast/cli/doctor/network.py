"""From a name to a connection: addresses, TCP, TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.doctor.finding import FAIL, OK, WARN, Finding, Findings

if TYPE_CHECKING:
    from raccoon_fast.net.address import Address
    from raccoon_fast.transports.base import Link

__all__ = ["can_connect", "check_network", "speaks_tls"]

_EXPIRES_SOON_DAYS = 30
_DAY_S = 86400
# Results of a verification (openssl/x509_vfy.h), as in SSLCertVerificationError.verify_code.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUERS = (18, 19, 20, 21)  # itself, a root that is not trusted, none to be found, one certificate alone
_OTHER_NAMES = (62, 64)  # of a host, of an address


def check_network(link: Link, timeout_s: float) -> Findings[bool]:
    """Resolves, connects and, for a secure address, looks at the certificates; returns whether to go on."""
    address = link.address
    found = yield from _resolve(address)
    if not (yield from _connect(address, found, timeout_s)):
        return False
    return (yield from _check_tls(link, timeout_s)) if address.secure else True


def can_connect(address: Address, timeout_s: float) -> bool:
    """Whether anything listens there."""
    try:
        socket.create_connection((address.host, address.port), timeout_s).close()
    except OSError:
        return False
    return True


def speaks_tls(address: Address, timeout_s: float) -> bool:
    """Whether a TLS handshake succeeds there, whatever the certificate is."""
    try:
        with _handshake(address, _trusting_context(), timeout_s):
            return True
    except OSError:
        return False


def _resolve(address: Address) -> Findings[list[str]]:
    began_s = time.perf_counter()
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        fix = "check the name; if it is right, this machine's DNS (/etc/resolv.conf), or its search domain"
        yield Finding("resolve", FAIL, f"{address.host}: {error.strerror or error}", fix)
        return []
    hosts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    yield Finding("resolve", OK, f"{address.host} is {', '.join(hosts)} ({_ms(time.perf_counter() - began_s)})")
    return hosts


def _connect(address: Address, hosts: list[str], timeout_s: float) -> Findings[bool]:
    times: list[str] = []
    failures: list[str] = []
    slow = refused = False
    for host in hosts:
        began_s = time.perf_counter()
        try:
            socket.create_connection((host, address.port), timeout_s).close()
        except OSError as error:
            slow |= isinstance(error, TimeoutError)
            refused |= isinstance(error, ConnectionRefusedError)
            failures.append(f"{host}: {error.strerror or error}")
        else:
            times.append(f"{host} in {_ms(time.perf_counter() - began_s)}")
    if times:
        detail = f"port {address.port}: {', '.join([*times, *failures])}"
        fix = (
            "every connection may wait for the address that does not answer: take it out of DNS, or open the way to it"
        )
        yield Finding("connect", WARN, detail, fix) if slow else Finding("connect", OK, detail)
    elif hosts:
        fix = (
            "nothing listens there: start the server, or check the port"
            if refused
            else ("nothing comes back: look for a firewall, and check address and port")
        )
        yield Finding("connect", FAIL, f"port {address.port}: {', '.join(failures)}", fix)
    return bool(times)


def _check_tls(link: Link, timeout_s: float) -> Findings[bool]:
    address = link.address
    context = link.ssl_context()
    assert context is not None
    is_grpc = address.scheme == "grpcs"
    if is_grpc:
        context.set_alpn_protocols(["h2"])
    failure: ssl.SSLError | None = None
    version = alpn = ""
    try:
        with _handshake(address, context, timeout_s) as connection:
            version, alpn = connection.version() or "", connection.selected_alpn_protocol() or ""
    except ssl.SSLError as error:
        failure = error
    except OSError as error:
        yield Finding("tls", FAIL, f"the handshake ended early: {error}", "is there a TLS server at this port?")
        return False
    chain = _chain(address, timeout_s)
    if failure is not None and not chain:
        plain = {"https": "http", "wss": "ws", "grpcs": "grpc"}[address.scheme]
        fix = f"is this a port for plain text? Then use {plain}://"
        yield Finding("tls", FAIL, f"no handshake: {failure.reason or failure}", fix)
        return False
    names = [_name(certificate, "subject") for certificate in chain]
    detail = " <- ".join(dict.fromkeys([*names, _name(chain[-1], "issuer")])) if chain else "the certificate"
    if failure is not None:
        yield _untrusted(address, failure, chain, detail)
        return False
    if is_grpc and alpn != "h2":
        fix = "the proxy before the server must offer HTTP/2 (h2) by ALPN, which gRPC needs"
        yield Finding("tls", FAIL, f"{version}, without HTTP/2", fix)
        return False
    yield _expiry(chain, f"{version}: {detail}")
    return True


def _untrusted(address: Address, failure: ssl.SSLError, chain: list[dict[str, Any]], detail: str) -> Finding:
    code = getattr(failure, "verify_code", 0)
    said = getattr(failure, "verify_message", "") or failure.reason or str(failure)
    if code in (_EXPIRED, _NOT_YET_VALID):
        dates = ", ".join(f"{one['notBefore']} to {one['notAfter']}" for one in chain)
        return Finding("tls", FAIL, f"{detail}: {said} ({dates})", "renew the certificate, or set this machine's clock")
    if code in _OTHER_NAMES:
        names = ", ".join(value for _, value in chain[0].get("subjectAltName", ()))
        fix = f"use a name that the certificate is for ({names or 'it has none'}), or have one made for {address.host}"
        return Finding("tls", FAIL, f"{detail}: {said}", fix)
    if code in _UNKNOWN_ISSUERS:
        fix = "name the CA's certificate by --ca (RACCOON_FAST_TLS_CA), or let the server send its whole chain"
        return Finding("tls", FAIL, f"{detail}: {said}", fix)
    return Finding("tls", FAIL, f"{detail}: {said}", "see the server's TLS settings; a client's certificate is --cert")


def _expiry(chain: list[dict[str, Any]], detail: str) -> Finding:
    if not chain:
        return Finding("tls", OK, detail)
    first = min(chain, key=lambda one: ssl.cert_time_to_seconds(one["notAfter"]))
    days = int((ssl.cert_time_to_seconds(first["notAfter"]) - time.time()) // _DAY_S)
    detail = f"{detail}; valid until {first['notAfter']} ({days} days)"
    if days < _EXPIRES_SOON_DAYS:
        return Finding("tls", WARN, detail, f"renew the certificate of {_name(first, 'subject')}")
    return Finding("tls", OK, detail)


@contextlib.contextmanager
def _handshake(address: Address, context: ssl.SSLContext, timeout_s: float) -> Any:
    with (
        socket.create_connection((address.host, address.port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as connection,
    ):
        yield connection


def _trusting_context() -> ssl.SSLContext:
    """To look at certificates, never to send anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _chain(address: Address, timeout_s: float) -> list[dict[str, Any]]:
    """What the server shows, its own first, as getpeercert() has it; nothing where it cannot be had."""
    try:
        with _handshake(address, _trusting_context(), timeout_s) as connection:
            # The ssl module has no public way to certificates that are not trusted, and they are what needs a look.
            return [one.get_info() for one in connection._sslobj.get_unverified_chain()]  # noqa: SLF001
    except (OSError, AttributeError):
        return []


def _name(certificate: dict[str, Any], whose: str) -> str:
    """The most telling of a distinguished name's parts."""
    parts = {key: value for pairs in certificate.get(whose, ()) for key, value in pairs}
    for key in ("commonName", "organizationalUnitName", "organizationName"):
        if key in parts:
            return str(parts[key])
    return "a name of no parts"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
