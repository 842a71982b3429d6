"""Each partition gets its share of a poll; nothing is lost, doubled, reordered, or kept without bound."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate.errors import DataLossError
from kstate.interfaces import Batch
from kstate.plan import TopicPartition
from kstate.worker.fair_reader import AHEAD_BYTES, AHEAD_POLLS, FairReader

LATE, FRESH, OTHER = (TopicPartition("words", partition) for partition in range(3))
POLL = 100


class Fetched:
    """A client with one queue over all partitions, as they were fetched."""

    def __init__(self, *batches: Batch) -> None:
        self.queue = list(batches)
        self.placed: list[tuple[Mapping[TopicPartition, int], list[TopicPartition]]] = []
        self.ends: dict[TopicPartition, int] = {}
        self.fault: DataLossError | None = None
        self.timeouts: list[float] = []
        self.closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.placed.append((positions, []))

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        self.placed.append((positions, list(gone)))

    def poll(self, max_records: int, timeout: float) -> list[Batch]:
        self.timeouts.append(timeout)
        if not self.queue and self.fault is not None:
            raise self.fault
        found: list[Batch] = []
        while self.queue and len(self.queue[0]) <= max_records:
            found.append(self.queue.pop(0))
            max_records -= len(found[-1])
        return found

    def at_end(self) -> Mapping[TopicPartition, int]:
        return self.ends

    def close(self) -> None:
        self.closed = True


def run(source: TopicPartition, first: int, count: int, size: int = 1) -> Batch:
    """So many records from an offset on."""
    offsets = list(range(first, first + count))
    return Batch(source, first + count, offsets, [b""] * count, [bytes(size)] * count, [0] * count)


def told(batches: Iterable[Batch]) -> dict[TopicPartition, list[int]]:
    """Offsets by partition."""
    found: dict[TopicPartition, list[int]] = defaultdict(list)
    for batch in batches:
        found[batch.source] += batch.offsets
    return found


def test_a_backlog_does_not_stand_before_the_records_of_others() -> None:
    """Fetched behind it, they come with the first poll; what they leave of their share is the backlog's."""
    reader = FairReader(Fetched(run(LATE, 0, 90), run(FRESH, 7, 3)), POLL)
    assert {source: len(offsets) for source, offsets in told(reader.poll(20, 1.0)).items()} == {FRESH: 3, LATE: 17}
    assert told(reader.poll(20, 1.0)) == {LATE: list(range(17, 37))}


def test_positions_are_those_of_what_was_given_out() -> None:
    """A batch that was cut ends before the next record; the last one where the client said."""
    last = Batch(LATE, 12, [4, 7], [b"", b""], [b"", b""], [0, 0])
    reader = FairReader(Fetched(last), POLL)
    assert [(batch.offsets, batch.next_offset) for batch in reader.poll(1, 0)] == [([4], 7)]
    assert [(batch.offsets, batch.next_offset) for batch in reader.poll(1, 0)] == [([7], 12)]


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_all_that_was_fetched_is_given_out_once_and_in_order(seed: int, most: int) -> None:
    """Whatever the polls ask for; and never more than that."""
    rng = random.Random(seed)
    firsts = dict.fromkeys((LATE, FRESH, OTHER), 0)
    fetched = []
    for _ in range(rng.randrange(30)):
        source = rng.choice([LATE, LATE, LATE, FRESH, OTHER])
        fetched.append(run(source, firsts[source], rng.randrange(30)))
        firsts[source] += len(fetched[-1])
    reader = FairReader(Fetched(*fetched), 40)
    polls = [reader.poll(most, 0) for _ in range(1_000)]
    assert max(sum(map(len, batches)) for batches in polls) <= most
    given_out = told(batch for batches in polls for batch in batches)
    assert given_out == {source: list(range(end)) for source, end in firsts.items() if source in given_out}
    assert sum(map(len, given_out.values())) == sum(firsts.values())


def test_what_is_read_elsewhere_or_no_longer_is_forgotten() -> None:
    """All others keep what was fetched of them."""
    client = Fetched(run(LATE, 0, 50), run(FRESH, 0, 30), run(OTHER, 0, 20))
    reader = FairReader(client, POLL)
    reader.poll(3, 0)
    reader.reassign({LATE: 0}, [OTHER])
    assert client.placed == [({LATE: 0}, [OTHER])]
    assert told(reader.poll(POLL, 0)) == {FRESH: list(range(1, 30))}
    client.queue = [run(LATE, 0, 5)]
    reader.poll(1, 0)
    reader.assign({FRESH: 3})
    assert reader.poll(POLL, 0) == []


def test_an_end_is_reached_when_all_before_it_was_given_out() -> None:
    """What the client knows already is not told."""
    client = Fetched(run(LATE, 0, 2), run(FRESH, 0, 1))
    client.ends = {LATE: 2, FRESH: 1, OTHER: 0}
    reader = FairReader(client, POLL)
    assert reader.at_end() == client.ends
    reader.poll(2, 0)
    assert reader.at_end() == {FRESH: 1, OTHER: 0}
    reader.poll(2, 0)
    assert reader.at_end() == client.ends


def test_a_fault_is_raised_behind_the_records_before_it() -> None:
    """Once; then the client is asked again."""
    client = Fetched(run(LATE, 0, 3))
    client.fault = DataLossError("gone", hint="")
    reader = FairReader(client, POLL)
    assert told(reader.poll(2, 0)) == {LATE: [0, 1]}
    assert told(reader.poll(2, 0)) == {LATE: [2]}
    with pytest.raises(DataLossError):
        reader.poll(2, 0)
    client.fault = None
    assert reader.poll(2, 0) == []


@pytest.mark.parametrize(("size", "kept"), [(1, AHEAD_POLLS * POLL), (AHEAD_BYTES // POLL, POLL)])
def test_what_is_kept_has_bounds(size: int, kept: int) -> None:
    """In records and in bytes; with both it waits for nobody who has nothing to wait for."""
    client = Fetched(*(run(LATE, first, POLL // 2, size) for first in range(0, 2_000, POLL // 2)))
    reader = FairReader(client, POLL)
    for _ in range(19):
        reader.poll(1, 5.0)
    fetched = 2_000 - sum(map(len, client.queue))
    assert kept <= fetched <= kept + POLL
    assert client.timeouts == [5.0] + [0.0] * (len(client.timeouts) - 1)
    reader.close()
    assert client.closed


def test_a_fault_of_what_is_read_no_longer_is_forgotten() -> None:
    """All that is still read is placed behind what was given out of it: a fault of that would be met again."""
    client = Fetched(run(LATE, 0, 3), run(FRESH, 5, 2))
    reader = FairReader(client, POLL)
    reader.assign({LATE: 0, FRESH: 5, OTHER: 9})
    reader.poll(2, 0)
    client.fault = DataLossError("gone", hint="")
    reader.poll(1, 0)
    reader.reassign({}, [OTHER])
    client.fault = None
    assert client.placed[-1] == ({LATE: 1, FRESH: 7}, [])
    assert reader.poll(2, 0) == []
