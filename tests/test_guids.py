"""Guids are random UUIDs of version 4 and never repeat, not even in a forked child."""

from __future__ import annotations

import os
import uuid

import pytest

from raccoon_fast.guids import new_guid


def test_guids_are_version_4_uuids_in_canonical_text() -> None:
    for _ in range(200):
        guid = new_guid()
        parsed = uuid.UUID(guid)
        assert (str(parsed), parsed.version, parsed.variant) == (guid, 4, uuid.RFC_4122)


def test_every_other_bit_is_random() -> None:
    seen_set = seen_clear = 0
    everything = (1 << 128) - 1
    for _ in range(200):
        number = uuid.UUID(new_guid()).int
        seen_set |= number
        seen_clear |= ~number & everything
    fixed = (0xF << 76) | (0b11 << 62)
    assert seen_set & seen_clear == everything & ~fixed


def test_guids_are_unique() -> None:
    guids = [new_guid() for _ in range(5000)]
    assert len({*guids}) == len(guids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own() -> None:
    new_guid()
    ours, theirs = os.pipe()
    if not (pid := os.fork()):
        os.write(theirs, " ".join(new_guid() for _ in range(100)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        children = pipe.read().split()
    os.waitpid(pid, 0)
    assert len(children) == 100
    assert not {*children} & {new_guid() for _ in range(100)}
