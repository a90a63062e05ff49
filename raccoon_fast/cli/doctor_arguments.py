"""The grammar of `raccoon-fast doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.connection_arguments import add_connection

if TYPE_CHECKING:
    import argparse

__all__ = ["DOCTOR", "add_doctor"]

DOCTOR = """\
Looks at all there is between here and a server: its name, its addresses in the order in which they are tried, the
proxy, TLS and its certificates; whether REST, WebSocket (at the same port) and gRPC answer; which header the server
reads ids from, and whether it refuses an id that is connected already. Then, once allowed to, it sends an event over
each protocol and encoding, and looks at the acknowledgement, how long it took, and how far the clocks are apart. Each
check is a line: ok, warn or fail, and what to do.

Exit code 0: nothing failed, though there may be warnings. 1: something failed.
"""


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's options."""
    parser.add_argument(
        "url", metavar="URL", nargs="*", help="the server ($RACCOON_FAST_URL), such as http://localhost:8080"
    )
    parser.add_argument(
        "--type", metavar="T", type=types.text, default="raccoon-fast-doctor", help="the events' type (%(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="send the events without asking")
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    add_connection(parser, max_attempts=False)
