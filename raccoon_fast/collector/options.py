"""The collector's validated options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raccoon_fast.collector.records import ReceivedEvent

__all__ = ["Options", "check_integer", "check_number"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1


@dataclass(frozen=True)
class Options:
    """The options of `Collector`; see there.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it, its value and what it must be.
        FileNotFoundError: A TLS file does not exist.
    """

    acks: str
    dedup: bool
    max_connections: int
    id_header: str | None
    group_header: str | None
    ping_interval: float
    pong_wait: float
    publish_failure_rate: float
    publish_delay: float
    sink: str | os.PathLike[str]
    host: str
    port: int
    grpc_port: int
    tls_cert: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    tls_client_ca: str | os.PathLike[str] | None
    inspect: bool
    follow: Callable[[ReceivedEvent], object] | None = None

    def __post_init__(self) -> None:
        if self.acks not in ("async", "sync"):
            raise ValueError(f"acks must be 'async' or 'sync', not {self.acks!r}")
        if not isinstance(self.dedup, bool):
            raise TypeError(f"dedup must be True or False, not {self.dedup!r}")
        check_integer("max_connections", self.max_connections, 1)
        _check_header("id_header", self.id_header)
        _check_header("group_header", self.group_header)
        check_number("ping_interval", self.ping_interval, low=0, open_low=True)
        check_number("pong_wait", self.pong_wait, low=0, open_low=True)
        check_number("publish_failure_rate", self.publish_failure_rate, low=0, high=1)
        check_number("publish_delay", self.publish_delay, low=0)
        if not isinstance(self.sink, (str, os.PathLike)):
            raise TypeError(f"sink must be 'memory', 'null' or a path, not {self.sink!r}")
        if not os.fspath(self.sink):
            raise ValueError("sink must be 'memory', 'null' or a path, not an empty string")
        if not isinstance(self.host, str):
            raise TypeError(f"host must be text, not {self.host!r}")
        if not self.host:
            raise ValueError("host must not be empty; '0.0.0.0' means every IPv4 address of the machine")
        check_integer("port", self.port, 0, 65535)
        check_integer("grpc_port", self.grpc_port, 0, 65535)
        if self.port and self.port == self.grpc_port:
            raise ValueError(f"grpc_port must differ from port, which is also {self.port}")
        self._check_tls()
        if not isinstance(self.inspect, bool):
            raise TypeError(f"inspect must be True or False, not {self.inspect!r}")
        if self.follow is not None and not callable(self.follow):
            raise TypeError(f"follow must be a function, not {self.follow!r}")

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: a certificate chain and its private key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key: client certificates need TLS")
        for option in ("tls_cert", "tls_key", "tls_client_ca"):
            path = getattr(self, option)
            if path is None:
                continue
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"{option} must be the path of a PEM file, not {path!r}")
            if not Path(path).is_file():
                raise FileNotFoundError(f"{option}: no such file: {os.fspath(path)}")

    @property
    def is_sync(self) -> bool:
        """Whether an answer waits until the events are published."""
        return self.acks == "sync"


def check_number(name: str, value: Any, *, low: float, high: float = math.inf, open_low: bool = False) -> None:
    """Raise TypeError or ValueError naming `name` unless `value` is a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        wanted = f"{'over' if open_low else 'at least'} {low}" + ("" if math.isinf(high) else f" and at most {high}")
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise TypeError or ValueError naming `name` unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {wanted}, not {value}")


def _check_header(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text or None, not {value!r}")
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{name} must be the name of a header, not {value!r}")
