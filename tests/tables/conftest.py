"""Tables need pyarrow, which an install without the extra `arrow` does not have."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("pyarrow") is None:
    collect_ignore_glob = ["test_*.py"]
