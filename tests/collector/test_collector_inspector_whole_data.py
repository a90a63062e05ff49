"""The inspector stores the data of large events within a limit."""

from __future__ import annotations

from raccoon_fast.collector.inspector.whole_data import MAX_WHOLE_BYTES, WholeData


def test_the_oldest_make_room() -> None:
    whole = WholeData()
    for number in range(20):
        whole.add(number, bytes(MAX_WHOLE_BYTES))
    assert [number for number in range(20) if whole.get(number) is not None] == list(range(12, 20))


def test_data_too_large_is_left_out() -> None:
    whole = WholeData()
    whole.add(1, b"x")
    whole.add(2, bytes(MAX_WHOLE_BYTES + 1))
    assert (whole.get(1), whole.get(2), whole.get(3)) == (b"x", None, None)
