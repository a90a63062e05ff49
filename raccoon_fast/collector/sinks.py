"""Sinks for published events: memory, nothing, or a file."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import sys
import threading
from pathlib import Path
from typing import Protocol

from raccoon_fast import json_codec
from raccoon_fast.collector.records import Batch, ReceivedEvent

__all__ = ["FileSink", "MemorySink", "NullSink", "Sink", "StandardOutputSink", "make_sink"]


class Sink(Protocol):
    """Receives batches on the collector's event loop; any thread may read it."""

    #: Whether the sink keeps received events for the program.
    keeps: bool

    def open(self) -> None:
        """Prepare for batches.

        Raises:
            OSError: The sink cannot accept batches.
        """

    def publish(self, batch: Batch) -> None:
        """Accept one whole batch; it is published when this returns.

        Raises:
            OSError: The batch is not published.
        """

    def events(self) -> list[ReceivedEvent]:
        """The kept events, in order of publishing."""

    def clear(self) -> None:
        """Delete the kept events."""

    def close(self) -> None:
        """Close the sink."""


class NullSink:
    """Keeps no events; only counts remain."""

    keeps = False

    def open(self) -> None:
        """Does nothing."""

    def publish(self, batch: Batch) -> None:
        """Drop the batch."""

    def events(self) -> list[ReceivedEvent]:
        """Always an empty list."""
        return []

    def clear(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class MemorySink:
    """Keeps every event until `clear`; memory grows with the number of events.

    Batches are kept as parsed and are split into events when somebody reads them, because splitting a thousand events
    costs more than receiving them.
    """

    keeps = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[Batch] = []
        self._events: list[ReceivedEvent] = []

    def open(self) -> None:
        """Does nothing."""

    def publish(self, batch: Batch) -> None:
        """Keep the batch."""
        with self._lock:
            self._batches.append(batch)

    def events(self) -> list[ReceivedEvent]:
        """A new list, owned by the caller."""
        with self._lock:
            for batch in self._batches:
                self._events.extend(batch.events())
            self._batches.clear()
            return self._events.copy()

    def clear(self) -> None:
        """Forget all events."""
        with self._lock:
            self._batches.clear()
            self._events.clear()

    def close(self) -> None:
        """Does nothing: the events stay readable."""


class StandardOutputSink:
    """Writes the lines of FileSink to standard output; publishing fails once the reader is gone."""

    keeps = False

    def open(self) -> None:
        """Does nothing."""

    def publish(self, batch: Batch) -> None:
        """Write the batch's lines."""
        sys.stdout.buffer.write(_lines(batch))
        sys.stdout.buffer.flush()

    def events(self) -> list[ReceivedEvent]:
        """Always an empty list: events are written, not kept."""
        return []

    def clear(self) -> None:
        """Does nothing: written lines stay."""

    def close(self) -> None:
        """Does nothing."""


class FileSink:
    """Appends events to a file, one JSON object per line: req_guid, type, data (base64), protocol, received_time.

    The operating system has a batch before it is acknowledged as published, so the batch survives this process. It
    is not synced to the disk.
    """

    keeps = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: io.FileIO | None = None

    def open(self) -> None:
        """Open or create the file."""
        # Unbuffered: a failed write leaves no data that a later write would add.
        self._file = self._path.open("ab", buffering=0)

    def publish(self, batch: Batch) -> None:
        """Write the batch's lines with one call; if a full disk accepts only a part, truncate the file again."""
        lines = _lines(batch)
        assert self._file is not None
        start = os.fstat(self._file.fileno()).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):  # the file is a pipe or a device
                self._file.truncate(start)
            raise

    def events(self) -> list[ReceivedEvent]:
        """Always an empty list: events are in the file."""
        return []

    def clear(self) -> None:
        """Does nothing: the file stays as it is."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _lines(batch: Batch) -> bytes:
    return b"".join(
        json_codec.dumps(
            {
                "req_guid": batch.message.req_guid,
                "type": event.type,
                "data": base64.b64encode(event.event_bytes).decode(),
                "protocol": batch.source.protocol,
                "received_time": batch.received_time,
            },
            option=json_codec.OPT_APPEND_NEWLINE,
        )
        for event in batch.message.events
    )


def make_sink(sink: str | os.PathLike[str]) -> Sink:
    """The sink for the option `sink`: "memory", "null", "-" (standard output), or the path of a file to append to."""
    if sink == "-":
        return StandardOutputSink()
    if sink == "memory":
        return MemorySink()
    if sink == "null":
        return NullSink()
    return FileSink(sink)
