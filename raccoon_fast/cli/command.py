"""The command `raccoon-fast`: runs a subcommand, and turns any error into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from raccoon_fast.cli.arguments import make_parser
from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.terminal import adapt_streams, write_line, write_note
from raccoon_fast.errors import RaccoonError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments without the program's name; None uses the process's own.

    Returns:
        The exit code, see Exit.

    Raises:
        SystemExit: After --help, and for wrong usage.
    """
    adapt_streams()
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from raccoon_fast.client_info import client_info

        info = client_info()
        write_line(f"{info.name} {info.version} (built {info.build_date}), {info.form}")
        return Exit.OK
    if arguments.command is None:
        parser.error("add a command, such as demo or send")
    try:
        # Imported late: a client loads far more than --help needs.
        code = _load(arguments.command)(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone; the interpreter's own flush at exit must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - the last frame: people get a line, --debug gets the traceback
        if arguments.debug:
            traceback.print_exc()
        text, exit_code = _describe(error)
        write_note(f"raccoon-fast {arguments.command}: {' '.join(text.split())}")
        return exit_code
    return code


def _load(command: str) -> Callable[[argparse.Namespace], int]:
    """Returns the function that runs a subcommand. Imports by name, which PyInstaller and similar tools can find."""
    if command == "demo":
        from raccoon_fast.cli.demo import run
    elif command == "send":
        from raccoon_fast.cli.send import run
    elif command == "collect":
        from raccoon_fast.cli.collect import run
    elif command == "doctor":
        from raccoon_fast.cli.doctor import run
    elif command == "bench":
        from raccoon_fast.cli.bench import run
    elif command == "completion":
        from raccoon_fast.cli.completion import run
    else:
        from raccoon_fast.cli.spool import run
    return run


def _describe(error: Exception) -> tuple[str, Exit]:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", Exit.USAGE
    if isinstance(error, RaccoonError):
        return str(error), Exit.FAILED
    if isinstance(error, (UsageError, ValueError, FileNotFoundError)):
        return str(error), Exit.USAGE
    if isinstance(error, OSError):
        return str(error), Exit.FAILED
    return f"unexpected {type(error).__name__}: {error}; --debug shows where", Exit.FAILED
