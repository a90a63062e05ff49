"""Chooses, once for all of the core, between its compiled and its pure-Python form.

The environment variable RACCOON_FAST_NO_EXTENSIONS, set to anything but "" or "0", chooses the pure form. Else the
compiled form is used if it was installed. Half of it is a broken install and raises, and so does a compiled module
that does not load: a program that counts on the compiled form never gets the slow one in silence.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

__all__ = ["IMPLEMENTATION", "has_extensions"]

_PACKAGE = "raccoon_fast.core"
_MODULES = ("_wire_c", "_envelope_c", "_answers_c", "_acks_c", "_batch_c", "_event_types_c")
_SWITCH = "RACCOON_FAST_NO_EXTENSIONS"


def _choose() -> Literal["compiled", "pure"]:
    if os.environ.get(_SWITCH, "") not in ("", "0"):
        return "pure"
    missing = [name for name in _MODULES if find_spec(f"{_PACKAGE}.{name}") is None]
    if not missing:
        return "compiled"
    if len(missing) == len(_MODULES):
        return "pure"
    raise ImportError(
        f"this install of raccoon_fast is broken: of its compiled modules {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing; reinstall it, or set {_SWITCH}=1 to run without them"
    )


IMPLEMENTATION: Literal["compiled", "pure"] = _choose()


def has_extensions(raise_: bool = False) -> bool:
    """Say whether the compiled form is in use.

    Args:
        raise_: Raise instead of returning False.

    Raises:
        ImportError: The pure form is in use and `raise_` is true; the text says why.
    """
    if IMPLEMENTATION == "pure" and raise_:
        switched_off = os.environ.get(_SWITCH, "") not in ("", "0")
        reason = f"{_SWITCH} is set" if switched_off else "this install of raccoon_fast was built without them"
        raise ImportError(f"the compiled modules of raccoon_fast are not in use: {reason}")
    return IMPLEMENTATION == "compiled"
