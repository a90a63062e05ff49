"""Traces with OpenTelemetry's API: the trace context of requests, and a span per request or batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.client_info import client_info

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from raccoon_fast.logs import Log
    from raccoon_fast.net.address import Address

__all__ = ["HEADERS", "Trace", "Tracing", "new_tracing"]

#: Headers of W3C's Trace Context (https://www.w3.org/TR/trace-context/).
HEADERS = ("traceparent", "tracestate")
_NONE: Mapping[str, str] = {}


def new_tracing(logger: Log, *, propagate: bool, spans: bool) -> Tracing | None:
    """Make the tracing that the options request; None if they request none.

    Raises:
        ImportError: opentelemetry-api is not installed.
    """
    if not propagate and not spans:
        return None
    try:
        return Tracing(logger, propagate=propagate, spans=spans)
    except ImportError as error:
        what = "propagate=True" if propagate else "spans=True"
        raise ImportError(f"{what} needs one more package: pip install 'raccoon_fast[opentelemetry]'") from error


class Tracing:
    """Begins traces, in the sender's thread and context. Errors of the SDK are logged once, and have no other effect.

    Args:
        logger: See above.
        propagate: Whether requests carry the trace context.
        spans: Whether to create a span per request or batch.
    """

    def __init__(self, logger: Log, *, propagate: bool, spans: bool) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._log = logger
        self._failed = False
        self._api = trace
        self._tracer = trace.get_tracer("raccoon_fast", client_info().version) if spans else None
        self._propagator = TraceContextTextMapPropagator() if propagate else None

    def of_request(self, req_guid: str, count: int, nbytes: int, address: Address) -> Trace | None:
        """The trace of one request; its span is a child of the current one."""
        trace = self._begun(req_guid, is_batch=False)
        if trace is not None:
            trace.sent(count, nbytes, address)
        return trace

    def of_batch(self, req_guid: str) -> Trace | None:
        """The trace of a batch that gets its first event.

        A batch has events of many spans, so its own span starts a new trace, with a link to the current span. Without
        spans, its requests carry the context of the current span.
        """
        return self._begun(req_guid, is_batch=True)

    def _begun(self, req_guid: str, *, is_batch: bool) -> Trace | None:
        try:
            return self._new(req_guid, is_batch=is_batch)
        except Exception as error:  # noqa: BLE001 - a fault of the SDK, or of a processor in it, must not cost an event
            self.failed(error)
            return None

    def _new(self, req_guid: str, *, is_batch: bool) -> Trace:
        api, span, context = self._api, None, None
        if self._tracer is not None:
            options: dict[str, Any] = {}
            if is_batch:
                from opentelemetry.context import Context

                current = api.get_current_span().get_span_context()
                options = {"context": Context(), "links": [api.Link(current)] if current.is_valid else []}
            # Names of https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
            attributes = {
                "messaging.system": "raccoon",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.message.id": req_guid,
            }
            span = self._tracer.start_span("send raccoon", kind=api.SpanKind.CLIENT, attributes=attributes, **options)
            context = api.set_span_in_context(span)
        headers: dict[str, str] = {}
        if self._propagator is not None:
            self._propagator.inject(headers, context)
        return Trace(self, headers or _NONE, span)

    def failed(self, error: Exception) -> None:
        """Log a fault once."""
        if not self._failed:
            self._failed = True
            self._log.warning("tracing failed: %r; further failures are not logged", error)

    def error_status(self, error: BaseException) -> Any:
        """The status of a span that ended with this outcome."""
        return self._api.Status(self._api.StatusCode.ERROR, str(error))


class Trace:
    """The trace of one request or batch, over all its attempts.

    Attributes:
        headers: The headers of each of its requests.
    """

    __slots__ = ("_span", "_tracing", "headers")

    def __init__(self, tracing: Tracing, headers: Mapping[str, str], span: Any) -> None:
        self._tracing = tracing
        self._span = span
        self.headers = headers

    def sent(self, count: int, nbytes: int, address: Address) -> None:
        """Note the server; the last attempt wins."""
        if self._span is None:
            return
        try:
            self._span.set_attribute("messaging.batch.message_count", count)
            self._span.set_attribute("messaging.message.body.size", nbytes)
            self._span.set_attribute("server.address", address.unix_path or address.host)
            self._span.set_attribute("server.port", address.port)
        except Exception as error:  # noqa: BLE001 - as in Tracing
            self._tracing.failed(error)

    def end(self, error: BaseException | None) -> None:
        """The request or batch was acknowledged, or failed with `error`."""
        span, self._span = self._span, None
        if span is None:
            return
        try:
            if error is not None:
                span.set_status(self._tracing.error_status(error))
                span.set_attribute("error.type", type(error).__name__)
                if (attempts := getattr(error, "attempts", 0)) > 0:
                    span.set_attribute("raccoon_fast.attempts", attempts)
            span.end()
        except Exception as failure:  # noqa: BLE001 - as in Tracing
            self._tracing.failed(failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)
