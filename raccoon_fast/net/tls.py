"""Recognizes TLS failures about the client's certificate."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from raccoon_fast.errors import TLSError

if TYPE_CHECKING:
    from raccoon_fast.net.address import Address

__all__ = ["refused_certificate", "refuses_certificate"]

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
