"""The threads that a test began. Those of earlier tests may still end meanwhile, so a mere count says nothing."""

from __future__ import annotations

import threading

__all__ = ["Begun"]


class Begun:
    """Knows the threads that run when it is made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def threads(self, name: str = "") -> list[threading.Thread]:
        """Return those that run now and did not then, and whose name contains `name`."""
        return [one for one in threading.enumerate() if one not in self._before and name in one.name]
