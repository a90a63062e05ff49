"""A dataset of Ray's, written as events.

pip install 'raccoon_fast[ray]'
RACCOON_FAST_URL=ws://localhost:8080 python examples/engines/ray_write.py
"""

from __future__ import annotations

import os

import ray

from raccoon_fast.integrations.ray import RaccoonDatasink


def main() -> None:
    url = os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080")
    orders = ray.data.from_items(
        [
            {"type": "order", "id": 1, "amount": 9.5},
            {"type": "order", "id": 2, "amount": 20.0},
            {"type": "refund", "id": 1, "amount": 9.5},
        ]
    )
    orders.write_datasink(RaccoonDatasink(url, type_column="type"))


if __name__ == "__main__":
    main()
