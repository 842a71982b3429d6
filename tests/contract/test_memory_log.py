"""The log in memory: the contract, and what a simulation can make of it."""

from __future__ import annotations

import pytest

from kstate.clock import SystemClock
from kstate.errors import ConfigError, FencedError, RetryableError, TaintedError
from kstate.interfaces import Producer, TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.memory_log import Call, Fault, MemoryLog
from tests.contract.log_contract import DeleteBefore, DeleteTopic, messages, opened, sent, visible
from tests.contract.places_contract import PlacesContract

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


class VirtualClock(SystemClock):
    """Time that passes when told so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TestMemoryLog(PlacesContract):
    """The contract over the model."""

    @pytest.fixture
    def log(self) -> MemoryLog:
        """Markers arrive at once."""
        return MemoryLog(SystemClock())

    @pytest.fixture
    def delete_before(self, log: MemoryLog) -> DeleteBefore:
        """DeleteRecords."""
        return lambda source, offset: log.delete_records({source: offset})

    @pytest.fixture
    def delete_topic(self, log: MemoryLog) -> DeleteTopic:
        """Somebody deletes a topic."""
        return log.delete_topic


@pytest.fixture
def clock() -> VirtualClock:
    """Time that passes when told so."""
    return VirtualClock()


@pytest.fixture
def log(clock: VirtualClock) -> MemoryLog:
    """Topic t with two partitions; markers arrive when told so."""
    log = MemoryLog(clock, auto_deliver=False)
    log.create_topics([TopicSpec("t", 2)])
    return log


def both(producer: Producer, value: bytes) -> Producer:
    """An open transaction with this value in both partitions."""
    producer.begin()
    for partition in (0, 1):
        producer.send("t", messages(value, partition=partition))
    producer.flush()
    return producer


def seen(log: MemoryLog, source: TopicPartition = T0) -> list[bytes | None]:
    """What a read_committed reader sees now."""
    return [record.value for record in log.records(source)]


class TestMarkers:
    """After the decision, a marker per partition, later."""

    def test_a_commit_shows_partition_by_partition(self, log: MemoryLog) -> None:
        """In whatever order the markers arrive; each takes an offset."""
        both(opened(log, "a"), b"1").commit()
        assert [(m.source, m.transactional_id, m.committed) for m in log.pending_markers()] == [
            (T0, "a", True),
            (T1, "a", True),
        ]
        assert (seen(log, T0), seen(log, T1)) == ([], [])
        log.deliver_marker(1)
        assert (seen(log, T0), seen(log, T1)) == ([], [b"1"])
        assert log.end_offsets([T0, T1], committed=True) == {T0: 0, T1: 2}
        log.deliver_marker(0)
        assert seen(log, T0) == [b"1"]

    def test_a_pending_marker_hides_what_others_committed_after_it(self, log: MemoryLog) -> None:
        """The heir's own undelivered commit hides the tail (second half of story P1)."""
        first, second = sent(opened(log, "a"), "t", b"1"), sent(opened(log, "b"), "t", b"2")
        first.commit()
        second.commit()
        log.deliver_marker(1)
        assert log.end_offsets([T0], committed=True) == {T0: 0}
        assert log.end_offsets([T0], committed=False) == {T0: 3}
        log.deliver_marker(0)
        assert seen(log) == [b"1", b"2"]

    @pytest.mark.parametrize("committed", [True, False])
    def test_opening_waits_for_the_markers_of_what_was_decided(self, log: MemoryLog, *, committed: bool) -> None:
        """A transaction in prepare-commit is completed, never aborted; so with fence."""
        for takeover in (lambda: opened(log, "a"), lambda: log.fence("a")):
            producer = sent(opened(log, "a"), "t", b"x")
            (producer.commit if committed else producer.abort)()
            assert log.pending_markers()
            takeover()
            assert not log.pending_markers()
        assert seen(log) == ([b"x", b"x"] if committed else [])

    def test_the_next_transaction_waits_for_the_markers_of_the_last(self, log: MemoryLog) -> None:
        """Kafka answers CONCURRENT_TRANSACTIONS until they are written, and the client tries again."""
        producer = sent(opened(log, "a"), "t", b"1")
        producer.commit()
        producer.begin()
        assert log.pending_markers()
        producer.send("t", messages(b"2"))
        assert not log.pending_markers()
        assert seen(log) == [b"1"]


class TestFaults:
    """Each does what the table of the module says."""

    @pytest.mark.parametrize(
        ("fault", "now", "later"),
        [
            (Fault.NOT_APPLIED, [], []),
            (Fault.RETRYABLE, [], []),
            (Fault.APPLIED, [b"1"], [b"1"]),
            (Fault.APPLIED_LATE, [], [b"1"]),
            (Fault.APPLIED_TWICE, [b"1"], [b"1"]),
        ],
    )
    def test_a_commit_of_unknown_outcome_taints(
        self, clock: VirtualClock, fault: Fault, now: list[bytes], later: list[bytes]
    ) -> None:
        """Applied or not, now or when the request arrives: the caller hears the same."""
        log = MemoryLog(clock)
        log.create_topics([TopicSpec("t", 2)])
        producer = sent(opened(log, "a"), "t", b"1")
        log.inject("commit", fault, "a")
        with pytest.raises(TaintedError, match="'a'"):
            producer.commit()
        with pytest.raises(TaintedError):
            producer.begin()
        assert seen(log) == now
        while log.pending_requests():
            log.deliver_request()
        assert seen(log) == later

    @pytest.mark.parametrize("fault", [Fault.APPLIED_LATE, Fault.APPLIED_TWICE])
    def test_a_stray_commit_hits_the_next_transaction_of_a_producer_that_is_kept(
        self, clock: VirtualClock, fault: Fault
    ) -> None:
        """Without KIP-890 nothing tells one transaction of an epoch from the next: what S4 is for."""
        log = MemoryLog(clock)
        log.create_topics([TopicSpec("t", 2)])
        producer = log.producer("a")
        producer.open()
        sent(producer, "t", b"1")
        log.inject("commit", fault)
        with pytest.raises(TaintedError):
            producer.commit()
        producer.forgive()
        sent(producer, "t", b"2")
        log.deliver_request()
        assert seen(log)[-1] == b"2"
        with pytest.raises(TaintedError):  # the partition is no longer part of a transaction
            producer.send("t", messages(b"3"))

    def test_a_stray_commit_after_a_re_open_does_nothing(self, log: MemoryLog) -> None:
        """The epoch in it is fenced."""
        producer = sent(opened(log, "a"), "t", b"1")
        log.inject("commit", Fault.APPLIED_LATE)
        with pytest.raises(TaintedError):
            producer.commit()
        heir = sent(opened(log, "a"), "t", b"2")
        log.deliver_request()
        heir.abort()
        log.deliver_marker()
        assert seen(log) == []

    def test_a_lost_request_can_be_dropped(self, log: MemoryLog) -> None:
        """It never arrives."""
        producer = sent(opened(log, "a"), "t", b"1")
        log.inject("commit", Fault.APPLIED_LATE)
        with pytest.raises(TaintedError):
            producer.commit()
        log.drop_request()
        assert not log.pending_requests()

    @pytest.mark.parametrize("applied", [True, False])
    def test_a_fence_whose_answer_is_lost_may_have_fenced(self, log: MemoryLog, *, applied: bool) -> None:
        """Retryable in both cases: it counts only after it succeeded."""
        producer = sent(opened(log, "a"), "t", b"1")
        log.inject("fence", Fault.APPLIED if applied else Fault.NOT_APPLIED)
        with pytest.raises(RetryableError):
            log.fence("a")
        if applied:
            with pytest.raises(FencedError):
                producer.commit()
        else:
            producer.commit()

    def test_refused_and_lost_messages_are_counted(self, log: MemoryLog) -> None:
        """S11: the one at once, the other by the flush; neither is committed."""
        for fault, call in ((Fault.REFUSED, "send"), (Fault.UNDELIVERED, "flush")):
            producer = opened(log, "a")
            producer.begin()
            log.inject("send", fault)
            if call == "flush":
                producer.send("t", messages(b"1", b"2"))
                with pytest.raises(TaintedError, match="2 messages handed over, 2 accepted, 1 delivered"):
                    producer.flush()
            else:
                with pytest.raises(TaintedError, match="2 messages handed over, 1 accepted, 1 delivered"):
                    producer.send("t", messages(b"1", b"2"))
            with pytest.raises(TaintedError):
                producer.commit()

    def test_undelivered_messages_are_lost_without_the_count(
        self, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What S11 is worth: with the check switched off, a commit loses half."""
        log = MemoryLog(clock)
        log.create_topics([TopicSpec("t", 2)])
        producer = opened(log, "a")
        monkeypatch.setattr(type(producer), "_check_counts", lambda _: None)
        producer.begin()
        log.inject("send", Fault.UNDELIVERED)
        producer.send("t", messages(b"1", b"2"))
        producer.commit()
        assert seen(log) == [b"1"]

    def test_a_transaction_that_is_open_for_too_long_is_aborted(self, log: MemoryLog, clock: VirtualClock) -> None:
        """The broker bumps the epoch: fenced, though nobody declared the worker dead."""
        producer = sent(opened(log, "a"), "t", b"1")
        clock.now += 9.9
        assert not log.pending_markers()
        clock.now += 0.2
        assert log.end_offsets([T0], committed=True) == {T0: 0}
        (marker,) = log.pending_markers()
        assert not marker.committed
        log.deliver_marker()
        assert log.end_offsets([T0], committed=True) == {T0: 2}
        with pytest.raises(FencedError):
            producer.commit()

    def test_reports_may_be_lost_or_late(self, log: MemoryLog) -> None:
        """They are not transactional and nobody waits for them."""
        log.inject("report", Fault.LOST)
        log.inject("report", Fault.DELAYED)
        for value in (b"1", b"2", b"3"):
            log.report("t", {"value": value, "partition": 0})
        assert seen(log) == [b"3"]
        log.deliver_request()
        assert seen(log) == [b"3", b"2"]

    def test_any_call_can_fail(self, log: MemoryLog) -> None:
        """A hook is asked at every call, with its name and subject."""
        calls: list[Call] = []

        def record(call: Call) -> Fault | None:
            calls.append(call)
            return Fault.RETRYABLE if call.operation == "end_offsets" else None

        log.faults = record
        with pytest.raises(RetryableError):
            log.end_offsets([T0], committed=True)
        sent(opened(log, "a"), "t", b"1").commit()
        log.reader().poll(1, 0)
        names = [call.operation for call in calls]
        assert names == ["end_offsets", "open", "begin", "send", "flush", "commit", "poll"]
        assert calls[1].subject == "a"

    def test_trouble_before_a_transaction_taints(self, log: MemoryLog) -> None:
        """As when the client's log shows a disconnect."""
        producer = opened(log, "a")
        log.inject("begin", Fault.TAINTED)
        with pytest.raises(TaintedError):
            producer.begin()

    def test_access_can_be_denied(self, log: MemoryLog) -> None:
        """To a topic, or to an id."""
        producer = opened(log, "a")
        producer.begin()
        log.deny("t")
        log.deny("b")
        reader = log.reader()
        reader.assign({T0: 0})
        for call in (
            lambda: producer.send("t", messages(b"1")),
            lambda: reader.poll(1, 0),
            lambda: log.end_offsets([T0], committed=True),
            lambda: log.producer("b").open(),
        ):
            with pytest.raises(ConfigError, match="denied"):
                call()
        log.allow("t")
        producer.send("t", messages(b"1"))

    def test_a_log_may_be_trimmed_under_an_open_transaction(self, log: MemoryLog) -> None:
        """DeleteRecords is not fenced and goes up to the end; no end lies before the start."""
        sent(opened(log, "a"), "t", b"1", b"2")
        log.delete_records({T0: 2, T1: 99})
        assert log.start_offsets([T0, T1]) == {T0: 2, T1: 0}
        assert log.end_offsets([T0], committed=True) == {T0: 2}

    def test_headers_are_kept(self, log: MemoryLog) -> None:
        """For tests of dead-letter topics."""
        producer = opened(log, "a")
        producer.begin()
        producer.send("t", [{"value": b"1", "partition": 0, "headers": [("reason", b"late")]}])
        (record,) = log.records(T0, committed=False)
        assert record.headers == (("reason", b"late"),)


def test_visible_and_records_agree(log: MemoryLog) -> None:
    """The tests' view of a partition is the reader's."""
    sent(opened(log, "a"), "t", b"1").commit()
    log.deliver_marker()
    sent(opened(log, "b"), "t", b"2").abort()
    log.deliver_marker()
    assert visible(log, T0) == seen(log) == [b"1"]
