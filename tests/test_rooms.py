"""The picture of the rooms matches the imports, and no room imports from a room above it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import raccoon_fast

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
assert _SPEC is not None
assert _SPEC.loader is not None
rooms = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rooms)
PACKAGE = Path(raccoon_fast.__file__).parent


def test_the_picture_matches_the_imports() -> None:
    picture = ROOT / "docs" / "pages" / "assets" / "rooms.svg"
    assert picture.read_text("utf-8") == rooms.draw(rooms.arrows(PACKAGE)), f"python docs/rooms.py > {picture}"


def test_no_room_imports_from_one_above_it() -> None:
    levels = rooms.levels(rooms.arrows(PACKAGE))
    order = ["json_codec", "ground floor", "core", "net", "transports", "delivery", "clients", "producers", "cli"]
    assert [levels[room] for room in order] == sorted(levels[room] for room in order)


def test_every_room_is_explained() -> None:
    page = (ROOT / "docs" / "pages" / "architecture.md").read_text("utf-8")
    named = {*re.findall(r"^\| `?([\w ]+?)/?`? \|", page, re.MULTILINE)}
    assert {*rooms.arrows(PACKAGE)} <= named


def test_the_files_and_functions_that_the_page_names_exist() -> None:
    page = (ROOT / "docs" / "pages" / "architecture.md").read_text("utf-8")
    files = {*re.findall(r"`((?:\w+/)*\w+\.py)`", page)} - {"docs/rooms.py", "x.py", "_x_py.py"}
    assert len(files) > 20
    assert not [name for name in sorted(files) if not (PACKAGE / name).is_file()]
    found = re.findall(r"`(?:\w+\.)?(\w+)`(?: at the end of|\s+in)\s+`([\w/]+\.py)`", page)
    assert len(found) > 4
    assert not [
        (name, file) for name, file in found if not re.search(rf"(def|class) {name}\b", (PACKAGE / file).read_text())
    ]


def test_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match="a -> b -> a"):
        rooms.levels({"a": {"b"}, "b": {"a"}})


def test_arrows_that_follow_from_others_are_left_out() -> None:
    assert rooms.direct({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
