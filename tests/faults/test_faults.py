"""Faults of the network and of the server, and how a producer handles them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fault_proxy import DOWN, UP
from patience import patient, wait_until

from raccoon_fast import RAW, Producer, RetryPolicy

NewTrial = Callable[..., Any]


class TestConnections:
    def test_cut_in_the_middle_of_a_request(self, new_trial: NewTrial) -> None:
        trial = new_trial()
        trial.proxy.cut_after = {UP: 5_000}
        trial.emit(50, size=1000)
        wait_until(lambda: trial.proxy.connections >= 3)
        trial.judge()

    def test_cut_before_the_acknowledgement(self, new_trial: NewTrial) -> None:
        trial = new_trial()
        trial.emit(1)
        assert trial.producer.flush(patient(10)) == 0
        trial.proxy.swallowed = {DOWN}
        receipts = trial.emit(30)
        trial.collector.wait_for(31)
        trial.proxy.cut()
        trial.proxy.heal()
        assert trial.producer.flush(patient(10)) == 0
        guids = [request.req_guid for request in trial.collector.requests]
        for receipt in receipts:
            assert guids.count(receipt.req_guid) >= 2  # sent again under its guid
        trial.judge()

    def test_refused_for_a_while(self, new_trial: NewTrial) -> None:
        trial = new_trial()
        trial.proxy.refuse()
        receipts = trial.emit()
        wait_until(lambda: not trial.producer.health().ok)
        assert not any(receipt.done() for receipt in receipts)
        trial.proxy.accept()
        trial.judge()

    def test_resets_again_and_again(self, new_trial: NewTrial) -> None:
        trial = new_trial()
        for _ in range(10):
            trial.emit(20)
            trial.proxy.cut()
        trial.judge()

    def test_a_black_hole(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=0.2)
        trial.proxy.swallowed = {UP, DOWN}
        trial.emit()
        wait_until(lambda: not trial.producer.health().ok)
        trial.judge()

    def test_a_black_hole_after_the_connection_was_used(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=0.2)
        trial.emit(1)
        assert trial.producer.flush(patient(10)) == 0
        trial.proxy.swallowed = {UP, DOWN}
        trial.emit()
        wait_until(lambda: not trial.producer.health().ok)
        trial.judge()

    def test_a_slow_link(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=10.0, buffer_bytes=1 << 18, batch_bytes=1 << 16)
        trial.proxy.bytes_per_s = 2e6
        trial.emit(500, size=1000)
        assert trial.producer._accumulator.buffered <= 1 << 18
        trial.judge()

    def test_a_far_server(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=10.0)
        trial.proxy.delay_s = 0.03
        trial.emit(200)
        assert trial.producer.flush(patient(20)) == 0
        trial.judge()


class TestAnswers:
    def test_lost(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=0.2)
        trial.collector.faults.drop_acks(times=3)
        trial.emit()
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    @pytest.mark.parametrize("scheme", ["ws", "http"], indirect=True)
    @pytest.mark.parametrize("fault", ["duplicate_acks", "reorder_acks", "unknown_acks"])
    def test_out_of_order_duplicated_or_unmatched(self, new_trial: NewTrial, fault: str) -> None:
        trial = new_trial()
        getattr(trial.collector.faults, fault)()
        trial.emit(200)
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    def test_for_another_request(self, new_trial: NewTrial) -> None:
        trial = new_trial(timeout=0.2)
        trial.collector.faults.wrong_guid(times=2)
        trial.emit()
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    @pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"\xff\xff\xff", b'{"status":1}'])
    def test_answers_that_are_not_raccoon_s(self, new_trial: NewTrial, body: bytes) -> None:
        trial = new_trial(timeout=0.2)
        trial.collector.faults.bad_answer(body, times=3)
        trial.emit()
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    @pytest.mark.parametrize("scheme", ["ws", "http"], indirect=True)
    @pytest.mark.parametrize("after_bytes", [0, 1, 10, 60])
    def test_cut_short(self, new_trial: NewTrial, after_bytes: int) -> None:
        trial = new_trial()
        trial.collector.faults.cut_answers(after_bytes, times=3)
        trial.emit()
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_transient_errors(self, new_trial: NewTrial, status: int) -> None:
        trial = new_trial()
        trial.collector.faults.status(status, times=3)
        trial.emit()
        assert trial.producer.flush(patient(10)) == 0
        trial.judge()

    @pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
    def test_a_wrong_setting_loses_nothing_until_it_is_fixed(self, new_trial: NewTrial, status: int) -> None:
        trial = new_trial()
        trial.collector.faults.status(status)
        receipts = trial.emit()
        wait_until(lambda: not trial.producer.health().ok)
        assert not any(receipt.done() for receipt in receipts)
        trial.judge()

    @pytest.mark.parametrize("scheme", ["http"], indirect=True)
    def test_retry_after_stops_all(self, new_trial: NewTrial) -> None:
        trial = new_trial()
        trial.collector.faults.status(503, times=1, retry_after=1)
        trial.emit(10)
        wait_until(lambda: not trial.producer.health().ok)
        start_s = time.monotonic()
        trial.emit(100)
        assert trial.producer.flush(patient(10)) == 0
        assert time.monotonic() - start_s > 0.8
        trial.judge()

    @pytest.mark.parametrize("scheme", ["http"], indirect=True)
    def test_an_error_before_the_body_is_read(self, new_trial: NewTrial) -> None:
        trial = new_trial(batch_bytes=8 << 20, batch_events=1000, timeout=5.0)
        trial.collector.faults.early_error(503, times=3)
        trial.emit(5, size=1 << 20)
        assert trial.producer.flush(patient(20)) == 0
        trial.judge()


class TestServer:
    @pytest.mark.parametrize("scheme", ["http"], indirect=True)
    def test_a_sink_that_fails_is_not_finished_off_by_retries(self, new_trial: NewTrial) -> None:
        at_once = RetryPolicy(max_attempts=1000, initial=0.001, maximum=0.001)
        trial = new_trial({"acks": "sync"}, batch_events=1, retry=at_once)
        trial.collector.faults.fail_publish()
        start_s = time.monotonic()
        trial.emit(5)
        wait_until(lambda: trial.producer.stats().retries >= 20)
        # 16 at once and a fifth of the first attempts; after that one a second.
        assert time.monotonic() - start_s > 20 - 16 - 5 / 5 - 0.5
        trial.judge()

    def test_publishing_fails_for_a_while(self, new_trial: NewTrial) -> None:
        trial = new_trial({"acks": "sync"})
        trial.collector.faults.fail_publish(times=20)
        trial.emit(100)
        assert trial.producer.flush(patient(20)) == 0
        trial.judge()

    def test_slow_to_publish(self, new_trial: NewTrial) -> None:
        trial = new_trial({"acks": "sync", "publish_delay": 0.02}, timeout=10.0)
        trial.emit(200)
        trial.judge()

    @pytest.mark.parametrize("scheme", ["ws"], indirect=True)
    def test_too_many_connections(self, new_trial: NewTrial) -> None:
        trial = new_trial({"max_connections": 1})
        trial.emit(1)
        assert trial.producer.flush(patient(10)) == 0
        second = Producer(
            trial.collector.ws_url, serializer=RAW, logger=None, retry=RetryPolicy(max_attempts=1000, initial=0.01)
        )
        receipt = second.emit("second", b"x")
        wait_until(lambda: not second.health().ok)
        assert "MAX_CONNECTION_LIMIT" in second.health().reasons[0]
        trial.judge()
        assert receipt.result(patient(20)).status.name == "SUCCESS"
        second.close()

    @pytest.mark.parametrize("scheme", ["ws"], indirect=True)
    def test_an_identity_that_is_taken(self, new_trial: NewTrial) -> None:
        trial = new_trial(user_id="one")
        trial.emit(1)
        assert trial.producer.flush(patient(10)) == 0
        policy = RetryPolicy(max_attempts=1000, initial=0.01, maximum=0.1)
        second = Producer(trial.collector.ws_url, serializer=RAW, logger=None, user_id="one", retry=policy)
        receipt = second.emit("second", b"x")
        wait_until(lambda: not second.health().ok)
        assert "MAX_USER_LIMIT" in second.health().reasons[0]
        trial.judge()
        assert receipt.result(patient(20)).status.name == "SUCCESS"
        second.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send on Windows")
class TestProcesses:
    """The server is a process of its own, and gets signals."""

    def new_producer(self, url: str) -> Producer:
        policy = RetryPolicy(max_attempts=10_000, initial=0.02, maximum=0.1)
        return Producer(url, serializer=RAW, logger=None, linger=0.001, batch_events=10, timeout=0.5, retry=policy)

    def emit(self, producer: Producer, name: str) -> None:
        producer.emit_many((name, b"%d" % number) for number in range(200))

    def test_killed_and_started_again(self, server: Any, scheme: str) -> None:
        with self.new_producer(server.url(scheme)) as producer:
            self.emit(producer, "before")
            assert producer.flush(patient(20)) == 0
            self.emit(producer, "while it is killed")
            server.end()
            self.emit(producer, "while it is gone")
            server.start()
            assert producer.flush(patient(30)) == 0
        assert producer.report.total.acked == 600

    def test_terminated_and_started_again(self, server: Any, scheme: str) -> None:
        with self.new_producer(server.url(scheme)) as producer:
            self.emit(producer, "before")
            assert producer.flush(patient(20)) == 0
            self.emit(producer, "while it ends")
            server.signal(signal.SIGTERM)
            server.process.wait(patient(10))
            server.start()
            assert producer.flush(patient(30)) == 0
        assert producer.report.total.acked == 400

    def test_stopped_and_continued(self, server: Any, scheme: str) -> None:
        with self.new_producer(server.url(scheme)) as producer:
            self.emit(producer, "before")
            assert producer.flush(patient(20)) == 0
            server.signal(signal.SIGSTOP)
            self.emit(producer, "while it is stopped")
            wait_until(lambda: not producer.health().ok)
            server.signal(signal.SIGCONT)
            assert producer.flush(patient(30)) == 0
        assert producer.report.total.acked == 400


def test_a_callback_that_blocks_holds_up_nobody(new_trial: NewTrial) -> None:
    release = threading.Event()
    trial = new_trial(on_delivery=lambda receipt: release.wait(patient(30)))
    trial.emit(300)
    assert trial.producer.flush(patient(10)) == 0
    release.set()
    trial.judge()
