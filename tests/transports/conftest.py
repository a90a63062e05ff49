"""Both event loops, wherever a test runs coroutines itself."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end on a new loop of each kind."""
    if request.param == "asyncio":
        return asyncio.run
    if sys.platform == "win32":
        pytest.skip("uvloop does not exist on Windows")
    import uvloop

    return uvloop.run
