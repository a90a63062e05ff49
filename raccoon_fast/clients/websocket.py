"""Clients over WebSocket: many requests in flight on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.clients.async_client import AsyncClient
from raccoon_fast.clients.hints import question_seconds
from raccoon_fast.clients.options import NO_HEADERS, Settings, positive, whole
from raccoon_fast.clients.sync_client import Client
from raccoon_fast.net.address import parse_address
from raccoon_fast.serializers import PROTO, Data_contra
from raccoon_fast.transports.pinger import Keepalive
from raccoon_fast.transports.websocket.transport import WebSocketTransport

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from raccoon_fast.clients.options import ClientOptions, Wire
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.transports.base import Transport

__all__ = ["AsyncWebSocketClient", "WebSocketClient"]


class AsyncWebSocketClient(AsyncClient[Data_contra]):
    """Sends requests over WebSocket, from a program with an event loop.

    Uses one connection, which opens when it is needed, and again after it is lost. Requests that were not acknowledged
    are then sent again on the new connection, under the same guids.

    Args:
        url: "ws://host:port" or "wss://…"; without a path, /api/v1/events.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        wire: "proto" (binary frames) or "json" (text frames): the encoding of the request around the events.
        ping_interval: Seconds between the client's pings, which detect a dead connection; None sends none. The server's
            pings are answered in any case.
        pong_timeout: Seconds within which a ping must be answered; otherwise the connection is closed.
        max_in_flight: The largest number of unacknowledged requests; further ones wait.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        wire: Wire = "proto",
        ping_interval: float | None = 30.0,
        pong_timeout: float = 10.0,
        max_in_flight: int = 8,
        **options: Unpack[ClientOptions],
    ) -> None:
        # A server that publishes before it acknowledges may take long for a batch; a resend costs more than waiting.
        settings = Settings(
            parse_address(url, "WebSocket"),
            {"serializer": serializer, **options},
            default_timeout_s=30.0,
            face=AsyncWebSocketClient,
        )
        if options.get("propagate"):
            raise ValueError(NO_HEADERS)
        super().__init__(settings, wire, None)
        self._ping_interval_s = None if ping_interval is None else positive("ping_interval", ping_interval)
        self._pong_timeout_s = positive("pong_timeout", pong_timeout)
        self._max_in_flight = whole("max_in_flight", max_in_flight)
        question_seconds(settings.logger, ping_interval=ping_interval, pong_timeout=pong_timeout)

    def _make_transport(self) -> Transport:
        return WebSocketTransport(
            self._settings.link,
            keepalive=Keepalive(self._ping_interval_s, self._pong_timeout_s),
            max_in_flight=self._max_in_flight,
        )


class WebSocketClient(Client[AsyncWebSocketClient[Any], Data_contra]):
    """Sends requests over WebSocket, from any thread.

    Uses one connection, which opens when it is needed, and again after it is lost. Requests that were not acknowledged
    are then sent again on the new connection, under the same guids.

    Args:
        url: "ws://host:port" or "wss://…"; without a path, /api/v1/events.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        wire: "proto" (binary frames) or "json" (text frames): the encoding of the request around the events.
        ping_interval: Seconds between the client's pings; None sends none. See AsyncWebSocketClient.
        pong_timeout: Seconds within which a ping must be answered; otherwise the connection is closed.
        max_in_flight: The largest number of unacknowledged requests; further ones wait.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        wire: Wire = "proto",
        ping_interval: float | None = 30.0,
        pong_timeout: float = 10.0,
        max_in_flight: int = 8,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(
            lambda: AsyncWebSocketClient(
                url,
                serializer=serializer,
                wire=wire,
                ping_interval=ping_interval,
                pong_timeout=pong_timeout,
                max_in_flight=max_in_flight,
                **options,
            )
        )
