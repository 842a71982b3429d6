"""Rules S4 and S11 in the producer, over a client that behaves as librdkafka may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from kstate.adapters.kafka_producer import Callback, KafkaProducer
from kstate.adapters.kafka_watch import ClientCallError, ClientWatch
from kstate.config import FailureSettings, Settings
from kstate.errors import ConfigError, FencedError, KstateError, RetryableError, TaintedError
from kstate.interfaces import OutMessage
from kstate.plan import TopicPartition

FAILURE = FailureSettings(transaction_timeout_ms=10_000, commit_slow_ms=5_000)


class ManualClock:
    """Time that passes when told so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Report:
    """A delivered message."""

    source: TopicPartition
    at: int

    def topic(self) -> str:
        return self.source.topic

    def partition(self) -> int:
        return self.source.partition

    def offset(self) -> int:
        return self.at


@dataclass
class FakeError:
    """The library's error object."""

    code: str
    text: str = "text"

    def name(self) -> str:
        return self.code

    def str(self) -> str:
        return self.text


@dataclass
class FakeClient:
    """A client that takes what fits `room`, delivers at flush, and does in `on` what a test wants it to."""

    clock: ManualClock
    watch: ClientWatch | None = None
    room: int = 1_000_000
    queue: list[tuple[TopicPartition, dict[str, Any], Callback | None]] = field(default_factory=list)
    logs: dict[TopicPartition, list[bytes]] = field(default_factory=dict)
    on: dict[str, Callable[[], None]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    pending_log: list[tuple[Any, ...]] = field(default_factory=list)
    fails: dict[bytes, str] = field(default_factory=dict)
    """Value of a message → the code its delivery fails with."""
    undelivered: int = 0

    def connect(self, transactional_id: str, watch: ClientWatch) -> FakeClient:
        self.watch = watch
        return self

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]:
        return {topic: 4 if topic == "t" else None for topic in topics}

    def init(self, seconds: float) -> None:
        self._called("init")

    def begin(self) -> None:
        self._called("begin")

    def batch(self, topic: str, partition: int, messages: list[dict[str, Any]], callback: Callback | None) -> int:
        self._called("batch")
        accepted = 0
        for message in messages:
            if len(message.get("value") or b"") > 1_000_000:
                message["_error"] = FakeError("MSG_SIZE_TOO_LARGE")
            elif len(self.queue) >= self.room:
                message["_error"] = FakeError("_QUEUE_FULL")
            else:
                report = message.get("callback") or callback
                self.queue.append((TopicPartition(topic, partition), message, report))
                accepted += 1
        return accepted

    def single(self, topic: str, message: OutMessage, callback: Callback | None) -> None:
        self._called("single")
        if len(self.queue) >= self.room:
            raise ClientCallError("_QUEUE_FULL", "full")
        self.queue.append((TopicPartition(topic, message["partition"]), dict(message), callback))

    def poll(self, seconds: float) -> int:
        self.clock.now += seconds
        self._called("poll")
        lines, self.pending_log = self.pending_log, []
        for line in lines:
            assert self.watch is not None
            self.watch.log(*line)
        self._deliver(len(self.queue) if seconds else 0)
        return len(lines)

    def flush(self, seconds: float) -> int:
        self._called("flush")
        self._deliver(len(self.queue) - self.undelivered)
        return len(self.queue)

    def commit(self, seconds: float) -> None:
        self._called("commit")

    def abort(self, seconds: float) -> None:
        self._called("abort")

    def discard(self) -> None:
        self._called("discard")

    def disconnected(self, level: int = logging.INFO) -> None:
        """What librdkafka logs when a connection in use is closed."""
        text = "broker/1: Disconnected (after 5000ms in state UP)"
        self.pending_log.append((level, "%s [%s] %s", "FAIL", "kstate#producer-1", text))

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.on.get(name, lambda: None)()

    def _deliver(self, count: int) -> None:
        for source, message, report in self.queue[:count]:
            log = self.logs.setdefault(source, [])
            code = self.fails.get(message["value"])
            if code is None:
                log.append(message["value"])
            if report is not None:
                report(FakeError(code) if code else None, Report(source, len(log) - 1))
        del self.queue[:count]


@pytest.fixture
def client() -> FakeClient:
    """A client without faults."""
    return FakeClient(ManualClock())


@pytest.fixture
def producer(client: FakeClient) -> KafkaProducer:
    """An open producer in its first transaction."""
    settings = Settings(failure=FAILURE)
    producer = KafkaProducer("w1", FAILURE, client.clock, ClientWatch(settings), client)
    producer.open()
    producer.begin()
    return producer


def batch(*values: bytes, partition: int = 0) -> list[OutMessage]:
    """Messages for one partition."""
    return [{"value": value, "partition": partition} for value in values]


def raising(code: str) -> Callable[[], None]:
    """A call that fails with this code."""

    def fail() -> None:
        raise ClientCallError(code, "said the client")

    return fail


class TestTaint:
    """S4: in doubt is tainted."""

    @pytest.mark.parametrize("ending", ["commit", "abort"])
    def test_a_disconnect_taints_even_when_the_call_says_ok(
        self, producer: KafkaProducer, client: FakeClient, ending: str
    ) -> None:
        """The client's log is read after the call, which succeeded."""
        producer.send("t", batch(b"1"))
        client.on[ending] = client.disconnected
        with pytest.raises(TaintedError, match=r"w1.*Disconnected"):
            getattr(producer, ending)()
        assert ending in client.calls

    def test_a_disconnect_that_gets_no_line_of_its_own_taints_too(
        self, producer: KafkaProducer, client: FakeClient
    ) -> None:
        """Librdkafka passes over identical errors within 30 s; its debug line says so."""
        text = "broker/1: Disconnected (_TRANSPORT): identical to last error: error log suppressed"
        client.on["commit"] = lambda: client.pending_log.append((10, "%s [%s] %s", "FAIL", "p", text))
        with pytest.raises(TaintedError):
            producer.commit()

    def test_the_closing_of_an_idle_connection_does_not_taint(
        self, producer: KafkaProducer, client: FakeClient
    ) -> None:
        """Librdkafka logs it at debug level when nothing was under way."""
        client.on["commit"] = lambda: client.disconnected(logging.DEBUG)
        producer.commit()
        producer.begin()

    def test_a_slow_commit_taints(self, producer: KafkaProducer, client: FakeClient) -> None:
        """EndTxn may have been repeated meanwhile."""

        def dawdle() -> None:
            client.clock.now += 5.1

        client.on["commit"] = dawdle
        with pytest.raises(TaintedError, match=r"took 5\.1 s"):
            producer.commit()

    @pytest.mark.parametrize("call", ["begin", "batch", "flush", "commit", "abort"])
    @pytest.mark.parametrize("code", ["_TIMED_OUT", "_TRANSPORT", "_STATE", "COORDINATOR_NOT_AVAILABLE", "WHATEVER"])
    def test_every_failure_within_a_transaction_taints(
        self, client: FakeClient, producer: KafkaProducer, call: str, code: str
    ) -> None:
        """Whatever the code, unless it says fenced or names a mistake to mend."""
        if call == "begin":
            producer.commit()
        client.on[call] = raising(code)
        does = {"begin": producer.begin, "batch": lambda: producer.send("t", batch(b"1"))}.get(call)
        with pytest.raises(TaintedError, match="w1"):
            (does or getattr(producer, call))()

    @pytest.mark.parametrize("call", ["batch", "flush", "commit", "abort"])
    @pytest.mark.parametrize("code", ["_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"])
    def test_fenced_is_fenced_wherever_it_shows(
        self, client: FakeClient, producer: KafkaProducer, call: str, code: str
    ) -> None:
        """And the producer stays fenced."""
        client.on[call] = raising(code)
        for _ in range(2):
            with pytest.raises(FencedError, match="w1"):
                {"batch": lambda: producer.send("t", batch(b"1"))}.get(call, getattr(producer, call, None))()  # type: ignore[misc]

    def test_fencing_is_heard_from_the_log_too(self, client: FakeClient, producer: KafkaProducer) -> None:
        """A batch then only fails with a general fatal code."""
        line = (50, "%s [%s] %s", "TXNERR", "p", "[thrd:main]: Fatal transaction error: it is over (_FENCED)")
        client.on["batch"] = raising("_FATAL")
        client.pending_log.append(line)
        with pytest.raises(FencedError):
            producer.send("t", batch(b"1"))

    def test_a_broker_that_does_not_know_the_topics_in_time_taints(
        self, client: FakeClient, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The transaction has begun: whoever tries again needs another producer."""

        def nobody(topics: Iterable[str]) -> dict[str, int | None]:
            raise RetryableError(f"partitions of {topics}: no answer")

        monkeypatch.setattr(client, "partitions", nobody)
        with pytest.raises(TaintedError, match="no answer"):
            producer.send("t", batch(b"x"))
        with pytest.raises(TaintedError):
            producer.begin()

    def test_trouble_between_transactions_taints_the_next(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The log is drained before a transaction begins, and nothing is begun."""
        producer.commit()
        client.disconnected()
        client.calls.clear()
        with pytest.raises(TaintedError, match="between transactions"):
            producer.begin()
        assert "begin" not in client.calls

    def test_trouble_while_opening_is_forgotten(self, client: FakeClient) -> None:
        """There was no transaction yet; a reconnect at the start is ordinary."""
        client.on["init"] = client.disconnected
        producer = KafkaProducer("w2", FAILURE, client.clock, ClientWatch(Settings()), client)
        producer.open()
        producer.begin()
        producer.commit()

    def test_a_tainted_producer_is_of_no_use_and_sends_nothing_more(
        self, client: FakeClient, producer: KafkaProducer
    ) -> None:
        """Every call is refused without reaching the client; close discards it without an abort."""
        client.on["commit"] = raising("_TIMED_OUT")
        with pytest.raises(TaintedError):
            producer.commit()
        client.calls.clear()
        for call in (producer.begin, producer.flush, producer.commit, producer.abort, lambda: producer.send("t", [])):
            with pytest.raises(TaintedError):
                call()
        producer.close()
        assert client.calls == ["discard"]

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("_TIMED_OUT", RetryableError),
            ("_FENCED", FencedError),
            ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", ConfigError),
            ("INVALID_TRANSACTION_TIMEOUT", ConfigError),
        ],
    )
    def test_a_failed_open_is_not_a_taint(self, client: FakeClient, code: str, kind: type[KstateError]) -> None:
        """No transaction was open: it may be retried, or is fenced, or must be mended."""
        client.on["init"] = raising(code)
        with pytest.raises(kind, match="w2") as raised:
            KafkaProducer("w2", FAILURE, client.clock, ClientWatch(Settings()), client).open()
        assert not isinstance(raised.value, TaintedError)


class TestCounts:
    """S11: nothing is produced by hope."""

    def test_refused_messages_are_handed_over_again_in_order(self, client: FakeClient, producer: KafkaProducer) -> None:
        """A full queue returns short and raises nothing: only the refused ones are repeated."""
        client.room = 3
        values = [b"%d" % number for number in range(10)]
        messages = batch(*values)
        producer.send("t", messages, tracked=True)
        assert producer.flush() == {TopicPartition("t", 0): tuple(range(10))}
        assert client.logs[TopicPartition("t", 0)] == values
        assert all(message.keys() == {"value", "partition"} for message in messages)

    def test_single_messages_wait_for_room_too(self, client: FakeClient, producer: KafkaProducer) -> None:
        """Those with a time or headers go one by one."""
        client.room = 2
        producer.send("t", [{"value": b"%d" % n, "partition": 1, "timestamp": n} for n in range(5)])
        producer.commit()
        assert client.logs[TopicPartition("t", 1)] == [b"0", b"1", b"2", b"3", b"4"]
        assert client.calls.count("single") >= 5

    def test_one_extended_message_sends_all_singly(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The order within a partition does not depend on the way the messages go."""
        producer.send("t", [*batch(b"1"), {"value": b"2", "partition": 0, "headers": [("a", b"")]}, *batch(b"3")])
        producer.commit()
        assert client.logs[TopicPartition("t", 0)] == [b"1", b"2", b"3"]
        assert "batch" not in client.calls

    def test_a_queue_that_stays_full_ends_in_time(self, client: FakeClient, producer: KafkaProducer) -> None:
        """After the transaction's timeout there is no use in waiting."""
        client.room = 0
        with pytest.raises(TaintedError, match="2 messages were not accepted"):
            producer.send("t", batch(b"1", b"2"))
        assert client.clock.now == pytest.approx(10.0, abs=0.2)

    def test_what_is_not_delivered_in_time_is_not_committed(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The flush leaves one message behind: no commit reaches the broker."""
        producer.send("t", batch(b"1", b"2"))
        client.undelivered = 1
        with pytest.raises(TaintedError, match="2 messages handed over, 2 accepted, 1 not delivered"):
            producer.commit()
        assert "commit" not in client.calls

    @pytest.mark.parametrize("tracked", [True, False])
    def test_a_failed_delivery_is_not_committed(
        self, client: FakeClient, producer: KafkaProducer, *, tracked: bool
    ) -> None:
        """The report of a message names the code."""
        client.fails[b"2"] = "_PURGE_QUEUE"
        producer.send("t", batch(b"1", b"2"), tracked=tracked)
        with pytest.raises(TaintedError, match="_PURGE_QUEUE"):
            producer.commit()
        assert "commit" not in client.calls

    def test_a_lost_count_is_noticed(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The client claims fewer than were handed over and marks none: that is no success."""
        whole = client.batch
        client.batch = lambda *args: max(whole(*args) - 1, 0)  # type: ignore[method-assign]
        producer.send("t", batch(b"1", b"2"))
        with pytest.raises(TaintedError, match="2 messages handed over, 1 accepted"):
            producer.commit()
        assert "commit" not in client.calls

    def test_messages_go_by_partition(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The batch call ignores the partition of a message: one call for each partition, order kept."""
        producer.send("t", [{"value": b"%d" % n, "partition": n % 3} for n in range(9)])
        producer.commit()
        assert client.calls.count("batch") == 3
        assert client.logs[TopicPartition("t", 2)] == [b"2", b"5", b"8"]

    def test_a_commit_flushes_what_was_not_flushed(self, client: FakeClient, producer: KafkaProducer) -> None:
        """The counts are compared before every commit."""
        producer.send("t", batch(b"1"))
        producer.commit()
        assert client.calls.index("flush") < client.calls.index("commit")

    def test_an_unknown_partition_is_refused_before_anything_is_sent(
        self, client: FakeClient, producer: KafkaProducer
    ) -> None:
        """Librdkafka would tell of it much later and without a reason."""
        with pytest.raises(ConfigError, match=r"t\[4\]: the topic has 4 partitions"):
            producer.send("t", batch(b"1", partition=4))
        with pytest.raises(ConfigError, match=r"u\[0\]: the topic does not exist"):
            producer.send("u", batch(b"1"))
        assert "batch" not in client.calls

    def test_what_the_broker_refuses_for_good_is_a_mistake_to_mend(
        self, client: FakeClient, producer: KafkaProducer
    ) -> None:
        """The transaction's error stands in the log, with its code at the end."""
        text = "[thrd:b]: Current transaction failed: Produce failed: too large (MSG_SIZE_TOO_LARGE)"
        producer.send("t", batch(b"1"))
        client.pending_log.append((40, "%s [%s] %s", "TXNERR", "p", text))
        with pytest.raises(ConfigError, match=r"max\.message\.bytes"):
            producer.commit()
