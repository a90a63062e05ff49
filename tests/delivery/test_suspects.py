"""Which failed batches become suspects, which suspects are convicted, and when each is sent."""

from __future__ import annotations

import pytest

from raccoon_fast.core.batch import Batch
from raccoon_fast.delivery.endpoints import Endpoint
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.delivery.suspects import Suspects, Trouble
from raccoon_fast.errors import ConnectionLostError, DeliveryError, ServerError
from raccoon_fast.net.address import parse_address

RESET = ConnectionLostError("reset")
FORBIDDEN = ServerError("forbidden", status=403)
LOAD_STATUSES = (429, 500, 503, "UNAVAILABLE", "RESOURCE_EXHAUSTED")
LOAD = [ServerError("busy", status=status, retryable=True) for status in LOAD_STATUSES]


ADDRESS = parse_address("ws://h", "WebSocket")
SERVER, OTHER = (Endpoint(ADDRESS, [], RetryPolicy(), 1.0) for _ in range(2))


def new_trouble(error: DeliveryError, acked: int) -> Trouble:
    return Trouble(error, {SERVER: acked, OTHER: 0})


def failed(trouble: Trouble, error: DeliveryError, acked: int, *, has_others: bool = True) -> bool:
    """As the engine tells it of a failure among others, at a server that acknowledged so many by now."""
    SERVER.acked = acked
    return trouble.failed(error, SERVER, trouble.others_passed(SERVER) or not has_others)


@pytest.mark.parametrize("error", [RESET, FORBIDDEN])
def test_a_second_failure_while_others_get_through(error: DeliveryError) -> None:
    trouble = new_trouble(error, 7)
    assert not failed(trouble, error, 7)
    assert failed(trouble, error, 8)


@pytest.mark.parametrize("error", LOAD, ids=lambda error: str(error.status))
def test_errors_about_load_make_a_suspect_later(error: DeliveryError) -> None:
    trouble = new_trouble(error, 0)
    assert [failed(trouble, error, acked) for acked in range(5)] == [False, False, False, True, True]


def test_a_server_that_takes_nothing_makes_no_suspects() -> None:
    trouble = new_trouble(RESET, 7)
    assert not any(failed(trouble, RESET, 7) for _ in range(20))
    # Not even where no other batch is left to tell.
    assert not any(failed(trouble, RESET, 7, has_others=False) for _ in range(20))


def test_the_last_batch_is_a_suspect_if_others_got_through_since_it_was_first_sent() -> None:
    trouble = new_trouble(RESET, 7)
    assert not failed(trouble, RESET, 20, has_others=False)
    assert failed(trouble, RESET, 20, has_others=False)


def test_failures_alone_convict() -> None:
    trouble = new_trouble(RESET, 0)
    failed(trouble, RESET, 1)
    failed(trouble, RESET, 2)
    assert [trouble.failed_alone(RESET, SERVER), trouble.is_convicted] == [False, False]
    assert [trouble.failed_alone(RESET, SERVER), trouble.is_convicted] == [True, True]
    part = trouble.of_part()
    assert (part.is_suspect, part.is_convicted, part.failures_alone, part.error) == (True, True, {}, RESET)
    assert part.failed_alone(RESET, SERVER)


def test_failures_that_are_about_load_convict_later() -> None:
    trouble = new_trouble(LOAD[0], 0)
    SERVER.acked = 1
    trouble.others_passed(SERVER)
    assert [trouble.failed_alone(LOAD[0], SERVER) for _ in range(3)] == [False, False, True]
    assert [trouble.of_part().failed_alone(LOAD[0], SERVER), trouble.is_convicted] == [False, True]


def test_no_batch_is_convicted_when_none_got_through() -> None:
    trouble = new_trouble(RESET, 0)
    assert not any(trouble.failed_alone(RESET, SERVER) for _ in range(20))


def test_acknowledgements_of_another_server_do_not_count() -> None:
    trouble = new_trouble(FORBIDDEN, 7)
    for acked in range(20):
        OTHER.acked = acked
        assert not failed(trouble, FORBIDDEN, 7)
        assert not trouble.others_passed(SERVER)
        assert not trouble.failed_alone(FORBIDDEN, SERVER)
    OTHER.acked = 0


def test_a_suspect_goes_to_each_server_in_turn() -> None:
    suspects = Suspects(POLICY)
    batch = suspect()
    suspects.add(batch, 0.0)
    assert suspects.choose([SERVER, OTHER]) is SERVER
    batch.trouble._passing.update({SERVER, OTHER})
    batch.trouble.failed_alone(RESET, SERVER)
    assert suspects.choose([SERVER, OTHER]) is OTHER
    batch.trouble.failed_alone(RESET, OTHER)
    assert suspects.choose([SERVER, OTHER]) is SERVER


# Waiting

POLICY = RetryPolicy(initial=1.0, multiplier=2.0, maximum=60.0, jitter=None)


def suspect(failures_alone: int = 0, deadline_s: float = 100.0) -> Batch:
    batch = Batch("proto")
    batch.add("t", b"x")
    batch.deadline_s = deadline_s
    batch.trouble = new_trouble(RESET, 0)
    batch.trouble.failures_alone[SERVER] = failures_alone
    return batch


def test_each_waits_longer_after_each_failure() -> None:
    suspects = Suspects(POLICY)
    assert (suspects.due_s, suspects.deadline_s, len(suspects)) == (float("inf"), float("inf"), 0)
    for failures, due_s in ((0, 10.0), (1, 11.0), (2, 12.0), (5, 26.0)):
        suspects.add(suspect(failures), 10.0)
        assert suspects.due_s == due_s
        suspects.pop()


def test_one_at_a_time() -> None:
    suspects = Suspects(POLICY)
    suspects.add(suspect(), 0.0)
    suspects.is_busy = True
    assert suspects.due_s == float("inf")
    suspects.is_busy = False
    assert suspects.due_s == 0.0


def test_an_overdue_suspect_is_returned_once() -> None:
    suspects = Suspects(POLICY)
    early, late = suspect(deadline_s=5.0), suspect(deadline_s=9.0)
    suspects.add(late, 0.0)
    suspects.add(early, 0.0)
    assert suspects.pop_overdue(4.9) == []
    assert suspects.pop_overdue(5.0) == [early]
    assert (suspects.deadline_s, [*suspects]) == (9.0, [late])
    assert suspects.pop_all() == [late]
    assert len(suspects) == 0
