from __future__ import annotations

import pytest

from raccoon_fast.cli.comparison import compare

SENT = {"g1": [("t", b"a"), ("t", b"b"), ("u", b"c")], "g2": [("t", b"d"), ("t", b"e")]}
RECEIVED = [(guid, *event) for guid, events in SENT.items() for event in events]


def test_equal():
    comparison = compare(SENT, RECEIVED)
    assert comparison == (5, 0, 0, 0)
    assert comparison.is_exact


def test_requests_may_interleave():
    mixed = [RECEIVED[index] for index in (3, 0, 1, 4, 2)]
    assert compare(SENT, mixed).is_exact


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (RECEIVED[:-1], (4, 0, 1, 0)),
        (RECEIVED[1:], (2, 2, 1, 0)),
        ([], (0, 0, 5, 0)),
        ([*RECEIVED[:4], ("g2", "t", b"E")], (4, 1, 0, 0)),
        ([*RECEIVED[:4], ("g2", "T", b"e")], (4, 1, 0, 0)),
        ([*RECEIVED[:4], ("g2", "t", b"e\0")], (4, 1, 0, 0)),
        ([RECEIVED[1], RECEIVED[0], *RECEIVED[2:]], (3, 2, 0, 0)),
        ([*RECEIVED, ("g2", "t", b"e")], (5, 0, 0, 1)),
        (RECEIVED * 2, (5, 0, 0, 5)),
        ([*RECEIVED, ("g3", "t", b"a")], (5, 0, 0, 1)),
        ([*RECEIVED[:4], ("g1", "t", b"e")], (4, 0, 1, 1)),
    ],
    ids=[
        "last lost",
        "first lost",
        "all lost",
        "byte altered",
        "type altered",
        "byte added",
        "order altered",
        "event twice",
        "all twice",
        "of no request",
        "of another request",
    ],
)
def test_different(received, expected):
    comparison = compare(SENT, received)
    assert comparison == expected
    assert not comparison.is_exact
    assert str(sum(expected[1:2])) in str(comparison)
