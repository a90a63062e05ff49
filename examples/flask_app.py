"""A web application that emits an event for each request, under gunicorn with several workers.

    pip install flask gunicorn 'raccoon_fast[prometheus]'
    RACCOON_FAST_URL=ws://localhost:8080 gunicorn --preload --workers 4 --chdir examples flask_app:app

The producer is made once, before gunicorn forks: each worker starts its own connection with its first event. A worker
that ends, at SIGTERM or at --max-requests, sends what it still has.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from raccoon_fast import JSON, BufferFull, Producer, Prometheus

app = Flask(__name__)
url = os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080")
# An outage of the server must not become one of the application: when the buffer is full, `emit` raises at once.
producer = Producer(url, serializer=JSON, overflow="raise", stats=Prometheus())


@app.get("/page/<name>")
def page(name: str) -> str:
    try:
        producer.emit("page", {"name": name, "agent": request.headers.get("User-Agent", "")})
    except BufferFull:
        app.logger.warning("an event was not accepted: %s", producer.health().reasons)
    return f"this is {name}\n"


@app.get("/live")
def live() -> Response:
    return jsonify(ok=True)  # a restart would not mend the event server, and would lose the events that wait


@app.get("/ready")
def ready() -> Response:
    # Ready while the event server is down: the application serves its users, and the events wait. Who watches events
    # reads the rest of the answer, and the metrics.
    health = producer.health()
    return jsonify(ok=True, events={"ok": health.ok, "reasons": health.reasons})


@app.get("/metrics")
def metrics() -> Response:
    # Of the worker that answers; for all of them see prometheus_client on PROMETHEUS_MULTIPROC_DIR.
    return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
