"""`raccoon-fast send`: sends the lines or rows of files as events, in bounded memory."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from raccoon_fast import json_codec
from raccoon_fast.cli.connect import ServerOptions, make_producer
from raccoon_fast.cli.dry_run import dry_run
from raccoon_fast.cli.exits import GIVE_UP_AFTER, GRACE_S, PATIENCE_S, Exit, StopSignals, UsageError
from raccoon_fast.cli.failures import FailureLog
from raccoon_fast.cli.formats import array_hint
from raccoon_fast.cli.in_flight import InFlight
from raccoon_fast.cli.inputs import batches_of, expand, open_input, total_size
from raccoon_fast.cli.lines import InputError
from raccoon_fast.cli.summary import Summary
from raccoon_fast.cli.terminal import open_progress, write_json, write_note, write_table
from raccoon_fast.errors import ConnectError
from raccoon_fast.serializers import RAW
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    import argparse
    import io

    from raccoon_fast.cli.in_flight import Settled
    from raccoon_fast.cli.inputs import Input
    from raccoon_fast.cli.terminal import Progress

__all__ = ["run"]

_POLL_S = 0.1
#: Seconds of --rate that are sent at once.
_RATE_S = 0.1
_MAX_NOTES = 20  # a server's texts may differ in every failure


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand and returns the exit code.

    Raises:
        UsageError, ValueError, OSError: An option or a file is invalid.
    """
    with contextlib.ExitStack() as stack:
        paths = expand(arguments.file, arguments)
        if arguments.dry_run:
            return dry_run(arguments, paths)
        first: Input = open_input(paths[0], arguments)
        stack.enter_context(first)
        failed = None if arguments.failed is None else stack.enter_context(_open_failed(arguments.failed, paths, first))
        server = ServerOptions(arguments, arguments.url)
        failures = FailureLog(server.options["logger"])
        server.options["logger"] = failures
        if arguments.rate is not None:  # otherwise a whole batch would be due at once
            arguments.batch_events = min(arguments.batch_events, max(1, round(arguments.rate * _RATE_S)))
        producer = make_producer(
            arguments,
            server,
            serializer=RAW,
            wire=arguments.wire,
            in_flight=arguments.in_flight,
            batch_events=arguments.batch_events,
        )
        stack.callback(producer.close, timeout=0)  # everything is settled by then, or a second signal arrived
        stop = stack.enter_context(StopSignals())
        progress = stack.enter_context(open_progress(total_size(paths)))
        flight = InFlight(producer, arguments.batch_events, arguments.in_flight)
        sending = _Sending(first, paths[1:], flight, failures, failed, stop, progress)
        sending.run(arguments)
    if arguments.json:
        write_json(json_codec.dumps(sending.summary.as_json()).decode())
    else:
        write_table(sending.summary.as_rows())
    for note in sending.notes():
        write_note(f"raccoon-fast send: {note}")
    return sending.exit_code()


class _Sending:
    """One run, from the first line to the last outcome.

    Attributes:
        summary: Complete after `run`.
    """

    def __init__(
        self,
        first: Input,
        later: list[str],
        flight: InFlight,
        failures: FailureLog,
        failed: io.FileIO | None,
        stop: StopSignals,
        progress: Progress,
    ) -> None:
        self._reader = first
        self._later = later
        self._passed = 0  # bytes of the files before
        self._flight = flight
        self._failures = failures
        self._failed = failed
        self._stop = stop
        self._progress = progress
        self._faults: list[str] = []
        self._failure = ""  # of the server, since the last acknowledgement
        self._noted: set[str] = set()
        self._given_up = ""  # why
        self._last_line = 0
        self._hint = ""  # of the first line
        self._well_s = time.monotonic()
        self.summary = Summary()

    def run(self, arguments: argparse.Namespace) -> None:
        began_s = time.perf_counter()
        self._send_file(arguments)
        while self._later and not self._ended_early() and not self._faults:
            self._passed += self._reader.size or 0
            try:
                reader = open_input(self._later.pop(0), arguments)
            except UsageError as error:
                self._faults.append(str(error))
                break
            self._last_line = 0
            with reader:
                self._reader = reader
                self._send_file(arguments)
        self._drain()
        self.summary.seconds = time.perf_counter() - began_s

    def _send_file(self, arguments: argparse.Namespace) -> None:
        unit = self._reader.unit

        def report_bad(text: str) -> None:
            if not arguments.skip_bad:
                raise InputError(f"{text}; fix the {unit}, or skip such {unit}s with --skip-bad")
            self.summary.bad_lines += 1
            self._progress.note(f"{text}; left out")

        due_s = time.monotonic()
        try:
            for batch in batches_of(self._reader, arguments, report_bad, self._ended_early):
                while batch is not None and (wait_s := due_s - time.monotonic()) > 0 and not self._ended_early():
                    self._settle(min(wait_s, _POLL_S))
                if batch is not None:
                    if self._ended_early():
                        break  # not sent: the notes name the line to continue from
                    if arguments.rate is not None:
                        due_s = max(due_s, time.monotonic() - _RATE_S) + len(batch.events) / arguments.rate
                    if unit == "line" and not self._hint and not self._last_line:
                        self._hint = array_hint(batch.events[0][1])
                    self._flight.submit(batch)
                    self._last_line = batch.last_line
                while self._flight.full and not self._ended_early():
                    self._settle(_POLL_S)
                while self._settle(0):
                    pass
                if self._ended_early() or self._faults:
                    break
        except InputError as error:
            self._faults.append(str(error))
        if arguments.from_line > max(1, self._reader.lines) and not self._ended_early() and not self._faults:
            end = f"{self._reader.name} ends at {unit} {self._reader.lines}"
            self._faults.append(f"{end}: there is no {unit} {arguments.from_line} to start at")

    def notes(self) -> list[str]:
        """Notes to print beside the numbers."""
        notes = list(self._faults)
        if self._hint and self._reader.lines == 1:
            notes.append(f"{self._reader.name} has one line, which was sent as one event; it looks like {self._hint}")
        summary = self.summary
        rest = f"nothing after {self._reader.unit} {self._last_line} of {self._reader.name} was sent"
        if self._reader.size is not None:
            rest += f"; continue with --from-line {self._last_line + 1}"
        if self._later:
            rest += f", and nothing of the next {counted(len(self._later), 'file')}, from {self._later[0]} on"
        if self._stop.received:
            notes.append(f"ended by {signal.Signals(self._stop.received).name}: {rest}")
        elif self._given_up:
            notes.append(f"gave up because {self._given_up}: {rest}")
        if summary.unacknowledged:
            kept = (
                f"their lines are in {self._failed.name}" if self._failed else "use --failed FILE to keep their lines"
            )
            events = counted(summary.events, "event")
            notes.append(f"not acknowledged: {summary.unacknowledged:,} of {events}; {kept}")
        return notes

    def exit_code(self) -> int:
        if self._stop.received:
            return 128 + self._stop.received
        if self.summary.unacknowledged:
            return Exit.FAILED
        return Exit.USAGE if self._faults else Exit.OK

    def _ended_early(self) -> bool:
        return self._stop.received is not None or bool(self._given_up)

    def _drain(self) -> None:
        """Waits for requests in flight until the client's own deadlines, or GRACE_S after an early end."""
        deadline_s = float("inf")
        while not self._flight.empty and time.monotonic() < deadline_s:
            if self._ended_early() and deadline_s == float("inf"):
                deadline_s = time.monotonic() + GRACE_S
            self._settle(_POLL_S)
        for settled in self._flight.abandon():
            self._account(settled)

    def _settle(self, timeout_s: float) -> bool:
        settled = self._flight.take(timeout_s)
        self._look_at_failures()
        if settled is not None:
            self._account(settled)
        elif timeout_s:
            self._look_at_server()
        return settled is not None

    def _look_at_failures(self) -> None:
        """Reports a failure that the user may have to fix at once: the batches themselves wait."""
        failure = self._failures.take()
        if not failure:
            return
        self._failure = self._failure or failure
        if failure not in self._noted and len(self._noted) < _MAX_NOTES:
            self._noted.add(failure)
            self._progress.note(f"raccoon-fast send: {failure}; trying again (Ctrl-C ends it)")

    def _look_at_server(self) -> None:
        """Gives up on a server that accepts nothing for a long time: the user may have to fix the cause."""
        server = self._flight.server
        now_s = time.monotonic()
        if server.ok:
            self._well_s = now_s
        elif now_s > self._well_s + PATIENCE_S and not self._given_up:
            self._given_up = f"the server failed for {PATIENCE_S:g} s: {self._failure or server.last_error}"
            if not self.summary.acknowledged:
                self._given_up += " (run raccoon-fast doctor to find out why)"

    def _account(self, settled: Settled) -> None:
        if settled.error is None:
            self._failure = ""
        self.summary.count(settled, self._failure)
        self._progress.update(self._passed + self._reader.position, self.summary.events)
        if settled.error is None:
            return
        if self.summary.failed_in_a_row >= GIVE_UP_AFTER:
            self._given_up = f"{GIVE_UP_AFTER} requests in a row failed"
        elif isinstance(settled.error, ConnectError) and not self.summary.acknowledged and not self._given_up:
            self._given_up = f"the server cannot be reached: {settled.error} (run raccoon-fast doctor to find out why)"
        if self._failed is not None:
            try:
                _write_all(self._failed, b"".join(data + b"\n" for _, data in settled.failed))
            except OSError as error:
                self._faults.append(f"{self._failed.name}: {error.strerror}; not every failed line is in it")


def _open_failed(path: str, paths: list[str], first: Input) -> io.FileIO:
    same = Path(path)
    if first.is_same_file(path) or any(same.exists() and name != "-" and same.samefile(name) for name in paths):
        raise UsageError(f"--failed {path} is the input file: choose another file")
    # Unbuffered: failed lines should be on disk even if this process is killed.
    return Path(path).open("ab", buffering=0)


def _write_all(file: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
