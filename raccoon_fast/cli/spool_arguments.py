"""The options of `raccoon-fast spool`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.connection_arguments import add_connection, add_url
from raccoon_fast.cli.exits import GRACE_S, PATIENCE_S
from raccoon_fast.cli.parsers import Parser, add_command

if TYPE_CHECKING:
    import argparse

__all__ = ["SPOOL", "add_spool"]

SPOOL = """\
A spool is the file that a producer's spool= names. It holds batches that could not be sent. A batch belongs to the
producer that stored it while that producer is open; once it has ended, in any way, its owner is dead. These
commands list the batches, and send or delete those of dead owners. Producers that have the file open are not disturbed.
"""
_LS = """\
Counts the batches of each owner, "alive" (its producer is open) or "dead" (it has ended), and the unreadable records in
quarantine.
"""
_VERIFY = """\
Checks the file's structure and the checksum of every record, and prints one line per fault. Exit code 1: something is
damaged. Producers skip damaged records, and keep them in quarantine.
"""
_REPLAY = f"""\
Sends the batches of dead owners under their own guids, as the next producer on the file would. Batches that are not
acknowledged stay in the spool. The run ends with exit code 1 if the server accepts nothing for {PATIENCE_S:.0f} s.
Ctrl-C waits up to {GRACE_S:.0f} s for the batches in flight.
"""
_DROP = """\
Deletes the batches of dead owners, or the quarantine, permanently. Asks first. The file keeps its size, and reuses the
free space.
"""


def add_spool(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's own subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    ls = add_command(actions, "ls", "list owners, and count their batches", _LS)
    verify = add_command(actions, "verify", "check the file for damage", _VERIFY)
    replay = add_command(actions, "replay", "send the batches of dead owners", _REPLAY)
    drop = add_command(actions, "drop", "delete the batches of dead owners", _DROP)
    for action in (ls, verify, replay, drop):
        action.add_argument("path", metavar="PATH", help="the spool's file")
        if action is not drop:
            action.add_argument("--json", action="store_true", help="print one JSON object")
    add_url(replay)
    add_connection(replay, max_attempts=False)
    drop.add_argument("--yes", action="store_true", help="do not ask")
    which = drop.add_argument_group("what", "everything that belongs to dead owners, or only")
    which.add_argument("--type", metavar="T", type=types.text, help="events of this type")
    which.add_argument("--owner", metavar="NAME", type=types.owner, help="events of one owner, as ls shows it")
    which.add_argument("--older-than", metavar="AGE", type=types.age, help="batches older than AGE, such as 12h or 3d")
    which.add_argument("--quarantine", action="store_true", help="delete the whole quarantine instead")
