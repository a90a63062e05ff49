"""Tasks that emit events, in Celery's prefork pool.

    pip install celery raccoon_fast
    RACCOON_FAST_URL=ws://localhost:8080 celery --workdir examples --app celery_app worker --concurrency 4

The producer is made once, where the tasks are; each process of the pool starts its own connection with its first event.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_process_shutdown

from raccoon_fast import JSON, Producer

app = Celery("shop", broker=os.environ.get("BROKER_URL", "amqp://localhost"))
producer = Producer(os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080"), serializer=JSON)


@app.task
def place_order(number: int) -> None:
    producer.emit("order", {"number": number})


@worker_process_shutdown.connect
def close_producer(**_: object) -> None:
    # Celery ends its processes by os._exit, without Python's exit at which a producer closes by itself.
    total = producer.close().total
    print(f"{total.accepted} accepted, {total.acked} acknowledged, {total.lost} lost", flush=True)
