"""History that is kept: every moment of it can be recalled, and what is older is trimmed in the end."""

from __future__ import annotations

import random

import pytest

from kstate.clock import run_steps
from kstate.coordinator.retention import Retention
from kstate.errors import ConfigError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.recall import recall
from kstate.state.restore import RestoreTarget
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, entry, held
from tests.unit.coordinator.test_trimming import Rig, owned, planned

HISTORY_S = 400.0
RANGES = (LOW, HIGH)


def recalled(backup: BackupLog, until: int) -> list[tuple[bytes, bytes]]:
    """The state as of an offset."""
    store = MemoryStore()
    target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE)
    run_steps(recall(backup.log, store, target, until, 1 << 20), backup.clock)
    return held(store)


def lived(rig: Rig, dice: random.Random, epochs: int, lazy: KeyRange | None = None) -> dict[int, float]:
    """Epochs of both halves with re-bases now and then, trimmed all the time; offset behind each marker → when."""
    backup, moments = rig.backup, dict[int, float]()
    plan = planned(owned(LOW), owned(HIGH, "i2"))
    for number in range(epochs):
        half = dice.choice([each for each in RANGES if each != lazy or number % 25 == 0])
        if half == lazy or dice.random() < 0.3:
            backup.rebase(half, backup.log.end_offsets([SOURCE], committed=True)[SOURCE])
        else:
            backup.commit({entry(half.lo + dice.randrange(4)): b"%d" % number}, half)
        moments[max(backup.history)] = rig.clock.now
        if all(len(backup.lineage.slice(each)) for each in RANGES):
            rig.trim(plan, {"i1": [rig.told(LOW)], "i2": [rig.told(HIGH)]})
        rig.clock.sleep(dice.uniform(0, 4))
    return moments


@pytest.mark.parametrize("lazy", [None, LOW], ids=["busy", "one half is idle for long"])
@pytest.mark.parametrize("seed", range(6))
def test_every_moment_of_the_history_is_kept(seed: int, lazy: KeyRange | None) -> None:
    """Whatever was re-based and trimmed since, by this leader or by a new one; and much of the rest is gone."""
    dice = random.Random(seed)
    rig = Rig(history_ms=round(HISTORY_S * 1000))
    moments = lived(rig, dice, 120, lazy)
    backup, now = rig.backup, rig.clock.now
    assert backup.log.start_offsets([SOURCE])[SOURCE] > 0
    within = [until for until, at in moments.items() if at >= now - HISTORY_S]
    assert len(within) > 20
    for until in within:
        assert recalled(backup, until) == backup.part(FULL_RANGE, backup.history[until])
    with pytest.raises(ConfigError, match="not retained any more"):
        recalled(backup, next(iter(moments)))


def test_a_new_leader_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from the log; as long as no epoch becomes too old the log is not even asked again."""
    rig = Rig(history_ms=round(HISTORY_S * 1000))
    lived(rig, random.Random(1), 80)
    retentions = [Retention(rig.log, rig.clock, round(HISTORY_S * 1000)) for _ in range(2)]
    first, second = (run_steps(each.needed(SOURCE), rig.clock) for each in retentions)
    assert first == second
    monkeypatch.setattr(rig.log, "reader", None)
    assert run_steps(retentions[0].needed(SOURCE), rig.clock) == first


def test_without_a_promise_nothing_is_looked_for() -> None:
    """The log is as long as restores need it."""
    rig = Rig()
    assert run_steps(Retention(rig.log, rig.clock, 0).needed(SOURCE), rig.clock) is None
