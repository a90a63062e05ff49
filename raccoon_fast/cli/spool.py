"""`raccoon-fast spool`: lists, checks, sends or deletes what producers left on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.replay import replay
from raccoon_fast.cli.terminal import confirm, write_json, write_line, write_note, write_table
from raccoon_fast.spool.view import Filter, SpoolView
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from raccoon_fast.spool.view import Content

__all__ = ["run"]

_AGES_S = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand and returns the exit code.

    Raises:
        UsageError, ValueError, OSError: An option is invalid, or the file does not exist.
        SpoolError: The file is not a spool, or cannot be read.
    """
    action = {"ls": _ls, "verify": _verify, "replay": replay, "drop": _drop}[arguments.action]
    with SpoolView(Path(arguments.path)) as view:
        return action(arguments, view)


def _ls(arguments: argparse.Namespace, view: SpoolView) -> int:
    owners = view.owners()
    quarantined, reasons = view.quarantine()
    now_s = time.time()
    if arguments.json:
        found: dict[str, Any] = {
            "owners": [{"owner": one.name, "alive": one.alive, **_as_json(one.content, now_s)} for one in owners],
            "quarantine": {**_as_json(quarantined, now_s), "reasons": reasons},
            "set_aside": [str(path) for path in view.set_aside()],
        }
        write_json(json_codec.dumps(found).decode())
        return Exit.OK
    parts = [(one.name, "alive" if one.alive else "dead", one.content) for one in owners]
    if quarantined.records:
        parts.append(("quarantine", "", quarantined))
    if parts:
        header = ("owner", "state", "records", "events", "bytes", "oldest", "newest")
        write_table([(name, state, *_as_cells(content, now_s)) for name, state, content in parts], header)
        rows = [(name, kind, f"{count:,}") for name, _, content in parts for kind, count in content.types.most_common()]
        if rows:
            write_table(rows, ("owner", "type", "events"))
    else:
        write_line("empty")
    for reason, count in reasons.items():
        write_line(f"quarantine: {counted(count, 'record')}; reason: {reason}")
    for path in view.set_aside():
        write_line(f"a file that could not be read is kept as {path}")
    return Exit.OK


def _verify(arguments: argparse.Namespace, view: SpoolView) -> int:
    faults = list(view.damage())
    records = sum(owner.content.records for owner in view.owners())
    if arguments.json:
        write_json(json_codec.dumps({"records": records, "damage": faults}).decode())
    else:
        for fault in faults:
            write_line(fault)
        write_line(f"{counted(records, 'record')}, {counted(len(faults), 'fault')}")
    return Exit.FAILED if faults else Exit.OK


def _drop(arguments: argparse.Namespace, view: SpoolView) -> int:
    if arguments.quarantine:
        if arguments.type or arguments.owner or arguments.older_than is not None:
            raise UsageError("--quarantine drops the whole quarantine: leave out --type, --owner and --older-than")
        records = view.quarantine()[0].records
        if not records:
            write_line("the quarantine is empty")
            return Exit.OK
        if not (arguments.yes or confirm(f"Drop the quarantine, {counted(records, 'record')}?")):
            return _nothing_dropped()
        write_line(f"dropped the quarantine, {counted(view.drop_quarantine(), 'record')}")
        return Exit.OK
    before = float("inf") if arguments.older_than is None else time.time() - arguments.older_than
    wanted = Filter(arguments.type, arguments.owner or "", before)
    found = view.orphans(wanted)
    if not found.records:
        write_line("nothing to drop: no matching events belong to dead owners")
        return Exit.OK
    if not (arguments.yes or confirm(f"Permanently drop {_as_text(found.types)} of dead owners?")):
        return _nothing_dropped()
    dropped = view.drop(wanted)
    write_line(f"dropped {_as_text(dropped)}")
    if dropped != found.types:
        write_note("raccoon-fast spool: the others were taken over by another process, or cannot be read")
    return Exit.OK


def _nothing_dropped() -> int:
    write_line("nothing was dropped")
    return Exit.FAILED


def _as_json(content: Content, now_s: float) -> dict[str, Any]:
    ages = {
        name: None if at is None else round(now_s - at, 3)
        for name, at in (("oldest_s", content.oldest_at), ("newest_s", content.newest_at))
    }
    return {"records": content.records, "bytes": content.nbytes, "events": content.types, **ages}


def _as_cells(content: Content, now_s: float) -> tuple[str, ...]:
    counts = content.records, content.types.total(), content.nbytes
    return (*(f"{count:,}" for count in counts), *(_age(at, now_s) for at in (content.oldest_at, content.newest_at)))


def _as_text(types: Mapping[str, int]) -> str:
    parts = [f"{count:,} of type {name}" for name, count in sorted(types.items())]
    return counted(sum(types.values()), "event") + (f" ({', '.join(parts)})" if parts else "")


def _age(at: float | None, now_s: float) -> str:
    """An age in its largest unit: 3d, 12h."""
    if at is None:
        return ""
    age_s = max(0, int(now_s - at))
    unit, unit_s = next(((unit, unit_s) for unit, unit_s in _AGES_S if age_s >= unit_s), ("s", 1))
    return f"{age_s // unit_s}{unit}"
