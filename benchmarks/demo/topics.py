"""The demo's topics, written and read by the plain libraries for Kafka and Avro, not by kstate."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from fastavro import parse_schema, schemaless_reader, schemaless_writer

SCHEMAS = Path(__file__).parents[2] / "schemas"
END_SECONDS = 30.0
"""A topic that cannot be read to its end within this time is an error."""


class Record(NamedTuple):
    """A committed record of a topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes


def create(servers: str, partitions: Mapping[str, int]) -> None:
    """Create topics (name → number of partitions) and wait until they are there."""
    admin = _admin(servers)  # its requests end with it
    for future in admin.create_topics([NewTopic(name, n, 1) for name, n in partitions.items()]).values():
        future.result(30)


def write_lines(servers: str, topic: str, partitions: int, lines: Iterable[str]) -> None:
    """Produce each line as a record without key, in turn to each partition."""
    schema = _schema("line")
    producer = Producer(
        {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
    )
    refused: list[Any] = []
    first_ms = time.time_ns() // 1_000_000  # results carry event times: far back, retention would delete them
    for number, line in enumerate(lines):
        out = io.BytesIO()
        schemaless_writer(out, schema, {"text": line, "ts": first_ms + number})
        producer.produce(
            topic,
            out.getvalue(),
            partition=number % partitions,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        if number % 10_000 == 0:
            producer.poll(0)
    if producer.flush(60) or refused:
        raise RuntimeError(f"writing {topic}: {len(refused)} lines were refused, the first with {refused[:1]}")


def records(servers: str, topic: str) -> Iterator[Record]:
    """Every committed record of a topic, in order within each partition; an error if its beginning is gone."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "demo",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    waiting = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in waiting])
    deadline = time.monotonic() + END_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{topic}: the end of partitions {sorted(waiting)} was not reached in {END_SECONDS} s")
        for message in consumer.consume(10_000, 0.2):
            error, partition, offset = message.error(), message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if error is None:
                yield Record(partition, offset, message.key() or b"", message.value() or b"")
            elif error.name() == "_PARTITION_EOF":
                waiting.discard(partition)
            else:
                raise RuntimeError(f"reading {topic}[{partition}]: {error}")
    consumer.close()


def read_counts(servers: str, topic: str) -> Iterator[tuple[str, int]]:
    """The results as (word, count), in the order of each partition."""
    schema = _schema("running_count")
    for record in records(servers, topic):
        fields: Any = schemaless_reader(io.BytesIO(record.value), schema, None)
        if record.key != fields["word"].encode():
            raise RuntimeError(f"{topic}: the record of {fields['word']!r} has key {record.key!r}")
        yield fields["word"], fields["n"]


def uncommitted_ends(servers: str, partitions: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """The read_uncommitted end of every partition of these topics (name → number of partitions)."""
    asked = {TopicPartition(topic, p): OffsetSpec.latest() for topic, n in partitions.items() for p in range(n)}
    admin = _admin(servers)
    found = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return {(place.topic, place.partition): future.result(10).offset for place, future in found.items()}


def _admin(servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": servers, "log_level": 0})


def _schema(name: str) -> Any:
    return parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text()))
