"""The pure-Python form of Router, with its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raccoon_fast.core._envelope_py import plain_type
from raccoon_fast.core._request import check_events, pair_of

__all__ = ["Router"]


class Router:
    """Hands each event to the accumulator of its type's lane. Its methods are those of an Accumulator.

    Args:
        routes: For each type, an Accumulator; or a callable that takes an event's type, its data, and its index among
            several events or None, and returns what an accumulator's `emit` would. Read for each event; `find` may add
            routes to it.
        find: Called with a type that has no route. Returns the Accumulator or callable for it.
    """

    def __init__(self, routes: dict[str, Any], find: Callable[[str], Any]) -> None:
        self._routes = routes
        self._find = find

    def emit(self, type: str, data: Any) -> Any:  # noqa: A002 - the proto field's name
        """See Accumulator.emit."""
        type, target = self._routed(type)  # noqa: A001
        emit = getattr(target, "emit", None)
        return target(type, data, None) if emit is None else emit(type, data)

    def emit_many(self, events: Iterable[tuple[str, Any]]) -> list[Any]:
        """See Accumulator.emit_many."""
        check_events(events)
        receipts: dict[Any, None] = {}
        for index, event in enumerate(events):
            receipts[self._accept_at(*pair_of(index, event), index)] = None
        return list(receipts)

    def emit_some(
        self, events: Iterator[tuple[str, Any]], most: int, refusal: object, receipts: dict[Any, None], first: int = 0
    ) -> tuple[int, Any]:
        """See Accumulator.emit_some."""
        number = 0
        for event in events:
            receipt = self._accept_at(*pair_of(first + number, event), first + number)
            number += 1
            if receipt is refusal:
                return number, event
            receipts[receipt] = None
            if number >= most:
                break
        return number, None

    def _accept(self, type: str, data: Any) -> Any:  # noqa: A002
        type, target = self._routed(type)  # noqa: A001
        return target._accept(type, data)  # noqa: SLF001 - it is an accumulator: see emit_slices

    def _accept_at(self, type: str, data: Any, index: int) -> Any:  # noqa: A002
        type, target = self._routed(type)  # noqa: A001
        return getattr(target, "_accept_at", target)(type, data, index)

    def _routed(self, type: str) -> tuple[str, Any]:  # noqa: A002
        """The type as exactly a str, and where its events go."""
        if type.__class__ is not str:
            type = plain_type(type)  # noqa: A001
        target = self._routes.get(type)
        return type, self._find(type) if target is None else target
