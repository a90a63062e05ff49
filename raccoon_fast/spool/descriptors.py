"""Identifies the file behind a name or a descriptor, and replaces descriptors."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Identity", "identity_of", "null_above", "open_files", "replace"]

Identity = tuple[int, int]
"""Device and inode, which identify a file under any name while it is open somewhere."""


def identity_of(file: str | Path | int) -> Identity | None:
    """The file behind a name or a descriptor; None if there is none."""
    try:
        found = os.stat(file)  # noqa: PTH116 - of a descriptor as well
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def open_files() -> dict[int, Identity]:
    """The descriptors of this process; {} if the system does not list them."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            numbers = [int(name) for name in os.listdir(directory)]  # noqa: PTH208
            return {fd: found for fd in numbers if (found := identity_of(fd)) is not None}
    return {}


def replace(fd: int, expected: Identity, by: int) -> bool:
    """Replace a descriptor by another file; False if the number is neither free nor `expected`."""
    import fcntl

    if identity_of(fd) == expected:
        os.dup2(by, fd, inheritable=False)
        return True
    # Takes the number itself only if it is free, in one step: another thread may want it too.
    taken = fcntl.fcntl(by, fcntl.F_DUPFD_CLOEXEC, fd)
    if taken != fd:
        os.close(taken)
    return taken == fd


def null_above(fd: int) -> int:
    """A descriptor numbered above `fd` that cannot be written to or locked for writing."""
    import fcntl

    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, fd + 1)
    finally:
        os.close(null)
