"""`timeout`: limits the time of an `async with` block, as asyncio.timeout does from Python 3.11 on.

The package does not use asyncio.wait_for. Before Python 3.12 it ignores a cancellation if what it waits for ends in
the same step of the loop (python/cpython#81839); asyncio.run then waits for a task that goes on.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
