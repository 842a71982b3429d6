"""What may be trimmed: only what visible markers say, of every tile of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kstate.clock import run_steps
from kstate.config import RebaseSettings
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.evidence import Evidence
from kstate.coordinator.trimming import Trimmer, claims
from kstate.errors import ConfigError, DataLossError, RetryableError
from kstate.interfaces import TopicSpec
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Heartbeat, TilePhase, TileReport
from kstate.plan import Plan, Registry, Shard, Tile, TopicPartition
from kstate.state.checkpoint import Checkpoint
from kstate.testing.memory_log import Fault
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, entry
from tests.support.leaders import Silent
from tests.support.scenes import plan

SHARD = Shard("count", SOURCE.partition)
EVERY_S = 10.0


def planned(*tiles: Tile) -> Plan:
    """A plan of these tiles of the one operator."""
    return replace(plan(tiles), app="app", registry=Registry({"count": OPERATOR}))


def owned(key_range: KeyRange = FULL_RANGE, worker: str | None = "i1") -> Tile:
    """A tile of the shard."""
    return Tile(SHARD, key_range, worker, 1)


class Rig:
    """A backup log, a leader's trimmer, and what workers say."""

    def __init__(self, history_ms: int = 0) -> None:
        self.backup = BackupLog()
        self.log, self.clock = self.backup.log, self.backup.clock
        settings = RebaseSettings(trim_every_ms=round(EVERY_S * 1000), history_ms=history_ms)
        self.trimmer = Trimmer(LeaderEdges(self.log, self.clock, Silent()), "app", settings)

    def rebased(self, key_range: KeyRange, *, finish: bool = True) -> TileReport:
        """The whole range written anew in one epoch, and what its worker then says."""
        start = max((p.offset for p in self.backup.lineage.slice(key_range).values()), default=0)
        if finish:
            self.backup.rebase(key_range, start)
        else:
            self.backup.commit({entry(key_range.lo): b"v"}, key_range)
        return self.told(key_range)

    def told(self, key_range: KeyRange) -> TileReport:
        """What a worker says that runs the range."""
        position = self.backup.lineage.get(key_range.lo)
        assert position is not None
        return TileReport(
            SHARD,
            key_range,
            1,
            TilePhase.RUNNING,
            position.epoch,
            {},
            marked_at=position.offset - 1,
            base=position.base,
        )

    def trim(self, plan: Plan, told: Mapping[str, list[TileReport]]) -> int:
        """The log start after a round of the trimmer."""
        beats = {worker: Heartbeat(worker, worker, "h", 1, 1, 1, tuple(tiles)) for worker, tiles in told.items()}
        self.clock.sleep(EVERY_S)
        for _ in range(3):
            run_steps(self.trimmer.tick(plan, Evidence(beats)), self.clock)
        return self.log.start_offsets([SOURCE])[SOURCE]


@pytest.fixture
def rig() -> Rig:
    """With some epochs in the log."""
    made = Rig()
    for number in range(4):
        made.backup.commit({entry(1, b"%d" % number): b"v", entry(0x9000): b"w"})
    return made


def test_the_log_is_trimmed_to_the_base_of_its_only_tile(rig: Rig) -> None:
    """What is left restores to the whole state."""
    told = rig.rebased(FULL_RANGE)
    assert told.base > 0
    assert rig.trim(planned(owned()), {"i1": [told]}) == told.base


def test_the_least_base_of_all_tiles_counts(rig: Rig) -> None:
    """One that has never been written anew keeps the whole log."""
    low, high = rig.rebased(LOW), rig.told(HIGH)
    tiles = planned(owned(LOW), owned(HIGH, "i2"))
    assert rig.trim(tiles, {"i1": [low], "i2": [high]}) == 0
    high = rig.rebased(HIGH)
    assert rig.trim(tiles, {"i1": [low], "i2": [high]}) == min(low.base, high.base)


def test_nothing_is_trimmed_while_a_tile_has_no_owner_or_no_report(rig: Rig) -> None:
    """P9: nobody speaks for its base."""
    low, high = rig.rebased(LOW), rig.rebased(HIGH)
    assert rig.trim(planned(owned(LOW), owned(HIGH, None)), {"i1": [low]}) == 0
    assert rig.trim(planned(owned(LOW), owned(HIGH, "i2")), {"i1": [low]}) == 0
    assert rig.trim(planned(owned(LOW), owned(HIGH, "i2")), {"i1": [low, high]}) == 0, "not who the plan names"
    assert rig.trim(planned(owned(LOW), owned(HIGH, "i2")), {"i1": [low], "i2": [high]}) > 0


@pytest.mark.parametrize("wrong", ["a base", "where it stands", "whose it is", "which range"])
def test_a_report_is_only_a_hint(rig: Rig, wrong: str) -> None:
    """P9: the visible marker says what counts, and a place without one says nothing."""
    rig.rebased(LOW)
    plain = rig.rebased(FULL_RANGE, finish=False)
    assert plain.base == 0
    at = plain.marked_at or 0
    lie = {
        "a base": replace(plain, base=99),
        "where it stands": replace(plain, base=99, marked_at=at - 1),
        "whose it is": replace(plain, base=99, marked_at=at + 50),
        "which range": replace(rig.rebased(HIGH), key_range=FULL_RANGE),
    }[wrong]
    assert rig.trim(planned(owned()), {"i1": [lie]}) == 0


def test_an_older_marker_than_the_newest_does_no_harm(rig: Rig) -> None:
    """Heartbeats are late; what they speak of may be trimmed by now, too."""
    old = rig.rebased(FULL_RANGE)
    new = rig.rebased(FULL_RANGE)
    assert rig.trim(planned(owned()), {"i1": [old]}) == old.base
    assert rig.trim(planned(owned()), {"i1": [new]}) == new.base
    assert rig.trim(planned(owned()), {"i1": [replace(old, base=new.base + 1)]}) == new.base


def test_what_an_older_build_still_runs_and_the_job_has_dropped_is_left_alone(rig: Rig) -> None:
    """Nothing is known of it any more, and the leader goes on."""
    told = rig.rebased(FULL_RANGE)
    dropped = replace(planned(owned()), registry=Registry({}, retired=(("count", "", OPERATOR),)))
    assert rig.trim(dropped, {"i1": [told]}) == 0


def test_a_stream_that_a_dropped_operator_may_still_read_is_left_alone(rig: Rig) -> None:
    """By an older build; which streams it reads stands in no plan any more."""
    stream = TopicPartition("app.split.words", SOURCE.partition)
    rig.log.create_topics([TopicSpec(stream.topic, SOURCE.partition + 1)])
    writer = rig.backup.producer("upstream")
    writer.begin()
    writer.send(stream.topic, [{"value": b"w", "partition": SOURCE.partition}] * 9)
    writer.commit()
    rig.backup.commit({entry(1): b"v"}, read=5)
    marker = replace(rig.backup.checkpoint({}).marker, progress={stream.topic: 5})
    rig.backup.commit_frames(Checkpoint([], marker))
    told = rig.told(FULL_RANGE)
    told = replace(told, progress={stream.topic: 5})
    registry = Registry({"count": OPERATOR}, streams={stream.topic: 1})
    known = replace(planned(owned()), registry=registry, starts={("count", *_of(stream)): 0})
    other = replace(known, tiles=(*known.tiles, Tile(Shard("stats", SOURCE.partition), FULL_RANGE, "i1", 1)))
    rig.trim(other, {"i1": [told]})
    assert rig.log.start_offsets([stream])[stream] == 0
    rig.trim(known, {"i1": [told]})
    assert rig.log.start_offsets([stream])[stream] == 5


def _of(place: TopicPartition) -> tuple[str, int]:
    return place.topic, place.partition


def test_a_trim_that_fails_does_not_end_the_leader(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader of the partition may not know its high watermark yet, and says that the offset is out of range."""
    told = rig.rebased(FULL_RANGE)

    def refuse(before: Mapping[TopicPartition, int]) -> None:
        raise DataLossError("out of range")

    with monkeypatch.context() as patched:
        patched.setattr(rig.log, "delete_records", refuse)
        assert rig.trim(planned(owned()), {"i1": [told]}) == 0
    assert rig.trim(planned(owned()), {"i1": [told]}) == told.base


def test_claims_cover_every_slot_of_a_shard(rig: Rig) -> None:
    """A worker tells of pieces; two of them may make a tile."""
    told = [rig.rebased(LOW), rig.rebased(HIGH)]
    beats = {"i1": Heartbeat("i1", "i1", "h", 1, 1, 1, tuple(told))}
    assert [c.key_range for c in claims(planned(owned()), Evidence(beats))[SHARD]] == [LOW, HIGH]
    beats = {"i1": Heartbeat("i1", "i1", "h", 1, 1, 1, (told[0], replace(told[1], marked_at=None)))}
    assert claims(planned(owned()), Evidence(beats)) == {}


def test_it_looks_only_now_and_then(rig: Rig) -> None:
    """Each look costs a read per piece."""
    told = rig.rebased(FULL_RANGE)
    beats = {"i1": Heartbeat("i1", "i1", "h", 1, 1, 1, (told,))}
    run_steps(rig.trimmer.tick(planned(owned()), Evidence(beats)), rig.clock)
    assert rig.log.start_offsets([SOURCE]) == {SOURCE: 0}


def test_a_job_that_may_not_delete_records_runs_on_and_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logs grow; once it may, they are trimmed."""
    told = rig.rebased(FULL_RANGE)
    denied: list[object] = []

    def refuse(before: Mapping[TopicPartition, int]) -> None:
        denied.append(before)
        raise ConfigError("access to app.count.backup is denied", hint="allow it")

    with monkeypatch.context() as patch:
        patch.setattr(rig.log, "delete_records", refuse)
        assert rig.trim(planned(owned()), {"i1": [told]}) == 0
    assert denied
    assert rig.trim(planned(owned()), {"i1": [told]}) == told.base


def test_a_broker_that_does_not_answer_is_asked_again(rig: Rig) -> None:
    """In the next round."""
    told = rig.rebased(FULL_RANGE)
    rig.log.inject("poll", Fault.RETRYABLE, SOURCE.topic)
    with pytest.raises(RetryableError):
        rig.trim(planned(owned()), {"i1": [told]})
    assert rig.trim(planned(owned()), {"i1": [told]}) == told.base
