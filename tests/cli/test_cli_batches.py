from __future__ import annotations

import pytest

from raccoon_fast.cli import batches
from raccoon_fast.cli.batches import event_parser, read_batches
from raccoon_fast.cli.lines import MAX_LINE_BYTES, InputError, Line


class Input:
    """Lines as a reader yields them, then perhaps its end by an error."""

    name = "input"

    def __init__(self, *texts: bytes | None, error: Exception | None = None) -> None:
        self._texts = texts
        self._error = error

    def __iter__(self):
        for number, text in enumerate(self._texts, 1):
            yield None if text is None else Line(number, text)
        if self._error is not None:
            raise self._error


def collect(source, *, max_events=1000, bad=None, is_stopped=lambda: False):
    report = pytest.fail if bad is None else bad.append
    found = read_batches(source, event_parser("t", None), max_events, report, is_stopped)
    return [batch and [data for _, data in batch.events] for batch in found]


class TestTypes:
    def test_fixed(self):
        assert event_parser("page", None)(b"[1, 2]") == "page"

    def test_from_the_line(self):
        assert event_parser(None, "kind")('{"a": 1, "kind": "é"}'.encode()) == "é"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"{", "not JSON: .* at column 2"),
            (b'{"a":NaN}', "not JSON"),
            (b'{"a":"\xff"}', "not JSON"),
            (b"{} {}", "not JSON"),
            (b"\xef\xbb\xbf{}", "not JSON"),
            (b'"text"', "not a JSON object; --type-field kind needs one"),
            (b"{}", "'kind' is missing"),
            (b'{"kind":""}', "'kind' is \"\""),
            (b'{"kind":5}', "'kind' is 5"),
            (b'{"kind":null}', "'kind' is null"),
            (b'"' + b"x" * MAX_LINE_BYTES + b'"', "longer than 16 MiB"),
        ],
    )
    def test_refused(self, text, reason):
        with pytest.raises(ValueError, match=reason):
            event_parser(None, "kind")(text)


class TestBatches:
    def test_full_by_events(self):
        assert collect(Input(b"1", b"2", b"3"), max_events=2) == [[b"1", b"2"], [b"3"]]

    def test_full_by_bytes(self, monkeypatch):
        monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 6)
        big = b'"12345678"'
        assert collect(Input(b"111", b"222", b"3", big, b"4")) == [[b"111", b"222"], [b"3"], [big], [b"4"]]

    def test_a_batch_keeps_the_bytes_of_its_lines(self):
        text = b' {"b" : 1.50,\t"a":"\\u0041" } '
        assert collect(Input(text)) == [[text]]

    def test_blank_lines_are_skipped_but_counted(self):
        (batch,) = read_batches(Input(b"", b" \t", b"1"), event_parser("t", None), 9, pytest.fail, lambda: False)
        assert batch.events == [("t", b"1")]
        assert (batch.last_line, batch.nbytes) == (3, 1)

    def test_a_pause_closes_a_batch(self):
        assert collect(Input(b"1", None, None, b"2")) == [[b"1"], None, [b"2"]]

    def test_bad_lines_are_reported_and_left_out(self):
        bad = []
        assert collect(Input(b"1", b"x", b"2"), bad=bad) == [[b"1", b"2"]]
        assert len(bad) == 1
        assert bad[0].startswith("input:2: not JSON: ")

    def test_lines_read_before_an_error_come_first(self):
        found = read_batches(
            Input(b"1", error=InputError("torn")), event_parser("t", None), 9, pytest.fail, lambda: False
        )
        assert next(found).events == [("t", b"1")]
        with pytest.raises(InputError, match="torn"):
            next(found)

    def test_stopped(self):
        asked = iter([False, False, True])
        assert collect(Input(b"1", b"2", b"3", b"4"), is_stopped=lambda: next(asked)) == [[b"1", b"2"]]
