"""What the clauses about moves are worth (S6, S7, S8, and S1 and S4 where ranges move): each with its story.

As in tests.support.mutations; the stories are those of the review of the protocol, told with real orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kstate.clock import Step, Steps
from kstate.coordinator import core, moves
from kstate.coordinator.scene import Ownership, Scene
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import Move, Plan, Shard, TopicPartition, backup_topic
from kstate.progress import SlotMap
from kstate.state import follow
from kstate.state.blocks import decode_frame
from kstate.state.lineage import Lineage
from kstate.state.markers import Marker
from kstate.testing.memory_log import Call, Fault, MemoryLog
from kstate.testing.story import Story
from kstate.testing.violations import Kind
from kstate.testing.world import Status
from kstate.worker import adoption, duties, running_epoch, taint, tiles
from kstate.worker.epoch import Prepared
from tests.support.mutations import Mutation, one_progress_per_tile
from tests.support.stage import LOWER, MIDDLE, SHARD, TOP, UPPER, about_to_commit, cast

A_WHILE = 700
"""Turns in which whoever wrongly thinks that it may go on does."""


# -- patches


def target_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """S6: the target runs the range as soon as it has read to H, released or not."""
    patch.setattr(adoption, "released", lambda *_: True)


def source_runs_on(patch: pytest.MonkeyPatch) -> None:
    """S6: the source still owns what it has released."""
    patch.setattr(tiles.Tiles, "settled", lambda self, prepared: None)


def any_release_will_do(patch: pytest.MonkeyPatch) -> None:
    """S6: a release is taken for that of the move under way, whatever move it was for."""

    def released(lineage: Lineage, key_range: KeyRange, _: int) -> bool:
        return not lineage.gaps(key_range) and all(p.move is not None for p in lineage.slice(key_range).values())

    patch.setattr(adoption, "released", released)


def same_entry_same_right(patch: pytest.MonkeyPatch) -> None:
    """S6: a worker takes again what it released, as long as a plan names it, under the same grant."""
    asked = duties.duties

    def forgetful(plan: Plan, incarnation: str, _: Mapping[Shard, SlotMap[int]]) -> dict[Shard, duties.Duties]:
        return asked(plan, incarnation, {})

    patch.setattr(tiles, "duties", forgetful)


def last_stable_offset_for_h(patch: pytest.MonkeyPatch) -> None:
    """S6: the target reads to the last stable offset, which any open transaction holds down."""

    def stable_end(log: MemoryLog, source: TopicPartition, *_: object) -> Steps[int]:
        yield Step("h-taken")
        return log.end_offsets([source], committed=True)[source]

    patch.setattr(follow, "fresh_end", stable_end)


def last_marker_decides(patch: pytest.MonkeyPatch) -> None:
    """S4: in doubt, a worker looks at the last marker of each of its ranges: an heir's hides its own."""
    look = taint.look_for_epoch

    def only_the_last(log: MemoryLog, clock: object, app: str, prepared: Prepared) -> Steps[object]:
        found = yield from look(log, clock, app, prepared)  # type: ignore[arg-type]
        for piece in prepared.pieces:
            own = piece.checkpoint.marker
            source = TopicPartition(backup_topic(app, piece.shard.shard.operator), piece.shard.shard.partition)
            frames = [decode_frame(record.value or b"") for record in log.records(source)]
            last = [f for f in frames if isinstance(f, Marker) and f.key_range.overlap(own.key_range)]
            if not last or last[-1].incarnation != own.incarnation:
                return None
        return found

    patch.setattr(running_epoch, "look_for_epoch", only_the_last)


def somebody_else_gets_it(patch: pytest.MonkeyPatch) -> None:
    """S7: a range under release whose target is dead goes to a third one, though its source is not fenced."""

    def given(now: Ownership, move: Move, scene: Scene) -> Ownership:
        if move.target not in scene.roll.fenced or move.source in scene.roll.dead:
            return now
        heirs = [m.incarnation for m in now.able(scene.roll) if m.incarnation != move.source]
        return moves.handed(now, replace(move, target=heirs[0], grant=scene.grant)) if heirs else now

    def without(now: Ownership, move: Move, scene: Scene) -> Ownership:
        after = given(now, move, scene)
        return after if after is now else replace(after, moves=tuple(m for m in now.moves if m != move))

    patch.setattr(moves, "_released_after_death", without)
    patch.setattr(core, "release_fault", lambda *_: None)


def new_id_for_the_same_move(patch: pytest.MonkeyPatch) -> None:
    """S7: when a move gets another target it gets another id, which its source has not released it for."""
    ended = moves._released_after_death

    def renamed(now: Ownership, move: Move, scene: Scene) -> Ownership:
        after = ended(now, move, scene)
        return replace(after, moves=tuple(replace(m, id=m.grant) if _is_turned(m, move) else m for m in after.moves))

    patch.setattr(moves, "_released_after_death", renamed)
    patch.setattr(core, "release_fault", lambda *_: None)


def _is_turned(move: Move, before: Move) -> bool:
    return (move.id, move.shard, move.key_range) == (before.id, before.shard, before.key_range) and (
        move.target != before.target
    )


# -- stories


def _no_reports(call: Call) -> Fault | None:
    return Fault.LOST if call.operation == "report" else None


def source_is_slow_to_release(story: Story) -> None:
    """The release is ordered while the source has an epoch in hand, which takes it long."""
    source, (target, *_) = cast(story)
    story.feed(24)
    story.reach(source, "processed")
    story.slow(source)
    story.move(SHARD, UPPER, target)
    story.until_release()
    story.turns(A_WHILE)
    story.release(source)
    story.reach(source, "committed")


def source_has_more_to_do(story: Story) -> None:
    """There is input for the source all along."""
    _, (target, *_) = cast(story)
    story.feed(24)
    story.move(SHARD, UPPER, target)
    move = story.until_release()
    story.until(lambda: story.has_released(move))
    story.feed(24)
    story.turns(A_WHILE)


def moved_on_before_it_did_anything(story: Story) -> None:
    """A range moves twice without any input between: its last marker is still the first source's release."""
    story.until(story.run.at_rest)
    _, (second, third, *_) = cast(story)
    story.moved(SHARD, UPPER, second)
    story.slow(second)
    story.move(SHARD, UPPER, third)
    story.until_release()
    story.turns(A_WHILE)
    story.release(second)
    story.feed(24)


def plan_still_names_the_source(story: Story) -> None:
    """P6: the source has released, the target is slow, and a plan about something else names the source as before."""
    source, (target, third, *_) = cast(story)
    story.feed(24)
    story.move(SHARD, UPPER, target)
    move = story.until_release()
    story.slow(target)
    story.until(lambda: story.has_released(move))
    elsewhere = Shard("totals", 1)
    other = next(p for p in (source, third) if p is not story.owner(elsewhere))
    story.move(elsewhere, UPPER, other)
    story.feed(24)
    story.turns(A_WHILE)
    story.release(target)


def target_dies_before_the_release(story: Story) -> None:
    """P2: the release is ordered, the source is slow, and the target dies: nobody may run beside the source."""
    source, (target, *_) = cast(story)
    story.director.restart_s = 10.0
    story.feed(24)
    story.reach(source, "processed")
    story.slow(source)
    story.move(SHARD, UPPER, target)
    story.until_release()
    story.world.crash(target)
    story.until(lambda: all(move.target != target.incarnation for move in story.moves()))
    story.turns(A_WHILE)
    story.release(source)
    story.reach(source, "committed")


def target_dies_after_the_release(story: Story) -> None:
    """W1: the source has released when the target dies without having run the range: it goes back to the source."""
    _, (target, *_) = cast(story)
    story.feed(24)
    story.move(SHARD, UPPER, target)
    move = story.until_release()
    story.slow(target)
    story.until(lambda: story.has_released(move))
    story.world.crash(target)


def release_in_doubt(story: Story) -> None:
    """P5: the source's release is committed, the answer is lost, and the target goes on before the source looks."""
    source, (target, *_) = cast(story)
    story.feed(24)
    story.move(SHARD, UPPER, target)
    story.until_release()
    story.slow(story.process("l0"))  # no plan tells the source what it has forgotten
    while story.reach(source, "flushed") and not story.is_releasing(source):
        pass
    story.fails(source, "commit", Fault.APPLIED)
    story.reach(source, "tainted")
    story.slow(source)
    story.until(lambda: story.runs(target, SHARD, UPPER.lo))
    story.feed(24)
    for _ in range(3):
        story.reach(target, "stored")
    story.release(source)
    story.reach(source, "stored")


def halves_meet_again(story: Story) -> None:
    """P7: the upper half is released, the source goes on with the lower one, both workers die. One heir gets all: two
    tiles, then one, before it has done anything. It dies, too.
    """
    source, (target, heir) = cast(story)
    story.director.restart_s = 10.0  # no successors: the third worker inherits
    leader = story.process("l0")
    story.feed(24)
    story.move(SHARD, UPPER, target)
    move = story.until_release()
    story.slow(target)
    story.until(lambda: story.has_released(move))
    story.feed(36)
    for _ in range(4):
        story.reach(source, "stored")
    story.hold(leader)
    story.world.crash(source)
    story.world.crash(target)
    story.release(leader)
    story.until(lambda: all(story.runs(heir, SHARD, half.lo) for half in (LOWER, UPPER)))
    story.slow(heir)
    story.until(lambda: any(tile.shard == SHARD and tile.key_range == FULL_RANGE for tile in story.tiles(heir)))
    story.cluster.start_worker("w9")
    story.world.crash(heir)


def returns_behind_an_open_transaction(story: Story) -> None:
    """P8: the target has run and committed, which nobody was told; it dies, and the range goes back to the source, who
    sees its own release, but not yet the target's commit: a third worker's open transaction stands before it.
    """
    source, (target, third, *_) = cast(story)
    oracle = story.run.oracle
    story.director.restart_s = 10.0
    story.moved(SHARD, TOP, third)
    story.feed(24)
    story.move(SHARD, MIDDLE, target)
    move = story.until_release()
    story.cut(target, _no_reports)
    story.until(lambda: story.has_released(move) and story.world.quiet)
    story.feed(36)
    about_to_commit(story, third)
    story.slow(third)
    before = oracle.newest_epoch(SHARD, MIDDLE.lo)
    story.until(lambda: oracle.newest_epoch(SHARD, MIDDLE.lo) > before or target.status is not Status.RUNNING)
    story.world.crash(target)
    story.until(lambda: story.runs(source, SHARD, MIDDLE.lo))
    story.release(third)


MOVE_MUTATIONS = (
    Mutation("S4 look for the release, too (P5)", Kind.DOUBLED, last_marker_decides, release_in_doubt),
    Mutation("S6 the target waits", Kind.TWO_OWNERS, target_does_not_wait, source_is_slow_to_release),
    Mutation("S6 the source stops", Kind.TWO_OWNERS, source_runs_on, source_has_more_to_do),
    Mutation("S6 move ids", Kind.TWO_OWNERS, any_release_will_do, moved_on_before_it_did_anything, 3),
    Mutation("S6 once per grant (P6)", Kind.TWO_OWNERS, same_entry_same_right, plan_still_names_the_source, 3),
    Mutation("S6 read to H (P8)", Kind.DOUBLED, last_stable_offset_for_h, returns_behind_an_open_transaction, 3),
    Mutation("S7 one heir (P2)", Kind.TWO_OWNERS, somebody_else_gets_it, target_dies_before_the_release, 3),
    Mutation("S7 the move keeps its id (W1)", Kind.WEDGED, new_id_for_the_same_move, target_dies_after_the_release, 3),
    Mutation("S8 progress is a map (P7)", Kind.LOST, one_progress_per_tile, halves_meet_again, 3),
)
