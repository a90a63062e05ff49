"""The options of `raccoon-fast doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.connection_arguments import add_connection

if TYPE_CHECKING:
    import argparse

__all__ = ["DOCTOR", "add_doctor"]

DOCTOR = """\
Checks everything between this machine and a server: the name, the addresses in the order in which they are tried, the
proxy, TLS and the certificates; whether REST, WebSocket (on the same port) and gRPC answer; which header the server
reads ids from, and whether it refuses an id that is already connected. If you allow it, it then sends an event over
each protocol and encoding, and checks the acknowledgement, its latency, and the difference between the clocks. Each
check prints one line: ok, warn or fail, and what to do.

Exit code 0: no check failed, though there may be warnings. 1: a check failed.
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
