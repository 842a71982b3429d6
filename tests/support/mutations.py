"""What each clause of the safety rules is worth: how to take it out, and a story in which that shows.

A *mutation* patches one clause out of the engine, for one test; there is no switch in the code itself. Its *story*
stops processes where the clause matters. Told with the clause in force, the same story must end well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kstate.clock import Step, Steps
from kstate.coordinator.commands import Command, Declare, Fence, Publish
from kstate.coordinator.events import Fenced
from kstate.coordinator.leader import Leader
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition
from kstate.progress import Progress
from kstate.state import follow, replay
from kstate.state.lineage import Lineage
from kstate.testing.memory_log import Fault, MemoryLog, MemoryProducer
from kstate.testing.simulation import Scenario
from kstate.testing.story import Story
from kstate.testing.violations import Kind
from kstate.times import Times
from kstate.worker import lifecycle, ownership, running_epoch, taint
from tests.support.stage import SHARD, UPPER, about_to_commit, cast

Patch = Callable[[pytest.MonkeyPatch], None]
Tell = Callable[[Story], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One clause: how it is taken out, what then happens, and where that shows."""

    clause: str
    kind: Kind
    patch: Patch
    tell: Tell
    workers: int = 2

    def __str__(self) -> str:
        return self.clause

    def story(self, seed: int) -> set[Kind]:
        """Tell the story; what was found."""
        story = Story(seed, Scenario(self.workers, leaders=1))
        self.tell(story)
        return story.verdict()


# -- patches


def last_stable_offset_for_h(patch: pytest.MonkeyPatch) -> None:
    """S1: the end of a backup partition is asked with read_committed, which any open transaction holds down."""

    def stable_end(log: MemoryLog, source: TopicPartition, *_: object) -> Steps[int]:
        yield Step("h-taken")
        return log.end_offsets([source], committed=True)[source]

    patch.setattr(taint, "fresh_end", stable_end)
    patch.setattr(follow, "fresh_end", stable_end)


def fence_after_giving(patch: pytest.MonkeyPatch) -> None:
    """S1, S2: the tiles are given first, so the heir reads before the old owner is fenced."""
    carry_out = Leader._carry_out
    owed: list[str] = []

    def give_then_fence(self: Leader, command: Command) -> Steps[None]:
        if isinstance(command, Fence):
            owed.append(command.incarnation)
            self._observe(Fenced(command.incarnation))
            yield Step("fenced")
            return
        yield from carry_out(self, command)
        if isinstance(command, Publish):
            for incarnation in [i for i in owed if not command.plan.owned_by(i)]:
                yield Step("fencing", wait=0.3)
                self._edges.log.fence(incarnation)
                owed.remove(incarnation)

    patch.setattr(Leader, "_carry_out", give_then_fence)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """S2: nobody is fenced."""
    patch.setattr(MemoryLog, "fence", lambda self, transactional_id: None)


def fence_before_deciding(patch: pytest.MonkeyPatch) -> None:
    """S2: the fence comes before the decision is seen."""
    carry_out = Leader._carry_out

    def fence_first(self: Leader, command: Command) -> Steps[None]:
        if isinstance(command, Fence):
            self._observe(Fenced(command.incarnation))
            yield Step("fenced")
            return
        if isinstance(command, Declare):
            self._edges.log.fence(command.incarnation)
        yield from carry_out(self, command)

    patch.setattr(Leader, "_carry_out", fence_first)


def trust_the_last_leader(patch: pytest.MonkeyPatch) -> None:
    """S2: a new leader takes it that whoever was declared dead before its term is fenced."""
    carry_out = Leader._carry_out
    declared: set[str] = set()

    def fence_only_own(self: Leader, command: Command) -> Steps[None]:
        if isinstance(command, Declare):
            declared.add(f"{self._office.name} {command.incarnation}")
        if isinstance(command, Fence) and f"{self._office.name} {command.incarnation}" not in declared:
            self._observe(Fenced(command.incarnation))
            yield Step("fenced")
            return
        yield from carry_out(self, command)

    patch.setattr(Leader, "_carry_out", fence_only_own)


def no_control_after_open(patch: pytest.MonkeyPatch) -> None:
    """S3: an id that is opened anew is used without reading control again."""

    def open_only(self: lifecycle.Session) -> Steps[None]:
        self.producer.open()
        yield Step("opened")
        if self.control.plan is None:
            yield from self.control.catch_up()

    patch.setattr(lifecycle.Session, "open", open_only)


def keep_tainted_producer(patch: pytest.MonkeyPatch) -> None:
    """S4: a tainted producer is used on, under its old epoch; the markers are looked for all the same."""

    def keep(self: lifecycle.Session) -> Steps[None]:
        producer = self.producer
        assert isinstance(producer, MemoryProducer)
        producer.forgive()
        yield Step("kept")
        yield from self.control.catch_up()

    patch.setattr(lifecycle.Session, "reopen", keep)


def no_look_for_markers(patch: pytest.MonkeyPatch) -> None:
    """S4: after a tainted transaction the epoch is done again, whatever the backup says."""

    def not_found(*_: object) -> Iterator[Step]:
        yield Step("looked")

    patch.setattr(running_epoch, "look_for_epoch", not_found)


def one_progress_per_tile(patch: pytest.MonkeyPatch) -> None:
    """S8: a restored tile starts at the progress of its newest marker."""

    def newest(lineage: Lineage, key_range: KeyRange, starts: Progress) -> list[replay.ReplayPiece]:
        pieces = replay.replay_pieces(lineage, key_range, starts)
        progress = {topic: max(piece.progress[topic] for piece in pieces) for topic in starts}
        return [replay.ReplayPiece(key_range, progress, Times())]

    patch.setattr(ownership, "replay_pieces", newest)


def no_counting(patch: pytest.MonkeyPatch) -> None:
    """S11: the transaction is committed without comparing what was handed over with what was delivered."""
    patch.setattr(MemoryProducer, "_check_counts", lambda self: None)


# -- stories


def open_transaction_hides_a_commit(story: Story) -> None:
    """P1: another worker's open transaction holds the last stable offset in front of a commit that is in doubt."""
    doubter, (holder, *_) = cast(story)
    story.moved(SHARD, UPPER, holder)
    story.feed(36)
    about_to_commit(story, holder)
    story.slow(holder)
    about_to_commit(story, doubter, alone=True)
    story.fails(doubter, "commit", Fault.APPLIED)
    story.reach(doubter, "tainted")
    story.reach(doubter, "stored")
    story.release(holder)


def zombie_commits(story: Story) -> None:
    """A worker is stopped with an epoch in hand, until others have taken over."""
    zombie = story.process("w0")
    story.reach(zombie, "processed")
    story.hold(zombie)
    story.until(lambda: story.given_away(zombie))
    story.release(zombie)
    story.reach(zombie, "committed")


def leader_dies_before_the_fence(story: Story) -> None:
    """A worker is stopped with an epoch in hand, declared dead, and then the leader dies; the next one gives."""
    zombie, leader = story.process("w0"), story.process("l0")
    story.reach(zombie, "processed")
    story.hold(zombie)
    story.reach(leader, "decision-seen")
    story.world.crash(leader)
    story.until(lambda: story.given_away(zombie))
    story.release(zombie)
    story.reach(zombie, "committed")


def reopens_before_the_decision(story: Story) -> None:
    """A worker opens its id anew after it was suspected, and before it is decided that it is dead."""
    suspect, leader = story.process("w0"), story.process("l0")
    story.reach(suspect, "flushed")
    story.fails(suspect, "commit", Fault.NOT_APPLIED)
    story.reach(suspect, "tainted")
    story.hold(suspect)
    story.reach(leader, "decision-begun")
    story.hold(leader)
    story.release(suspect)
    story.reach(suspect, "processed")
    story.hold(suspect)
    story.release(leader)
    story.until(lambda: story.given_away(suspect))
    story.release(suspect)
    story.reach(suspect, "committed")


def reopens_after_its_death(story: Story) -> None:
    """A worker opens its id anew after its tiles were given away, and cannot read control just then."""
    dead = story.process("w0")
    story.reach(dead, "flushed")
    story.fails(dead, "commit", Fault.NOT_APPLIED)
    story.reach(dead, "tainted")
    story.hold(dead)
    story.until(lambda: story.given_away(dead))
    story.cut(dead, story.no_control)
    story.release(dead)
    story.turns(1_500)
    story.uncut(dead)


def late_end_of_transaction(story: Story) -> None:
    """A commit gets no answer, reaches the broker in the middle of the next transaction, and then the worker dies."""
    doubter = story.process("w0")
    story.reach(doubter, "flushed")
    broker, epoch = story.world.log.broker, story.world.log.broker.epoch(doubter.incarnation)
    story.fails(doubter, "commit", Fault.NOT_APPLIED)
    story.reach(doubter, "tainted")
    story.reach(doubter, "outputs-sent")
    if broker.epoch(doubter.incarnation) == epoch:  # otherwise it is fenced, and does nothing
        broker.end(doubter.incarnation, epoch, committed=True)
    if story.reach(doubter, "flushed"):
        story.world.crash(doubter)


def commit_without_answer(story: Story) -> None:
    """A commit is done, but the answer is lost."""
    doubter = story.process("w0")
    story.reach(doubter, "flushed")
    story.fails(doubter, "commit", Fault.APPLIED)
    story.reach(doubter, "tainted")


def outputs_are_not_delivered(story: Story) -> None:
    """Half of what a worker hands over first in a transaction, which are its outputs, never reaches the broker."""
    unlucky = story.process("w0")
    story.reach(unlucky, "begun")
    story.fails(unlucky, "send", Fault.UNDELIVERED)


MUTATIONS = (
    Mutation("S1 H is read_uncommitted (P1)", Kind.DOUBLED, last_stable_offset_for_h, open_transaction_hides_a_commit),
    Mutation("S1 fence before reading", Kind.DOUBLED, fence_after_giving, zombie_commits),
    Mutation("S2 fence", Kind.TWO_OWNERS, no_fence, zombie_commits),
    Mutation(
        "S2 see the decision before the fence", Kind.TWO_OWNERS, fence_before_deciding, reopens_before_the_decision
    ),
    Mutation("S2 a new leader fences, too", Kind.TWO_OWNERS, trust_the_last_leader, leader_dies_before_the_fence),
    Mutation("S3 read control after open", Kind.TWO_OWNERS, no_control_after_open, reopens_after_its_death),
    Mutation("S4 discard the tainted producer", Kind.DOUBLED, keep_tainted_producer, late_end_of_transaction),
    Mutation("S4 look for the markers", Kind.DOUBLED, no_look_for_markers, commit_without_answer),
    Mutation("S11 compare the counts", Kind.LOST, no_counting, outputs_are_not_delivered),
)
