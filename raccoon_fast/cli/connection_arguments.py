"""The options of a connection, which several subcommands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.cli import argument_types as types

if TYPE_CHECKING:
    import argparse

__all__ = ["add_connection", "add_files", "add_header_names", "add_url"]

_SCHEMES = "http, https, ws, wss, grpc or grpcs"
_ID_HEADER, _GROUP_HEADER = "X-User-ID", "X-User-Group"
_ENVIRONMENT = """\
options that are left out are read from RACCOON_FAST_URL (several URLs are separated by commas), _USER_ID, _GROUP,
_ID_HEADER, _GROUP_HEADER, _TLS_CA, _TLS_CERT, _TLS_KEY, _TLS_PASSWORD, _PROXY, _SERVER_HOSTNAME, _TIMEOUT, and
_AUTH_TOKEN (a bearer token); the proxy also from HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY
"""


def add_url(parser: argparse.ArgumentParser) -> None:
    """Adds --url, which the environment may replace."""
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        help=f"the server, such as http://localhost:8080: {_SCHEMES}; if repeated, the next one is used when one fails",
    )


def add_connection(
    parser: argparse.ArgumentParser, *, reads_environment: bool = True, max_attempts: bool = True
) -> None:
    """Adds the options of a connection.

    Args:
        parser: The subcommand's.
        reads_environment: Whether variables supply options that are left out.
        max_attempts: Whether the user limits the attempts per request.
    """
    group = parser.add_argument_group("connection", _ENVIRONMENT if reads_environment else None)
    group.add_argument("--user-id", metavar="ID", help="the connection's identity (a new one for each connection)")
    group.add_argument("--group", metavar="GROUP", help="the identity's group")
    add_header_names(group, None, None)
    group.add_argument(
        "--header",
        metavar="'K: V'",
        type=types.header,
        action="append",
        default=[],
        help="a further header; may be repeated, with other names",
    )
    group.add_argument(
        "--token",
        metavar="TOKEN",
        type=types.text,
        help="a bearer token; other users can see it in the list of processes: prefer RACCOON_FAST_AUTH_TOKEN",
    )
    add_files(
        group,
        ca="CA certificates to trust (the system's)",
        cert="client certificate, for mutual TLS",
        key="private key of the client certificate (read from --cert)",
    )
    group.add_argument(
        "--proxy", metavar="URL", help="connect through this proxy: http://, https:// or socks5://host:port"
    )
    group.add_argument("--server-hostname", metavar="NAME", help="the name that TLS checks (the name in the URL)")
    group.add_argument(
        "--timeout", metavar="S", type=types.seconds, help="timeout of one attempt (15 s; WebSocket: 30 s)"
    )
    if max_attempts:
        group.add_argument(
            "--max-attempts",
            metavar="N",
            type=types.whole_number,
            default=3,
            help="attempts per request, including the first (%(default)s)",
        )


def add_header_names(
    group: Any,
    id_header: str | None = _ID_HEADER,
    group_header: str | None = _GROUP_HEADER,
    group_default: str = _GROUP_HEADER,
) -> None:
    """Adds --id-header and --group-header with these defaults."""
    group.add_argument(
        "--id-header", metavar="NAME", default=id_header, help=f"the header that carries the identity ({_ID_HEADER})"
    )
    group.add_argument("--group-header", metavar="NAME", default=group_header, help=f"its group's ({group_default})")


def add_files(group: Any, **helps: str) -> None:
    """Adds an option that takes a PEM file, for each name."""
    for name, text in helps.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="PEM", type=types.file, help=text)
