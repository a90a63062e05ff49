"""TLS by files: the one description that all three transports can use."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = ["TLS"]


@dataclass(frozen=True)
class TLS:
    """Certificates, as PEM files.

    The server's certificate and host name are always verified; there is no switch to turn that off (an
    `ssl.SSLContext` of your own may).

    Args:
        ca: File with the CA certificates to trust; the system's when None.
        cert: File with the client's certificate chain, for mutual TLS.
        key: File with the client's private key; read from `cert` when None.
        password: Of the private key, where it is encrypted.

    Raises:
        ValueError: `key` or `password` without `cert`.
        TypeError: `password` is not a str.
        FileNotFoundError: A file does not exist.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise ValueError("TLS(key=…) needs cert=… too: the certificate that belongs to the key")
        if self.password is not None and self.cert is None:
            raise ValueError("TLS(password=…) needs cert=… too: the certificate whose key it opens")
        if not isinstance(self.password, (str, type(None))):
            raise TypeError(f"TLS(password=…) takes a str, not {type(self.password).__name__}")
        for option in ("ca", "cert", "key"):
            path = getattr(self, option)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"TLS({option}=…): no such file: {path}")

    def ssl_context(self) -> ssl.SSLContext:
        """A verifying client context.

        Raises:
            ssl.SSLError: A file does not hold what it should.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            # A function, since OpenSSL would ask for a missing one on the terminal, and wait there.
            context.load_cert_chain(self.cert, self.key, self._key_password)
        return context

    def _key_password(self) -> str:
        """Called where the key is encrypted."""
        if self.password is None:
            raise ssl.SSLError(f"the private key in {self.key or self.cert} is encrypted: give TLS(password=…)")
        return self.password
