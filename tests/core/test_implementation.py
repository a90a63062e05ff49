import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from patience import patient

import raccoon_fast

FACADES = ("wire", "envelope", "answers", "acks", "batch", "columns", "event_types", "frames")
COMPILED = tuple(f"_{name}_c" for name in FACADES)
PROGRAM = (
    "import raccoon_fast._implementation as chosen;"
    "from raccoon_fast.core.extensions import has_extensions;"
    "from raccoon_fast.core import acks, answers, batch, columns, envelope, event_types, frames, wire;"
    "print(chosen.IMPLEMENTATION, has_extensions(), acks.AckTable.__module__,"
    " answers.decode_proto_answer.__module__, batch.Batch.__module__, columns.Slices.__module__,"
    " envelope.ProtoEnvelope.__module__,"
    " event_types.tally_types.__module__, frames.AnswerReader.__module__, wire.take_varint.__module__)"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the core needs of the package, its compiled modules left out."""
    source = Path(raccoon_fast.__file__).parent
    (tmp_path / "raccoon_fast").mkdir()
    for name in ("_implementation.py", "errors.py", "events.py", "forks.py", "threads.py"):
        shutil.copy(source / name, tmp_path / "raccoon_fast")
    (tmp_path / "raccoon_fast" / "__init__.py").touch()
    shutil.copytree(source / "json_codec", tmp_path / "raccoon_fast" / "json_codec")
    shutil.copytree(
        source / "core",
        tmp_path / "raccoon_fast" / "core",
        ignore=lambda _, names: {
            name for name in names if name.endswith(tuple(EXTENSION_SUFFIXES)) or name == "__pycache__"
        },
    )
    return tmp_path


def install(tree: Path, names: tuple[str, ...]) -> None:
    for name in names:
        shutil.copy(import_module(f"raccoon_fast.core.{name}").__file__, tree / "raccoon_fast" / "core")


def run(tree: Path, program: str = PROGRAM, **env: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name != "RACCOON_FAST_NO_EXTENSIONS"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=tree,
        env={**inherited, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=patient(30),
    )


def said(form: str) -> str:
    suffix = "c" if form == "compiled" else "py"
    modules = " ".join(f"raccoon_fast.core._{name}_{suffix}" for name in sorted(FACADES))
    return f"{form} {form == 'compiled'} {modules}\n"


def test_without_compiled_modules_all_is_pure(tree):
    result = run(tree)
    assert (result.stdout, result.stderr) == (said("pure"), "")


def test_has_extensions_can_raise_and_says_why(tree):
    program = "from raccoon_fast.core.extensions import has_extensions; has_extensions(raise_=True)"
    assert "ImportError" in (result := run(tree, program)).stderr
    assert "built without them" in result.stderr
    assert "RACCOON_FAST_NO_EXTENSIONS is set" in run(tree, program, RACCOON_FAST_NO_EXTENSIONS="yes").stderr


@pytest.mark.usefixtures("compiled_build")
class TestCompiled:
    @pytest.mark.parametrize("switch", [None, "", "0"])
    def test_with_all_modules_all_is_compiled(self, tree, switch):
        install(tree, COMPILED)
        result = run(tree, **({} if switch is None else {"RACCOON_FAST_NO_EXTENSIONS": switch}))
        assert (result.stdout, result.stderr) == (said("compiled"), "")

    @pytest.mark.parametrize("switch", ["1", "true", "no"])
    def test_the_switch_makes_all_pure(self, tree, switch):
        install(tree, COMPILED)
        result = run(tree, RACCOON_FAST_NO_EXTENSIONS=switch)
        assert (result.stdout, result.stderr) == (said("pure"), "")

    @pytest.mark.parametrize("missing", COMPILED)
    def test_a_missing_module_is_a_broken_install(self, tree, missing):
        install(tree, tuple(name for name in COMPILED if name != missing))
        result = run(tree)
        assert result.returncode == 1
        assert "ImportError: this install of raccoon_fast is broken" in result.stderr
        assert missing in result.stderr
        assert run(tree, RACCOON_FAST_NO_EXTENSIONS="1").stdout == said("pure")

    @pytest.mark.parametrize("broken", COMPILED)
    def test_a_module_that_does_not_load_raises(self, tree, broken):
        install(tree, COMPILED)
        file = Path(import_module(f"raccoon_fast.core.{broken}").__file__).name
        (tree / "raccoon_fast" / "core" / file).write_bytes(b"not a shared object")
        result = run(tree)
        assert result.returncode == 1
        assert "ImportError" in result.stderr
        assert result.stdout == ""

    def test_this_process_uses_the_compiled_form(self):
        assert raccoon_fast.IMPLEMENTATION == "compiled"
        assert raccoon_fast.has_extensions(raise_=True) is True

    def test_typed_parts_are_invisible_from_python(self):
        """Built without its .pxd, a module still works, untyped and slow: this test notices it."""
        wire, answers, acks = (import_module(f"raccoon_fast.core._{name}_c") for name in ("wire", "answers", "acks"))
        table = acks.AckTable()
        for name in import_module("raccoon_fast.core._acks_py").AckTable.__slots__:
            assert not hasattr(table, name)
        assert not hasattr(table, "_note")
        for name in ("_check", "_take_entry", "_text", "_signed_32", "_signed_64", "_number", "_status", "_code"):
            assert hasattr(import_module("raccoon_fast.core._answers_py"), name)
            assert not hasattr(answers, name)
        assert set(wire.__all__) <= set(wire.__pyx_capi__)


@pytest.mark.parametrize("facade", FACADES)
def test_a_facade_offers_the_names_of_both_forms(impl, facade):
    public = set(import_module(f"raccoon_fast.core.{facade}").__all__)
    form = getattr(impl, facade)
    assert set(form.__all__) <= public
    for name in public - set(form.__all__):
        assert name.isupper()
