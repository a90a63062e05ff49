"""Parsers of the command and its subcommands: what they share, their errors and their last words."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

__all__ = ["Parser", "add_command", "new_parser"]

_EXIT_CODES = """\
exit codes:
  0    all is well
  1    not every event was acknowledged, or something failed on the way
  2    wrong usage or bad input: to be mended before the next run
  130  ended early by Ctrl-C (143 by SIGTERM); collect, which ends no other way, exits with 0
"""


class Parser(argparse.ArgumentParser):
    """One-line errors."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def new_parser(factory: Any = Parser, **arguments: Any) -> argparse.ArgumentParser:
    """Makes a parser by `factory`, with the exit codes at the end of its help."""
    # No abbreviations: a new option would change what an old script's means.
    parser: argparse.ArgumentParser = factory(
        **arguments,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """Adds a subcommand to what `add_subparsers` made."""
    parser = new_parser(commands.add_parser, name=name, help=summary, description=description)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser
