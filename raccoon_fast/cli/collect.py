"""`raccoon-fast collect`: runs a Raccoon server for development in the foreground."""

from __future__ import annotations

import base64
import errno
import functools
import json
import ssl
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.terminal import write_json, write_line, write_note
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from raccoon_fast.collector import Collector, ReceivedEvent

__all__ = ["new_collector", "run"]

_BIND_ERRORS = (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL)
# Options of the command that `Collector` does not take.
_OWN = ("command", "debug", "json", "print", "quiet", "type", "version")


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM and returns the exit code.

    Raises:
        UsageError: The collector's dependencies are missing, or only programs can use the sink.
        ValueError, OSError: An option is invalid, a port is in use, or a file cannot be opened.
        BrokenPipeError: The reader of the printed events has gone.
    """
    if arguments.sink == "memory":
        raise UsageError(
            "--sink memory is for programs, as it would grow without limit: use null, which counts, or a file"
        )
    options = {name: value for name, value in vars(arguments).items() if name not in _OWN}
    for name in ("messages", "schemas"):
        if options[name] is not None:
            options[name] = dict(options[name])
    if arguments.type is not None and not arguments.print:
        raise UsageError("--type selects the events that --print shows: add --print")
    reader_left = False

    def follow(event: ReceivedEvent) -> None:
        nonlocal reader_left
        try:
            _print_event(arguments.type, event)
        except BrokenPipeError:
            reader_left = True
            collector.close()  # does not wait on the collector's own thread

    if arguments.print:
        options["follow"] = follow
    collector = new_collector(**options)
    # If events go to standard output, nothing else does.
    say = write_note if arguments.print or arguments.sink == "-" else write_line
    try:
        collector.run(None if arguments.quiet else functools.partial(_say_addresses, arguments=arguments, say=say))
    except ssl.SSLError as error:
        raise UsageError("--tls-cert, --tls-key or --tls-client-ca does not contain valid PEM") from error
    except OSError as error:
        if error.errno not in _BIND_ERRORS:
            raise
        raise UsageError(f"{error.strerror}; choose another address with --host, --port and --grpc-port") from error
    if reader_left:
        raise BrokenPipeError
    if arguments.json and not arguments.quiet:
        received = {name: counts._asdict() for name, counts in collector.counts.items()}
        say(json.dumps({"received": received, "bad": collector.bad_event_count}))
    elif not arguments.quiet:
        parts = [f"{counts.events:,} over {protocol}" for protocol, counts in collector.counts.items() if counts.events]
        bad = f"; {collector.bad_event_count:,} bad" if collector.bad_event_count else ""
        say(f"received {counted(collector.event_count, 'event')}" + (f": {', '.join(parts)}" if parts else "") + bad)
    return Exit.OK


def _print_event(event_type: str | None, event: ReceivedEvent) -> None:
    if event_type is not None and event.type != event_type:
        return
    shown: dict[str, Any] = {"type": event.type, "req_guid": event.req_guid, "protocol": event.protocol}
    try:
        shown["data"] = json.loads(event.data)
    except ValueError:  # not JSON, or not UTF-8
        shown["base64"] = base64.b64encode(event.data).decode()
    write_json(json.dumps(shown, ensure_ascii=False))


def new_collector(**options: Any) -> Collector:
    """Makes a collector, without starting it.

    Raises:
        UsageError: Its dependencies are missing.
    """
    try:
        from raccoon_fast.collector import Collector
    except ImportError as error:
        raise UsageError(str(error)) from error
    return Collector(**options)


def _say_addresses(collector: Collector, *, arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    scheme = "grpcs" if collector.url.startswith("https") else "grpc"
    inspects = arguments.inspect
    if arguments.json:
        said = {
            "rest": collector.url,
            "websocket": collector.ws_url,
            "grpc": f"{scheme}://{collector.grpc_target}",
            "inspector": f"{collector.url}/inspect" if inspects else None,
            "port": collector.port,
            "grpc_port": collector.grpc_port,
        }
        say(json.dumps(said))
        return
    say(f"REST       {collector.url}")
    say(f"WebSocket  {collector.ws_url}")
    say(f"gRPC       {scheme}://{collector.grpc_target}")
    if inspects:
        say(f"inspector  {collector.url}/inspect")
