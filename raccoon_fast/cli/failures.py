"""Finds out what fails on the way to a server, from a producer's log, while its batches still wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.errors import DeliveryError, TransportError
from raccoon_fast.logs import Log, resolve_logger

if TYPE_CHECKING:
    from raccoon_fast.logs import Logger

__all__ = ["FailureLog"]


class FailureLog(Log):
    """A producer's logger that keeps the last failure that the user may have to fix.

    Retries do not fix such a failure (a 404, a certificate), or it comes from the transport (an unknown name, the
    wrong protocol, a port where nothing listens). A server that is busy or cannot publish does not count.

    Args:
        target: A logger that also gets every line, or None.
    """

    def __init__(self, target: Logger | None) -> None:
        super().__init__()
        self._target = resolve_logger(target)
        self._failure = ""

    def take(self) -> str:
        """Returns the failure since the last call, or "". Thread-safe."""
        failure, self._failure = self._failure, ""
        return failure

    def debug(self, msg: str, *args: Any) -> None:
        """Passes it on."""
        self._target.debug(msg, *args)

    def info(self, msg: str, *args: Any) -> None:
        """Passes it on."""
        self._target.info(msg, *args)

    def warning(self, msg: str, *args: Any) -> None:
        """Passes it on, and keeps a failure."""
        self._target.warning(msg, *args)
        self._keep(args)

    def error(self, msg: str, *args: Any) -> None:
        """Passes it on, and keeps a failure."""
        self._target.error(msg, *args)
        self._keep(args)

    def _keep(self, args: tuple[Any, ...]) -> None:
        for error in args:
            if isinstance(error, TransportError) or (isinstance(error, DeliveryError) and not error.retryable):
                self._failure = str(error)
