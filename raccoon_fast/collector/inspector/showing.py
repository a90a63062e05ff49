"""Events and rejections as members of the inspector's answers."""

from __future__ import annotations

import base64
import re
from typing import Any

from raccoon_fast import json_codec
from raccoon_fast.client_info import is_probe
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.journal import MAX_DATA_BYTES, KeptEvent, Rejection
from raccoon_fast.collector.judging import BadEvent

__all__ = ["Showing"]

# Names of headers whose values may be secrets.
_SECRET = re.compile("authorization|x-auth|cookie|token|secret|password|api-?key", re.IGNORECASE)


class Showing:
    """Used on the collector's event loop.

    Args:
        decoder: Shows an event's data.
        table: Has the faults that happened to each request.
    """

    def __init__(self, decoder: EventDecoder, table: FaultTable) -> None:
        self._decoder = decoder
        self._table = table

    def event(self, event: KeptEvent) -> dict[str, Any]:
        """An event in a list."""
        decoded, request = self._decoder.decode(event.type, event.data, event.size), event.request
        return {
            "number": event.number,
            "type": event.type,
            "protocol": request.protocol,
            "size": event.size,
            "format": decoded.format,
            "data": None if decoded.json is None else json_codec.Fragment(decoded.json),
            "text": decoded.text,
            "message": decoded.message,
            "problem": decoded.problem,
            "req_guid": request.req_guid,
            "sent_time": request.sent_time,
            "received_time": request.received_time,
            "connection_id": request.connection_id,
            "group": request.group,
            "user_agent": request.user_agent,
            "probe": is_probe(request.user_agent),
            "bad": None if event.fault is None else event.fault._asdict(),
            "faults": self._table.hits_of(request.req_guid),
        }

    def whole(self, event: KeptEvent) -> dict[str, Any]:
        """An event with headers and bytes; values of headers that may be secrets are masked."""
        headers = {name: "(masked)" if _SECRET.search(name) else value for name, value in event.request.headers.items()}
        return {**self.event(event), "headers": headers, "base64": base64.b64encode(event.data).decode()}

    def bad_event(self, bad: BadEvent) -> dict[str, Any]:
        """An event that does not match its type's schema or message."""
        event, data = bad.event, bad.event.data[:MAX_DATA_BYTES]
        decoded = self._decoder.decode(event.type, data, len(event.data))
        return {
            "type": event.type,
            "req_guid": event.req_guid,
            "protocol": event.protocol,
            "connection_id": event.connection_id,
            "size": len(event.data),
            "format": decoded.format,
            "text": decoded.text,
            "path": bad.path,
            "reason": bad.reason,
        }

    def rejection(self, rejection: Rejection) -> dict[str, Any]:
        """A request that was rejected."""
        decoded = self._decoder.decode(None, rejection.data, rejection.size)
        shown = rejection._asdict()
        del shown["data"]
        shown["probe"] = is_probe(rejection.user_agent)
        return {**shown, "format": decoded.format, "text": decoded.text, "problem": decoded.problem}
