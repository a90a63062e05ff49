"""The collector's faults as switches: by name, with JSON arguments and their state."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from raccoon_fast.collector.fault_table import FaultTable, Refusal
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.options import check_number

__all__ = ["FaultSwitches", "LiveNetwork", "describe"]

_MAX_REFUSE_S = 3600.0
# The answer to a request to close every connection uses one of them.
_ANSWER_FIRST_S = 0.1


class LiveNetwork(Protocol):
    """The actions of faults on the collector's sockets, from within its event loop."""

    is_refusing: bool

    def close_connections(self) -> Coroutine[Any, Any, None]:
        """End every live connection."""

    def refuse(self) -> Coroutine[Any, Any, None]:
        """Stop listening."""

    def accept(self) -> Coroutine[Any, Any, None]:
        """Listen again."""


class _Fault(NamedTuple):
    """A method of Faults, and its arguments with initial values for the page."""

    name: str
    arguments: Mapping[str, object] = {}
    has_times: bool = True


# html_502 is status with another body. The last two act at once. refuse ends by itself, because a client that is not
# connected yet could not end it.
_FAULTS = (
    _Fault("drop_acks"),
    _Fault("delay", {"seconds": 1.0}),
    _Fault("hang_up"),
    _Fault("duplicate_acks"),
    _Fault("reorder_acks"),
    _Fault("wrong_guid"),
    _Fault("unknown_acks"),
    _Fault("cut_answers", {"after_bytes": 10}),
    _Fault("bad_answer", {"body": "<html>no raccoon</html>"}),
    _Fault("fail_publish", {"rate": 1.0}),
    _Fault("status", {"status": 503, "retry_after": None}),
    _Fault("early_error", {"status": 503}),
    _Fault("too_large", {"max_bytes": 1000}),
    _Fault("reject_events", {"event_type": "page"}),
    _Fault("stop_ponging"),
    _Fault("refuse", {"seconds": 10.0}, has_times=False),
    _Fault("close_connections", has_times=False),
)
_BY_NAME = {fault.name: fault for fault in _FAULTS}


class FaultSwitches:
    """Used on the collector's event loop.

    Args:
        faults: Checks arguments, and switches faults on.
        table: Has the active faults.
        network: Refuses and closes connections.
    """

    def __init__(self, faults: Faults, table: FaultTable, network: LiveNetwork) -> None:
        self._faults = faults
        self._table = table
        self._network = network
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def on(self) -> list[str]:
        """The names of active faults."""
        return [*self._table.switched_on, *(["refuse"] if self._network.is_refusing else [])]

    @property
    def state(self) -> list[dict[str, Any]]:
        """All faults, in the order to show them: fault, description, arguments, on, value, times_left, happened."""
        switched_on, happened = self._table.switched_on, self._table.fired
        on = self.on
        rows = []
        for fault in _FAULTS:
            value, times_left = switched_on.get(fault.name, (None, None))
            rows.append(
                {
                    "fault": fault.name,
                    "description": describe(fault.name),
                    "arguments": fault.arguments,
                    "has_times": fault.has_times,
                    "on": fault.name in on,
                    "value": _plain(value),
                    "times_left": times_left,
                    "happened": happened.get(fault.name, 0),
                }
            )
        return rows

    async def switch(self, order: Mapping[str, Any]) -> None:
        """Do as `order` says: {"fault": NAME, "on": true, "times": N, ARGUMENT: VALUE…}.

        Without a name, all faults are switched off.

        Raises:
            ValueError, TypeError: The order is invalid; the message says why.
        """
        arguments = dict(order)
        name = arguments.pop("fault", None)
        is_on = arguments.pop("on", True)
        if not isinstance(is_on, bool):
            raise TypeError(f"on must be true or false, not {is_on!r}")
        if name is None and not is_on and not arguments:
            self._table.clear()
            await self._accept()
            return
        fault = _BY_NAME.get(name) if isinstance(name, str) else None
        if fault is None:
            raise ValueError(f"fault must be one of {', '.join(_BY_NAME)}, not {name!r}")
        allowed = {*fault.arguments, *(["times"] if fault.has_times else [])}
        if unknown := sorted(arguments.keys() - allowed):
            raise ValueError(f"{name} takes {', '.join(sorted(allowed)) or 'no arguments'}, not {', '.join(unknown)}")
        if is_on:
            await self._switch_on(fault.name, {**fault.arguments, **arguments})
        elif name == "refuse":
            await self._accept()
        else:
            self._table.clear(name)

    async def close(self) -> None:
        """End background tasks."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _switch_on(self, name: str, arguments: dict[str, Any]) -> None:
        if name == "refuse":
            check_number("seconds", arguments["seconds"], low=0, high=_MAX_REFUSE_S, open_low=True)
            async with self._lock:
                await self._network.refuse()
            self._cancel_timer()
            self._timer = self._loop.call_later(arguments["seconds"], self._start, self._accept)
        elif name == "close_connections":
            self._loop.call_later(_ANSWER_FIRST_S, self._start, self._network.close_connections)
        else:
            if name == "bad_answer" and isinstance(arguments["body"], str):
                arguments["body"] = arguments["body"].encode()
            getattr(self._faults, name)(**arguments)

    async def _accept(self) -> None:
        self._cancel_timer()
        async with self._lock:
            await self._network.accept()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(action())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def describe(name: str) -> str:
    """A fault's description in one line."""
    return (inspect.getdoc(getattr(Faults, name)) or "").partition("\n")[0]


def _plain(value: Any) -> Any:
    """A fault's argument in JSON form; None for a fault without one."""
    if isinstance(value, Refusal):
        return value.status
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is True else value
