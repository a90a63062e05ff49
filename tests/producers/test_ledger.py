"""Random emits, faults, overflows and closes: each accepted event is always in exactly one place."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from patience import patient

from raccoon_fast import RAW, BufferFull, DroppedError, EventsRejectedError, Producer, RetryPolicy
from raccoon_fast.collector import Collector

TYPES = st.sampled_from(["a", "b", "bad"])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.collector = Collector(acks="sync").start()
        self.producer: Producer | None = None
        self.receipts: dict[Any, list[bytes]] = {}
        self.number = 0
        self.rejected = 0

    @initialize(
        scheme=st.sampled_from(["ws", "http", "grpc"]),
        overflow=st.sampled_from(["raise", "drop_newest", "drop_oldest"]),
        wire=st.sampled_from(["proto", "json"]),
    )
    def make(self, scheme: str, overflow: str, wire: str) -> None:
        collector = self.collector
        url = {"ws": collector.ws_url, "http": collector.url, "grpc": f"grpc://{collector.grpc_target}"}[scheme]
        self.producer = Producer(
            url,
            serializer=RAW,
            logger=None,
            linger=0.001,
            batch_events=7,
            batch_bytes=2_000,
            buffer_bytes=10_000,
            max_in_flight=3,
            overflow=overflow,
            timeout=0.2,
            delivery_timeout=1.0,
            wire="proto" if scheme == "grpc" else wire,
            retry=RetryPolicy(max_attempts=1000, initial=0.005, maximum=0.02),
        )

    @rule(event_type=TYPES, size=st.integers(0, 3000))
    def emit(self, event_type: str, size: int) -> None:
        assert self.producer is not None
        self.number += 1
        data = b"%d " % self.number + bytes(size)
        try:
            receipt = self.producer.emit(event_type, data)
        except BufferFull:
            self.rejected += 1
        else:
            self.receipts.setdefault(receipt, []).append(data)

    @rule(count=st.integers(1, 60))
    def emit_many(self, count: int) -> None:
        for _ in range(count):
            self.emit("a", 20)

    @rule(fault=st.sampled_from(["drop_acks", "hang_up", "fail_publish", "wrong_guid", "status", "bad"]))
    def break_answers(self, fault: str) -> None:
        if fault == "status":
            self.collector.faults.status(503, times=3)
        elif fault == "bad":
            self.collector.faults.bad_answer(b"\xff\xff", times=2)
        else:
            getattr(self.collector.faults, fault)(times=3)

    @rule()
    def reject(self) -> None:
        self.collector.faults.reject_events("bad")

    @rule()
    def reset_connections(self) -> None:
        self.collector.faults.close_connections()

    @rule(is_down=st.booleans())
    def go_down(self, is_down: bool) -> None:
        if is_down:
            self.collector.faults.refuse()
        else:
            self.collector.faults.accept()

    @rule(timeout=st.sampled_from([0.001, 0.05]))
    def flush(self, timeout: float) -> None:
        assert self.producer is not None
        unsettled = self.producer.flush(timeout)
        assert unsettled <= self.number

    @invariant()
    def balances(self) -> None:
        if self.producer is None:
            return
        report = self.producer.stats()
        for counts in [report.total, *report.by_type.values()]:
            settled = counts.acked + counts.expired + sum(counts.failed.values()) + sum(counts.dropped.values())
            settled += counts.sampled + counts.filtered + counts.discarded
            assert settled + counts.spooled + counts.queued + counts.in_flight == counts.accepted
        assert report.total.accepted == self.number - self.rejected

    def teardown(self) -> None:
        try:
            if self.producer is not None:
                self.end(self.producer)
        finally:
            self.collector.close()

    def end(self, producer: Producer) -> None:
        start_s = time.monotonic()
        report = producer.close(timeout=1.0)
        assert time.monotonic() - start_s < patient(5)
        self.balances()
        assert report.total.unsettled == 0
        received = {event.data for event in self.collector.events}
        acked = expired_or_failed = dropped = 0
        for receipt, sent in self.receipts.items():
            assert receipt.done()
            error = receipt.exception(0)
            if error is None:
                assert received.issuperset(sent)
                acked += len(sent)
            elif isinstance(error, EventsRejectedError):
                acked += len(sent) - len(error.rejected)
                expired_or_failed += len(error.rejected)
            elif isinstance(error, DroppedError):
                dropped += len(sent)
            else:
                expired_or_failed += len(sent)
        total = report.total
        assert sum(total.dropped.values()) == dropped
        # Of a batch that was split a part may have been acknowledged before another expired.
        assert total.acked >= acked
        assert total.acked + total.lost == acked + expired_or_failed + dropped == total.accepted


TestLedger = Machine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck))
