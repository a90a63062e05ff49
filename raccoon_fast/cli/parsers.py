"""What the parsers of the command and its subcommands share: errors, and the end of the help."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

__all__ = ["Parser", "add_command", "new_parser"]

_EXIT_CODES = """\
exit codes:
  0    success
  1    an event was not acknowledged, or the server failed
  2    an option or the input is invalid
  130  ended by Ctrl-C (143: by SIGTERM); collect, which always ends this way, exits with 0
"""


class Parser(argparse.ArgumentParser):
    """One-line errors."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def new_parser(factory: Any = Parser, **arguments: Any) -> argparse.ArgumentParser:
    """Makes a parser with `factory`, and lists the exit codes at the end of its help."""
    # No abbreviations: a new option could change the meaning of an old script.
    parser: argparse.ArgumentParser = factory(
        **arguments,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """Adds a subcommand to the result of `add_subparsers`."""
    parser = new_parser(commands.add_parser, name=name, help=summary, description=description)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser
