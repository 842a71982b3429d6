"""Many copies over one client: each lease reads its own partition, whole and in order, whatever the others do."""

from __future__ import annotations

from random import Random

import pytest

from kstate.errors import RetryableError
from kstate.interfaces import OutMessage, Reader, TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.memory_log import MemoryLog, MemoryReader
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.shared_reader import KEPT_RECORDS, SharedReader

PLACES = [TopicPartition("backup", number) for number in range(3)]
RECORDS = 3 * KEPT_RECORDS


class Counted:
    """Makes clients and knows how many there are."""

    def __init__(self) -> None:
        self.log = MemoryLog(VirtualClock())
        self.log.create_topics([TopicSpec("backup", 3)])
        self.made: list[MemoryReader] = []
        self.shared = SharedReader(self.make)

    def make(self) -> MemoryReader:
        self.made.append(MemoryReader(self.log))
        return self.made[-1]

    def write(self, count: int, source: TopicPartition) -> None:
        for _ in range(count):
            message: OutMessage = {"value": b"x", "partition": source.partition}
            self.log.report(source.topic, message)


def drain(reader: Reader) -> None:
    """Read on until it raises, or all records were read."""
    for _ in range(RECORDS):
        reader.poll(16, 0.0)


@pytest.fixture
def readers() -> Counted:
    """Three partitions full of records."""
    counted = Counted()
    for place in PLACES:
        counted.write(RECORDS, place)
    return counted


def test_each_lease_reads_its_partition_whole_and_in_order(readers: Counted) -> None:
    """In whatever order they are polled, also one that is left alone for long."""
    rng = Random(1)
    leases = {place: readers.shared.reader() for place in PLACES}
    got: dict[TopicPartition, list[int]] = {place: [] for place in PLACES}
    for place, lease in leases.items():
        lease.assign({place: 5})
    for turn in range(4 * RECORDS):
        place = rng.choice(PLACES if turn > RECORDS else PLACES[:2])
        for batch in leases[place].poll(rng.randint(1, 16), 0.0):
            assert batch.source == place
            got[place] += batch.offsets
    assert got == {place: list(range(5, RECORDS)) for place in PLACES}
    assert [dict(leases[place].at_end()) for place in PLACES] == [{place: RECORDS} for place in PLACES]
    assert len(readers.made) == 1


def test_a_lease_is_at_its_end_only_when_it_was_given_all(readers: Counted) -> None:
    """What waits for it was read by another one's poll."""
    ahead, behind = readers.shared.reader(), readers.shared.reader()
    ahead.assign({PLACES[0]: RECORDS - 1})
    behind.assign({PLACES[1]: RECORDS - 2})
    while not ahead.at_end():
        ahead.poll(16, 0.0)
    ahead.poll(16, 0.0)
    assert behind.at_end() == {}
    assert [offset for batch in behind.poll(16, 0.0) for offset in batch.offsets] == [RECORDS - 2, RECORDS - 1]


def test_what_waits_for_a_lease_is_bounded(readers: Counted) -> None:
    """Its partition is left, and read on from where its records end."""
    busy, slow = readers.shared.reader(), readers.shared.reader()
    busy.assign({PLACES[0]: 0})
    slow.assign({PLACES[1]: 0})
    for _ in range(RECORDS):
        busy.poll(1, 0.0)
        busy.poll(16, 0.0)
    held = sum(len(batch) for batch in readers.shared._leased[PLACES[1]].came)
    assert KEPT_RECORDS <= held < KEPT_RECORDS + 16
    got: list[int] = []
    while len(got) < RECORDS:
        got += [offset for batch in slow.poll(16, 0.0) for offset in batch.offsets]
    assert got == list(range(RECORDS))


def test_a_second_position_in_a_partition_has_a_client_of_its_own(readers: Counted) -> None:
    """Two key ranges of one shard stand where they stand."""
    first, second = readers.shared.reader(), readers.shared.reader()
    first.assign({PLACES[0]: 0})
    second.assign({PLACES[0]: RECORDS - 3})
    assert [offset for batch in second.poll(16, 0.0) for offset in batch.offsets] == list(range(RECORDS - 3, RECORDS))
    assert first.poll(1, 0.0)[0].offsets == [0]
    assert len(readers.made) == 2


def test_the_last_lease_closes_the_client(readers: Counted) -> None:
    """A worker without copies has no client for them; the next one makes another."""
    lease = readers.shared.reader()
    lease.assign({PLACES[0]: 0})
    lease.close()
    lease.assign({PLACES[0]: 0})
    assert len(readers.made) == 2
    assert lease.poll(1, 0.0)[0].offsets == [0]


def test_when_one_fails_for_good_each_gets_a_client_of_its_own(readers: Counted) -> None:
    """Whose fault it was shows then: the others read on."""
    good, bad = readers.shared.reader(), readers.shared.reader()
    good.assign({PLACES[0]: 0})
    bad.assign({PLACES[1]: RECORDS + 50})
    with pytest.raises(RetryableError, match="several backup logs at once"):
        drain(good)
    with pytest.raises(RetryableError, match="it gets its own"):
        bad.poll(16, 0.0)
    good.assign({PLACES[0]: 0})
    assert good.poll(1, 0.0)[0].offsets == [0]
