"""The contract of Log, Reader and Producer: one suite, run over the model in memory and over real Kafka.

A subclass gives the fixtures `log` (whose markers arrive by themselves, soon), `delete_before` and `delete_topic`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest

from kstate.errors import ConfigError, DataLossError, FencedError
from kstate.interfaces import Batch, Log, OutMessage, Producer, Reader, TopicSpec
from kstate.plan import TopicPartition

PATIENCE_SECONDS = 15.0

DeleteBefore = Callable[[TopicPartition, int], None]
DeleteTopic = Callable[[str], None]


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; fails after PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.01)


def messages(*values: bytes, partition: int = 0) -> list[OutMessage]:
    """Messages for one partition."""
    return [{"key": b"k-" + value, "value": value, "partition": partition} for value in values]


def opened(log: Log, transactional_id: str) -> Producer:
    """A producer, ready to begin."""
    producer = log.producer(transactional_id)
    producer.open()
    return producer


def sent(producer: Producer, topic: str, *values: bytes, partition: int = 0) -> Producer:
    """Begin a transaction and deliver these values; it stays open."""
    producer.begin()
    producer.send(topic, messages(*values, partition=partition))
    producer.flush()
    return producer


def drain(reader: Reader, source: TopicPartition, until: int) -> Batch:
    """Everything a reader gives of a partition until its position is `until`."""
    whole = Batch(source, -1)

    def reached() -> bool:
        for batch in reader.poll(10_000, 0.1):
            if batch.source == source:
                assert batch.next_offset > whole.next_offset
                assert len(batch.offsets) == len(batch.keys) == len(batch.values) == len(batch.timestamps)
                whole.offsets += batch.offsets
                whole.keys += batch.keys
                whole.values += batch.values
                whole.timestamps += batch.timestamps
                whole.next_offset = batch.next_offset
        return whole.next_offset >= until

    eventually(reached, f"{source} read to {until}; got {whole}")
    return whole


def stable_end(log: Log, source: TopicPartition) -> int:
    """The end, once no transaction holds the last stable offset back."""

    def stable() -> bool:
        return log.end_offsets([source], committed=True) == log.end_offsets([source], committed=False)

    eventually(stable, f"the last stable offset of {source} is the end")
    return log.end_offsets([source], committed=True)[source]


def visible(log: Log, source: TopicPartition, start: int = 0) -> list[bytes | None]:
    """The values a fresh reader sees up to the stable end."""
    end = stable_end(log, source)
    reader = log.reader()
    reader.assign({source: start})
    try:
        return drain(reader, source, end).values if end > start else []
    finally:
        reader.close()


def poll_to_the_error(reader: Reader) -> None:
    """Poll, without a record, until it raises or patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert not sum(map(len, reader.poll(10, 0.2)))


class LogContract:
    """What every Log keeps."""

    @pytest.fixture
    def topic(self, log: Log) -> str:
        """A new topic with two partitions."""
        name = f"contract-{uuid.uuid4().hex[:12]}"
        log.create_topics([TopicSpec(name, 2)])
        return name

    @pytest.fixture
    def source(self, topic: str) -> TopicPartition:
        """Its first partition."""
        return TopicPartition(topic, 0)

    @pytest.fixture
    def ids(self) -> tuple[str, str]:
        """Two transactional ids nobody used before."""
        unique = uuid.uuid4().hex[:12]
        return f"a-{unique}", f"b-{unique}"

    # -- transactions

    def test_a_transaction_is_visible_in_all_its_partitions(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """What one transaction wrote to several partitions is there after the commit, in the order it was sent."""
        producer = sent(opened(log, ids[0]), topic, b"1", b"2")
        producer.send(topic, messages(b"3", partition=1))
        producer.commit()
        assert visible(log, TopicPartition(topic, 0)) == [b"1", b"2"]
        assert visible(log, TopicPartition(topic, 1)) == [b"3"]

    def test_an_aborted_transaction_is_never_visible(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """Aborted records take offsets, are never read, and the producer goes on."""
        producer = sent(opened(log, ids[0]), topic, b"no")
        producer.abort()
        sent(producer, topic, b"yes").commit()
        assert visible(log, TopicPartition(topic, 0)) == [b"yes"]
        assert stable_end(log, TopicPartition(topic, 0)) == 4  # two records, two markers

    def test_an_open_transaction_holds_the_stable_end_but_not_the_end(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """The last stable offset is too early an end: it may hide records that are committed (story P1)."""
        holding = sent(opened(log, ids[0]), source.topic, b"open")
        other = sent(opened(log, ids[1]), source.topic, b"done")
        other.commit()
        eventually(lambda: log.end_offsets([source], committed=False)[source] == 3, "records and marker are there")
        assert log.end_offsets([source], committed=True)[source] == 0
        reader = log.reader()
        reader.assign({source: 0})
        assert reader.poll(10, 0.3) == []
        holding.commit()
        assert drain(reader, source, 4).values == [b"open", b"done"]

    def test_transactions_in_one_partition_are_read_by_offset_not_by_commit(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """Two producers interleave; whoever commits first, readers get the records in the order of the log."""
        first, second = sent(opened(log, ids[0]), source.topic, b"1"), sent(opened(log, ids[1]), source.topic, b"2")
        first.send(source.topic, messages(b"3"))
        first.flush()
        second.commit()
        first.abort()
        assert visible(log, source) == [b"2"]
        sent(first, source.topic, b"4").commit()
        assert visible(log, source) == [b"2", b"4"]

    def test_an_empty_transaction_commits_even_when_fenced(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """It never reaches the broker: its success proves nothing about being unfenced."""
        producer = opened(log, ids[0])
        log.fence(ids[0])
        producer.begin()
        producer.commit()
        producer.begin()
        with pytest.raises(FencedError):
            self._send_and_commit(producer, topic)

    # -- fencing

    def test_opening_an_id_fences_its_earlier_holder(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """The zombie cannot commit; what it sent is aborted; it stays fenced."""
        zombie = sent(opened(log, ids[0]), source.topic, b"zombie")
        heir = opened(log, ids[0])
        with pytest.raises(FencedError):
            zombie.commit()
        with pytest.raises(FencedError):
            zombie.begin()
        sent(heir, source.topic, b"heir").commit()
        assert visible(log, source) == [b"heir"]

    def test_a_fenced_producer_cannot_write_more(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """Neither into a transaction that was open, nor into a new one."""
        zombie, idle = sent(opened(log, ids[0]), source.topic, b"zombie"), opened(log, ids[1])
        log.fence(ids[0])
        log.fence(ids[1])
        with pytest.raises(FencedError):
            self._send_and_commit(zombie, source.topic)
        idle.begin()
        with pytest.raises(FencedError):
            self._send_and_commit(idle, source.topic)
        assert visible(log, source) == []

    def test_fence_aborts_what_the_victim_left_open(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """After fence() returned, the last stable offset is no longer held by the victim."""
        sent(opened(log, ids[0]), source.topic, b"victim")
        assert log.end_offsets([source], committed=True)[source] == 0
        log.fence(ids[0])
        assert log.end_offsets([source], committed=True)[source] == 2

    def test_fence_spares_what_was_committed(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """A commit that returned is never undone, however soon the fence follows."""
        sent(opened(log, ids[0]), source.topic, b"kept").commit()
        log.fence(ids[0])
        assert visible(log, source) == [b"kept"]

    def test_close_leaves_the_transaction_alone(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """A discarded producer neither commits nor aborts: its transaction stays open until the id is opened again."""
        producer = sent(opened(log, ids[0]), source.topic, b"left")
        producer.close()
        time.sleep(0.2)  # long enough for a client that says goodbye
        assert log.end_offsets([source], committed=True)[source] == 0
        opened(log, ids[0])
        assert log.end_offsets([source], committed=True)[source] == 2
        assert visible(log, source) == []

    # -- sending, rule S11

    def test_flush_reports_the_tracked_offsets(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """Of each partition in sending order; untracked messages are delivered, not reported."""
        producer = sent(opened(log, ids[0]), topic, b"x", b"y")
        assert producer.flush() == {}
        producer.send(topic, messages(b"1", b"2"), tracked=True)
        producer.send(topic, messages(b"3", partition=1), tracked=True)
        producer.send(topic, messages(b"z", b"z", partition=1))
        producer.send(topic, messages(b"4", partition=1), tracked=True)
        assert producer.flush() == {TopicPartition(topic, 0): (2, 3), TopicPartition(topic, 1): (0, 3)}
        producer.commit()
        sent(producer, topic, b"next").commit()
        assert visible(log, TopicPartition(topic, 0)) == [b"x", b"y", b"1", b"2", b"next"]

    def test_every_message_goes_to_its_own_partition_in_order(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """One call may carry messages for many partitions; thousands arrive, each once, in order."""
        values = [b"%06d" % number for number in range(5_000)]
        mixed: list[OutMessage] = [{"value": v, "key": None, "partition": int(v) % 2} for v in values]
        producer = opened(log, ids[0])
        producer.begin()
        producer.send(topic, mixed)
        producer.flush()
        producer.commit()
        assert visible(log, TopicPartition(topic, 0)) == values[::2]
        assert visible(log, TopicPartition(topic, 1)) == values[1::2]

    def test_null_and_empty_are_two_things(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """Keys and values keep the difference between nothing and no bytes."""
        producer = opened(log, ids[0])
        producer.begin()
        producer.send(source.topic, [{"key": None, "value": b"", "partition": 0}])
        producer.send(source.topic, [{"key": b"", "value": None, "partition": 0}])
        producer.commit()
        reader = log.reader()
        reader.assign({source: 0})
        batch = drain(reader, source, stable_end(log, source))
        assert (batch.keys, batch.values) == ([None, b""], [b"", None])

    def test_a_message_may_carry_its_time(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """Messages with a timestamp or headers keep it, and their order among the others."""
        producer = opened(log, ids[0])
        producer.begin()
        timed: OutMessage = {"value": b"timed", "partition": 0, "timestamp": 1_000, "headers": [("why", b"test")]}
        producer.send(source.topic, [*messages(b"before"), timed, *messages(b"after")], tracked=True)
        assert producer.flush() == {source: (0, 1, 2)}
        producer.commit()
        reader = log.reader()
        reader.assign({source: 0})
        batch = drain(reader, source, stable_end(log, source))
        assert batch.values == [b"before", b"timed", b"after"]
        assert batch.timestamps[1] == 1_000
        assert batch.timestamps[0] > 1_000

    def test_an_oversize_message_is_named_and_the_rest_can_be_undone(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """The error tells topic and size; after an abort the producer goes on."""
        producer = opened(log, ids[0])
        producer.begin()
        with pytest.raises(ConfigError, match=rf"2000002 bytes for.*{source.topic}"):
            producer.send(
                source.topic, [*messages(b"small"), {"key": b"ab", "value": bytes(2_000_000), "partition": 0}]
            )
        producer.abort()
        sent(producer, source.topic, b"fine").commit()
        assert visible(log, source) == [b"fine"]

    # -- reading

    def test_positions_count_control_records(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """At the end a reader's position is behind the last marker, of commits and of aborts."""
        producer = sent(opened(log, ids[0]), source.topic, b"1")
        producer.commit()
        sent(producer, source.topic, b"2").abort()
        reader = log.reader()
        reader.assign({source: 0})
        batch = drain(reader, source, 4)
        assert (batch.offsets, batch.next_offset) == ([0], 4)
        assert reader.poll(10, 0.1) == []
        sent(producer, source.topic, b"3").commit()
        assert drain(reader, source, 6).offsets == [4]

    def test_a_reader_starts_where_it_is_told(self, log: Log, source: TopicPartition, ids: tuple[str, str]) -> None:
        """At any offset within the log, on a control record or at the end too; a new assignment drops the old one."""
        producer = sent(opened(log, ids[0]), source.topic, b"0", b"1")
        producer.commit()
        sent(producer, source.topic, b"3").commit()
        end = stable_end(log, source)
        reader = log.reader()
        for start, expected in ((1, [1, 3]), (2, [3]), (0, [0, 1, 3]), (3, [3]), (0, [0, 1, 3])):
            reader.assign({source: start})
            assert drain(reader, source, end).offsets == expected
        reader.assign({source: end})
        assert reader.poll(10, 0.2) == []
        reader.assign({TopicPartition(source.topic, 1): 0})
        sent(producer, source.topic, b"6").commit()
        stable_end(log, source)
        assert reader.poll(10, 0.3) == []

    def test_poll_gives_no_more_than_asked(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """In batches that follow each other without gap; every partition gets its turn."""
        producer = opened(log, ids[0])
        producer.begin()
        for partition in (0, 1):
            producer.send(topic, messages(*[b"%d" % n for n in range(50)], partition=partition))
        producer.commit()
        sources = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        for source in sources:
            stable_end(log, source)
        reader = log.reader()
        reader.assign(dict.fromkeys(sources, 0))
        seen: dict[TopicPartition, list[int]] = {source: [] for source in sources}

        def all_seen() -> bool:
            batches = reader.poll(7, 0.1)
            assert sum(map(len, batches)) <= 7
            for batch in batches:
                seen[batch.source] += batch.offsets
            return all(len(offsets) == 50 for offsets in seen.values())

        eventually(all_seen, "both partitions are read")
        assert all(offsets == list(range(50)) for offsets in seen.values())

    def test_a_reader_knows_when_it_is_at_the_end(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """Not before it has read what is there, no more once records came, nothing after a new assignment."""
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = sent(opened(log, ids[0]), topic, b"1", b"2")
        producer.commit()
        end = stable_end(log, first)
        reader = log.reader()
        reader.assign({first: 0, second: 0})
        assert not reader.at_end()
        while not sum(len(batch) for batch in reader.poll(1, 0.1) if batch.source == first):
            pass
        assert first not in reader.at_end()
        drain(reader, first, end)
        eventually(lambda: reader.poll(1, 0.1) == [] and reader.at_end() == {first: end, second: 0}, "both at the end")
        sent(producer, topic, b"3", b"4").commit()
        while not sum(map(len, reader.poll(1, 0.1))):
            pass
        assert reader.at_end() == {second: 0}
        reader.assign({first: 0, second: 0})
        assert not reader.at_end()
        reader.close()

    def test_an_open_transaction_may_stand_behind_the_readers_end(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """The end is the last stable one, and moves on when an abort leaves nothing to read."""
        sent(opened(log, ids[0]), source.topic, b"1").commit()
        end = stable_end(log, source)
        producer = sent(opened(log, ids[1]), source.topic, b"2", b"3")
        reader = log.reader()
        reader.assign({source: 0})
        drain(reader, source, end)
        eventually(lambda: reader.poll(10, 0.1) == [] and reader.at_end() == {source: end}, "at the stable end")
        assert log.end_offsets([source], committed=False) == {source: end + 2}
        producer.abort()
        drain(reader, source, end + 3)
        assert reader.at_end() == {source: end + 3}
        reader.close()

    def test_a_position_behind_the_end_is_data_loss(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """Never a jump to somewhere else: the error names partition, position and the log as it is."""
        sent(opened(log, ids[0]), source.topic, b"1").commit()
        stable_end(log, source)
        reader = log.reader()
        reader.assign({source: 99})
        with pytest.raises(DataLossError, match=rf"{source.topic}\[0\]: offset 99 .*\[0, 2\)"):
            poll_to_the_error(reader)

    def test_a_position_before_the_log_start_is_data_loss(
        self, log: Log, source: TopicPartition, ids: tuple[str, str], delete_before: DeleteBefore
    ) -> None:
        """Trimmed records are refused, not skipped; the start itself is readable."""
        sent(opened(log, ids[0]), source.topic, b"0", b"1", b"2").commit()
        stable_end(log, source)
        delete_before(source, 2)
        assert log.start_offsets([source]) == {source: 2}
        reader = log.reader()
        reader.assign({source: 2})
        assert drain(reader, source, 4).values == [b"2"]
        reader.assign({source: 1})
        with pytest.raises(DataLossError, match=rf"{source.topic}\[0\]: offset 1 .*\[2, 4\)"):
            poll_to_the_error(reader)

    def test_a_topic_made_anew_is_data_loss(
        self, log: Log, source: TopicPartition, ids: tuple[str, str], delete_topic: DeleteTopic
    ) -> None:
        """A reader of the old topic never goes on in the new one, though its position exists there."""
        sent(opened(log, ids[0]), source.topic, b"old").commit()
        reader = log.reader()
        reader.assign({source: 0})
        drain(reader, source, 2)
        delete_topic(source.topic)
        eventually(lambda: log.partitions([source.topic])[source.topic] is None, "the topic is gone")
        log.create_topics([TopicSpec(source.topic, 2)])
        sent(opened(log, ids[0]), source.topic, b"new", b"newer").commit()
        with pytest.raises(DataLossError, match=rf"{source.topic}\[0\]: offset 2 .*earlier topic"):
            poll_to_the_error(reader)

    def test_an_unknown_topic_or_partition_is_named(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """By readers, producers and offsets alike; nothing creates a topic by asking for it."""
        nowhere, beyond = TopicPartition(f"{topic}-nope", 0), TopicPartition(topic, 7)
        reader, producer = log.reader(), opened(log, ids[0])
        producer.begin()
        for source in (nowhere, beyond):
            with pytest.raises(ConfigError, match=source.topic):
                log.end_offsets([source], committed=False)
            with pytest.raises(ConfigError, match=source.topic):
                producer.send(source.topic, [{"value": b"", "partition": source.partition}])
            reader.assign({source: 0})
            with pytest.raises(ConfigError, match=source.topic):
                poll_to_the_error(reader)
        assert log.partitions([topic, nowhere.topic]) == {topic: 2, nowhere.topic: None}

    # -- the rest

    def test_topics_are_created_once(self, log: Log, topic: str) -> None:
        """A second creation changes nothing, not even with other numbers."""
        log.create_topics([TopicSpec(topic, 5), TopicSpec(f"{topic}-2", 3, {"retention.ms": "-1"})])
        assert log.partitions([topic, f"{topic}-2"]) == {topic: 2, f"{topic}-2": 3}
        assert log.partitions([]) == {}

    def test_offsets_can_be_asked_by_time(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """The first record at or after a time, the end where there is none."""
        source, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = opened(log, ids[0])
        producer.begin()
        producer.send(topic, [{"value": b"", "partition": 0, "timestamp": t} for t in (1_000, 2_000, 3_000)])
        producer.commit()
        stable_end(log, source)
        assert log.offsets_at([source, empty], 2_000) == {source: 1, empty: 0}
        assert log.offsets_at([source], 1_999) == {source: 1}
        assert log.offsets_at([empty], 1) == {empty: 0}

    def test_reports_arrive_outside_any_transaction(self, log: Log, source: TopicPartition) -> None:
        """A report is readable at once; one to a topic that is not there is dropped without a word."""
        log.report(f"{source.topic}-nope", {"value": b"lost", "partition": 0})
        log.report(source.topic, {"value": b"beat", "partition": 0})
        reader = log.reader()
        reader.assign({source: 0})
        assert drain(reader, source, 1).values == [b"beat"]

    def test_a_producer_is_used_in_its_order(self, log: Log, ids: tuple[str, str]) -> None:
        """Open once, then begin before commit; a closed one is gone."""
        producer = log.producer(ids[0])
        assert producer.transactional_id == ids[0]
        with pytest.raises(RuntimeError, match="not open"):
            producer.begin()
        producer.open()
        with pytest.raises(RuntimeError, match="without a transaction"):
            producer.commit()
        producer.close()
        with pytest.raises(RuntimeError, match="closed"):
            producer.begin()

    def test_the_cluster_has_an_id(self, log: Log) -> None:
        """The same at every call."""
        assert log.cluster_id()
        assert log.cluster_id() == log.cluster_id()

    @staticmethod
    def _send_and_commit(producer: Producer, topic: str) -> None:
        producer.send(topic, messages(b"late"))
        producer.flush()
        producer.commit()
