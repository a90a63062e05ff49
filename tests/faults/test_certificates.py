"""Servers with a certificate that a producer cannot trust, or without one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from certificates import Files, make_certificates
from patience import wait_until
from trial import Lines, Trial, port_of

from raccoon_fast import TLS
from raccoon_fast.collector import Collector


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        ("foreign", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("elsewhere", "IP address mismatch|Hostname Verification"),
        (None, "WRONG_VERSION_NUMBER"),
    ],
    ids=["unknown CA", "expired", "another host", "plain port"],
)
@pytest.mark.parametrize("scheme", ["wss", "https", "grpcs"])
def test_a_certificate_error_is_logged_once_and_loses_nothing(
    new_trial: Callable[..., Trial], scheme: str, files: Files, certificate: str | None, said: str
) -> None:
    bad = {} if certificate is None else dict.fromkeys(("tls_cert", "tls_key"), getattr(files, certificate))
    log = Lines()
    trial = new_trial(bad, tls=TLS(ca=files.ca), logger=log, timeout=2.0, connect_timeout=2.0)
    receipts = trial.emit(100)
    wait_until(lambda: trial.producer.stats().retries >= 5)
    health = trial.producer.health()
    assert not health.ok
    assert re.search(said, health.servers[0].last_error)
    (line,) = log.lines
    assert re.search(said, line)
    assert line.endswith("its events wait")
    # One at a time: what was sent together at first came together, and each probe since is one connection.
    assert trial.proxy.connections <= 8 + trial.producer.stats().retries
    assert not any(receipt.done() for receipt in receipts)
    assert trial.collector.request_count == 0  # never in plain text
    with Collector(tls_cert=files.server, tls_key=files.server) as good:
        trial.collector = good
        trial.proxy.target_port = port_of(good, scheme)
        trial.judge()
