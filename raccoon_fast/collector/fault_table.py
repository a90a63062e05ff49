"""The faults that are switched on; the servers look them up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from raccoon_fast.collector.fault_hits import FaultHit, FaultHits, Target

__all__ = ["AnswerFaults", "FaultTable", "Refusal"]


class Refusal(NamedTuple):
    """An HTTP answer that replaces the server's own, and the corresponding gRPC code.

    Attributes:
        status: The HTTP status.
        headers: Its headers, without Content-Length.
        body: Its body.
        grpc_code: The name of the gRPC status code.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    grpc_code: str


class AnswerFaults(NamedTuple):
    """The faults of one answer.

    Attributes:
        hang_up: The connection ends instead of the answer.
        drop: The answer is never sent.
        wrong_guid: It carries an unknown guid.
        body: These bytes replace it.
        cut_bytes: This many bytes of it are sent, then the connection is closed (WebSocket, REST).
        delay_s: The seconds by which it is delayed.
        unknown: An answer with an unknown guid precedes it (WebSocket).
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
    """Thread-safe: one thread switches a fault on, another takes it each time it happens.

    Args:
        changed: Guards the table; notified when a fault happens.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._rules: dict[str, _Rule] = {}
        self._fired: dict[str, int] = {}
        self._hits = FaultHits()

    def set(self, name: str, value: Any, times: int | None) -> None:
        """Switch a fault on, replacing one of the same name; `times` None lasts until `clear`."""
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
        """The active faults: their value, and how often they will still happen."""
        with self._changed:
            return {name: (rule.value, rule.left) for name, rule in self._rules.items()}

    @property
    def fired(self) -> dict[str, int]:
        """How often each fault has happened; never reset."""
        with self._changed:
            return self._fired.copy()

    def hits(self, limit: int) -> list[FaultHit]:
        """Up to `limit` fault hits by client, the latest first."""
        with self._changed:
            return self._hits.newest(limit)

    def hits_of(self, req_guid: str) -> list[str]:
        """The names of the faults that happened to the requests with a guid."""
        with self._changed:
            return self._hits.of_request(req_guid)

    def forget_hits(self) -> None:
        """Delete the fault hits; `fired` is kept."""
        with self._changed:
            self._hits.clear()

    def hit(self, name: str, target: Target) -> None:
        """Record a fault that is not in this table."""
        with self._changed:
            self._hits.add(name, target)

    def fails_publish(self, target: Callable[[], Target]) -> bool:
        """Whether this batch fails to publish; `target` identifies it."""
        if not self._rules:
            return False
        with self._changed:
            rule = self._rules.get("fail_publish")
            if rule is None or random.random() >= rule.value:  # noqa: S311 - no secret
                return False
            self._use("fail_publish", rule, target())
            return True

    def rejects(self, event_types: Iterable[str], target: Callable[[], Target]) -> bool:
        """Whether a request with events of these types is refused; `target` identifies it."""
        if not self._rules:
            return False
        with self._changed:
            rule = self._rules.get("reject_events")
            if rule is None or rule.value not in event_types:
                return False
            self._use("reject_events", rule, target())
            return True

    def limits(self, size: int, target: Callable[[], Target]) -> int | None:
        """The limit that a request of `size` bytes exceeds, if any."""
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
        """The value of a fault, counted as a hit on `target`; None if it is off."""
        if not self._rules:
            return None
        with self._changed:
            return self._take(name, target)

    def for_answer(
        self, target: Callable[[], Target], *, owns_bytes: bool = False, is_stream: bool = False
    ) -> AnswerFaults | None:
        """The faults of this answer; None if there are none.

        Args:
            target: The request that it answers.
            owns_bytes: Whether this protocol can send an answer twice, or in part.
            is_stream: Whether this protocol can reorder answers, or send extra ones.
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
