"""The embedded Raccoon server: in a thread of its own, or in the foreground."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from raccoon_fast.collector.expectations import Expectation, Where
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.judging import BadEvent, EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.records import Counts, ReceivedEvent, ReceivedRequest
from raccoon_fast.collector.runner import Runner
from raccoon_fast.collector.server import Server
from raccoon_fast.collector.sinks import make_sink
from raccoon_fast.collector.sockets import url_host

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.app import Inspection
    from raccoon_fast.collector.inspector.decoding import EventDecoder

__all__ = ["Collector"]

_SHOWN_BAD_EVENTS = 20


class Collector:
    """A Raccoon server for development, demos and tests: it answers on the wire as the real one does.

    `with Collector() as collector:` serves in a thread of its own until the block ends; `run()` serves in the calling
    thread until SIGINT or SIGTERM. Serves once. All properties and methods are thread-safe, but for `run`.

    Args:
        acks: "async" answers on receipt (the server's event.ack 0), "sync" once the events are published (1), then also
            out of order.
        dedup: Whether a guid that came before on the same WebSocket connection is answered SUCCESS at once.
        max_connections: WebSocket connections at once.
        id_header: Names the header, or gRPC metadata, with the client's id; None is a server whose setting is unset,
            which takes all clients for one and refuses gRPC calls.
        group_header: The same for its group. None, as on a server whose setting is unset: groups are not looked at, and
            an id that is connected is refused whatever group it names.
        ping_interval: Seconds between the server's pings, which all WebSocket clients get at the same time: the first
            comes within this time.
        pong_wait: Seconds a WebSocket connection lives without a pong.
        publish_failure_rate: The share of batches whose publishing fails, from 0 to 1.
        publish_delay: Seconds that publishing a batch takes at least; five are published at a time.
        sink: "memory" keeps events for `events`, "null" counts them, "-" writes them to standard output, and a path is
            a file they are appended to. Both write JSON objects, one per line: req_guid, type, data (base64),
            protocol, received_time (UNIX seconds).
        host: Where to listen: a name or an address.
        port: Of REST and WebSocket; 0 is one the OS picks.
        grpc_port: Of gRPC; 0 is one the OS picks.
        tls_cert: PEM file with the certificate chain; turns TLS on for all three.
        tls_key: PEM file with its private key.
        tls_client_ca: PEM file with the CAs of client certificates; turns mutual TLS on.
        inspect: Whether the inspector is there, beside the server's own paths: a page at `{url}/inspect`, and JSON
            (raccoon_fast/collector/inspector/app.py says which).
        descriptors: File with a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out` writes it.
        messages: By event type, the full name of the protobuf message in there that its data is. An event that is none,
            or has fields that the message lacks, is bad; the inspector shows the others decoded.
        schemas: By event type, the JSON Schema that its data has to match, as the path of a file or as the schema
            itself; an event that does not is bad. It needs the package jsonschema.
        follow: Called with each event that is published, on the collector's thread, which it holds up; what it raises
            is logged.

    Raises:
        TypeError, ValueError: Names the option that is wrong.
        OSError: A TLS file does not exist, or the descriptors cannot be read.
    """

    def __init__(
        self,
        *,
        acks: str = "async",
        dedup: bool = False,
        max_connections: int = 30_000,
        id_header: str | None = "X-User-ID",
        group_header: str | None = None,
        ping_interval: float = 30.0,
        pong_wait: float = 60.0,
        publish_failure_rate: float = 0.0,
        publish_delay: float = 0.0,
        sink: str | os.PathLike[str] = "memory",
        host: str = "127.0.0.1",
        port: int = 0,
        grpc_port: int = 0,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_client_ca: str | os.PathLike[str] | None = None,
        inspect: bool = False,
        descriptors: str | os.PathLike[str] | None = None,
        messages: Mapping[str, str] | None = None,
        schemas: Mapping[str, str | os.PathLike[str] | Mapping[str, Any]] | None = None,
        follow: Callable[[ReceivedEvent], object] | None = None,
    ) -> None:
        self._options = Options(
            acks,
            dedup,
            max_connections,
            id_header,
            group_header,
            ping_interval,
            pong_wait,
            publish_failure_rate,
            publish_delay,
            sink,
            host,
            port,
            grpc_port,
            tls_cert,
            tls_key,
            tls_client_ca,
            inspect,
            follow,
        )
        self._sink = make_sink(sink)
        changed = threading.Condition()
        self._fault_table = table = FaultTable(changed)
        inspection: Inspection | None = None
        decoder: EventDecoder | None = None
        if inspect or descriptors is not None or messages is not None:
            from raccoon_fast.collector.inspector.decoding import EventDecoder

            decoder = EventDecoder(descriptors, messages)
        judge = self._judge = EventJudge(schemas, None if decoder is None else decoder.message_classes)
        self._runner = Runner(lambda: Server(self._options, self._sink, self._ledger, table, judge, inspection))
        #: Failures to switch on while it runs.
        self.faults = Faults(table, self._runner)
        if inspect:
            from raccoon_fast.collector.inspector.app import Inspection
            from raccoon_fast.collector.inspector.journal import Journal

            assert decoder is not None
            inspection = Inspection(Journal(changed), decoder, judge, self.faults, self.clear)
        journal = None if inspection is None else inspection.journal
        self._ledger = Ledger(changed, keeps_requests=self._sink.keeps, journal=journal)

    # Life

    def start(self) -> Collector:
        """Serve in a thread of its own; returns when clients can connect.

        Raises:
            OSError: A port is taken, the host unknown, or the sink's file cannot be opened.
            ssl.SSLError: A TLS file does not hold what it should.
            RuntimeError: It was started before.
        """
        self._runner.start()
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Publish what was taken, end all connections, and return when thread, sockets and tasks are gone. Idempotent.

        What was received stays readable.
        """
        self._runner.close()
        atexit.unregister(self.close)

    def run(self, ready: Callable[[Collector], object] | None = None) -> None:
        """Serve in the calling thread until SIGINT or SIGTERM comes or `close` is called on another thread.

        Args:
            ready: Called once clients can connect.

        Raises:
            OSError, ssl.SSLError, RuntimeError: As `start`.
        """
        self._runner.run(lambda: ready(self) if ready is not None else None)

    def __enter__(self) -> Collector:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Addresses

    @property
    def port(self) -> int:
        """The port of REST and WebSocket."""
        return self._runner.server.port

    @property
    def grpc_port(self) -> int:
        """The port of gRPC."""
        return self._runner.server.grpc_port

    @property
    def url(self) -> str:
        """For a REST client: "http://127.0.0.1:PORT", https with TLS."""
        return f"http{self._s}://{url_host(self._options.host)}:{self.port}"

    @property
    def ws_url(self) -> str:
        """For a WebSocket client: "ws://127.0.0.1:PORT", wss with TLS."""
        return f"ws{self._s}://{url_host(self._options.host)}:{self.port}"

    @property
    def grpc_target(self) -> str:
        """For a gRPC client: "127.0.0.1:PORT"."""
        return f"{url_host(self._options.host)}:{self.grpc_port}"

    @property
    def _s(self) -> str:
        return "" if self._options.tls_cert is None else "s"

    # What was received

    @property
    def events(self) -> list[ReceivedEvent]:
        """The events published so far, in order; empty unless sink is "memory"."""
        return self._sink.events()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests received so far, in order; empty unless sink is "memory"."""
        return self._ledger.requests

    @property
    def event_count(self) -> int:
        """How many events were published."""
        return self._ledger.event_count

    @property
    def request_count(self) -> int:
        """How many requests were received: read, published or not."""
        return self._ledger.request_count

    @property
    def counts(self) -> dict[str, Counts]:
        """Both counts for "rest", "websocket" and "grpc"."""
        return self._ledger.counts

    @property
    def connections(self) -> int:
        """How many WebSocket connections are live."""
        return self._ledger.connections

    @property
    def bad_events(self) -> list[BadEvent]:
        """The last 1000 published events whose data does not match their type's schema or message, oldest first."""
        return self._judge.bad_events

    @property
    def bad_event_count(self) -> int:
        """How many published events were bad."""
        return self._judge.bad_count

    def assert_no_bad_events(self) -> None:
        """Raise an AssertionError that lists the bad events, if there are any."""
        bad = self.bad_events
        if bad:
            lines = "".join(f"\n  {event}" for event in bad[:_SHOWN_BAD_EVENTS])
            raise AssertionError(f"{self.bad_event_count} of {self.event_count} events are bad:{lines}")

    def wait_for(
        self,
        count: int,
        timeout: float = 10.0,
        *,
        type: str | None = None,  # noqa: A002 - as the event's member is called
        where: Where | None = None,
    ) -> list[ReceivedEvent]:
        """Wait until `count` events, or more, were published; return them.

        Args:
            count: How many.
            timeout: Seconds.
            type: Count those of this type only.
            where: Count those only whose JSON has these members at least, or for which this function returns true.

        Returns:
            All that match, in order; empty unless sink is "memory".

        Raises:
            TimeoutError: They were not within `timeout` seconds; says what came instead.
            ValueError: `type` or `where` is given, and sink is not "memory".
        """
        if not self._sink.keeps:
            if type is not None or where is not None:
                raise ValueError("wait_for(type=…, where=…) looks at the events: it needs sink='memory'")
            self._wait_for_count(count, timeout)
            return []
        if type is None and where is None:
            self._wait_for_count(count, timeout)
            return self.events
        expected = Expectation(type, where)
        found: list[ReceivedEvent] = []
        seen = 0

        def is_enough() -> bool:
            nonlocal seen
            events = self.events
            if len(events) < seen:  # it was cleared
                seen = 0
                found.clear()
            found.extend(expected.matching(events[seen:]))
            seen = len(events)
            return len(found) >= count

        if not self._ledger.wait_until(is_enough, timeout):
            raise TimeoutError(expected.explain(count, timeout, self.events))
        return found

    def _wait_for_count(self, count: int, timeout: float) -> None:
        if not self._ledger.wait_until(lambda: self.event_count >= count, timeout):
            raise TimeoutError(f"{self.event_count} of {count} events came within {timeout} s")

    def wait_until(self, condition: Callable[[Collector], bool], timeout: float = 10.0) -> None:
        """Wait until `condition(self)` holds; asked again after each request, publishing, (dis)connection and fault.

        Raises:
            TimeoutError: It did not within `timeout` seconds.
        """
        if not self._ledger.wait_until(lambda: condition(self), timeout):
            raise TimeoutError(f"the condition did not hold within {timeout} s; {self!r}")

    def clear(self) -> None:
        """Forget what was received, and count from nothing; files stay as they are."""
        self._sink.clear()
        self._judge.clear()
        self._fault_table.forget_hits()
        self._ledger.clear()

    def __repr__(self) -> str:
        return f"<Collector {self.request_count} requests, {self.event_count} events, {self.connections} connections>"
