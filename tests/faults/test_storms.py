"""Many clients lose their server at the same time, and a process runs out of file descriptors."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import pytest
import uvloop
from patience import patient
from program import finish, start

from raccoon_fast import RAW, AsyncProducer, Producer, RetryPolicy
from raccoon_fast.collector import Collector
from raccoon_fast.delivery.endpoints import Endpoint
from raccoon_fast.net.address import parse_address

CLIENTS = 200


def test_clients_that_lost_their_server_come_back_spread_out() -> None:
    """All lose it at the same moment, and their next attempts are spread evenly over the available time."""
    ready_s = []
    for _ in range(1000):
        one = Endpoint(parse_address("ws://h", "WebSocket"), [], RetryPolicy(initial=10.0, maximum=30.0), 1.0)
        one.failed(ConnectionError("down"), 0.0, 100.0)
        ready_s.append(one.ready_s(100.0))
    shares = Counter(int(at_s - 100.0) for at_s in ready_s)
    assert set(shares) == set(range(10))
    assert max(shares.values()) < 200  # 100 in each second, but for chance


def test_an_hour_without_a_server_costs_a_few_hundred_attempts() -> None:
    """Only a timer runs between two attempts."""
    policy = Producer("ws://h")._options.retry
    one = Endpoint(parse_address("ws://h", "WebSocket"), [], policy, 1.0)
    now_s, attempts = 0.0, 0
    while now_s < 3600.0:
        one.failed(ConnectionError("down"), now_s, now_s)
        attempts += 1
        now_s = max(now_s + 0.001, one.ready_s(now_s))
    assert 120 < attempts < 500


def test_a_storm_of_clients_is_weathered() -> None:
    async def main(collector: Collector) -> None:
        producers = [
            AsyncProducer(
                collector.ws_url,
                serializer=RAW,
                logger=None,
                linger=0.001,
                retry=RetryPolicy(1000, initial=0.2, maximum=0.2),
            )
            for _ in range(CLIENTS)
        ]
        for producer in producers:
            await producer.emit("before", b"x")
        assert [await producer.flush() for producer in producers] == [0] * CLIENTS
        await asyncio.to_thread(collector.faults.refuse)
        await asyncio.to_thread(collector.faults.close_connections)
        for producer in producers:
            await producer.emit("meanwhile", b"x")
        while any(producer.health().ok for producer in producers):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(collector.faults.accept)
        assert [await producer.flush() for producer in producers] == [0] * CLIENTS
        reports = [await producer.close() for producer in producers]
        assert {report.total.acked for report in reports} == {2}

    loop = uvloop.new_event_loop()
    with Collector() as collector:
        loop.run_until_complete(asyncio.wait_for(main(collector), patient(50)))
        loop.close()
        assert Counter(event.type for event in collector.events) == {"before": CLIENTS, "meanwhile": CLIENTS}


OUT_OF_DESCRIPTORS = """
import os, resource, sys, time
from raccoon_fast import RAW, Producer, RetryPolicy

policy = RetryPolicy(1000, initial=0.1, maximum=0.1)
producer = Producer(sys.argv[1], serializer=RAW, logger=None, linger=0.001, retry=policy)
producer.emit("page", b"1")
assert producer.flush() == 0
print("flushed", flush=True)
sys.stdin.readline()  # the server has closed the connections
while producer._engine.connections:  # once the producer knows, none of them gives a descriptor back
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
receipt = producer.emit("page", b"2")
began_s = time.monotonic()
while producer.stats().retries < 5:
    assert time.monotonic() < began_s + float(sys.argv[2]), producer.health()
    time.sleep(0.01)
attempts_a_second = producer.stats().retries / (time.monotonic() - began_s)
assert not producer.health().ok and not receipt.done()
for number in held:
    os.close(number)
assert producer.flush() == 0
total = producer.close().total
print(total.acked, total.lost, attempts_a_second < 200)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no RLIMIT_NOFILE on Windows")
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_a_process_out_of_descriptors_waits_for_some(scheme: str) -> None:
    with Collector() as collector:
        url = {"ws": collector.ws_url, "http": collector.url}[scheme]
        process = start(OUT_OF_DESCRIPTORS, url, str(patient(30.0)))
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        collector.faults.close_connections()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert finish(process)[-1] == "2 0 True"
        assert sorted(event.data for event in collector.events) == [b"1", b"2"]
