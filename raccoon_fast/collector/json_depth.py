"""Handles deeply nested JSON: drops values too deep for Python's parser, and refuses text too deep for Go's.

Go's encoding/json accepts 10,000 levels of nesting. Python's json stops at its recursion limit or, from Python 3.14
on, at the end of the C stack. A request does not use deep values, so it is enough to check their syntax and drop them.
"""

from __future__ import annotations

import re

from raccoon_fast.collector.decode_errors import MalformedRequest

__all__ = ["is_too_deep", "without_depths"]

_MAX_DEPTH = 10_000
# Deeper than any member of a request: in an event_bytes that is a list, the numbers are at depth 4.
_KEPT_DEPTH = 8

_ENDS = {"{": "}", "[": "]"}

# Matches a string as one token, because brackets in it open nothing; the last string may lack its end quote.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null"
)


def is_too_deep(text: str) -> bool:
    """Whether objects and lists are nested over 10,000 levels deep, which `without_depths` refuses."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        char = match[0]
        if char in _ENDS:
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif char in _ENDS.values():
            depth -= 1
    return False


def without_depths(text: str) -> str:
    """Return `text` with null in place of each object and list that is too deep for a request's members.

    Raises:
        MalformedRequest: The text is not JSON, or is nested over 10,000 levels deep.
    """
    kept: list[str] = []
    stack: list[str] = []
    at = _SPACE.match(text, 0).end()  # type: ignore[union-attr]
    # What may come next: a value ("v"), a value or the end of a list ("V"), a name ("n"), a name or the end of an
    # object ("N"), a colon (":"), or a comma or the end (",").
    wanted = "v"
    while True:
        char = text[at : at + 1]
        start = at
        if wanted == "," and not stack:
            break
        if wanted in "vV" and char in ("{", "["):
            stack.append(char)
            if len(stack) > _MAX_DEPTH:
                raise MalformedRequest("exceeded max depth")
            if len(stack) == _KEPT_DEPTH + 1:
                kept.append("null")
            wanted = "N" if char == "{" else "V"
            at += 1
        elif stack and char == _ENDS[stack[-1]] and wanted in (",", "V", "N"):
            is_kept = len(stack) <= _KEPT_DEPTH
            stack.pop()
            if is_kept:
                kept.append(char)
            wanted = ","
            at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
            continue
        elif wanted == "," and char == ",":
            wanted = "n" if stack[-1] == "{" else "v"
            at += 1
        elif wanted == ":" and char == ":":
            wanted = "v"
            at += 1
        else:
            match = _SCALAR.match(text, at)
            is_name = wanted in "nN"
            if match is None or wanted in ",:" or (is_name and char != '"'):
                words = f"invalid character {char!r}" if char else "unexpected end of JSON input"
                raise MalformedRequest(words)
            wanted = ":" if is_name else ","
            at = match.end()
        if len(stack) <= _KEPT_DEPTH:
            kept.append(text[start:at])
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if at < len(text):
        raise MalformedRequest(f"invalid character {text[at]!r} after top-level value")
    return "".join(kept)
