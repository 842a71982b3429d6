"""The contract of `Reader.reassign`, on top of that of the log: what stays is read on, others go where told."""

from __future__ import annotations

import pytest

from kstate.errors import DataLossError
from kstate.interfaces import Log, Reader, TopicSpec
from kstate.plan import TopicPartition
from tests.contract.log_contract import (
    DeleteBefore,
    DeleteTopic,
    LogContract,
    drain,
    eventually,
    messages,
    opened,
    poll_to_the_error,
    sent,
    stable_end,
)

MANY = 20_000
"""So many that a reader of few at a time is still at them when the others have come and gone."""


def some(reader: Reader, source: TopicPartition) -> list[int]:
    """The offsets of the next few records of a partition; no other gives any."""
    offsets: list[int] = []

    def found() -> bool:
        for batch in reader.poll(2, 0.1):
            assert batch.source == source
            offsets.extend(batch.offsets)
        return bool(offsets)

    eventually(found, f"records of {source}")
    return offsets


class PlacesContract(LogContract):
    """What every Log and its readers keep."""

    def test_what_stays_is_read_on_when_others_come_and_go(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """Without a gap and without a record twice, wherever the others are put; a partition that is gone is silent."""
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = opened(log, ids[0])
        producer.begin()
        producer.send(topic, messages(*[b"%d" % n for n in range(MANY)]))
        producer.send(topic, messages(*[b"%d" % n for n in range(60)], partition=1))
        producer.commit()
        ends = {source: stable_end(log, source) for source in (first, second)}
        reader = log.reader()
        reader.reassign({first: 0})
        stays = some(reader, first)
        for place in (0, 50, 10, 20):
            reader.reassign({second: place})
            found = {first: list[int](), second: list[int]()}
            for batch in (batch for _ in range(200) for batch in reader.poll(2, 0.1)):
                found[batch.source] += batch.offsets
            assert found[second] == list(range(place, place + len(found[second])))
            stays += found[first]
            reader.reassign({}, [second])
            stays += some(reader, first)
        stays += drain(reader, first, ends[first]).offsets
        assert stays == list(range(MANY))
        assert reader.poll(10, 0.2) == []
        assert reader.at_end() == {first: ends[first]}
        reader.reassign({second: 15})
        assert drain(reader, second, ends[second]).offsets == list(range(15, 60))
        assert reader.at_end() == ends
        reader.close()

    def test_a_partition_goes_back_and_forward_alone(self, log: Log, topic: str, ids: tuple[str, str]) -> None:
        """To exactly where it is told, whatever was fetched or found out before: ends are found anew."""
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = opened(log, ids[0])
        for partition in (0, 1):
            sent(producer, topic, *[b"%d" % n for n in range(40)], partition=partition).commit()
        ends = {source: stable_end(log, source) for source in (first, second)}
        reader = log.reader()
        reader.assign({first: 0, second: 0})
        for source in (first, second):
            reader.reassign({source: 0})
            drain(reader, source, ends[source])
        eventually(lambda: reader.poll(10, 0.1) == [] and reader.at_end() == ends, "both at the end")
        for place in (30, 2, 2, 39, 0, 41):
            reader.reassign({second: place}, [second])
            assert reader.at_end() == {first: ends[first]}
            if place < ends[second]:
                assert drain(reader, second, ends[second]).offsets == list(range(place, 40))
            eventually(lambda: reader.poll(10, 0.1) == [] and reader.at_end() == ends, f"at the end, from {place}")
        sent(producer, topic, b"more", partition=0).commit()
        assert drain(reader, first, ends[first] + 2).values == [b"more"]
        reader.close()

    def test_what_was_fetched_for_an_earlier_place_is_not_given_out(
        self, log: Log, source: TopicPartition, ids: tuple[str, str]
    ) -> None:
        """The first record behind a place is the next one, though thousands from elsewhere are at hand."""
        sent(opened(log, ids[0]), source.topic, *[b"%d" % n for n in range(MANY)]).commit()
        stable_end(log, source)
        reader = log.reader()
        reader.assign({source: 0})
        for place in (0, 9_000, 100, 50, 5_000, 4_000, 4_010, 3):
            reader.reassign({source: place})
            found = [*some(reader, source), *some(reader, source)]
            assert found == list(range(place, place + len(found)))
        reader.close()

    def test_a_place_outside_the_log_is_data_loss_after_others_stayed(
        self, log: Log, topic: str, ids: tuple[str, str], delete_before: DeleteBefore
    ) -> None:
        """Told of the partition that was put there; once it is elsewhere, or gone, all is well again."""
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = opened(log, ids[0])
        for partition in (0, 1):
            sent(producer, topic, b"0", b"1", b"2", partition=partition).commit()
            stable_end(log, TopicPartition(topic, partition))
        delete_before(second, 2)
        reader = log.reader()
        reader.assign({first: 4})
        for place in (1, 99):
            reader.reassign({second: place})
            with pytest.raises(DataLossError, match=rf"{topic}\[1\]: offset {place} .*\[2, 4\)"):
                poll_to_the_error(reader)
        reader.reassign({second: 2})
        assert drain(reader, second, 4).values == [b"2"]
        reader.reassign({second: 1})
        reader.reassign({}, [second])
        sent(producer, topic, b"more").commit()
        assert drain(reader, first, 6).values == [b"more"]
        reader.close()

    def test_a_topic_made_anew_is_data_loss_for_what_stays(
        self, log: Log, source: TopicPartition, ids: tuple[str, str], delete_topic: DeleteTopic
    ) -> None:
        """Placing another partition is no decision about this one; placing this one is."""
        sent(opened(log, ids[0]), source.topic, b"old").commit()
        reader = log.reader()
        reader.assign({source: 0})
        drain(reader, source, 2)
        delete_topic(source.topic)
        eventually(lambda: log.partitions([source.topic])[source.topic] is None, "the topic is gone")
        log.create_topics([TopicSpec(source.topic, 2)])
        sent(opened(log, ids[0]), source.topic, b"new", b"newer").commit()
        reader.reassign({TopicPartition(source.topic, 1): 0})
        for _ in range(2):
            with pytest.raises(DataLossError, match=rf"{source.topic}\[0\]: offset 2 .*earlier topic"):
                poll_to_the_error(reader)
            reader.reassign({}, [TopicPartition(source.topic, 1)])
        reader.reassign({source: 0})
        assert drain(reader, source, 3).values == [b"new", b"newer"]
        reader.close()
