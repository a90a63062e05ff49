"""The command line's grammar. Light to import: `--help` and `--version` load nothing else."""

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
Sends each line of FILE, the line's own bytes, as one event. Of a table (.parquet, .arrow, .feather, .csv) each row is
one, as a JSON object of its columns. Lines and CSV may be gzip. Files may be of any size: memory stays bounded. FILE
may be a pattern in quotes, such as 'day-*.csv'. Blank lines are passed over. The first line or row that is no event
ends the run (exit code 2), once those before it are sent. So do (1) a server that takes nothing for
{PATIENCE_S:.0f} s or, with --max-attempts, cannot be reached to begin
with, and {GIVE_UP_AFTER} requests in a row that were not acknowledged. What the server fails with is shown when it
happens. Ctrl-C stops the reading, gives what is in flight
{GRACE_S:.0f} s, and sums up; a second one ends it.
"""
_COLLECT = """\
A Raccoon for development and tests: REST and WebSocket on one port, gRPC on another. Runs until Ctrl-C or SIGTERM, and
then says how many events came. It is no store: events are counted and let go, unless --sink names a file; the last ones
are shown at /inspect.
"""
_DEMO = """\
Starts a collector and sends it real flights over REST (protobuf and JSON), WebSocket and gRPC; then compares what
arrived with what was sent, byte for byte. Exit code 0: every event was acknowledged, and arrived once and unchanged.
With --url or --grpc a server of yours is sent to instead; acknowledgements are then all that can be compared.
"""
_COMPLETION = """\
Prints a script that completes raccoon-fast in a shell. To have it in every shell, add to
  ~/.bashrc                   eval "$(raccoon-fast completion bash)"
  ~/.zshrc, after compinit    eval "$(raccoon-fast completion zsh)"
  ~/.config/fish/config.fish  raccoon-fast completion fish | source
"""


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser; parsed arguments have `command`, and `debug`."""
    parser = new_parser(prog="raccoon-fast", description="Send events to a Raccoon server, or be one for development.")
    parser.add_argument("--version", action="store_true", help="show name, version and build date, and exit")
    parser.add_argument("--debug", action="store_true", help="log what happens, and show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, summary, text, add_options in (
        ("demo", "send real events all four ways, and compare what arrives", _DEMO, _add_demo),
        ("send", "send the lines of files, or the rows of tables, as events", _SEND, _add_send),
        ("collect", "receive events, as a server for development", _COLLECT, _add_collect),
        ("doctor", "find out what works with a server, and what to do about the rest", DOCTOR, add_doctor),
        ("bench", "put load on a server, and measure its acknowledgements", BENCH, add_bench),
        ("spool", "look into a spool, send or drop what is in it", SPOOL, add_spool),
        ("completion", "complete the command in a shell", _COMPLETION, _add_completion),
    ):
        add_options(add_command(commands, name, summary, text))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", metavar="N", type=types.whole_number, help="flights to send (all 25,000)")
    parser.add_argument("--url", help="your server's REST and WebSocket, such as http://localhost:8080")
    parser.add_argument("--grpc", metavar="URL", help="your server's gRPC, such as grpc://localhost:8081")
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
        "--columns", metavar="A,B", type=types.names, help="those of a table that make an event (all but the type's)"
    )
    batches = parser.add_argument_group("requests")
    batches.add_argument(
        "--batch-events",
        metavar="N",
        type=types.whole_number,
        default=1000,
        help="events in one (%(default)s, or 1 MiB)",
    )
    batches.add_argument(
        "--in-flight", metavar="N", type=types.whole_number, default=8, help="unacknowledged at once (%(default)s)"
    )
    batches.add_argument("--wire", choices=("proto", "json"), default="proto", help="their encoding (%(default)s)")
    batches.add_argument(
        "--rate", metavar="N", type=types.rate, help="at most N events a second (as fast as the server takes them)"
    )
    parser.add_argument(
        "--from-line", metavar="N", type=types.whole_number, default=1, help="begin at this line or row (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the lines and say what would be sent; nothing is connected"
    )
    parser.add_argument("--skip-bad", action="store_true", help="report lines that are no events, and go on")
    parser.add_argument(
        "--failed", metavar="FILE", help="append the lines that were not acknowledged, to be sent again"
    )
    parser.add_argument("--json", action="store_true", help="sum up as one JSON object")
    add_connection(parser)


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", metavar="N", type=types.port, default=8080, help="REST and WebSocket (%(default)s; 0: any)"
    )
    parser.add_argument("--grpc-port", metavar="N", type=types.port, default=8081, help="gRPC (%(default)s; 0: any)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print addresses and the summary as JSON, one line each")
    parser.add_argument(
        "--print", action="store_true", help="print each event as a JSON line to stdout, and all else to stderr"
    )
    parser.add_argument("--type", metavar="T", help="with --print: events of this type only")
    server = parser.add_argument_group("server", "as a Raccoon's own settings")
    server.add_argument(
        "--acks",
        choices=("async", "sync"),
        default="async",
        help="acknowledge on receipt, or when published (%(default)s)",
    )
    server.add_argument("--dedup", action="store_true", help="drop a guid seen before on a WebSocket connection")
    server.add_argument(
        "--max-connections", metavar="N", type=types.whole_number, default=30_000, help="over WebSocket (%(default)s)"
    )
    add_header_names(server, group_header=None, group_default="unset: groups are not looked at")
    server.add_argument(
        "--ping-interval", metavar="S", type=types.seconds, default=30.0, help="over WebSocket (%(default)g)"
    )
    server.add_argument(
        "--pong-wait", metavar="S", type=types.seconds, default=60.0, help="without a pong, then cut off (%(default)g)"
    )
    add_files(
        server, tls_cert="certificate", tls_key="its private key", tls_client_ca="CA that clients need a certificate of"
    )
    publishing = parser.add_argument_group("publishing", "what becomes of events, and what goes wrong on purpose")
    publishing.add_argument(
        "--sink",
        metavar="null|-|FILE",
        default="null",
        help="count only, or write JSON lines to stdout or a file (%(default)s)",
    )
    publishing.add_argument(
        "--publish-failure-rate",
        metavar="SHARE",
        type=types.share,
        default=0.0,
        help="of batches, 0 to 1 (%(default)g)",
    )
    publishing.add_argument(
        "--publish-delay", metavar="S", type=types.delay, default=0.0, help="of a batch (%(default)g)"
    )
    inspector = parser.add_argument_group("inspector", "a page to look at what comes in, at /inspect")
    inspector.add_argument("--no-inspect", dest="inspect", action="store_false", help="leave it out")
    inspector.add_argument(
        "--descriptors", metavar="FILE", type=types.file, help="of protobuf events: protoc --include_imports -oFILE"
    )
    inspector.add_argument(
        "--message",
        metavar="T=NAME",
        dest="messages",
        type=types.message,
        action="append",
        help="what events of type T are in there, such as page=shop.v1.Page; others of T are bad; may be repeated",
    )
    inspector.add_argument(
        "--schema",
        metavar="T=FILE",
        dest="schemas",
        type=types.schema,
        action="append",
        help="JSON Schema of events of type T; those that do not match are bad; may be repeated",
    )


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which one")
