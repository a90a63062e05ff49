"""AsyncProducer: sends at high volume on the event loop of the program."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from raccoon_fast import forks
from raccoon_fast.clients.options import positive, whole
from raccoon_fast.clients.requests import resolve_guid
from raccoon_fast.core._request import check_events, pair_of
from raccoon_fast.core.slices import emit_slices
from raccoon_fast.delivery import lifetime
from raccoon_fast.delivery.ack_streams import AsyncAckStream
from raccoon_fast.delivery.ledger import FILTERED, MAX_TYPES
from raccoon_fast.delivery.receipts import AsyncReceipt
from raccoon_fast.delivery.settlement import Settlement
from raccoon_fast.errors import DroppedError, SerializationError
from raccoon_fast.producers.base import DISK_MARGIN_S, BaseProducer, Policy, is_replaced, place
from raccoon_fast.producers.options import resolve_options
from raccoon_fast.producers.reports import Report
from raccoon_fast.producers.table_steps import Step, naming_row
from raccoon_fast.serializers import PROTO, Data_contra
from raccoon_fast.tables.options import table_columns
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self, Unpack

    from raccoon_fast.clients.grpc import Channel
    from raccoon_fast.clients.options import ClientOptions, Wire
    from raccoon_fast.core.batch import Batch
    from raccoon_fast.events import Event, Response
    from raccoon_fast.producers.lanes import Lane, LaneOptions
    from raccoon_fast.producers.options import Overflow, ServerAcks
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.transports.rest.httpx import HttpxGiven

__all__ = ["AsyncProducer"]

_CLOSE_S = 5.0
# Rows of a table that are encoded at once, while the loop waits.
_TABLE_ROWS = 2_000
# More than measured: after a change of load, Python keeps a part of the memory of small batches.
_BATCH_COST = 1024
_CALLBACK_COST = 384
_SPILL_AGAIN_S = 1.0
_FULL = object()
# The number of events that `emit_many` accepts in one turn of the loop, or the size of a batch if that is larger:
# several small batches are then sent together.
_TURN_EVENTS = 100


class AsyncProducer(BaseProducer[Data_contra]):
    """Like Producer, but on the caller's event loop, asyncio or uvloop.

    Bound to the loop of its first event, and used only from there. Receipts can be awaited; `on_delivery` and the
    receipts' callbacks run on the loop. Close it before the loop is closed: events that are not
    acknowledged by then are lost, and an error is logged when the interpreter exits.

    Args:
        url: As Producer.
        serializer: As Producer.
        linger: As Producer.
        batch_events: As Producer.
        batch_bytes: As Producer.
        max_in_flight: As Producer.
        connections: As Producer.
        buffer_bytes: As Producer.
        overflow: As Producer; with "block", `await emit(…)` waits, and `emit_nowait` raises BufferFull.
        block_timeout: As Producer.
        delivery_timeout: As Producer.
        on_delivery: Called with each batch's receipt when it is settled.
        wire: As Producer.
        ping_interval: As Producer.
        pong_timeout: As Producer.
        server_acks: As Producer.
        max_types: As Producer.
        spool: As Producer; events of an earlier process are sent after the first event or `async with`.
        spool_bytes: As Producer.
        durable: As Producer.
        lanes: As Producer.
        lane_of: As Producer.
        sample_key: As Producer.
        before_send: As Producer; not a coroutine function.
        enabled: As Producer.
        transport: As Producer.
        channel: As Producer.
        **options: See ClientOptions.

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
        on_delivery: Callable[[AsyncReceipt], object] | None = None,
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        # Settled when the buffer may have room.
        self._room: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._report: Report | None = None
        self._dropped: AsyncReceipt | None = None

    async def emit(self, type: str, data: Data_contra) -> AsyncReceipt:  # noqa: A002 - the proto field's name
        """Accept one event; wait for room in the buffer if overflow="block".

        Returns and raises as Producer.emit. If cancelled while it waits, it accepts nothing.
        """
        self._bind()
        if self._before_send is not None:
            kept = self._kept(type, data)
            if kept is None:
                return self._left_out_receipt(FILTERED)  # type: ignore[no-any-return]
            type, data = kept  # noqa: A001
        receipt = self._entry.emit(type, data)
        if receipt is _FULL:
            receipt = await self._emit_when_room(type, data)
        return receipt  # type: ignore[no-any-return]

    def emit_nowait(self, type: str, data: Data_contra) -> AsyncReceipt:  # noqa: A002
        """Accept one event; raise BufferFull if `emit` would wait."""
        self._bind()
        if self._before_send is not None:
            kept = self._kept(type, data)
            if kept is None:
                return self._left_out_receipt(FILTERED)  # type: ignore[no-any-return]
            type, data = kept  # noqa: A001
        receipt = self._entry.emit(type, data)
        if receipt is _FULL:
            raise self._full(self._table.number(type))
        return receipt  # type: ignore[no-any-return]

    async def emit_many(self, events: Iterable[tuple[str, Data_contra]]) -> list[AsyncReceipt]:
        """Accept many events; cheaper than one by one. Lets the loop run between batches.

        Returns, raises and can be overridden as Producer.emit_many.
        """
        check_events(events)
        receipts: dict[AsyncReceipt, None] = {}
        is_ours = is_replaced(self, _EMIT_MANY) or not is_replaced(self, _EMIT)
        if not is_ours or self._before_send is not None:
            for index, event in enumerate(events):
                pair = pair_of(index, event)
                try:
                    receipts[await (_EMIT(self, *pair) if is_ours else self.emit(*pair))] = None
                except SerializationError as error:
                    place(error, index)
                    raise
                if is_ours and index % max(self._options.batch_events, _TURN_EVENTS) == 0:
                    await asyncio.sleep(0)
            return [*receipts]
        self._bind()
        entry, most = self._entry, max(self._options.batch_events, _TURN_EVENTS)
        iterator = iter(events)
        done = 0
        while True:
            number, refused = entry.emit_some(iterator, most, _FULL, receipts, done)
            done += number
            if refused is not None:
                receipts[await self._emit_when_room(*refused)] = None
            elif number < most:
                return [*receipts]
            else:
                await asyncio.sleep(0)

    async def emit_table(
        self,
        table: Any,
        *,
        event_type: str | None = None,
        type_column: str | None = None,
        data_columns: Sequence[str] | None = None,
        serializer: str = "json",
        message: Any = None,
    ) -> list[AsyncReceipt]:
        """Accept each row of a table as an event; the event loop runs other work between batches.

        Takes, returns and raises as Producer.emit_table. A table that waits for its rows, such as a stream from another
        process, blocks the loop meanwhile.
        """
        columns = table_columns(event_type, type_column, data_columns, serializer, message)
        self._bind()
        batch_events = self._options.batch_events
        receipts: dict[AsyncReceipt, None] = {}
        number = 0
        for step in self._table_steps(table, columns, _TABLE_ROWS):
            if not isinstance(step, Step):
                receipts[step] = None
                number += 1
            else:
                count = len(step.slices)
                while step.slices.at < count:
                    with naming_row(step):
                        if emit_slices(step.entry, step.types, step.slices, batch_events, _FULL, receipts):
                            await self._emit_slice_when_room(step, receipts)
                    if count > 1:
                        await asyncio.sleep(0)
                number += count
            if number >= batch_events:
                number = 0
                await asyncio.sleep(0)
        return [*receipts]

    async def _emit_slice_when_room(self, step: Step, receipts: dict[AsyncReceipt, None]) -> None:
        """Accept the event that was just refused, once the buffer has room for it."""
        step.slices.at -= 1
        event_type = step.types if isinstance(step.types, str) else step.types[step.slices.at]

        def accept() -> Any:
            is_refused = emit_slices(step.entry, event_type, step.slices, 1, _FULL, receipts)
            if is_refused:
                step.slices.at -= 1
            return _FULL if is_refused else None

        await self._when_room(self._table.number(event_type), accept)

    async def emit_batch(
        self, events: Iterable[tuple[str, Data_contra]], *, req_guid: str | None = None
    ) -> AsyncReceipt:
        """Accept events as one separate batch; wait for room in the buffer if overflow="block".

        Returns and raises as Producer.emit_batch. If cancelled while it waits, it accepts nothing.
        """
        self._bind()
        batch, lane, left_out = self._filled_batch(events, req_guid)
        if batch is None:
            receipt = self._left_out_receipt(next(iter(left_out)))
        else:
            accumulator = self._accumulators[lane]
            receipt = accumulator.add_batch(batch)
            if receipt is _FULL:
                receipt = await self._when_room(lane, lambda: accumulator.add_batch(batch))
        self._count_left_out(left_out)
        return receipt  # type: ignore[no-any-return]

    async def flush(self, timeout: float = 30.0) -> int:
        """Send waiting events now, and wait until all events accepted before this call are settled.

        Args:
            timeout: The longest wait in seconds; 0 does not wait.

        Returns:
            The number of these events that are not settled yet.
        """
        if timeout != 0:
            positive("timeout", timeout)
        forks.check()
        self._finish_dropping()
        if self._engine is None or self._report is not None:
            return 0
        self._check_loop()
        return await self._engine.flush(timeout)

    async def close(self, timeout: float = _CLOSE_S) -> Report:
        """Stop accepting events, wait for accepted ones, fail the remainder or leave it in the spool, and report.

        Idempotent. If cancelled, it fails the remainder at once.

        Args:
            timeout: Seconds to wait for acknowledgements; 0 does not wait. With a spool, writing the remainder may take
                up to 5 s more.
        """
        if timeout != 0:
            positive("timeout", timeout)
        forks.check()
        if self._report is not None:
            return self._report
        if self._engine is not None:
            self._check_loop()
        self._closed = True
        for accumulator in self._accumulators:
            accumulator.close()
        self._finish_dropping()
        self._room_made()
        if self._engine is None:
            self._report = self.stats()
            self._sender.end()
        elif self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            try:
                deadline_s = time.monotonic() + timeout + DISK_MARGIN_S
                await self._engine.close(timeout)
                if self._spool is not None:
                    await self._disk_done(max(0.0, deadline_s - time.monotonic()))
            finally:
                self._disk.stop(0)
                self._report = self.stats()
                self._meter.end(self)
                self._closing.set_result(None)
        else:
            await asyncio.wait([self._closing], timeout=timeout)  # another task closes it
        return self.report

    @property
    def report(self) -> Report:
        """The result of `close`; before that, the result of `stats`."""
        return self._report if self._report is not None else self.stats()

    def acks(self, maxsize: int = 10_000) -> AsyncAckStream:
        """Subscribe to the acknowledgements of all batches from now on, SUCCESS or not; raises as Producer.acks."""
        if self._closed:
            raise self._closed_error()
        stream = AsyncAckStream(whole("maxsize", maxsize), self._sender.unlisten)
        self._sender.listen(stream)
        return stream

    def __del__(self) -> None:
        self._tell_if_left_open()

    async def __aenter__(self) -> Self:
        if self._has_spooled:
            self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _emit_when_room(self, event_type: str, data: Any) -> Any:
        """Accept an event that had no room before: the lane's sample has already kept it."""
        lane = self._table.number(event_type)
        accumulator = self._accumulators[lane]
        return await self._when_room(lane, lambda: accumulator.emit(event_type, data))

    def _bind(self) -> None:
        if not forks.PAGE[0]:
            forks.check()
        if self._loop is None:
            self._start()
        elif asyncio.get_running_loop() is not self._loop:
            self._check_loop()

    async def _disk_done(self, timeout_s: float) -> None:
        """Wait for the work that the disk's thread has been given. Needs no thread of the loop's executor."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done.set_result, None)

        self._disk.submit(tell, None)
        await asyncio.wait([done], timeout=timeout_s)

    def _loop_trouble(self) -> str:
        is_gone = self._loop is not None and self._loop.is_closed() and self._report is None
        return "the event loop of this producer was closed" if is_gone else ""

    def _after_fork(self) -> None:
        lifetime.inherit(self._loop)
        self._loop = self._room = self._closing = self._dropped = None
        self._tell(_nothing, _nothing)
        super()._after_fork()

    def _check_loop(self) -> None:
        assert self._loop is not None
        if self._report is not None:
            raise self._closed_error()
        if self._loop.is_closed():
            events = counted(self._total().unsettled, "event")
            raise RuntimeError(
                f"the event loop of this producer was closed before it, with {events} not acknowledged: use "
                "`async with`, or await close(), on that loop"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this producer belongs to another event loop: create one producer per loop")

    def _start(self) -> None:
        if self._closed:
            raise self._closed_error()
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        _started.add(self)
        self._engine = self._new_engine(threadsafe=False)

    def _new_batch(self, req_guid: str | None = None, lane: int = 0) -> Batch:
        assert self._loop is not None
        req_guid = resolve_guid(req_guid)
        batch = self._empty_batch()
        future: asyncio.Future[Any] = self._loop.create_future()
        receipt = AsyncReceipt(req_guid, future)
        if (tracing := self._options.settings.tracing) is not None:
            batch.settlement = Settlement(receipt, lane=lane)
            batch.settlement.trace = tracing.of_batch(req_guid)
        batch.receipt = receipt
        on_delivery = self._lanes[lane].on_delivery
        if on_delivery is not None:
            receipt.add_done_callback(on_delivery)
        return batch

    def _batch_cost(self, lane: LaneOptions) -> int:
        return _BATCH_COST if lane.on_delivery is None else _BATCH_COST + _CALLBACK_COST

    def _wait_for_room(self, size: int, lane: int) -> Any:
        if self._room is None:
            assert self._loop is not None
            self._room = self._loop.create_future()
        return _FULL

    async def _when_room(self, lane: int, accept: Callable[[], Any]) -> Any:
        deadline_s = time.monotonic() + self._lanes[lane].block_timeout_s
        while True:
            await self._wait_until(deadline_s, lane)
            receipt = accept()
            if receipt is not _FULL:
                return receipt

    async def _wait_until(self, deadline_s: float, lane: int) -> None:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise self._full(lane)
        if self._room is not None:
            # Not wait_for, which before Python 3.12 loses a cancellation that arrives together with the room.
            await asyncio.wait([self._room], timeout=min(remaining_s, _SPILL_AGAIN_S))
        if self._room is not None:
            self._spill(lane)

    def _room_made(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _settled_receipt(self, response: Response) -> AsyncReceipt:
        assert self._loop is not None
        future: asyncio.Future[Any] = self._loop.create_future()
        future.set_result(response)
        return AsyncReceipt("", future)

    def _tell_if_left_open(self) -> None:
        # A forked child inherits these from its parent.
        if self.__dict__.get("_pid") != os.getpid() or self._report is not None:
            return
        self._pid = 0  # once
        self._meter.end(self)
        unsettled = self._total().unsettled
        if unsettled:
            self._options.settings.logger.error(
                "an AsyncProducer was left open with %s not acknowledged; use `async with`, or await close()",
                counted(unsettled, "event"),
            )

    @property
    def _dropped_receipt(self) -> AsyncReceipt:
        if self._dropped is None:
            assert self._loop is not None
            future: asyncio.Future[Any] = self._loop.create_future()
            future.set_exception(DroppedError("dropped: the buffer was full"))
            future.exception()
            self._dropped = AsyncReceipt("", future)
        return self._dropped


def _nothing(_: object = None, lane: int = 0) -> None:
    pass


# The original methods, even if something replaces them in the class later.
_EMIT = AsyncProducer.emit
_EMIT_MANY = AsyncProducer.emit_many
_started: weakref.WeakSet[AsyncProducer] = weakref.WeakSet()


def _tell_of_those_left_open() -> None:
    for producer in [*_started]:
        producer._tell_if_left_open()  # noqa: SLF001


atexit.register(_tell_of_those_left_open)
