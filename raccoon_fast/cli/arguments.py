"""The command line's options. Light to import: `--help` and `--version` load nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.bench_arguments import BENCH, add_bench
from raccoon_fast.cli.connection_arguments import add_connection, add_files, add_header_names, add_url
from raccoon_fast.cli.doctor_arguments import DOCTOR, add_doctor
from raccoon_fast.cli.exits import GIVE_UP_AFTER, GRACE_S, PATIENCE_S
from raccoon_fast.cli.parsers import Parser, add_command, new_parser
from raccoon_fast.cli.spool_arguments import SPOOL, add_spool

if TYPE_CHECKING:
    import argparse

__all__ = ["make_parser"]

_SEND = f"""\
Sends each line of FILE as one event, byte for byte. For a table (.parquet, .arrow, .feather, .csv) it sends each row as
a JSON object of its columns. Lines and CSV may be gzip. Files may be of any size: memory stays bounded. FILE may be a
pattern in quotes, such as 'day-*.csv'. Blank lines are skipped. At the first line or row that is not an event, the run
sends those before it and ends with exit code 2. It ends with exit code 1 if the server accepts nothing for
{PATIENCE_S:.0f} s, if {GIVE_UP_AFTER} requests in a row are not acknowledged, or, with --max-attempts, if the first
request cannot reach the server. Errors of the server are shown at once. Ctrl-C stops reading, waits up to
{GRACE_S:.0f} s for the requests in flight, and prints the summary; a second Ctrl-C ends the run at once.
"""
_COLLECT = """\
Runs a Raccoon server for development and tests: REST and WebSocket on one port, gRPC on another. It runs until Ctrl-C
or SIGTERM, then prints how many events it received. Events are counted and not stored, unless --sink names a file; the
page /inspect shows the last ones.
"""
_DEMO = """\
Starts a collector and sends it real flights over REST (protobuf and JSON), WebSocket and gRPC, then compares what
arrived with what was sent, byte for byte. Exit code 0: every event was acknowledged, and arrived once and unchanged.
With --url or --grpc the flights go to your server instead, and only the acknowledgements are checked.
"""
_COMPLETION = """\
Prints a script that completes raccoon-fast in a shell. To load it in every shell, add to
  ~/.bashrc                   eval "$(raccoon-fast completion bash)"
  ~/.zshrc, after compinit    eval "$(raccoon-fast completion zsh)"
  ~/.config/fish/config.fish  raccoon-fast completion fish | source
"""


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser. Parsed arguments always have `command` and `debug`."""
    parser = new_parser(prog="raccoon-fast", description="Send events to a Raccoon server, or run one for development.")
    parser.add_argument("--version", action="store_true", help="show name, version and build date, and exit")
    parser.add_argument("--debug", action="store_true", help="show the log, and tracebacks of errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, summary, text, add_options in (
        ("demo", "send real events in four ways, and compare what arrives", _DEMO, _add_demo),
        ("send", "send the lines of files, or the rows of tables, as events", _SEND, _add_send),
        ("collect", "run a server for development", _COLLECT, _add_collect),
        ("doctor", "check the connection to a server, and say how to fix it", DOCTOR, add_doctor),
        ("bench", "send load to a server, and measure its acknowledgements", BENCH, add_bench),
        ("spool", "list, check, send or delete the events in a spool", SPOOL, add_spool),
        ("completion", "print a script that completes the command in a shell", _COMPLETION, _add_completion),
    ):
        add_options(add_command(commands, name, summary, text))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", metavar="N", type=types.whole_number, help="number of flights to send (all 25,000)"
    )
    parser.add_argument("--url", help="your server's URL for REST and WebSocket, such as http://localhost:8080")
    parser.add_argument("--grpc", metavar="URL", help="your server's URL for gRPC, such as grpc://localhost:8081")
    add_connection(parser, reads_environment=False)


def _add_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="+", help="JSON Lines, or a table; - is stdin")
    add_url(parser)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--type", metavar="T", type=types.text, help="the type of every event")
    kind.add_argument(
        "--type-field", metavar="FIELD", type=types.text, help="the member of each line that holds its type"
    )
    kind.add_argument(
        "--type-column", metavar="NAME", type=types.text, help="the column of a table with each row's type"
    )
    parser.add_argument(
        "--columns",
        metavar="A,B",
        type=types.names,
        help="the columns of a table that make an event (all but the type column)",
    )
    parser.add_argument(
        "--message",
        metavar="NAME",
        type=types.text,
        help="a protobuf message to make of each row, such as shop.v1.Page",
    )
    parser.add_argument(
        "--descriptors", metavar="FILE", type=types.file, help="where it is: protoc --include_imports -oFILE"
    )
    batches = parser.add_argument_group("requests")
    batches.add_argument(
        "--batch-events",
        metavar="N",
        type=types.whole_number,
        default=1000,
        help="events per request (%(default)s, or 1 MiB)",
    )
    batches.add_argument(
        "--in-flight", metavar="N", type=types.whole_number, default=8, help="requests in flight at once (%(default)s)"
    )
    batches.add_argument(
        "--wire", choices=("proto", "json"), default="proto", help="encoding of requests (%(default)s)"
    )
    batches.add_argument(
        "--rate", metavar="N", type=types.rate, help="at most N events per second (as fast as the server accepts them)"
    )
    parser.add_argument(
        "--from-line", metavar="N", type=types.whole_number, default=1, help="start at this line or row (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the lines and count what would be sent, without connecting"
    )
    parser.add_argument("--skip-bad", action="store_true", help="report lines that are not events, and continue")
    parser.add_argument(
        "--failed",
        metavar="FILE",
        help="append the lines that were not acknowledged to FILE, so that you can send them again",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    add_connection(parser)


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", metavar="N", type=types.port, default=8080, help="port for REST and WebSocket (%(default)s; 0: any)"
    )
    parser.add_argument(
        "--grpc-port", metavar="N", type=types.port, default=8081, help="port for gRPC (%(default)s; 0: any)"
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.add_argument("--json", action="store_true", help="print addresses and the summary as JSON, one line each")
    parser.add_argument(
        "--print", action="store_true", help="print each event as a JSON line to stdout, and everything else to stderr"
    )
    parser.add_argument("--type", metavar="T", help="with --print: only events of this type")
    server = parser.add_argument_group("server", "the settings of a Raccoon server")
    server.add_argument(
        "--acks",
        choices=("async", "sync"),
        default="async",
        help="acknowledge on receipt, or after publishing (%(default)s)",
    )
    server.add_argument(
        "--dedup", action="store_true", help="drop requests whose guid was seen before on the WebSocket connection"
    )
    server.add_argument(
        "--max-connections",
        metavar="N",
        type=types.whole_number,
        default=30_000,
        help="limit of WebSocket connections (%(default)s)",
    )
    add_header_names(server, group_header=None, group_default="unset: groups are ignored")
    server.add_argument(
        "--ping-interval",
        metavar="S",
        type=types.seconds,
        default=30.0,
        help="seconds between WebSocket pings (%(default)g)",
    )
    server.add_argument(
        "--pong-wait",
        metavar="S",
        type=types.seconds,
        default=60.0,
        help="seconds without a pong until a WebSocket is closed (%(default)g)",
    )
    add_files(
        server,
        tls_cert="certificate",
        tls_key="its private key",
        tls_client_ca="CA that must have signed the clients' certificates",
    )
    publishing = parser.add_argument_group("publishing", "where events go, and faults to imitate")
    publishing.add_argument(
        "--sink",
        metavar="null|-|FILE",
        default="null",
        help="null only counts events; - or FILE writes JSON lines (%(default)s)",
    )
    publishing.add_argument(
        "--publish-failure-rate",
        metavar="SHARE",
        type=types.share,
        default=0.0,
        help="share of batches that fail to publish, 0 to 1 (%(default)g)",
    )
    publishing.add_argument(
        "--publish-delay", metavar="S", type=types.delay, default=0.0, help="seconds to publish a batch (%(default)g)"
    )
    inspector = parser.add_argument_group("inspector", "the page /inspect shows the events received")
    inspector.add_argument("--no-inspect", dest="inspect", action="store_false", help="do not serve the page")
    inspector.add_argument(
        "--descriptors",
        metavar="FILE",
        type=types.file,
        help="descriptors of protobuf events, as written by protoc --include_imports -oFILE",
    )
    inspector.add_argument(
        "--message",
        metavar="T=NAME",
        dest="messages",
        type=types.message,
        action="append",
        help="protobuf message of events of type T, such as page=shop.v1.Page; others count as bad; may be repeated",
    )
    inspector.add_argument(
        "--schema",
        metavar="T=FILE",
        dest="schemas",
        type=types.schema,
        action="append",
        help="JSON Schema of events of type T; events that do not match count as bad; may be repeated",
    )


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
