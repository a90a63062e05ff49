"""Files are identified by device and inode; a descriptor is replaced only if it is free or still the expected file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from raccoon_fast.spool.descriptors import identity_of, null_above, open_files, replace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs flock")


def test_a_file_is_known_by_name_and_by_descriptor(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    with one.open() as file:
        assert identity_of(one) == identity_of(str(one)) == identity_of(file.fileno()) is not None
        assert open_files()[file.fileno()] == identity_of(one)
        other.replace(one)
        assert identity_of(one) != identity_of(file.fileno())
        fd = file.fileno()
    assert identity_of(fd) is None
    assert identity_of(-1) is identity_of(tmp_path / "missing") is None


def test_replacing(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"1")
    first = os.open(path, os.O_RDWR)
    expected = identity_of(first)
    assert expected is not None
    null = null_above(first)
    assert null > first
    nothing = identity_of(null)
    assert replace(first, expected, null)
    assert identity_of(first) == nothing
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(first, b"x")
    os.close(first)
    assert replace(first, expected, null)  # it is free
    assert identity_of(first) == nothing
    before = open_files()
    assert not replace(first, expected, null)  # it is something else by now
    assert open_files() == before
    for fd in (first, null):
        os.close(fd)
