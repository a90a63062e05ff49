"""TLS options as files, which all three transports can use."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from raccoon_fast.errors import TLSError

if TYPE_CHECKING:
    import os

__all__ = ["TLS"]


@dataclass(frozen=True)
class TLS:
    """Certificates in PEM files.

    The server's certificate and host name are always verified; no option turns that off, but your own
    `ssl.SSLContext` can.

    Args:
        ca: The file with the CA certificates to trust; None trusts the system's.
        cert: The file with the client's certificate chain, for mutual TLS.
        key: The file with the client's private key; None reads it from `cert`.
        password: The password of an encrypted private key. Never shown, and never asked for at a terminal.

    Raises:
        ValueError: `key` or `password` without `cert`.
        TypeError: `password` is neither str nor bytes.
        FileNotFoundError: A file does not exist.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    password: str | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise ValueError("TLS(key=…) needs cert=… too: the certificate that belongs to the key")
        if self.password is not None:
            if not isinstance(self.password, (str, bytes)):
                raise TypeError(f"TLS(password=…) takes a str, not {type(self.password).__name__}")
            if self.cert is None:
                raise ValueError("TLS(password=…) needs the private key that it opens: TLS(cert=…, key=…, password=…)")
        for option in ("ca", "cert", "key"):
            path = getattr(self, option)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"TLS({option}=…): no such file: {path}")

    def ssl_context(self) -> ssl.SSLContext:
        """Make a verifying client context.

        Raises:
            TLSError: The private key is encrypted, and `password` is missing or wrong.
            ssl.SSLError: A file is not valid PEM.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            self._load_key(context, self.cert)
        return context

    def _load_key(self, context: ssl.SSLContext, cert: str | os.PathLike[str]) -> None:
        is_encrypted = False

        def password() -> str | bytes:  # without it OpenSSL asks at the terminal, on the event loop
            nonlocal is_encrypted
            is_encrypted = True
            return self.password or b""

        try:
            context.load_cert_chain(cert, self.key, password)
        except (ssl.SSLError, ValueError) as error:  # ValueError: the password is too long
            if not is_encrypted:
                raise
            file = f"key={self.key}" if self.key is not None else f"cert={cert}"
            if self.password is None:
                raise TLSError(f"the private key of TLS({file}) is encrypted: give TLS(password=…) too") from None
            reason = error.reason if isinstance(error, ssl.SSLError) else "it is too long"
            raise TLSError(f"TLS(password=…) does not open the private key of TLS({file}): {reason}") from None
