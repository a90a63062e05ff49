"""Which faults are switched on, as the servers ask for them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from raccoon_fast.collector.fault_hits import FaultHit, FaultHits, Target

__all__ = ["AnswerFaults", "FaultTable", "Refusal"]


class Refusal(NamedTuple):
    """An HTTP answer in place of the server's own, and the code gRPC gives instead.

    Attributes:
        status: The HTTP status.
        headers: Its headers but for Content-Length.
        body: Its body.
        grpc_code: The name of the gRPC status code.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    grpc_code: str


class AnswerFaults(NamedTuple):
    """What is to happen to one answer.

    Attributes:
        hang_up: The connection ends in place of the answer.
        drop: The answer is never sent.
        wrong_guid: It carries a guid nobody sent.
        body: It is these bytes instead.
        cut_bytes: So much of it is sent, then the connection is closed (WebSocket, REST).
        delay_s: It waits for so long.
        unknown: An answer for a guid nobody sent precedes it (WebSocket).
        duplicate: It is sent twice (WebSocket, REST).
        reorder: It is sent after later ones (WebSocket).
    """

    hang_up: bool = False
    drop: bool = False
    wrong_guid: bool = False
    body: bytes | None = None
    cut_bytes: int | None = None
    delay_s: float = 0.0
    unknown: bool = False
    duplicate: bool = False
    reorder: bool = False


class _Rule:
    __slots__ = ("left", "value")

    def __init__(self, value: Any, left: int | None) -> None:
        self.value = value
        self.left = left


class FaultTable:
    """Thread-safe: a fault is switched on by one thread and taken, once for each time it happens, by another.

    Args:
        changed: Guards the table, and is notified when a fault happens.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._rules: dict[str, _Rule] = {}
        self._fired: dict[str, int] = {}
        self._hits = FaultHits()

    def set(self, name: str, value: Any, times: int | None) -> None:
        """Switch a fault on, in place of one of the same name; `times` None is until `clear`."""
        with self._changed:
            self._rules[name] = _Rule(value, times)

    def clear(self, name: str | None = None) -> None:
        """Switch one fault off, or all of them."""
        with self._changed:
            if name is None:
                self._rules.clear()
            else:
                self._rules.pop(name, None)

    @property
    def is_empty(self) -> bool:
        """Whether no fault is on."""
        return not self._rules

    @property
    def switched_on(self) -> dict[str, tuple[Any, int | None]]:
        """The faults that are on: their value, and how often they are yet to happen."""
        with self._changed:
            return {name: (rule.value, rule.left) for name, rule in self._rules.items()}

    @property
    def fired(self) -> dict[str, int]:
        """How often each fault has happened; never reset."""
        with self._changed:
            return self._fired.copy()

    def hits(self, limit: int) -> list[FaultHit]:
        """What faults did to whom, the latest first; up to `limit`."""
        with self._changed:
            return self._hits.newest(limit)

    def hits_of(self, req_guid: str) -> list[str]:
        """The names of the faults that happened to the requests with a guid."""
        with self._changed:
            return self._hits.of_request(req_guid)

    def forget_hits(self) -> None:
        """Forget what faults did; `fired` goes on."""
        with self._changed:
            self._hits.clear()

    def hit(self, name: str, target: Target) -> None:
        """A fault happened that is not in this table."""
        with self._changed:
            self._hits.add(name, target)

    def fails_publish(self, target: Callable[[], Target]) -> bool:
        """Whether the batch at hand fails to be published; `target` says whose it is."""
        if not self._rules:
            return False
        with self._changed:
            rule = self._rules.get("fail_publish")
            if rule is None or random.random() >= rule.value:  # noqa: S311 - no secret
                return False
            self._use("fail_publish", rule, target())
            return True

    def rejects(self, event_types: Iterable[str], target: Callable[[], Target]) -> bool:
        """Whether a request with events of these types is not to be had; `target` says whose it is."""
        if not self._rules:
            return False
        with self._changed:
            rule = self._rules.get("reject_events")
            if rule is None or rule.value not in event_types:
                return False
            self._use("reject_events", rule, target())
            return True

    def limits(self, size: int, target: Callable[[], Target]) -> int | None:
        """The limit that a request of `size` bytes is over, if there is one."""
        if not self._rules:
            return None
        with self._changed:
            rule = self._rules.get("too_large")
            if rule is None or size <= rule.value:
                return None
            self._use("too_large", rule, target())
            limit: int = rule.value
            return limit

    def take(self, name: str, target: Callable[[], Target]) -> Any:
        """The value of a fault, counted as having happened to what `target` says; None while it is off."""
        if not self._rules:
            return None
        with self._changed:
            return self._take(name, target)

    def for_answer(
        self, target: Callable[[], Target], *, owns_bytes: bool = False, is_stream: bool = False
    ) -> AnswerFaults | None:
        """What is to happen to the answer at hand; None while nothing is.

        Args:
            target: Says what it answers.
            owns_bytes: Whether an answer can be sent twice here, or in part.
            is_stream: Whether answers can come in another order, or uncalled for.
        """
        if not self._rules:
            return None
        with self._changed:
            if self._take("hang_up", target):
                return AnswerFaults(hang_up=True)
            if self._take("drop_acks", target):
                return AnswerFaults(drop=True)
            return AnswerFaults(
                wrong_guid=bool(self._take("wrong_guid", target)),
                body=self._take("bad_answer", target),
                cut_bytes=self._take("cut_answers", target) if owns_bytes else None,
                delay_s=self._take("delay", target) or 0.0,
                unknown=is_stream and bool(self._take("unknown_acks", target)),
                duplicate=owns_bytes and bool(self._take("duplicate_acks", target)),
                reorder=is_stream and bool(self._take("reorder_acks", target)),
            )

    def _take(self, name: str, target: Callable[[], Target]) -> Any:
        rule = self._rules.get(name)
        if rule is None:
            return None
        self._use(name, rule, target())
        return rule.value

    def _use(self, name: str, rule: _Rule, target: Target) -> None:
        self._hits.add(name, target)
        self._fired[name] = self._fired.get(name, 0) + 1
        self._changed.notify_all()
        if rule.left is not None:
            rule.left -= 1
            if not rule.left:
                del self._rules[name]
