"""The files that a run writes: results.json, and the same figures as Markdown."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import go_program
from harness import Spread, Table

_PACKAGES = (
    "raccoon_fast", "protobuf", "orjson", "uvloop", "websockets", "httpx", "httptools", "grpcio",
    "pybase64", "msgspec", "aiohttp", "requests", "picows", "confluent-kafka", "segment-analytics-python", "memray",
)  # fmt: skip


@dataclass
class Group:
    """The results of one module of the suite.

    Attributes:
        about: How the module measured, from its docstring.
        date: The date of the run, in UTC.
        tables: The figures.
        notes: What the run left out.
    """

    about: str
    date: str
    tables: list[Table]
    notes: list[str]

    def value(self, title: str, row: str, column: str, unit: str = "") -> float:
        """The median of a cell; the unit distinguishes tables with the same title.

        Raises:
            KeyError: The value was not measured.
        """
        for table in self.tables:
            if table.title == title and unit in table.unit and not table.is_detail:
                return table.cells[row][column].median
        raise KeyError(title)


@dataclass
class Results:
    """The groups measured on one machine with one set of packages."""

    machine: dict[str, str]
    groups: dict[str, Group]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        return cls(stored["machine"], {name: _group(group) for name, group in stored["groups"].items()})


def _group(stored: Mapping[str, Any]) -> Group:
    tables = []
    for table in stored["tables"]:
        cells = {
            row: {column: Spread(*spread) for column, spread in columns.items()}
            for row, columns in table["cells"].items()
        }
        tables.append(Table(**{**table, "cells": cells}))
    return Group(stored["about"], stored["date"], tables, stored["notes"])


def machine_facts() -> dict[str, str]:
    """The facts on which the figures depend, without names or paths."""
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {re.match(r'[0-9.]*', platform.release())[0]}, {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    facts.update({package: _version(package) for package in _PACKAGES})
    facts["go"] = go_program.version() or "not installed"
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or "unknown processor"


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def markdown(results: Results, aims: str) -> str:
    """All results as a readable page."""
    facts = results.machine
    packages = ", ".join(f"{name} {facts[name]}" for name in _PACKAGES)
    lines = [
        "# Results",
        "",
        "Written by `make bench`; [README.md](../README.md) explains how. A cell shows the median of all rounds. In",
        "brackets is the ratio to the first row; after ± is half the distance between the quartiles, in percent of",
        "the median.",
        "",
        f"{facts['processor']}; {facts['system']}; {facts['python']}; {packages}.",
        "",
        "## Targets",
        "",
        aims,
    ]
    for name, group in results.groups.items():
        lines += ["", f"## {name.capitalize()}", "", f"{group.about} ({group.date})", ""]
        lines += [f"{note}\n" for note in group.notes]
        lines += [f"![{name}]({name}.svg)", ""]
        lines += [part for table in group.tables if not table.is_detail for part in (_table(table), "")]
        details = [table for table in group.tables if table.is_detail]
        if details:
            lines += ["<details><summary>More</summary>", ""]
            lines += [part for table in details for part in (_table(table), "")]
            lines += ["</details>"]
    return "\n".join(lines).rstrip() + "\n"


class Part(NamedTuple):
    """Tables that belong together, and their chart as SVG."""

    tables: list[Table]
    chart: str = ""


def write_parts(folder: Path, name: str, about: str, parts: Mapping[str, Part], notes: Iterable[str] = ()) -> None:
    """Write parts that do not belong to `make bench`: NAME.json, and NAME-PART.md and NAME-PART.svg for each part."""
    tables = [table for part in parts.values() for table in part.tables]
    Results(machine_facts(), {name: Group(about, today(), tables, list(notes))}).save(folder / f"{name}.json")
    for part, (shown, chart) in parts.items():
        text = "\n\n".join(map(_table, shown))
        (folder / f"{name}-{part}.md").write_text(text + "\n", encoding="utf-8")
        if chart:
            (folder / f"{name}-{part}.svg").write_text(chart, encoding="utf-8")


def _table(table: Table) -> str:
    columns = table.columns
    heading = f"**{table.title}**" + (f", {table.unit}" if table.unit else "")
    rows = [[table.rows, *columns]]
    for name, cells in table.cells.items():
        base = table.cells.get(table.base, {})
        rows.append([name, *(_cell(cells.get(column), base.get(column)) for column in columns)])
    return f"{heading}\n\n{grid(rows)}"


def grid(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first row is its header."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "| --- |" + " ---: |" * (head.count("|") - 2)
    return "\n".join([head, rule, *body])


def number(value: float) -> str:
    """The value with three significant digits, and no more decimals than that requires."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(spread: Spread | None, base: Spread | None) -> str:
    if spread is None:
        return ""
    is_exact = spread.samples == 1 and spread.median == round(spread.median)
    text = f"{spread.median:,.0f}" if is_exact else number(spread.median)
    if base is not None and base.median:
        text += f" ({number(spread.median / base.median)} x)"
    if spread.samples > 1 and spread.median:
        text += f" ±{(spread.high - spread.low) / 2 / abs(spread.median):.0%}"
    return text
