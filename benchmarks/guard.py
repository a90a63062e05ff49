"""Counts the CPU instructions per event, and fails if a count is over 5 % above its recorded value.

    python benchmarks/guard.py            # compare (make bench-guard)
    python benchmarks/guard.py --record   # write guard.json, in a commit that says why

Valgrind's callgrind counts all instructions of the process between the first and the last counted round, including the
interpreter's. Counts depend on the interpreter, the processor architecture, and the versions of Cython and the
compiler. If any of these differ from the recorded ones, the program says so and compares nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

RECORDED = Path(__file__).with_name("guard.json")
MOST_GROWTH = 0.05
EVENTS = 100
_BATCH, _IN_FLIGHT = 10, 8
_WARM_UP, _ROUNDS = 5, 40
_GUID = "17e2ac19-df8b-4a30-b111-fd7f5073d2f5"
_ANSWER = b"\x08\x01\x10\x01\x18\x80\xe2\xcf\xaa\x06\x2a\x30\x0a\x08req_guid\x12\x24" + _GUID.encode()
_JSON_ANSWER = b'{"status":1,"code":1,"sent_time":1700000000,"data":{"req_guid":"%b"}}' % _GUID.encode()


def events(types: int = 1) -> list[tuple[str, bytes]]:
    """Events of one type share one str. With several types, each event has its own str, as if it had just been read."""
    if types == 1:
        return [("page-view", bytes(range(200))) for _ in range(EVENTS)]
    return [(f"page-{number % types}", bytes(range(200))) for number in range(EVENTS)]


def encode_many(kind: str) -> Callable[[], object]:
    from raccoon_fast.core import envelope

    request, many = getattr(envelope, kind)(), events()

    def work() -> None:
        request.clear()
        request.add_many(many)
        request.stamp(_GUID, 1_700_000_000, 123_456_789)
        request.payload()

    return work


def encode_one_by_one() -> Callable[[], object]:
    from raccoon_fast.core.envelope import ProtoEnvelope

    request, many = ProtoEnvelope(), events()

    def work() -> None:
        request.clear()
        for type_, data in many:
            request.add(type_, data)

    return work


def emit(call: str, types: int = 1, *, has_lanes: bool = False) -> Callable[[], object]:
    from raccoon_fast.core.batch import Accumulator, Batch, Router

    batch = Batch("proto")

    def make_batch() -> Batch:
        batch.clear()
        batch.receipt = batch
        return batch

    accumulator = Accumulator(
        make_batch,
        serializer=None,
        wire="proto",
        max_events=EVENTS,
        max_bytes=1 << 20,
        max_event_bytes=1 << 20,
        buffer_bytes=1 << 30,
    )
    many = events(types)
    entry = Router({type_: accumulator for type_, _ in many}, lambda _: accumulator) if has_lanes else accumulator
    one, all_of = entry.emit, entry.emit_many

    def one_by_one() -> None:
        for type_, data in many:
            one(type_, data)
        accumulator.take()

    def at_once() -> None:
        all_of(many)
        accumulator.take()

    return at_once if call == "emit_many" else one_by_one


def resolve(wire: str) -> Callable[[], object]:
    from raccoon_fast.core.acks import AckTable
    from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer

    decode, answer = (decode_json_answer, _JSON_ANSWER) if wire == "json" else (decode_proto_answer, _ANSWER)
    table = AckTable()

    def work() -> None:
        for _ in range(EVENTS):
            table.add(_GUID, None, 1.0)
            table.settle(decode(answer).req_guid, False)  # not a success, so that the guid may be added again

    return work


def batches(transport: str, together: int) -> Callable[[], object]:
    """Measure from `emit_many` to settled receipts, with a server that answers this many batches at once."""
    from answering import answering

    from raccoon_fast import RAW, Producer
    from raccoon_fast.delivery import concurrency

    concurrency._SLOW_MARGIN_S = 60.0  # otherwise fewer are sent than the server waits for, if valgrind is slow
    url = _open.enter_context(answering(transport, together))
    producer = _open.enter_context(Producer(url, serializer=RAW, logger=None, batch_events=_BATCH))
    many = events()[:_BATCH]

    def work() -> None:
        receipts = [receipt for _ in range(together) for receipt in producer.emit_many(many)]
        for receipt in receipts:
            receipt.result(60)

    return work


def requests(transport: str, together: int) -> Callable[[], object]:
    """Measure from a client's `submit` to the result, with a server that answers this many requests at once."""
    from answering import answering

    from raccoon_fast import RAW, GrpcClient, RestClient, WebSocketClient

    kinds: dict[str, Any] = {"WebSocket": WebSocketClient, "REST": RestClient, "gRPC": GrpcClient}
    url = _open.enter_context(answering(transport, together))
    client = _open.enter_context(kinds[transport](url, serializer=RAW, logger=None))
    many = events()[:_BATCH]

    def work() -> None:
        receipts = [client.submit(many) for _ in range(together)]
        for receipt in receipts:
            receipt.result(60)

    return work


# Servers, producers and clients, open until all counts are done.
_open = contextlib.ExitStack()


class Workload(NamedTuple):
    """A workload to count.

    Attributes:
        make: Returns a function that runs one round.
        arguments: The arguments of `make`.
        units: The number of events, batches or requests per round.
        unit: The name of the unit.
    """

    make: Callable[..., Callable[[], object]]
    arguments: tuple[Any, ...] = ()
    units: int = EVENTS
    unit: str = "event"


WORKLOADS = {
    "encode, add_many": Workload(encode_many, ("ProtoEnvelope",)),
    "encode, add": Workload(encode_one_by_one),
    "encode JSON, add_many": Workload(encode_many, ("JsonEnvelope",)),
    "emit": Workload(emit, ("emit",)),
    "emit, with lanes": Workload(functools.partial(emit, has_lanes=True), ("emit",)),
    "emit_many": Workload(emit, ("emit_many",)),
    "emit_many, five types": Workload(emit, ("emit_many", 5)),
    "decode and settle": Workload(resolve, ("proto",)),
    "decode JSON and settle": Workload(resolve, ("json",)),
    **{
        f"{transport}, {name} of {_BATCH}, {how}": Workload(make, (transport, together), together, unit)
        for name, make, unit in (("batches", batches, "batch"), ("submit", requests, "request"))
        for transport in ("WebSocket", "REST", "gRPC")
        for how, together in (("together", _IN_FLIGHT), ("alone", 1))
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the figures instead of comparing them")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work()
        return 0

    from raccoon_fast import has_extensions

    has_extensions(raise_=True)
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    build = build_name()
    if shutil.which("valgrind") is None:
        print("bench-guard: skipped, valgrind is not installed")
        return 0
    if build not in recorded and not chosen.record:
        print(f"bench-guard: skipped, nothing is recorded for {build}, only for {'; '.join(recorded)}")
        return 0
    counted = count()
    if chosen.record:
        recorded[build] = counted
        RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    return compare(counted, recorded[build])


def work() -> None:
    """Run every workload, and call getppid before and after the counted rounds."""
    sys.setswitchinterval(60.0)  # a thread then runs until it waits, even if valgrind is slow
    with _open:
        for workload in WORKLOADS.values():
            one_round = workload.make(*workload.arguments)
            for _ in range(_WARM_UP):
                one_round()
            os.getppid()
            for _ in range(_ROUNDS):
                one_round()
            os.getppid()


def build_name() -> str:
    """The facts on which the counts depend, besides the code."""
    from raccoon_fast.core import _batch_c

    built = Path(_batch_c.__file__).read_bytes()
    symbol = re.search(rb"__Pyx_ImportType_(\d+(?:_\d+)+)", built)  # sizes of types from another module
    cython = symbol[1].decode().replace("_", ".") if symbol else "unknown"
    compiler = re.search(rb"GCC: \([^)]*\) ([0-9.]+)|clang version ([0-9.]+)", built)
    compiled_by = compiler[0].decode() if compiler else "unknown compiler"
    python = f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"
    return f"{python}, {platform.machine()}, Cython {cython}, {compiled_by}"


def count() -> dict[str, int]:
    """Instructions per event, answer or batch of each workload."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        # Each call of libc's getppid makes callgrind write the counts and start again at zero.
        # Threads take turns; otherwise the load of the machine would decide which one goes on.
        valgrind = [
            "valgrind",
            "--tool=callgrind",
            "--fair-sched=yes",
            "--dump-before=getppid",
            f"--callgrind-out-file={out}",
        ]
        finished = subprocess.run(
            [*valgrind, sys.executable, __file__, "--work"],
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        # The first part is the start-up. After it, counted and uncounted parts alternate.
        parts = [out.with_name(f"counts.{2 * number}") for number in range(1, len(WORKLOADS) + 1)]
        if finished.returncode or not all(part.exists() for part in parts):
            raise SystemExit(f"callgrind failed:\n{finished.stdout}{finished.stderr}")
        totals = [int(re.search(r"^totals: (\d+)", part.read_text(), re.MULTILINE)[1]) for part in parts]
    return {
        name: round(total / _ROUNDS / workload.units)
        for (name, workload), total in zip(WORKLOADS.items(), totals, strict=True)
    }


def compare(counted: dict[str, int], recorded: dict[str, int]) -> int:
    status = 0
    for name, instructions in counted.items():
        before = recorded.get(name)
        verdict = "new" if before is None else f"{instructions / before - 1:+.1%}"
        if before is not None and instructions > before * (1 + MOST_GROWTH):
            verdict += f"  TOO MUCH: over {MOST_GROWTH:.0%}"
            status = 1
        unit = WORKLOADS[name].unit if name in WORKLOADS else "event"
        print(f"{name:36} {instructions:7,} instructions per {unit}   {verdict}")
    if status:
        print("bench-guard: if the growth is meant, record it (--record) in a commit that says why")
    return status


if __name__ == "__main__":
    sys.exit(main())
