"""Divides the tests among the passes of `make test`, one on each form of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import raccoon_fast

TESTS = Path(__file__).parent.parent
# The files whose tests call nothing of raccoon_fast.core, neither themselves nor through other modules. (The
# collector's inspector counts event types with it.)
WITHOUT_CORE = re.compile(
    r"collector/test_collector_(?!inspector|judging|rest)\w+\.py|net/test_address\.py|test_rooms\.py"
    r"|cli/test_cli_(bench_chart|comparison|completion|lines)\.py"
)
# The files whose tests run whole programs: the command, the examples, the documentation's, and the inspector's page.
# Other tests run the core that these programs use, on both forms.
OF_PROGRAMS = re.compile(
    r"cli/test_cli_(?!command|doctor)\w+\.py|collector/test_collector_inspector_(flat|page\w*)\.py"
    r"|test_(docs|examples|pytest_plugin|troubleshooting)\.py|typing/test_user_program\.py"
)


def is_for_other_pass(item: pytest.Item) -> bool:
    """Whether the pass on the other form of the package runs this test in any case."""
    is_pure = not raccoon_fast.has_extensions()
    # A test with one of these parameters chooses the form itself.
    params = item.callspec.params if hasattr(item, "callspec") else {}
    form = params.get("impl", params.get("form"))
    if form is not None:
        return (form in ("pure", "1")) != is_pure
    return is_pure and item.path.is_relative_to(TESTS) and (is_without_core(item.path) or is_of_programs(item.path))


def is_without_core(path: Path) -> bool:
    """Whether the tests of this file call nothing of raccoon_fast.core."""
    return WITHOUT_CORE.fullmatch(path.relative_to(TESTS).as_posix()) is not None


def is_of_programs(path: Path) -> bool:
    """Whether the tests of this file run whole programs."""
    return OF_PROGRAMS.fullmatch(path.relative_to(TESTS).as_posix()) is not None
