"""Events that a test waits for, and the message if they do not arrive."""

from __future__ import annotations

import collections
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raccoon_fast import json_codec
from raccoon_fast.collector.records import ReceivedEvent

__all__ = ["Expectation", "Where"]

#: A condition, or members that an event's JSON must contain.
Where = Callable[[ReceivedEvent], object] | Mapping[str, Any]

_SHOWN_EVENTS = 5
_SHOWN_CHARACTERS = 200


class Expectation:
    """Matches events by type and condition.

    Args:
        event_type: The type; None matches any.
        where: Members that the JSON must contain, also in nested objects, or a function that is
            called with an event. None matches any event.
    """

    def __init__(self, event_type: str | None, where: Where | None) -> None:
        self._type = event_type
        self._where = where

    def matching(self, events: Sequence[ReceivedEvent]) -> list[ReceivedEvent]:
        """The matching events among `events`."""
        return [event for event in events if self._matches(event)]

    def explain(self, count: int, timeout_s: float, events: Sequence[ReceivedEvent]) -> str:
        """The message if `events` contain fewer than `count` matching events."""
        what = "events" if self._type is None else f"events of type {self._type!r}"
        if isinstance(self._where, Mapping):
            what += f" with {json.dumps(self._where, default=repr)}"
        elif self._where is not None:
            what += f" where {getattr(self._where, '__name__', 'the condition')} holds"
        lines = [f"{len(self.matching(events))} of {count} {what} arrived within {timeout_s:g} s"]
        types = collections.Counter(event.type for event in events)
        if not types:
            return lines[0] + "; nothing arrived at all: does the program send to this collector, and does it flush?"
        lines.append("received: " + ", ".join(f"{number} x {name!r}" for name, number in types.most_common(10)))
        others = [event for event in events if self._type in (None, event.type) and not self._matches(event)]
        if isinstance(self._where, Mapping) and others:
            lines += self._diff(self._where, others[-1])
        else:
            lines += [f"  {event.type!r}: {_shown(event)}" for event in others[-_SHOWN_EVENTS:]]
        return "\n".join(lines)

    def _matches(self, event: ReceivedEvent) -> bool:
        if self._type is not None and event.type != self._type:
            return False
        if self._where is None:
            return True
        if not isinstance(self._where, Mapping):
            return bool(self._where(event))
        try:
            return _has(event.json(), self._where)
        except ValueError:
            return False

    def _diff(self, expected: Mapping[str, Any], event: ReceivedEvent) -> list[str]:
        try:
            value = event.json()
        except ValueError:
            return [f"the last event of that type is not JSON: {_shown(event)}"]
        wanted, given = _lines(expected), _lines(value)
        changes = difflib.ndiff(given, wanted)
        return ["the last event of that type (-), and what was expected (+):"] + [
            f"  {line.rstrip()}" for line in changes if not line.startswith("?")
        ]


def _has(value: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        return isinstance(value, dict) and all(
            name in value and _has(value[name], member) for name, member in expected.items()
        )
    return bool(value == expected)


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=repr).splitlines()


def _shown(event: ReceivedEvent) -> str:
    try:
        json_codec.loads(event.data)
        text = event.data.decode()
    except ValueError:
        text = repr(event.data)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(event.data)} bytes)"
