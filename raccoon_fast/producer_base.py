"""What Producer and AsyncProducer have in common: the accumulator, the ledger, and what overflow drops."""

from __future__ import annotations

import abc
import contextlib
import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn

from raccoon_fast import forks
from raccoon_fast.clients.options import refuse_pickling
from raccoon_fast.core._request import check_events, pair_of
from raccoon_fast.core.batch import Accumulator, Batch
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.callbacks import CallbackThread
from raccoon_fast.delivery.engine import Engine, EngineSettings
from raccoon_fast.delivery.ledger import DROPPED, Counts, Ledger
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.delivery.spool import Spool
from raccoon_fast.delivery.spooling import Spooling
from raccoon_fast.environment import Environment, unknown_variables
from raccoon_fast.errors import BufferFull, ClientClosedError, DroppedError
from raccoon_fast.logs import DEFAULT, resolve_logger
from raccoon_fast.producer_meter import ProducerMeter
from raccoon_fast.serializers import Data_contra
from raccoon_fast.texts import counted
from raccoon_fast.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from raccoon_fast.delivery.spooling import News
    from raccoon_fast.producer_options import ProducerOptions

__all__ = ["BaseProducer", "Health", "Report", "ServerHealth", "is_replaced"]

# A batch is more than its events.
_BATCH_BYTES = 2048
_MOST_POOLED_BYTES = 8 << 20
# Who waits for room is woken when so much of the buffer is free, not for each batch: a wake-up costs about as much as
# a batch does.
_WORTH_WAKING = 1 / 8


class ServerHealth(NamedTuple):
    """One server: its address, whether it is well, and what it failed with last ("" if it is well)."""

    address: str
    ok: bool
    last_error: str


class Health(NamedTuple):
    """For a readiness probe: `ok`, why not, and each server."""

    ok: bool
    reasons: list[str]
    servers: list[ServerHealth]


@dataclass(frozen=True)
class Report:
    """What became of every event, when the producer was closed or asked.

    Attributes:
        total: Counts of all events.
        by_type: Counts of each event type; of those beyond `max_types` under "(other types)".
        retries: Attempts beyond the first of a batch.
        server_acks: What an acknowledgement means on this server, as the producer was told: "received" or "published".
        seconds: Since the producer was made.
    """

    total: Counts
    by_type: dict[str, Counts]
    retries: int
    server_acks: str
    seconds: float


class BaseProducer(abc.ABC, Generic[Data_contra]):
    """See Producer."""

    def __init__(self, options: ProducerOptions) -> None:
        self._options = options
        self._ledger = Ledger(options.max_types)
        self._pool: deque[Batch] = deque()
        # A new batch has room for a little more than what this one came to, and does not grow to it step by step.
        self._last_made = Batch(options.wire)
        self._pool_bytes = min(options.buffer_bytes // 8, _MOST_POOLED_BYTES)
        # Batches that `overflow` gave up: not counted yet, and not settled yet.
        self._dropping: deque[Batch] = deque()
        self._dropped_batches: deque[Batch] = deque()
        self._low_bytes = int(options.buffer_bytes * (1 - _WORTH_WAKING))
        self._engine: Engine | None = None
        self._sender = Sender(options.settings.stats)
        self._made_s = self._settled_s = time.monotonic()
        self._settled = 0
        self._closed = False
        self._spool: Spool | None = None
        if options.spool is not None:
            self._spool = Spool(options.spool, max_bytes=options.spool_bytes, logger=options.settings.logger)
        self._disk = self._new_disk_thread()
        self._accumulator = Accumulator(
            self._make_batch,
            serializer=options.serializer,
            wire=options.wire,
            max_events=options.batch_events,
            max_bytes=options.batch_bytes,
            max_event_bytes=options.max_event_bytes,
            buffer_bytes=options.buffer_bytes,
            batch_cost=self._batch_cost,
        )
        self._accumulator.on_full = self._make_room
        self._meter = ProducerMeter(self)
        lifetime.made(self)

    def __repr__(self) -> str:
        if "_accumulator" not in self.__dict__:
            return f"<{type(self).__name__} not made>"  # its options were refused
        servers = ", ".join(settings.link.address.shown for _, settings in self._options.servers)
        total = self.stats().total
        state = "closed" if self._closed else "open"
        counts = (
            f"{total.accepted} accepted, {total.acked} acknowledged, {total.lost} lost, {total.unsettled} unsettled"
        )
        return f"<{type(self).__name__} {servers} {state}: {counts}>"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """Make a producer of environment variables.

        | variable, after RACCOON_FAST_ | option |
        | --- | --- |
        | URL | `url`; several are separated by commas |
        | USER_ID, GROUP, ID_HEADER, GROUP_HEADER | `user_id` … |
        | TLS_CA, TLS_CERT, TLS_KEY | `tls=TLS(ca=…, cert=…, key=…)`: paths of PEM files |
        | TLS_PASSWORD | the password of an encrypted key |
        | PROXY, SERVER_HOSTNAME | `proxy`, `server_hostname` |
        | AUTH_TOKEN | `auth`: a bearer token |
        | TIMEOUT, CONNECT_TIMEOUT | `timeout` …: seconds |
        | WIRE | `wire`: proto or json |
        | LINGER, BATCH_EVENTS, BATCH_BYTES, MAX_IN_FLIGHT, CONNECTIONS | `linger` … |
        | BUFFER_BYTES, OVERFLOW, BLOCK_TIMEOUT | `buffer_bytes` … |
        | DELIVERY_TIMEOUT, SERVER_ACKS, MAX_TYPES | `delivery_timeout` … |
        | SPOOL, SPOOL_BYTES, DURABLE | `spool` …; DURABLE is 1 or 0, true or false, yes or no, on or off |
        | STATSD_HOST, STATSD_PORT, STATSD_PREFIX, STATSD_TAGS | `stats=StatsD(…)`; tags are key:value,key:value |

        A variable that is set to nothing is not set. One that begins with RACCOON_FAST_ and is not known is logged as a
        warning.

        Args:
            **options: As the class takes them; they go before the environment's.

        Raises:
            TypeError, ValueError: An option is not what it should be, or there is no url; the message names the
                variable.
        """
        environment = Environment(options)
        for line in unknown_variables():
            resolve_logger(options.get("logger", DEFAULT)).warning(line)
        options = {**environment.options, **options}
        if "url" not in options:
            raise ValueError("RACCOON_FAST_URL is not set, and no url is given: name the server")
        with environment.blamed():
            return cls(**options)

    def stats(self) -> Report:
        """What became of every event so far; safe from any thread.

        `accepted` is the sum of all other counts at every moment, in total and for each type.
        """
        forks.check()
        self._finish_dropping()
        return self._ledger.consistent(self._read)

    def _read(self) -> Report:
        waiting = self._accumulator.waiting_types()
        seen = self._ledger.seen()
        return Report(
            total=self._ledger.total(sum(waiting.values()), seen),
            by_type=self._ledger.by_type(waiting, seen),
            retries=self._engine.retries if self._engine is not None else 0,
            server_acks=self._options.server_acks,
            seconds=time.monotonic() - self._made_s,
        )

    def _total(self) -> Counts:
        """As `stats().total`, at a cost that depends neither on how many types there are nor on how much waits."""
        return self._ledger.consistent(self._read_total)

    def _read_total(self) -> Counts:
        taken = self._accumulator.taken  # first, for more may be taken meanwhile than there were
        return self._ledger.totals(max(0, self._accumulator.accepted - taken))

    @property
    def spool_owner(self) -> str:
        """Whose its records in the spool are, as `raccoon-fast spool ls` names it; "" while it has not opened one."""
        return "" if self._spool is None else self._spool.owner

    def health(self) -> Health:
        """Whether events get through, for a readiness probe; safe from any thread.

        Asked again and again, it also tells when nothing has moved for longer than an attempt may take, whatever the
        cause: an event loop that is blocked knows of no failure.
        """
        forks.check()
        engine = self._engine
        servers = [ServerHealth(*server) for server in engine.health()] if engine is not None else []
        reasons = []
        total = self._total()
        now_s = time.monotonic()
        if self._settled != (settled := total.accepted - total.unsettled) or not total.unsettled:
            self._settled, self._settled_s = settled, now_s
        if now_s - self._settled_s > self._options.stall_s:
            waiting = counted(total.unsettled, "event")
            reasons.append(f"nothing was settled for {now_s - self._settled_s:.0f} s, with {waiting} waiting")
        if self._closed:
            reasons.append("the producer is closed")
        if trouble := self._loop_trouble():
            reasons.append(trouble)
        if servers and not any(server.ok for server in servers):
            reasons.append(f"no server is well: {servers[0].last_error}")
        if engine is not None and (late := engine.late_reason(total.unsettled, now_s)):
            reasons.append(late)
        if self._accumulator.buffered > 0.9 * self._options.buffer_bytes:
            reasons.append("the buffer is nearly full")
        return Health(not reasons, reasons, servers)

    @property
    @abc.abstractmethod
    def _batch_cost(self) -> int:
        """Bytes of memory that a sealed batch takes beside its events: its objects, its receipt, its callback."""

    @abc.abstractmethod
    def _new_batch(self, req_guid: str | None = None) -> Batch:
        """A batch with a receipt of its own, under this guid or a fresh one."""

    @abc.abstractmethod
    def _loop_trouble(self) -> str:
        """Why the event loop does not run, or ""; where it can be started anew, it is."""

    @abc.abstractmethod
    def _wait_for_room(self, size: int) -> Any: ...

    @abc.abstractmethod
    def _room_made(self) -> None: ...

    def _make_batch(self) -> Batch:
        """For an event about to be accepted."""
        return self._new_batch()

    def _filled_batch(self, events: Iterable[tuple[str, Any]], req_guid: str | None) -> Batch:
        """A batch of these events, not accepted yet."""
        check_events(events)
        serializer = self._options.serializer
        if serializer is not None:
            pairs = itertools.starmap(pair_of, enumerate(events))
            events = ((event_type, serializer(data)) for event_type, data in pairs)
        batch = self._new_batch(req_guid)
        try:
            batch.add_many(events)
            if not batch.count:
                raise ValueError("events is empty: a batch needs at least one event")
        except BaseException:
            self._recycle(batch)
            raise
        batch.accepted_s = time.monotonic()
        return batch

    def _new_engine(self, *, threadsafe: bool) -> Engine:
        """On the event loop that is to own it."""
        options = self._options
        settings = EngineSettings(
            wire=options.wire,
            linger_s=options.linger_s,
            delivery_timeout_s=options.delivery_timeout_s,
            first_in_flight=options.first_in_flight * options.connections,
            most_in_flight=options.most_in_flight,
            most_bytes_in_flight=options.buffer_bytes // 4,
            connections=options.connections,
            policy=options.retry,
            batch_bytes=options.batch_bytes,
            durable=options.durable,
            threadsafe=threadsafe,
        )
        engine = Engine(
            settings,
            self._accumulator,
            self._ledger,
            options.open_endpoints(),
            self._sender,
            self._recycle,
            self._new_batch,
            None if self._spool is None else self._open_spooling,
            options.settings.logger,
        )
        self._accumulator.on_open = engine.batch_opened
        self._accumulator.on_sealed = engine.batch_sealed
        engine.sizes = self._meter.sizes
        self._meter.begin()
        return engine

    def _new_disk_thread(self) -> CallbackThread:
        return CallbackThread(self._options.settings.logger, "raccoon_fast-spool", blocks=True)

    def _open_spooling(self, turned: Callable[[News], None]) -> Spooling:
        assert self._spool is not None
        return Spooling(self._spool, self._disk, turned, self._options.settings.logger)

    @property
    def _has_spooled(self) -> bool:
        """Whether an earlier process may have left something to send."""
        return self._spool is not None and self._spool.path.exists()

    def _empty_batch(self) -> Batch:
        try:
            batch = self._pool.pop()
        except IndexError:
            usual_bytes = self._last_made.nbytes or 4096
            batch = Batch(self._options.wire, min(usual_bytes * 9 // 8, self._options.batch_bytes))
        self._last_made = batch
        return batch

    def _recycle(self, batch: Batch) -> None:
        # Some is kept for the next batches: fresh memory costs a page fault for every 4 kB. Lean ones would keep the
        # memory around them from being given back.
        pooled_bytes = (len(self._pool) + 1) * (batch.cost + _BATCH_BYTES)
        if pooled_bytes <= self._pool_bytes and not (batch.is_lean or batch.envelope.exported):
            batch.clear()
            self._pool.append(batch)
        if self._accumulator.buffered <= self._low_bytes:
            self._room_made()

    def _after_fork(self) -> None:
        """In the child: begin anew. The parent's loop does not run here, and its events are not ours to send."""
        lifetime.inherit(self._engine)  # its loop's descriptors are the parent's too
        self._engine = None
        self._ledger = Ledger(self._options.max_types)
        self._pool.clear()
        self._last_made = Batch(self._options.wire)
        self._dropping.clear()
        self._dropped_batches.clear()
        if self._spool is not None:
            self._spool.after_fork()
        self._disk = self._new_disk_thread()
        self._sender.forget()
        self._meter.forget()
        self._made_s = time.monotonic()
        self._accumulator.reset()

    # Overflow; called by `emit` in its thread when something does not fit. True: it may fit now, look again.

    def _make_room(self, types: Mapping[str, int], size: int) -> Any:
        policy = self._options.overflow
        if policy == "raise":
            raise self._full()
        if policy == "drop_oldest" and self._drop_oldest():
            return True
        if policy in ("drop_newest", "drop_oldest"):
            self._ledger.add(types, DROPPED + policy)
            return self._dropped_receipt
        self._spill()
        return self._wait_for_room(size)

    def _spill(self) -> None:
        if self._options.overflow == "spool" and self._engine is not None:
            self._engine.spill()

    def _drop_oldest(self) -> bool:
        """Give up the batch that waits longest; False if all there is is in flight."""
        accumulator = self._accumulator
        while True:
            with self._ledger.change():
                before = accumulator.taken
                at_once(map(deque.append, (self._dropping,), iter(accumulator.take, None)))  # one
                has_dropped = self._count_dropped()
            if has_dropped or accumulator.taken != before:  # or another thread has
                break
            if not accumulator.seal():
                return False
        self._settle_dropped()
        if self._engine is not None:
            self._engine.batch_sealed()  # a flush may wait for what was dropped
        return True

    # A Ctrl-C may come between any two steps: a batch is in one deque or the other, and the next call goes on with it.

    def _count_dropped(self) -> bool:
        has_dropped = False
        while self._dropping:
            with contextlib.suppress(IndexError, ValueError):  # another thread counts it
                batch = self._dropping[0]
                at_once(
                    map(deque.remove, (self._dropping,), (batch,)),
                    map(deque.append, (self._dropped_batches,), (batch,)),
                    self._ledger.adding(batch.types, DROPPED + "drop_oldest"),
                )
                has_dropped = True
        self._ledger.make_moves()
        return has_dropped

    def _finish_dropping(self) -> None:
        """Go on where an exception of a signal handler ended `emit`."""
        if self._dropping or self._dropped_batches:
            self._count_dropped()
            self._settle_dropped()

    def _settle_dropped(self) -> None:
        mine: deque[Batch] = deque()
        try:
            # Not the loop first: an interrupt at its end is raised where it begins, and so outside of the `try`.
            dropped = self._dropped_batches
            while dropped or mine:
                if not mine:
                    with contextlib.suppress(IndexError):  # another thread took it
                        at_once(map(deque.append, (mine,), map(deque.popleft, (dropped,))))
                    continue
                batch = mine[0]
                if not batch.receipt.done():
                    error = DroppedError(
                        "dropped to make room for newer events: the buffer was full", req_guid=batch.receipt.req_guid
                    )
                    (batch.settlement or Settlement(batch.receipt)).abandoned(error)
                at_once(map(mine.remove, (batch,)), map(self._accumulator.release, (batch.cost,)))
                self._recycle(batch)
        finally:
            self._dropped_batches.extend(mine)

    def _full(self) -> BufferFull:
        buffered, limit = self._accumulator.buffered, self._options.buffer_bytes
        return BufferFull(
            f"the buffer is full: {buffered} of {limit} bytes wait or are in flight; emit less, raise buffer_bytes, or "
            "let overflow= drop or spool events",
            buffered=buffered,
            limit=limit,
        )

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError("the producer was closed")

    @property
    @abc.abstractmethod
    def _dropped_receipt(self) -> Any: ...


def is_replaced(producer: BaseProducer[Any], original: Callable[..., object]) -> bool:
    """Whether a subclass, a mock or a wrapper has put something in the place of a method as it is written."""
    return getattr(type(producer), original.__name__) is not original
