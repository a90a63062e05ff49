"""Types of the command line's values: each function parses a text, or says what it must be."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

__all__ = [
    "age",
    "delay",
    "file",
    "header",
    "message",
    "names",
    "owner",
    "port",
    "ramp",
    "rate",
    "seconds",
    "share",
    "text",
    "whole_number",
]

_MOST_STEPS = 100
_MOST_A_SECOND = 10_000_000
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def whole_number(value: str) -> int:
    """1 or more."""
    return _integer(value, 1, None)


def port(value: str) -> int:
    """0 to 65535."""
    return _integer(value, 0, 65535)


def seconds(value: str) -> float:
    """Above 0, finite."""
    return _number(value, "a number of seconds above 0", lambda number: 0 < number < float("inf"))


def delay(value: str) -> float:
    """Seconds, 0 or more."""
    return _number(value, "a number of seconds, 0 or more", lambda number: 0 <= number < float("inf"))


def share(value: str) -> float:
    """0 to 1."""
    return _number(value, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def rate(value: str) -> float:
    """A rate per second, above 0 and within what one process can do."""
    return _number(value, f"a number per second, above 0 and up to {_MOST_A_SECOND}", lambda n: 0 < n <= _MOST_A_SECOND)


def ramp(value: str) -> list[float]:
    """FROM:TO:STEP as a list of rates; the last one is TO, or the highest rate below it."""
    parts = value.split(":")
    if len(parts) != 3:
        raise ArgumentTypeError(f"must be FROM:TO:STEP, such as 1000:10000:1000, not {value!r}")
    first, last, step = map(rate, parts)
    if last < first:
        raise ArgumentTypeError(f"must go up: TO of {value!r} is below FROM")
    if (last - first) / step >= _MOST_STEPS:
        raise ArgumentTypeError(f"must have at most {_MOST_STEPS} steps, not {(last - first) / step:,.0f}")
    return [first + number * step for number in range(int((last - first) / step + 1e-9) + 1)]


def age(value: str) -> int:
    """An age, such as 90, 90s, 15m, 12h or 3d, in seconds."""
    match = re.fullmatch("([0-9]+)([smhd]?)", value)
    if match is None:
        raise ArgumentTypeError(f"must be a number of s, m, h or d, such as 12h, not {value!r}")
    return int(match[1]) * _UNITS_S[match[2]]


def owner(value: str) -> str:
    """The id of a spool's owner, or the start of it."""
    if not re.fullmatch("[0-9a-f]{1,32}", value):
        raise ArgumentTypeError(f"must be an owner as `spool ls` shows it, or the start of one, not {value!r}")
    return value


def text(value: str) -> str:
    """Not empty, and UTF-8."""
    if not value:
        raise ArgumentTypeError("must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:  # Python passes bytes that are not UTF-8 as lone surrogates
        raise ArgumentTypeError("must be UTF-8 text") from None
    return value


def names(value: str) -> list[str]:
    """Names, separated by commas, each once."""
    parts = [part.strip() for part in value.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise ArgumentTypeError(f"must be names separated by commas, each once, not {value!r}")
    return parts


def file(value: str) -> str:
    """The path of a file that exists."""
    if not Path(value).is_file():
        raise ArgumentTypeError(f"no such file: {value}")
    return value


def header(value: str) -> tuple[str, str]:
    """'Name: value'."""
    name, colon, content = value.partition(":")
    if not colon or not name.strip():
        # Not repeated: it may hold a secret.
        raise ArgumentTypeError("must read 'Name: value'")
    return name.strip(), content.strip()


def schema(value: str) -> tuple[str, str]:
    """An event type and the file of its JSON Schema, as TYPE=FILE."""
    event_type, separator, path = value.partition("=")
    if not separator or not event_type:
        raise ArgumentTypeError(f"must be TYPE=FILE, such as page=page.schema.json, not {value!r}")
    return event_type, file(path)


def message(value: str) -> tuple[str, str]:
    """'TYPE=MESSAGE': an event type, and the full name of a protobuf message."""
    event_type, equals, name = value.rpartition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"must read TYPE=MESSAGE, not {value!r}")
    return event_type, name


def _integer(value: str, least: int, most: int | None) -> int:
    number = int(value) if value.isascii() and value.isdigit() else -1
    if number < least or (most is not None and number > most):
        bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise ArgumentTypeError(f"must be a whole number {bounds}, not {value!r}")
    return number


def _number(value: str, wanted: str, is_right: Any) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not is_right(number):
        raise ArgumentTypeError(f"must be {wanted}, not {value!r}")
    return number
