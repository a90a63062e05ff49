"""The choice of the server: the first healthy one, with probes of the failed ones before it."""

from __future__ import annotations

from raccoon_fast.delivery.endpoints import Endpoint, Endpoints
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.net.address import parse_address

POLICY = RetryPolicy(initial=1.0, maximum=8.0, multiplier=2.0, jitter=None)
FAULT = ConnectionError("down")


def endpoint(transports: int = 1) -> Endpoint:
    return Endpoint(parse_address("ws://h", "WebSocket"), [None] * transports, POLICY, 1.0)  # type: ignore[list-item]


def test_the_first_healthy_server_is_used() -> None:
    first, second = endpoint(), endpoint()
    endpoints = Endpoints([first, second])
    assert endpoints.choose(0.0) is first
    first.failed(FAULT, 0.0, 1.0)
    assert endpoints.choose(1.0) is second
    second.failed(FAULT, 0.0, 1.0)
    assert endpoints.choose(1.0) is None
    assert endpoints.next_s(1.0) == 2.0


def test_a_failed_server_is_probed_with_backoff_by_one_batch_at_a_time() -> None:
    one = endpoint()
    one.failed(FAULT, 0.0, 0.0)
    assert (one.healthy, one.last_error, one.ready_s(0.5)) == (False, FAULT, 1.0)
    assert one.ready_s(1.5) == 1.5
    one.end(one.begin())
    assert one.ready_s(1.5) == float("inf")
    one.failed(FAULT, 1.5, 1.6)
    assert one.ready_s(1.6) == 3.6
    one.failed(FAULT, 3.7, 3.7)
    assert one.ready_s(3.7) == 7.4  # no longer than it has been down
    for attempt in range(20):
        one.failed(FAULT, 10.0 + attempt, 10.0 + attempt)
    assert one.ready_s(29.0) == 37.0


def test_failures_of_one_flight_count_once() -> None:
    one = endpoint()
    for _ in range(8):
        one.failed(FAULT, 0.0, 1.0)
    assert one.ready_s(1.0) == 2.0


def test_one_probe_is_enough_without_another_server() -> None:
    one = endpoint()
    one.failed(FAULT, 0.0, 0.0)
    one.begin()
    one.succeeded(alone=True)
    assert (one.healthy, one.last_error, one.ready_s(1.0)) == (True, None, 1.0)


def test_three_probes_in_a_row_are_needed_beside_a_healthy_server() -> None:
    first, second = endpoint(), endpoint()
    endpoints = Endpoints([first, second])
    first.failed(FAULT, 0.0, 0.0)
    for _ in range(2):
        assert endpoints.choose(5.0) is first
        first.begin()
        assert endpoints.choose(5.0) is second  # while the probe is under way
        first.succeeded(endpoints.alone(first))
        assert not first.healthy
    first.begin()
    first.succeeded(endpoints.alone(first))
    assert first.healthy


def test_a_failed_probe_restarts_the_count() -> None:
    first, second = endpoint(), endpoint()
    endpoints = Endpoints([first, second])
    first.failed(FAULT, 0.0, 0.0)
    first.begin()
    first.succeeded(endpoints.alone(first))
    first.begin()
    first.failed(FAULT, 2.0, 2.0)
    for _ in range(2):
        first.begin()
        first.succeeded(endpoints.alone(first))
    assert not first.healthy


def test_an_inconclusive_probe_may_be_repeated() -> None:
    one = endpoint()
    one.failed(FAULT, 0.0, 0.0)
    one.begin()
    one.released()
    assert one.ready_s(5.0) == 5.0


def test_a_pause_that_the_server_asked_for() -> None:
    one = endpoint()
    one.pause(10.0)
    assert Endpoints([one]).choose(5.0) is None
    assert one.ready_s(5.0) == 10.0


def test_a_pause_outlasts_answers_to_what_was_sent_before() -> None:
    one = endpoint()
    one.failed(FAULT, 0.0, 1.0)
    one.pause(10.0)
    one.succeeded(alone=True)
    assert one.healthy
    assert one.ready_s(5.0) == 10.0
    one.pause(8.0)  # the longest counts
    assert one.ready_s(5.0) == 10.0


def test_the_least_busy_connection_is_taken() -> None:
    one = endpoint(3)
    assert [one.begin() for _ in range(4)] == [0, 1, 2, 0]
    one.end(1)
    assert one.begin() == 1
    assert one.in_flight == 4


def test_occasional_sink_failures_are_not_server_failures() -> None:
    one = endpoint()
    for second in range(20):
        one.unpublished(FAULT, second, second + 0.5)
        one.unpublished(FAULT, second, second + 0.6)  # in flight with the first: it tells nothing new
        if second % 2:
            one.succeeded(alone=True)
        assert one.healthy


def test_a_sink_that_fails_three_times_in_a_row_is_probed() -> None:
    one = endpoint()
    for second in range(3):
        assert one.healthy
        one.unpublished(FAULT, second, second + 0.5)
    assert (one.healthy, one.last_error, one.failed_with_batch) == (False, FAULT, False)
    assert one.ready_s(2.5) == 3.5
    one.begin()
    one.unpublished(FAULT, 3.5, 3.6)
    assert one.ready_s(3.6) > 4.0
    one.begin()
    one.succeeded(alone=True)
    assert one.healthy


def test_a_failure_says_whether_the_batch_may_be_the_cause() -> None:
    one = endpoint()
    one.failed(FAULT, 0.0, 0.0, with_batch=True)
    assert one.failed_with_batch
    one.failed(FAULT, 1.0, 1.0)
    assert not one.failed_with_batch


def test_a_separate_transport_is_made_on_demand() -> None:
    apart = object()
    one = Endpoint(parse_address("ws://h", "WebSocket"), [None], POLICY, 1.0, lambda: apart)  # type: ignore
    assert one.apart is None
    assert one.open_apart() is apart
    assert one.apart is apart
    # Where there may be one connection only, it is shared.
    only = object()
    one = Endpoint(parse_address("ws://h", "WebSocket"), [only], POLICY, 1.0)  # type: ignore[list-item]
    assert (one.open_apart(), one.apart) == (only, None)


def test_well_lists_healthy_endpoints() -> None:
    first, second = endpoint(), endpoint()
    endpoints = Endpoints([first, second])
    first.failed(FAULT, 0.0, 0.0)
    assert endpoints.well(5.0) == [second]
    second.pause(10.0)
    assert endpoints.well(5.0) == []
