import math
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

GUIDS = st.sampled_from([f"guid-{i}" for i in range(6)])
TIMES = st.integers(0, 50).map(float)


@pytest.fixture
def table(impl):
    return impl.acks.AckTable()


def verdict(table, req_guid, ok=True):
    kind, entry = table.settle(req_guid, ok)
    return kind.name, entry


def test_an_acknowledgement_hands_back_its_entry_once(table):
    entry = object()
    table.add("a", entry, 1.0)
    assert "a" in table
    assert len(table) == 1
    assert verdict(table, "a") == ("MATCHED", entry)
    assert "a" not in table
    assert len(table) == 0
    assert verdict(table, "a") == ("DUPLICATE", None)
    assert (table.duplicates, table.late, table.unknown) == (1, 0, 0)


def test_none_is_a_valid_entry(table):
    table.add("a", None, 1.0)
    assert verdict(table, "a") == ("MATCHED", None)


def test_acknowledgements_come_in_any_order(table):
    for guid in "abc":
        table.add(guid, guid.upper(), 1.0)
    assert [verdict(table, guid)[1] for guid in "cab"] == ["C", "A", "B"]


def test_a_guid_that_was_never_here_is_unknown(table):
    assert verdict(table, "a") == ("UNKNOWN", None)
    assert verdict(table, "") == ("UNKNOWN", None)
    assert (table.duplicates, table.late, table.unknown) == (0, 0, 2)


def test_a_pending_guid_is_refused_and_stays_as_it_was(table):
    table.add("a", 1, 1.0)
    assert table.seen("a")
    with pytest.raises(ValueError, match=r"'a' was written on this connection before; send it on another one"):
        table.add("a", 2, 0.5)
    assert table.next_deadline() == 1.0
    assert verdict(table, "a") == ("MATCHED", 1)


def test_an_acknowledged_guid_is_refused(table):
    table.add("a", 1, 1.0)
    table.settle("a", True)
    assert table.seen("a")
    with pytest.raises(ValueError, match="on this connection before"):
        table.add("a", 2, 2.0)


def test_a_guid_answered_with_an_error_may_be_sent_again(table):
    table.add("a", 1, 1.0)
    assert verdict(table, "a", ok=False) == ("MATCHED", 1)
    assert not table.seen("a")
    assert verdict(table, "a", ok=False) == ("DUPLICATE", None)
    table.add("a", 2, 2.0)
    assert table.seen("a")
    assert verdict(table, "a") == ("MATCHED", 2)
    assert table.seen("a")


@pytest.mark.parametrize("give_up", [lambda t: t.expire(1.0), lambda t: t.discard("a"), lambda t: t.drain()])
@pytest.mark.parametrize("ok", [True, False])
def test_an_abandoned_guid_stays_late(table, give_up, ok):
    table.add("a", 1, 1.0)
    assert give_up(table) in ([("a", 1)], 1)
    assert "a" not in table
    assert table.seen("a")
    assert verdict(table, "a", ok) == ("LATE", None)
    assert verdict(table, "a", ok) == ("LATE", None)
    assert (table.duplicates, table.late, table.unknown) == (0, 2, 0)
    with pytest.raises(ValueError, match="on this connection before"):
        table.add("a", 2, 2.0)


@pytest.mark.parametrize("end", [lambda t, guid: t.settle(guid, True), lambda t, guid: t.discard(guid)])
def test_a_guid_that_is_no_longer_pending_is_remembered_without_its_object(table, end):
    """A guid lies among the objects of its batch, and would keep their memory from being returned."""
    guid = "".join(["gu", "id"])
    references = sys.getrefcount(guid)
    table.add(guid, 1, 1.0)
    end(table, guid)
    assert table.seen("guid")
    assert sys.getrefcount(guid) == references


def test_discarding_a_guid_that_is_not_pending_changes_nothing(table):
    assert table.discard("a") is None
    assert verdict(table, "a") == ("UNKNOWN", None)


def test_a_deadline_has_passed_at_its_exact_time(table):
    table.add("a", 1, 2.0)
    assert table.expire(math.nextafter(2.0, 0.0)) == []
    assert table.expire(2.0) == [("a", 1)]
    assert table.expire(2.0) == []


def test_deadlines_in_any_order(table):
    for guid, deadline in (("a", 5.0), ("b", 1.0), ("c", 3.0), ("d", math.inf)):
        table.add(guid, guid, deadline)
    assert table.next_deadline() == 1.0
    assert table.expire(3.0) == [("b", "b"), ("c", "c")]
    assert table.next_deadline() == 5.0
    assert table.expire(1e300) == [("a", "a")]
    assert table.next_deadline() == math.inf
    table.settle("d", True)
    assert table.next_deadline() is None


def test_drain_hands_out_all_in_the_order_of_adding(table):
    for guid, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        table.add(guid, guid.upper(), deadline)
    assert table.drain() == [("c", "C"), ("a", "A"), ("b", "B")]
    assert len(table) == 0
    assert table.next_deadline() is None
    assert table.drain() == []


def test_remember_bounds_the_remembered_guids_and_evicts_the_oldest(impl):
    table = impl.acks.AckTable(remember=3)
    for guid in "abcd":
        table.add(guid, guid, 1.0)
        table.settle(guid, True)
    assert verdict(table, "a") == ("UNKNOWN", None)
    assert [verdict(table, guid)[0] for guid in "bcd"] == ["DUPLICATE"] * 3
    assert not table.seen("a")
    table.add("a", "again", 1.0)
    assert verdict(table, "a") == ("MATCHED", "again")


def test_a_guid_sent_again_is_remembered_once(impl):
    table = impl.acks.AckTable(remember=2)
    for ok in (False, False, True):
        table.add("a", 1, 1.0)
        table.settle("a", ok)
    for guid in "bcd":
        assert table.seen("a") is (guid in "bc")
        table.add(guid, 1, 1.0)
        table.settle(guid, True)
        assert table.seen(guid)
    assert [verdict(table, guid)[0] for guid in "abcd"] == ["UNKNOWN", "UNKNOWN", "DUPLICATE", "DUPLICATE"]


def test_a_guid_forgotten_while_it_is_pending_again_is_remembered_anew(impl):
    table = impl.acks.AckTable(remember=1)
    table.add("a", 1, 1.0)
    table.settle("a", False)
    table.add("a", 2, 1.0)
    table.add("b", 1, 1.0)
    table.settle("b", True)
    assert table.seen("a")
    assert verdict(table, "a") == ("MATCHED", 2)
    assert table.seen("a")
    assert not table.seen("b")


def test_remember_does_not_bound_pending_guids(impl):
    table = impl.acks.AckTable(remember=1)
    for i in range(100):
        table.add(str(i), i, 1.0)
    assert len(table) == 100
    assert [table.settle(str(i), True)[1] for i in range(100)] == list(range(100))


@pytest.mark.parametrize(("remember", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_wrong_remember_is_refused(impl, remember, error):
    with pytest.raises(error, match="remember should be"):
        impl.acks.AckTable(remember)


@pytest.mark.parametrize("req_guid", [None, b"a", 1])
def test_a_guid_that_is_not_text_is_refused(table, req_guid):
    with pytest.raises(TypeError, match="req_guid should be str"):
        table.add(req_guid, 1, 1.0)
    assert len(table) == 0


@pytest.mark.parametrize(("deadline", "error"), [(math.nan, ValueError), ("1x", ValueError), (None, TypeError)])
def test_an_invalid_deadline_is_refused(table, deadline, error):
    with pytest.raises(error):
        table.add("a", 1, deadline)
    assert not table.seen("a")


class Model(RuleBasedStateMachine):
    """The table against lists that are searched from end to end."""

    REMEMBER = 3

    def __init__(self, acks) -> None:
        super().__init__()
        self.table = acks.AckTable(self.REMEMBER)
        self.pending: list[tuple[str, object, float]] = []
        self.past: list[tuple[str, str]] = []
        self.counts = {"DUPLICATE": 0, "LATE": 0, "UNKNOWN": 0}
        self.serial = 0

    def fate(self, guid):
        return dict(self.past).get(guid)

    def note(self, guid, fate):
        if self.fate(guid) is None:
            self.past = [*self.past, (guid, fate)][-self.REMEMBER :]
        else:
            self.past = [(g, fate if g == guid else f) for g, f in self.past]

    def take(self, taken):
        for entry in taken:
            self.pending.remove(entry)
            self.note(entry[0], "LATE")
        return [(guid, entry) for guid, entry, _ in taken]

    @rule(guid=GUIDS, deadline=TIMES)
    def add(self, guid, deadline):
        self.serial += 1
        refused = guid in [p[0] for p in self.pending] or self.fate(guid) in ("OK", "LATE")
        assert self.table.seen(guid) is refused
        if refused:
            with pytest.raises(ValueError):
                self.table.add(guid, self.serial, deadline)
        else:
            self.table.add(guid, self.serial, deadline)
            self.pending.append((guid, self.serial, deadline))

    @rule(guid=GUIDS, ok=st.booleans())
    def settle(self, guid, ok):
        found = [p for p in self.pending if p[0] == guid]
        if found:
            self.pending.remove(found[0])
            self.note(guid, "OK" if ok else "ERROR")
            expected = ("MATCHED", found[0][1])
        else:
            kind = {"OK": "DUPLICATE", "ERROR": "DUPLICATE", "LATE": "LATE", None: "UNKNOWN"}[self.fate(guid)]
            self.counts[kind] += 1
            expected = (kind, None)
        assert verdict(self.table, guid, ok) == expected

    @rule(now=TIMES)
    def expire(self, now):
        assert self.table.expire(now) == self.take([p for p in self.pending if p[2] <= now])

    @rule(guid=GUIDS)
    def discard(self, guid):
        taken = self.take([p for p in self.pending if p[0] == guid])
        assert self.table.discard(guid) == (taken[0][1] if taken else None)

    @rule()
    def drain(self):
        assert self.table.drain() == self.take(list(self.pending))

    @invariant()
    def agrees(self):
        assert len(self.table) == len(self.pending)
        assert self.table.next_deadline() == min((p[2] for p in self.pending), default=None)
        assert all(p[0] in self.table for p in self.pending)
        counts = {"DUPLICATE": self.table.duplicates, "LATE": self.table.late, "UNKNOWN": self.table.unknown}
        assert counts == self.counts


@pytest.mark.slow
def test_the_table_behaves_like_its_model(impl):
    run_state_machine_as_test(lambda: Model(impl.acks), settings=settings(max_examples=60, stateful_step_count=50))
