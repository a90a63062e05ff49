"""Parses options given as text, by the environment or by an engine's job.

Each parser raises ValueError with the rest of a sentence that starts with the option's name.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["file", "names", "number", "pairs", "seconds", "switch", "whole_number"]


def number(text: str) -> float:
    """A number."""
    return _number(text, "a number")


def seconds(text: str) -> float:
    """A time."""
    return _number(text, "a number of seconds")


def whole_number(text: str) -> int:
    """A count."""
    if not re.fullmatch("-?[0-9]+", text):
        raise ValueError(f"must be a whole number, not {text!r}")
    return int(text)


def switch(text: str) -> bool:
    """On or off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"must be 1 or 0, true or false, yes or no, on or off, not {text!r}")


def file(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise ValueError(f"must be a file that exists, not {text!r}")
    return text


def names(text: str) -> list[str]:
    """A list of values separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def pairs(text: str) -> dict[str, str]:
    """key:value pairs separated by commas."""
    parts = [part.partition(":") for part in names(text)]
    if not all(colon for _, colon, _ in parts):
        raise ValueError(f"must be key:value pairs separated by commas, not {text!r}")
    return {key.strip(): value.strip() for key, _, value in parts}


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be {what}, not {text!r}") from None
