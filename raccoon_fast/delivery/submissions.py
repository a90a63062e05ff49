"""Requests that other threads submit to a client's event loop, handed over together."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.delivery.promise import Promise
from raccoon_fast.delivery.wake import Wake
from raccoon_fast.errors import ClientClosedError
from raccoon_fast.events import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.delivery.attempts import Delivery
    from raccoon_fast.delivery.loop_thread import LoopThread
    from raccoon_fast.logs import Log
    from raccoon_fast.transports.base import Request

__all__ = ["Submission", "Submissions"]


class Submission(Promise[Response]):
    """The outcome of a submitted request. A failure is logged, so that it shows even if nobody asks for it.

    Attributes:
        req_guid: The request's guid.
        request: The request; None once it is settled, so that a kept receipt does not keep the request's buffer.
    """

    __slots__ = ("_logger", "req_guid", "request")

    def __init__(self, request: Request, logger: Log) -> None:
        self._is_done = False
        self._result = None
        self._error = None
        self._callbacks = []
        self._logger = logger
        self.req_guid = request.req_guid
        self.request: Request | None = request

    def succeed(self, response: Response) -> None:
        """The request was acknowledged."""
        self.request = None
        self._result = response
        self._is_done = True
        if self._callbacks:
            self._call_back()

    def fail(self, error: BaseException) -> None:
        """The request will not be acknowledged."""
        request, self.request = self.request, None
        if request is not None and request.trace is not None:
            request.trace.end(error)
        self._logger.warning("request %s was not acknowledged: %s", self.req_guid, error)
        self.set_exception(error)


class Submissions:
    """Hands requests over to the event loop of a LoopThread, with one wake-up for all that wait.

    There is no lock: requests wait in a deque, from which each is taken once, to be delivered or to be refused.

    Args:
        thread: The thread; `end` must be called at its end.
        start: Called on the loop; returns the client's Delivery.
        logger: Logs failed requests.
    """

    def __init__(self, thread: LoopThread, start: Callable[[], Delivery], logger: Log) -> None:
        self._thread = thread
        self._start = start
        self._logger = logger
        self._waiting: deque[Submission] = deque()
        self._wake = Wake(thread.loop.call_soon_threadsafe, self._begin)
        self._delivery: Delivery | None = None

    def submit(self, request: Request) -> Submission:
        """Deliver a request in the background. Thread-safe.

        Raises:
            ClientClosedError: The loop has ended. Everything submitted before is settled.
        """
        submission = Submission(request, self._logger)
        try:
            self._waiting.append(submission)
            self._wake.ask()
        except BaseException:  # a Ctrl-C
            self._take_back(submission)
            raise
        if self._thread.is_over and self._take_back(submission):
            raise ClientClosedError("the client was closed")
        return submission

    def end(self) -> None:
        """The loop has ended: settle everything with ClientClosedError."""
        while self._waiting:
            try:
                submission = self._waiting.popleft()
            except IndexError:  # another thread took it back
                break
            submission.fail(ClientClosedError("the client was closed"))
        if self._delivery is not None:
            self._delivery.abandon()

    def _take_back(self, submission: Submission) -> bool:
        """Whether nothing was done with it, and nothing will be."""
        try:
            self._waiting.remove(submission)
        except ValueError:
            return False
        return True

    # On the loop

    def _begin(self) -> None:
        waiting = self._waiting
        count = len(waiting)  # one that comes later asks again
        delivery: Delivery | None = None
        try:
            for _ in range(count):
                try:
                    submission = waiting.popleft()
                except IndexError:  # another thread took it back
                    return
                try:
                    if delivery is None:
                        delivery = self._delivery = self._start()
                        if count > 1:
                            delivery.hold()
                    delivery.begin(submission)
                except BaseException as error:  # noqa: BLE001 - any error is the outcome of the request
                    submission.fail(error)
        finally:
            if count > 1 and delivery is not None:
                delivery.release()
