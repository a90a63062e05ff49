"""A function that a platform calls now and then, and may freeze or end between two calls (AWS Lambda and its kin).

    pip install raccoon_fast
    echo '{"records": [{"name": "home"}]}' | RACCOON_FAST_URL=http://localhost:8080 python examples/short_job.py

The producer and its connections outlive a call, but nothing runs between two of them: each call waits until its events
are acknowledged. REST suits this best, since it has no connection that must be kept alive by answering pings.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from raccoon_fast import JSON, Producer

# What a call could not deliver expires with it: a later call must not send what was reported as failed.
producer = Producer(os.environ.get("RACCOON_FAST_URL", "http://localhost:8080"), serializer=JSON, delivery_timeout=5.0)


def handler(event: dict[str, Any], context: object = None) -> dict[str, int]:
    receipts = producer.emit_many(("visit", record) for record in event["records"])
    producer.flush(timeout=6.0)
    for receipt in receipts:
        receipt.result(timeout=0)  # raises what went wrong, and the platform may call again
    return {"acknowledged": len(event["records"])}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(handler(json.loads(line))), flush=True)
