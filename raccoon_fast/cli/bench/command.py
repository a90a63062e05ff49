"""Runs the steps of `raccoon-fast bench`, and reports them."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast.cli.bench.chart import PARTS, Bar, draw_svg, draw_text
from raccoon_fast.cli.bench.load import run_step
from raccoon_fast.cli.connect import ServerOptions
from raccoon_fast.cli.exits import Exit, StopSignals, UsageError
from raccoon_fast.cli.lines import MAX_LINE_BYTES, LineReader
from raccoon_fast.cli.terminal import (
    confirm,
    open_progress,
    write_json,
    write_line,
    write_note,
    write_picture,
    write_table,
)
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.net.address import parse_address, protocol_of
from raccoon_fast.producers.producer import Producer
from raccoon_fast.serializers import RAW
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.cli.bench.load import Step
    from raccoon_fast.cli.terminal import Progress

__all__ = ["run"]

_DRAIN_S = 10.0
_FIRST_ACK_S = 15.0
_MOST_PAYLOADS = 10_000
_MOST_PAYLOAD_BYTES = 64 << 20
_SHARES = (0.5, 0.9, 0.99, 0.999)


def run(arguments: argparse.Namespace) -> int:
    """Runs the steps, reports, and returns the exit code.

    Raises:
        UsageError, ValueError, OSError: An option or a file is invalid.
        RaccoonError: The server does not acknowledge the first event.
    """
    server = ServerOptions(arguments, arguments.url)
    rates = arguments.ramp or [arguments.rate]
    payloads = _payloads(arguments)
    if not (all(map(_is_loopback, server.urls)) or arguments.yes or _is_allowed(arguments, server.urls, rates)):
        write_line("nothing was sent")
        return Exit.FAILED
    producer = server.new(
        Producer,
        serializer=RAW,
        wire=arguments.wire,
        linger=arguments.linger,
        batch_events=arguments.batch_events,
        max_in_flight=arguments.in_flight,
        connections=arguments.connections,
        overflow="raise",
        retry=RetryPolicy(max_attempts=1),  # failures must show, not be retried
    )
    events = [(arguments.type, payload) for payload in payloads]
    with StopSignals() as stop, open_progress(None) as progress:
        try:
            producer.emit(*events[0]).result(_FIRST_ACK_S)  # opens the connection before the measurement
            steps = _run_steps(arguments, producer, events, rates, stop, progress)
        finally:
            producer.close(timeout=0.001)
    _report(arguments, steps, ", ".join(server.urls))
    if stop.received:
        return 128 + stop.received
    return Exit.FAILED if any(step.failed or step.emitted < step.due for step in steps) else Exit.OK


def _run_steps(
    arguments: argparse.Namespace,
    producer: Producer,
    events: list[tuple[str, bytes]],
    rates: list[float],
    stop: StopSignals,
    progress: Progress,
) -> list[Step]:
    steps: list[Step] = []
    for rate in rates:
        step = run_step(
            producer,
            events,
            rate,
            arguments.seconds,
            drain_s=_DRAIN_S,
            is_stopped=lambda: stop.received is not None,
        )
        steps.append(step)
        progress.update(0, sum(one.acknowledged for one in steps))
        if stop.received:
            break
        if not step.kept_up and rate != rates[-1]:
            progress.note(f"raccoon-fast bench: could not keep up with {rate:,.0f} events/s: the ramp ends here")
            break
    return steps


# What to send, and permission to send it


def _payloads(arguments: argparse.Namespace) -> list[bytes]:
    if arguments.payload is None:
        if arguments.whole:
            raise UsageError("--whole is for --payload FILE: name the file")
        return [b"x" * arguments.size]
    if arguments.whole:
        data = Path(arguments.payload).read_bytes()
        if not data:
            raise UsageError(f"{arguments.payload} is empty: there is nothing to send")
        return [data]
    size = 0
    payloads: list[bytes] = []
    with LineReader(arguments.payload) as reader:
        for line in itertools.islice((line for line in reader if line and line.text.strip()), _MOST_PAYLOADS):
            size += len(line.text)
            if len(line.text) > MAX_LINE_BYTES:
                raise UsageError(f"{reader.name}:{line.number}: longer than {MAX_LINE_BYTES >> 20} MiB")
            if size > _MOST_PAYLOAD_BYTES:
                break
            payloads.append(line.text)
    if not payloads:
        raise UsageError(f"{arguments.payload} holds no line: there is nothing to send")
    return payloads


def _is_loopback(url: str) -> bool:
    address = parse_address(url, protocol_of(url))
    with contextlib.suppress(OSError):
        found = {str(sockaddr[0]) for *_, sockaddr in socket.getaddrinfo(address.host, address.port)}
        return all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for host in found)
    return False


def _is_allowed(arguments: argparse.Namespace, urls: list[str], rates: list[float]) -> bool:
    hosts = ", ".join(urls)
    return confirm(
        f"Send up to {max(rates):,.0f} events/s, for {len(rates) * arguments.seconds:g} s, to {hosts}? "
        "This puts load on that server."
    )


# The report


def _report(arguments: argparse.Namespace, steps: list[Step], servers: str) -> None:
    bars = [
        Bar(f"{step.rate:,.0f}", [value * 1e3 for value in _latencies_s(step).values()])
        for step in steps
        if step.acknowledged
    ]
    if arguments.svg and bars:
        Path(arguments.svg).write_text(draw_svg(bars, f"raccoon-fast bench {servers}"), encoding="utf-8")
    if arguments.json:
        write_json(json_codec.dumps({"steps": [_as_json(step) for step in steps]}).decode())
        return
    names = [name for name, _, _ in PARTS]
    write_table(
        [_as_cells(step) for step in steps],
        ("events/s", "achieved", "acked", *(f"{name} ms" for name in names), "CPU", "µs/event"),
    )
    if bars:
        write_line("")
        columns = shutil.get_terminal_size((100, 24)).columns
        write_picture(draw_text(bars, columns), {character: colour for _, character, colour in PARTS[1:]})
    for step in steps:
        for reason, count in step.failed.items():
            write_note(f"raccoon-fast bench: at {step.rate:,.0f} events/s, {counted(count, 'event')} failed: {reason}")
        if step.emitted < step.due and not step.failed.get("overflow"):
            write_note(
                f"raccoon-fast bench: at {step.rate:,.0f} events/s, this machine emitted only {step.emitted:,} of "
                f"{counted(step.due, 'event')}"
            )


def _latencies_s(step: Step) -> dict[str, float]:
    names = [name for name, _, _ in PARTS]
    return dict(zip(names, [*map(step.latencies.percentile_s, _SHARES), step.latencies.max_s], strict=True))


def _as_json(step: Step) -> dict[str, Any]:
    return {
        "rate": step.rate,
        "due": step.due,
        "emitted": step.emitted,
        "acknowledged": step.acknowledged,
        "failed": dict(step.failed),
        "achieved": round(step.achieved, 1),
        "seconds": round(step.seconds, 6),
        "cpu_s": round(step.cpu_s, 6),
        "kept_up": step.kept_up,
        "latency_ms": {name: round(value * 1e3, 3) for name, value in _latencies_s(step).items()},
    }


def _as_cells(step: Step) -> list[str]:
    times = [f"{value * 1e3:,.2f}" if step.acknowledged else "" for value in _latencies_s(step).values()]
    cpu = f"{step.cpu_s / step.seconds:.0%}" if step.seconds else "", f"{step.cpu_s / max(step.emitted, 1) * 1e6:,.2f}"
    return [f"{step.rate:,.0f}", f"{step.achieved:,.0f}", f"{step.acknowledged:,}", *times, *cpu]
