"""Compiles and runs the client in Go, go/main.go. It needs Go and these packages of Debian:

apt-get install golang-go golang-google-protobuf-dev golang-google-grpc-dev golang-github-gorilla-websocket-dev
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from payloads import GUID, google_request

_SOURCE = Path(__file__).parent / "go" / "main.go"
_PROTOS = Path(__file__).parent.parent / "protos"
_PROTO = "raystack/raccoon/v1beta1/raccoon.proto"
_PACKAGE = "raccoon.example/raccoonpb"
_DEBIANS = "/usr/share/gocode"


class Program:
    """The running program; call it with the number of requests to send."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._cpu_ns = 0

    def __call__(self, requests: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack("<I", requests))
        self._process.stdin.flush()
        (self._cpu_ns,) = struct.unpack("<q", self._process.stdout.read(8))

    def cpu_ns(self) -> int:
        """The CPU time that the program has used, user and system."""
        return self._cpu_ns


@contextmanager
def running(command: Sequence[str], events: list[tuple[str, bytes]]) -> Iterator[Program]:
    """Start the program with these events.

    Args:
        command: The executable, the transport and the server's URL.
        events: The events of every request.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        message = google_request(GUID, events)
        assert process.stdin is not None
        process.stdin.write(struct.pack("<I", len(message)) + message)
        yield Program(process)
        process.stdin.close()


@contextmanager
def built() -> Iterator[str | None]:
    """Compile the program and yield its path; None if Go or an imported package is missing."""
    with tempfile.TemporaryDirectory() as folder:
        yield _build(Path(folder)) if shutil.which("go") else None


def _build(folder: Path) -> str | None:
    package = folder / "src" / _PACKAGE
    package.mkdir(parents=True)
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:{_DEBIANS}"}
    run = functools.partial(subprocess.run, check=True, capture_output=True, env=environ, cwd=folder)
    plugin, executable = folder / "protoc-gen-go", folder / "client"
    try:
        run(["go", "build", "-o", plugin, "google.golang.org/protobuf/cmd/protoc-gen-go"])
        arguments = [f"-I{_PROTOS}", f"--plugin={plugin}", f"--go_out={package}"]
        arguments += [f"--go_opt=paths=source_relative,M{_PROTO}={_PACKAGE}", _PROTO]
        run([sys.executable, "-m", "grpc_tools.protoc", *arguments])
        generated = package / Path(_PROTO).with_suffix(".pb.go")
        generated.rename(package / generated.name)
        run(["go", "build", "-o", executable, _SOURCE])
    except subprocess.CalledProcessError:
        return None
    return str(executable)


def version() -> str:
    """Go's version; "" without Go."""
    if not shutil.which("go"):
        return ""
    return subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()
