"""Both forms of the core, and google.protobuf as the reference for what they write and read."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

import raccoon_fast

# A build that is meant to be pure says so; everywhere else a missing compiled module fails the tests.
PURE_BUILD = os.environ.get("RACCOON_FAST_NO_EXTENSIONS", "") not in ("", "0")


class Form(NamedTuple):
    name: str
    wire: ModuleType
    envelope: ModuleType
    answers: ModuleType
    acks: ModuleType
    batch: ModuleType
    event_types: ModuleType
    columns: ModuleType
    frames: ModuleType

    @property
    def emit_slices(self):
        return self._of_slices().emit_slices

    @property
    def add_slices(self):
        return self._of_slices().add_slices

    def _of_slices(self):
        return self.batch if self.name == "compiled" else import_module("raccoon_fast.core._batch_slices_py")


class Messages(NamedTuple):
    SendEventRequest: type
    SendEventResponse: type


@pytest.fixture(scope="session", params=["pure"] if PURE_BUILD else ["pure", "compiled"])
def impl(request) -> Form:
    suffix = {"pure": "_py", "compiled": "_c"}[request.param]
    modules = [import_module(f"raccoon_fast.core._{name}{suffix}") for name in Form._fields[1:]]
    return Form(request.param, *modules)


@pytest.fixture(scope="session")
def messages() -> Messages:
    path = Path(raccoon_fast.__file__).parent / "collector" / "raccoon.desc"
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    package = "raystack.raccoon.v1beta1"
    return Messages(
        *(message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in Messages._fields)
    )


@pytest.fixture(scope="session")
def upb() -> None:
    """Skips a test that judges invalid messages where google.protobuf is its pure-Python form, which reads some."""
    if api_implementation.Type() != "upb":
        pytest.skip(
            "google.protobuf has no compiled form for this Python, and the pure one reads some invalid messages"
        )


@pytest.fixture
def compiled_build() -> None:
    """Skips a test that says something of the compiled form where the build is meant to be pure."""
    if PURE_BUILD:
        pytest.skip("RACCOON_FAST_NO_EXTENSIONS is set")
