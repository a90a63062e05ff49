"""Recognizes TLS failures about the client's certificate."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from raccoon_fast.errors import TLSError

if TYPE_CHECKING:
    import asyncio

    from raccoon_fast.net.address import Address

__all__ = ["is_ended_tls", "refused_certificate", "refuses_certificate"]

# tcpi_state, the first byte of Linux's struct tcp_info (linux/tcp.h).
_ESTABLISHED = 1

# Alerts with which a peer refuses our certificate, or its absence (RFC 8446, 6.2), as OpenSSL names them.
_CERTIFICATE_ALERTS = (
    "CERTIFICATE",  # a part of eight alert names
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
    "ALERT_DECRYPT_ERROR",
)


def refuses_certificate(error: BaseException | None) -> bool:
    """Whether this is a TLS alert with which a peer refuses the client's certificate, or asks for one."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLCertVerificationError):
        return False
    reason = getattr(error, "reason", None) or ""  # our own errors have none
    return any(name in reason for name in _CERTIFICATE_ALERTS)


def refused_certificate(error: BaseException | None, address: Address) -> TLSError:
    """The error for that alert."""
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return TLSError(
        f"{address} refused the client's certificate: {reason}; check that tls=TLS(cert=…, key=…) names a certificate "
        f"that the server's CA issued and that has not expired"
    )


def is_ended_tls(transport: asyncio.Transport) -> bool:
    """Whether the peer has ended this TLS connection, and the event loop has not read yet what it said before that.

    A write would fail, and end the connection with an alert unread. False where the system does not tell (not Linux).
    """
    sock = transport.get_extra_info("socket")
    if transport.get_extra_info("ssl_object") is None or sock is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return False
    return info[0] != _ESTABLISHED
