"""The command line's grammar. Light to import: `--help` and `--version` load nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["GIVE_UP_AFTER", "GRACE_S", "PATIENCE_S", "make_parser"]

#: Requests in a row: a server that is down, or refuses all, would have a large file read for nothing.
GIVE_UP_AFTER = 16
#: Seconds that what is in flight at a Ctrl-C has.
GRACE_S = 5.0
#: A server that takes nothing for so long is given up.
PATIENCE_S = 20.0

_SCHEMES = "http, https, ws, wss, grpc or grpcs"
_EXIT_CODES = """\
exit codes:
  0    all is well
  1    not every event was acknowledged, or something failed on the way
  2    wrong usage or bad input: to be mended before the next run
  130  ended early by Ctrl-C (143 by SIGTERM); collect, which ends no other way, exits with 0
"""
_SEND = f"""\
Sends each line of FILE, the line's own bytes, as one event. FILE may be gzip and of any size: memory stays bounded.
Blank lines are passed over. The first line that is no event ends the run (exit code 2), once the lines before it are
sent. So do (1) a server that cannot be reached to begin with or takes nothing for {PATIENCE_S:.0f} s, and
{GIVE_UP_AFTER} requests in a row that were not acknowledged. Ctrl-C stops the reading, gives what is in flight
{GRACE_S:.0f} s, and sums up; a second one ends it.
"""
_COLLECT = """\
A Raccoon for development and tests: REST and WebSocket on one port, gRPC on another. Runs until Ctrl-C or SIGTERM, and
then says how many events came. It is no store: events are counted and let go, unless --sink names a file.
"""
_DEMO = """\
Starts a collector and sends it real flights over REST (protobuf and JSON), WebSocket and gRPC; then compares what
arrived with what was sent, byte for byte. Exit code 0: every event was acknowledged, and arrived once and unchanged.
With --url or --grpc a server of yours is sent to instead; acknowledgements are then all that can be compared.
"""


class _Parser(argparse.ArgumentParser):
    """One-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser; parsed arguments have `command`, and `debug`."""
    parser = _make(
        _Parser, prog="raccoon-fast", description="Send events to a Raccoon server, or be one for development."
    )
    parser.add_argument("--version", action="store_true", help="show name, version and build date, and exit")
    parser.add_argument("--debug", action="store_true", help="log what happens, and show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, add_options, text in (
        ("demo", _add_demo, _DEMO),
        ("send", _add_send, _SEND),
        ("collect", _add_collect, _COLLECT),
    ):
        command = _make(commands.add_parser, name=name, help=_HELP[name], description=text)
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        add_options(command)
    return parser


_HELP = {
    "demo": "send real events all four ways, and compare what arrives",
    "send": "send the lines of a file as events",
    "collect": "receive events, as a server for development",
}


def _make(factory: Any, **arguments: Any) -> argparse.ArgumentParser:
    # No abbreviations: a new option would change what an old script's means.
    parser: argparse.ArgumentParser = factory(
        **arguments,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", metavar="N", type=_whole_number, help="flights to send (all 25,000)")
    parser.add_argument("--url", help="your server's REST and WebSocket, such as http://localhost:8080")
    parser.add_argument("--grpc", metavar="URL", help="your server's gRPC, such as grpc://localhost:8081")
    _add_connection(parser)


def _add_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="JSON Lines, plain or gzip; - is stdin")
    parser.add_argument("--url", required=True, help=f"the server, such as http://localhost:8080: {_SCHEMES}")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--type", metavar="T", type=_text, help="the type of every event")
    kind.add_argument("--type-field", metavar="FIELD", type=_text, help="the member of each line that holds its type")
    batches = parser.add_argument_group("requests")
    batches.add_argument(
        "--batch-events", metavar="N", type=_whole_number, default=1000, help="events in one (%(default)s, or 1 MiB)"
    )
    batches.add_argument(
        "--in-flight", metavar="N", type=_whole_number, default=8, help="unacknowledged at once (%(default)s)"
    )
    batches.add_argument("--wire", choices=("proto", "json"), default="proto", help="their encoding (%(default)s)")
    parser.add_argument("--skip-bad", action="store_true", help="report lines that are no events, and go on")
    parser.add_argument(
        "--failed", metavar="FILE", help="append the lines that were not acknowledged, to be sent again"
    )
    parser.add_argument("--json", action="store_true", help="sum up as one JSON object")
    _add_connection(parser)


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--user-id", metavar="ID", help="the connection's identity (a fresh one for each connection)")
    group.add_argument("--group", metavar="GROUP", help="the identity's group")
    _add_header_names(group)
    group.add_argument(
        "--header",
        metavar="'K: V'",
        type=_header,
        action="append",
        default=[],
        help="a further header; may be repeated",
    )
    _add_files(
        group,
        ca="CA certificates to trust (the system's)",
        cert="client certificate, for mutual TLS",
        key="its private key (looked for in --cert)",
    )
    group.add_argument("--timeout", metavar="S", type=_seconds, help="for one attempt (15 s; WebSocket: 30 s)")
    group.add_argument(
        "--max-attempts", metavar="N", type=_whole_number, default=3, help="for one request, in all (%(default)s)"
    )


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", metavar="N", type=_port, default=8080, help="REST and WebSocket (%(default)s; 0: any)"
    )
    parser.add_argument("--grpc-port", metavar="N", type=_port, default=8081, help="gRPC (%(default)s; 0: any)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    server = parser.add_argument_group("server", "as a Raccoon's own settings")
    server.add_argument(
        "--acks",
        choices=("async", "sync"),
        default="async",
        help="acknowledge on receipt, or when published (%(default)s)",
    )
    server.add_argument("--dedup", action="store_true", help="drop a guid seen before on a WebSocket connection")
    server.add_argument(
        "--max-connections", metavar="N", type=_whole_number, default=30_000, help="over WebSocket (%(default)s)"
    )
    _add_header_names(server)
    server.add_argument(
        "--ping-interval", metavar="S", type=_seconds, default=30.0, help="over WebSocket (%(default)g)"
    )
    server.add_argument(
        "--pong-wait", metavar="S", type=_seconds, default=60.0, help="without a pong, then cut off (%(default)g)"
    )
    _add_files(
        server, tls_cert="certificate", tls_key="its private key", tls_client_ca="CA that clients need a certificate of"
    )
    publishing = parser.add_argument_group("publishing", "what becomes of events, and what goes wrong on purpose")
    publishing.add_argument(
        "--sink", metavar="null|FILE", default="null", help="count only, or write to a file (%(default)s)"
    )
    publishing.add_argument(
        "--publish-failure-rate", metavar="SHARE", type=_share, default=0.0, help="of batches, 0 to 1 (%(default)g)"
    )
    publishing.add_argument("--publish-delay", metavar="S", type=_delay, default=0.0, help="of a batch (%(default)g)")


def _add_header_names(group: Any) -> None:
    group.add_argument("--id-header", metavar="NAME", default="X-User-ID", help="the identity's header (%(default)s)")
    group.add_argument("--group-header", metavar="NAME", default="X-User-Group", help="its group's (%(default)s)")


def _add_files(group: Any, **helps: str) -> None:
    for name, text in helps.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="PEM", type=_file, help=text)


def _whole_number(text: str) -> int:
    return _integer(text, 1, None)


def _port(text: str) -> int:
    return _integer(text, 0, 65535)


def _integer(text: str, least: int, most: int | None) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least or (most is not None and value > most):
        bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be a whole number {bounds}, not {text!r}")
    return value


def _seconds(text: str) -> float:
    return _number(text, "a number of seconds above 0", lambda value: 0 < value < float("inf"))


def _delay(text: str) -> float:
    return _number(text, "a number of seconds, 0 or more", lambda value: 0 <= value < float("inf"))


def _share(text: str) -> float:
    return _number(text, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def _number(text: str, wanted: str, is_right: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not is_right(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
    return value


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8 come as lone surrogates
        raise argparse.ArgumentTypeError("must be UTF-8 text") from None
    return text


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # Not repeated: it may hold a secret.
        raise argparse.ArgumentTypeError("must read 'Name: value'")
    return name.strip(), value.strip()
