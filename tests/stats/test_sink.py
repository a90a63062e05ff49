"""The counted events, and the accepted values of `stats=`."""

from __future__ import annotations

from typing import Any

import pytest

from raccoon_fast import stats
from raccoon_fast.stats import resolve_stats
from raccoon_fast.stats.statsd import StatsD


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, *args: Any) -> None:
        self.lines.append(msg % args)

    error = info


def test_names_match_the_documentation():
    assert stats.SENT_TT_MS == "sent_tt_ms"
    assert stats.ACK_TT_MS == "ack_tt_ms"
    assert stats.TOTAL_BYTES_SENT == "total_bytes_sent"
    assert stats.TOTAL_BYTES_RECIEVED == "total_bytes_recieved"
    assert stats.TOTAL_CONN_ERR == "total_conn_err"


def test_timings_and_counters_cover_every_name():
    names = {value for name, value in vars(stats).items() if name.isupper() and isinstance(value, str)}
    assert {*stats.TIMINGS, *stats.COUNTERS} == names


class TestResolve:
    def test_none_is_off(self):
        off = resolve_stats(None)
        off.timing("t", 1.0)
        off.count("a", 1)

    def test_statsd_is_used_as_given(self):
        with StatsD() as statsd:
            assert resolve_stats(statsd) is statsd

    def test_a_users_object_is_called(self):
        seen: list[tuple[str, str, float]] = []

        class Mine:
            def timing(self, name: str, ms: float) -> None:
                seen.append(("timing", name, ms))

            def count(self, name: str, n: int) -> None:
                seen.append(("count", name, n))

        mine = resolve_stats(Mine())
        mine.timing("t", 1.5)
        mine.count("a", 2)
        assert seen == [("timing", "t", 1.5), ("count", "a", 2)]

    def test_a_users_object_that_raises_is_logged_once(self):
        class Broken:
            def timing(self, name: str, ms: float) -> None:
                raise OSError("no timing")

            def count(self, name: str, n: int) -> None:
                raise OSError("no count")

        log = Recorder()
        broken = resolve_stats(Broken(), log)
        for _ in range(3):
            broken.count("a", 1)
            broken.timing("t", 1.0)
        assert log.lines == ["the stats sink raised OSError('no count'); further failures are not logged"]

    @pytest.mark.parametrize("value", ["localhost", object(), 0, True])
    def test_anything_else_is_refused(self, value):
        with pytest.raises(TypeError, match="stats must be"):
            resolve_stats(value)
