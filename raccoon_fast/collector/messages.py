"""The messages of a Raccoon server as google.protobuf classes. They check our own encoder without sharing its code.

The classes are made from `raccoon.desc`, compiled from `protos/`, in a separate descriptor pool: a program may have
other generated code for the same package in the default pool, which refuses a second definition.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import message_factory

from raccoon_fast.proto_pool import new_pool

__all__ = ["PACKAGE", "SendEventRequest", "SendEventResponse"]

PACKAGE = "raystack.raccoon.v1beta1"


_POOL = new_pool(resources.files("raccoon_fast.collector").joinpath("raccoon.desc").read_bytes())


def _message_class(name: str) -> Any:
    # Any: type checkers do not know the attributes of classes that are created at run time.
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


SendEventRequest = _message_class("SendEventRequest")
SendEventResponse = _message_class("SendEventResponse")
