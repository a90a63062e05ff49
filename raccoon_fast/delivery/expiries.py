"""Warns of expired events: at once, then at intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.errors import Outcome
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from raccoon_fast.core.batch import Batch
    from raccoon_fast.logs import Log

__all__ = ["Expiries"]

_INTERVAL_S = 10.0


class Expiries:
    """Counts expired events, and logs one warning for many of them.

    Owned by the engine's loop.

    Args:
        logger: Gets a warning at once, then at most every ten seconds.
        delivery_timeout_s: How long the events were kept, if `add` does not say.
    """

    def __init__(self, logger: Log, delivery_timeout_s: float) -> None:
        self._logger = logger
        self._life_s = delivery_timeout_s
        self._events = self._possibly_delivered = 0
        self._cause: BaseException | None = None
        self._told_s = float("-inf")

    def add(self, batch: Batch, cause: BaseException | None, life_s: float | None = None) -> None:
        """A batch expired; `cause` is its last known failure, `life_s` how long it was kept."""
        self._life_s = life_s or self._life_s
        self._events += batch.count
        if batch.outcome is not Outcome.NOT_DELIVERED:
            self._possibly_delivered += batch.count
        self._cause = cause or self._cause

    @property
    def due_s(self) -> float:
        """When `tell` has something to log; infinity if nothing expired since its last call."""
        return self._told_s + _INTERVAL_S if self._events else float("inf")

    def tell(self, now_s: float) -> None:
        """Log the events that expired since the last warning, if any and if it is time.

        Args:
            now_s: time.monotonic(); infinity logs at once.
        """
        if not self._events or now_s < self.due_s:
            return
        if self._cause is not None:
            why = f"last failure: {self._cause}"
        else:
            why = "the server acknowledged too few events in that time"
        self._logger.warning(
            "%s expired after %g s without an acknowledgement (%d possibly delivered); %s",
            counted(self._events, "event"),
            self._life_s,
            self._possibly_delivered,
            why,
        )
        self._told_s = now_s
        self._events = self._possibly_delivered = 0
        self._cause = None
