"""The embedded broker is a real Kafka that can be stopped, killed and frozen, and that never outlives its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from kstate.errors import ConfigError

pytestmark = pytest.mark.integration

PARENT = """
import os, sys, threading, time
from kstate.adapters.embedded_broker import EmbeddedBroker

broker = EmbeddedBroker()
starter = threading.Thread(target=broker.start)
starter.start()
starter.join()
if os.fork() == 0:  # inherits the pipe to the guard, and lives on
    os.setsid()
    time.sleep(600)
    os._exit(0)
print(broker.pid, broker.folder, broker.bootstrap_servers, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Parent:
    """A process that started a broker from a thread that has ended, and then forked."""

    process: subprocess.Popen[str]
    broker_pid: int
    folder: Path
    bootstrap_servers: str


def admin(bootstrap_servers: str) -> AdminClient:
    """A client that does not chatter while its broker is away."""
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def cluster_id_of(client: AdminClient) -> str:
    """The id that the broker tells over the protocol."""
    client.list_topics(timeout=10)  # a new client asks nobody for the id by itself
    return client.cluster_id(10)


def produce(broker: EmbeddedBroker, value: bytes, *, commit: bool) -> None:
    """One transaction with one record."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "test", "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("topic", value)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.flush(30)  # the record is in the log before it is aborted
        producer.abort_transaction(30)


def committed(broker: EmbeddedBroker) -> list[bytes]:
    """All that a read_committed reader sees, to the end that the log has now for a reader of everything."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "unused",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    partition = TopicPartition("topic", 0, 0)
    consumer.assign([partition])
    client = admin(broker.bootstrap_servers)
    end = client.list_offsets({partition: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    end_offset = end[partition].result(30).offset
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():  # the end of what is visible so far: a commit becomes visible a little after it returned
            if (message.offset() or 0) >= end_offset:
                consumer.close()
                return values
            continue
        values.append(message.value() or b"")
    raise AssertionError("the end of the log was not reached in 30 s")


def create_topic(broker: EmbeddedBroker) -> None:
    """The topic of these tests."""
    client = admin(broker.bootstrap_servers)
    client.create_topics([NewTopic("topic", 1, 1)])["topic"].result(30)


def is_alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def await_true(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as the condition holds; fail when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not become true in {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def parent() -> Iterator[Parent]:
    """See PARENT; its fork is ended by its process id."""
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, folder, bootstrap_servers = process.stdout.readline().split()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    forked = [int(child) for child in children if "guard.py" not in Path(f"/proc/{child}/cmdline").read_text()]
    yield Parent(process, int(pid), Path(folder), bootstrap_servers)
    process.kill()
    process.wait()
    process.stdout.close()
    for child in forked:
        os.kill(child, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)  # where the guard itself was killed


def test_a_committed_transaction_is_read_and_an_aborted_one_is_not(private_broker: EmbeddedBroker) -> None:
    """It is Kafka, transactions included."""
    create_topic(private_broker)
    produce(private_broker, b"aborted", commit=False)
    produce(private_broker, b"committed", commit=True)
    assert committed(private_broker) == [b"committed"]


@pytest.mark.parametrize("end", [EmbeddedBroker.stop, EmbeddedBroker.kill])
def test_a_broker_that_starts_again_has_the_same_port_id_and_data(
    private_broker: EmbeddedBroker, end: Callable[[EmbeddedBroker], None]
) -> None:
    """Clients of a restarted broker go on where they were, whether it shut down or died."""
    create_topic(private_broker)
    produce(private_broker, b"before", commit=True)
    assert committed(private_broker) == [b"before"]  # the commit marker is in the log: a kill cannot lose it
    before = (private_broker.bootstrap_servers, private_broker.cluster_id)
    end(private_broker)
    assert private_broker.pid is None
    private_broker.start()
    assert (private_broker.bootstrap_servers, private_broker.cluster_id) == before
    assert committed(private_broker) == [b"before"]


def test_a_paused_broker_is_silent_and_a_resumed_one_answers(private_broker: EmbeddedBroker) -> None:
    """SIGSTOP keeps the connections open: clients time out instead of being refused."""
    client = admin(private_broker.bootstrap_servers)
    client.list_topics(timeout=10)
    private_broker.pause()
    with pytest.raises(KafkaException, match=r"(?i)timed out|transport"):
        client.list_topics(timeout=1)
    private_broker.resume()
    assert cluster_id_of(client) == private_broker.cluster_id


def test_data_is_kept_in_a_named_folder_and_a_second_broker_on_it_is_refused(tmp_path: Path) -> None:
    """Two brokers on one folder would corrupt it; Kafka's lock is explained in our words."""
    with EmbeddedBroker(BrokerSettings(data=tmp_path)) as first:
        cluster_id = first.cluster_id
        with pytest.raises(ConfigError, match="Another broker runs on the data folder"):
            EmbeddedBroker(BrokerSettings(data=tmp_path)).start()
        assert cluster_id_of(admin(first.bootstrap_servers)) == cluster_id
    with EmbeddedBroker(BrokerSettings(data=tmp_path)) as again:
        assert again.cluster_id == cluster_id


def test_a_broker_that_refuses_its_settings_is_quoted_and_its_folder_removed() -> None:
    """The end of its log says which setting; nothing is left behind."""
    broker = EmbeddedBroker(BrokerSettings(properties={"num.io.threads": "none"}))
    with pytest.raises(ConfigError, match=r"num\.io\.threads"), broker:
        pass
    with pytest.raises(ConfigError, match="no folder"):
        _ = broker.folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_broker_outlives_the_thread_that_started_it_but_not_the_killed_process(parent: Parent) -> None:
    """Nobody cleans up after SIGKILL, and a fork still holds the pipe: the guard notices all the same."""
    assert admin(parent.bootstrap_servers).list_topics(timeout=10).brokers
    parent.process.kill()
    parent.process.wait()
    await_true(lambda: not is_alive(parent.broker_pid), 15)
    await_true(lambda: not parent.folder.exists(), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_the_broker_does_not_outlive_its_guard(parent: Parent) -> None:
    """Should somebody kill the guard, the kernel kills the broker."""
    guard = int(Path(f"/proc/{parent.broker_pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(guard, signal.SIGKILL)
    await_true(lambda: not is_alive(parent.broker_pid), 5)
