"""Sets how long tests wait for an event: one factor for slow and busy machines.

RACCOON_FAST_TEST_PATIENCE multiplies every limit that only prevents endless waiting. It is 1 by default, and 3 in
`.ci/run`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = float(os.environ.get("RACCOON_FAST_TEST_PATIENCE") or 1)


def patient(seconds: float) -> float:
    """A limit in seconds, multiplied by the factor."""
    return seconds * PATIENCE


def wait_until(condition: Callable[[], object], timeout_s: float = 15.0, what: object = "") -> None:
    """Wait until the condition holds.

    Args:
        condition: Called repeatedly.
        timeout_s: The longest wait in seconds, before the factor is applied.
        what: The message of the AssertionError if it does not hold in time; called first if it is callable.
    """
    deadline_s = time.monotonic() + patient(timeout_s)
    while not condition():
        assert time.monotonic() < deadline_s, what() if callable(what) else what
        time.sleep(0.002)
