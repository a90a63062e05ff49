"""Builds the extension modules of raccoon_fast.core and stamps the build.

RACCOON_FAST_BUILD chooses what happens without a working C compiler:
  require  the build fails (for release wheels)
  auto     the pure-Python form is installed instead (the default)
  skip     no extension is built at all (the py3-none-any wheel)
SOURCE_DATE_EPOCH, when set, is the build date (https://reproducible-builds.org/specs/source-date-epoch/).
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import BaseError, CCompilerError

CORE = "raccoon_fast/core"
# The .pyx files are hand-written Cython, each with a pure-Python twin. The other modules compile the source of the pure
# form itself, with the C types in the .pxd of the module's name.
SOURCES = {
    "_wire_c": f"{CORE}/_wire_py.py",
    "_envelope_c": f"{CORE}/_envelope_c.pyx",
    "_answers_c": f"{CORE}/_answers_c.pyx",
    "_acks_c": f"{CORE}/_acks_py.py",
    "_frames_c": f"{CORE}/_frames_py.py",
    "_batch_c": f"{CORE}/_batch_c.pyx",
    "_columns_c": f"{CORE}/_columns_c.pyx",
    "_event_types_c": f"{CORE}/_event_types_c.pyx",
}
SAMPLE = "benchmarks/data/flights.jsonl.gz"
# The .pxd files declare the C types. `int` in an annotation is Python's int, of any size, and not a C type.
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    # Make builtin functions and methods, with a signature. CPython calls these fastest.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    # The first lines of each module say what guards the data that threads share.
    "freethreading_compatible": True,
}


def build_mode() -> str:
    mode = os.environ.get("RACCOON_FAST_BUILD", "auto")
    if mode not in ("require", "auto", "skip"):
        raise SystemExit(f"RACCOON_FAST_BUILD must be require, auto or skip, not {mode!r}")
    return mode


def build_epoch() -> float:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", str(time.time()))
    try:
        return float(epoch)
    except ValueError:
        raise SystemExit(f"SOURCE_DATE_EPOCH must be UNIX seconds, not {epoch!r}") from None


def extensions(mode: str) -> list[Extension]:
    if mode == "skip":
        return []
    from Cython.Build import cythonize

    flags = [] if sys.platform == "win32" else ["-O3"]
    modules = [
        Extension(f"raccoon_fast.core.{name}", [source], extra_compile_args=flags) for name, source in SOURCES.items()
    ]
    # force: Cython's own dependency check does not notice an edit of a .pxd alone.
    return cythonize(modules, force=True, build_dir="build/cython", compiler_directives=DIRECTIVES)


class WholeBuild(build_ext):
    """Builds all extensions or, if one fails and they are not required, none: a part would be a broken install."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            if build_mode() == "require":
                raise type(error)(f"{error}: {what_was_missing(error)}") from error
            because = what_was_missing(error)
            self.warn(f"raccoon_fast is installed as pure Python, about 12 times slower, since {because}")
            for built in self.get_outputs():
                Path(built).unlink(missing_ok=True)
            write_stamp(self.get_finalized_command("build_py"), because)


class StampedBuild(build_py):
    """Writes raccoon_fast/_build_info.py beside the copied modules (in place for an editable install).

    A wheel also gets the sample of flights that `raccoon-fast demo` sends. A clone has it in benchmarks/data.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(SAMPLE, str(Path(self.build_lib) / "raccoon_fast" / "cli"))
        write_stamp(self, "RACCOON_FAST_BUILD=skip" if build_mode() == "skip" else "")


def write_stamp(build: StampedBuild, pure_because: str) -> None:
    """Write what this build is. `pure_because` is the reason why it has no extensions, or "" if it has them."""
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(build_epoch()))
    root = Path() if build.editable_mode else Path(build.build_lib)
    stamp = {
        "NAME": build.distribution.get_name(),
        "VERSION": build.distribution.get_version(),
        "BUILD_DATE": date,
        "PURE_BECAUSE": pure_because,
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in stamp.items()]
    (root / "raccoon_fast" / "_build_info.py").write_text("".join(lines), encoding="utf-8")


def what_was_missing(error: Exception) -> str:
    """Return why nothing could be compiled: no compiler, no headers of Python, or the compiler's own message."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    if compiler and shutil.which(shlex.split(compiler)[0]) is None:
        return f"there was no C compiler: {shlex.split(compiler)[0]!r} was not found"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return f"Python's headers were missing: no Python.h in {sysconfig.get_path('include')}"
    return f"the C compiler failed: {error}"


class DatedSdist(sdist):
    """Packs the same files into the same bytes: each file has no owner, and the build date as its time."""

    def make_archive(self, base_name: str, *_: object, base_dir: str, **__: object) -> str:
        date = int(build_epoch())

        def dated(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = date
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        with (
            Path(name).open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=date) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(base_dir, filter=dated)
        return name


setup(
    ext_modules=extensions(build_mode()),
    cmdclass={"build_ext": WholeBuild, "build_py": StampedBuild, "sdist": DatedSdist},
)
