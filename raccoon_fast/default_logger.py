"""The logger "raccoon_fast" of the standard library, and its handler for programs without logging.

Imported on first use: `logging` is not loaded with the package.
"""

from __future__ import annotations

import contextlib
import logging

from raccoon_fast.logs import write_line

__all__ = ["default_logger"]


class _Fallback(logging.Handler):
    """Writes warnings and errors to stderr while no handler of the program gets them.

    Python's own last resort, `logging.lastResort`, writes them without time, level and name.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def createLock(self) -> None:  # noqa: N802 - the base class's name
        """Make no lock: a line is one write, and sys.stderr may run any code."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record if no other handler gets it."""
        if self.filter(record) and not self._has_others():
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line."""
        with contextlib.suppress(Exception):  # stderr is closed or full
            write_line(record.levelname, "%s", (record.getMessage(),))

    def _has_others(self) -> bool:
        if any(handler is not self for handler in self._logger.handlers):
            return True
        parent = self._logger.parent
        return self._logger.propagate and parent is not None and parent.hasHandlers()


def default_logger() -> logging.Logger:
    """Returns `logging.getLogger("raccoon_fast")`; its warnings go to stderr in a program without logging."""
    return _logger


_logger = logging.getLogger("raccoon_fast")
# Once: a program that removes the handler has decided.
_logger.addHandler(_Fallback(_logger))
