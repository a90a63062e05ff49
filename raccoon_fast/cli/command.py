"""The command `raccoon-fast`: runs a subcommand, and makes one line and an exit code of whatever goes wrong."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

from raccoon_fast.cli.arguments import make_parser
from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.terminal import write_line, write_note
from raccoon_fast.errors import RaccoonError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Without the program's name; the process's own when None.

    Returns:
        The exit code, see Exit.

    Raises:
        SystemExit: After --help, and for wrong usage.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from raccoon_fast.client_info import client_info

        info = client_info()
        write_line(f"{info.name} {info.version} (built {info.build_date})")
        return Exit.OK
    if arguments.command is None:
        parser.error("name a command, such as demo or send")
    try:
        # Imported now: a client loads far more than --help has need of.
        code: int = importlib.import_module(f"raccoon_fast.cli.{arguments.command}").run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has left; the interpreter's own flush at exit must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - the last frame: people get a line, --debug gets the traceback
        if arguments.debug:
            traceback.print_exc()
        text, exit_code = _describe(error)
        write_note(f"raccoon-fast {arguments.command}: {' '.join(text.split())}")
        return exit_code
    return code


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
