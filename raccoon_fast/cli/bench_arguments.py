"""The grammar of `raccoon-fast bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.connection_arguments import add_connection

if TYPE_CHECKING:
    import argparse

__all__ = ["BENCH", "add_bench"]

BENCH = """\
Sends events at a rate, whether the server keeps up with it or not (an open loop), and says how long each took from when
it was due to its acknowledgement: what comes late because something before it was slow counts as slow. The events of a
millisecond are due at its beginning; those that a pause of this process has delayed are sent after it, and counted from
when they were due. A ramp goes from rate to rate, each for --seconds, and ends early at a rate that
cannot be kept up. CPU is that of this process, the making of the load included. One event more is sent before, so that
the connection is there. No request is tried twice. Exit code 1: an event failed, or this machine could not emit them
all.

This is load on a server: any but one of this machine's loopback is asked for first, or takes --yes.
"""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's options."""
    parser.add_argument(
        "url", metavar="URL", nargs="*", help="the server ($RACCOON_FAST_URL), such as ws://localhost:8080"
    )
    load = parser.add_argument_group("load")
    rate = load.add_mutually_exclusive_group()
    rate.add_argument("--rate", metavar="N", type=types.rate, default=1000.0, help="events a second (%(default)g)")
    rate.add_argument("--ramp", metavar="A:B:STEP", type=types.ramp, help="from A events a second to B, by STEP")
    load.add_argument("--seconds", metavar="S", type=types.seconds, default=10.0, help="for each rate (%(default)g)")
    payload = load.add_mutually_exclusive_group()
    payload.add_argument("--payload", metavar="FILE", type=types.file, help="its lines are the events, over and over")
    payload.add_argument(
        "--size", metavar="N", type=types.whole_number, default=200, help="or so many bytes of filler (%(default)s)"
    )
    load.add_argument("--whole", action="store_true", help="all of --payload is one event: a protobuf message, say")
    load.add_argument(
        "--type", metavar="T", type=types.text, default="raccoon-fast-bench", help="the events' type (%(default)s)"
    )
    producer = parser.add_argument_group("producer", "as a Producer's options")
    producer.add_argument("--batch-events", metavar="N", type=types.whole_number, default=1000, help="(%(default)s)")
    producer.add_argument("--linger", metavar="S", type=types.seconds, default=0.005, help="(%(default)g)")
    producer.add_argument("--in-flight", metavar="N", type=types.whole_number, default=8, help="(%(default)s)")
    producer.add_argument("--connections", metavar="N", type=types.whole_number, default=1, help="(%(default)s)")
    producer.add_argument("--wire", choices=("proto", "json"), default="proto", help="(%(default)s)")
    parser.add_argument("--svg", metavar="SVG", help="write the picture to this file, too")
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_connection(parser, max_attempts=False)
