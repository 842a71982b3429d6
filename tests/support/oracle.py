"""What must come out, and what did: every committed record, read with a plain client and compared per key.

Nothing of kstate takes part. Expected results are computed offline from the input; the records of the output topic are
read by consumers that are not kstate's, to an end taken with read_uncommitted, so that nothing can hide behind an open
transaction. An observer reads along from the start: what it saw at any time must be what stands there in the end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tests.support.records import Tally, decoded_tally

READ_SECONDS = 60.0

Groups = Mapping[str, Mapping[int, Sequence[int]]]
"""Key → order group → ids in the order in which they must come out; groups of a key may interleave freely."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A committed record where it stands."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = field(default=-1, compare=False)
    """Ms since the epoch."""

    @property
    def header(self) -> dict[str, str]:
        """Headers as text."""
        return {name: value.decode() for name, value in self.headers}


def reader(bootstrap_servers: str, isolation: str = "read_committed", **client: str) -> Consumer:
    """A plain consumer without group or commits."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "oracle",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
            **{name.replace("_", "."): value for name, value in client.items()},
        }
    )


def partitions_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic that exists."""
    found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    return [TopicPartition(topic, number) for number in sorted(found)]


def bounds(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Log start and end of a partition, as the consumer's isolation sees them."""
    found: tuple[int, int] | None = consumer.get_watermark_offsets(partition, timeout=10)
    assert found is not None, f"{partition} did not answer in 10 s"
    return found


def ends(bootstrap_servers: str, topic: str, isolation: str = "read_uncommitted") -> dict[int, int]:
    """The high watermark of each partition, or the last stable offset under read_committed."""
    consumer = reader(bootstrap_servers, isolation)
    try:
        return {p.partition: bounds(consumer, p)[1] for p in partitions_of(consumer, topic)}
    finally:
        consumer.close()


def starts(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The log start of each partition."""
    consumer = reader(bootstrap_servers)
    try:
        return {p.partition: bounds(consumer, p)[0] for p in partitions_of(consumer, topic)}
    finally:
        consumer.close()


def committed(bootstrap_servers: str, topic: str, isolation: str = "read_committed") -> list[Seen]:
    """Every record of a topic to a fresh end: the end is taken first, then all before it must become readable."""
    goal = ends(bootstrap_servers, topic)
    consumer = reader(bootstrap_servers, isolation)
    try:
        return _read_to(consumer, topic, goal, READ_SECONDS)
    finally:
        consumer.close()


def _read_to(consumer: Consumer, topic: str, goal: Mapping[int, int], seconds: float) -> list[Seen]:
    partitions = partitions_of(consumer, topic)
    starts = {p.partition: bounds(consumer, p)[0] for p in partitions}
    consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
    found: list[Seen] = []
    deadline = time.monotonic() + seconds
    while not _reached(consumer, partitions, goal):
        assert time.monotonic() < deadline, f"{topic} was not readable to {dict(goal)} in {seconds} s"
        found += _taken(consumer.consume(2_000, 0.1))
    return found


def _reached(consumer: Consumer, partitions: Sequence[TopicPartition], goal: Mapping[int, int]) -> bool:
    return all(p.offset >= goal[p.partition] for p in consumer.position(list(partitions)) if goal[p.partition] > 0)


def _taken(messages: Iterable[Message]) -> list[Seen]:
    found = []
    for message in messages:
        if (error := message.error()) is not None:
            if error.name() == "_PARTITION_EOF" or error.retriable() or not error.fatal():
                continue
            raise KafkaException(error)
        pairs: Any = message.headers() or []
        headers = tuple((str(name), bytes(value or b"")) for name, value in pairs)
        place = message.topic() or "", message.partition() or 0, message.offset() or 0
        found.append(Seen(*place, _bytes(message.key()), _bytes(message.value()), headers, message.timestamp()[1]))
    return found


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


class Observer:
    """Reads a topic along with the job, read_committed, from its start; a context manager around the whole run."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.seen: list[Seen] = []
        self._consumer = reader(bootstrap_servers)
        self._partitions = partitions_of(self._consumer, topic)
        self._consumer.assign([TopicPartition(topic, p.partition, 0) for p in self._partitions])
        self._stopping = threading.Event()
        self._goal: Mapping[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(READ_SECONDS)

    def upto(self, goal: Mapping[int, int]) -> list[Seen]:
        """All that was seen, once these ends are reached."""
        self._goal = goal
        self._thread.join(READ_SECONDS)
        assert not self._thread.is_alive(), f"the observer did not reach {dict(goal)}"
        return self.seen

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.seen += _taken(self._consumer.consume(2_000, 0.05))
            goal = self._goal
            if goal is not None and _reached(self._consumer, self._partitions, goal):
                break
        self._consumer.close()


@dataclass(slots=True)
class Verdict:
    """How an output differs from what was expected; empty lists: it does not."""

    records: int = 0
    keys: int = 0
    lost: list[tuple[str, int]] = field(default_factory=list)
    doubled: list[tuple[str, int]] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.wrong)

    def __str__(self) -> str:
        faults = [f"{len(self.lost)} lost, {len(self.doubled)} doubled"]
        faults += [f"first lost {self.lost[:5]}"] * bool(self.lost) + [f"first doubled {self.doubled[:5]}"] * bool(
            self.doubled
        )
        return "; ".join(
            [f"{self.records} records of {self.keys} keys", *faults, *self.disordered[:3], *self.wrong[:3]]
        )


def judged(records: Iterable[Seen], expected: Groups) -> Verdict:
    """Compare results with what must come out, as a multiset and in order per key; state must have run along."""
    verdict = Verdict()
    by_key: dict[str, list[Tally]] = defaultdict(list)
    places: dict[str, set[int]] = defaultdict(set)
    for record in records:
        tally = decoded_tally(record.value or b"")
        by_key[tally.key].append(tally)
        places[tally.key].add(record.partition)
        verdict.records += 1
        if record.key != tally.key.encode():
            verdict.wrong.append(f"{record} has a message key other than {tally.key!r}")
    verdict.keys = len(by_key)
    verdict.wrong += [f"{key!r} stands in partitions {found}" for key, found in places.items() if len(found) > 1]
    for key in {*by_key, *expected}:
        _judge_key(verdict, key, by_key.get(key, []), expected.get(key, {}))
    return verdict


def _judge_key(verdict: Verdict, key: str, tallies: Sequence[Tally], groups: Mapping[int, Sequence[int]]) -> None:
    found = Counter(tally.id for tally in tallies)
    wanted = Counter(each for group in groups.values() for each in group)
    verdict.lost += [(key, each) for each in (wanted - found).elements()]
    verdict.doubled += [(key, each) for each in (found - wanted).elements()]
    if found != wanted:
        return
    group_of = {each: number for number, group in groups.items() for each in group}
    order: dict[int, list[int]] = defaultdict(list)
    total = 0
    for n, tally in enumerate(tallies, 1):
        order[group_of[tally.id]].append(tally.id)
        total += tally.id
        if (tally.n, tally.total) != (n, total):
            verdict.wrong.append(f"{tally} is the key's record {n} with sum {total}")
    for number, group in groups.items():
        if order[number] != list(group):
            verdict.disordered.append(f"{key!r}, group {number}: {order[number][:8]}… expected {list(group)[:8]}…")


def assert_exactly_once(
    bootstrap_servers: str, topic: str, expected: Groups, observer: Observer | None = None
) -> Verdict:
    """Every committed record of the topic is expected, nothing is missing, and the observer saw the same."""
    records = committed(bootstrap_servers, topic)
    verdict = judged(records, expected)
    assert verdict.holds, str(verdict)
    assert verdict.records == sum(len(ids) for groups in expected.values() for ids in groups.values())
    if observer is not None:
        seen = observer.upto(ends(bootstrap_servers, topic))
        assert _by_partition(seen) == _by_partition(records), "the observer saw other records than stand there now"
    return verdict


def _by_partition(records: Iterable[Seen]) -> dict[int, list[Seen]]:
    found: dict[int, list[Seen]] = defaultdict(list)
    for record in records:
        found[record.partition].append(record)
    return found


def await_true(condition: Callable[[], bool], seconds: float, what: str = "") -> None:
    """Return as soon as the condition holds; fail when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what or condition} did not come true in {seconds} s"
        time.sleep(0.02)
