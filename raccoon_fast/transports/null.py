"""The transport of null://: every request is answered at once, and nothing is sent."""

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
#: Counts as secure, so that options for TLS may stay where they are while a deployment is turned off.
NULL_ADDRESS = Address("null", "", 0, "", secure=True)
#: What every request is answered with. It names no request, so that neither `acks()` nor stats take it for a server's.
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
