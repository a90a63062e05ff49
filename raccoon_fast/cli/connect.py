"""Makes producers and client options from URLs and the options of a connection."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

from raccoon_fast.cli.exits import UsageError
from raccoon_fast.cli.terminal import write_note
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.errors import TLSError
from raccoon_fast.logs import CONSOLE
from raccoon_fast.net.address import protocol_of
from raccoon_fast.producers.environment import CONNECTION_OPTIONS, Environment, unknown_variables
from raccoon_fast.producers.producer import Producer
from raccoon_fast.tls import TLS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from raccoon_fast.serializers import Serializer

__all__ = ["ServerOptions", "make_producer"]

_T = TypeVar("_T")

# More than a batch of lines needs in any wire format, and less than gRPC's limit.
_BATCH_BYTES = 3 << 20
# A batch of lines is sealed by its count or by a flush: a linger could end while it is half filled, and split it.
_LINGER_S = 86_400.0


def make_producer(
    arguments: argparse.Namespace,
    server: ServerOptions,
    *,
    serializer: Serializer,
    wire: str = "proto",
    in_flight: int,
    batch_events: int,
) -> Producer:
    """Makes the producer that sends batches of lines; it connects on first use.

    Args:
        arguments: The parsed arguments, with `max_attempts`.
        server: The server's URLs and options.
        serializer: As a producer takes it.
        wire: "proto" or "json"; gRPC has only "proto".
        in_flight: Requests that may be unacknowledged at once.
        batch_events: Events in one request.

    Raises:
        ValueError: An option is invalid.
    """
    if wire != "proto" and any(url.startswith("grpc") for url in server.urls):
        raise ValueError(f"--wire {wire} works with REST and WebSocket only: gRPC needs proto")
    return server.new(
        Producer,
        wire=wire,
        linger=_LINGER_S,
        max_in_flight=in_flight,
        batch_events=batch_events,
        batch_bytes=_BATCH_BYTES,
        serializer=serializer,
        retry=RetryPolicy(max_attempts=arguments.max_attempts),
    )


class ServerOptions:
    """The server's URLs and options, from the command line, or else from the environment.

    Args:
        arguments: The parsed arguments, with the options of a connection.
        urls: http, https, ws, wss, grpc or grpcs; if empty, the environment supplies them.
        reads_environment: Whether to read environment variables.

    Attributes:
        urls: At least one.
        options: The options of any client, see ClientOptions.

    Raises:
        ValueError, UsageError: An option or a variable is invalid.
    """

    def __init__(self, arguments: argparse.Namespace, urls: Sequence[str], *, reads_environment: bool = True) -> None:
        self.options = _given_options(arguments)
        given = [*self.options, *(["url"] if urls else [])]
        self._environment = Environment(given, CONNECTION_OPTIONS if reads_environment else ())
        for line in unknown_variables() if reads_environment else ():
            write_note(f"raccoon-fast {arguments.command}: {line}")
        found = dict(self._environment.options)
        self.urls = [*(urls or found.pop("url", []))]
        self.options |= found
        if "tls" in self.options:
            _check_tls(self.options["tls"])
        if not self.urls:
            raise UsageError("no server: give its URL on the command line, or set RACCOON_FAST_URL")
        with self.blamed():
            for url in self.urls:
                protocol_of(url)

    def new(self, make: Callable[..., _T], **options: Any) -> _T:
        """Calls `make` with the URLs and all options. Errors name the variable at fault."""
        with self.blamed():
            return make(self.urls, **self.options, **options)

    def blamed(self) -> AbstractContextManager[None]:
        """In `with`: errors name the variables at fault."""
        return self._environment.blamed()


def _given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"logger": CONSOLE if arguments.debug else None}
    for name in ("user_id", "group", "id_header", "group_header", "proxy", "server_hostname", "timeout"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if arguments.token is not None:
        options["auth"] = arguments.token
    if arguments.header:
        options["headers"] = dict(arguments.header)
        names = [name.lower() for name, _ in arguments.header]
        repeated = next((name for name, _ in arguments.header if names.count(name.lower()) > 1), None)
        if repeated is not None:
            raise UsageError(f"--header sets {repeated} more than once: a header has one value")
        if "authorization" in names:
            if arguments.token is not None:
                raise UsageError("--token and --header 'Authorization: …' set the same header: leave out one of them")
            options["auth"] = None  # or the environment's value would override it
    if arguments.ca or arguments.cert or arguments.key:
        password = os.environ.get("RACCOON_FAST_TLS_PASSWORD") or None
        options["tls"] = TLS(
            ca=arguments.ca, cert=arguments.cert, key=arguments.key, password=password if arguments.cert else None
        )
    return options


def _check_tls(tls: TLS) -> None:
    try:
        tls.ssl_context()  # checked here because gRPC would only report the server as unavailable
    except ssl.SSLError as error:
        what = "--ca, --cert or --key (RACCOON_FAST_TLS_CA, _CERT, _KEY)"
        raise UsageError(f"{what} does not contain valid PEM: {error.reason}") from error
    except TLSError as error:
        raise UsageError(f"{error} (RACCOON_FAST_TLS_PASSWORD)") from None
