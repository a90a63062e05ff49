"""The options of `raccoon-fast bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.cli import argument_types as types
from raccoon_fast.cli.connection_arguments import add_connection

if TYPE_CHECKING:
    import argparse

__all__ = ["BENCH", "add_bench"]

BENCH = """\
Sends events at a fixed rate, whether the server keeps up or not (an open loop), and measures the time from when each
event was due until its acknowledgement. If earlier events delay an event, the delay counts as its latency. The events
of a millisecond are due at its start. Events delayed by a pause of this process are sent after the pause, and their
latency still counts from when they were due. A ramp runs each rate for --seconds, and ends early at a rate that the
server cannot keep up with. CPU is that of this process and includes generating the load. One extra event is sent first,
to open the connection. Requests are not retried. Exit code 1: an event failed, or this machine could not emit all
events.

This puts load on a server: for any server that is not on this machine's loopback it asks first, or needs --yes.
"""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's options."""
    parser.add_argument(
        "url", metavar="URL", nargs="*", help="the server ($RACCOON_FAST_URL), such as ws://localhost:8080"
    )
    load = parser.add_argument_group("load")
    rate = load.add_mutually_exclusive_group()
    rate.add_argument("--rate", metavar="N", type=types.rate, default=1000.0, help="events per second (%(default)g)")
    rate.add_argument(
        "--ramp", metavar="A:B:STEP", type=types.ramp, help="from A to B events per second, in steps of STEP"
    )
    load.add_argument(
        "--seconds", metavar="S", type=types.seconds, default=10.0, help="duration of each rate (%(default)g)"
    )
    payload = load.add_mutually_exclusive_group()
    payload.add_argument(
        "--payload", metavar="FILE", type=types.file, help="send the lines of FILE as events, repeatedly"
    )
    payload.add_argument(
        "--size",
        metavar="N",
        type=types.whole_number,
        default=200,
        help="or send N bytes of filler per event (%(default)s)",
    )
    load.add_argument(
        "--whole", action="store_true", help="send the whole file --payload as one event, such as a protobuf message"
    )
    load.add_argument(
        "--type", metavar="T", type=types.text, default="raccoon-fast-bench", help="the events' type (%(default)s)"
    )
    producer = parser.add_argument_group("producer", "the options of Producer")
    producer.add_argument("--batch-events", metavar="N", type=types.whole_number, default=1000, help="(%(default)s)")
    producer.add_argument("--linger", metavar="S", type=types.seconds, default=0.005, help="(%(default)g)")
    producer.add_argument("--in-flight", metavar="N", type=types.whole_number, default=8, help="(%(default)s)")
    producer.add_argument("--connections", metavar="N", type=types.whole_number, default=1, help="(%(default)s)")
    producer.add_argument("--wire", choices=("proto", "json"), default="proto", help="(%(default)s)")
    parser.add_argument("--svg", metavar="SVG", help="also write a picture to this file")
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_connection(parser, max_attempts=False)
