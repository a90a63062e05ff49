"""Refuses subinterpreters, before loading anything that would break the package for the main interpreter.

Only one interpreter per process can load our compiled modules and those of uvloop, httptools and orjson. If a
subinterpreter loaded them, the main interpreter no longer could.
"""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _is_main() -> bool:
    interpreters: Any
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found, no-redef, unused-ignore]  # from 3.13 on
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:  # this Python was built without them
            return True
    # An id; from 3.13 on (id, whence).
    return bool(interpreters.get_current() == interpreters.get_main())


if not _is_main():
    raise ImportError(
        "raccoon_fast cannot be used in a subinterpreter, since compiled modules that it needs (uvloop, httptools) "
        "work in the main interpreter only; use threads or processes, and under mod_wsgi set "
        "WSGIApplicationGroup %{GLOBAL}"
    )
