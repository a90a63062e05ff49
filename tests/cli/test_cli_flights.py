from __future__ import annotations

import hashlib
from collections import Counter
from importlib import resources
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2, json_format
from grpc_tools import protoc

from raccoon_fast import json_codec
from raccoon_fast.cli.flights import flight_message, read_flights

ROOT = Path(__file__).parents[2]


def test_sample_matches_its_readme():
    lines = read_flights()
    unpacked = hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    assert unpacked in (ROOT / "benchmarks/data/README.md").read_text()
    assert len(lines) == 25_000
    records = [json_codec.loads(line) for line in lines]
    assert all(len(record) == 19 for record in records)
    months = Counter(record["month"] for record in records)
    assert set(months) == set(range(1, 13))
    assert min(months.values()) > 1800
    assert Counter(record["air_time"] is None for record in records)[True] == 613 + 91


def test_sample_is_written_as_the_json_serializer_writes():
    assert all(json_codec.dumps(json_codec.loads(line)) == line for line in read_flights())


def test_first_records_only():
    assert read_flights(3) == read_flights()[:3]


def test_messages_hold_the_records():
    """Judged by protobuf's own JSON mapping."""
    for line in read_flights(2000):
        record = json_codec.loads(line)
        message = type(flight_message(record)).FromString(flight_message(record).SerializeToString())
        present = {name: value for name, value in record.items() if value is not None}
        as_json = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        assert as_json == present


def test_descriptors_are_compiled_from_the_proto(tmp_path):
    bundled = Path(grpc_tools.__file__).parent / "_proto"
    compiled = tmp_path / "flight.desc"
    arguments = [f"-I{ROOT / 'protos'}", f"-I{bundled}", "--include_imports", f"--descriptor_set_out={compiled}"]
    assert protoc.main(["protoc", *arguments, "flights/v1/flight.proto"]) == 0
    shipped = resources.files("raccoon_fast.cli").joinpath("flight.desc").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString
    assert files(shipped).file[-1] == files(compiled.read_bytes()).file[-1]
