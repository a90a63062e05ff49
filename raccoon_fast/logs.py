"""The package's log: the logger "raccoon_fast", a logger of the user, or none."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from raccoon_fast.threads import is_main

__all__ = ["CONSOLE", "DEFAULT", "Log", "Logger", "redact_headers", "resolve_logger", "write_line"]


@runtime_checkable
class Logger(Protocol):
    """The methods that a logger must have, such as a `logging.Logger` or loguru's `logger`.

    A `logging.Logger` or LoggerAdapter gets `msg` and `args`, and formats them with %. Any other object gets the
    formatted text as `msg`, without `args`. `debug` and `warning` are used too if the object has them; without them
    debug messages are dropped and warnings go to `error`. The methods are called from any thread and from event loops,
    so they should not block. Their exceptions never affect the delivery of events.
    """

    def info(self, msg: str, *args: Any) -> object:
        """Logs normal events: connected, reconnected, closed."""

    def error(self, msg: str, *args: Any) -> object:
        """Logs errors."""


class _Console:
    """Writes lines to the current sys.stderr. Debug messages are not shown."""

    def info(self, msg: str, *args: Any) -> None:
        write_line("INFO", msg, args)

    def warning(self, msg: str, *args: Any) -> None:
        write_line("WARNING", msg, args)

    def error(self, msg: str, *args: Any) -> None:
        write_line("ERROR", msg, args)

    def __repr__(self) -> str:
        return "CONSOLE"


CONSOLE: Logger = _Console()
"""A logger that writes one line per message to stderr, from info upwards, regardless of the program's configuration."""


class _Default:
    """Stands for `logging.getLogger("raccoon_fast")`, which is made on first use."""

    def __repr__(self) -> str:
        return 'logging.getLogger("raccoon_fast")'

    def __reduce__(self) -> str:
        return "DEFAULT"  # pickled by reference: another process has its own logger


DEFAULT: object = _Default()
"""The default logger: `logging.getLogger("raccoon_fast")`.

It follows the program's `logging` configuration. Without one, its warnings and errors go to stderr.
"""


class Log:
    """The four levels over the user's logger; the first exception of that logger is reported on stderr."""

    __slots__ = ("_failed", "_targets")

    def __init__(self, **targets: Callable[..., object] | None) -> None:
        self._targets = targets
        self._failed = False

    def debug(self, msg: str, *args: Any) -> None:
        """Logs details for debugging."""
        self._call("debug", msg, args)

    def info(self, msg: str, *args: Any) -> None:
        """Logs a change of state: connected, reconnected, closed."""
        self._call("info", msg, args)

    def warning(self, msg: str, *args: Any) -> None:
        """Logs a problem that was handled but deserves attention."""
        self._call("warning", msg, args)

    def error(self, msg: str, *args: Any) -> None:
        """Logs a loss of events, or its cause."""
        self._call("error", msg, args)

    def _call(self, level: str, msg: str, args: tuple[Any, ...]) -> None:
        target = self._targets.get(level)
        if target is None:
            return
        try:
            target(msg, *args)
        except BaseException as error:
            if not isinstance(error, Exception) and is_main():
                raise  # it may be raised by a signal handler: Ctrl-C, or sys.exit()
            if self._failed:
                return
            self._failed = True
            with contextlib.suppress(Exception):  # stderr is closed or full: there is nowhere to report
                write_line("ERROR", "the logger raised in %s(): %r; further failures are not reported", (level, error))


def resolve_logger(value: object = DEFAULT) -> Log:
    """Turns the `logger` option into the object that the package uses.

    Args:
        value: A logging.Logger, CONSOLE, None for silence, or an object with `info` and `error` (see Logger).

    Returns:
        A Log that never raises.

    Raises:
        TypeError: `value` lacks `info` or `error`.
    """
    if value is None:
        return Log()
    if isinstance(value, Log):
        return value
    if value is DEFAULT:
        from raccoon_fast.default_logger import default_logger

        value = default_logger()
    error = getattr(value, "error", None)
    info = getattr(value, "info", None)
    if not callable(error) or not callable(info):
        raise TypeError(
            f"logger must have info(msg, *args) and error(msg, *args), or be None to log nothing, not {value!r}"
        )
    targets: dict[str, Any] = {
        "debug": getattr(value, "debug", None),
        "info": info,
        "warning": getattr(value, "warning", error),
        "error": error,
    }
    logging = sys.modules.get("logging")  # if it is not imported, it cannot have made `value`
    if logging is not None and isinstance(value, (logging.Logger, logging.LoggerAdapter)):
        # A record names the line that logs, not this module's two frames above it. Before 3.11 an adapter's two frames
        # count.
        frames = 5 if sys.version_info < (3, 11) and isinstance(value, logging.LoggerAdapter) else 3
        targets = {level: functools.partial(target, stacklevel=frames) for level, target in targets.items()}
    else:  # loguru formats with {}, others not at all
        targets = {level: target and functools.partial(_finished, target) for level, target in targets.items()}
    return Log(**targets)


def _finished(target: Callable[[str], object], msg: str, *args: Any) -> None:
    target(msg % args if args else msg)


def write_line(level: str, msg: str, args: tuple[Any, ...]) -> None:
    """Writes one line to sys.stderr, in one write."""
    text = msg % args if args else msg
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level} raccoon_fast: {text}\n")


_REDACTED = "[redacted]"
# Wider than the known names, because a secret in a log cannot be undone. `:authority` is only a host name.
_SECRET_NAME = re.compile(
    r"auth(?!ority)|cookie|token|secret|passw|credential|signature|session|jwt|key$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"\s*(?:basic|bearer|digest|negotiate)\s", re.IGNORECASE)


def redact_headers(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns `headers` for a log: names and harmless values stay, secrets become "[redacted]".

    Secrets are Authorization, Proxy-Authorization, Cookie, X-Api-Key, any other header whose name mentions a token,
    key, password or signature, and any value that starts with an authentication scheme (RFC 9110, section 11.4).

    Args:
        headers: A mapping or pairs of strings. It is not changed.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {
        name: _REDACTED if _SECRET_NAME.search(name) or _SECRET_VALUE.match(value) else value for name, value in pairs
    }
