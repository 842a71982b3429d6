"""The demo's topics, written and read by the plain libraries for Kafka and Avro, not by kstate."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from benchmarks.broker import Broker

SCHEMAS = Path(__file__).parents[2] / "schemas"
FIRST_MS = 1_700_000_000_000
"""Event time of the first line; each line comes a millisecond after the one before."""


class Record(NamedTuple):
    """A committed record of a topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes


def write_lines(broker: Broker, topic: str, partitions: int, lines: Iterable[str]) -> None:
    """Produce each line as a record without key, in turn to each partition."""
    schema = _schema("line")
    producer = Producer(
        {"bootstrap.servers": broker.servers, "acks": "all", "linger.ms": 20, "compression.type": "lz4"}
    )
    refused: list[Any] = []
    for number, line in enumerate(lines):
        out = io.BytesIO()
        schemaless_writer(out, schema, {"text": line, "ts": FIRST_MS + number})
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


def records(broker: Broker, topic: str) -> Iterator[Record]:
    """Every committed record of a topic, in order within each partition."""
    for message in broker.read(topic):
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        yield Record(partition, offset, message.key() or b"", message.value() or b"")


def read_counts(broker: Broker, topic: str) -> Iterator[tuple[str, int]]:
    """The results as (word, count), in the order of each partition."""
    schema = _schema("word_count")
    for record in records(broker, topic):
        fields: Any = schemaless_reader(io.BytesIO(record.value), schema, None)
        if record.key != fields["word"].encode():
            raise RuntimeError(f"{topic}: the record of {fields['word']!r} has key {record.key!r}")
        yield fields["word"], fields["n"]


def uncommitted_ends(broker: Broker, partitions: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """The read_uncommitted end of every partition of these topics (name → number of partitions)."""
    asked = {TopicPartition(topic, p): OffsetSpec.latest() for topic, n in partitions.items() for p in range(n)}
    admin = AdminClient({"bootstrap.servers": broker.servers})
    found = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return {(place.topic, place.partition): future.result(10).offset for place, future in found.items()}


def _schema(name: str) -> Any:
    return parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text()))
