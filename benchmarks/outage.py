"""Measures how soon real producers find a collector that was down for a while and is back.

        python benchmarks/outage.py            # ten producers per transport; outages of 3 s and 12 s
    python benchmarks/outage.py --down 30

The connections are reset and the port is closed, then opened again. The result is the time from the opening to the
first acknowledgement of each producer. For half of the producers it should be at most half of the outage, or 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from raccoon_fast import RAW, AsyncProducer
from raccoon_fast.collector import Collector

_EMIT_EVERY_S = 0.5
_WELL_S = 1.0
_LOOK_EVERY_S = 0.01


async def outage(down_s: float, producers: int) -> dict[str, list[float]]:
    """Seconds from the end of an outage to the first acknowledgement of each producer, by transport."""
    with Collector(sink="null") as collector:
        urls = {"WebSocket": collector.ws_url, "REST": collector.url, "gRPC": f"grpc://{collector.grpc_target}"}
        fleet = {
            transport: [AsyncProducer(url, serializer=RAW, logger=None) for _ in range(producers)]
            for transport, url in urls.items()
        }
        everyone = [producer for fleet_of in fleet.values() for producer in fleet_of]
        emitting = [asyncio.ensure_future(_emit_steadily(producer)) for producer in everyone]
        await asyncio.sleep(_WELL_S)
        collector.faults.refuse()
        collector.faults.close_connections()
        await asyncio.sleep(down_s)
        before = [producer.report.total.acked for producer in everyone]
        collector.faults.accept()
        back_s = time.monotonic()
        found = [-1.0] * len(everyone)
        while min(found) < 0.0:
            await asyncio.sleep(_LOOK_EVERY_S)
            for place, producer in enumerate(everyone):
                if found[place] < 0.0 and producer.report.total.acked > before[place]:
                    found[place] = time.monotonic() - back_s
        for task in emitting:
            task.cancel()
        await asyncio.gather(*(producer.close() for producer in everyone))
    return {transport: found[place * producers :][:producers] for place, transport in enumerate(fleet)}


async def _emit_steadily(producer: AsyncProducer) -> None:
    while True:
        await producer.emit("event", b"data")
        await asyncio.sleep(_EMIT_EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--down", type=float, nargs="+", default=[3.0, 12.0], metavar="S", help="seconds of each outage"
    )
    parser.add_argument("--producers", type=int, default=10, metavar="N", help="for each transport")
    chosen = parser.parse_args()
    print("| outage | transport | median | slowest | wanted |\n| --- | --- | ---: | ---: | ---: |")
    for down_s in chosen.down:
        for transport, found_s in asyncio.run(outage(down_s, chosen.producers)).items():
            figures = (statistics.median(found_s), max(found_s), max(1.0, down_s / 2))
            print(f"| {down_s:g} s | {transport} |", " | ".join(f"{seconds:.2f} s" for seconds in figures), "|")


if __name__ == "__main__":
    main()
