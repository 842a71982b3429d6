from benchmarks.demo.proof import Span, run_by, stands, uncommitted
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.progress import SlotMap
from kstate.state.markers import Marker, MarkerKind
from kstate.times import Times

WORDS = ("count", "words", 3)
LINES = ("split", "lines", 0)
LOW, HIGH = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)


def marker(worker: str, key_range: KeyRange, offset: int, move: int | None = None) -> Marker:
    """A marker that says how far `words` is done."""
    kind = MarkerKind.EPOCH if move is None else MarkerKind.RELEASE
    return Marker(1, key_range, kind, 1, worker, 1, {"words": offset}, Times(), (), 0, 0, 0, 0, move)


SPLIT = [
    marker("one", FULL_RANGE, 100),
    marker("one", LOW, 130),
    marker("one", HIGH, 120, move=7),
    marker("one", LOW, 160),
    marker("two", HIGH, 150),
    marker("two", HIGH, 190),
]
"""The upper half goes from one to two with move 7, at offset 120."""


def test_each_range_stands_where_its_newest_marker_says() -> None:
    """The halves of a split tile have markers of their own; slots without any stand at the start."""
    assert stands(SPLIT, WORDS, 5) == SlotMap([(LOW, 160), (HIGH, 190)])
    assert stands(SPLIT[:1], WORDS, 5) == SlotMap([(FULL_RANGE, 100)])
    assert stands(SPLIT[4:5], WORDS, 5) == SlotMap([(LOW, 5), (HIGH, 150)])
    assert stands(SPLIT, LINES, 5) == SlotMap([(FULL_RANGE, 5)])


def test_the_target_ran_what_its_markers_cover_beyond_the_release() -> None:
    """Offset by offset, none twice, and of no other key range."""
    assert run_by(SPLIT, "two", 7, WORDS) == [Span(WORDS, 120, 150, HIGH), Span(WORDS, 150, 190, HIGH)]


def test_the_source_ran_nothing_of_it_after_its_release() -> None:
    """What it committed before, and of the keys that stayed, is no proof of a move."""
    assert run_by(SPLIT, "one", 7, WORDS) == []


def test_a_move_without_release_proves_nothing() -> None:
    """Another move's release neither; nor a target that came and committed nothing new."""
    assert run_by([*SPLIT[:2], *SPLIT[3:]], "two", 7, WORDS) == []
    assert run_by(SPLIT, "two", 8, WORDS) == []
    assert run_by([*SPLIT[:4], marker("two", HIGH, 120)], "two", 7, WORDS) == []


def test_who_merges_the_halves_back_runs_the_released_one_again() -> None:
    """A marker over both halves counts for the half that was released, from where that stood."""
    merged = [*SPLIT, marker("two", HIGH, 200, move=9), marker("one", FULL_RANGE, 230)]
    assert run_by(merged, "one", 9, WORDS) == [Span(WORDS, 200, 230, HIGH)]


def test_a_span_holds_offsets_and_slots() -> None:
    """A partition that is split is read by both owners: only the keys of the range are meant."""
    span = Span(WORDS, 10, 12, HIGH)
    assert [span.holds(SLOTS - 1, offset) for offset in (9, 10, 11, 12)] == [False, True, True, False]
    assert not span.holds(0, 10)


def test_only_what_lies_beyond_the_last_markers_was_in_hand() -> None:
    """By key range: of a split partition only the worker's own half, and nothing that a marker covers."""
    committed = {WORDS: SlotMap([(LOW, 160), (HIGH, 190)]), LINES: SlotMap([(FULL_RANGE, 31)])}
    spans = uncommitted({WORDS: 200, LINES: 31}, {WORDS: [HIGH], LINES: [FULL_RANGE]}, committed)
    assert spans == [Span(WORDS, 190, 200, HIGH)]
    assert uncommitted({WORDS: 200}, {}, committed) == []
    both = uncommitted({WORDS: 180}, {WORDS: [FULL_RANGE]}, committed)
    assert both == [Span(WORDS, 160, 180, LOW)]
