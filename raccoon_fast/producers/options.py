"""Checks the options of Producer and AsyncProducer, and makes endpoints from them."""

from __future__ import annotations

import functools
import importlib
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from raccoon_fast.clients.hints import question_seconds
from raccoon_fast.clients.options import NO_HEADERS, Settings, positive, switch, whole
from raccoon_fast.delivery.endpoints import Endpoint, Endpoints
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.json_encoder import JsonEncoder
from raccoon_fast.net.address import parse_address, protocol_of, without_secrets
from raccoon_fast.serializers import RAW
from raccoon_fast.transports.null import NULL_ADDRESS, NULL_URL, NullTransport

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from raccoon_fast.transports.base import Transport

__all__ = ["OVERFLOWS", "Overflow", "ProducerOptions", "ServerAcks", "resolve_options"]

Overflow: TypeAlias = Literal["block", "raise", "drop_newest", "drop_oldest", "spool"]
ServerAcks: TypeAlias = Literal["received", "published"]
OVERFLOWS = get_args(Overflow)

_TRANSPORTS = {
    "REST": "raccoon_fast.transports.rest.transport",
    "WebSocket": "raccoon_fast.transports.websocket.transport",
    "gRPC": "raccoon_fast.transports.grpc.transport",
}
_TIMEOUTS_S = {"REST": 15.0, "WebSocket": 30.0, "gRPC": 15.0}
# Room in a message for guid and time.
_HEAD_BYTES = 256
_STALL_MARGIN_S = 1.0
# Default batches in flight: per connection at first, and in total to a far server.
_FIRST_IN_FLIGHT, _MOST_IN_FLIGHT = 8, 128
# delivery_timeout limits the attempts, not their number.
_RETRY = RetryPolicy(initial=0.1)


class ProducerOptions(NamedTuple):
    """Checked options. The names are those of Producer, with units."""

    servers: list[tuple[str, Settings]]
    wire: str
    linger_s: float
    batch_events: int
    batch_bytes: int
    max_batch_bytes: int
    max_event_bytes: int
    max_in_flight: int | None
    connections: int
    buffer_bytes: int
    overflow: str
    block_timeout_s: float
    delivery_timeout_s: float
    retry: RetryPolicy
    ping_interval_s: float | None
    pong_timeout_s: float
    server_acks: str
    max_types: int
    spool: Path | None
    spool_bytes: int
    durable: bool
    is_null: bool

    @property
    def settings(self) -> Settings:
        """The options that all servers share: serializer, logger, stats."""
        return self.servers[0][1]

    @property
    def serializer(self) -> Any:
        """None for RAW: the accumulator then takes the bytes directly, without a call per event."""
        serializer = self.settings.serializer
        if isinstance(serializer, JsonEncoder):
            return serializer.plain
        return None if serializer is RAW.load() else serializer

    @property
    def rescue(self) -> Any:
        """Encodes data that `serializer` does not take, or says why it cannot; None keeps its errors."""
        serializer = self.settings.serializer
        return serializer.rescue if isinstance(serializer, JsonEncoder) else None

    @property
    def stall_s(self) -> float:
        """How long nothing may be settled, while events wait, before `health` reports it."""
        return self.linger_s + max(settings.timeout_s for _, settings in self.servers) + _STALL_MARGIN_S

    @property
    def first_in_flight(self) -> int:
        """The initial number of batches in flight per connection."""
        return _FIRST_IN_FLIGHT if self.max_in_flight is None else self.max_in_flight

    @property
    def most_in_flight(self) -> int:
        """The largest number of batches in flight, on all connections together."""
        first = self.first_in_flight * self.connections
        return first if self.max_in_flight is not None else max(first, _MOST_IN_FLIGHT)

    def open_endpoints(self) -> Endpoints:
        """Endpoints for the running event loop; nothing is connected yet."""
        if self.is_null:
            return Endpoints([Endpoint(NULL_ADDRESS, [NullTransport()], self.retry, self.settings.timeout_s)])
        return Endpoints([self._endpoint(protocol, settings) for protocol, settings in self.servers])

    def _endpoint(self, protocol: str, settings: Settings) -> Endpoint:
        # Over REST one transport has all connections, as many as requests in flight.
        count = 1 if protocol == "REST" else self.connections
        transports = [self._transport(protocol, settings) for _ in range(count)]
        open_apart = functools.partial(self._transport, protocol, settings)
        # A server refuses a second WebSocket of one id.
        is_alone = protocol == "WebSocket" and settings.link.identity.user_id is not None
        # And the first endpoint that closes would close httpx's transport for all.
        is_alone |= hasattr(settings.own_transport, "handle_async_request")
        return Endpoint(
            settings.link.address, transports, self.retry, settings.timeout_s, None if is_alone else open_apart
        )

    def _transport(self, protocol: str, settings: Settings) -> Transport:
        own: Any = settings.own_transport
        if own is not None and protocol == "REST":
            from raccoon_fast.transports.rest.httpx import HttpxTransport

            return HttpxTransport(settings.link, own)
        if own is not None:
            from raccoon_fast.transports.grpc.channel import ChannelTransport

            return ChannelTransport(settings.link, own)
        if protocol == "REST":
            from raccoon_fast.transports.rest.transport import RestTransport

            return RestTransport(settings.link, connections=self.most_in_flight)
        from raccoon_fast.transports.pinger import Keepalive

        keepalive = Keepalive(self.ping_interval_s, self.pong_timeout_s)
        if protocol == "WebSocket":
            from raccoon_fast.transports.websocket.transport import WebSocketTransport

            return WebSocketTransport(settings.link, keepalive=keepalive, max_in_flight=self.most_in_flight)
        from raccoon_fast.transports.grpc.transport import GrpcTransport

        return GrpcTransport(settings.link, keepalive)


def resolve_options(
    url: str | Sequence[str],
    options: Mapping[str, Any],
    *,
    wire: str,
    linger: float,
    batch_events: int,
    batch_bytes: int,
    max_in_flight: int | None,
    connections: int,
    buffer_bytes: int,
    overflow: str,
    block_timeout: float,
    delivery_timeout: float,
    ping_interval: float | None,
    pong_timeout: float,
    server_acks: str,
    max_types: int,
    spool: str | os.PathLike[str] | None,
    spool_bytes: int,
    durable: bool,
    enabled: bool = True,
    transport: object = None,
    channel: object = None,
) -> ProducerOptions:
    """Check the options of a producer.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """
    # protocol_of refuses a single wrong one.
    urls = [*url] if isinstance(url, Iterable) and not isinstance(url, (str, bytes)) else [url]
    if not urls:
        raise ValueError("url must name at least one server")
    servers = []
    is_null = [one for one in urls if isinstance(one, str) and one.lower().startswith(NULL_URL)] != []
    if is_null:
        if len(urls) > 1:
            raise ValueError(f"url must name {NULL_URL} alone, without other servers")
        if urls[0].lower() != NULL_URL:
            raise ValueError(f"url must be {NULL_URL} without a path, not {without_secrets(urls[0])!r}")
        servers.append(("null", Settings(NULL_ADDRESS, {"retry": _RETRY, **options}, _TIMEOUTS_S["REST"])))
        urls = []
    for one in urls:
        protocol = protocol_of(one)
        settings = Settings(
            parse_address(one, protocol), {"retry": _RETRY, **options}, _TIMEOUTS_S[protocol], resolve_options
        )
        servers.append((protocol, settings))
        # Now, in the thread of the caller: a process that forks while another thread imports a module leaves a child
        # that can never import it.
        importlib.import_module(_TRANSPORTS[protocol])
    if options.get("propagate") and all(protocol == "WebSocket" for protocol, _ in servers):
        raise ValueError(NO_HEADERS)
    _take_own(servers, options, transport, channel)
    if isinstance(options.get("tls"), ssl.SSLContext) and {"gRPC"} < {protocol for protocol, _ in servers}:
        raise ValueError("tls: one ssl.SSLContext cannot serve gRPC and HTTP, which differ in ALPN: use TLS(ca=…)")
    if wire not in ("proto", "json"):
        raise ValueError(f'wire must be "proto" or "json", not {wire!r}')
    has_grpc = any(protocol == "gRPC" for protocol, _ in servers)
    if wire == "json" and has_grpc:
        raise ValueError('wire="json" works with REST and WebSocket only: gRPC needs protobuf')
    if overflow not in OVERFLOWS:
        raise ValueError(f"overflow must be one of {', '.join(OVERFLOWS)}, not {overflow!r}")
    if server_acks not in ("received", "published"):
        raise ValueError(f'server_acks must be "received" or "published", not {server_acks!r}')
    limit = 1 << 30
    if has_grpc:
        from raccoon_fast.transports.grpc.transport import MAX_REQUEST_BYTES

        limit = MAX_REQUEST_BYTES
    limit -= _HEAD_BYTES
    batch_bytes = whole("batch_bytes", batch_bytes)
    if batch_bytes > limit:
        raise ValueError(f"batch_bytes must be {limit} or less with these servers, not {batch_bytes}")
    buffer_bytes = whole("buffer_bytes", buffer_bytes)
    if buffer_bytes < 2 * batch_bytes:
        raise ValueError(f"buffer_bytes must hold two batches, {2 * batch_bytes} or more, not {buffer_bytes}")
    spool_path = _spool_path(spool, overflow, durable=durable)
    # A producer that sends nothing must not empty the spool of a process that did send.
    is_null |= not switch("enabled", enabled)
    resolved = ProducerOptions(
        servers=servers,
        wire=wire,
        linger_s=positive("linger", linger),
        batch_events=whole("batch_events", batch_events),
        batch_bytes=batch_bytes,
        max_batch_bytes=limit,
        # A large event gets a separate batch.
        max_event_bytes=min(limit, buffer_bytes),
        max_in_flight=None if max_in_flight is None else whole("max_in_flight", max_in_flight),
        connections=whole("connections", connections),
        buffer_bytes=buffer_bytes,
        overflow=overflow,
        block_timeout_s=positive("block_timeout", block_timeout),
        delivery_timeout_s=positive("delivery_timeout", delivery_timeout),
        retry=servers[0][1].retry,
        ping_interval_s=None if ping_interval is None else positive("ping_interval", ping_interval),
        pong_timeout_s=positive("pong_timeout", pong_timeout),
        server_acks=server_acks,
        max_types=whole("max_types", max_types),
        spool=None if is_null else spool_path,
        spool_bytes=whole("spool_bytes", spool_bytes),
        durable=durable and not is_null,
        is_null=is_null,
    )
    question_seconds(
        resolved.settings.logger,
        linger=linger,
        timeout=resolved.settings.timeout_s,
        connect_timeout=resolved.settings.link.connect_timeout_s,
        block_timeout=block_timeout,
        delivery_timeout=delivery_timeout,
        ping_interval=ping_interval,
        pong_timeout=pong_timeout,
    )
    return resolved


def _take_own(
    servers: list[tuple[str, Settings]], options: Mapping[str, Any], transport: object, channel: object
) -> None:
    """Assign the user's transports or channels to the servers."""
    for protocol, name, given in (("REST", "transport", transport), ("gRPC", "channel", channel)):
        if given is None:
            continue
        if isinstance(given, Sequence):
            each: list[object] = [*given]
            if len(each) != len(servers):
                raise ValueError(f"{name} must have one entry per url, or None: {len(servers)}, not {len(each)}")
        else:
            each = [given if one == protocol else None for one, _ in servers]
        if not any(one is not None for one in each):
            raise ValueError(f"{name} is for {protocol}, but no url is one of {protocol}")
        for (one, settings), own in zip(servers, each, strict=True):
            if own is None:
                continue
            if one != protocol:
                raise ValueError(f"{name} is for {protocol}, but {settings.link.address} is not")
            if protocol == "gRPC":
                from raccoon_fast.clients.grpc import check_channel

                check_channel(own, options)
            else:
                from raccoon_fast.transports.rest.httpx import check_httpx

                check_httpx(own)
                if options.get("proxy") is not None or settings.link.address.unix_path:
                    raise ValueError("transport is given: set the proxy or the Unix socket on httpx itself")
            settings.own_transport = own


def _spool_path(spool: str | os.PathLike[str] | None, overflow: str, *, durable: bool) -> Path | None:
    if not isinstance(durable, bool):
        raise TypeError(f"durable takes True or False, not {durable!r}")
    if spool is None:
        if durable or overflow == "spool":
            what = "durable=True" if durable else 'overflow="spool"'
            raise ValueError(f"{what} needs spool=…, the path of a file to keep batches in")
        return None
    if not isinstance(spool, (str, os.PathLike)):
        raise TypeError(f"spool takes the path of a file, not {spool!r}")
    if fcntl is None:
        raise ValueError("spool needs flock, which this platform does not have")
    path = Path(spool).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"spool must be a file in an existing directory, but {path.parent} does not exist")
    return path
