"""Calls a function before any chosen line of a module, as a signal handler may be called."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

__all__ = ["Interrupt", "ctrl_c"]


class Interrupt:
    """A context and its trace function, which calls `act` once, before a line of the modules.

    No garbage is collected meanwhile: what `act` raises in a finalizer reaches nobody.

    Args:
        at: The number of the line, in the order in which lines run, from 1.
        act: The function to call.
        modules: The modules whose lines count.

    Attributes:
        left: The number of lines until then; 0 or less afterwards.
    """

    def __init__(self, at: int, act: Callable[[], object], *modules: ModuleType) -> None:
        self.left = at
        self._act = act
        self._files = {module.__file__ for module in modules}

    def __enter__(self) -> Interrupt:
        gc.disable()
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        gc.enable()

    def __call__(self, frame: FrameType, event: str, arg: object) -> Interrupt | None:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                self._act()
        return self


def ctrl_c() -> NoReturn:
    """What an Interrupt calls to raise KeyboardInterrupt."""
    raise KeyboardInterrupt
