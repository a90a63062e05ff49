"""Many requests in flight on one WebSocket, and their acknowledgements as they come.

    pip install raccoon_fast
    RACCOON_FAST_URL=ws://localhost:8080 python examples/websocket_client.py

One thread follows the acknowledgements while another sends.
"""

from __future__ import annotations

import os
import threading

from raccoon_fast import JSON, WebSocketClient


def main() -> None:
    with WebSocketClient(os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080"), serializer=JSON) as client:
        acks = client.acks()

        def follow() -> None:
            slowest_ms = max(ack.ack_ms for ack in acks)  # ends when the client is closed
            print(f"the slowest acknowledgement took {slowest_ms:.1f} ms", flush=True)

        follower = threading.Thread(target=follow)
        follower.start()
        receipts = [client.submit([("tick", {"number": number})]) for number in range(100)]
        failed = [receipt for receipt in receipts if receipt.exception(timeout=60) is not None]
        print(f"{len(receipts) - len(failed)} of {len(receipts)} requests acknowledged", flush=True)
    follower.join()


if __name__ == "__main__":
    main()
