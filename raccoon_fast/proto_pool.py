"""Parses protobuf messages, and loads compiled descriptors away from the program's default pool.

Where google.protobuf has no compiled form, as on some free-threaded Pythons, its pure-Python form raises other
exceptions.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

__all__ = ["new_pool", "parse"]


def parse(message_class: Any, data: bytes) -> Any:
    """Parse a message of a class.

    Raises:
        google.protobuf.message.DecodeError: The data is not such a message.
    """
    try:
        return message_class.FromString(data)
    except UnicodeDecodeError as error:  # of the pure-Python form
        raise DecodeError(str(error)) from error


def new_pool(descriptors: bytes) -> descriptor_pool.DescriptorPool:
    """Make a pool of the files in a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out` writes it.

    Raises:
        google.protobuf.message.DecodeError: It is not a FileDescriptorSet.
        TypeError: An imported file is missing, or comes after the file that imports it.
    """
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in parse(descriptor_pb2.FileDescriptorSet, descriptors).file:
            pool.AddSerializedFile(file.SerializeToString())
    except KeyError as error:  # of the pure-Python form
        raise TypeError(f"{file.name} imports {error}, which is not there") from error
    return pool
