"""Many threads share one producer."""

from __future__ import annotations

import pytest
from crowd import Crowd


@pytest.mark.parametrize("seed", ["one", "two"])
def test_every_event_of_every_thread_has_one_outcome(scheme: str, seed: str) -> None:
    assert Crowd(scheme, 16, 1.0, seed).run() > 0
