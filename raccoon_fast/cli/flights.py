"""The sample of real flights, and its records as protobuf messages."""

from __future__ import annotations

import datetime
import functools
import gzip
import itertools
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import message_factory

from raccoon_fast.cli.exits import UsageError
from raccoon_fast.proto_pool import new_pool

__all__ = ["flight_message", "read_flights"]

_SAMPLE = "flights.jsonl.gz"


def read_flights(count: int | None = None) -> list[bytes]:
    """Returns the first `count` records, or all 25,000: one JSON object each, without the line end.

    Raises:
        UsageError: This installation has no sample.
    """
    with gzip.open(_sample_path(), "rb") as lines:
        return [line.rstrip(b"\n") for line in itertools.islice(lines, count)]


def flight_message(record: dict[str, Any]) -> Any:
    """Returns the record as a message raccoon_fast.flights.v1.Flight; fields that are None stay unset."""
    fields = {name: value for name, value in record.items() if value is not None}
    return _flight_class()(time_hour={"seconds": _epoch_s(fields.pop("time_hour"))}, **fields)


def _sample_path() -> Path:
    """The copy that the build put beside this module, or the one in the clone."""
    for folder in (Path(__file__).parent, Path(__file__).parents[2] / "benchmarks" / "data"):
        if (folder / _SAMPLE).is_file():
            return folder / _SAMPLE
    raise UsageError(f"this installation has no sample {_SAMPLE}: install a release, or run the command from a clone")


@functools.cache
def _flight_class() -> Any:
    # A separate pool: the program may have other generated code for the same files.
    pool = new_pool(resources.files("raccoon_fast.cli").joinpath("flight.desc").read_bytes())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("raccoon_fast.flights.v1.Flight"))


@functools.lru_cache(maxsize=64)  # neighbouring records share their hour
def _epoch_s(text: str) -> int:
    return int(datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp())
