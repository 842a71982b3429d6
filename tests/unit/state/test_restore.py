"""restore-state: a key range comes back, warm or cold."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kstate.config import Settings
from kstate.errors import BackupLogError, DataLossError
from kstate.interfaces import OutMessage
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.restore import RestoreTarget, restore
from kstate.testing.memory_store import MemoryStore
from tests.golden.state_formats import BACKUP_LINEAGES, BACKUP_STATE, CONTENT, golden
from tests.support.backup_log import HIGH, LOW, SOURCE, BackupLog, entry, held, lineage_of
from tests.support.restore_bench import PREFIX, RUN_BYTES, SETTINGS, Bench, filled_bench, finish, step_until


@pytest.fixture
def bench() -> Bench:
    """A log of 20 epochs of each half, and an empty store."""
    return filled_bench()


def test_an_empty_log_gives_an_empty_lineage() -> None:
    """The inputs then start where the plan says."""
    bench = Bench()
    assert bench.restore() == ["h-taken", "restored"]
    assert held(bench.store) == []


def test_a_cold_restore_brings_everything_back_in_runs(bench: Bench) -> None:
    """Memory is bounded: full runs are ingested, the rest is written."""
    names = bench.restore()
    assert names[0] == "h-taken"
    assert names[-1] == "restored"
    assert names.count("ingested") >= 2
    assert "dropped" not in names


def test_runs_are_bounded_by_the_setting(bench: Bench) -> None:
    """A generous bound needs no run at all."""
    assert "ingested" not in bench.restore(settings=Settings())
    largest = 0
    store = bench.store = MemoryStore()
    ingest = store.ingest

    def measured(pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        nonlocal largest
        run = list(pairs)
        largest = max(largest, sum(len(key) + len(value or b"") for key, value in run))
        ingest(run)

    store.ingest = measured  # type: ignore[method-assign]
    bench.restore()
    assert 0 < largest < 8 * RUN_BYTES


@pytest.mark.parametrize("version", [1, 2])
def test_the_golden_backup_is_restored(version: int) -> None:
    """A log of each released format, and what it means."""
    bench = Bench()
    producer = bench.backup.producer("w")
    producer.begin()
    messages = [OutMessage(value=frame, partition=SOURCE.partition) for frame in golden(f"backup-v{version}.hex")]
    producer.send(SOURCE.topic, messages)
    producer.flush()
    producer.commit()
    target = RestoreTarget(SOURCE, 2, FULL_RANGE)
    lineage = finish(restore(bench.backup.log, bench.store, target, bench.backup.clock, SETTINGS))
    assert lineage == BACKUP_LINEAGES[version]
    prefix = shard_prefix(2, SOURCE.partition)
    pairs = list(bench.store.scan(*shard_bounds(2, SOURCE.partition, FULL_RANGE)))
    assert pairs == sorted((prefix + suffix, value) for suffix, value in BACKUP_STATE.items())
    if version == 2:
        assert golden("backup-v2.hex") == CONTENT["backup-v2.hex"]


def test_only_the_target_is_restored(bench: Bench) -> None:
    """Other slots of the shard stay as they are in the same store."""
    bench.restore(LOW)
    assert held(bench.store, HIGH) == []
    assert len(lineage_of(bench.store, HIGH)) == 0
    bench.restore(KeyRange(0x9000, 0xA000))
    bench.check(LOW, bench.backup.lineage.slice(LOW))
    bench.restore(HIGH)
    bench.check(FULL_RANGE, bench.backup.lineage)


def test_a_warm_restart_reads_the_tail_only(bench: Bench) -> None:
    """From the least of its positions on, after a look at the marker before each of them."""
    bench.restore()
    low, high = sorted(position.offset for position in lineage_of(bench.store).values())
    bench.epochs(2, HIGH, seed=3)
    news = bench.backup.lineage.slice(HIGH).values()[0].offset
    assigned = bench.assigned()
    assert "dropped" not in bench.restore(HIGH) + bench.restore()
    assert assigned == [high - 1, high, low - 1, news - 1, low]


def test_a_restart_without_news_changes_nothing(bench: Bench) -> None:
    """The usual restart: nothing is written, hence nothing to flush."""
    bench.restore()
    bench.store.write = None  # type: ignore[method-assign, assignment]
    bench.store.ingest = None  # type: ignore[method-assign, assignment]
    bench.restore()


def test_a_copy_below_the_log_start_is_dropped(bench: Bench) -> None:
    """Going on with a gap would bring deleted keys back."""
    bench.restore()
    gone = held(bench.store)[0][0][6:]
    bench.backup.commit({gone: None})
    cut = bench.backup.read().next_offset
    bench.backup.rebase(FULL_RANGE, cut)
    bench.backup.trim(cut)
    names = bench.restore()
    assert names[:2] == ["h-taken", "dropped"]
    assert "it is dropped" in bench.said[0]


def test_a_copy_beyond_the_end_is_refused(bench: Bench) -> None:
    """It was committed, so the log was made anew or has lost records: starting over would double what came after."""
    bench.put_ahead()
    with pytest.raises(DataLossError, match=r"ends at \d+, but this worker's local copy .* up to 1000000"):
        bench.restore()


def test_entries_without_a_lineage_are_dropped(bench: Bench) -> None:
    """A slot that the lineage does not know is not there, whatever lies about."""
    bench.store.write([PREFIX + entry(5, b"junk")], [b"junk"])
    assert bench.restore()[:2] == ["h-taken", "dropped"]


def test_a_stale_part_is_dropped_and_a_good_part_kept(bench: Bench) -> None:
    """Usable slots stay, only the others begin anew."""
    bench.restore(LOW)
    kept = held(bench.store, LOW)
    bench.put_stale(HIGH)
    steps = bench.steps()
    step_until(steps, "dropped")
    assert held(bench.store) == kept
    bench.restore()


@pytest.mark.parametrize("epochs", [3, 5])
def test_a_copy_of_a_log_that_was_made_anew_is_dropped(epochs: int) -> None:
    """The new log has grown to the old offset or past it, and its chain of epochs fits: only the writers differ."""
    bench = Bench()
    for _ in range(3):
        bench.backup.commit({entry(1): b"old", entry(2): b"of the old life only"}, writer="first-life")
    bench.restore()
    bench.backup = BackupLog()
    for number in range(epochs):
        bench.backup.commit({entry(1 if number else 3): b"new"}, writer="second-life")
    assert "dropped" in bench.restore()
    assert "made from another log" in bench.said[-1]


def test_a_copy_whose_last_marker_was_trimmed_is_dropped(bench: Bench) -> None:
    """The log begins just where the copy ends: the bases in it have all there is, and show whose they are."""
    bench.restore()
    cut = bench.backup.read().next_offset
    stood = max(position.offset for position in lineage_of(bench.store).values())
    bench.backup.rebase(LOW, cut)
    bench.backup.rebase(HIGH, cut)
    bench.backup.trim(stood)
    assert "dropped" in bench.restore()


def test_base_blocks_replace_what_was_there(bench: Bench) -> None:
    """In the store, in an ingested run and in the run under way."""
    for seed in range(3):
        bench.epochs(6, FULL_RANGE, seed=10 + seed)
        bench.backup.rebase(LOW, bench.backup.read().next_offset)
        bench.epochs(2, LOW, seed=20 + seed)
        del bench.backup.state[bench.backup.part(LOW)[seed][0]]  # known to no delta: only the next base can remove it
    bench.backup.rebase(LOW, bench.backup.read().next_offset)
    assert bench.restore().count("ingested") >= 2
    del bench.backup.state[bench.backup.part(LOW)[0][0]]
    bench.backup.commit(dict.fromkeys([key[6:] for key, _ in bench.backup.part(LOW)][:5]))
    bench.backup.rebase(LOW, bench.backup.read().next_offset)
    bench.restore()


def test_h_is_waited_for(bench: Bench) -> None:
    """What the fenced owner was committing is not missed (P1)."""
    log = bench.backup.log
    other = log.producer("stranger")
    other.open()
    other.begin()
    other.send(SOURCE.topic, [{"value": b"aborted", "partition": SOURCE.partition}])
    bench.backup.commit({entry(1): b"behind the open transaction"}, LOW)
    steps = bench.steps()
    names = [next(steps).name for _ in range(4)]
    assert names == ["h-taken", *["await-stable"] * 3]
    other.abort()
    bench.check(FULL_RANGE, finish(steps))


def test_a_log_that_is_trimmed_under_the_reader_is_read_from_its_new_start(bench: Bench) -> None:
    """Whoever falls below the log start wipes and starts over."""
    steps = bench.steps()
    step_until(steps, "ingested")
    cut = bench.backup.read().next_offset
    bench.backup.rebase(LOW, cut)
    bench.backup.rebase(HIGH, cut)
    bench.backup.trim(cut)
    names: list[str] = []
    bench.check(FULL_RANGE, finish(steps, names))
    assert names.count("h-taken") == 1
    assert "dropped" in names


def test_a_position_that_the_log_lost_is_an_error(bench: Bench) -> None:
    """Truncated under the reader, not trimmed: nothing can be started over."""
    steps = bench.steps()
    step_until(steps, "ingested")
    bench.backup.log.recreate_topic(SOURCE.topic, SOURCE.partition + 1)
    with pytest.raises(DataLossError):
        finish(steps)


def test_a_hole_in_the_log_stops_the_restore(bench: Bench) -> None:
    """S5: the error names partition and offset."""
    cut = bench.backup.read().next_offset
    bench.epochs(1)
    bench.backup.trim(cut)
    with pytest.raises(BackupLogError, match=r"app\.count\.backup\[3\] at offset"):
        bench.restore()


def test_unproven_state_is_never_taken_for_a_valid_copy() -> None:
    """A trimmed log without a base fails the second time too, although runs of it were ingested."""
    bench = Bench()
    bench.epochs(3)
    cut = bench.backup.read().next_offset
    bench.epochs(40, seed=5)
    bench.backup.trim(cut)
    for _ in range(2):
        steps = bench.steps()
        names: list[str] = []
        with pytest.raises(BackupLogError, match="no base follows"):
            finish(steps, names)
        assert "ingested" in names


def test_the_reader_is_closed_however_the_restore_ends(bench: Bench) -> None:
    """Also when it is given up between two steps."""
    closed = []
    make = bench.backup.log.reader

    def watched() -> object:
        reader = make()
        reader.close = lambda: closed.append(1)  # type: ignore[method-assign]
        return reader

    bench.backup.log.reader = watched  # type: ignore[method-assign, assignment]
    steps = bench.steps()
    step_until(steps, "ingested")
    steps.close()
    assert closed == [1]
