"""The broker of a benchmark: an embedded one, or any that is named; and plain ways to fill and read its topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker to measure against."""

    servers: str

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic and wait until it is there."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result()

    def read(self, topic: str) -> Iterator[Message]:
        """Every committed record of a topic, partition by partition as they come, to its end."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "benchmark",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        ended = 0
        while ended < len(partitions):
            for message in consumer.consume(10_000, 1.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    ended += 1
                else:
                    raise RuntimeError(f"reading {topic}: {error}")
        consumer.close()


@contextmanager
def broker_at(servers: str | None) -> Iterator[Broker]:
    """The named broker, or an embedded one for as long as the block lasts."""
    if servers:
        yield Broker(servers)
        return
    with EmbeddedBroker(BrokerSettings(heap_mb=1024)) as broker:
        yield Broker(broker.bootstrap_servers)


def drain(broker: Broker, topic: str) -> Counter[bytes]:
    """The values of every committed record, as a multiset."""
    return Counter(message.value() or b"" for message in broker.read(topic))


def span_ms(broker: Broker, first: str, last: str) -> int:
    """Milliseconds from the newest record with tiles of topic `first` to the newest record of topic `last`."""
    began = min(message.timestamp()[1] for message in broker.read(first) if b'"tiles"' in (message.value() or b""))
    ended = max(message.timestamp()[1] for message in broker.read(last))
    return int(ended - began)
