"""gRPC: the one method SendEvent, on a grpc.aio server that hands over raw bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio

from raccoon_fast.collector import answers
from raccoon_fast.collector.intake import Intake, first_values, with_wrong_guid
from raccoon_fast.collector.messages import PACKAGE
from raccoon_fast.collector.records import GRPC, Source
from raccoon_fast.collector.sockets import bind, bind_when_free

__all__ = ["GrpcServer"]

_SERVICE = f"{PACKAGE}.EventService"
_MAX_REQUEST_BYTES = 4 << 20  # grpc-go's default, which the server keeps

# Further than the server's, so that its own words can be answered; it protects memory.
_MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = (("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0))


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Listens, stops and listens again on one port; used on the collector's event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen; port 0 is one the OS picks.

        Raises:
            OSError: The port is taken.
        """
        options = self._intake.options
        if port:
            bind(options.host, port).close()  # grpc says less of what is wrong with a port, and says it on stderr
        server = grpc.aio.server(handlers=[self], options=_OPTIONS)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{host}:{port}"
        credentials = self._credentials()
        if credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, credentials)
        await server.start()
        self._server = server

    async def stop(self, grace_s: float | None = None) -> None:
        """Stop listening and end all calls and connections, calls after `grace_s`."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    async def restart(self) -> None:
        """End all connections and listen again on the same port; grpc has no other way to end them.

        Raises:
            OSError: The port stays taken.
        """
        await self.stop()
        (await bind_when_free(self._intake.options.host, self.port)).close()
        await self.start(self.port)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, grpc's hook: every unknown one is answered in the server's words."""
        _, service, method = handler_call_details.method.split("/")
        if service == _SERVICE and method == "SendEvent":
            return grpc.unary_unary_rpc_method_handler(self._send_event)
        known = service == _SERVICE
        words = f"unknown method {method} for service {service}" if known else f"unknown service {service}"

        async def refuse(data: bytes, context: Any) -> None:
            self._intake.ledger.rejected(self._source(context), "UNIMPLEMENTED", words, data=data)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, words)

        return grpc.unary_unary_rpc_method_handler(refuse)

    async def _send_event(self, data: bytes, context: Any) -> bytes:
        intake = self._intake
        source = self._source(context)

        async def refuse(code: str, words: str) -> NoReturn:
            intake.ledger.rejected(source, code, words, data=data)
            await context.abort(grpc.StatusCode[code], words)
            raise AssertionError("abort always raises")

        if (refusal := intake.faults.take("status")) is not None:
            await refuse(refusal.grpc_code, f"HTTP status {refusal.status}")
        limit = intake.faults.limits(len(data)) or _MAX_REQUEST_BYTES
        if len(data) > limit:
            await refuse("RESOURCE_EXHAUSTED", f"grpc: received message larger than max ({len(data)} vs. {limit})")
        try:
            request = intake.decode(data, answers.PROTO)
        except ValueError as error:
            await refuse("INTERNAL", f"grpc: error unmarshalling request: {error}")
        if not source.connection_id:
            await refuse("UNKNOWN", "connection id header missing")
        reason = await intake.taken(request, source)
        # The server tells of a failure without its reason here.
        answer = answers.failure(request.req_guid) if reason else answers.success(request.req_guid)
        return await self._spoil(answer, context)

    def _source(self, context: Any) -> Source:
        headers = first_values(pair for pair in context.invocation_metadata() if isinstance(pair[1], str))
        return self._intake.source(GRPC, headers)

    async def _spoil(self, answer: Any, context: Any) -> bytes:
        faults = self._intake.faults.for_answer()
        if faults is not None:
            if faults.hang_up:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
            if faults.drop:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(faults.delay_s)
            if faults.body is not None:
                return faults.body
            if faults.wrong_guid:
                answer = with_wrong_guid(answer)
        return answers.encode_answer(answer, answers.PROTO)

    def _credentials(self) -> grpc.ServerCredentials | None:
        options = self._intake.options
        if options.tls_cert is None or options.tls_key is None:
            return None
        pair = (Path(options.tls_key).read_bytes(), Path(options.tls_cert).read_bytes())
        client_ca = None if options.tls_client_ca is None else Path(options.tls_client_ca).read_bytes()
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
