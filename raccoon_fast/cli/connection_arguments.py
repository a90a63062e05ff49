"""The options of a connection, which several subcommands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.cli import argument_types as types

if TYPE_CHECKING:
    import argparse

__all__ = ["SCHEMES", "add_connection", "add_files", "add_header_names"]

SCHEMES = "http, https, ws, wss, grpc or grpcs"


def add_connection(parser: argparse.ArgumentParser, *, max_attempts: bool = True) -> None:
    """Adds who connects, and how.

    Args:
        parser: The subcommand's.
        max_attempts: Whether the user bounds the attempts for one request.
    """
    group = parser.add_argument_group("connection")
    group.add_argument("--user-id", metavar="ID", help="the connection's identity (a fresh one for each connection)")
    group.add_argument("--group", metavar="GROUP", help="the identity's group")
    add_header_names(group)
    group.add_argument(
        "--header",
        metavar="'K: V'",
        type=types.header,
        action="append",
        default=[],
        help="a further header; may be repeated",
    )
    add_files(
        group,
        ca="CA certificates to trust (the system's)",
        cert="client certificate, for mutual TLS",
        key="its private key (looked for in --cert)",
    )
    group.add_argument("--timeout", metavar="S", type=types.seconds, help="for one attempt (15 s; WebSocket: 30 s)")
    if max_attempts:
        group.add_argument(
            "--max-attempts",
            metavar="N",
            type=types.whole_number,
            default=3,
            help="for one request, in all (%(default)s)",
        )


def add_header_names(group: Any) -> None:
    """Adds --id-header and --group-header."""
    group.add_argument("--id-header", metavar="NAME", default="X-User-ID", help="the identity's header (%(default)s)")
    group.add_argument("--group-header", metavar="NAME", default="X-User-Group", help="its group's (%(default)s)")


def add_files(group: Any, **helps: str) -> None:
    """Adds an option that takes a PEM file, for each name."""
    for name, text in helps.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="PEM", type=types.file, help=text)
