"""Raccoon clients for high-volume Python producers: REST, WebSocket and gRPC, every event accounted for.

Names are loaded on first use, so that importing the package loads none of grpc, httpx and websockets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raccoon_fast import _interpreter as _interpreter  # first: it refuses interpreters that cannot work

# Not on first use: its module has the same name, and importing that first would leave the module in its place.
from raccoon_fast.client_info import ClientInfo as ClientInfo
from raccoon_fast.client_info import client_info as client_info

if TYPE_CHECKING:
    from raccoon_fast._implementation import IMPLEMENTATION as IMPLEMENTATION
    from raccoon_fast.clients.grpc import AsyncGrpcClient as AsyncGrpcClient
    from raccoon_fast.clients.grpc import GrpcClient as GrpcClient
    from raccoon_fast.clients.rest import AsyncRestClient as AsyncRestClient
    from raccoon_fast.clients.rest import RestClient as RestClient
    from raccoon_fast.clients.websocket import AsyncWebSocketClient as AsyncWebSocketClient
    from raccoon_fast.clients.websocket import WebSocketClient as WebSocketClient
    from raccoon_fast.core.extensions import has_extensions as has_extensions
    from raccoon_fast.counts import Counts as Counts
    from raccoon_fast.delivery.ack_streams import AckStream as AckStream
    from raccoon_fast.delivery.ack_streams import AsyncAckStream as AsyncAckStream
    from raccoon_fast.delivery.receipts import AsyncReceipt as AsyncReceipt
    from raccoon_fast.delivery.receipts import Receipt as Receipt
    from raccoon_fast.delivery.retry import RetryPolicy as RetryPolicy
    from raccoon_fast.errors import AckTimeoutError as AckTimeoutError
    from raccoon_fast.errors import BufferFull as BufferFull
    from raccoon_fast.errors import ClientClosedError as ClientClosedError
    from raccoon_fast.errors import ConnectError as ConnectError
    from raccoon_fast.errors import ConnectionLostError as ConnectionLostError
    from raccoon_fast.errors import DecodeError as DecodeError
    from raccoon_fast.errors import DeliveryError as DeliveryError
    from raccoon_fast.errors import DroppedError as DroppedError
    from raccoon_fast.errors import EventsRejectedError as EventsRejectedError
    from raccoon_fast.errors import MessageTooLargeError as MessageTooLargeError
    from raccoon_fast.errors import Outcome as Outcome
    from raccoon_fast.errors import ProtocolError as ProtocolError
    from raccoon_fast.errors import RaccoonError as RaccoonError
    from raccoon_fast.errors import RejectedEvent as RejectedEvent
    from raccoon_fast.errors import SerializationError as SerializationError
    from raccoon_fast.errors import ServerError as ServerError
    from raccoon_fast.errors import TLSError as TLSError
    from raccoon_fast.errors import TransportError as TransportError
    from raccoon_fast.events import Ack as Ack
    from raccoon_fast.events import App as App
    from raccoon_fast.events import Code as Code
    from raccoon_fast.events import Event as Event
    from raccoon_fast.events import Response as Response
    from raccoon_fast.events import SendResult as SendResult
    from raccoon_fast.events import Status as Status
    from raccoon_fast.logs import CONSOLE as CONSOLE
    from raccoon_fast.logs import Logger as Logger
    from raccoon_fast.producers.async_producer import AsyncProducer as AsyncProducer
    from raccoon_fast.producers.lanes import Lane as Lane
    from raccoon_fast.producers.producer import Producer as Producer
    from raccoon_fast.producers.reports import Health as Health
    from raccoon_fast.producers.reports import Report as Report
    from raccoon_fast.producers.reports import ServerHealth as ServerHealth
    from raccoon_fast.serializers import JSON as JSON
    from raccoon_fast.serializers import PROTO as PROTO
    from raccoon_fast.serializers import RAW as RAW
    from raccoon_fast.serializers import Serializer as Serializer
    from raccoon_fast.stats.opentelemetry import OpenTelemetry as OpenTelemetry
    from raccoon_fast.stats.prometheus import Prometheus as Prometheus
    from raccoon_fast.stats.sink import Measurement as Measurement
    from raccoon_fast.stats.sink import MetricsSink as MetricsSink
    from raccoon_fast.stats.statsd import DogStatsD as DogStatsD
    from raccoon_fast.stats.statsd import StatsD as StatsD
    from raccoon_fast.tls import TLS as TLS

    __version__: str

_HOMES = {
    "_implementation": ("IMPLEMENTATION",),
    "clients.grpc": ("AsyncGrpcClient", "GrpcClient"),
    "clients.rest": ("AsyncRestClient", "RestClient"),
    "clients.websocket": ("AsyncWebSocketClient", "WebSocketClient"),
    "core.extensions": ("has_extensions",),
    "delivery.ack_streams": ("AckStream", "AsyncAckStream"),
    "counts": ("Counts",),
    "delivery.receipts": ("AsyncReceipt", "Receipt"),
    "delivery.retry": ("RetryPolicy",),
    "errors": (
        "AckTimeoutError",
        "BufferFull",
        "ClientClosedError",
        "ConnectError",
        "ConnectionLostError",
        "DecodeError",
        "DeliveryError",
        "DroppedError",
        "EventsRejectedError",
        "MessageTooLargeError",
        "Outcome",
        "ProtocolError",
        "RaccoonError",
        "RejectedEvent",
        "SerializationError",
        "ServerError",
        "TLSError",
        "TransportError",
    ),
    "events": ("Ack", "App", "Code", "Event", "Response", "SendResult", "Status"),
    "logs": ("CONSOLE", "Logger"),
    "producers.async_producer": ("AsyncProducer",),
    "producers.lanes": ("Lane",),
    "producers.producer": ("Producer",),
    "producers.reports": ("Health", "Report", "ServerHealth"),
    "serializers": ("JSON", "PROTO", "RAW", "Serializer"),
    "stats.opentelemetry": ("OpenTelemetry",),
    "stats.prometheus": ("Prometheus",),
    "stats.sink": ("Measurement", "MetricsSink"),
    "stats.statsd": ("DogStatsD", "StatsD"),
    "tls": ("TLS",),
}
_HOME_OF = {name: f"raccoon_fast.{module}" for module, names in _HOMES.items() for name in names}

__all__ = sorted({*_HOME_OF, "ClientInfo", "client_info"})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = client_info().version
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _frozen() -> None:
    """Never called: names the modules of _HOMES for Nuitka, which skips imports under TYPE_CHECKING."""
    from raccoon_fast import _implementation, counts, errors, events, logs, serializers, tls  # noqa: F401
    from raccoon_fast.clients import grpc, rest, websocket  # noqa: F401
    from raccoon_fast.core import extensions  # noqa: F401
    from raccoon_fast.delivery import ack_streams, receipts, retry  # noqa: F401
    from raccoon_fast.producers import async_producer, lanes, producer, reports  # noqa: F401
    from raccoon_fast.stats import opentelemetry, prometheus, sink, statsd  # noqa: F401
