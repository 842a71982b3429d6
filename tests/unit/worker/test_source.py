"""Where the one reader of a worker stands: never above what a shard needs, and moved no more than it must be."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest

from kstate.errors import RetryableError
from kstate.interfaces import OutMessage, TopicSpec
from kstate.plan import Shard, TopicPartition
from kstate.testing.memory_log import Fault, MemoryLog, MemoryReader
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.ownership import OwnedShard
from kstate.worker.source import Inputs

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
RECORDS = 40


@dataclass
class Needs:
    """A shard, as far as inputs see it: what it has done of each topic. `take` does a batch as shards do."""

    shard: Shard
    progress: dict[str, int]
    done: dict[str, list[int]] = field(default_factory=dict)

    def positions(self) -> dict[str, int]:
        return dict(self.progress)

    def take(self, topic: str, offsets: list[int], next_offset: int) -> None:
        progress = self.progress[topic]
        assert not offsets or offsets[0] <= progress, "a gap"
        self.done.setdefault(topic, []).extend(offset for offset in offsets if offset >= progress)
        self.progress[topic] = max(progress, next_offset)


class Watched(MemoryReader):
    """Notes what it is told."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.told: list[tuple[str, dict[TopicPartition, int], set[TopicPartition]]] = []

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.told.append(("assign", dict(positions), set()))
        super().assign(positions)

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        self.told.append(("reassign", dict(positions), set(gone)))
        super().reassign(positions, gone)


@pytest.fixture
def log() -> MemoryLog:
    """Topics a and b with two partitions of records each."""
    log = MemoryLog(VirtualClock())
    log.create_topics([TopicSpec("a", 2), TopicSpec("b", 2)])
    producer = log.producer("p")
    producer.open()
    producer.begin()
    for topic in ("a", "b"):
        messages: list[OutMessage] = [{"value": b"%d" % n, "partition": n % 2} for n in range(2 * RECORDS)]
        producer.send(topic, messages)
    producer.commit()
    return log


@pytest.fixture
def reader(log: MemoryLog) -> Watched:
    """Of that log."""
    return Watched(log)


@pytest.fixture
def inputs(reader: Watched) -> Inputs:
    """Over that reader, placed nowhere."""
    return Inputs(reader)


def needs(name: str, partition: int, **progress: int) -> Needs:
    """A shard at this progress by topic."""
    return Needs(Shard(name, partition), progress)


def place(inputs: Inputs, *shards: Needs) -> None:
    """Read for these."""
    inputs.place([cast("OwnedShard", shard) for shard in shards])


def read(inputs: Inputs, count: int = 1_000) -> None:
    """Poll once and let the shards do what comes."""
    for shard, batch in inputs.poll(count, 0, {}):
        cast("Needs", shard).take(batch.source.topic, batch.offsets, batch.next_offset)


def test_only_what_is_new_or_no_longer_needed_is_told_to_the_reader(inputs: Inputs, reader: Watched) -> None:
    """A shard that comes or goes leaves the sources of the others as they are."""
    one, two = needs("x", 0, a=0), needs("x", 1, a=5)
    place(inputs, one)
    read(inputs, 7)
    place(inputs, one, two)
    place(inputs, one, two)
    place(inputs, one)
    assert reader.told == [("reassign", {A0: 0}, set()), ("reassign", {A1: 5}, set()), ("reassign", {}, {A1})]
    read(inputs)
    assert one.done == {"a": list(range(RECORDS))}


def test_a_shard_that_stands_further_back_takes_the_reader_back(inputs: Inputs, reader: Watched) -> None:
    """One reader serves both; who stands further on skips, and is not waited for."""
    ahead, behind = needs("x", 0, a=0, b=0), needs("y", 0, a=3)
    place(inputs, ahead)
    read(inputs, 10)
    place(inputs, ahead, behind)
    assert reader.told[-1] == ("reassign", {A0: 3}, set())
    read(inputs)
    assert ahead.done["a"] == list(range(RECORDS))
    assert behind.done["a"] == list(range(3, RECORDS))


def test_a_reader_that_stands_too_low_is_left_there(inputs: Inputs, reader: Watched) -> None:
    """Going forward would drop what was fetched; skipping is cheap, and right."""
    low, high = needs("x", 0, a=0), needs("y", 0, a=30)
    place(inputs, low, high)
    place(inputs, high)
    assert len(reader.told) == 1
    read(inputs)
    assert high.done["a"] == list(range(30, RECORDS))


def test_an_undone_epoch_goes_back_where_it_was_read_and_only_there(inputs: Inputs, reader: Watched) -> None:
    """A source that gave nothing since stays."""
    one, two = needs("x", 0, a=0), needs("x", 1, a=RECORDS + 1)
    place(inputs, one, two)
    read(inputs, 4)
    one.progress["a"], one.done = 1, {"a": [0]}
    place(inputs, one, two)
    assert reader.told[1:] == [("reassign", {A0: 1}, set())]
    read(inputs)
    assert one.done == {"a": list(range(RECORDS))}


def test_what_was_polled_but_not_done_is_read_again(inputs: Inputs, reader: Watched) -> None:
    """A poll alone moves the reader, not the shard: a full epoch leaves a batch undone."""
    one = needs("x", 0, a=0)
    place(inputs, one)
    inputs.poll(9, 0, {})
    place(inputs, one)
    assert reader.told[-1] == ("reassign", {A0: 0}, set())
    inputs.poll(9, 0, {("x", A0): 4})  # cut at an end: the reader is beyond it
    place(inputs, one)
    assert reader.told[-1] == ("reassign", {A0: 0}, set())


def test_after_a_poll_that_failed_everything_is_placed_anew(inputs: Inputs, reader: Watched, log: MemoryLog) -> None:
    """It may have moved the reader somewhere without a word."""
    one, two = needs("x", 0, a=0), needs("x", 1, a=0)
    place(inputs, one, two)
    read(inputs, 5)
    log.inject("poll", Fault.RETRYABLE)
    with pytest.raises(RetryableError):
        read(inputs)
    read(inputs, 5)
    place(inputs, one, two)
    assert reader.told[-1] == ("assign", {A0: one.progress["a"], A1: two.progress["a"]}, set())
    place(inputs, one, two)
    assert len(reader.told) == 2


def test_no_shard_ever_misses_a_record(log: MemoryLog) -> None:
    """Whatever comes, goes, falls back and fails: each does every record once, in order, from where it began."""
    for seed in range(60):
        rng = random.Random(seed)
        inputs, shards = Inputs(log.reader()), list[Needs]()
        for number in range(60):
            match rng.randrange(6):
                case 0:
                    begin = {topic: rng.randrange(RECORDS) for topic in rng.sample(["a", "b"], rng.randint(1, 2))}
                    shards.append(Needs(Shard(f"{number}", rng.randrange(2)), begin, {t: [] for t in begin}))
                case 1 if shards:
                    check_done(shards.pop(rng.randrange(len(shards))))
                case 2 if shards:
                    undo(rng.choice(shards), rng)
                case 3:
                    log.inject("poll", Fault.RETRYABLE)
                    with pytest.raises(RetryableError):
                        read(inputs)
                    continue
                case _:
                    read(inputs, rng.randint(1, 15))
                    continue
            place(inputs, *shards)
        for _ in range(4):
            read(inputs, 10_000)
        for shard in shards:
            check_done(shard, whole=True)


def undo(shard: Needs, rng: random.Random) -> None:
    """As an epoch that is undone: back by some records of every topic."""
    for topic, done in shard.done.items():
        if done:
            keep = rng.randrange(len(done))
            shard.progress[topic] = done[keep]
            del done[keep:]


def check_done(shard: Needs, *, whole: bool = False) -> None:
    """Offsets without gap or repetition, to the end if `whole`."""
    for done in shard.done.values():
        assert not done or done == list(range(done[0], done[0] + len(done)))
        assert not whole or done[-1] == RECORDS - 1
