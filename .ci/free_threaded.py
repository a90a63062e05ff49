"""Installs raccoon_fast and the requirements of its tests into a venv of a free-threaded Python, given as argument.

Some requirements are not available there. The script prints and skips each one that has no wheel, except those that
build with a C compiler alone. Tests that need a missing requirement are skipped too: see tests/conftest.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
# Packages that need only a C compiler, or none. msgspec compiles for a free-threaded Python from 3.14 on; on 3.13 the
# package uses json instead.
BUILT = {"httptools", "uvloop", "msgspec", "pyyaml"}
# Tools that check the code. Their results are the same in any Python.
NOT_WANTED = {"raccoon_fast", "mypy", "pyright", "orjson"}


def requirements() -> list[str]:
    """Return the requirements in pyproject.toml of the package and its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"]]
    for extra in ("fast", "collector", "cli", "socks", "prometheus", "opentelemetry"):
        wanted += extras[extra]
    return [one for one in wanted if re.split(r"[^\w.-]", one)[0] not in NOT_WANTED]


def main() -> None:
    """Install one requirement after the other, and the package last."""
    python = str(Path(sys.argv[1], "bin", "python"))

    def installs(*arguments: str) -> bool:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        return subprocess.run([*pip, *arguments], capture_output=True).returncode == 0

    missing = []
    for requirement in requirements():
        is_built = re.split(r"[^\w.-]", requirement)[0] in BUILT
        if not installs(*([] if is_built else ["--only-binary", ":all:"]), requirement):
            missing.append(requirement)
    if missing:
        print(f"Not to be had for this Python, and left out with the tests that need them: {', '.join(missing)}")
    own = ["--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *own], check=True)


if __name__ == "__main__":
    main()
