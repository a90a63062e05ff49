"""Loads compiled protobuf descriptors, away from the default pool of the program."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool

__all__ = ["new_pool"]


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
