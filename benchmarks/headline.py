"""The figures shown in the README."""

from __future__ import annotations

import contextlib

from results import Results, grid, number

_ROWS = (
    (
        "Encode a 200 B event",
        ("envelope", "Protobuf envelope, batches of 1,000", "200 B"),
        "raccoon_fast, add_many",
        ("google.protobuf, add",),
    ),
    (
        "Encode a 200 B event, JSON wire format",
        ("envelope", "JSON envelope, batches of 1,000", "200 B"),
        "raccoon_fast, add_many",
        ("json + base64", "orjson + pybase64"),
    ),
    (
        "`emit`, in the calling thread",
        ("emit", "Calls of emit, 1 thread", "bytes"),
        "raccoon_fast, emit",
        ("confluent-kafka, produce",),
    ),
    *(
        (
            f"{transport}, until the acknowledgement, batches of {batch}",
            ("transports", f"{transport}, until the acknowledgement", f"200 B x {batch}"),
            "raccoon_fast Producer",
            peers,
        )
        for transport, peers in (
            ("REST", ("httpx", "aiohttp", "Go")),
            ("WebSocket", ("websockets", "picows", "Go")),
            ("gRPC", ("grpc.aio", "Go")),
        )
        for batch in ("1,000", "100", "10")
    ),
)


def headline(results: Results) -> str:
    """A Markdown table of the headline figures that were measured."""
    rows = [("ns of CPU per event", "raccoon_fast", "other libraries")]
    for what, (group, title, column), ours, peers in _ROWS:
        cells: dict[str, float] = {}
        for name in (ours, *peers):
            with contextlib.suppress(KeyError):
                cells[name] = results.groups[group].value(title, name, column, "CPU")
        if ours not in cells:
            continue
        beside = [
            f"{name.split(',')[0]} {number(cells[name])} ({number(cells[name] / cells[ours])} x)"
            for name in peers
            if name in cells
        ]
        rows.append((what, number(cells[ours]), ", ".join(beside)))
    return grid(rows)
