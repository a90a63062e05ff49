"""The messages of a Raccoon server as google.protobuf classes. They check our own encoder without sharing its code.

The classes are made from `raccoon.desc`, compiled from `protos/`, in a separate descriptor pool: a program may have
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
        google.protobuf.message.DecodeError: It is not a FileDescriptorSet.
        TypeError: An imported file is missing, or comes after the file that imports it.
    """
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = new_pool(resources.files("raccoon_fast.collector").joinpath("raccoon.desc").read_bytes())


def _message_class(name: str) -> Any:
    # Any: type checkers do not know the attributes of classes that are created at run time.
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


SendEventRequest = _message_class("SendEventRequest")
SendEventResponse = _message_class("SendEventResponse")
