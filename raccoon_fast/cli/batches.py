"""Makes batches of events from lines, and reports bad lines by file and number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast.cli.formats import array_hint, format_hint
from raccoon_fast.cli.lines import MAX_LINE_BYTES, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raccoon_fast.cli.lines import LineReader

__all__ = ["MAX_BATCH_BYTES", "Batch", "event_parser", "read_batches"]

#: A batch is also full at this many bytes of events, which limits the memory of all batches in flight. A longer line is
#: sent as a separate batch.
MAX_BATCH_BYTES = 1 << 20


@dataclass
class Batch:
    """Events of one request.

    Attributes:
        events: (type, data) pairs.
        nbytes: Bytes of all data.
        last_line: The line number of the last event.
    """

    events: list[tuple[str, Any]] = field(default_factory=list)
    nbytes: int = 0
    last_line: int = 0


def event_parser(fixed_type: str | None, type_field: str | None) -> Callable[[bytes], str]:
    """Makes a function that checks a line and returns the type of its event.

    Args:
        fixed_type: The type of all events, or None.
        type_field: The member of each line's object that holds its type; used if `fixed_type` is None.

    Returns:
        A function that raises ValueError with the reason if a line is not a JSON text (RFC 8259) or lacks its type.
    """

    def parse(text: bytes) -> str:
        if len(text) > MAX_LINE_BYTES:
            raise ValueError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
        try:
            value = json_codec.loads(text)
        except json_codec.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
        if fixed_type is not None:
            return fixed_type
        if not isinstance(value, dict):
            raise ValueError(f"not a JSON object; --type-field {type_field} needs one")
        event_type = value.get(type_field)
        if not isinstance(event_type, str) or not event_type:
            found = f"is {json_codec.dumps(event_type).decode():.40}" if type_field in value else "is missing"
            raise ValueError(f"the type must be a non-empty string, but {type_field!r} {found}")
        return event_type

    return parse


def read_batches(
    reader: LineReader,
    type_of: Callable[[bytes], str],
    max_events: int,
    on_bad_line: Callable[[str], None],
    is_stopped: Callable[[], bool],
    *,
    from_line: int = 1,
) -> Iterator[Batch | None]:
    """Reads batches of at most `max_events` and MAX_BATCH_BYTES; skips blank lines.

    A pause of the input closes a batch early, or yields None if no batch is open. If the first line is not an
    event and looks like the start of a file in another format, the reason says so.

    Args:
        reader: Where the lines come from.
        type_of: A function made by `event_parser`.
        max_events: The number of events in a full batch.
        on_bad_line: Called with "FILE:LINE: reason" for a line that is not an event; may raise InputError.
        is_stopped: Called before each line; once it returns true, the current batch is the last.
        from_line: The number of the first line to read.

    Raises:
        InputError: Raised by the reader or by `on_bad_line`; the events before that line are yielded first.
    """
    batch = Batch()
    try:
        for line in reader:
            if line is None:
                yield batch if batch.events else None
                batch = Batch()
                continue
            if is_stopped():
                break
            number, text = line
            if number < from_line or not text or text.isspace():
                continue
            try:
                event_type = type_of(text)
            except ValueError as error:
                hint = (format_hint(text) or array_hint(text)) if number == 1 else ""
                on_bad_line(f"{reader.name}:{number}: {error}" + (f"; it looks like {hint}" if hint else ""))
                continue
            if batch.events and batch.nbytes + len(text) > MAX_BATCH_BYTES:
                yield batch
                batch = Batch()
            batch.events.append((event_type, text))
            batch.nbytes += len(text)
            batch.last_line = number
            if len(batch.events) == max_events:
                yield batch
                batch = Batch()
    except InputError:
        if batch.events:
            yield batch
        raise
    if batch.events:
        yield batch
