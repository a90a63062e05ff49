"""A web application on asyncio, whose producer lives as long as the application does.

    pip install fastapi uvicorn raccoon_fast
    RACCOON_URL=ws://localhost:8080 uvicorn --app-dir examples fastapi_app:app

Every worker process has a producer of its own, on the worker's event loop. At shutdown, when the last request was
answered, it sends what it still has.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response

from raccoon_fast import JSON, AsyncProducer, BufferFull


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncProducer(os.environ.get("RACCOON_URL", "ws://localhost:8080"), serializer=JSON) as producer:
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


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, object]:
    health = request.app.state.producer.health()
    response.status_code = 200 if health.ok else 503
    return {"ok": health.ok, "reasons": health.reasons}
