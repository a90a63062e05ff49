"""`raccoon-fast collect`: a Raccoon for development, in the foreground."""

from __future__ import annotations

import errno
import functools
import json
import ssl
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.exits import Exit, UsageError
from raccoon_fast.cli.terminal import write_line

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.collector import Collector

__all__ = ["new_collector", "run"]

_BIND_ERRORS = (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL)
# Options of the command line that are not the collector's.
_OWN = ("command", "debug", "json", "quiet", "version")


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM and returns the exit code.

    Raises:
        UsageError: The collector's dependencies are missing, or the sink is one to look into from a program only.
        ValueError, OSError: An option is not what it should be, a port is taken, a file cannot be opened.
    """
    if arguments.sink == "memory":
        raise UsageError(
            "--sink memory would only grow: use null, which counts, or a file (in a program: Collector(sink='memory'))"
        )
    options = {name: value for name, value in vars(arguments).items() if name not in _OWN}
    if options["messages"] is not None:
        options["messages"] = dict(options["messages"])
    collector = new_collector(**options)
    try:
        collector.run(None if arguments.quiet else functools.partial(_say_addresses, arguments=arguments))
    except ssl.SSLError as error:
        raise UsageError("--tls-cert, --tls-key or --tls-client-ca does not hold the PEM it should") from error
    except OSError as error:
        if error.errno not in _BIND_ERRORS:
            raise
        raise UsageError(f"{error.strerror}; choose where by --host, --port and --grpc-port") from error
    if arguments.json and not arguments.quiet:
        write_line(json.dumps({"received": {name: counts._asdict() for name, counts in collector.counts.items()}}))
    elif not arguments.quiet:
        parts = [f"{counts.events} over {protocol}" for protocol, counts in collector.counts.items() if counts.events]
        write_line(f"received {collector.event_count} events" + (f": {', '.join(parts)}" if parts else ""))
    return Exit.OK


def new_collector(**options: Any) -> Collector:
    """Makes a collector; not started.

    Raises:
        UsageError: Its dependencies are missing.
    """
    try:
        from raccoon_fast.collector import Collector
    except ImportError as error:
        raise UsageError(str(error)) from error
    return Collector(**options)


def _say_addresses(collector: Collector, *, arguments: argparse.Namespace) -> None:
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
        write_line(json.dumps(said))
        return
    write_line(f"REST       {collector.url}")
    write_line(f"WebSocket  {collector.ws_url}")
    write_line(f"gRPC       {scheme}://{collector.grpc_target}")
    if inspects:
        write_line(f"inspector  {collector.url}/inspect")
