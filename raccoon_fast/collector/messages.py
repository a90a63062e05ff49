"""The messages of a Raccoon server as google.protobuf classes: a judge of our own encoder that shares no code with it.

The classes are made from `raccoon.desc`, compiled from `protos/`, in a descriptor pool of their own: a program may have
other generated code for the same package in the default pool, which refuses a second definition.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["PACKAGE", "SendEventRequest", "SendEventResponse", "new_pool"]

PACKAGE = "raystack.raccoon.v1beta1"


def new_pool(descriptors: bytes) -> descriptor_pool.DescriptorPool:
    """Make a pool of the files in a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out` writes it.

    Raises:
        google.protobuf.message.DecodeError: It is none.
        TypeError: An imported file is not in it, or not before the one that imports it.
    """
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = new_pool(resources.files("raccoon_fast.collector").joinpath("raccoon.desc").read_bytes())


def _message_class(name: str) -> Any:
    # Any: the attributes of a class made at run time are known to nobody beforehand.
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


SendEventRequest = _message_class("SendEventRequest")
SendEventResponse = _message_class("SendEventResponse")
