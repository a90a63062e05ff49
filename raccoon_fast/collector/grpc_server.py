"""The gRPC server with its only method, SendEvent."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from raccoon_fast.collector import answers
from raccoon_fast.collector.acceptor import Acceptor
from raccoon_fast.collector.decode_errors import MalformedRequest
from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.grpc_connection import MAX_REQUEST_BYTES, CallFailed, GrpcConnection, GrpcHandler
from raccoon_fast.collector.grpc_head import CallHead
from raccoon_fast.collector.grpc_status import GrpcCode
from raccoon_fast.collector.intake import Intake, first_values, ignore, with_wrong_guid
from raccoon_fast.collector.messages import PACKAGE
from raccoon_fast.collector.records import GRPC, Request, Source
from raccoon_fast.collector.sockets import bind, reset
from raccoon_fast.events import Code

__all__ = ["GrpcServer"]

_SERVICE = f"{PACKAGE}.EventService"
_POLL_S = 0.001


class GrpcServer(GrpcHandler):
    """Listens on one port, and can stop and listen again; used on the collector's event loop.

    Args:
        intake: Accepts requests.
        context: The TLS context; None accepts plain text.
    """

    def __init__(self, intake: Intake, context: ssl.SSLContext | None) -> None:
        self._intake = intake
        self._context = context
        self._connections: set[GrpcConnection] = set()
        self._acceptor: Acceptor | None = None
        self.port = 0

    def start(self, port: int) -> None:
        """Listen on `port`; 0 lets the OS pick one.

        Raises:
            OSError: The port is taken.
        """
        listening = bind(self._intake.options.host, port)
        self.port = listening.getsockname()[1]
        self._acceptor = Acceptor(listening, self._new_connection, self._context)

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop listening and end all connections; calls have `grace_s` seconds to end."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            await acceptor.close()
        calls = [task for connection in self._connections for task in connection.busy_calls]
        if calls and grace_s:
            await asyncio.wait(calls, timeout=grace_s)
        for connection in list(self._connections):
            if connection.transport is not None:
                connection.transport.close()
        await self._until_disconnected(grace_s)
        self.reset_connections()
        await self._until_disconnected(1.0)

    async def abort_opening(self) -> None:
        """End connections whose handshake is not complete."""
        if self._acceptor is not None:
            await self._acceptor.abort_opening()

    def reset_connections(self) -> None:
        """End every connection with a reset."""
        for connection in list(self._connections):
            if connection.transport is not None:
                reset(connection.transport)

    async def _until_disconnected(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while self._connections and loop.time() < deadline_s:  # noqa: ASYNC110 - closed by their peers
            await asyncio.sleep(_POLL_S)

    def _new_connection(self) -> GrpcConnection:
        return GrpcConnection(self, self._connections)

    # Calls.

    def begin(self, head: CallHead) -> None:
        """Check the method's name, as grpc-go does before it reads the message."""
        service, slash, method = head.path.removeprefix("/").rpartition("/")
        if not slash:
            words = f'malformed method name: "{head.path}"'
        elif service != _SERVICE:
            words = f"unknown service {service}"
        elif method != "SendEvent":
            words = f"unknown method {method} for service {service}"
        elif head.encoding not in ("", "identity"):
            words = f'grpc: Decompressor is not installed for grpc-encoding "{head.encoding}"'
        else:
            return
        self.refused(head, "UNIMPLEMENTED", words)
        raise CallFailed(GrpcCode.UNIMPLEMENTED, words)

    def refused(self, head: CallHead | None, code: str, reason: str) -> None:
        """Record the refusal in the ledger."""
        self._intake.ledger.rejected(self._source(head), code, reason)

    def answer_at_once(self, head: CallHead, message: bytes) -> bytes | None:
        """Answer a message if that requires no waiting."""
        intake = self._intake
        if not (intake.faults.is_empty and intake.publisher.is_immediate):
            return None
        source = self._source(head)
        request = self._decode(head, message, source)
        intake.take(request, source, ignore)
        intake.ledger.acknowledged()
        return answers.encode_answer(answers.success(request.req_guid), answers.PROTO)

    async def answer(self, head: CallHead, message: bytes) -> bytes:
        """Answer a message, with the active faults applied to the answer."""
        intake = self._intake
        source = self._source(head)

        def unread() -> Target:
            return intake.target(message, answers.PROTO, source)

        if (refusal := intake.faults.take("status", unread)) is not None:
            raise self._failed(source, refusal.grpc_code, f"HTTP status {refusal.status}", message)
        if (limit := intake.faults.limits(len(message), unread)) is not None:
            words = f"grpc: received message larger than max ({len(message)} vs. {min(limit, MAX_REQUEST_BYTES)})"
            raise self._failed(source, "RESOURCE_EXHAUSTED", words, message)
        request = self._decode(head, message, source)
        reason = await intake.taken(request, source)
        # Here the server reports a failure without a reason.
        answer = answers.failure(request.req_guid) if reason else answers.success(request.req_guid)
        return await self._spoil(answer, Target(source, request.req_guid, len(request.message.events)))

    def _decode(self, head: CallHead, message: bytes, source: Source) -> Request:
        try:
            request = self._intake.decode(message, answers.PROTO, source)
        except MalformedRequest as error:
            words = f"grpc: error unmarshalling request: {error}"
            raise self._failed(source, "INTERNAL", words, message) from None
        if self._intake.id_header not in source.headers:  # an empty header is enough
            raise self._failed(source, "UNKNOWN", "connection id header missing", message)
        return request

    def _failed(self, source: Source, code: str, reason: str, data: bytes) -> CallFailed:
        self._intake.ledger.rejected(source, code, reason, data=data)
        return CallFailed(GrpcCode[code], reason)

    def _source(self, head: CallHead | None) -> Source:
        return self._intake.source(GRPC, {} if head is None else first_values(head.metadata))

    async def _spoil(self, answer: Any, target: Target) -> bytes:
        faults = self._intake.faults.for_answer(lambda: target)
        if faults is not None:
            if faults.hang_up:
                raise CallFailed(GrpcCode.UNAVAILABLE, "Connection reset by peer")
            if faults.drop:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(faults.delay_s)
            if faults.body is not None:
                return faults.body
            if faults.wrong_guid:
                answer = with_wrong_guid(answer)
        if answer.code == Code.OK and not (faults and faults.wrong_guid):
            self._intake.ledger.acknowledged()
        return answers.encode_answer(answer, answers.PROTO)
