"""Frozen and zipped programs, made with real tools: they start, know their version, and use every protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipapp
from importlib.util import find_spec
from pathlib import Path

import pytest

import raccoon_fast
from raccoon_fast.collector import Collector

PACKAGE = Path(raccoon_fast.__file__).parent
FORM = "compiled" if raccoon_fast.has_extensions() else "pure"
PROGRAM = """
import sys
from raccoon_fast import IMPLEMENTATION, JSON, Producer, __version__, has_extensions

print(IMPLEMENTATION, __version__)
if IMPLEMENTATION == "compiled":
    has_extensions(raise_=True)
for url in sys.argv[1:]:
    with Producer(url, serializer=JSON, logger=None) as producer:
        producer.emit("frozen", {"url": url})
    print(url.partition(":")[0], producer.report.total.acked)
"""
pytestmark = pytest.mark.timeout(300)


def check(*command: object, form: str, **environment: str) -> None:
    """Run the program against a collector. Its folder is nobody's, and has no source tree."""
    with Collector() as collector:
        urls = collector.url, collector.ws_url, f"grpc://{collector.grpc_target}"
        run = subprocess.run(
            [*map(str, command), *urls],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
        )
    assert (run.returncode, run.stderr) == (0, "")
    version = raccoon_fast.client_info().version
    assert run.stdout.split() == [form, version, "http", "1", "ws", "1", "grpc", "1"]
    assert sorted(event.type for event in collector.events) == ["frozen"] * 3


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def freeze(*command: object, cwd: Path) -> None:
    run = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.skipif(find_spec("PyInstaller") is None, reason="PyInstaller is not installed")
def test_pyinstaller(program, tmp_path):
    # --paths: the finder of an editable install is nothing that it looks into.
    options = ("--noconfirm", "--log-level", "ERROR", "--paths", PACKAGE.parent)
    freeze("-m", "PyInstaller", *options, program, cwd=tmp_path)
    check(tmp_path / "dist" / "program" / "program", form=FORM)


@pytest.mark.skipif(find_spec("cx_Freeze") is None, reason="cx_Freeze is not installed")
def test_cx_freeze(program, tmp_path):
    (tmp_path / "setup.py").write_text(
        "from cx_Freeze import setup\n"
        f"setup(name='program', version='1', executables=[{program.name!r}],\n"
        "      options={'build_exe': {'build_exe': 'frozen'}})\n"
    )
    freeze("setup.py", "-q", "build_exe", cwd=tmp_path)
    check(tmp_path / "frozen" / "program", form=FORM)


def test_zipapp_is_pure_and_says_why(program, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(PACKAGE, tree / "raccoon_fast", ignore=shutil.ignore_patterns("__pycache__"))
    program.rename(tree / "__main__.py")
    zipapp.create_archive(tree, tmp_path / "program.pyz")
    check(sys.executable, tmp_path / "program.pyz", form="pure")
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'program.pyz')!r})\nimport raccoon_fast as r\n"
    run = subprocess.run(
        [sys.executable, "-c", script + "print(r.client_info().form)"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "RACCOON_FAST_NO_EXTENSIONS": ""},
    )
    assert run.stdout.startswith(
        "pure Python, about 12 times slower: a compiled module cannot be loaded from a zip archive; "
    )
