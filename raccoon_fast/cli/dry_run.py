"""`raccoon-fast send --dry-run`: counts what would be sent, and reports lines or rows that are not events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raccoon_fast import json_codec
from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.formats import array_hint
from raccoon_fast.cli.inputs import batches_of, open_input
from raccoon_fast.cli.lines import InputError
from raccoon_fast.cli.terminal import write_json, write_note, write_table
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse

__all__ = ["dry_run"]

_MOST_NOTES = 20


def dry_run(arguments: argparse.Namespace, paths: list[str]) -> int:
    """Reads all files, reports what would be sent, and returns the exit code. Connects to nothing."""
    types: Counter[str] = Counter()
    nbytes = requests = 0
    bad: list[str] = []
    fault = hint = ""

    def note_bad_line(text: str) -> None:
        bad.append(text)
        if len(bad) <= _MOST_NOTES:
            write_note(text)

    try:
        for path in paths:
            with open_input(path, arguments) as reader:
                is_first = True
                for batch in batches_of(reader, arguments, note_bad_line, lambda: False):
                    if batch is not None:
                        if is_first and reader.unit == "line":
                            hint = hint or array_hint(batch.events[0][1])
                        is_first = False
                        requests += 1
                        nbytes += batch.nbytes
                        types.update(event_type for event_type, _ in batch.events)
                if reader.lines != 1:
                    hint = ""
                elif hint:
                    hint = f"{reader.name} has one line, which is one event; it looks like {hint}"
    except (InputError, UsageError) as error:
        fault = str(error)
    if arguments.json:
        found = {"events": types.total(), "bytes": nbytes, "requests": requests, "bad_lines": len(bad)}
        write_json(json_codec.dumps({**found, "types": types, "dry_run": True}).decode())
    else:
        rows = [
            ("would send", f"{counted(types.total(), 'event')} in {counted(requests, 'request')}"),
            ("bytes", f"{nbytes:,}"),
            *((f"type {name}", f"{count:,}") for name, count in types.most_common(_MOST_NOTES)),
        ]
        if bad:
            rows.append(("bad lines", f"{len(bad):,}"))
        write_table(rows)
    if len(bad) > _MOST_NOTES:
        write_note(f"raccoon-fast send: and {counted(len(bad) - _MOST_NOTES, 'bad line')} more")
    if hint:
        write_note(f"raccoon-fast send: {hint}")
    if fault:
        write_note(f"raccoon-fast send: {fault}")
    return Exit.USAGE if fault or (bad and not arguments.skip_bad) else Exit.OK
