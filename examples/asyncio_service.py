"""A service with an event loop of its own: lines come in over TCP, and each becomes an event.

    pip install raccoon_fast
    RACCOON_FAST_URL=ws://localhost:8080 python examples/asyncio_service.py 9000
    echo hello | nc localhost 9000

A client is slowed down while the producer has no room (`await emit`), so memory stays bounded. At SIGTERM or Ctrl-C it
takes no more lines, sends what it has, and says what became of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from raccoon_fast import RAW, AsyncProducer


async def serve(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async with AsyncProducer(os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080"), serializer=RAW) as producer:

        async def take_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for line in reader:
                await producer.emit("line", line.rstrip(b"\n"))
            writer.close()

        server = await asyncio.start_server(take_lines, "127.0.0.1", port)
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        await stop.wait()
        server.close()
    total = producer.report.total
    print(f"{total.accepted} accepted, {total.acked} acknowledged, {total.lost} lost", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 9000))
