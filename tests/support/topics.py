"""Inputs for the jobs under test, written with a plain client, and what must come out for them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.records import Entry, Line, encoded

WORDS = ("the", "a", "stream", "state", "key", "epoch", "marker", "broker", "log", "offset", "plan", "leader", "worker")
RARE = 400
"""Words besides the frequent ones: a key space that is neither tiny nor flat."""


def admin(bootstrap_servers: str) -> AdminClient:
    """A client that does not chatter while its broker is away."""
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def create_topics(bootstrap_servers: str, partitions: dict[str, int]) -> None:
    """Create the user's topics: name → partitions."""
    client = admin(bootstrap_servers)  # must live as long as its futures
    for future in client.create_topics([NewTopic(name, count, 1) for name, count in partitions.items()]).values():
        future.result(30)


def delete_records(bootstrap_servers: str, topic: str, partition: int, before: int) -> None:
    """Move the log start of a partition, as retention does."""
    client = admin(bootstrap_servers)
    for future in client.delete_records([TopicPartition(topic, partition, before)]).values():
        future.result(30)


def plain_producer(bootstrap_servers: str, partitioner: str = "murmur2_random") -> Producer:
    """A producer as users have it, placing records as Java producers do."""
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": partitioner,
            "linger.ms": 5,
            "enable.idempotence": True,  # or a retry puts an earlier batch behind a later one: another order to expect
            "message.max.bytes": 2_000_000,  # the broker's own limit decides
            "log_level": 0,
        }
    )


def produce(
    bootstrap_servers: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None]], *, partition: int = -1
) -> None:
    """Write (key, value) pairs and wait until they are there."""
    producer = plain_producer(bootstrap_servers)
    failed: list[object] = []
    for key, value in records:
        while True:
            try:
                producer.produce(
                    topic, value, key, partition, on_delivery=lambda error, _: failed.append(error) if error else None
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failed, failed[:3]


def produce_lines(
    bootstrap_servers: str, topic: str, count: int, *, partitions: int, seed: int = 1
) -> list[list[Line]]:
    """Lines of five words, written round-robin; the lines of each partition in order."""
    dice = random.Random(seed)
    placed: list[list[Line]] = [[] for _ in range(partitions)]
    for number in range(count):
        words = [dice.choice(WORDS) if dice.random() < 0.4 else f"w{dice.randrange(RARE)}" for _ in range(5)]
        placed[number % partitions].append(Line(number, " ".join(words)))
    for partition, lines in enumerate(placed):
        produce(bootstrap_servers, topic, ((None, encoded(line)) for line in lines), partition=partition)
    return placed


def expected_counts(placed: Sequence[Sequence[Line]]) -> dict[str, dict[int, list[int]]]:
    """Word → input partition → line ids of its occurrences, in order."""
    expected: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for partition, lines in enumerate(placed):
        for line in lines:
            for word in line.text.split():
                expected[word][partition].append(line.id)
    return expected


def entries(count: int, *, keys: int = 300, seed: int = 2, first: int = 0) -> list[Entry]:
    """Entries on random accounts, in the order in which they are written."""
    dice = random.Random(seed)
    return [Entry(f"k{dice.randrange(keys)}", first + number, "") for number in range(count)]


def produce_entries(bootstrap_servers: str, topic: str, given: Iterable[Entry]) -> None:
    """Write entries under their account."""
    produce(bootstrap_servers, topic, ((entry.account.encode(), encoded(entry)) for entry in given))


def expected_tallies(given: Iterable[Entry]) -> dict[str, dict[int, list[int]]]:
    """Account → the one order group → ids in order."""
    expected: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for entry in given:
        expected[entry.account][0].append(entry.id)
    return expected
