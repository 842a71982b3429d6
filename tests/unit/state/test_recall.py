"""recall: the state as of an earlier moment, from the backup log alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate.errors import BackupLogError, ConfigError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.lineage import Lineage
from kstate.state.recall import NEWEST, recall
from kstate.state.restore import RestoreTarget
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, Entries, entry, held
from tests.support.restore_bench import RUN_BYTES, filled_bench, finish

RANGES = [FULL_RANGE, LOW, HIGH, KeyRange(0x9000, 0x9001)]


def recalled(
    backup: BackupLog, until: int, key_range: KeyRange = FULL_RANGE
) -> tuple[list[tuple[bytes, bytes]], Lineage]:
    """What an empty store holds afterwards, and the lineage."""
    store = MemoryStore()
    target = RestoreTarget(SOURCE, OPERATOR, key_range)
    lineage = finish(recall(backup.log, store, target, until, RUN_BYTES))
    return held(store), lineage


@pytest.mark.parametrize("key_range", RANGES, ids=str)
def test_every_marker_is_a_moment(key_range: KeyRange) -> None:
    """What its writers had committed then, and nothing of what came later."""
    backup = filled_bench().backup
    for until, state in backup.history.items():
        found, lineage = recalled(backup, until, key_range)
        assert found == backup.part(key_range, state)
        assert all(position.offset <= until for position in lineage.values())
    assert recalled(backup, NEWEST, key_range) == (backup.part(key_range), backup.lineage.slice(key_range))


def test_an_epoch_counts_from_its_marker_on() -> None:
    """Between its blocks and its marker, the one before it is the last."""
    backup = filled_bench().backup
    earlier, later = list(backup.history)[-2:]
    assert later - earlier > 1
    for until in range(earlier, later):
        assert recalled(backup, until)[0] == backup.part(FULL_RANGE, backup.history[earlier])


def test_nothing_was_there_before_the_first_epoch() -> None:
    """Of a log that was never trimmed the very start is retained, too."""
    backup = filled_bench().backup
    assert recalled(backup, 0) == ([], Lineage())


@given(st.lists(st.tuples(st.sampled_from([FULL_RANGE, LOW, HIGH]), st.booleans()), min_size=1, max_size=12), st.data())
def test_retained_are_all_moments_from_the_base_in_force_on(
    epochs: list[tuple[KeyRange, bool]], data: st.DataObject
) -> None:
    """Trimmed to the base of some moment, that one and all later ones come back as they were."""
    backup = BackupLog()
    bases: dict[int, int] = {}
    for number, (key_range, rebased) in enumerate(epochs):
        if rebased:
            backup.rebase(FULL_RANGE, backup.read().next_offset)
        changes: Entries = {entry(key_range.lo + number % 3): b"%d" % number}
        backup.commit(changes, key_range)
        ((_, oldest), *others) = backup.lineage
        bases[max(backup.history)] = min(position.base for position in (oldest, *(p for _, p in others)))
    kept = data.draw(st.sampled_from(sorted(bases)))
    backup.trim(bases[kept])
    for until, state in backup.history.items():
        if until >= kept and len(backup.lineage.gaps(FULL_RANGE)) == 0:
            assert recalled(backup, until)[0] == backup.part(FULL_RANGE, state)


def test_a_moment_that_is_not_retained_is_refused() -> None:
    """Half a state would be a lie."""
    backup = filled_bench().backup
    early = list(backup.history)[3]
    backup.rebase(FULL_RANGE, at := backup.read().next_offset)
    backup.trim(at)
    with pytest.raises(ConfigError, match=r"not retained any more: its backup log begins at offset \d+.*history_ms"):
        recalled(backup, early)
    assert recalled(backup, NEWEST)[0] == backup.part(FULL_RANGE)


def test_a_log_without_base_is_damaged_not_old() -> None:
    """When all that is committed was read, no later moment would help."""
    backup = filled_bench().backup
    backup.commit({entry(1): b"late"})
    backup.trim(list(backup.history)[-2])
    with pytest.raises(BackupLogError, match="no base follows"):
        recalled(backup, NEWEST)


def test_a_log_that_is_trimmed_meanwhile_is_read_anew() -> None:
    """The newest state is always retained."""
    backup = filled_bench().backup
    store = MemoryStore()
    steps = recall(backup.log, store, RestoreTarget(SOURCE, OPERATOR, FULL_RANGE), NEWEST, RUN_BYTES)
    next(steps)
    backup.rebase(FULL_RANGE, at := backup.read().next_offset)
    backup.trim(at)
    for _ in steps:
        pass
    assert held(store) == backup.part(FULL_RANGE)
