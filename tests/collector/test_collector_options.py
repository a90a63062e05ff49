from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raccoon_fast.collector import Collector


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("acks", "both"),
        ("acks", None),
        ("max_connections", 0),
        ("id_header", ""),
        ("id_header", "X User"),
        ("group_header", "X:Group"),
        ("ping_interval", 0),
        ("ping_interval", -1.0),
        ("ping_interval", float("nan")),
        ("pong_wait", 0),
        ("pong_wait", float("inf")),
        ("publish_failure_rate", 1.1),
        ("publish_failure_rate", -0.1),
        ("publish_delay", -1),
        ("sink", ""),
        ("host", ""),
        ("port", -1),
        ("port", 65536),
        ("grpc_port", 65536),
    ],
)
def test_a_wrong_value_is_a_value_error_that_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{option} must"):
        Collector(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dedup", 1),
        ("max_connections", "1"),
        ("max_connections", True),
        ("id_header", 1),
        ("group_header", b"X-Group"),
        ("ping_interval", "30"),
        ("pong_wait", None),
        ("publish_failure_rate", True),
        ("publish_delay", "1"),
        ("sink", None),
        ("sink", 1),
        ("host", None),
        ("port", 8080.0),
        ("grpc_port", None),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{option} must"):
        Collector(**{option: value})


def test_one_port_for_both_is_refused() -> None:
    with pytest.raises(ValueError, match="grpc_port must differ"):
        Collector(port=18080, grpc_port=18080)


def test_tls_options_go_together(tmp_path: Path) -> None:
    there = tmp_path / "there.pem"
    there.touch()
    for options in ({"tls_cert": there}, {"tls_key": there}):
        with pytest.raises(ValueError, match="tls_cert and tls_key go together"):
            Collector(**options)
    with pytest.raises(ValueError, match="tls_client_ca needs tls_cert"):
        Collector(tls_client_ca=there)
    with pytest.raises(TypeError, match="tls_key must"):
        Collector(tls_cert=there, tls_key=1)
    for option in ("tls_cert", "tls_key", "tls_client_ca"):
        options = {"tls_cert": there, "tls_key": there, "tls_client_ca": there, option: tmp_path / "missing.pem"}
        with pytest.raises(FileNotFoundError, match=rf"{option}: no such file: .*missing\.pem"):
            Collector(**options)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Collector("sync")
