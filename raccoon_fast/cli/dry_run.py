"""`raccoon-fast send --dry-run`: what would be sent, and which lines are no events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raccoon_fast import json_codec
from raccoon_fast.cli.batches import event_parser, read_batches
from raccoon_fast.cli.exits import Exit
from raccoon_fast.cli.formats import array_hint
from raccoon_fast.cli.lines import InputError
from raccoon_fast.cli.terminal import write_json, write_note, write_table
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.cli.lines import LineReader

__all__ = ["dry_run"]

_MOST_NOTES = 20


def dry_run(arguments: argparse.Namespace, reader: LineReader) -> int:
    """Reads all lines, says what they would be, and returns the exit code: nothing is connected."""
    types: Counter[str] = Counter()
    nbytes = requests = 0
    bad: list[str] = []
    fault = hint = ""

    def note_bad_line(text: str) -> None:
        bad.append(text)
        if len(bad) <= _MOST_NOTES:
            write_note(text)

    type_of = event_parser(arguments.type, arguments.type_field)
    batches = read_batches(
        reader, type_of, arguments.batch_events, note_bad_line, lambda: False, from_line=arguments.from_line
    )
    try:
        for batch in batches:
            if batch is not None:
                hint = hint if requests else array_hint(batch.events[0][1])
                requests += 1
                nbytes += batch.nbytes
                types.update(event_type for event_type, _ in batch.events)
    except InputError as error:
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
    if hint and reader.lines == 1:
        write_note(f"raccoon-fast send: {reader.name} has one line, which is one event; it looks like {hint}")
    if fault:
        write_note(f"raccoon-fast send: {fault}")
    return Exit.USAGE if fault or (bad and not arguments.skip_bad) else Exit.OK
