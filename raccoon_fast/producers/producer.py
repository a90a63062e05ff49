"""Producer: accepts events one by one or in bulk, sends them in batches, and counts the outcome of every event."""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import contextlib
import functools
import os
import sys
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from raccoon_fast import forks
from raccoon_fast.callbacks import CallbackThread
from raccoon_fast.clients.options import positive, whole
from raccoon_fast.clients.requests import resolve_guid
from raccoon_fast.core._request import check_events, pair_of
from raccoon_fast.core.slices import emit_slices
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.ack_streams import AckStream
from raccoon_fast.delivery.ledger import FAILED, FILTERED, MAX_TYPES
from raccoon_fast.delivery.loop_thread import HELD_UP, LoopThread
from raccoon_fast.delivery.promise import Promise
from raccoon_fast.delivery.receipts import Receipt
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import ClientClosedError, DroppedError, SerializationError
from raccoon_fast.guids import new_guid
from raccoon_fast.producers.base import DISK_MARGIN_S, BaseProducer, Policy, is_replaced, place
from raccoon_fast.producers.options import resolve_options
from raccoon_fast.producers.reports import Report
from raccoon_fast.producers.table_steps import Step, naming_row
from raccoon_fast.serializers import PROTO, Data_contra
from raccoon_fast.tables.options import table_columns
from raccoon_fast.threads import Condition, require_threads
from raccoon_fast.timeouts import shield

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self, Unpack

    from raccoon_fast.clients.grpc import Channel
    from raccoon_fast.clients.options import ClientOptions, Wire
    from raccoon_fast.core.batch import Batch
    from raccoon_fast.delivery.engine import Engine
    from raccoon_fast.delivery.loop_thread import Call
    from raccoon_fast.events import Event, Response
    from raccoon_fast.producers.lanes import Lane, LaneOptions
    from raccoon_fast.producers.options import Overflow, ServerAcks
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.transports.rest.httpx import HttpxGiven

__all__ = ["Producer"]

_CLOSE_S = 5.0
# Of a table, encoded at once.
_TABLE_ROWS = 10_000
# More than measured: after a change of load, Python keeps a part of the memory of small batches.
_BATCH_COST = 1024
_CALLBACK_COST = 384
# Added to a caller's timeout: for the loop to answer, and for `close` to finish. See also DISK_MARGIN_S.
_MARGIN_S = 0.02
_CLOSE_MARGIN_S = 0.4
_COUNTED_S = 0.1
# The first event waits for the engine, but not forever: if a finalizer emits it, the interrupted code may hold
# a lock that the loop's thread needs.
_START_S = 0.25
# While an `emit` waits, a disk that refused is tried again.
_SPILL_AGAIN_S = 1.0


class _Patchable(abc.ABCMeta):
    """Makes later changes of the class, such as those by unittest.mock, reach existing objects."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        cls._patched(name)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        cls._patched(name)

    def _patched(cls, name: str) -> None:
        if name in ("emit", "emit_many"):
            for producer in [*_made]:
                if isinstance(producer, cls):
                    producer._take_shortcuts()  # noqa: SLF001 - the other half of it


class Producer(BaseProducer[Data_contra], metaclass=_Patchable):
    """Sends many events: `emit` appends to a batch and returns; a background thread sends and retries the batches.

    Thread-safe. The first event starts a daemon thread with an event loop. A producer created before a fork therefore
    works in the child without any setup: it starts afresh there, and the parent keeps its own events. A producer that
    is still open when the interpreter or a multiprocessing process exits is closed then. Celery workers exit
    differently: connect `close` to the signal worker_process_shutdown, or call `flush` in the task.

    Under gevent's monkey patching every wait (a full buffer, a receipt's `result`, `flush`, `close`) lets the other
    greenlets run, and callbacks run on a greenlet. With `patch_all(thread=False)` each wait blocks the hub.

    A batch is sealed when it holds `batch_events` events or `batch_bytes` bytes, or when it is `linger` seconds old,
    whichever comes first. Delivery is at least once: a resend keeps its guid, but may publish a batch twice.

    Args:
        url: One server, or several in order of preference: "ws://…", "http://…", "grpc://…" or their secure forms, in
            any mix; or "null://", see enabled. If a server fails, the next healthy one is used, until three
            acknowledgements in a row show that the first one is healthy again.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        linger: The seconds for which a batch waits for more events.
        batch_events: The largest number of events in a batch.
        batch_bytes: The largest number of bytes in a batch; a larger event gets a separate batch.
        max_in_flight: The largest number of unacknowledged batches per connection; fewer while the server is slow. None
            starts with 8. If the server is far away and its acknowledgements do not slow down, None goes up to 128 on
            all connections together, or to a quarter of `buffer_bytes`.
        connections: The number of connections per server.
        buffer_bytes: The limit in bytes for the memory of events that wait or are in flight, with their batches and
            receipts.
        overflow: What `emit` does when the buffer is full: "block" waits for room, for at most `block_timeout` seconds;
            "raise" raises BufferFull; "drop_newest" drops the new event; "drop_oldest" drops the batch that has waited
            longest; "spool" moves the batches that have waited longest to disk, and blocks meanwhile.
        block_timeout: The seconds after which a blocked `emit` raises BufferFull; see overflow.
        delivery_timeout: Seconds from accepting an event to its acknowledgement, over all attempts; then it expires,
            or moves to the spool if there is one.
        on_delivery: Called with each batch's receipt when it is settled, on the callback thread.
        wire: "proto" or "json" (not with gRPC): the encoding of the request around the events.
        ping_interval: Seconds between the client's pings on a WebSocket; over gRPC, seconds without an answer before a
            ping, no more often than grpc-go's enforcement policy allows. None sends none.
        pong_timeout: Seconds within which a ping must be answered.
        server_acks: What the server's acknowledgements mean, for the report: "received" or "published".
        max_types: The largest number of event types that `stats` counts by name. Events of further types are sent like
            all others, and counted under "(other types)".
        spool: The path of a file for batches that cannot be sent now: with overflow="spool" those for which the buffer
            has no room, those that would expire, and those that are unsent when `close` returns. They are sent later,
            with their guids, by this producer or the next one on this path, in any process. Producers may share a path.
        spool_bytes: The limit in bytes of the spool; beyond it the policy is "block".
        durable: Store every batch when it is sealed, before it is sent, and remove it when it is acknowledged, so that
            stored batches survive the process.
        lanes: Lane(…) by event type: these events have their own batches, rules and share of the buffer; see Lane. All
            other events are in the lane "default", which has the options given here. The lanes share the servers, their
            connections and `max_in_flight`. If the events of an `emit_batch` belong to several lanes, the batch goes
            into the one with the highest priority.
        lane_of: Called with an event type that is not a key of `lanes`, once for each of the first 10,000 types;
            returns the name of its lane, or None for the default one.
        sample_key: Called with an Event of a lane whose `sample` is below 1; returns the text, bytes or int that
            decides whether it is kept, such as a user's id: all events of one key are kept, or none. None decides at
            random.
        before_send: Called with each Event before it is accepted, in the thread that emits it; returns the event to
            send, changed or not, or None to leave it out (counted as `filtered`). If it raises, `emit` raises the same
            exception and does not accept the event. It must be thread-safe if several threads emit.
        enabled: False sends nothing: events are validated, serialized, batched and counted as always, then discarded,
            and their receipts are settled with success. No connection is made, and no spool is opened. The same as the
            url "null://".
        transport: For REST URLs: an httpx.AsyncClient, an httpx.AsyncBaseTransport, or a callable that makes one, to
            send over instead of built-in connections; see AsyncRestClient. A list has one entry, or None, per URL.
            Prefer a callable: its result is closed on the producer's event loop, which your program cannot reach.
        channel: For gRPC URLs: a callable that makes a grpc.aio.Channel; see AsyncGrpcClient. A list as above.
        **options: See ClientOptions. `timeout` limits one attempt, `retry` sets the waits between attempts.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        linger: float = 0.005,
        batch_events: int = 1000,
        batch_bytes: int = 1 << 20,
        max_in_flight: int | None = None,
        connections: int = 1,
        buffer_bytes: int = 64 << 20,
        overflow: Overflow = "block",
        block_timeout: float = 60.0,
        delivery_timeout: float = 120.0,
        on_delivery: Callable[[Receipt], object] | None = None,
        wire: Wire = "proto",
        ping_interval: float | None = 30.0,
        pong_timeout: float = 10.0,
        server_acks: ServerAcks = "received",
        max_types: int = MAX_TYPES,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 1 << 30,
        durable: bool = False,
        lanes: Mapping[str, Lane] | None = None,
        lane_of: Callable[[str], str | None] | None = None,
        sample_key: Callable[[Event], object] | None = None,
        before_send: Callable[[Event], Event | tuple[str, Any] | None] | None = None,
        enabled: bool = True,
        transport: HttpxGiven | Sequence[HttpxGiven | None] | None = None,
        channel: Channel | Sequence[Channel | None] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if on_delivery is not None and not callable(on_delivery):
            raise TypeError(f"on_delivery takes a callable, not {on_delivery!r}")
        super().__init__(
            resolve_options(
                url,
                {"serializer": serializer, **options},
                linger=linger,
                batch_events=batch_events,
                batch_bytes=batch_bytes,
                max_in_flight=max_in_flight,
                connections=connections,
                buffer_bytes=buffer_bytes,
                overflow=overflow,
                block_timeout=block_timeout,
                delivery_timeout=delivery_timeout,
                wire=wire,
                ping_interval=ping_interval,
                pong_timeout=pong_timeout,
                server_acks=server_acks,
                max_types=max_types,
                spool=spool,
                spool_bytes=spool_bytes,
                durable=durable,
                enabled=enabled,
                transport=transport,
                channel=channel,
            ),
            Policy(before_send, lanes, lane_of, sample_key, on_delivery),
        )
        self._callbacks = CallbackThread(self._options.settings.logger)
        # At most one entry, under the key True: dict.setdefault makes two threads agree on it without a lock.
        self._threads: dict[bool, LoopThread] = {}
        self._room = Condition()
        # By lane.
        self._last_opened: dict[int, Batch] = {}
        self._dropped: Receipt | None = None
        # The thread that takes this item finishes the `close`.
        self._to_close = deque([None])
        self._engine_closing: asyncio.Future[None] | None = None
        # The engine of a loop that ended by itself.
        self._orphan: Engine | None = None
        self._report: Report | None = None
        self._begin_accepting()
        # The accumulator's own methods: a frame of ours around them would be a third of what an event costs.
        self._shortcuts: dict[str, Callable[..., Any]] = {}
        if self._before_send is None:
            self._shortcuts = {"emit": self._entry.emit, "emit_many": self._entry.emit_many}
        self._take_shortcuts()
        _made.add(self)
        if self._has_spooled:
            self._started()

    def emit(self, type: str, data: Data_contra) -> Receipt:  # noqa: A002 - the proto field's name
        """Accept one event. Never does I/O.

        Args:
            type: The event's type; not empty.
            data: Data that the serializer accepts.

        Returns:
            The receipt of the batch that carries it, shared by the events of that batch.

        Raises:
            BufferFull: With overflow="raise", or with "block" after `block_timeout`; the event was not accepted.
            MessageTooLargeError: The event alone is larger than a server accepts.
            ClientClosedError: The producer is closed.
            TypeError, ValueError: An argument is invalid.
            OSError, RuntimeError: No thread can be started: the system has no descriptor or thread left, or the
                interpreter is about to end. The event was not accepted.
            Exception: Any exception of the serializer, `before_send`, `lane_of` or `sample_key`, unchanged; the event
                was not accepted.
        """
        if self._before_send is not None:
            kept = self._kept(type, data)
            if kept is None:
                return self._left_out_receipt(FILTERED)  # type: ignore[no-any-return]
            type, data = kept  # noqa: A001
        receipt: Receipt = self._entry.emit(type, data)
        return receipt

    def emit_many(self, events: Iterable[tuple[str, Data_contra]]) -> list[Receipt]:
        """Accept many events; cheaper than one by one.

        If a subclass or a wrapper has replaced `emit` but not this method, each event is passed to that `emit`.

        Args:
            events: (type, data) pairs.

        Returns:
            The receipts of the batches that carry them, in order, each once.

        Raises:
            TypeError: An event is not a pair of a str and data; the message names its position. Events before it were
                accepted.
            Exception: As `emit`, at the first event that cannot be accepted. Events before it were accepted.
        """
        if not is_replaced(self, _EMIT) or is_replaced(self, _EMIT_MANY):
            if self._before_send is None:
                return self._entry.emit_many(events)
            emit: Callable[[str, Any], Receipt] = functools.partial(_EMIT, self)
        else:
            emit = self.emit
        check_events(events)
        receipts: dict[Receipt, None] = {}
        for index, event in enumerate(events):
            pair = pair_of(index, event)
            try:
                receipts[emit(*pair)] = None
            except SerializationError as error:
                place(error, index)
                raise
        return [*receipts]

    def emit_table(
        self,
        table: Any,
        *,
        event_type: str | None = None,
        type_column: str | None = None,
        data_columns: Sequence[str] | None = None,
        serializer: str = "json",
        message: Any = None,
    ) -> list[Receipt]:
        """Accept each row of a table as an event, for less than rows of dicts cost. Needs `raccoon_fast[arrow]`.

        Rows are read 10,000 at a time, so a stream of any length takes bounded memory. Lanes, `sample` and `overflow`
        apply to each event as in `emit_many`. `before_send`, and a lane's `sample_key`, get each row as
        Event(type, data): data is a dict of the data columns, with "raw" bytes, or the message. What the hook returns
        is encoded in the same way. Each row is then a Python object, which takes several times as long. The producer's
        `serializer` is not used, and methods that a subclass has put in place of `emit` and `emit_many` are not called.

        Args:
            table: Anything with `__arrow_c_stream__` or `__arrow_c_array__`: a DataFrame of pandas or Polars, a
                relation of DuckDB, a Table, RecordBatch or RecordBatchReader of PyArrow. A stream is used up. The index
                of a pandas DataFrame is a column only if it has a name and is not a range; `reset_index()` turns it
                into a column.
            event_type: The type of all events; or None, and
            type_column: The column of strings with each event's type.
            data_columns: The columns that make an event's data, in this order; None for all but `type_column`.
            serializer: "json" for an object of the data columns, compact UTF-8; "raw" for the bytes of the one data
                column, which are binary, or strings taken as UTF-8.
            message: A class of protobuf messages, or its descriptor, in place of `serializer`: each row is a message,
                whose fields are the data columns of the same names. A null leaves its field out.

        Returns:
            As `emit_many`.

        Raises:
            ImportError: pyarrow is not installed.
            TypeError, ValueError: An argument is invalid, or a column is missing or has an unsuitable type; no row was
                accepted.
            SerializationError: A row cannot become an event: a null type, null bytes, a date past the year 9999, a map
                with two values for a key. `path` is the column and `index` the row, from 0; the rows before it were
                accepted.
            Exception: As `emit`, at the first row that cannot be accepted, which the message names; and any exception
                of the table while it is read. The rows before it were accepted.
        """
        columns = table_columns(event_type, type_column, data_columns, serializer, message)
        receipts: dict[Receipt, None] = {}
        for step in self._table_steps(table, columns, _TABLE_ROWS):
            if isinstance(step, Step):
                with naming_row(step):
                    emit_slices(step.entry, step.types, step.slices, sys.maxsize, self, receipts)  # never self
            else:
                receipts[step] = None
        return [*receipts]

    def emit_batch(self, events: Iterable[tuple[str, Data_contra]], *, req_guid: str | None = None) -> Receipt:
        """Accept events as one separate batch, regardless of `batch_events`, `batch_bytes` and `linger`.

        For programs that may send the same events again, for example after a restart: with the same `req_guid` they
        send the same request. If a server refuses some of the events, the accepted parts have guids derived from it.

        Args:
            events: (type, data) pairs, at least one.
            req_guid: The request's guid, kept over retries; generated (uuid4 text) when None.

        Returns:
            Its receipt.

        Raises:
            BufferFull: As `emit`.
            MessageTooLargeError: The batch is larger than the buffer, or than a server accepts.
            ClientClosedError: The producer is closed.
            TypeError, ValueError: An argument is invalid; for an event, the message names its position.
            OSError, RuntimeError: As `emit`.
            Exception: Any exception of the serializer, unchanged. As with the errors above, no event was accepted.
        """
        forks.check()
        self._started()  # which may fail: before an event is accepted
        batch, lane, left_out = self._filled_batch(events, req_guid)
        if batch is None:
            receipt: Receipt = self._left_out_receipt(next(iter(left_out)))
        else:
            receipt = self._accumulators[lane].add_batch(batch)
        self._count_left_out(left_out)
        return receipt

    def flush(self, timeout: float = 30.0) -> int:
        """Send waiting events now, and wait until all events accepted before this call are settled.

        Args:
            timeout: The longest wait in seconds; 0 does not wait.

        Returns:
            The number of these events that are not settled yet: 0 if all went well.
        """
        if timeout != 0:
            positive("timeout", timeout)
        forks.check()
        self._finish_dropping()
        accepted = self._accepted
        thread = self._thread
        if thread is None and (self._closed or not accepted):
            return 0
        try:
            thread = self._started()
            for accumulator in self._accumulators:
                accumulator.seal()  # here, because the call below is cancelled if the loop does not answer in time
            call = thread.submit(self._flush, timeout)
        except (ClientClosedError, RuntimeError):  # closed by now, or no thread can be started
            return self._unsettled(accepted)
        try:
            return call.result(0 if thread.is_current() else timeout + _MARGIN_S)
        except concurrent.futures.TimeoutError:
            call.cancel()
        except (concurrent.futures.CancelledError, ClientClosedError):
            pass  # another thread closes the producer
        except BaseException:
            call.cancel()
            raise
        return self._unsettled(accepted)

    def close(self, timeout: float = _CLOSE_S) -> Report:
        """Stop accepting events, wait for accepted ones, fail the remainder or leave it in the spool, and report.

        Idempotent.

        Args:
            timeout: Seconds to wait for acknowledgements; 0 does not wait. With a spool, writing the remainder may take
                up to 5 s more.
        """
        if timeout != 0:
            positive("timeout", timeout)
        self._begin_close(timeout)()
        return self.report

    def _begin_close(self, timeout_s: float) -> Callable[[], object]:
        forks.check()
        deadline_s = time.monotonic() + timeout_s
        self._closed = True
        for accumulator in self._accumulators:
            accumulator.close()
        self._finish_dropping()
        self._room.notify_all()
        thread = self._thread
        call: Call[None] | None = None
        if thread is not None:
            with contextlib.suppress(ClientClosedError, RuntimeError):  # it has ended, or none can be started
                call = thread.submit(self._close_engine, timeout_s)
            if thread.is_current():
                return _nothing  # the engine continues to close after this call has returned

        def wait() -> None:
            # The first caller ends it. Other callers, including a signal handler that interrupted the first, only wait
            # for the engine, which does not depend on the first caller.
            try:
                self._to_close.pop()
            except IndexError:
                is_first = False
            else:
                is_first = True
            try:
                if call is not None:
                    self._await_end(call, deadline_s)
            except concurrent.futures.TimeoutError:
                pass
            finally:
                if is_first:
                    self._end_close(thread, deadline_s)
                elif thread is not None and thread.is_over and self._report:
                    if self._total().unsettled:
                        # Events accepted by an `emit` in which a signal handler closed the producer.
                        self._abandon()
                        self._report = self.stats()
                    elif self._report.total.unsettled:
                        self._report = self.stats()  # the first caller did not wait for the end

        return wait

    def _await_end(self, call: Call[None], deadline_s: float) -> None:
        try:
            call.exception(max(0.0, deadline_s - time.monotonic()) + self._close_margin_s - _COUNTED_S)
        except concurrent.futures.TimeoutError:
            if self._engine is None or not self._engine.is_counted:  # or only receipts are left to be settled
                call.exception(_COUNTED_S)

    @property
    def _close_margin_s(self) -> float:
        return _CLOSE_MARGIN_S if self._spool is None else DISK_MARGIN_S

    def _end_close(self, thread: LoopThread | None, deadline_s: float) -> None:
        end_s = deadline_s + self._close_margin_s
        self._disk.stop(_left_s(end_s))
        self._callbacks.stop(_left_s(end_s))
        if thread is not None:
            thread.stop(_left_s(end_s))
        if thread is None or thread.is_over:
            self._abandon()
        elif self._engine is None or not self._engine.is_counted:
            self._options.settings.logger.error(HELD_UP)
        self._sender.end()  # without an engine nothing else does
        lifetime.ended(self)
        self._report = report = self.stats()
        self._meter.end(self)
        self._tell_losses(report)

    def _abandon(self) -> None:
        """Fail the remainder if the engine could not, or does not exist."""
        engine = self._engine or self._orphan
        if engine is not None:
            engine.fail_rest()
            return
        for accumulator in self._accumulators:
            accumulator.seal()
            while (batch := accumulator.take()) is not None:
                self._ledger.add(batch.types, FAILED + "closed")
                why = "the producer was closed before the batch was sent"
                (batch.settlement or Settlement(batch.receipt)).failed(
                    ClientClosedError(why, req_guid=batch.receipt.req_guid)
                )
                accumulator.release(batch.cost)

    def _tell_losses(self, report: Report) -> None:
        total = report.total
        if total.lost or total.unsettled:
            self._options.settings.logger.error(
                "closed with events not acknowledged: %d failed, %d expired, %d dropped",
                sum(total.failed.values()) + total.unsettled,
                total.expired,
                sum(total.dropped.values()),
            )

    @property
    def report(self) -> Report:
        """The result of `close`; before that, the result of `stats`."""
        return self._report if self._report is not None else self.stats()

    def acks(self, maxsize: int = 10_000) -> AckStream:
        """Subscribe to the acknowledgements of all batches from now on, SUCCESS or not.

        Args:
            maxsize: The largest number of waiting acknowledgements; beyond it the oldest is dropped and counted. Never
                blocks.

        Raises:
            ClientClosedError: The producer is closed.
        """
        if self._closed:
            raise self._closed_error()
        stream = AckStream(whole("maxsize", maxsize), self._sender.unlisten)
        self._sender.listen(stream)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take_shortcuts(self) -> None:
        """Call the accumulator without a Python frame of ours, as long as nothing has replaced our methods."""
        is_ours = not (is_replaced(self, _EMIT) or is_replaced(self, _EMIT_MANY))
        for name, shortcut in self._shortcuts.items():
            if is_ours:
                self.__dict__.setdefault(name, shortcut)
            elif self.__dict__.get(name) is shortcut:  # and not another object that the program has put there
                del self.__dict__[name]

    def _new_batch(self, req_guid: str | None = None, lane: int = 0) -> Batch:
        req_guid = new_guid() if req_guid is None else resolve_guid(req_guid)
        pool = self._pool
        try:
            batch = pool.last_made = pool.batches.pop()
        except IndexError:
            batch = self._empty_batch()
        promise: Promise[Response] = Promise()
        receipt = Receipt(req_guid, promise, self._callbacks)
        if (tracing := self._tracing) is not None:
            batch.settlement = Settlement(receipt, lane=lane)
            batch.settlement.trace = tracing.of_batch(req_guid)
        batch.receipt = receipt
        batch.accepted_s = time.monotonic()  # the loop may take the batch before `batch_opened` is called
        on_delivery = self._lanes[lane].on_delivery
        if on_delivery is not None:
            receipt.add_done_callback(on_delivery)
        return batch

    def _batch_cost(self, lane: LaneOptions) -> int:
        return _BATCH_COST if lane.on_delivery is None else _BATCH_COST + _CALLBACK_COST

    def _make_batch(self, lane: int) -> Batch:
        # This runs for each batch, and a call costs more than most of the called code.
        if not forks.PAGE[0] or not forks.IS_WIPED:
            forks.check()
        thread = self._threads.get(True)
        if thread is None or thread.is_over or self._engine is None:
            self._started()  # which may fail: before an event is accepted
        return self._new_batch(None, lane)

    @property
    def _thread(self) -> LoopThread | None:
        return self._threads.get(True)

    def _started(self) -> LoopThread:
        """The running thread with the event loop. Thread-safe, also in a finalizer that interrupts a start."""
        thread = self._threads.get(True)
        if thread is not None and self._engine is not None and not thread.is_over:
            return thread
        if self._closed:
            raise self._closed_error()
        if thread is not None and thread.is_over and self._threads.pop(True, None) is thread:
            self._options.settings.logger.error("the event loop had stopped; a new one is started")
            self._orphan, self._engine = self._engine or self._orphan, None
            self._begin_accepting()
            thread = None
        is_first = thread is None
        if thread is None:
            require_threads()
            mine = LoopThread(self._options.settings.logger)
            try:
                thread = self._threads.setdefault(True, mine)
            except BaseException:  # a Ctrl-C
                if self._threads.get(True) is not mine:
                    mine.stop(0.0)
                raise
            if thread is not mine:  # another thread was faster, or a signal handler
                mine.stop(0.0)
                is_first = False
            lifetime.began(self)
        if not thread.is_current():
            built = thread.submit(self._built)
            if is_first:
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    built.result(_START_S)
        return thread

    def _loop_trouble(self) -> str:
        thread = self._thread
        if thread is None or not thread.is_over or self._closed:
            return ""
        with contextlib.suppress(OSError, RuntimeError, ClientClosedError):
            self._started()
        return "the event loop had stopped; a new one is started"

    async def _built(self) -> Engine:
        """The engine, on its loop; the first caller creates it there."""
        engine = self._engine
        if engine is None:
            engine = self._engine = self._new_engine(threadsafe=True)
            orphan, self._orphan = self._orphan, None
            if orphan is not None:
                engine.take_over(orphan)
            # For the events accepted so far.
            for lane, batch in [*self._last_opened.items()]:
                engine.batch_opened(batch, lane)
            engine.batch_sealed()
        return engine

    def _begin_accepting(self) -> None:
        """Accept events before there is an engine."""
        self._tell(self._opened, self._sealed)

    def _opened(self, batch: Batch, lane: int = 0) -> None:
        self._last_opened[lane] = batch
        if self._engine is not None:
            self._engine.batch_opened(batch, lane)

    def _sealed(self) -> None:
        if self._engine is not None:
            self._engine.batch_sealed()

    async def _flush(self, timeout_s: float) -> int:
        return await (await self._built()).flush(timeout_s)

    async def _close_engine(self, timeout_s: float) -> None:
        """Runs once for all callers; each waits for it as long as it wants."""
        engine = await self._built()
        if self._engine_closing is None:
            self._engine_closing = asyncio.ensure_future(engine.close(timeout_s))
        await shield(self._engine_closing)

    def _unsettled(self, accepted: int) -> int:
        """The number of unsettled events among the first accepted ones, as seen from outside the loop."""
        later = self._accepted - accepted
        return max(0, self._total().unsettled - later)

    @property
    def _accepted(self) -> int:
        return sum(accumulator.accepted for accumulator in self._accumulators)

    def _wait_for_room(self, size: int, lane: int) -> bool:
        thread = self._started()
        if thread.is_current() or self._callbacks.is_current() or self._disk.is_current():
            raise self._full(lane)  # it would otherwise wait for itself
        deadline_s = time.monotonic() + self._lanes[lane].block_timeout_s
        limit, accumulator = self._lanes[lane].buffer_bytes, self._accumulators[lane]

        def may_go_on() -> bool:
            return self._closed or accumulator.buffered + size <= limit

        while not self._room.wait_for(may_go_on, min(max(0.0, deadline_s - time.monotonic()), _SPILL_AGAIN_S)):
            if time.monotonic() >= deadline_s:
                raise self._full(lane)
            self._spill(lane)
            self._started()
        if self._closed:
            raise self._closed_error()
        return True

    def _room_made(self) -> None:
        self._room.notify_all()

    @property
    def _dropped_receipt(self) -> Receipt:
        if self._dropped is None:
            promise: Promise[Response] = Promise()
            promise.set_exception(DroppedError("dropped: the buffer was full"))
            self._dropped = Receipt("", promise, self._callbacks)
        return self._dropped

    def _settled_receipt(self, response: Response) -> Receipt:
        promise: Promise[Response] = Promise()
        promise.set_result(response)
        return Receipt("", promise, self._callbacks)

    def _after_fork(self) -> None:
        lifetime.inherit(self._thread, self._orphan)
        self._threads = {}
        self._orphan = None
        self._engine_closing = None
        self._to_close = deque([None])
        self._room = Condition()
        self._last_opened = {}
        self._callbacks = CallbackThread(self._options.settings.logger)
        self._dropped = None
        super()._after_fork()
        self._begin_accepting()


def _left_s(end_s: float) -> float:
    return max(_MARGIN_S, end_s - time.monotonic())


def _nothing() -> None:
    pass


# The original methods, even if something replaces them in the class later.
_EMIT = Producer.emit
_EMIT_MANY = Producer.emit_many
_made: weakref.WeakSet[Producer] = weakref.WeakSet()
