"""A web application on asyncio, whose producer lives as long as the application does.

    pip install fastapi uvicorn 'raccoon_fast[prometheus]'
    RACCOON_FAST_URL=ws://localhost:8080 uvicorn --app-dir examples fastapi_app:app

Every worker process has a producer of its own, on the worker's event loop. At shutdown, when the last request was
answered, it sends what it still has.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from raccoon_fast import JSON, AsyncProducer, BufferFull, Prometheus


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080")
    async with AsyncProducer(url, serializer=JSON, stats=Prometheus()) as producer:
        app.state.producer = producer
        yield
    total = producer.report.total
    print(f"{total.accepted} accepted, {total.acked} acknowledged, {total.lost} lost", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/page/{name}")
async def page(name: str, request: Request) -> dict[str, str]:
    try:
        # Not `await emit(…)`, which waits for room: a request must not wait for the server of events.
        request.app.state.producer.emit_nowait("page", {"name": name, "agent": request.headers.get("user-agent", "")})
    except BufferFull:
        logging.getLogger(__name__).warning("an event was not accepted: the buffer is full")
    return {"page": name}


@app.get("/live")
async def live() -> dict[str, bool]:
    return {"ok": True}  # a restart would not mend the event server, and would lose the events that wait


@app.get("/ready")
async def ready(request: Request) -> dict[str, object]:
    # Ready while the event server is down: the application serves its users, and the events wait. Who watches events
    # reads the rest of the answer, and the metrics.
    health = request.app.state.producer.health()
    return {"ok": True, "events": {"ok": health.ok, "reasons": health.reasons}}


@app.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
