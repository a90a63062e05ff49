"""The embedded Raccoon server, in a separate thread or in the foreground."""

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
    """A Raccoon server for development, demos and tests. It answers on the wire as the real server does.

    `with Collector() as collector:` serves in a separate thread until the block ends; `run()` serves in the calling
    thread until SIGINT or SIGTERM. Serves once. All properties and methods except `run` are thread-safe.

    Args:
        acks: "async" answers on receipt (the server's event.ack 0), "sync" after publishing (1), then also
            out of order.
        dedup: Whether a guid seen before on the same WebSocket connection is answered with SUCCESS at once.
        max_connections: The limit of WebSocket connections.
        id_header: The name of the header, or gRPC metadata, with the client's id; None imitates an unset setting: the
            server then treats all clients as one, and refuses gRPC calls.
        group_header: The same for the group. None imitates an unset setting: groups are ignored, and a connected id
            is refused in every group.
        ping_interval: Seconds between the server's pings, which all WebSocket clients get at the same time; the first
            arrives within this time.
        pong_wait: Seconds after which a WebSocket without a pong is closed.
        publish_failure_rate: The share of batches that fail to publish, from 0 to 1.
        publish_delay: The least time in seconds to publish a batch; five batches are published at a time.
        sink: "memory" keeps events for `events`, "null" counts them, "-" writes them to standard output, and a path is
            a file to append to. Both write JSON objects, one per line: req_guid, type, data (base64),
            protocol, received_time (UNIX seconds).
        host: The name or address to listen on.
        port: The port of REST and WebSocket; 0 lets the OS pick one.
        grpc_port: The port of gRPC; 0 lets the OS pick one.
        tls_cert: PEM file with the certificate chain; turns TLS on for all three.
        tls_key: PEM file with its private key.
        tls_client_ca: PEM file with the CAs of client certificates; turns mutual TLS on.
        inspect: Whether to serve the inspector beside the server's own paths: a page at `{url}/inspect`, and JSON
            (described in raccoon_fast/collector/inspector/app.py).
        descriptors: File with a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out` writes it.
        messages: The full name of the protobuf message in `descriptors` by event type. An event that is not such a
            message, or has fields that the message lacks, counts as bad; the inspector shows the others decoded.
        schemas: The JSON Schema that an event's data must match, by event type: the path of a file, or the schema
            itself. An event that does not match counts as bad. Needs the package jsonschema.
        follow: Called with each published event on the collector's thread, which waits for it; its exceptions
            are logged.

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
        #: Faults that can be switched on at any time.
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
        """Serve in a separate thread; returns when clients can connect.

        Raises:
            OSError: A port is taken, the host unknown, or the sink's file cannot be opened.
            ssl.SSLError: A TLS file is invalid.
            RuntimeError: It was started before.
        """
        self._runner.start()
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Publish accepted requests, end all connections, and wait for thread, sockets and tasks to end. Idempotent.

        Received events stay readable.
        """
        self._runner.close()
        atexit.unregister(self.close)

    def run(self, ready: Callable[[Collector], object] | None = None) -> None:
        """Serve in the calling thread until SIGINT, SIGTERM, or `close` on another thread or in a callback.

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

    # Received events and requests

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
        """The number of published events."""
        return self._ledger.event_count

    @property
    def request_count(self) -> int:
        """The number of requests received, published or not."""
        return self._ledger.request_count

    @property
    def counts(self) -> dict[str, Counts]:
        """Both counts for "rest", "websocket" and "grpc"."""
        return self._ledger.counts

    @property
    def connections(self) -> int:
        """The number of open WebSocket connections."""
        return self._ledger.connections

    @property
    def bad_events(self) -> list[BadEvent]:
        """The last 1000 published events whose data does not match their type's schema or message, oldest first."""
        return self._judge.bad_events

    @property
    def bad_event_count(self) -> int:
        """The number of published events that were bad."""
        return self._judge.bad_count

    def assert_no_bad_events(self) -> None:
        """Raise an AssertionError that lists the bad events, if any."""
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
        """Wait until at least `count` events are published, and return them.

        Args:
            count: The number of events.
            timeout: Seconds.
            type: Count only events of this type.
            where: Count only events whose JSON contains these members, or for which this function returns true.

        Returns:
            All matching events, in order; empty unless sink is "memory".

        Raises:
            TimeoutError: They were not published within `timeout` seconds; the message shows what arrived instead.
            ValueError: `type` or `where` is given, and sink is not "memory".
        """
        if not self._sink.keeps:
            if type is not None or where is not None:
                raise ValueError("wait_for(type=…, where=…) reads the events, so it needs sink='memory'")
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
            raise TimeoutError(f"{self.event_count} of {count} events arrived within {timeout} s")

    def wait_until(self, condition: Callable[[Collector], bool], timeout: float = 10.0) -> None:
        """Wait until `condition(self)` is true. It is checked after each request, publish, (dis)connection and fault.

        Raises:
            TimeoutError: It was not true within `timeout` seconds.
        """
        if not self._ledger.wait_until(lambda: condition(self), timeout):
            raise TimeoutError(f"the condition did not hold within {timeout} s; {self!r}")

    def clear(self) -> None:
        """Delete received events and set all counts to zero; files are not changed."""
        self._sink.clear()
        self._judge.clear()
        self._fault_table.forget_hits()
        self._ledger.clear()

    def __repr__(self) -> str:
        return f"<Collector {self.request_count} requests, {self.event_count} events, {self.connections} connections>"
