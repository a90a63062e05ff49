"""What the kept events of a type have in common: sizes, lateness, and the fields of their data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from raccoon_fast import json_codec
from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.journal import KeptEvent

__all__ = ["Distribution", "Field", "distribution_of", "fields_of"]

# Limits the effect of hostile data.
_MAX_FIELDS = 200
_MAX_DEPTH = 8
_MAX_ITEMS = 20
_MAX_EXAMPLES = 3
_MAX_EXAMPLE_LENGTH = 80
_MAX_PATH_LENGTH = 200

_KINDS = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}


class Distribution(NamedTuple):
    """The distribution of some numbers.

    Attributes:
        sampled: The number of values.
        minimum: The lowest.
        median: Half of them are not higher.
        p95: 95 of a hundred are not higher.
        maximum: The highest.
    """

    sampled: int
    minimum: float
    median: float
    p95: float
    maximum: float


class Field(NamedTuple):
    """A place in the data of a type's events.

    Attributes:
        path: As a JSON path; "[*]" stands for the items of an array.
        kinds: How often each kind occurred: "string", "number", "boolean", "null", "object", "array".
        examples: Up to three different values, as JSON, cut to 80 characters; none of objects and arrays.
    """

    path: str
    kinds: dict[str, int]
    examples: list[str]


def distribution_of(numbers: Sequence[float]) -> Distribution | None:
    """The distribution of numbers; None without numbers."""
    if not numbers:
        return None
    ordered, count = sorted(numbers), len(numbers)
    return Distribution(count, ordered[0], ordered[(count - 1) // 2], ordered[math.ceil(count * 0.95) - 1], ordered[-1])


def fields_of(events: Sequence[KeptEvent], decoder: EventDecoder) -> list[Field]:
    """The fields of the events whose data is JSON or a protobuf message, in order of appearance; up to 200."""
    fields: dict[str, Field] = {}
    for event in events:
        text = decoder.decode(event.type, event.data, event.size).json
        if text is None:
            continue
        for path, value in _values(json_codec.loads(text), "$", 0):
            if path not in fields and len(fields) == _MAX_FIELDS:
                continue
            field = fields.setdefault(path, Field(path, {}, []))
            kind = _KINDS.get(type(value), "null")
            field.kinds[kind] = field.kinds.get(kind, 0) + 1
            if kind not in ("object", "array") and len(field.examples) < _MAX_EXAMPLES:
                example = json_codec.dumps(value).decode()[:_MAX_EXAMPLE_LENGTH]
                if example not in field.examples:
                    field.examples.append(example)
    return list(fields.values())


def _values(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    yield path[:_MAX_PATH_LENGTH], value
    if depth == _MAX_DEPTH:
        return
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _values(member, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        for item in value[:_MAX_ITEMS]:
            yield from _values(item, f"{path}[*]", depth + 1)
