"""Decodes an event's data for people: as JSON, a protobuf message, text, or hexadecimal."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.message import DecodeError

from raccoon_fast import json_codec
from raccoon_fast.proto_pool import new_pool, parse

__all__ = ["Decoded", "EventDecoder"]

# C0 except tab, line feed and carriage return; DEL; C1. Data with one of these is probably not text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


_MAX_NAMED = 10


class Decoded(NamedTuple):
    """An event's data.

    Attributes:
        format: "json", "protobuf", "text" or "hex".
        json: The value as JSON text, for "json" (the data as it was sent) and "protobuf"; None for the others.
        text: The data as text: `json`, the text, or hexadecimal with a space between bytes.
        message: The full name of the protobuf message of the event's type, or None.
        problem: Why the data is not shown as that message or not shown completely; "" if it is.
    """

    format: str
    json: bytes | None
    text: str
    message: str | None
    problem: str


class EventDecoder:
    """Decodes data with the message of the event's type, or otherwise in the format that it seems to have.

    Args:
        descriptors: The path of a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out=PATH` writes it.
        messages: The full name of the message in that file, by event type.

    Raises:
        OSError: The file cannot be read.
        TypeError: An argument is invalid.
        ValueError: The file is not a FileDescriptorSet or lacks an import or a message, or only one of the arguments is
            given.
    """

    def __init__(
        self, descriptors: str | os.PathLike[str] | None = None, messages: Mapping[str, str] | None = None
    ) -> None:
        self._classes: dict[str, Any] = {}
        self._pool: Any = None
        if descriptors is None and messages is None:
            return
        if descriptors is None or messages is None:
            raise ValueError(
                "descriptors and messages go together: a descriptor set, and the message of each event type"
            )
        if not isinstance(descriptors, (str, os.PathLike)):
            raise TypeError(f"descriptors must be the path of a descriptor set, not {descriptors!r}")
        if not isinstance(messages, Mapping):
            raise TypeError(f"messages must map event types to names of messages, not {messages!r}")
        path = Path(descriptors)
        try:
            self._pool = new_pool(path.read_bytes())
        except DecodeError:
            raise ValueError(
                f"descriptors: {path} is not a FileDescriptorSet; make one by "
                "protoc --include_imports --descriptor_set_out=FILE"
            ) from None
        except TypeError as error:
            raise ValueError(f"descriptors: {path} lacks an import (protoc --include_imports): {error}") from None
        for event_type, name in messages.items():
            if not isinstance(event_type, str) or not isinstance(name, str):
                raise TypeError(f"messages must map event types to names of messages, not {event_type!r} to {name!r}")
            try:
                descriptor = self._pool.FindMessageTypeByName(name)
            except KeyError:
                known = ", ".join(_message_names(path.read_bytes())[:_MAX_NAMED])
                raise ValueError(
                    f"messages: {path} has no message {name!r} (for {event_type!r}); it has {known or 'none'}"
                ) from None
            self._classes[event_type] = message_factory.GetMessageClass(descriptor)

    @property
    def message_classes(self) -> Mapping[str, Any]:
        """Message classes by event type."""
        return self._classes

    def decode(self, event_type: str | None, data: bytes, size: int) -> Decoded:
        """Decode the available part of an event's data.

        Args:
            event_type: The event's type; None if the data is not an event's.
            data: The data, or its start.
            size: The length of the complete data.
        """
        is_whole = len(data) == size
        problem = "" if is_whole else f"the first {len(data)} of {size} bytes"
        message_class = None if event_type is None else self._classes.get(event_type)
        name = None if message_class is None else message_class.DESCRIPTOR.full_name
        if message_class is not None and is_whole:
            try:
                value = _message_json(parse(message_class, data), self._pool)
            except (DecodeError, ValueError, TypeError, json_format.Error) as error:
                problem = f"not a {name}: {error}"
            else:
                return Decoded("protobuf", value, value.decode(), name, "")
        if is_whole:
            try:
                json_codec.loads(data)
            except json_codec.JSONDecodeError:
                pass
            else:
                return Decoded("json", data, data.decode(), name, problem)
        text = _as_text(data, is_whole=is_whole)
        if text is not None:
            return Decoded("text", None, text, name, problem)
        return Decoded("hex", None, data.hex(" "), name, problem)


def _message_names(descriptors: bytes) -> list[str]:
    """The full names of a FileDescriptorSet's messages; those of the file given to protoc first."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    return [f"{file.package}.{it.name}".lstrip(".") for file in reversed(files) for it in file.message_type]


def _message_json(message: Any, pool: Any) -> bytes:
    text: str = json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=None, ensure_ascii=False, descriptor_pool=pool
    )
    return text.encode()


def _as_text(data: bytes, *, is_whole: bool) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # Text may be cut in the middle of a character.
        if is_whole or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    return None if _CONTROL.search(text) else text
