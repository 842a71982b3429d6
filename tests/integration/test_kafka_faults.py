"""The log on a real broker that fails: rules S4 and S11, fencing by time, and errors people can act on."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from kstate.adapters.kafka import KafkaLog
from kstate.clock import SystemClock
from kstate.config import FailureSettings, Settings
from kstate.errors import ConfigError, FencedError, RetryableError, TaintedError
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition
from tests.contract.log_contract import (
    drain,
    eventually,
    messages,
    opened,
    sent,
    stable_end,
    visible,
)
from tests.support.tcp_proxy import Mischief, Rule, TcpProxy

pytestmark = pytest.mark.integration

QUICK = FailureSettings(transaction_timeout_ms=4_000, commit_slow_ms=1_500)
"""A commit is given up after 1.5 s, so that no test waits for long."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[TcpProxy, EmbeddedBroker]]:
    """A broker that is known to clients by the proxy's address, and looks for late transactions often."""
    with TcpProxy() as proxy:
        properties = {
            "advertised.listeners": f"PLAINTEXT://{proxy.address}",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
        }
        with EmbeddedBroker(BrokerSettings(properties=properties)) as broker:
            proxy.target = broker.bootstrap_servers
            yield proxy, broker


@pytest.fixture
def proxy(cluster: tuple[TcpProxy, EmbeddedBroker]) -> Iterator[TcpProxy]:
    """The proxy, in order again after the test."""
    yield cluster[0]
    cluster[0].mend()
    cluster[0].release()


@pytest.fixture
def broker(cluster: tuple[TcpProxy, EmbeddedBroker]) -> Iterator[EmbeddedBroker]:
    """The broker, running again after the test."""
    yield cluster[1]
    cluster[1].resume()
    cluster[1].start()


@pytest.fixture
def log(proxy: TcpProxy) -> KafkaLog:
    """A log through the proxy."""
    return log_at(proxy.address)


@pytest.fixture
def source(log: KafkaLog) -> TopicPartition:
    """The only partition of a new topic."""
    topic = f"faults-{uuid.uuid4().hex[:12]}"
    log.create_topics([TopicSpec(topic, 1)])
    return TopicPartition(topic, 0)


@pytest.fixture
def name() -> str:
    """A transactional id nobody used before."""
    return f"w-{uuid.uuid4().hex[:12]}"


def log_at(address: str, **client: str) -> KafkaLog:
    """A log with short deadlines."""
    return KafkaLog(Settings(bootstrap_servers=address, client=client, failure=QUICK), SystemClock())


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


class TestTaint:
    """S4: whatever leaves the outcome of a transaction in doubt taints, and a tainted producer is discarded at once."""

    def test_a_broker_that_freezes_during_the_commit_taints(
        self, log: KafkaLog, broker: EmbeddedBroker, source: TopicPartition, name: str
    ) -> None:
        """The commit returns after its deadline, tainted; every later call is; the discard does not hang."""
        producer = sent(opened(log, name), source.topic, b"frozen")
        broker.pause()
        with pytest.raises(TaintedError, match=name):
            producer.commit()
        for call in (producer.begin, producer.commit, producer.abort, producer.flush):
            with pytest.raises(TaintedError, match=name):
                call()
        assert seconds_of(producer.close) < 1.0
        broker.resume()
        again = opened(log, name)  # decides what became of it: both are right, half is not
        assert visible(log, source) in ([], [b"frozen"])
        sent(again, source.topic, b"next").commit()
        assert visible(log, source)[-1] == b"next"

    def test_a_withheld_answer_taints_though_the_commit_took_place(
        self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str
    ) -> None:
        """The records are there, the producer cannot know it."""
        producer = sent(opened(log, name), source.topic, b"there")
        proxy.apply(Rule(Mischief.WITHHOLD_REPLY, name))
        with pytest.raises(TaintedError, match="no answer from Kafka"):
            producer.commit()
        proxy.wait_held()
        assert visible(log, source) == [b"there"]

    def test_a_late_commit_cannot_hit_the_next_holder(
        self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str
    ) -> None:
        """EndTxn is still on its way when the producer is given up: after the re-open it is fenced."""
        producer = sent(opened(log, name), source.topic, b"late")
        proxy.apply(Rule(Mischief.HOLD_REQUEST, name))
        with pytest.raises(TaintedError):
            producer.commit()
        producer.close()
        proxy.mend()
        again = sent(opened(log, name), source.topic, b"new")
        assert proxy.release() >= 1
        time.sleep(0.3)  # long enough for the stray request to do harm
        assert log.end_offsets([source], committed=True)[source] == 2
        again.abort()
        assert visible(log, source) == []

    def test_the_hazard_is_real(self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str) -> None:
        """The bare client repeats EndTxn after a disconnect and says OK; the first one then ends its next transaction.

        This is also how the log in memory behaves (`Fault.APPLIED_TWICE`).
        """
        client = Producer({"bootstrap.servers": proxy.address, "transactional.id": name, "log_level": 0})
        client.init_transactions(10)
        client.begin_transaction()
        client.produce(source.topic, b"first", partition=0)
        client.flush(10)
        proxy.apply(Rule(Mischief.HOLD_REQUEST, name))
        with ThreadPoolExecutor() as threads:
            commit = threads.submit(client.commit_transaction, 20)
            proxy.wait_held()
            proxy.mend()
            proxy.disconnect()
            commit.result()
        client.begin_transaction()
        client.produce(source.topic, b"second", partition=0)
        client.flush(10)
        assert log.end_offsets([source], committed=True)[source] == 2
        assert proxy.release() == 1
        eventually(lambda: log.end_offsets([source], committed=True)[source] == 4, "the stray EndTxn commits it")
        assert visible(log, source) == [b"first", b"second"]

    def test_a_connection_that_breaks_taints_though_the_commit_says_ok(
        self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str
    ) -> None:
        """The client reconnects and commits without a word but in its log: that is what is read.

        On a busy machine it may give up before it has reconnected, which taints as well: then it is asked again.
        """
        said, value = "", b""
        for value in (b"1", b"2", b"3", b"4", b"5"):
            producer = sent(opened(log, name), source.topic, value)
            proxy.disconnect()
            with pytest.raises(TaintedError) as tainted:
                producer.commit()
            said = str(tainted.value)
            if "saw trouble" in said:
                break
        assert "saw trouble" in said
        assert visible(log, source)[-1] == value

    def test_a_connection_that_broke_between_transactions_taints_the_next(
        self, log: KafkaLog, proxy: TcpProxy, name: str
    ) -> None:
        """The client's log is read before a transaction begins."""
        producer = opened(log, name)
        proxy.disconnect()
        time.sleep(0.3)
        with pytest.raises(TaintedError, match="between transactions"):
            producer.begin()

    def test_a_half_open_connection_taints_an_abort(
        self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str
    ) -> None:
        """No answer comes back: the abort is in doubt like a commit."""
        producer = sent(opened(log, name), source.topic, b"half")
        proxy.hang("down")
        with pytest.raises(TaintedError):
            producer.abort()

    def test_undisturbed_transactions_do_not_taint(
        self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition, name: str
    ) -> None:
        """What the client logs in ordinary life, slow answers and aborts among it, is no trouble."""
        producer = opened(log, name)
        proxy.delay_seconds = 0.02
        for number in range(10):
            sent(producer, source.topic, b"%d" % number)
            (producer.abort if number % 3 == 0 else producer.commit)()
        proxy.delay_seconds = 0.0
        assert visible(log, source) == [b"%d" % n for n in range(10) if n % 3]


class TestFencing:
    """Who is fenced without anybody's decision, and what fencing waits for."""

    def test_a_transaction_that_outlives_its_timeout_is_fenced(
        self, log: KafkaLog, source: TopicPartition, name: str
    ) -> None:
        """The broker aborts it and bumps the epoch: fenced, though nobody declared the worker dead."""
        producer = sent(opened(log, name), source.topic, b"too late")
        eventually(lambda: log.end_offsets([source], committed=True)[source] == 2, "the broker gives it up")
        with pytest.raises(FencedError, match=name):
            producer.commit()
        assert visible(log, source) == []

    def test_fencing_is_bounded_in_time(self, log: KafkaLog, proxy: TcpProxy, name: str) -> None:
        """A broker that is silent makes it fail, retryable, naming the address; later it succeeds."""
        proxy.hang("up", "down")
        begun = time.monotonic()
        with pytest.raises(RetryableError, match=rf"{name}.*{proxy.address}"):
            log.fence(name)
        assert time.monotonic() - begun < QUICK.transaction_timeout_ms / 1000 + 1
        proxy.mend()
        log.fence(name)


class TestSending:
    """S11 against a real broker."""

    def test_a_full_queue_is_waited_for(self, proxy: TcpProxy, source: TopicPartition, name: str) -> None:
        """A queue of 100 messages takes 3,000, each once, in order, with and without a time."""
        log = log_at(proxy.address, **{"queue.buffering.max.messages": "100"})
        producer = opened(log, name)
        producer.begin()
        values = [b"%05d" % number for number in range(3_000)]
        producer.send(source.topic, messages(*values), tracked=True)
        assert producer.flush() == {source: tuple(range(3_000))}
        producer.send(source.topic, [{"value": v, "partition": 0, "timestamp": 5} for v in values])
        producer.commit()
        assert visible(log, source) == values * 2

    def test_a_queue_that_stays_full_taints(self, proxy: TcpProxy, source: TopicPartition, name: str) -> None:
        """Not every message was accepted: there is no commit."""
        log = log_at(proxy.address, **{"queue.buffering.max.messages": "100"})
        producer = sent(opened(log, name), source.topic, b"first")
        proxy.hang("up")
        with pytest.raises(TaintedError):
            producer.send(source.topic, messages(*[b"%d" % n for n in range(1_000)]))

    def test_what_the_broker_refuses_is_named(self, log: KafkaLog, source: TopicPartition, name: str) -> None:
        """A topic with a smaller limit than the client's: the error names topic and mend, nothing is committed."""
        small = f"{source.topic}-small"
        log.create_topics([TopicSpec(small, 1, {"max.message.bytes": "1000"})])
        producer = opened(log, name)
        producer.begin()
        producer.send(small, [{"value": random.randbytes(10_000), "partition": 0}, *messages(b"fits")])
        with pytest.raises(ConfigError, match=rf"{small}.*max.message.bytes"):
            producer.commit()
        assert log.end_offsets([TopicPartition(small, 0)], committed=False)[TopicPartition(small, 0)] == 0


class TestReading:
    """A reader goes on by itself when the broker comes back."""

    def test_a_reader_survives_a_restart_of_the_broker(
        self, log: KafkaLog, broker: EmbeddedBroker, source: TopicPartition, name: str
    ) -> None:
        """Silent meanwhile, without an error, and without a gap afterwards."""
        sent(opened(log, name), source.topic, b"before").commit()
        reader = log.reader()
        reader.assign({source: 0})
        assert drain(reader, source, 2).values == [b"before"]
        broker.stop()
        assert reader.poll(10, 0.5) == []
        broker.start()
        sent(opened(log, name), source.topic, b"after").commit()
        assert drain(reader, source, 4).values == [b"after"]


class TestErrors:
    """Errors that people can act on."""

    def test_offsets_are_not_made_up(self, log: KafkaLog, proxy: TcpProxy, source: TopicPartition) -> None:
        """A silent broker gives an error: the client's own answer would be offset -1001 (H of rule S1 is at stake)."""
        log.end_offsets([source], committed=False)
        proxy.hang("up", "down")
        for committed in (True, False):
            with pytest.raises(RetryableError, match=proxy.address):
                log.end_offsets([source], committed=committed)

    def test_an_address_where_nobody_listens_is_named(self, name: str) -> None:
        """Every call ends, and says where it looked."""
        log = log_at("127.0.0.1:9")
        for ask in (log.cluster_id, lambda: log.partitions(["t"]), lambda: log.producer(name).open()):
            with pytest.raises(RetryableError, match=r"127\.0\.0\.1:9"):
                ask()

    def test_client_properties_are_checked_and_secrets_kept(self, proxy: TcpProxy) -> None:
        """A property that does not exist is a mistake to mend; no password is ever shown."""
        with pytest.raises(ConfigError, match=r"no\.such\.thing"):
            log_at(proxy.address, **{"no.such.thing": "1"}).reader()
        secrets = {"sasl.username": "me", "sasl.password": "hunter2", "sasl.mechanism": "hunter2"}
        with pytest.raises(ConfigError) as raised:
            log_at(proxy.address, **secrets, **{"security.protocol": "SASL_PLAINTEXT"}).reader()
        assert "hunter2" not in str(raised.value)


def test_a_stuck_transaction_is_ended_by_opening_its_id(log: KafkaLog, source: TopicPartition, name: str) -> None:
    """A tail that a discarded producer left open is freed by fence, long before the broker gives it up."""
    patient = KafkaLog(replace(log.settings, failure=FailureSettings(transaction_timeout_ms=60_000)), SystemClock())
    sent(opened(patient, name), source.topic, b"left").close()
    assert log.end_offsets([source], committed=True)[source] == 0
    log.fence(name)
    assert stable_end(log, source) == 2
