"""`raccoon-fast spool replay`: sends the batches of dead owners, with a producer on the same file."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast.cli.connect import ServerOptions
from raccoon_fast.cli.exits import GRACE_S, PATIENCE_S, Exit, StopSignals
from raccoon_fast.cli.terminal import open_progress, write_json, write_note, write_table
from raccoon_fast.producers.producer import Producer
from raccoon_fast.serializers import RAW
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.cli.terminal import Progress
    from raccoon_fast.counts import Counts
    from raccoon_fast.spool.view import SpoolView

__all__ = ["replay"]

_POLL_S = 0.05


class _Notes:
    """A producer's logger: shows failures beside the progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def info(self, msg: str, *args: Any) -> None:
        pass

    def error(self, msg: str, *args: Any) -> None:
        self._progress.note(f"raccoon-fast spool: {msg}")


def replay(arguments: argparse.Namespace, view: SpoolView) -> int:
    """Sends until no batches of dead owners are left, and returns the exit code.

    Raises:
        ValueError, UsageError: An option is invalid.
    """
    server = ServerOptions(arguments, arguments.url)
    began_s = time.monotonic()
    with StopSignals() as stop, open_progress(None) as progress:
        if not arguments.debug:
            server.options["logger"] = _Notes(progress)
        # Attempts are unlimited: batches that are not acknowledged must stay in the spool.
        producer = server.new(Producer, serializer=RAW, spool=Path(arguments.path))
        try:
            why = _wait(producer, view, stop, progress)
        finally:
            total = producer.close(timeout=GRACE_S if stop.received else 0.001).total
    _sum_up(arguments, total, time.monotonic() - began_s)
    left = view.orphans().types.total()
    if why:
        write_note(f"raccoon-fast spool: {why}; left in the spool: {counted(left, 'event')}")
    if stop.received:
        return 128 + stop.received
    return Exit.FAILED if why or total.lost else Exit.OK


def _wait(producer: Producer, view: SpoolView, stop: StopSignals, progress: Progress) -> str:
    """Waits until nothing is left to send. Returns why it ended earlier, or ""."""
    settled = 0
    well_s = time.monotonic()
    while True:
        total = producer.stats().total
        left = total.spooled + total.unsettled
        if not left and _is_done(producer, view):
            return ""
        if stop.received:
            return f"ended by {signal.Signals(stop.received).name}"
        if total.accepted - left > settled:
            settled = total.accepted - left
            well_s = time.monotonic()
            progress.update(0, settled)
        elif time.monotonic() > well_s + PATIENCE_S:
            return f"gave up because nothing was acknowledged for {PATIENCE_S:g} s"
        time.sleep(_POLL_S)


def _is_done(producer: Producer, view: SpoolView) -> bool:
    own = producer.spool_owner
    if not own or any(owner.content.records for owner in view.owners() if owner.name == own or not owner.alive):
        return False  # still to be taken over, or taken over but perhaps not yet in the ledger
    total = producer.stats().total
    return not total.spooled + total.unsettled


def _sum_up(arguments: argparse.Namespace, total: Counts, seconds: float) -> None:
    if arguments.json:
        found = {"acknowledged": total.acked, "failed": total.failed, "spooled": total.spooled}
        write_json(json_codec.dumps({**found, "seconds": round(seconds, 6)}).decode())
        return
    rows = [("acknowledged", f"{total.acked:,}")]
    rows += [("failed", f"{count:,}: {reason}") for reason, count in sorted(total.failed.items())]
    rows += [("left in the spool", f"{total.spooled:,}"), ("seconds", f"{seconds:.3f}")]
    write_table(rows)
