"""A web application that emits an event for each request, under gunicorn with several workers.

    pip install flask gunicorn raccoon_fast
    RACCOON_URL=ws://localhost:8080 gunicorn --preload --workers 4 --chdir examples flask_app:app

The producer is made once, before gunicorn forks: each worker starts its own connection with its first event. A worker
that ends, at SIGTERM or at --max-requests, sends what it still has.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from raccoon_fast import JSON, BufferFull, Producer

app = Flask(__name__)
# An outage of the server must not become one of the application: when the buffer is full, `emit` raises at once.
producer = Producer(os.environ.get("RACCOON_URL", "ws://localhost:8080"), serializer=JSON, overflow="raise")


@app.get("/page/<name>")
def page(name: str) -> str:
    try:
        producer.emit("page", {"name": name, "agent": request.headers.get("User-Agent", "")})
    except BufferFull:
        app.logger.warning("an event was not accepted: %s", producer.health().reasons)
    return f"this is {name}\n"


@app.get("/ready")
def ready() -> tuple[Response, int]:
    health = producer.health()
    return jsonify(ok=health.ok, reasons=health.reasons), 200 if health.ok else 503
