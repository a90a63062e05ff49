"""Lanes: one policy per kind of event, so that a noisy type cannot delay, evict or expire another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast import json_codec
from raccoon_fast.clients.options import positive, switch, whole
from raccoon_fast.events import Event

if TYPE_CHECKING:
    from raccoon_fast.producers.options import ProducerOptions

__all__ = [
    "DEFAULT_LANE",
    "OVERFLOWS",
    "PRIORITIES",
    "Lane",
    "LaneOptions",
    "LaneTable",
    "Sampler",
    "lanes_from_text",
    "resolve_lanes",
]

PRIORITIES = ("high", "normal", "low")
OVERFLOWS = ("block", "raise", "drop_newest", "drop_oldest", "spool")
#: The name of the lane for all other events; it has the producer's own options.
DEFAULT_LANE = "default"
_NORMAL = PRIORITIES.index("normal")
# The number of types whose lane is cached; for further types `lane_of` is called for each event.
_MOST_TYPES = 10_000


@dataclass(frozen=True)
class Lane:
    """The rules for the events of a lane. Options that are left out have the producer's values.

    Attributes:
        priority: "high" is sent before "normal", and "normal" before "low"; a waiting lower priority still gets 5 % of
            the bytes sent.
        linger, batch_events, batch_bytes: As for Producer, for the batches of this lane. `batch_bytes` is at most half
            of the lane's `buffer_bytes`.
        buffer_bytes: The lane's share of the producer's `buffer_bytes`. By default the lane shares equally, with all
            other lanes that leave it out and the default lane, what the other lanes do not take.
        overflow, block_timeout: As for Producer, when the lane's share is full.
        ttl: Seconds for which an event may wait to be sent; then it expires, even with a spool. An attempt under
            way may finish.
        durable: As for Producer.
        sample: The share of events to keep, 0 to 1; see Producer's `sample_key`. The others are counted as
            `sampled`.
        on_delivery: As for Producer, for the batches of this lane.

    Raises:
        TypeError, ValueError: A value is invalid; the message names it.
    """

    priority: str = "normal"
    linger: float | None = None
    batch_events: int | None = None
    batch_bytes: int | None = None
    buffer_bytes: int | None = None
    overflow: str | None = None
    block_timeout: float | None = None
    ttl: float | None = None
    durable: bool | None = None
    sample: float = 1.0
    on_delivery: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise ValueError(f"priority must be one of {', '.join(PRIORITIES)}, not {self.priority!r}")
        for option in ("linger", "block_timeout", "ttl"):
            if getattr(self, option) is not None:
                positive(option, getattr(self, option))
        for option in ("batch_events", "batch_bytes", "buffer_bytes"):
            if getattr(self, option) is not None:
                whole(option, getattr(self, option))
        if self.overflow is not None and self.overflow not in OVERFLOWS:
            raise ValueError(f"overflow must be one of {', '.join(OVERFLOWS)}, not {self.overflow!r}")
        if self.durable is not None:
            switch("durable", self.durable)
        if not isinstance(self.sample, (int, float)) or isinstance(self.sample, bool):
            raise TypeError(f"sample takes a share from 0 to 1, not {self.sample!r}")
        if not 0 <= self.sample <= 1:
            raise ValueError(f"sample must be from 0 to 1, not {self.sample!r}")
        if self.on_delivery is not None and not callable(self.on_delivery):
            raise TypeError(f"on_delivery takes a callable, not {self.on_delivery!r}")


class LaneOptions(NamedTuple):
    """A lane's options, checked and complete. The names are those of Lane, with units.

    `rank` is 0 for the highest priority. `ttl_s` is None if only `delivery_timeout` limits an event's life.
    """

    name: str
    rank: int
    linger_s: float
    batch_events: int
    batch_bytes: int
    max_event_bytes: int
    buffer_bytes: int
    overflow: str
    block_timeout_s: float
    ttl_s: float | None
    durable: bool
    sample: float
    on_delivery: Callable[[Any], object] | None


def resolve_lanes(
    lanes: object, options: ProducerOptions, on_delivery: Callable[[Any], object] | None
) -> list[LaneOptions]:
    """The lanes of a producer, the default one first.

    Args:
        lanes: The lanes by name, or None.
        options: The producer's options.
        on_delivery: The producer's callback.

    Raises:
        TypeError, ValueError: A lane is invalid, or its share is too large; the message names it.
    """
    given = _checked(lanes)
    shares = _shares(given, options)
    resolved = [_resolved(DEFAULT_LANE, Lane(), shares[DEFAULT_LANE], options, on_delivery)]
    for name, lane in given.items():
        try:
            resolved.append(_resolved(name, lane, shares[name], options, on_delivery))
        except ValueError as error:  # noqa: PERF203
            raise ValueError(f"lanes[{name!r}]: {error}") from None
    return resolved


def _checked(lanes: object) -> Mapping[str, Lane]:
    if lanes is None:
        return {}
    if not isinstance(lanes, Mapping):
        raise TypeError(f'lanes takes a dict such as {{"payment": Lane(…)}}, not {type(lanes).__name__}')
    for name, lane in lanes.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"lanes takes event types as keys, not {name!r}")
        if not isinstance(lane, Lane):
            raise TypeError(f"lanes[{name!r}] must be a Lane(…), not {lane!r}")
        if name == DEFAULT_LANE:
            raise ValueError(f"lanes: {name!r} is the lane of all other events: set the producer's own options")
    return lanes


def _shares(lanes: Mapping[str, Lane], options: ProducerOptions) -> dict[str, int]:
    """The buffer_bytes of each lane; they add up to the producer's."""
    fixed = {name: lane.buffer_bytes for name, lane in lanes.items() if lane.buffer_bytes is not None}
    others = [DEFAULT_LANE, *(name for name in lanes if name not in fixed)]
    left = options.buffer_bytes - sum(fixed.values())
    if left < 2 * len(others):
        raise ValueError(
            f"buffer_bytes of the lanes take {sum(fixed.values())} of the producer's {options.buffer_bytes} bytes, and "
            f"leave too little for {', '.join(others)}: raise the producer's buffer_bytes"
        )
    return {**fixed, **dict.fromkeys(others, left // len(others))}


def _resolved(
    name: str, lane: Lane, buffer_bytes: int, options: ProducerOptions, on_delivery: Callable[[Any], object] | None
) -> LaneOptions:
    batch_bytes = lane.batch_bytes
    if batch_bytes is None:
        batch_bytes = min(options.batch_bytes, buffer_bytes // 2)
    if batch_bytes > options.max_batch_bytes:
        raise ValueError(f"batch_bytes must be {options.max_batch_bytes} or less with these servers, not {batch_bytes}")
    if buffer_bytes < 2 * batch_bytes:
        raise ValueError(f"buffer_bytes must hold two batches, {2 * batch_bytes} or more, not {buffer_bytes}")
    durable = options.durable if lane.durable is None else lane.durable
    overflow = options.overflow if lane.overflow is None else lane.overflow
    if options.spool is None and not options.is_null and (durable or overflow == "spool"):
        what = "durable=True" if durable else 'overflow="spool"'
        raise ValueError(f"{what} needs the producer's spool=…, the path of a file to keep batches in")
    return LaneOptions(
        name=name,
        rank=PRIORITIES.index(lane.priority),
        linger_s=options.linger_s if lane.linger is None else float(lane.linger),
        batch_events=lane.batch_events or options.batch_events,
        batch_bytes=batch_bytes,
        max_event_bytes=min(options.max_event_bytes, buffer_bytes),
        buffer_bytes=buffer_bytes,
        overflow=overflow,
        block_timeout_s=options.block_timeout_s if lane.block_timeout is None else float(lane.block_timeout),
        ttl_s=None if lane.ttl is None else float(lane.ttl),
        durable=durable and not options.is_null,
        sample=float(lane.sample),
        on_delivery=on_delivery if lane.on_delivery is None else lane.on_delivery,
    )


class LaneTable:
    """Maps event types to lanes. Thread-safe if `lane_of` is.

    Args:
        names: The names of the lanes, the default one first.
        targets: The result of `target` for each lane.
        lane_of: Returns the name of a type's lane, or None for the default one; called once for each type that names no
            lane itself.

    Attributes:
        routes: The target of each type seen so far; a cache that callers may read first.

    Raises:
        TypeError: `lane_of` is not callable.
        ValueError: `lane_of` is given without lanes.
    """

    def __init__(
        self, names: list[str], targets: list[Any], lane_of: Callable[[str], str | None] | None = None
    ) -> None:
        if lane_of is not None and not callable(lane_of):
            raise TypeError(f"lane_of takes a callable of an event's type, not {lane_of!r}")
        if lane_of is not None and len(names) == 1:
            raise ValueError("lane_of needs lanes={…}, whose names it returns")
        self._numbers = {name: number for number, name in enumerate(names) if number}
        self._targets = targets
        self._lane_of = lane_of
        self._known: dict[str, int] = {}
        self.routes: dict[str, Any] = {}

    def number(self, event_type: str) -> int:
        """The index of the type's lane among the names.

        Raises:
            ValueError: `lane_of` returned a value that is not a lane.
            Exception: Any exception of `lane_of`, unchanged.
        """
        number = self._known.get(event_type)
        if number is None:
            number = self._numbers.get(event_type)
            if number is None:
                number = 0 if self._lane_of is None else self._ask(self._lane_of, event_type)
            if len(self._known) < _MOST_TYPES:
                self._known[event_type] = number
        return number

    def target(self, event_type: str) -> Any:
        """The target of the type's lane; raises as `number`."""
        target = self._targets[self.number(event_type)]
        if len(self.routes) < _MOST_TYPES:
            self.routes[event_type] = target
        return target

    def _ask(self, lane_of: Callable[[str], str | None], event_type: str) -> int:
        name = lane_of(event_type)
        if name is None or name == DEFAULT_LANE:
            return 0
        number = self._numbers.get(name) if isinstance(name, str) else None
        if number is None:
            raise ValueError(
                f"lane_of returned {name!r} for the event type {event_type!r}: it must be one of "
                f"{', '.join(self._numbers)}, or None"
            )
        return number


class Sampler:
    """Decides which events to keep. Thread-safe if `key` is.

    Args:
        share: The share of events to keep, 0 to 1.
        key: Returns the sampling key of an Event: text, bytes or an int. Events with the same key are kept or left out
            together, in every process; a larger share keeps all keys of a smaller one. None, or a key that
            is None, decides at random.
        draw: A function like random.random.
    """

    def __init__(
        self, share: float, key: Callable[[Event], object] | None, draw: Callable[[], float] = random.random
    ) -> None:
        self._share = share
        self._key = key
        self._draw = draw

    def keeps(self, event_type: str, data: Any) -> bool:
        """Whether to keep an event.

        Raises:
            TypeError: The key has an unsupported type.
            Exception: Any exception of `key`, unchanged.
        """
        key = None if self._key is None else self._key(Event(event_type, data))
        if key is None:
            return self._draw() < self._share
        if isinstance(key, int):
            key = str(int(key))
        if isinstance(key, str):
            key = key.encode("utf-8", "surrogatepass")
        if not isinstance(key, bytes):
            raise TypeError(f"sample_key must return text, bytes, an int or None, not {type(key).__name__}")
        digest = hashlib.blake2b(key, digest_size=7).digest()
        return int.from_bytes(digest, "big") < self._share * (1 << 56)


def lanes_from_text(text: str) -> dict[str, Lane]:
    """Parses lanes by name from a JSON object of their options.

    Raises:
        ValueError: The text is invalid; the message continues a sentence that starts with the option's name.
    """
    wanted = 'must be a JSON object such as {"page": {"priority": "low", "ttl": 30}}'
    try:
        found = json_codec.loads(text)
    except json_codec.JSONDecodeError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise ValueError(f"{wanted}, not {text!r:.80}")
    made = {}
    for name, options in found.items():
        for option in options:
            if option not in Lane.__dataclass_fields__ or option == "on_delivery":
                raise ValueError(f"names an unknown option of the lane {name!r}: {option!r}")
        try:
            made[name] = Lane(**options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"of the lane {name!r}: {error}") from None
    return made
