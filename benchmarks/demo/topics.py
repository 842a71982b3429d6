"""The demo's topics, read by the plain libraries for Kafka and Avro; of kstate's formats only the markers matter."""

from __future__ import annotations

import io
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from fastavro import parse_schema, schemaless_reader

from benchmarks.demo.proof import Span
from kstate.keyspace import slot_of, slot_of_offset
from kstate.state.blocks import decode_frame
from kstate.state.markers import Marker

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


def records(servers: str, topic: str, parts: Mapping[int, tuple[int, int]] | None = None) -> Iterator[Record]:
    """Every committed record of a topic, in order within each partition; an error if its beginning is gone.

    `parts`: partition → offsets [lo, hi) where not all of it is wanted.
    """
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
    if parts is None:
        parts = dict.fromkeys(consumer.list_topics(topic, timeout=10).topics[topic].partitions, (0, 1 << 62))
    waiting = set(parts)
    consumer.assign([TopicPartition(topic, partition, lo) for partition, (lo, _) in parts.items()])
    deadline = time.monotonic() + END_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{topic}: the end of partitions {sorted(waiting)} was not reached in {END_SECONDS} s")
        for message in consumer.consume(10_000, 0.2):
            error, partition, offset = message.error(), message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if error is None and offset < parts[partition][1]:
                yield Record(partition, offset, message.key() or b"", message.value() or b"")
            elif error is None or error.name() == "_PARTITION_EOF":
                waiting.discard(partition)
            else:
                raise RuntimeError(f"reading {topic}[{partition}]: {error}")
    consumer.close()


def read_markers(servers: str, topic: str) -> dict[int, list[tuple[int, Marker]]]:
    """The committed markers of a backup topic with their offsets, in order, by partition."""
    found: dict[int, list[tuple[int, Marker]]] = defaultdict(list)
    for record in records(servers, topic):
        if isinstance(marker := decode_frame(record.value), Marker):
            found[record.partition].append((record.offset, marker))
    return found


def records_in(servers: str, spans: Iterable[Span]) -> int:
    """How many committed records lie within these spans, each counted once."""
    by_topic: dict[str, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        _, topic, partition = span.place
        by_topic[topic][partition].append(span)
    found = 0
    for topic, wanted in by_topic.items():
        parts = {p: (min(span.lo for span in here), max(span.hi for span in here)) for p, here in wanted.items()}
        for record in records(servers, topic, parts):
            slot = slot_of(record.key) if record.key else slot_of_offset(record.offset)
            found += any(span.holds(slot, record.offset) for span in wanted[record.partition])
    return found


def read_counts(servers: str, topic: str) -> Iterator[tuple[str, int]]:
    """The results as (word, count), in the order of each partition."""
    schema = schema_of("running_count")
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


def schema_of(name: str) -> Any:
    """A schema of the examples, as fastavro takes it."""
    return parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text()))
