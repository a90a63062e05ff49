"""Guesses the intended option for an unknown one, and warns about values that look like another unit."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from raccoon_fast.logs import Log

__all__ = ["question_seconds", "unknown_option"]

#: Names of the options in other libraries.
_ELSEWHERE = {
    "acks": "server_acks",
    "api_key": "auth",
    "batch_size": "batch_events",
    "batch_timeout": "linger",
    "buffer_memory": "buffer_bytes",
    "compression": "wire",
    "delivery_timeout_ms": "delivery_timeout",
    "endpoint": "url",
    "flush_interval": "linger",
    "host": "url",
    "hosts": "url",
    "linger_ms": "linger",
    "max_batch_size": "batch_events",
    "max_queue_size": "buffer_bytes",
    "max_retries": "retry",
    "on_error": "on_delivery",
    "pool_size": "connections",
    "queue_size": "buffer_bytes",
    "request_timeout_ms": "timeout",
    "retries": "retry",
    "server": "url",
    "ssl": "tls",
    "ssl_context": "tls",
    "token": "auth",
    "verify": "tls",
}
# Smaller values look like another unit: no server answers so fast over a network.
_LEAST_S = 0.01
# Larger values look like another unit: no program waits that long.
_MOST_S = {
    "linger": 60.0,
    "timeout": 3600.0,
    "connect_timeout": 3600.0,
    "block_timeout": 86_400.0,
    "ping_interval": 3600.0,
    "pong_timeout": 3600.0,
}
# Values from here on are intended: such a batch is sealed only by its size.
_NEVER_S = {"linger": 86_400.0}
# These may be shorter.
_NO_LEAST = ("linger", "block_timeout")


def unknown_option(name: str, shared: Collection[str], face: Callable[..., Any] | None) -> TypeError:
    """Makes the error for an unknown option, with the name that was probably meant.

    Args:
        name: The name as given.
        shared: The options of every client.
        face: The class or function called, for the names of its own options.
    """
    own = inspect.signature(face).parameters if face is not None else ()
    known = {*shared, *own} - {"options"}
    meant = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else difflib.get_close_matches(name, known, 1)
    return TypeError(f"unknown option {name!r}" + (f"; did you mean {meant[0]}?" if meant else ""))


def question_seconds(logger: Log, **options: float | None) -> None:
    """Logs a warning for each number of seconds that looks like milliseconds, or the other way round.

    Args:
        logger: The client's.
        **options: The values by option name.
    """
    for option, value in options.items():
        if value is None:
            continue
        if _MOST_S.get(option, float("inf")) < value < _NEVER_S.get(option, float("inf")):
            meaning, meant = f"{_long(value)}", value / 1000
        elif value < _LEAST_S and option not in _NO_LEAST:
            meaning, meant = f"{value * 1000:g} ms", value * 1000
        else:
            continue
        logger.warning(
            "%s=%g means %s, because it is in seconds; did you mean %s=%g?", option, value, meaning, option, meant
        )


def _long(value_s: float) -> str:
    for unit, size_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if value_s >= 2 * size_s:
            return f"{value_s / size_s:.3g} {unit}"
    return f"{value_s:g} s"
