"""Draws the package's rooms and the imports between them: `python docs/rooms.py > docs/pages/assets/rooms.svg`.

A room is a folder of `raccoon_fast`; the modules beside the folders are the ground floor. Every import counts, those
for type checkers and those inside functions too. An arrow that follows from others is left out. A circle is an error.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "raccoon_fast"
GROUND = "ground floor"
# They hand out what the rooms hold, and nothing imports them.
FACES = {"__init__", "pytest_plugin"}

WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT, MARGIN = 760, 92, 150, 40, 24

Arrows = dict[str, set[str]]


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str, package: Path = PACKAGE) -> str | None:
    """The room that a module is in; None is a face of the package."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in FACES:
        return None
    return parts[1] if (package / parts[1]).is_dir() else GROUND


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = {f"{node.module}.{name.name}" for name in node.names}
            found.update(one if one in known else node.module for one in inside)
    return found & known.keys()


def arrows(package: Path = PACKAGE) -> Arrows:
    """The rooms that each room imports from."""
    known = modules(package)
    found: Arrows = {}
    for module, path in known.items():
        room = room_of(module, package)
        if room is None:
            continue
        others = {room_of(one, package) for one in imports(path, known)}
        found.setdefault(room, set()).update(other for other in others if other is not None and other != room)
    return found


def levels(found: Arrows) -> dict[str, int]:
    """How many rooms lie below each room, one on top of the other.

    Raises:
        ValueError: Rooms import each other in a circle; the message names them.
    """
    height: dict[str, int] = {}

    def climb(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError("rooms import each other in a circle: " + " -> ".join((*above[above.index(room) :], room)))
        if room not in height:
            height[room] = 1 + max((climb(one, (*above, room)) for one in sorted(found.get(room, ()))), default=-1)
        return height[room]

    for room in sorted(found):
        climb(room, ())
    return height


def direct(found: Arrows) -> Arrows:
    """Without the arrows that follow from others."""

    def reach(room: str) -> set[str]:
        return set().union(*({one} | reach(one) for one in found.get(room, ())))

    return {room: {one for one in to if not any(one in reach(other) for other in to)} for room, to in found.items()}


def draw(found: Arrows) -> str:
    """The picture, as SVG. Its colours follow the reader's preference for light or dark."""
    height = levels(found)
    top = max(height.values())
    rows = [sorted(room for room in height if height[room] == top - row) for row in range(top + 1)]
    places = {}
    for row, rooms in enumerate(rows):
        for column, room in enumerate(rooms):
            places[room] = (round(WIDTH * (2 * column + 1) / (2 * len(rooms))), MARGIN + row * ROW)
    size = f"{WIDTH} {2 * MARGIN + top * ROW + BOX_HEIGHT}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img"'
        ' font-family="sans-serif" font-size="15">',
        "<title>The rooms of raccoon_fast, and which imports from which</title>",
        "<style>rect{fill:#eef2f5;stroke:#607d8b}text{fill:#222;text-anchor:middle}path{stroke:#607d8b;fill:none}"
        "marker path{fill:#607d8b}@media (prefers-color-scheme:dark){rect{fill:#263238}text{fill:#eee}}</style>",
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8Z"/></marker>',
    ]
    for room, to in sorted(direct(found).items()):
        for other in sorted(to):
            (x, y), (to_x, to_y) = places[room], places[other]
            begin, end, bend = y + BOX_HEIGHT, to_y, (to_y - y - BOX_HEIGHT) // 2
            lines.append(
                f'<path d="M{x} {begin}C{x} {begin + bend} {to_x} {end - bend} {to_x} {end}" marker-end="url(#end)"/>'
            )
    for room, (x, y) in sorted(places.items()):
        lines.append(f'<rect x="{x - BOX_WIDTH // 2}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>')
        lines.append(f'<text x="{x}" y="{y + BOX_HEIGHT // 2 + 5}">{room}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(draw(arrows()))
