"""Servers that refuse: for a time that they announce, or until a setting is corrected."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Callable

import pytest
from patience import patient, wait_until
from trial import Lines, Trial

from raccoon_fast.collector import Collector

NewTrial = Callable[..., Trial]


def ready_in_s(trial: Trial) -> float:
    assert trial.producer._engine is not None
    now_s = time.monotonic()
    return trial.producer._engine._endpoints.next_s(now_s) - now_s


@pytest.mark.parametrize("scheme", ["ws", "http"], indirect=True)
class TestRetryAfter:
    @pytest.mark.parametrize(
        ("seconds_or_date", "least_s", "most_s"),
        [
            (100, 90, 150),
            (lambda: email.utils.formatdate(time.time() + 100, usegmt=True), 90, 150),
            ("99999999999", 290, 450),
            (lambda: email.utils.formatdate(time.time() + 1e6, usegmt=True), 290, 450),
        ],
        ids=["seconds", "date", "absurd", "absurd date"],
    )
    def test_retry_after_is_obeyed_up_to_five_minutes(
        self, new_trial: NewTrial, seconds_or_date: object, least_s: float, most_s: float
    ) -> None:
        trial = new_trial()
        value = seconds_or_date() if callable(seconds_or_date) else seconds_or_date
        trial.collector.faults.status(503, retry_after=value)
        receipts = trial.emit(20)
        # On a slow machine the first attempts may time out before one is answered.
        wait_until(lambda: least_s < ready_in_s(trial) <= most_s, what=lambda: ready_in_s(trial))
        assert not any(receipt.done() for receipt in receipts)
        assert trial.producer.close(timeout=0).total.failed == {"closed": 20}

    @pytest.mark.parametrize("value", [-5, "-1e9", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT", "nan"])
    def test_an_invalid_value_changes_nothing(self, new_trial: NewTrial, value: object) -> None:
        trial = new_trial()
        trial.collector.faults.status(503, retry_after=value, times=3)
        trial.emit(20)
        assert trial.producer.flush(patient(10)) == 0
        assert ready_in_s(trial) <= 0.1
        trial.judge()


@pytest.mark.parametrize("scheme", ["http"], indirect=True)
def test_an_acknowledgement_to_another_request_does_not_end_the_pause(new_trial: NewTrial) -> None:
    trial = new_trial(max_in_flight=2, timeout=10.0)
    trial.collector.faults.delay(0.1)
    trial.collector.faults.status(503, times=1, retry_after=1)
    start_s = time.time()
    receipts = trial.emit(20)
    wait_until(lambda: any(receipt.done() for receipt in receipts))
    assert trial.collector.faults.fired["status"] == 1
    trial.emit(20)
    trial.collector.wait_for(40)
    others = trial.collector.requests[1:]
    assert min(request.received_time for request in others) - start_s >= 1.0
    trial.judge()


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_a_wrong_setting_is_logged_once_and_a_redirect_is_not_followed(new_trial: NewTrial, status: int) -> None:
    log = Lines()
    with Collector() as elsewhere:
        trial = new_trial(logger=log)
        trial.collector.faults.status(status, headers={"location": elsewhere.url})
        trial.emit(20)
        wait_until(lambda: trial.producer.stats().retries >= 5)
        said = [line for line in log.lines if not line.startswith("connected to")]
        assert len(said) == 1, said
        assert said[0].endswith("its events wait")
        trial.judge()
        assert elsewhere.request_count == 0


def test_authorization_is_asked_for_at_each_attempt(new_trial: NewTrial) -> None:
    """An expired token is thus replaced by the next one."""
    lock = threading.Lock()
    given: list[str] = []

    def auth() -> str:
        with lock:
            given.append(f"Bearer {len(given)}")
            return given[-1]

    trial = new_trial(auth=auth)
    trial.collector.faults.status(401, times=3)
    trial.emit(20)
    assert trial.producer.flush(patient(10)) == 0
    used = {request.headers["authorization"] for request in trial.collector.requests}
    assert used <= set(given)
    assert "Bearer 0" not in used
    trial.judge()
