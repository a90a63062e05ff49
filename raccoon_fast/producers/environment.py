"""Reads options from environment variables, for settings that differ between deployments."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from typing import TYPE_CHECKING, Any

from raccoon_fast import option_text
from raccoon_fast.producers.lanes import lanes_from_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

__all__ = ["CONNECTION_OPTIONS", "PREFIX", "Environment", "unknown_variables"]

PREFIX = "RACCOON_FAST_"
#: Options that every client uses.
CONNECTION_OPTIONS = (
    "url",
    "user_id",
    "group",
    "id_header",
    "group_header",
    "tls",
    "proxy",
    "server_hostname",
    "auth",
    "timeout",
)


# Each variable's option, or part of an option, and its parser. Documented in BaseProducer.from_env.
_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "URL": ("url", option_text.names),
    "USER_ID": ("user_id", str),
    "GROUP": ("group", str),
    "ID_HEADER": ("id_header", str),
    "GROUP_HEADER": ("group_header", str),
    "TLS_CA": ("tls.ca", option_text.file),
    "TLS_CERT": ("tls.cert", option_text.file),
    "TLS_KEY": ("tls.key", option_text.file),
    "TLS_PASSWORD": ("tls.password", str),
    "PROXY": ("proxy", str),
    "SERVER_HOSTNAME": ("server_hostname", str),
    "AUTH_TOKEN": ("auth", str),
    "TIMEOUT": ("timeout", option_text.seconds),
    "CONNECT_TIMEOUT": ("connect_timeout", option_text.seconds),
    "WIRE": ("wire", str),
    "LINGER": ("linger", option_text.seconds),
    "BATCH_EVENTS": ("batch_events", option_text.whole_number),
    "BATCH_BYTES": ("batch_bytes", option_text.whole_number),
    "MAX_IN_FLIGHT": ("max_in_flight", option_text.whole_number),
    "CONNECTIONS": ("connections", option_text.whole_number),
    "BUFFER_BYTES": ("buffer_bytes", option_text.whole_number),
    "OVERFLOW": ("overflow", str),
    "BLOCK_TIMEOUT": ("block_timeout", option_text.seconds),
    "DELIVERY_TIMEOUT": ("delivery_timeout", option_text.seconds),
    "SERVER_ACKS": ("server_acks", str),
    "MAX_TYPES": ("max_types", option_text.whole_number),
    "SPOOL": ("spool", str),
    "SPOOL_BYTES": ("spool_bytes", option_text.whole_number),
    "DURABLE": ("durable", option_text.switch),
    "ENABLED": ("enabled", option_text.switch),
    "LANES": ("lanes", lanes_from_text),
    "PROPAGATE": ("propagate", option_text.switch),
    "SPANS": ("spans", option_text.switch),
    "STATSD_HOST": ("stats.host", str),
    "STATSD_PORT": ("stats.port", option_text.whole_number),
    "STATSD_PREFIX": ("stats.prefix", str),
    "STATSD_TAGS": ("stats.tags", option_text.pairs),
}
# Variables read elsewhere: on import, by the build, and by the tests.
_OTHERS = ("NO_EXTENSIONS", "BUILD", "TEST_PATIENCE")


class Environment:
    """The options for which variables are set; an empty variable counts as not set.

    Args:
        given: Options that the caller passes: their variables are not read.
        wanted: The options to read; None reads all.
        variables: The variables; None uses the environment of the process.

    Attributes:
        options: The values by option name.

    Raises:
        ValueError: A variable is invalid; the message names it.
    """

    def __init__(
        self,
        given: Collection[str],
        wanted: Collection[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        variables = os.environ if variables is None else variables
        self.options: dict[str, Any] = {}
        self._sources: dict[str, list[str]] = {}
        for suffix, (path, read) in _VARIABLES.items():
            variable, text = PREFIX + suffix, variables.get(PREFIX + suffix, "")
            option, _, part = path.partition(".")
            if not text or option in given or (wanted is not None and option not in wanted):
                continue
            try:
                value = read(text)
            except ValueError as error:
                raise ValueError(f"{variable} {error}") from None
            self._sources.setdefault(option, []).append(variable)
            if part:
                self.options.setdefault(option, {})[part] = value
            else:
                self.options[option] = value
        for option, make in (("tls", _tls), ("stats", _statsd)):
            if option in self.options:
                with self.blamed():
                    self.options[option] = make(self.options[option])

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """In `with`: errors about options also name their variables.

        Raises:
            TypeError, ValueError: The inner error; the message names its variables.
        """
        try:
            yield
        except (TypeError, ValueError) as error:
            about = str(error).partition("; did you mean ")[0]
            blamed = [
                variable
                for option, variables in self._sources.items()
                if re.search(rf"\b{option}\b", about)
                for variable in variables
            ]
            if not blamed:
                raise
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{', '.join(blamed)}: {error}") from None


def unknown_variables(variables: Mapping[str, str] | None = None) -> list[str]:
    """Returns a line for each unknown variable that starts with our prefix."""
    known = [*_VARIABLES, *_OTHERS]
    lines = []
    for name in os.environ if variables is None else variables:
        suffix = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and suffix not in known:
            near = difflib.get_close_matches(suffix, known, 1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            lines.append(f"{name} is not a variable of raccoon_fast{hint}")
    return lines


def _tls(parts: dict[str, Any]) -> Any:
    from raccoon_fast.tls import TLS

    if "key" in parts and "cert" not in parts:
        raise ValueError("tls needs the certificate that belongs to the key: set RACCOON_FAST_TLS_CERT too")
    if "password" in parts and "key" not in parts:
        raise ValueError("tls needs the private key that the password is for: set RACCOON_FAST_TLS_KEY too")
    return TLS(**parts)


def _statsd(parts: dict[str, Any]) -> Any:
    from raccoon_fast.stats.statsd import StatsD

    if "host" not in parts:
        raise ValueError("stats need RACCOON_FAST_STATSD_HOST too")
    try:
        return StatsD(**parts)
    except ValueError as error:
        raise ValueError(f"stats: {error}") from None
