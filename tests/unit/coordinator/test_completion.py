"""When a bounded run is over."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.coordinator.completion import Achieved, finished, open_ends, reported
from kstate.description import InputDescription, JobDescription, OperatorDescription
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import TilePhase, TileReport
from kstate.plan import Plan, Registry, Shard, Tile

WORDS = "app.split.words"
JOB = JobDescription(
    "app",
    (
        OperatorDescription("split", "none", (InputDescription("lines", "lines"),)),
        OperatorDescription("count", "string", (InputDescription("words", WORDS, internal=True, source_uid="split"),)),
    ),
)
TILES = (
    Tile(Shard("split", 0), FULL_RANGE, "w", 1),
    Tile(Shard("split", 1), FULL_RANGE, "w", 1),
    Tile(Shard("count", 0), FULL_RANGE, "w", 1),
)
ENDS = {("split", "lines", 0): 10, ("split", "lines", 1): 20}


def plan(ends: dict[tuple[str, str, int], int]) -> Plan:
    """Two partitions of lines, one of words."""
    return Plan("app", 1, 1, (), (), TILES, Registry(), {"lines": 2, WORDS: 1}, {}, ends, bounded=True)


def at(uid: str, partition: int, progress: dict[str, int], key_range: KeyRange = FULL_RANGE) -> TileReport:
    """A report of a running tile."""
    return TileReport(Shard(uid, partition), key_range, 1, TilePhase.RUNNING, 1, progress)


def test_an_operator_is_finished_when_all_its_tiles_came_to_the_end() -> None:
    """One partition at its end is not enough; both are, and one record short is not."""
    one = reported(Achieved(), (at("split", 0, {"lines": 10}),))
    short = reported(one, (at("split", 1, {"lines": 19}),))
    assert finished(JOB, plan(ENDS), one) == frozenset()
    assert finished(JOB, plan(ENDS), short) == frozenset()
    assert finished(JOB, plan(ENDS), reported(short, (at("split", 1, {"lines": 20}),))) == {"split"}


def test_the_ends_of_a_stream_are_taken_only_after_its_source_is_finished() -> None:
    """Before that nothing is open; afterwards each partition without an end is, once."""
    both = reported(Achieved(), (at("split", 0, {"lines": 10}), at("split", 1, {"lines": 20})))
    assert open_ends(JOB, plan(ENDS), Achieved()) == ()
    assert open_ends(JOB, plan(ENDS), both) == (("count", WORDS, 0),)
    assert open_ends(JOB, plan({**ENDS, ("count", WORDS, 0): 7}), both) == ()


def test_an_operator_whose_ends_are_not_fixed_is_not_finished() -> None:
    """However far a downstream operator is, it is not finished before its streams have ends."""
    far = reported(Achieved(), (at("count", 0, {WORDS: 1_000}),))
    assert "count" not in finished(JOB, plan(ENDS), far)
    assert "count" in finished(JOB, plan({**ENDS, ("count", WORDS, 0): 1_000}), far)


def test_every_slot_of_a_partition_must_be_there() -> None:
    """A half of the key range that nobody reported is not finished."""
    half = reported(Achieved(), (at("count", 0, {WORDS: 7}, KeyRange(0, 100)),))
    ends = {**ENDS, ("count", WORDS, 0): 7}
    assert "count" not in finished(JOB, plan(ends), half)
    rest = reported(half, (at("count", 0, {WORDS: 7}, KeyRange(100, SLOTS)),))
    assert "count" in finished(JOB, plan(ends), rest)


def test_an_input_that_was_never_written_is_finished_at_once() -> None:
    """Ends of 0 are reached by progress 0."""
    nothing = reported(Achieved(), (at("split", 0, {"lines": 0}), at("split", 1, {"lines": 0})))
    assert finished(JOB, plan(dict.fromkeys(ENDS, 0)), nothing) == {"split"}


CUTS = st.tuples(st.integers(0, SLOTS - 1), st.integers(1, SLOTS)).map(lambda c: KeyRange(c[0], max(c[1], c[0] + 1)))


@settings(deadline=None)
@given(st.lists(st.tuples(CUTS, st.integers(0, 50)), max_size=12), st.integers(0, SLOTS - 1))
def test_progress_is_the_furthest_that_anybody_reported(reports: list[tuple[KeyRange, int]], slot: int) -> None:
    """At any slot, whatever the cuts and the order of reports, progress never goes back."""
    achieved = Achieved()
    for key_range, offset in reports:
        achieved = reported(achieved, (at("count", 0, {WORDS: offset}, key_range),))
    known = [offset for key_range, offset in reports if slot in key_range]
    progress = achieved.shards[Shard("count", 0)].get(slot) if reports else None
    assert progress == ({WORDS: max(known)} if known else None)
