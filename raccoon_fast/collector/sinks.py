"""Where published events go: memory, nowhere, or a file."""

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
    """Takes batches on the collector's event loop; read from any thread."""

    #: Whether what is received is to be kept for the program to look at.
    keeps: bool

    def open(self) -> None:
        """Batches are about to come.

        Raises:
            OSError: They cannot be taken.
        """

    def publish(self, batch: Batch) -> None:
        """Take one batch whole; when this returns it is published.

        Raises:
            OSError: It is not.
        """

    def events(self) -> list[ReceivedEvent]:
        """What is kept, in the order of publishing."""

    def clear(self) -> None:
        """Forget what is kept."""

    def close(self) -> None:
        """No more will come."""


class NullSink:
    """Counts are all that remains of an event."""

    keeps = False

    def open(self) -> None:
        """Nothing to do."""

    def publish(self, batch: Batch) -> None:
        """Drop it."""

    def events(self) -> list[ReceivedEvent]:
        """Nothing."""
        return []

    def clear(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class MemorySink:
    """Keeps every event until `clear`; memory grows with them.

    Batches are kept as they were parsed and taken apart when somebody looks: taking a thousand events apart costs more
    than receiving them.
    """

    keeps = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[Batch] = []
        self._events: list[ReceivedEvent] = []

    def open(self) -> None:
        """Nothing to do."""

    def publish(self, batch: Batch) -> None:
        """Keep it."""
        with self._lock:
            self._batches.append(batch)

    def events(self) -> list[ReceivedEvent]:
        """A list of the caller's own."""
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
        """Nothing to do: the events stay readable."""


class StandardOutputSink:
    """Writes to standard output what FileSink writes to its file; a reader that is gone makes publishing fail."""

    keeps = False

    def open(self) -> None:
        """Nothing to do."""

    def publish(self, batch: Batch) -> None:
        """Write its lines."""
        sys.stdout.buffer.write(_lines(batch))
        sys.stdout.buffer.flush()

    def events(self) -> list[ReceivedEvent]:
        """Nothing: they were written."""
        return []

    def clear(self) -> None:
        """What was written stays."""

    def close(self) -> None:
        """Nothing to do."""


class FileSink:
    """Appends to a file, one JSON object a line and event: req_guid, type, data (base64), protocol, received_time.

    A batch is handed to the operating system before its publishing is acknowledged, so it outlives this process; it is
    not forced to the disk.
    """

    keeps = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: io.FileIO | None = None

    def open(self) -> None:
        """Open the file, or make it."""
        # Unbuffered: a failed write leaves nothing behind that a later one would write.
        self._file = self._path.open("ab", buffering=0)

    def publish(self, batch: Batch) -> None:
        """Write its lines with one call; what a full disk took only in part is cut off again."""
        lines = _lines(batch)
        assert self._file is not None
        start = os.fstat(self._file.fileno()).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):  # a pipe, or a device
                self._file.truncate(start)
            raise

    def events(self) -> list[ReceivedEvent]:
        """Nothing: they are in the file."""
        return []

    def clear(self) -> None:
        """The file stays as it is."""

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
    """The sink of the option `sink`: "memory", "null", "-", or the path of a file to append to."""
    if sink == "-":
        return StandardOutputSink()
    if sink == "memory":
        return MemorySink()
    if sink == "null":
        return NullSink()
    return FileSink(sink)
