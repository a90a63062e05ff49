"""The options that all clients share: their types, defaults and checks."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypedDict

from raccoon_fast.client_info import log_form, user_agent
from raccoon_fast.clients.hints import unknown_option
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.logs import DEFAULT, Logger, resolve_logger
from raccoon_fast.net.address import parse_host
from raccoon_fast.net.proxy import proxy_for
from raccoon_fast.serializers import PROTO, resolve_serializer
from raccoon_fast.stats import MetricsSink, resolve_stats
from raccoon_fast.threads import is_main
from raccoon_fast.tls import TLS
from raccoon_fast.transports.base import Identity, Link
from raccoon_fast.transports.tracing import HEADERS, new_tracing

if TYPE_CHECKING:
    from raccoon_fast.events import App
    from raccoon_fast.net.address import Address

__all__ = [
    "NO_HEADERS",
    "Auth",
    "ClientOptions",
    "Settings",
    "Wire",
    "positive",
    "refuse_pickling",
    "switch",
    "whole",
]

Auth = tuple[str, str] | str | Callable[[], str]


class ClientOptions(TypedDict, total=False):
    """Further options of every client and producer.

    Attributes:
        user_id: The connection's identity. By default each connection (REST: each client) gets a new one, which suits
            most programs: a server refuses a second live WebSocket connection with the same identity, for up to a
            minute after the first one broke.
        group: The identity's group.
        id_header, group_header: The header names in the server's settings ("X-User-ID" and "X-User-Group").
        headers: Further headers of each request, or of each WebSocket handshake; gRPC sends them as metadata.
        tls: TLS(ca=…, cert=…, key=…, password=…), or an ssl.SSLContext; the system's CAs when left out. Only with a
            secure URL: plain text and TLS never replace each other. gRPC sets a context's ALPN to "h2", so that
            context can be used for gRPC only.
        proxy: The forward proxy to connect through: "http://user:password@proxy:3128", https:// or socks5:// (which
            needs raccoon_fast[socks]). By default HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY apply.
        trust_env: Whether these variables apply (True).
        server_hostname: The name that TLS sends and checks instead of the URL's name: for a tunnel, or an IP address.
        auth: For the Authorization header: (user, password), a bearer token, or a callable that returns the header's
            value, called for each attempt on the event loop.
        timeout: Seconds for one attempt, connecting included (15; 30 for WebSocket).
        connect_timeout: Seconds to connect, TLS and handshakes included (10).
        retry: RetryPolicy(…); by default RetryPolicy(), and for producers RetryPolicy(initial=0.1).
        logger: The client's logger: a logging.Logger, or another object with `info` and `error` (see Logger); None
            logs nothing. The default is `logging.getLogger("raccoon_fast")`; if the program configures no logging,
            its warnings and errors go to stderr. CONSOLE writes to stderr from info upwards.
        stats: StatsD(…), DogStatsD(…), Prometheus(…), OpenTelemetry(…), or any object with `timing(name, ms)` and
            `count(name, n)`; None (the default) for none.
        app: App(id, name, version) of the user's application, for User-Agent.
        propagate: Add the W3C trace context (`traceparent`) of OpenTelemetry's current span to each request: as a
            header over REST, as metadata over gRPC. Not over WebSocket, where messages have no headers. Needs
            raccoon_fast[opentelemetry].
        spans: Create an OpenTelemetry span per request or batch, over all its attempts. Needs the same extra.
    """

    user_id: str | None
    group: str | None
    id_header: str
    group_header: str
    headers: Mapping[str, str] | None
    tls: ssl.SSLContext | TLS | None
    proxy: str | None
    trust_env: bool
    server_hostname: str | None
    auth: Auth | None
    timeout: float
    connect_timeout: float
    retry: RetryPolicy
    logger: Logger | None
    stats: MetricsSink | None
    app: App | None
    propagate: bool
    spans: bool


Wire: TypeAlias = Literal["proto", "json"]
_NAMES = ("serializer", *ClientOptions.__annotations__)

#: The error if `propagate` would have no effect.
NO_HEADERS = (
    "propagate: a WebSocket carries no headers for a message; use REST or gRPC, or spans=True, which needs no headers"
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_VALUE = re.compile(r"[ -~\t]*")  # RFC 9110 5.5, but ASCII only, as in gRPC metadata; above all no CR and LF
_SECURE = {"http": "https", "ws": "wss", "grpc": "grpcs"}
_OURS = {
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
}


class Settings:
    """A client's options, checked.

    Args:
        address: The server.
        options: As ClientOptions, and `serializer`.
        default_timeout_s: The default of `timeout`.
        face: The class that the user called; its options are suggested for unknown ones.

    Raises:
        TypeError, ValueError: An option is unknown, of the wrong type or out of range; the message names it.
    """

    def __init__(
        self,
        address: Address,
        options: Mapping[str, Any],
        default_timeout_s: float,
        face: Callable[..., Any] | None = None,
    ) -> None:
        for name in options:
            if name not in _NAMES:
                raise unknown_option(name, _NAMES, face)
        #: The user's replacement for the built-in transport: httpx, or a callable that makes a gRPC channel.
        self.own_transport: Any = None
        self.serializer = resolve_serializer(options.get("serializer", PROTO))
        self.timeout_s = positive("timeout", options.get("timeout", default_timeout_s))
        self.retry = options.get("retry", RetryPolicy())
        if not isinstance(self.retry, RetryPolicy):
            raise TypeError(f"retry takes a RetryPolicy(…), not {self.retry!r}")
        self.logger = resolve_logger(options.get("logger", DEFAULT))
        if options.get("logger", DEFAULT) is not None:
            log_form(self.logger)
        self.stats = resolve_stats(options.get("stats"), self.logger)
        auth = options.get("auth")
        if address.userinfo is not None:
            if auth is not None:
                raise ValueError("auth is given twice: in the url, and as the option")
            auth = address.userinfo
        trust_env = switch("trust_env", options.get("trust_env", True))
        propagate = switch("propagate", options.get("propagate", False))
        spans = switch("spans", options.get("spans", False))
        self.tracing = new_tracing(self.logger, propagate=propagate, spans=spans)
        identity = _identity(options, has_auth=auth is not None)
        headers = _headers(options.get("headers"), identity, has_auth=auth is not None)
        if propagate and (taken := [name for name in headers if name.lower() in HEADERS]):
            raise ValueError(f"headers: {taken[0]!r} is set by propagate=True")
        self.link = Link(
            address=address,
            identity=identity,
            headers=headers,
            authorization=_authorization(auth),
            tls=_tls(options.get("tls"), address),
            user_agent=user_agent(options.get("app")),
            connect_timeout_s=positive("connect_timeout", options.get("connect_timeout", 10.0)),
            stats=self.stats,
            logger=self.logger,
            proxy=proxy_for(address, options.get("proxy"), trust_env=trust_env),
            server_hostname=_server_hostname(options.get("server_hostname"), address),
        )


def refuse_pickling(one: object) -> NoReturn:
    """Raise the error for pickling or copying a client or a producer."""
    name = type(one).__name__
    raise TypeError(
        f"{name} cannot be pickled or copied because it holds connections and events: pass its url and options to the "
        f"other process, and create a {name} there"
    )


def positive(option: str, value: object) -> float:
    """A number of seconds above 0, finite."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{option} takes a number of seconds, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{option} must be above 0 and finite, not {value!r}")
    return float(value)


def switch(option: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{option} takes True or False, not {value!r}")
    return value


def whole(option: str, value: object, least: int = 1) -> int:
    """An int of `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{option} takes an int, not {value!r}")
    if value < least:
        raise ValueError(f"{option} must be {least} or more, not {value}")
    return value


def _identity(options: Mapping[str, Any], *, has_auth: bool) -> Identity:
    given = {name: options[name] for name in Identity.__dataclass_fields__ if name in options}
    for option, value in given.items():
        if option.endswith("_header"):
            _check_name(option, value)
            if _is_ours(value.lower()) or (has_auth and value.lower() == "authorization"):
                raise ValueError(f"{option}: {value!r} is set by the client itself, to another value")
        elif value is not None:
            _check_value(option, value)
    identity = Identity(**given)
    if identity.id_header.lower() == identity.group_header.lower():
        raise ValueError(f"id_header and group_header must be two headers, not both {identity.id_header!r}")
    return identity


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith(("sec-websocket-", "grpc-"))


def _headers(headers: object, identity: Identity, *, has_auth: bool) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers takes a mapping of str to str, not {type(headers).__name__}")
    # Names differ in more than their case (RFC 9110, 5.1).
    options = {"user-agent": "app=App(…)", identity.id_header.lower(): "user_id="}
    if identity.group is not None:
        options[identity.group_header.lower()] = "group="
    if has_auth:
        options["authorization"] = "auth="
    seen = set()
    for name, value in headers.items():
        _check_name("headers", name)
        lower = name.lower()
        if lower in options or _is_ours(lower):
            hint = f" (use {options[lower]})" if lower in options else ""
            raise ValueError(f"headers: {name!r} is set by the client itself{hint}")
        if lower in seen:
            raise ValueError(f"headers: {name!r} is given twice, with different case")
        seen.add(lower)
        _check_value(f"headers[{name!r}]", value)
    return dict(headers)


def _check_name(option: str, name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{option} takes header names as str, not {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{option}: {name!r} is not a header name (letters, digits and hyphens)")


def _check_value(option: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{option} takes a str, not {type(value).__name__}")
    fitting = _VALUE.match(value)
    if fitting is not None and fitting.end() < len(value):
        # The value itself may be a secret.
        raise ValueError(
            f"{option}: the value cannot be sent in a header, which takes printable ASCII without line breaks; "
            f"its character {fitting.end() + 1} is U+{ord(value[fitting.end()]):04X}"
        )


def _authorization(auth: object) -> Callable[[], str] | None:
    if auth is None:
        return None
    if isinstance(auth, str):
        _check_value("auth", auth)
        return lambda: f"Bearer {auth}"
    if isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str) for part in auth):
        try:
            credentials = base64.b64encode(":".join(auth).encode()).decode("ascii")  # RFC 7617
        except UnicodeEncodeError:
            raise ValueError(
                "auth: the user or the password contains a lone surrogate, which cannot be encoded"
            ) from None
        return lambda: f"Basic {credentials}"
    if callable(auth):
        return lambda: _checked_authorization(_called(auth))
    raise TypeError(f"auth takes (user, password), a bearer token as str, or a callable, not {type(auth).__name__}")


def _called(auth: Callable[[], str]) -> object:
    try:
        return auth()
    except Exception:
        raise
    except BaseException as error:  # sys.exit() in it must not end the event loop's thread
        if is_main():
            raise
        raise RuntimeError(f"auth raised {type(error).__name__}") from error


def _checked_authorization(value: object) -> str:
    _check_value("auth()", value)
    return str(value)


def _server_hostname(name: object, address: Address) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"server_hostname takes a str, not {name!r}")
    if not address.secure:
        raise ValueError(f"server_hostname is given, but {address} is plain text; use {_SECURE[address.scheme]}://")
    try:
        return parse_host(name.lower()).partition("%")[0].removesuffix(".")
    except ValueError:
        raise ValueError(f"server_hostname: {name!r} is not a valid name") from None


def _tls(tls: object, address: Address) -> ssl.SSLContext | TLS | None:
    if tls is None:
        return None
    if not isinstance(tls, (ssl.SSLContext, TLS)):
        raise TypeError(f"tls takes TLS(…) or an ssl.SSLContext, not {type(tls).__name__}")
    if not address.secure:
        raise ValueError(f"tls is given, but {address} is plain text; use {_SECURE[address.scheme]}://")
    return tls
