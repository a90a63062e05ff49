"""Protobuf messages over gRPC, from a program with an event loop.

    pip install raccoon_fast
    RACCOON_FAST_URL=grpc://localhost:8081 python examples/grpc_client.py

PROTO, the default serializer, takes messages of your own generated classes as well as google.protobuf's.
"""

from __future__ import annotations

import asyncio
import os

from google.protobuf.struct_pb2 import Struct

from raccoon_fast import AsyncGrpcClient


async def main() -> None:
    order = Struct()
    order.update({"number": 7, "total": 12.5})
    async with AsyncGrpcClient(os.environ.get("RACCOON_FAST_URL", "grpc://localhost:8081"), group="shop") as client:
        results = await asyncio.gather(*(client.send([("order", order)]) for _ in range(10)))
    print(f"{len(results)} requests acknowledged")


if __name__ == "__main__":
    asyncio.run(main())
