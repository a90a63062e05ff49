"""The grammar of `raccoon-fast spool`."""

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
A spool is the file that a producer's spool= names: batches that could not be sent. They belong to the producer that put
them there while it is open, and to nobody once it is not, however it ended. Here they can be seen, sent, or dropped; a
producer that has the file open is not disturbed, and what belongs to it is left to it.
"""
_LS = """\
Shows who has how much: owners with a producer open ("alive") and without one ("dead"), and the records that could not
be read and were put into quarantine.
"""
_VERIFY = """\
Checks the file's structure and every record's checksum. Exit code 1: something is damaged; each fault is one line.
A producer passes damaged records over, and keeps them in the quarantine.
"""
_REPLAY = f"""\
Sends what belongs to dead owners, with the guids of its batches, as the next producer on the file would. What is not
acknowledged stays in the spool: when the server takes nothing for {PATIENCE_S:.0f} s the run ends (exit code 1), and
at Ctrl-C, with {GRACE_S:.0f} s for what is in flight.
"""
_DROP = """\
Deletes what belongs to dead owners, or the quarantine, for good. Asks first. The file keeps its size, and uses the room
again.
"""


def add_spool(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's own subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    ls = add_command(actions, "ls", "show who has how much in it", _LS)
    verify = add_command(actions, "verify", "check it for damage", _VERIFY)
    replay = add_command(actions, "replay", "send what belongs to nobody", _REPLAY)
    drop = add_command(actions, "drop", "delete what belongs to nobody", _DROP)
    for action in (ls, verify, replay, drop):
        action.add_argument("path", metavar="PATH", help="the spool's file")
        if action is not drop:
            action.add_argument("--json", action="store_true", help="print one JSON object")
    add_url(replay)
    add_connection(replay, max_attempts=False)
    drop.add_argument("--yes", action="store_true", help="do not ask")
    which = drop.add_argument_group("what", "all that belongs to dead owners, or of that")
    which.add_argument("--type", metavar="T", type=types.text, help="events of this type")
    which.add_argument("--owner", metavar="NAME", type=types.owner, help="those of one owner; as ls names it")
    which.add_argument("--older-than", metavar="AGE", type=types.age, help="batches older than that, such as 12h or 3d")
    which.add_argument("--quarantine", action="store_true", help="the quarantine instead, all of it")
