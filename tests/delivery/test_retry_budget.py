"""First attempts, time and consecutive acknowledgements limit the number of retries."""

from __future__ import annotations

from raccoon_fast.delivery.retry_budget import RetryBudget


def taken(budget: RetryBudget) -> int:
    count = 0
    while budget.take():
        count += 1
    return count


def test_a_new_budget_has_a_reserve() -> None:
    assert taken(RetryBudget(reserve=16)) == 16


def test_first_attempts_pay_for_a_share_of_retries() -> None:
    budget = RetryBudget(share=0.25, reserve=16)
    taken(budget)
    for _ in range(40):
        budget.first_attempts()
    assert taken(budget) == 10


def test_the_unused_budget_does_not_exceed_the_reserve() -> None:
    budget = RetryBudget(share=0.25, reserve=16)
    for _ in range(1000):
        budget.first_attempts()
    budget.tick(1000)
    assert taken(budget) == 16


def test_time_alone_pays_for_one_retry_per_second() -> None:
    budget = RetryBudget()
    taken(budget)
    budget.tick(0.5)
    assert taken(budget) == 0
    budget.tick(2.5)
    assert taken(budget) == 3


def test_after_four_acknowledgements_in_a_row_each_pays_for_two_retries() -> None:
    budget = RetryBudget()
    taken(budget)
    for _ in range(4):
        budget.acked()
    assert taken(budget) == 0
    for _ in range(3):
        budget.acked()
    assert taken(budget) == 6


def test_a_failure_ends_the_row() -> None:
    budget = RetryBudget()
    taken(budget)
    for _ in range(100):
        for _ in range(4):
            budget.acked()
        budget.failed()
    assert taken(budget) == 0


def test_the_earned_budget_does_not_exceed_the_reserve() -> None:
    budget = RetryBudget(reserve=16)
    for _ in range(1000):
        budget.acked()
    assert taken(budget) == 16


def test_acknowledgements_and_first_attempts_count_the_same_in_bulk() -> None:
    for many in range(1, 20):
        together, one_by_one = RetryBudget(share=0.25), RetryBudget(share=0.25)
        for budget in (together, one_by_one):
            taken(budget)
        together.acked(many)
        together.first_attempts(many)
        for _ in range(many):
            one_by_one.acked()
        for _ in range(many):
            one_by_one.first_attempts()
        assert taken(together) == taken(one_by_one)
