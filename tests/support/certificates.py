"""Makes valid and broken certificates for tests, new ones in each run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import trustme


@dataclass
class Files:
    """PEM files of certificates and their keys. `other_ca` signed `foreign` and `stranger`; `ca` signed the others."""

    ca: Path
    other_ca: Path
    server: Path
    expired: Path
    elsewhere: Path
    foreign: Path
    client: Path
    stranger: Path
    expired_client: Path


def make_certificates(folder: Path) -> Files:
    ca, other = trustme.CA(), trustme.CA()

    def pem(name: str, certificate: trustme.LeafCert) -> Path:
        path = folder / f"{name}.pem"
        path.write_bytes(
            certificate.private_key_pem.bytes() + b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        )
        return path

    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    return Files(
        ca=folder / "ca.pem",
        other_ca=folder / "other.pem",
        server=pem("server", ca.issue_cert("127.0.0.1", "localhost")),
        expired=pem("expired", ca.issue_cert("127.0.0.1", "localhost", not_before=past, not_after=past)),
        elsewhere=pem("elsewhere", ca.issue_cert("elsewhere.test")),
        foreign=pem("foreign", other.issue_cert("127.0.0.1", "localhost")),
        client=pem("client", ca.issue_cert("client@test")),
        stranger=pem("stranger", other.issue_cert("client@test")),
        expired_client=pem("expired_client", ca.issue_cert("client@test", not_before=past, not_after=past)),
    )
