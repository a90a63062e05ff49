"""Tells whether the compiled modules are in use and load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION, explain_pure

__all__ = ["has_extensions"]


def has_extensions(raise_: bool = False) -> bool:
    """Return whether the compiled form is in use.

    Args:
        raise_: Raise instead of returning False. Also load every compiled module.

    Raises:
        ImportError: `raise_` is true, and the pure form is in use (the message says why and what to do) or a compiled
            module does not load.
    """
    if raise_:
        if IMPLEMENTATION == "pure":
            why, fix = explain_pure()
            raise ImportError(f"the compiled modules of raccoon_fast are not in use: {why}; {fix}")
        _load_all()
    return IMPLEMENTATION == "compiled"


def _load_all() -> None:
    """Load each compiled module. PyInstaller and similar tools find the modules to include by their names here."""
    if not TYPE_CHECKING:
        from raccoon_fast.core import (  # noqa: F401
            _acks_c,
            _answers_c,
            _batch_c,
            _columns_c,
            _envelope_c,
            _event_types_c,
            _frames_c,
            _wire_c,
        )
