"""Builds from the source tree: the sdist, the pure wheel, the stamp. For wheels with extensions: make wheels."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EPOCH = 1_700_000_000
PACKAGED = (".py", ".pyx", ".pxd", ".pxi", ".desc", ".typed", ".html", ".css", ".js", ".svg")
SKIPPED = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "node_modules", "__pycache__", "*.so", "*.c", "_build_info.py"
)


def build(tree: Path, hook: str, **environment: str) -> Path:
    """Calls a hook of the build backend (PEP 517), in the environment of the tests: nothing is downloaded."""
    script = f"import setuptools.build_meta as backend; print(backend.{hook}('dist'))"
    variables = {name: value for name, value in os.environ.items() if name != "RACCOON_FAST_BUILD"} | environment
    run = subprocess.run([sys.executable, "-c", script], cwd=tree, env=variables, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr + run.stdout)
    return tree / "dist" / run.stdout.splitlines()[-1]


def sources(*suffixes: str, under: str = "raccoon_fast") -> set[str]:
    """What the tree holds, as paths from its root."""
    found = (path.relative_to(ROOT) for path in (ROOT / under).rglob("*") if path.is_file())
    return {str(path) for path in found if path.suffix in suffixes and path.name != "_build_info.py"}


def why(wheel: Path) -> str:
    """Why it has no extensions, as stamped."""
    stamp = zipfile.ZipFile(wheel).read("raccoon_fast/_build_info.py").decode()
    return re.search('^PURE_BECAUSE = "(.*)"$', stamp, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("pristine") / "tree", ignore=SKIPPED))


@pytest.fixture
def tree(pristine: Path, tmp_path: Path) -> Path:
    """A source tree of the test's own, in which nothing was ever built."""
    return Path(shutil.copytree(pristine, tmp_path / "tree"))


@pytest.fixture(scope="module")
def shipped(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The sdist of a tree in which much was built before."""
    tree = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("sdist") / "tree"))
    for leftover in (
        "raccoon_fast/_build_info.py",
        "raccoon_fast/core/_wire_c.c",
        "raccoon_fast/core/_wire_c.cpython-311-x86_64-linux-gnu.so",
        "build/cython/raccoon_fast/core/_wire_py.c",
        "tests/__pycache__/conftest.cpython-311.pyc",
    ):
        (tree / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tree / leftover).write_text("")
    with tarfile.open(build(tree, "build_sdist")) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def wheel(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("wheel") / "tree"))
    return build(tree, "build_wheel", RACCOON_FAST_BUILD="skip", SOURCE_DATE_EPOCH=str(EPOCH))


class TestSdist:
    def test_holds_every_source(self, shipped):
        expected = sources(*PACKAGED)
        assert {"raccoon_fast/core/_envelope_c.pyx", "raccoon_fast/core/_acks_c.pxd"} <= expected
        assert {f"raccoon_fast/collector/inspector/page/{name}" for name in ("index.html", "main.js")} <= expected
        assert expected - shipped == set()

    def test_holds_everything_a_test_run_needs(self, shipped):
        expected = sources(".py", ".json", under="tests") | sources(".proto", under="protos")
        expected |= sources(".py", ".gz", ".jsonl", under="benchmarks")
        expected |= sources(".py", under="examples")
        assert expected - shipped == set()
        assert {"pyproject.toml", "setup.py", "Makefile", "LICENSE", "CHANGELOG.md"} <= shipped

    def test_release_wheels_are_tested_beside_all_shipped_files_but_the_package(self, shipped):
        listed = re.search(
            r"^test-sources = (\[.*?\])", (ROOT / "cibuildwheel.toml").read_text(), re.MULTILINE | re.DOTALL
        )
        built = {"", "MANIFEST.in", "PKG-INFO", "raccoon_fast", "raccoon_fast.egg-info", "setup.cfg", "setup.py"}
        assert sorted(ast.literal_eval(listed[1])) == sorted({name.partition("/")[0] for name in shipped} - built)

    def test_holds_nothing_generated(self, shipped):
        generated = {name for name in shipped if name.endswith((".c", ".so", ".pyc", "_build_info.py"))}
        assert generated == set()
        assert not {name for name in shipped if name.startswith(("build/", "dist/", ".venv/", ".git/"))}

    def test_same_files_and_date_are_the_same_bytes(self, pristine, tree):
        copy = Path(shutil.copytree(pristine, tree.parent / "copy"))
        for number, path in enumerate(sorted((copy / "raccoon_fast").iterdir())):
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.utime(path, (number, number))
        first, second = (build(it, "build_sdist", SOURCE_DATE_EPOCH=str(EPOCH)) for it in (tree, copy))
        assert first.read_bytes() == second.read_bytes()
        with tarfile.open(first) as archive:
            assert {(it.mtime, it.uid, it.uname, it.mode) for it in archive if it.isfile()} == {(EPOCH, 0, "", 0o644)}


class TestVersions:
    def test_each_that_is_promised_gets_a_wheel(self):
        promised = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
        built = re.search(r'^build = "(.*)"$', (ROOT / "cibuildwheel.toml").read_text(), re.MULTILINE)[1]
        free = [f"cp3{minor}t-*" for minor in promised if int(minor) >= 14]  # from where on it is no experiment
        assert sorted([*(f"cp3{minor}-*" for minor in promised), *free]) == sorted(built.split())


class TestPureWheel:
    def test_is_for_every_platform(self, wheel):
        assert wheel.name.endswith("-py3-none-any.whl")

    def test_holds_the_package_and_nothing_else(self, wheel):
        names = set(zipfile.ZipFile(wheel).namelist())
        package = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
        made = {"raccoon_fast/_build_info.py", "raccoon_fast/cli/flights.jsonl.gz"}
        assert package == sources(*PACKAGED) | made

    def test_carries_the_command_and_the_plugin(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
            assert "raccoon-fast = raccoon_fast.cli:main" in archive.read(entry_points).decode()
            assert "[pytest11]\nraccoon_fast = raccoon_fast.pytest_plugin" in archive.read(entry_points).decode()

    def test_works_and_knows_its_build(self, wheel, tmp_path):
        zipfile.ZipFile(wheel).extractall(tmp_path)
        script = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "import raccoon_fast; print(*raccoon_fast.client_info()[:3], raccoon_fast.has_extensions())\n"
            "print(raccoon_fast.client_info().form)"
        )
        # -P would do, but is not in 3.10; the working directory is empty instead.
        run = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path.parent
        )
        version = wheel.name.split("-")[1]
        said, form = run.stdout.splitlines()
        assert said == f"raccoon_fast {version} 2023-11-14T22:13:20Z False"
        if not os.environ.get("RACCOON_FAST_NO_EXTENSIONS"):
            assert form.startswith("pure Python, about 12 times slower: this install of raccoon_fast was built without")

    def test_same_source_and_date_are_the_same_bytes(self, wheel, tree):
        again = build(tree, "build_wheel", RACCOON_FAST_BUILD="skip", SOURCE_DATE_EPOCH=str(EPOCH))
        assert again.read_bytes() == wheel.read_bytes()

    def test_a_stale_stamp_is_rewritten(self, tree):
        (tree / "raccoon_fast/_build_info.py").write_text('NAME = "other"\n')
        wheel = build(tree, "build_wheel", RACCOON_FAST_BUILD="skip", SOURCE_DATE_EPOCH="0")
        stamp = zipfile.ZipFile(wheel).read("raccoon_fast/_build_info.py").decode()
        assert 'NAME = "raccoon_fast"' in stamp
        assert 'BUILD_DATE = "1970-01-01T00:00:00Z"' in stamp


class TestBuildSwitch:
    NO_COMPILER = "/nonexistent/cc"

    def test_require_fails_without_a_compiler(self, tree):
        with pytest.raises(RuntimeError, match="there was no C compiler: '/nonexistent/cc' was not found"):
            build(tree, "build_wheel", RACCOON_FAST_BUILD="require", CC=self.NO_COMPILER)

    def test_auto_leaves_the_extensions_out_without_a_compiler(self, tree):
        wheel = build(tree, "build_wheel", CC=self.NO_COMPILER)
        names = zipfile.ZipFile(wheel).namelist()
        assert "raccoon_fast/core/_wire_py.py" in names
        assert not [name for name in names if name.endswith((".so", ".pyd"))]
        assert f"there was no C compiler: '{self.NO_COMPILER}' was not found" in why(wheel)

    def test_the_missing_build_tool_is_named_at_runtime(self, tree, tmp_path):
        zipfile.ZipFile(build(tree, "build_wheel", CC=self.NO_COMPILER)).extractall(tmp_path / "site")
        script = (
            f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\nfrom raccoon_fast.cli import main; main()"
        )
        run = subprocess.run(
            [sys.executable, "-c", script, "--version"],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "RACCOON_FAST_NO_EXTENSIONS": ""},
        )
        assert (
            ", pure Python, about 12 times slower: this install of raccoon_fast was built without them, " in run.stdout
        )
        assert f"since there was no C compiler: '{self.NO_COMPILER}' was not found; install a C compiler" in run.stdout

    def test_missing_headers_are_named(self, tree):
        compiler = tree / "cc"
        compiler.write_text("#!/bin/sh\nexit 1\n")
        compiler.chmod(0o755)
        setup = (tree / "setup.py").read_text()
        (tree / "setup.py").write_text(setup.replace('sysconfig.get_path("include")', '"/nonexistent"'))
        assert "Python's headers were missing: no Python.h in " in why(build(tree, "build_wheel", CC=str(compiler)))

    @pytest.mark.timeout(180)
    def test_auto_leaves_all_extensions_out_if_one_cannot_be_compiled(self, tree):
        compiler = tree / "cc"
        compiler.write_text('#!/bin/sh\ncase "$*" in *_acks_py*) exit 1;; esac\nexec cc -O0 -g0 "$@" -O0\n')
        compiler.chmod(0o755)
        wheel = build(tree, "build_wheel", CC=str(compiler))
        assert list((tree / "build").rglob("_wire_py.o")), "the first was to be compiled"
        assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".pyd"))]
        assert "the C compiler failed: " in why(wheel)

    def test_other_values_are_refused(self, tree):
        with pytest.raises(RuntimeError, match="RACCOON_FAST_BUILD must be require, auto or skip, not 'yes'"):
            build(tree, "build_wheel", RACCOON_FAST_BUILD="yes")

    def test_an_invalid_date_is_refused(self, tree):
        with pytest.raises(RuntimeError, match="SOURCE_DATE_EPOCH must be UNIX seconds, not 'today'"):
            build(tree, "build_wheel", RACCOON_FAST_BUILD="skip", SOURCE_DATE_EPOCH="today")
