"""The transport of null://: answers every request at once, and sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.events import Code, Response, Status
from raccoon_fast.net.address import Address
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Transport

if TYPE_CHECKING:
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Request

__all__ = ["DISCARDED", "NULL_ADDRESS", "NULL_URL", "NullTransport"]

NULL_URL = "null://"
#: Counts as secure, so that TLS options may stay in place while a deployment is turned off.
NULL_ADDRESS = Address("null", "", 0, "", secure=True)
#: The answer to every request. It names no request, so that `acks()` and stats do not count it as a server's answer.
DISCARDED = Response(Status.SUCCESS, Code.OK, reason="discarded: nothing is sent to null://")


class NullTransport(Transport):
    """Sends nothing."""

    async def send(self, request: Request, timeout_s: float) -> Response:
        """See Transport.send."""
        return DISCARDED

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """See Transport.start."""
        attempt = Attempt()
        attempt.set_result(DISCARDED)
        return attempt

    async def close(self) -> None:
        """See Transport.close."""
