"""The hook `before_send`, which sees each event before a producer accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.core._request import check_type
from raccoon_fast.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BeforeSend"]


class BeforeSend:
    """Applies the hook to events, and checks its result. Thread-safe if the hook is.

    Args:
        hook: Takes an Event; returns an Event or a (type, data) pair to send instead, or None to send nothing.

    Raises:
        TypeError: The hook is not callable.
    """

    def __init__(self, hook: Callable[[Event], Event | tuple[str, Any] | None]) -> None:
        if not callable(hook):
            raise TypeError(f"before_send takes a callable, not {hook!r}")
        self._hook = hook

    def __call__(self, event_type: str, data: Any) -> tuple[str, Any] | None:
        """Returns the event to send for an event, or None.

        Raises:
            TypeError, ValueError: An event cannot have that type, or the hook returned neither an event nor None.
            Exception: Any exception of the hook, unchanged.
        """
        check_type(event_type)  # the hook may rely on the type, and the ledger counts by it
        event = self._hook(Event(event_type, data))
        if event is None:
            return None
        if not isinstance(event, tuple) or len(event) != 2 or not isinstance(event[0], str):
            raise TypeError(f"before_send must return Event(type, data) or None, not {type(event).__name__}")
        return event
