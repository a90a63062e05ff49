"""The page on troubleshooting lists every warning and error that users can see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import raccoon_fast

ROOT = Path(__file__).parent.parent
PACKAGE = Path(raccoon_fast.__file__).parent
PAGE = ROOT / "docs" / "pages" / "troubleshooting.md"
# The command and the collector speak for themselves; the engines' messages are on their own pages.
ELSEWHERE = {"cli", "collector", "integrations"}
# They name the option that is wrong, or are a part of another message.
LEFT_OUT = {
    *("TypeError", "ValueError", "AttributeError", "UnicodeDecodeError"),
    *("DecodeError", "FrameError", "MalformedError", "LocalProtocolError"),
}
# Of the package to itself.
INTERNAL = {
    "there are {} slices, and none from {} to {}",
    "the envelope has no req_guid and time yet: stamp it first",
    "there are {} slices, and none is number {}",
}


def template(node: ast.expr) -> str | None:
    """The text of a message, with {} for what varies."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[-.\d]*[sdrgf]", "{}", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def messages() -> Iterator[tuple[str, str]]:
    """Each message with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if ELSEWHERE & {*path.relative_to(PACKAGE).parts}:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in ("warning", "error", "log") or (
                name not in LEFT_OUT and (name.endswith("Error") or name == "BufferFull")
            ):
                text = template(node.args[0])
                if text is not None and text not in INTERNAL:
                    yield text, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def fixed_parts(text: str) -> list[str]:
    return [part.strip(" :;,.()") for part in text.split("{}")]


def test_every_message_is_explained() -> None:
    shown = re.findall(r"^\| (?:An error.*?)?`(.+?)`", PAGE.read_text("utf-8"), re.MULTILINE)
    patterns = [re.compile(".*?".join(map(re.escape, one.split("…"))), re.DOTALL) for one in shown]
    found = [*messages()]
    assert len(found) > 100
    missing = [
        f"{place}: {text}"
        for text, place in found
        if max(map(len, fixed_parts(text))) > 3 and not any(one.search(text) for one in patterns)
    ]
    assert not missing, "\n".join(missing)


def test_every_explained_message_exists() -> None:
    shown = re.findall(r"^\| `(.+?)`", PAGE.read_text("utf-8"), re.MULTILINE)
    texts = [text for text, _ in messages()]
    sources = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    for one in shown:
        parts = [part.strip() for part in one.split("…") if len(part.strip()) > 3]
        for part in parts:
            assert any(part in text for text in texts) or part in sources, one
