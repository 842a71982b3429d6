"""Positions of the reader, over a client that hands out what a test wants."""

from __future__ import annotations

import pytest

from kstate.adapters.kafka_reader import Event, KafkaReader, Run
from kstate.adapters.kafka_watch import ClientCallError, ClientWatch
from kstate.errors import ConfigError, DataLossError, RetryableError
from kstate.plan import TopicPartition
from tests.unit.adapters.conftest import A, B, C, FakeConsumer, Surroundings, eof, run


def test_what_follows_a_damaged_batch_is_not_given_out(client: FakeConsumer, reader: KafkaReader) -> None:
    """The client itself goes on behind it: a position there would say that the damaged records were read."""
    damage = Event(A, "_BAD_MSG", "MessageSet at offset 12 failed CRC32C check", 12)
    client.answers = [[run(A, 10, 11), damage, run(A, 20, 21), run(B, 0), eof(A, 22)], [run(A, 23)]]
    first, second = reader.poll(100, 0)
    assert (first.source, first.offsets, first.next_offset) == (A, [10, 11], 12)
    assert (second.source, second.offsets) == (B, [0])
    with pytest.raises(DataLossError, match="offset 12"):
        reader.poll(100, 0)
    assert reader.poll(100, 0) == []


def test_a_failure_behind_the_first_record_does_not_lose_it(
    client: FakeConsumer, reader: KafkaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One poll asks the client up to three times; what it has given already it will not give again."""
    answers: list[list[Run | Event] | ClientCallError] = [[], [run(A, 10)], ClientCallError("_TRANSPORT", "gone")]

    def consume(count_max: int, seconds: float) -> list[Run | Event]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, ClientCallError):
            raise answer
        return answer

    monkeypatch.setattr(client, "consume", consume)
    (batch,) = reader.poll(100, 1.0)
    assert (batch.offsets, batch.next_offset) == ([10], 11)
    assert not answers


def test_runs_of_one_partition_are_one_batch_and_the_end_moves_it(client: FakeConsumer, reader: KafkaReader) -> None:
    """Records in the order of offsets; the position goes past control records once the end is reached."""
    client.answers = [[run(A, 10, 11), run(B, 0), run(A, 13), eof(A, 15)]]
    first, second = reader.poll(100, 0)
    assert (first.source, first.offsets, first.next_offset) == (A, [10, 11, 13], 15)
    assert first.values == [b"10", b"11", b"13"]
    assert (second.source, second.offsets, second.next_offset) == (B, [0], 1)


def test_an_end_alone_moves_the_position_forward_only(client: FakeConsumer, reader: KafkaReader) -> None:
    """A batch without records; an end at or before the position says nothing."""
    client.answers = [[eof(A, 12)], [eof(A, 12)], [eof(A, 11)]]
    (batch,) = reader.poll(100, 0)
    assert (len(batch), batch.next_offset) == (0, 12)
    assert reader.poll(100, 0) == reader.poll(100, 0) == []


def test_the_end_is_known_until_there_are_more_records(client: FakeConsumer, reader: KafkaReader) -> None:
    """As far as the client has said; an end in the past is none, and a new assignment knows nothing yet."""
    client.answers = [[eof(A, 10)], [run(A, 10), eof(B, 3)], [eof(A, 11)], [run(A, 11, 12), eof(A, 14)], [eof(A, 12)]]
    assert reader.at_end() == {}
    for expected in ({A: 10}, {B: 3}, {A: 11, B: 3}, {A: 14, B: 3}, {A: 14, B: 3}):
        reader.poll(100, 0)
        assert reader.at_end() == expected
    reader.assign({A: 14})
    assert reader.at_end() == {}


def test_an_end_in_the_past_is_none(client: FakeConsumer, reader: KafkaReader) -> None:
    """Something was given out since."""
    client.answers = [[run(A, 10, 11), eof(A, 11)]]
    reader.poll(100, 0)
    assert reader.at_end() == {}


def test_a_partition_that_cannot_be_read_is_not_at_its_end(client: FakeConsumer, reader: KafkaReader) -> None:
    """Nobody knows what stands behind the damage."""
    client.answers = [[eof(A, 10), Event(A, "_BAD_MSG", "damaged", 10)]]
    with pytest.raises(DataLossError):
        reader.poll(100, 0)
    assert reader.at_end() == {}


def test_records_before_the_position_are_dropped_and_only_they(client: FakeConsumer, reader: KafkaReader) -> None:
    """Whatever the client fetched for an earlier assignment, no record is given twice and none is lost."""
    client.answers = [[run(A, 8, 9)], [run(A, 9, 10, 11)], [run(TopicPartition("c", 0), 1)]]
    assert reader.poll(100, 0) == []
    (batch,) = reader.poll(100, 0)
    assert (batch.offsets, batch.values, batch.next_offset) == ([10, 11], [b"10", b"11"], 12)
    assert reader.poll(100, 0) == []


def test_records_before_an_error_are_given_out_first(client: FakeConsumer, reader: KafkaReader) -> None:
    """The error comes with the next poll: what was fetched is not lost."""
    client.answers = [[run(B, 0), Event(A, "_AUTO_OFFSET_RESET", "out of range", 10)]]
    (batch,) = reader.poll(100, 0)
    assert batch.source == B
    with pytest.raises(DataLossError, match=r"a\[0\]: offset 10 .*\[10, 20\)"):
        reader.poll(100, 0)


@pytest.mark.parametrize("code", ["_BAD_MSG", "_BAD_COMPRESSION", "_LOG_TRUNCATION", "OFFSET_OUT_OF_RANGE"])
def test_records_that_cannot_be_read_are_never_skipped(client: FakeConsumer, reader: KafkaReader, code: str) -> None:
    """A checksum that fails ends the reading, as a hole does."""
    client.answers = [[Event(A, code, "damaged", 10)]]
    with pytest.raises(DataLossError, match=r"a\[0\]"):
        reader.poll(100, 0)


def test_denied_access_is_a_mistake_to_mend(client: FakeConsumer, reader: KafkaReader) -> None:
    """The error names the partition."""
    client.answers = [[Event(B, "TOPIC_AUTHORIZATION_FAILED", "not authorized", 0)]]
    with pytest.raises(ConfigError, match=r"b\[1\].*ACL"):
        reader.poll(100, 0)


@pytest.mark.parametrize("code", ["_TRANSPORT", "NOT_LEADER_FOR_PARTITION", "GROUP_AUTHORIZATION_FAILED"])
def test_what_the_client_retries_is_not_an_error(client: FakeConsumer, reader: KafkaReader, code: str) -> None:
    """There is no group, and leaders come back."""
    client.answers = [[Event(A, code, "passing", 10)], [run(A, 10)]]
    assert reader.poll(100, 0) == []
    assert [batch.offsets for batch in reader.poll(100, 0)] == [[10]]


def test_a_topic_the_client_misses_is_looked_for(reader: KafkaReader, watch: ClientWatch, around: Surroundings) -> None:
    """Only one that really does not exist is an error: a new one may not be known to every broker."""
    watch.refusal = ("UNKNOWN_TOPIC_OR_PART", "a [0]: topic does not exist")
    assert reader.poll(100, 0) == []
    watch.refusal = ("UNKNOWN_TOPIC_OR_PART", "a [0]: topic does not exist")
    around.missing = A
    with pytest.raises(ConfigError, match=r"a\[0\]"):
        reader.poll(100, 0)


def test_other_refusals_of_the_client_are_raised(reader: KafkaReader, watch: ClientWatch) -> None:
    """They come to its error callback only."""
    watch.refusal = ("_AUTHENTICATION", "wrong password")
    with pytest.raises(ConfigError, match="wrong password"):
        reader.poll(100, 0)


def test_a_silence_with_trouble_is_looked_into_after_a_while(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch, around: Surroundings
) -> None:
    """A broker that answers a question is only quiet; one that does not is a RetryableError, again and again."""
    client.answers = [[eof(A, 10), eof(B, 0)]]
    reader.poll(100, 0)
    around.reachable, around.end = False, 0
    raised: list[float] = []
    for second in range(60):
        watch.troubles.append("Disconnected")
        around.now = second
        try:
            assert reader.poll(100, 0) == []
        except RetryableError:
            raised.append(second)
    assert raised[0] == 10
    assert 5 <= len(raised) <= 10
    around.reachable = True
    around.now += 16
    for _ in range(3):
        assert reader.poll(100, 0) == []
        around.now += 16
    assert watch.troubles == []


def test_silence_without_trouble_is_no_error(client: FakeConsumer, reader: KafkaReader, around: Surroundings) -> None:
    """An input may be quiet for years."""
    client.answers = [[eof(A, 10), eof(B, 0)]]
    reader.poll(100, 0)
    around.reachable = False
    for _ in range(5):
        assert reader.poll(100, 0) == []
        around.now += 1e6


def test_a_poll_waits_for_the_first_record_only(client: FakeConsumer, reader: KafkaReader) -> None:
    """The client's own wait for many would last for the whole timeout."""
    client.answers = [[], [run(A, 10)], [run(A, 11)]]
    (batch,) = reader.poll(100, 0.5)
    assert batch.offsets == [10, 11]
    assert client.waits == [0, 0.5, 0]


def test_a_new_assignment_forgets_errors_of_the_old(client: FakeConsumer, reader: KafkaReader) -> None:
    """They were about partitions that may not be read any more."""
    client.answers = [[run(B, 0), Event(A, "_AUTO_OFFSET_RESET", "out of range", 10)]]
    reader.poll(100, 0)
    reader.assign({B: 1})
    assert reader.poll(100, 0) == []


def test_a_change_of_some_leaves_the_others_alone(client: FakeConsumer, reader: KafkaReader) -> None:
    """What was fetched of them comes, from their positions; so does what is known of their ends."""
    client.answers = [[run(A, 10, 11), eof(B, 3)], [run(A, 12), run(B, 0), run(C, 7, 8)], [run(A, 13)]]
    reader.poll(100, 0)
    reader.reassign({C: 7})
    assert reader.at_end() == {B: 3}
    first, second = reader.poll(100, 0)
    assert (first.source, first.offsets, second.source, second.offsets) == (A, [12], C, [7, 8])
    reader.reassign({C: 4, TopicPartition("d", 0): 1}, [B, TopicPartition("never", 0), C])
    assert reader.at_end() == {}
    assert client.assigned == {A: 10, C: 4, TopicPartition("d", 0): 1}
    assert [batch.offsets for batch in reader.poll(100, 0)] == [[13]]
    assert client.anew == 1


def test_a_partition_may_be_read_again_from_an_earlier_place(client: FakeConsumer, reader: KafkaReader) -> None:
    """From there on nothing is a repetition."""
    client.answers = [[run(A, 10, 11), eof(A, 12)], [run(A, 4, 5), eof(A, 12)]]
    reader.poll(100, 0)
    reader.reassign({A: 4})
    assert reader.at_end() == {}
    (batch,) = reader.poll(100, 0)
    assert (batch.offsets, batch.next_offset, reader.at_end()) == ([4, 5], 12, {A: 12})


def test_errors_of_partitions_that_stay_are_told_those_of_others_forgotten(
    client: FakeConsumer, reader: KafkaReader
) -> None:
    """Each by a poll of its own, once what came before was given out."""
    reader.reassign({C: 0})
    damaged = [Event(source, "_BAD_MSG", "damaged", 0) for source in (A, B, C)]
    client.answers = [[run(A, 10), *damaged]]
    assert [batch.offsets for batch in reader.poll(100, 0)] == [[10]]
    reader.reassign({A: 11})
    for name in ("b", "c"):
        with pytest.raises(DataLossError, match=rf"{name}\["):
            reader.poll(100, 0)
    client.answers = [[run(A, 11), run(B, 5), run(C, 5)]]
    assert [batch.offsets for batch in reader.poll(100, 0)] == [[11]]
    reader.reassign({B: 0}, [C])
    assert client.assigned == {A: 11, B: 0}


def test_a_client_that_cannot_change_some_is_given_all_anew(
    client: FakeConsumer, reader: KafkaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each from its position: whatever was half done is undone."""

    def fail(*_: object) -> None:
        raise ClientCallError("_CONFLICT", "in the assignment already")

    client.answers = [[run(A, 10, 11)]]
    reader.poll(100, 0)
    with monkeypatch.context() as patched:
        patched.setattr(client, "reassign", fail)
        reader.reassign({C: 7}, [B])
    assert client.assigned == {A: 12, C: 7}
    reader.reassign({C: 6, B: 1})
    assert client.assigned == {A: 12, C: 6, B: 1}


def test_a_new_place_is_a_decision_about_its_own_topic_only(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch
) -> None:
    """A topic that was made anew is refused for as long as a partition of it stays where it was."""
    watch.made_anew |= {"a", "b"}
    reader.reassign({B: 0, TopicPartition("a", 5): 0})
    with pytest.raises(DataLossError, match=r"a\[0\]"):
        reader.poll(100, 0)
    reader.reassign({A: 0, TopicPartition("a", 5): 0})
    client.answers = [[run(A, 0), run(B, 0)]]
    assert [batch.source for batch in reader.poll(100, 0)] == [A, B]


def test_nothing_is_given_out_of_a_topic_made_anew(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch
) -> None:
    """The client goes on at the old position; a new assignment is a new decision."""
    client.answers = [[run(A, 10)]]
    watch.made_anew.add("a")
    for _ in range(2):
        with pytest.raises(DataLossError, match=r"a\[0\]: offset 10 .*earlier topic"):
            reader.poll(100, 0)
    reader.assign({B: 0})
    assert reader.poll(100, 0) == []


def test_a_client_that_fails_gives_our_own_errors(
    client: FakeConsumer, reader: KafkaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the library comes through, whichever call it is."""

    def fail(*_: object) -> None:
        raise ClientCallError("_TRANSPORT", "broken")

    monkeypatch.setattr(client, "assign", fail)
    monkeypatch.setattr(client, "consume", fail)
    with pytest.raises(RetryableError, match="assigning"):
        reader.assign({A: 0})
    with pytest.raises(RetryableError, match="reading"):
        reader.poll(100, 0)
