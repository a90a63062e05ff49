"""Chooses between the compiled and the pure-Python form, once for the whole core.

If the environment variable RACCOON_FAST_NO_EXTENSIONS is set, except to "" or "0", the pure form is used. Otherwise the
compiled form is used if it is installed. An incomplete compiled form is a broken installation and raises; so does a
compiled module that does not load. A program that relies on the compiled form never gets the slow one silently.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

__all__ = ["IMPLEMENTATION", "describe", "explain_pure", "was_switched_off"]

_PACKAGE = "raccoon_fast.core"
_MODULES = ("_wire_c", "_envelope_c", "_answers_c", "_acks_c", "_batch_c", "_columns_c", "_event_types_c", "_frames_c")
_SWITCH = "RACCOON_FAST_NO_EXTENSIONS"
# Between the 4 times of emitting messages and the 28 times of emitting bytes (benchmarks/emit.py).
_SLOWER = "pure Python, about 12 times slower"


def was_switched_off() -> bool:
    """Return whether the environment asks for the pure form."""
    return os.environ.get(_SWITCH, "") not in ("", "0")


def _choose() -> Literal["compiled", "pure"]:
    if was_switched_off():
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


def describe() -> str:
    """Return "compiled", or "pure Python, about 12 times slower: " with the reason and what to do about it."""
    if IMPLEMENTATION == "compiled":
        return "compiled"
    return f"{_SLOWER}: {'; '.join(explain_pure())}"


def explain_pure() -> tuple[str, str]:
    """Return why the pure form is in use, and what to do about it."""
    if was_switched_off():
        return f"{_SWITCH} is set", "unset it to use the compiled modules"
    if type(__spec__.loader).__name__ == "zipimporter":
        return "a compiled module cannot be loaded from a zip archive", "install raccoon_fast outside of the archive"
    try:
        from raccoon_fast import _build_info

        because: str = getattr(_build_info, "PURE_BECAUSE", "")
    except ImportError:
        because = ""
    if because.startswith("RACCOON_FAST_BUILD"):  # the pure wheel: pip installs it where no other wheel fits
        return (
            "this install of raccoon_fast was built without them",
            "install a wheel for this platform, or a C compiler and then "
            "`pip install --force-reinstall --no-deps --no-binary raccoon_fast raccoon_fast`",
        )
    if because:
        return (
            f"this install of raccoon_fast was built without them, since {because}",
            "install a C compiler and Python's headers (Debian: `apt install gcc python3-dev`), then "
            "`pip install --force-reinstall --no-deps --no-cache-dir raccoon_fast`",
        )
    return "this install of raccoon_fast was built without them", "reinstall it where there is a C compiler"
