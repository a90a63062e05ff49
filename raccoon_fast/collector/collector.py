"""The embedded Raccoon server: in a thread of its own, or in the foreground."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.records import Counts, ReceivedEvent, ReceivedRequest
from raccoon_fast.collector.runner import Runner
from raccoon_fast.collector.server import Server
from raccoon_fast.collector.sinks import make_sink
from raccoon_fast.collector.sockets import url_host

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.app import Inspection

__all__ = ["Collector"]


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
        sink: "memory" keeps events for `events`, "null" counts them, a path is a file they are appended to, one JSON
            object a line: req_guid, type, data (base64), protocol, received_time (UNIX seconds).
        host: Where to listen: a name or an address.
        port: Of REST and WebSocket; 0 is one the OS picks.
        grpc_port: Of gRPC; 0 is one the OS picks.
        tls_cert: PEM file with the certificate chain; turns TLS on for all three.
        tls_key: PEM file with its private key.
        tls_client_ca: PEM file with the CAs of client certificates; turns mutual TLS on.
        inspect: Whether the inspector is there, beside the server's own paths: a page at `{url}/inspect`, and JSON
            (raccoon_fast/collector/inspector/app.py says which).
        descriptors: For the inspector: file with a FileDescriptorSet, as `protoc --include_imports
            --descriptor_set_out` writes it.
        messages: For the inspector: by event type, the full name of the protobuf message in there that its data is.

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
        )
        if not inspect and (descriptors is not None or messages is not None):
            raise ValueError("descriptors and messages are for the inspector: they need inspect=True")
        self._sink = make_sink(sink)
        changed = threading.Condition()
        table = FaultTable(changed)
        inspection: Inspection | None = None
        self._runner = Runner(lambda: Server(self._options, self._sink, self._ledger, table, inspection))
        #: Failures to switch on while it runs.
        self.faults = Faults(table, self._runner)
        if inspect:
            from raccoon_fast.collector.inspector.app import Inspection
            from raccoon_fast.collector.inspector.decoding import EventDecoder
            from raccoon_fast.collector.inspector.journal import Journal

            inspection = Inspection(Journal(changed), EventDecoder(descriptors, messages), self.faults, self.clear)
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

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` events, or more, were published.

        Raises:
            TimeoutError: They were not within `timeout` seconds.
        """
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
        self._ledger.clear()

    def __repr__(self) -> str:
        return f"<Collector {self.request_count} requests, {self.event_count} events, {self.connections} connections>"
