from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from raccoon_fast.collector.messages import SendEventRequest, SendEventResponse

ROOT = Path(__file__).parents[2]


def compile_protos(target: Path) -> descriptor_pb2.FileDescriptorSet:
    includes = resources.files("grpc_tools").joinpath("_proto")
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{includes}",
        "--include_imports",
        f"--descriptor_set_out={target}",
        "raystack/raccoon/v1beta1/raccoon.proto",
    ]
    assert protoc.main(arguments) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


def test_the_descriptor_set_is_made_of_the_protos(tmp_path: Path) -> None:
    shipped = resources.files("raccoon_fast.collector").joinpath("raccoon.desc").read_bytes()
    assert descriptor_pb2.FileDescriptorSet.FromString(shipped) == compile_protos(tmp_path / "compiled.desc")


def test_the_messages_are_not_in_the_default_pool() -> None:
    assert SendEventRequest.DESCRIPTOR.file.pool is not descriptor_pool.Default()
    assert SendEventResponse.DESCRIPTOR.file.pool is SendEventRequest.DESCRIPTOR.file.pool


def test_other_generated_code_of_the_same_package_does_no_harm() -> None:
    """It is loaded before and after with other content: the default pool would refuse both."""
    script = """
from google.protobuf import descriptor_pb2, descriptor_pool

def define(message):
    file = descriptor_pb2.FileDescriptorProto(name="raystack/raccoon/v1beta1/raccoon.proto", syntax="proto3")
    file.package = "raystack.raccoon.v1beta1"
    file.message_type.add(name=message)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

{before}
from raccoon_fast.collector.messages import SendEventRequest
{after}
assert SendEventRequest(req_guid="g").SerializeToString() == b"\\n\\x01g"
"""
    for before, after in (("define('SendEventRequest')", ""), ("", "define('SendEventRequest')")):
        subprocess.run([sys.executable, "-c", script.format(before=before, after=after)], check=True, cwd=ROOT)
