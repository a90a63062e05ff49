"""Checks the README and the documentation: Python blocks run, and commands, files and defaults exist."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest
from missing import missing_in
from patience import patient

import raccoon_fast
from raccoon_fast import Producer, errors, events
from raccoon_fast.cli.arguments import make_parser
from raccoon_fast.collector import Collector

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "pages"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INCLUDE = re.compile(r'--8<-- "(.+?)"')
# What a page may tell its reader to run; what they are given is checked where it is ours.
PROGRAMS = {
    "celery",
    "cibuildwheel",
    "curl",
    "echo",
    "gunicorn",
    "make",
    "pip",
    "protoc",
    "python",
    "raccoon-fast",
    "uvicorn",
}


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*found.groups(), text.count("\n", 0, found.start(2))) for found in FENCE.finditer(text)]


def python_of(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python" and not INCLUDE.match(block.text)]


def commands(page: Path) -> list[list[str]]:
    """Command lines, without what is set before them; those that are piped into one another are apart."""
    shown = [block.text for block in blocks(page) if block.language in ("sh", "console")]
    if page.name == "README.md":
        shown += re.findall(r"(?:^    .+\n)+", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    lines = [line for text in shown for line in text.replace("\\\n", " ").splitlines()]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(" | ")]
    set_before = re.compile(r"\w+=")
    return [one[next(i for i, word in enumerate(one) if not set_before.match(word)) :] for one in words if one]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_pages_and_programs_are_found() -> None:
    assert len(PAGES) > 15
    assert len(python_of(PAGES[0])) == 3


def programs(page: Path) -> list[list[Block]]:
    """Each block by itself, but for one that says that it continues those before it."""
    found: list[list[Block]] = []
    for block in python_of(page):
        if block.text.startswith("# continues"):
            found[-1].append(block)
        else:
            found.append([block])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=name_of)
def test_python_runs(page: Path, tmp_path: Path) -> None:
    """Each block is a program whose line numbers match the page."""
    for number, program_blocks in enumerate(programs(page)):
        run_program(program_blocks, tmp_path / str(number))


def run_program(program_blocks: list[Block], folder: Path) -> None:
    folder.mkdir()
    program = folder / "page.py"
    with Collector() as collector:
        lines: list[str] = []
        for block in program_blocks:
            code = block.text.replace("http://localhost:8080", collector.url)
            code = code.replace("ws://localhost:8080", collector.ws_url)
            code = code.replace("localhost:8081", collector.grpc_target).replace("/var/spool/shop", str(folder))
            lines += [""] * (block.line - len(lines)) + code.splitlines()
        # What is a test there gets the fixture that it names, with the options of its marker.
        tests = re.findall(r"^def (test_\w+)\(raccoon_collector\)", "\n".join(lines), re.MULTILINE)
        lines += ["from raccoon_fast.collector import Collector"] if tests else []
        for test in tests:
            lines.append(f"options = {test}.pytestmark[0].kwargs if hasattr({test}, 'pytestmark') else {{}}")
            lines.append(f"with Collector(**options) as raccoon_collector:\n    {test}(raccoon_collector)")
        program.write_text("\n".join(lines), encoding="utf-8")
        command = [sys.executable, "-W", "error", program.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=patient(50))
    if done.returncode != 0 and (reason := missing_in(done.stderr)):
        pytest.skip(reason)
    assert done.returncode == 0, done.stderr
    assert " ERROR " not in done.stderr, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_exist(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    optional = project.split("[project.optional-dependencies]\n")[1].split("\n[project")[0]
    extras = re.findall(r"^([\w-]+) = \[", optional, re.MULTILINE)
    for program, *arguments in commands(page):
        program = Path(program).name
        assert program in PROGRAMS, program
        if program == "raccoon-fast":
            for argument in arguments:
                if argument.endswith((".pem", ".jsonl", ".desc", ".schema.json")):
                    (tmp_path / argument.rpartition("=")[2]).touch()
            make_parser().parse_args(arguments)
        elif program == "make":
            assert {argument for argument in arguments if "=" not in argument} <= {*targets}
        elif program == "pip":
            named = [extra for argument in arguments for extra in re.findall(r"(?:raccoon_fast|\.)\[(.+)\]", argument)]
            assert {extra for names in named for extra in names.split(",")} <= {*extras}
        elif program == "python":
            assert all((ROOT / argument).is_file() for argument in arguments if argument.endswith(".py"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link:
            # docs/results.py puts those pictures beside the pages.
            folder = ROOT / "benchmarks" if page.parent == DOCS and link.startswith("results/") else page.parent
            assert (folder / link).exists(), link
    for included in INCLUDE.findall(text):
        assert (ROOT / included).is_file(), included


def test_defaults_are_the_producer_s() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", (DOCS / "tuning.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    defaults = {name: one.default for name, one in inspect.signature(Producer.__init__).parameters.items()}
    for name, shown in rows:
        assert eval(shown, {}) == defaults[name], name  # not literal_eval: 1 << 20


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = {*re.findall(r"^::: raccoon_fast\.(\w+)$", text, re.MULTILINE), "JSON", "PROTO", "RAW"}
    for module in (events, errors):  # as a whole
        assert module.__name__.rpartition(".")[2] in shown
        shown.update(module.__all__)
    assert {*raccoon_fast.__all__} - shown == {"IMPLEMENTATION", "Serializer"}  # told of beside others


@pytest.mark.parametrize("enum", [events.Status, events.Code, errors.Outcome])
def test_the_reference_explains_each_member_of_an_enum(enum: type[Enum]) -> None:
    text = inspect.getdoc(enum) or ""
    assert re.findall(r"^    ([A-Z_]+): \S", text, re.MULTILINE) == [*enum.__members__]
