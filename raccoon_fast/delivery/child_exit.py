"""The end of a child of multiprocessing, at which the interpreter's own exit functions do not run.

A child that was forked ends by os._exit. Before Python 3.13 atexit plays no part in that, and since then what the
parent had registered is forgotten in the child. What multiprocessing does run there are its own finalizers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

__all__ = ["close_at_child_exit"]

_registered: set[tuple[int, Callable[[], None]]] = set()


def close_at_child_exit(close: Callable[[], None]) -> None:
    """In a child of multiprocessing, call `close` when it ends; elsewhere do nothing.

    Called in the child, when there is something to close. Further calls with the same function change nothing.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None:
        return
    registration = (os.getpid(), close)
    if registration not in _registered:
        _registered.add(registration)
        from multiprocessing.util import Finalize

        Finalize(None, close, exitpriority=0)
