"""Partitions of which the client has lost track: noticed, and read by a new client, without a gap."""

from __future__ import annotations

import pytest

from kstate.adapters.kafka_reader import Event, KafkaReader, Run
from kstate.adapters.kafka_watch import ClientWatch
from kstate.errors import RetryableError
from tests.unit.adapters.conftest import A, B, FakeConsumer, Surroundings, eof, run


def test_a_partition_that_is_not_heard_of_is_read_by_a_new_client(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """The library may lose track of one that comes or goes while a broker is away; the others tell nothing of it."""
    reader.assign({A: 5, B: 7})
    for _ in range(25):
        client.answers.append([Run(A, [5 + int(around.now)], [None], [b"x"], [1])])
        reader.poll(10, 0.0)
        around.now += 0.5
        if client.renewed:
            break
    assert 10 <= around.now <= 11
    assert client.assigned[B] == 7
    assert client.assigned[A] > 5
    client.answers.append([Event(B, "_PARTITION_EOF", "", 7)])
    around.end = 7
    for _ in range(100):
        reader.poll(10, 0.0)
        around.now += 0.5
        client.answers.append([Event(A, "_PARTITION_EOF", "", 40)])
    assert client.renewed == 1, "who told of its end was heard"


def test_a_broker_that_is_away_is_no_reason_for_a_new_client(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """It is asked first."""
    reader.assign({A: 5})
    reader.poll(10, 0.0)
    around.now, around.reachable = 11.0, False
    with pytest.raises(RetryableError):
        reader.poll(10, 0.0)
    assert client.renewed == 0


def test_nothing_is_lost_when_the_broker_of_a_partition_that_is_not_heard_of_does_not_answer(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """What another broker has sent meanwhile is given out: the client does not hand it out again."""
    reader.assign({A: 5, B: 7})
    around.now, around.reachable = 11.0, False
    client.answers.append([Run(A, [5, 6], [None, None], [b"x", b"y"], [1, 1])])
    (batch,) = reader.poll(10, 0.0)
    assert (batch.source, batch.offsets) == (A, [5, 6])
    around.now = 22.0
    with pytest.raises(RetryableError):
        reader.poll(10, 0.0)


def test_a_partition_that_came_later_is_watched_too(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """From the moment on that it came."""
    reader.assign({A: 5})
    client.answers.append([Event(A, "_PARTITION_EOF", "", 5)])
    reader.poll(10, 0.0)
    around.now, around.end = 100.0, 5
    reader.reassign({B: 1})
    reader.poll(10, 0.0)
    assert client.renewed == 0
    around.now = 111.0
    reader.poll(10, 0.0)
    assert (client.renewed, client.assigned) == (1, {A: 5, B: 1})


def test_a_partition_that_trouble_made_deaf_is_read_by_a_new_client(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch, around: Surroundings
) -> None:
    """It was heard of before; the broker went away and came back, and the library never asks for it again."""
    client.answers = [[eof(A, 10), eof(B, 0)]]
    reader.poll(100, 0)
    around.end = 10
    watch.troubles.append("Disconnected")
    for _ in range(2):
        reader.poll(100, 0)
        client.answers.append([Event(A, "_PARTITION_EOF", "", 10)])
        around.now += 11
    assert client.renewed == 1, "of b[1] there is more than was read"
    assert client.assigned == {A: 10, B: 0}


def test_an_input_that_is_quiet_after_trouble_keeps_its_client(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch, around: Surroundings
) -> None:
    """There is nothing behind its position: it is asked now and then until it is heard of."""
    client.answers = [[eof(A, 10), eof(B, 10)]]
    reader.poll(100, 0)
    around.end = 10
    watch.troubles.append("Disconnected")
    for _ in range(5):
        reader.poll(100, 0)
        around.now += 11
    assert client.renewed == 0
    around.end = 11
    reader.poll(100, 0)
    assert client.renewed == 1


def test_an_error_is_no_sign_that_a_partition_is_read(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch, around: Surroundings
) -> None:
    """While the broker comes back the library tells of errors that it will try again after, and then may not."""
    client.answers = [[eof(A, 10), eof(B, 10)]]
    reader.poll(100, 0)
    around.end = 11
    watch.troubles.append("Disconnected")
    client.answers = [[Event(A, "_TRANSPORT", "broken", -1), Event(B, "_TRANSPORT", "broken", -1)]]
    reader.poll(100, 0)
    around.now += 11
    reader.poll(100, 0)
    assert client.renewed == 1


def test_what_stood_in_the_queue_before_the_trouble_is_no_sign_of_life(
    client: FakeConsumer, reader: KafkaReader, watch: ClientWatch, around: Surroundings
) -> None:
    """One call serves the client's log, and hands out what was fetched before."""
    client.answers = [[eof(A, 10), eof(B, 0)]]
    reader.poll(100, 0)
    around.end = 11
    watch.troubles.append("Disconnected")
    client.answers = [[run(A, 10), run(B, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]]
    reader.poll(100, 0)
    around.end = 12
    around.now += 11
    reader.poll(100, 0)
    assert client.renewed == 1


def test_a_partition_that_is_long_quiet_without_any_trouble_is_asked_for(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """Not every trouble is told."""
    client.answers = [[eof(A, 10), eof(B, 10)]]
    reader.poll(100, 0)
    around.now, around.end = 14.0, 11
    reader.poll(100, 0)
    assert client.renewed == 0
    around.now = 16.0
    reader.poll(100, 0)
    assert client.renewed == 1


def test_a_partition_behind_a_long_queue_of_others_is_not_deaf(
    client: FakeConsumer, reader: KafkaReader, around: Surroundings
) -> None:
    """A new client would begin with the others again, and again."""
    reader.assign({A: 0, B: 0})
    for offset in range(0, 100, 2):
        client.answers = [[run(A, offset, offset + 1)]]
        reader.poll(2, 0)
        around.now += 1
    assert client.renewed == 0
    client.answers = [[run(A, 100)]]
    reader.poll(2, 0)
    assert client.renewed == 1, "the queue ran dry, and nothing of b[1] was in it"


def test_each_new_client_is_given_more_time(client: FakeConsumer, reader: KafkaReader, around: Surroundings) -> None:
    """Until all partitions were heard of."""
    renewed_at: list[float] = []
    for _ in range(151):
        before = client.renewed
        client.answers = [[eof(A, 1_000)]]
        reader.poll(100, 0)
        renewed_at += [around.now] * (client.renewed - before)
        around.now += 1
    assert renewed_at == [10, 30, 70, 150]
