"""One request at a time over REST, and what to do when it is not acknowledged.

    pip install raccoon_fast
    RACCOON_FAST_URL=http://localhost:8080 python examples/rest_client.py

It exits with 75 (EX_TEMPFAIL) if it is sure that nothing was delivered, and with 1 if something may have been.
"""

from __future__ import annotations

import os
import sys

from raccoon_fast import JSON, App, DeliveryError, Outcome, RestClient, RetryPolicy


def main() -> int:
    with RestClient(
        os.environ.get("RACCOON_FAST_URL", "http://localhost:8080"),
        serializer=JSON,
        app=App("shop-1", "shop", "1.0"),
        timeout=5.0,
        retry=RetryPolicy(max_attempts=3, initial=0.2),
    ) as client:
        try:
            req_guid, response = client.send([("page", {"name": "home"}), ("click", {"x": 3, "y": 4})])
        except DeliveryError as error:
            print(f"{error.req_guid}: {error} after {error.attempts} attempts", file=sys.stderr)
            return os.EX_TEMPFAIL if error.outcome is Outcome.NOT_DELIVERED else 1
        print(f"{req_guid}: {response.status.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
