"""The tests that run on one form of the package only are those that do not depend on it."""

from __future__ import annotations

import ast

import pytest
from passes import TESTS, is_of_programs, is_without_core

FILES = [path for path in sorted(TESTS.rglob("test_*.py")) if is_without_core(path)]
# Their modules import raccoon_fast.core nowhere, except the inspector of the collector.
INDEPENDENT = ("raccoon_fast.collector", "raccoon_fast.net.address", "raccoon_fast.cli")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_test_without_core_uses_no_client(path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
            # Names of the package itself are its clients and producers.
            assert node.module != "raccoon_fast", ast.unparse(node)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names} - {"raccoon_fast"}
    ours = {name for name in imported if name.partition(".")[0] == "raccoon_fast"}
    assert not [name for name in ours if not name.startswith(INDEPENDENT) or ".inspector" in name]


def test_there_are_such_tests() -> None:
    assert {path.parent.name for path in FILES} == {"collector", "net", "cli", "tests"}
    of_programs = [path for path in TESTS.rglob("test_*.py") if is_of_programs(path)]
    assert {path.parent.name for path in of_programs} == {"cli", "collector", "tests", "typing"}


@pytest.mark.parametrize("path", [path for path in sorted(TESTS.rglob("test_*.py")) if is_of_programs(path)])
def test_a_test_of_programs_does_not_look_at_the_form(path) -> None:
    assert "has_extensions" not in path.read_text("utf-8")
