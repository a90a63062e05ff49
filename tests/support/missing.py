"""Packages that have no build for a free-threaded Python: see .ci/free_threaded.py."""

from __future__ import annotations

import re
import sysconfig

NAMES = ("cryptography", "gevent", "grpc", "grpc_tools", "mypy", "orjson", "trustme", "yaml")
IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def missing_in(error: str) -> str:
    """Return why a test is skipped if it failed with this text because a package is missing there; otherwise ""."""
    found = re.search(rf"No module named '?({'|'.join(NAMES)})\b", error)
    return f"there is no {found[1]} for this Python" if found is not None and IS_FREE_THREADED else ""
