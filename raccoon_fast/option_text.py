"""Options that come as text, from the environment or from an engine's job: what they are, or should have been.

Each raises ValueError with the end of a sentence that begins with the option's name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raccoon_fast.lanes import Lane

__all__ = ["file", "lanes", "names", "number", "pairs", "seconds", "switch", "whole_number"]


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
    """Several, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def pairs(text: str) -> dict[str, str]:
    """key:value, several separated by commas."""
    parts = [part.partition(":") for part in names(text)]
    if not all(colon for _, colon, _ in parts):
        raise ValueError(f"must be key:value, several separated by commas, not {text!r}")
    return {key.strip(): value.strip() for key, _, value in parts}


def lanes(text: str) -> dict[str, Lane]:
    """Lanes by name, as a JSON object of their options."""
    import orjson

    from raccoon_fast.lanes import Lane

    wanted = 'must be a JSON object such as {"page": {"priority": "low", "ttl": 30}}'
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise ValueError(f"{wanted}, not {text!r:.80}")
    made = {}
    for name, options in found.items():
        for option in options:
            if option not in Lane.__dataclass_fields__ or option == "on_delivery":
                raise ValueError(f"names an unknown option of the lane {name!r}: {option!r}")
        try:
            made[name] = Lane(**options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"of the lane {name!r}: {error}") from None
    return made


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be {what}, not {text!r}") from None
