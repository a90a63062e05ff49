"""The base of Producer and AsyncProducer: accumulator, ledger and overflow policies."""

from __future__ import annotations

import abc
import functools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn

from raccoon_fast import forks
from raccoon_fast.callbacks import CallbackThread
from raccoon_fast.clients.options import refuse_pickling
from raccoon_fast.core._request import check_events, check_type, pair_of, place_error
from raccoon_fast.core.batch import Accumulator, Batch, Buffer, Router
from raccoon_fast.counts import Counts
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.engine import Engine, EngineSettings
from raccoon_fast.delivery.lanes import LaneQueue, Lanes
from raccoon_fast.delivery.ledger import DROPPED, FILTERED, OTHER_TYPES, SAMPLED, Ledger
from raccoon_fast.delivery.sender import Sender
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import BufferFull, ClientClosedError, SerializationError
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.logs import DEFAULT, resolve_logger
from raccoon_fast.producers.before_send import BeforeSend
from raccoon_fast.producers.dropping import Dropping
from raccoon_fast.producers.encoded_rows import EncodedRows
from raccoon_fast.producers.environment import Environment, unknown_variables
from raccoon_fast.producers.lanes import LaneOptions, LaneTable, Sampler, resolve_lanes
from raccoon_fast.producers.meter import ProducerMeter
from raccoon_fast.producers.pool import Pool
from raccoon_fast.producers.reports import Health, Report, ServerHealth
from raccoon_fast.producers.table_steps import Step, one_slice
from raccoon_fast.serializers import Data_contra
from raccoon_fast.spool.store import Spool
from raccoon_fast.spool.worker import Spooling
from raccoon_fast.tables.options import table_reader
from raccoon_fast.texts import counted
from raccoon_fast.transports.null import NULL_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import Self

    from raccoon_fast.events import Event
    from raccoon_fast.producers.lanes import Lane
    from raccoon_fast.producers.options import ProducerOptions
    from raccoon_fast.spool.worker import News
    from raccoon_fast.tables.columns import Columns

__all__ = ["BaseProducer", "is_replaced", "place"]

# Threads that wait for room are woken when this share of the buffer is free, not for each batch: a wake-up costs about
# as much as a batch.
_WORTH_WAKING = 1 / 8
#: Added to the timeout of `close`, for the disk to store the remainder.
DISK_MARGIN_S = 5.0
_LEFT_OUT = {FILTERED: "filtered by before_send", SAMPLED: "left out by the lane's sample"}


class Policy(NamedTuple):
    """The user's options for events before they are sent; see Producer."""

    before_send: Callable[[Event], Event | tuple[str, Any] | None] | None
    lanes: Mapping[str, Lane] | None
    lane_of: Callable[[str], str | None] | None
    sample_key: Callable[[Event], object] | None
    on_delivery: Callable[[Any], object] | None


class BaseProducer(abc.ABC, Generic[Data_contra]):
    """See Producer."""

    def __init__(self, options: ProducerOptions, policy: Policy) -> None:
        self._options = options
        self._before_send = None if policy.before_send is None else BeforeSend(policy.before_send)
        self._lanes = resolve_lanes(policy.lanes, options, policy.on_delivery)
        self._ledger = Ledger(options.max_types)
        self._tracing = options.settings.tracing
        self._pool = Pool(options)
        self._engine: Engine | None = None
        self._sender = Sender(options.settings.stats)
        self._made_s = self._settled_s = time.monotonic()
        self._settled = 0
        self._waited = False
        self._closed = False
        self._left_out: dict[str, Any] = {}
        self._spool: Spool | None = None
        if options.spool is not None:
            self._spool = Spool(options.spool, max_bytes=options.spool_bytes, logger=options.settings.logger)
        self._disk = self._new_disk_thread()
        buffer = Buffer(options.buffer_bytes)
        self._accumulators = [self._new_accumulator(number, lane, buffer) for number, lane in enumerate(self._lanes)]
        self._dropping = self._new_dropping()
        self._low_bytes = [int(lane.buffer_bytes * (1 - _WORTH_WAKING)) for lane in self._lanes]
        # The default lane, usually the only one.
        self._accumulator = self._accumulators[0]
        if policy.sample_key is not None and not callable(policy.sample_key):
            raise TypeError(f"sample_key takes a callable of an event, not {policy.sample_key!r}")
        self._has_sample_key = policy.sample_key is not None
        self._samplers = [None if lane.sample == 1 else Sampler(lane.sample, policy.sample_key) for lane in self._lanes]
        targets = [
            accumulator if sampler is None else functools.partial(self._emit_sampled, accumulator, sampler)
            for accumulator, sampler in zip(self._accumulators, self._samplers, strict=True)
        ]
        self._table = LaneTable([lane.name for lane in self._lanes], targets, policy.lane_of)
        # Accepts the events: the only accumulator, or a router to the lanes.
        self._entry = self._accumulator if len(self._lanes) == 1 else Router(self._table.routes, self._table.target)
        self._meter = ProducerMeter(self)
        lifetime.made(self)

    def __repr__(self) -> str:
        if "_accumulator" not in self.__dict__:
            return f"<{type(self).__name__} not made>"  # its options were refused
        servers = ", ".join(str(settings.link.address) for _, settings in self._options.servers)
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
        """Create a producer from environment variables.

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
        | ENABLED | `enabled`: 0 sends nothing, and needs no URL |
        | LANES | `lanes`: a JSON object such as {"page": {"priority": "low", "ttl": 30}} |
        | PROPAGATE, SPANS | `propagate`, `spans` (OpenTelemetry): as DURABLE |
        | STATSD_HOST, STATSD_PORT, STATSD_PREFIX, STATSD_TAGS | `stats=StatsD(…)`; tags are key:value,key:value |

        An empty variable counts as not set. An unknown variable that starts with RACCOON_FAST_ is logged as a
        warning.

        Args:
            **options: The options of the class; they override the environment.

        Raises:
            TypeError, ValueError: An option is invalid, or there is no url; the message names the
                variable.
        """
        environment = Environment(options)
        for line in unknown_variables():
            resolve_logger(options.get("logger", DEFAULT)).warning(line)
        options = {**environment.options, **options}
        if not options.get("enabled", True):
            options.setdefault("url", NULL_URL)
        if "url" not in options:
            raise ValueError("RACCOON_FAST_URL is not set, and no url is given: set one of them")
        with environment.blamed():
            return cls(**options)

    def stats(self) -> Report:
        """The outcome of every event so far. Thread-safe.

        `accepted` is the sum of all other counts at every moment, in total and for each type.
        """
        forks.check()
        self._finish_dropping()
        return self._ledger.consistent(self._read)

    def _read(self) -> Report:
        waiting: Counter[str] = Counter()
        for accumulator in self._accumulators:
            waiting.update(accumulator.waiting_types())
        seen = self._ledger.seen()
        total = self._ledger.total(sum(waiting.values()), seen)
        return Report(
            total=total,
            by_type=self._ledger.by_type(waiting, seen),
            retries=self._engine.retries if self._engine is not None else 0,
            server_acks=self._options.server_acks,
            seconds=time.monotonic() - self._made_s,
            by_lane=self._by_lane(total, waiting, seen),
        )

    def _total(self) -> Counts:
        """Like `stats().total`, at a cost that does not depend on the number of types or of waiting batches."""
        return self._ledger.consistent(self._read_total)

    def _read_total(self) -> Counts:
        waiting = 0
        for accumulator in self._accumulators:
            taken = accumulator.taken  # read first, because more may be taken meanwhile than there were
            waiting += max(0, accumulator.accepted - taken)
        return self._ledger.totals(waiting)

    def _by_lane(
        self, total: Counts, waiting: Mapping[str, int], seen: dict[str | None, dict[str, int]]
    ) -> dict[str, Counts]:
        if len(self._lanes) == 1:
            return {self._lanes[0].name: total}
        types: list[list[str]] = [[] for _ in self._lanes]
        for event_type in {*waiting, *seen}:
            if event_type is not None:  # which has all types together
                types[self._lane_of_type(event_type)].append(event_type)
        return {
            lane.name: self._ledger.total(
                sum(waiting.get(event_type, 0) for event_type in own),
                {event_type: seen[event_type] for event_type in own if event_type in seen},
            )
            for lane, own in zip(self._lanes, types, strict=True)
        }

    def _lane_of_type(self, event_type: str) -> int:
        """Like the table, but for types from elsewhere: only `emit` raises the errors of `lane_of`."""
        if event_type == OTHER_TYPES:  # which is no event's, so `lane_of` knows nothing of it
            return 0
        try:
            return self._table.number(event_type)
        except Exception:  # noqa: BLE001 - see above
            return 0

    @property
    def spool_owner(self) -> str:
        """The owner id under which this producer stores records, as shown by `spool ls`; "" before it opens a spool."""
        return "" if self._spool is None else self._spool.owner

    def health(self) -> Health:
        """Whether events get through. Thread-safe.

        If polled, it also reports that nothing was settled for longer than an attempt may take, for any cause: a
        blocked event loop cannot report a failure.
        """
        forks.check()
        engine = self._engine
        servers = [ServerHealth(*server) for server in engine.health()] if engine is not None else []
        reasons = []
        total = self._total()
        now_s = time.monotonic()
        if self._settled != (settled := total.accepted - total.unsettled) or not (self._waited and total.unsettled):
            self._settled, self._settled_s = settled, now_s
        self._waited = total.unsettled > 0  # events that came after this poll have not waited since
        if now_s - self._settled_s > self._options.stall_s:
            waiting = counted(total.unsettled, "event")
            reasons.append(f"nothing was settled for {now_s - self._settled_s:.0f} s, with {waiting} waiting")
        if self._closed:
            reasons.append("the producer is closed")
        if trouble := self._loop_trouble():
            reasons.append(trouble)
        if servers and not any(server.ok for server in servers):
            reasons.append(f"no server is healthy: {servers[0].last_error}")
        if engine is not None and (late := engine.late_reason(total.unsettled, now_s)):
            reasons.append(late)
        for lane, accumulator in zip(self._lanes, self._accumulators, strict=True):
            # The buffer of a lane that drops may be full by design.
            if accumulator is not self._accumulator and lane.overflow.startswith("drop"):
                continue
            if accumulator.buffered > 0.9 * lane.buffer_bytes:
                of_lane = f" of the lane {lane.name!r}" if accumulator is not self._accumulator else ""
                reasons.append(f"the buffer{of_lane} is nearly full")
        return Health(not reasons, reasons, servers)

    @abc.abstractmethod
    def _batch_cost(self, lane: LaneOptions) -> int:
        """Bytes that a sealed batch of a lane takes beside its events: objects, receipt and callback."""

    @abc.abstractmethod
    def _new_batch(self, req_guid: str | None = None, lane: int = 0) -> Batch:
        """A new batch of a lane with its receipt, under this guid or a new one."""

    @abc.abstractmethod
    def _loop_trouble(self) -> str:
        """Why the event loop does not run, or ""; restarts the loop if possible."""

    @abc.abstractmethod
    def _wait_for_room(self, size: int, lane: int) -> Any: ...

    @abc.abstractmethod
    def _room_made(self) -> None: ...

    @abc.abstractmethod
    def _settled_receipt(self, response: Response) -> Any:
        """A receipt without a batch."""

    def _make_batch(self, lane: int) -> Batch:
        """Called for an event about to be accepted."""
        return self._new_batch(None, lane)

    def _new_accumulator(self, number: int, lane: LaneOptions, buffer: Buffer) -> Accumulator:
        options = self._options
        accumulator = Accumulator(
            functools.partial(self._make_batch, number),
            serializer=options.serializer,
            wire=options.wire,
            max_events=lane.batch_events,
            max_bytes=lane.batch_bytes,
            max_event_bytes=lane.max_event_bytes,
            buffer_bytes=lane.buffer_bytes,
            batch_cost=self._batch_cost(lane),
            buffer=buffer,
            rescue=options.rescue,
        )
        accumulator.on_full = functools.partial(self._make_room, number)
        return accumulator

    # Events that are not sent

    def _kept(self, event_type: str, data: Any) -> tuple[str, Any] | None:
        """The result of `before_send` for an event; None if it leaves out the event, which is counted."""
        assert self._before_send is not None
        self._require_open()
        kept = self._before_send(event_type, data)
        if kept is None:
            self._ledger.add({event_type: 1}, FILTERED)
        return kept

    def _emit_sampled(
        self, accumulator: Accumulator, sampler: Sampler, event_type: str, data: Any, index: int | None
    ) -> Any:
        if sampler.keeps(event_type, data):
            try:
                return accumulator.emit(event_type, data)
            except SerializationError as error:
                place(error, index)
                raise
        check_type(event_type)
        self._require_open()
        self._ledger.add({event_type: 1}, SAMPLED)
        return self._left_out_receipt(SAMPLED)

    def _left_out_receipt(self, state: str) -> Any:
        """The receipt shared by all events that were left out in this way."""
        receipt = self._left_out.get(state)
        if receipt is None:
            response = Response(Status.UNSPECIFIED, Code.UNSPECIFIED, reason=_LEFT_OUT[state])
            receipt = self._left_out[state] = self._settled_receipt(response)
        return receipt

    def _require_open(self) -> None:
        if not forks.PAGE[0]:
            forks.check()
        if self._closed:
            raise self._closed_error()

    def _filled_batch(
        self, events: Iterable[tuple[str, Any]], req_guid: str | None
    ) -> tuple[Batch | None, int, dict[str, Counter[str]]]:
        """A batch of these events that is not accepted yet, its lane, and the types of events left out, by state.

        The batch is None if all events are left out.
        """
        check_events(events)
        lane = 0
        left_out: dict[str, Counter[str]] = {}
        positions: list[int] | None = None  # None if no event is left out
        if self._before_send is not None or len(self._lanes) > 1:
            self._require_open()
            chosen = [*self._chosen(events, left_out)]
            if not chosen and left_out:
                return None, 0, left_out
            lane = self._lane_of_types(dict.fromkeys(event_type for _, (event_type, _) in chosen))
            positions = [index for index, _ in chosen]
            events = [pair for _, pair in chosen]
            if self._options.serializer is not None:
                events = self._serialized(chosen)
        elif self._options.serializer is not None:
            events = self._serialized((index, pair_of(index, event)) for index, event in enumerate(events))
        batch = self._new_batch(req_guid, lane)
        try:
            if isinstance(events, EncodedRows):
                events.add_to(batch)
            elif positions is None:
                batch.add_many(events)
            else:
                for index, event in zip(positions, events, strict=True):
                    try:
                        batch.add(*event)
                    except (TypeError, ValueError) as error:  # noqa: PERF203 - its index is known here
                        place_error(error, index)
                        raise
            if not batch.count:
                raise ValueError("events is empty: a batch needs at least one event")
        except BaseException:
            self._recycle(batch)
            raise
        batch.accepted_s = time.monotonic()
        return batch, lane, left_out

    def _chosen(
        self, events: Iterable[tuple[str, Any]], left_out: dict[str, Counter[str]]
    ) -> Iterator[tuple[int, tuple[str, Any]]]:
        for index, event in enumerate(events):
            event_type, data = pair_of(index, event)
            kept = (event_type, data) if self._before_send is None else self._before_send(event_type, data)
            state = FILTERED
            if kept is not None:
                sampler = self._samplers[self._table.number(kept[0])]
                if sampler is None or sampler.keeps(*kept):
                    yield index, kept
                    continue
                event_type, state = kept[0], SAMPLED
                check_type(event_type)
            left_out.setdefault(state, Counter())[event_type] += 1

    def _serialized(self, events: Iterable[tuple[int, tuple[str, Any]]]) -> Iterator[tuple[str, bytes]]:
        serializer, rescue = self._options.serializer, self._options.rescue
        for index, (event_type, data) in events:
            try:
                encoded = serializer(data)
            except TypeError:
                if rescue is None:
                    raise
                encoded = rescue(data, event_type, index)
            yield event_type, encoded

    def _table_steps(self, table: Any, columns: Columns, most_rows: int) -> Iterator[Step | Any]:
        """Yield a table's events by accumulator, or the receipt of an event that is left out and counted."""
        self._require_open()
        row = 0
        for batch in table_reader(table, columns):
            if self._before_send is not None or any(self._samplers):
                yield from self._row_steps(columns, batch, row)
            else:
                for part in columns.parts(batch, row, most_rows):
                    yield Step(self._entry, *part)
            row += batch.num_rows

    def _row_steps(self, columns: Columns, batch: Any, first_row: int) -> Iterator[Step | Any]:
        """Like `_table_steps`, for events that are checked one by one."""
        has_data = self._before_send is not None or self._has_sample_key
        for row, event_type, data, encoded in columns.rows(batch, first_row, has_data=has_data):
            kept = event_type, data
            if self._before_send is not None:
                returned = self._kept(event_type, data)
                if returned is None:
                    yield self._left_out_receipt(FILTERED)
                    continue
                kept = returned
                encoded = columns.encode(*kept, row)  # the hook may have changed the data in place
            number = self._table.number(kept[0])
            sampler = self._samplers[number]
            if sampler is not None and not sampler.keeps(*kept):
                check_type(kept[0])
                self._require_open()
                self._ledger.add({kept[0]: 1}, SAMPLED)
                yield self._left_out_receipt(SAMPLED)
                continue
            yield Step(self._accumulators[number], kept[0], one_slice(encoded), row)

    def _lane_of_types(self, types: Iterable[str]) -> int:
        """The lane of a batch of several types: the one with the highest priority."""
        lanes = {self._lane_of_type(event_type): None for event_type in types}
        return min(lanes, key=lambda lane: self._lanes[lane].rank, default=0)

    def _count_left_out(self, left_out: Mapping[str, Mapping[str, int]]) -> None:
        for state, types in left_out.items():
            self._ledger.add(types, state)

    def _new_engine(self, *, threadsafe: bool) -> Engine:
        """Called on the event loop that will own it."""
        options = self._options
        settings = EngineSettings(
            wire=options.wire,
            delivery_timeout_s=options.delivery_timeout_s,
            first_in_flight=options.first_in_flight * options.connections,
            most_in_flight=options.most_in_flight,
            most_bytes_in_flight=options.buffer_bytes // 4,
            connections=options.connections,
            policy=options.retry,
            batch_bytes=options.batch_bytes,
            threadsafe=threadsafe,
        )
        engine = Engine(
            settings,
            Lanes(
                [
                    LaneQueue(
                        accumulator,
                        rank=lane.rank,
                        linger_s=lane.linger_s,
                        delivery_timeout_s=options.delivery_timeout_s,
                        ttl_s=lane.ttl_s,
                        is_durable=lane.durable,
                    )
                    for lane, accumulator in zip(self._lanes, self._accumulators, strict=True)
                ]
            ),
            self._ledger,
            options.open_endpoints(),
            self._sender,
            self._recycle,
            self._adopted_batch,
            None if self._spool is None else self._open_spooling,
            options.settings.logger,
        )
        self._tell(engine.batch_opened, engine.batch_sealed)
        engine.sizes = self._meter.sizes
        self._meter.begin()
        return engine

    def _adopted_batch(self, types: Mapping[str, int]) -> Batch:
        """A batch with a settlement for a spool record of an earlier process, in the lane of these event types."""
        lane = self._lane_of_types(types)
        batch = self._new_batch(None, lane)
        if batch.settlement is None:
            batch.settlement = Settlement(batch.receipt, lane=lane)
        return batch

    def _tell(self, on_open: Callable[..., object], on_sealed: Callable[[], object]) -> None:
        """Set the accumulators' callbacks; outside the default lane `on_open` also gets the lane's number."""
        for lane, accumulator in enumerate(self._accumulators):
            accumulator.on_open = functools.partial(on_open, lane=lane) if lane else on_open
            accumulator.on_sealed = on_sealed

    def _new_disk_thread(self) -> CallbackThread:
        return CallbackThread(self._options.settings.logger, "raccoon_fast-spool", blocks=True)

    def _open_spooling(self, turned: Callable[[News], None]) -> Spooling:
        assert self._spool is not None
        return Spooling(self._spool, self._disk, turned, self._options.settings.logger)

    @property
    def _has_spooled(self) -> bool:
        """Whether an earlier process may have left events to send."""
        return self._spool is not None and self._spool.path.exists()

    def _empty_batch(self) -> Batch:
        batch = self._pool.take()
        # Valid until `batch_opened` is called: another thread may fill the batch, and the loop take it, before that.
        batch.accepted_s = time.monotonic()
        return batch

    def _recycle(self, *batches: Batch) -> None:
        has_room = False
        for batch in batches:  # before the pool has them: another thread may take one from there
            lane = batch.settlement.lane if batch.settlement is not None else 0
            has_room = has_room or self._accumulators[lane].buffered <= self._low_bytes[lane]
        # After `close` no batch is needed, and the spool's thread may still read one for which `close` did not wait.
        if not self._closed:
            self._pool.give(batches)
        if has_room:
            self._room_made()

    def _after_fork(self) -> None:
        """In the child: start afresh. The parent's loop does not run here, and the parent sends its own events.

        Without a GIL, an object that the parent's threads were changing may stay locked here: it is replaced, not used.
        """
        lifetime.inherit(self._engine)  # the parent shares the descriptors of its loop
        self._engine = None
        self._ledger = Ledger(self._options.max_types)
        self._waited = False
        self._pool = Pool(self._options)
        self._dropping = self._new_dropping()
        if self._spool is not None:
            self._spool.after_fork()
        self._disk = self._new_disk_thread()
        self._sender.forget()
        self._meter.forget()
        self._made_s = time.monotonic()
        self._left_out = {}
        for accumulator in self._accumulators:
            accumulator.reset()

    # Overflow; called by `emit` in its thread when an event does not fit. True: it may fit now, try again.

    def _make_room(self, lane: int, types: Mapping[str, int], size: int) -> Any:
        policy, accumulator = self._lanes[lane].overflow, self._accumulators[lane]
        if policy != "drop_oldest" and not accumulator.sealed:
            accumulator.seal()  # it may be the open batch that takes the room, and its linger may be long
        if policy == "raise":
            raise self._full(lane)
        if policy == "drop_oldest" and self._dropping[lane].drop():
            if self._engine is not None:
                self._engine.batch_sealed()  # a flush may wait for the dropped events
            return True
        if policy in ("drop_newest", "drop_oldest"):
            self._ledger.add(types, DROPPED + policy)
            return self._dropped_receipt
        self._spill(lane)
        return self._wait_for_room(size, lane)

    def _spill(self, lane: int) -> None:
        if self._lanes[lane].overflow == "spool" and self._engine is not None:
            self._engine.spill(lane)

    def _new_dropping(self) -> list[Dropping]:
        """One per lane."""
        return [Dropping(accumulator, self._ledger, self._recycle) for accumulator in self._accumulators]

    def _finish_dropping(self) -> None:
        for dropping in self._dropping:
            dropping.finish()

    def _full(self, lane: int) -> BufferFull:
        buffered, limit = self._accumulators[lane].buffered, self._lanes[lane].buffer_bytes
        of_lane = f" of the lane {self._lanes[lane].name!r}" if len(self._lanes) > 1 else ""
        return BufferFull(
            f"the buffer{of_lane} is full: {buffered} of {limit} bytes are in use; emit less, raise "
            "buffer_bytes, or let overflow= drop or spool events",
            buffered=buffered,
            limit=limit,
        )

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError("the producer was closed")

    @property
    @abc.abstractmethod
    def _dropped_receipt(self) -> Any: ...


def place(error: SerializationError, index: int | None) -> None:
    """Add an event's position among several to the error that it raised."""
    if index is not None and error.index is None:
        error.index = index
        error.args = (str(error).replace("event of type", f"events[{index}] of type", 1),)


def is_replaced(producer: BaseProducer[Any], original: Callable[..., object]) -> bool:
    """Whether a subclass, a mock or a wrapper has replaced the original method."""
    return getattr(type(producer), original.__name__) is not original
