"""Words for messages, whoever writes them."""

from __future__ import annotations

import re

__all__ = ["UNSAFE", "counted", "shown"]

#: C0 and C1 controls, which a terminal obeys; marks that turn the direction of text; and what begins another line.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, which agree: "1 event", "2,000 events".

    Args:
        number: Grouped by thousands.
        noun: Of one.
        plural: Of any other number; `noun` with an s when left out.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shown(text: str) -> str:
    r"""A text of somebody else's, with escapes in place of what a terminal would obey: "page\x1b[2J"."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
