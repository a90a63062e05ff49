"""Adding up the ledgers of several producers."""

from __future__ import annotations

from raccoon_fast.counts import Counts
from raccoon_fast.stats.ledger import LaneReading, Reading
from raccoon_fast.stats.ledger_totals import LedgerTotals


def test_reasons_are_bounded() -> None:
    """A proxy may answer with any status."""

    class Source:
        def read(self, *, by_type: bool) -> Reading:
            counts = Counts(accepted=1000, failed={str(number): 1 for number in range(1000)})
            lane = LaneReading("default", {"": counts}, {}, {str(n): 1 for n in range(1000)}, 0, 0, [])
            return Reading([lane], 0, 0, {})

    totals = LedgerTotals()
    totals.watch(Source())
    counters = totals.read().counters
    for name in ("events.failed", "retries"):
        reasons = {key[1][1]: count for key, count in counters.items() if key[0] == name}
        assert len(reasons) == 51
        assert sum(reasons.values()) == 1000
    assert totals.read().counters == counters


def test_totals_never_decrease() -> None:
    class Source:
        acked = 10

        def read(self, *, by_type: bool) -> Reading:
            return Reading([LaneReading("default", {"": Counts(acked=self.acked)}, {}, {}, 0, 0, [])], 0, 0, {})

    source, totals = Source(), LedgerTotals()
    totals.watch(source)
    key = ("events.acked", ("default",))
    assert totals.read().counters[key] == 10
    source.acked = 9  # seen in the midst of a change
    assert totals.read().counters[key] == 10
    source.acked = 12
    totals.unwatch(source)
    source.acked = 50
    assert totals.read().counters[key] == 12
