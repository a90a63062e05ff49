"""Without the compiled form of google.protobuf, as on some free-threaded Pythons."""

from __future__ import annotations

import os
import subprocess
import sys

NAME = "raystack.raccoon.v1beta1.SendEventRequest"
PROGRAM = """
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from raccoon_fast.collector.go_proto import MalformedRequest, decode_proto_request
from raccoon_fast.collector.judging import _message_check
from raccoon_fast.collector.messages import SendEventRequest
from raccoon_fast.collector.records import ReceivedEvent
from raccoon_fast.proto_pool import new_pool, parse

NOT_UTF_8 = b"\\x0a\\x01\\xff"  # in req_guid

def error(call, *arguments):
    try:
        call(*arguments)
    except Exception as caught:
        return f"{type(caught).__name__}: {caught}"

print(api_implementation.Type())
print(error(parse, SendEventRequest, NOT_UTF_8))
print(error(decode_proto_request, NOT_UTF_8))
print(_message_check(SendEventRequest)(NOT_UTF_8))
event = ReceivedEvent("", "page", NOT_UTF_8, "rest", None, "", "")
print(error(event.message, SendEventRequest))
missing = FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", dependency=["b.proto"])])
print(error(new_pool, missing.SerializeToString()))
"""


def test_bad_messages_are_refused_as_by_the_compiled_form() -> None:
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    expected = [
        "python",
        "DecodeError: 'utf-8' codec can't decode byte 0xff",
        f"MalformedRequest: proto:\N{NO-BREAK SPACE}field {NAME}.req_guid contains invalid UTF-8",
        f"Fault(path='$', reason=\"is not a {NAME}: 'utf-8' codec",
        f"ValueError: the data of the event of type 'page' is not a {NAME}: 'utf-8' codec",
        "TypeError: a.proto imports 'b.proto', which is not there",
    ]
    assert len(lines) == len(expected), done.stderr
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
