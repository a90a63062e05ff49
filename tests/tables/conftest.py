"""Skips tests of tables if pyarrow is missing, as in an install without the extra `arrow`."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("pyarrow") is None:
    collect_ignore_glob = ["test_*.py"]
