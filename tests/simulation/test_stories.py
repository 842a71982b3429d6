"""Stories that broke the first draft of the protocol, and those that the simulation found itself.

Told in tests.support.mutations and tests.support.move_mutations, and run by test_mutations.py, with several seeds each:

- P1 an open transaction hides a commit; P2 another heir while the source runs; P5 an heir's marker hides the own one;
  P6 the same plan entry is read twice; P7 one progress for a whole tile; P8 back to the source, which does not see the
  heir's commit yet; W1 a release that is bound to one target.

Told here, because they need a worker, or a topic, that no real process would make:

- P3 the first open is an open, too; P4 control is trimmed behind a plan.

P9, the bound of a trim, and P10, a reader below the log start, are told in test_rebase_stories.py.

Each breaks again without its rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from kstate.clock import Step, Steps
from kstate.coordinator.commands import Command, Publish
from kstate.coordinator.leader import Leader
from kstate.interfaces import Log
from kstate.keyspace import FULL_RANGE
from kstate.messages import PlanPublished
from kstate.plan import Member, Tile, TopicPartition
from kstate.testing.memory_log import Call, Fault
from kstate.testing.simulation import Scenario
from kstate.testing.story import STORY, Story
from kstate.testing.violations import Kind
from kstate.testing.world import FOR_EVER, Process
from kstate.wire import decode_control
from kstate.worker import lifecycle
from kstate.worker.load import Load
from kstate.worker.running_epoch import RunningEpoch
from kstate.worker.worker import Worker
from tests.support import mutations
from tests.support.stage import LOWER, SHARD, UPPER, cast

SEEDS = range(1, 6)
PATIENT = replace(STORY, successor_wait_ms=2_000)

pytestmark = pytest.mark.simulation


def found(tell: mutations.Tell, scenario: Scenario = STORY) -> set[Kind]:
    """The kinds of violation in any of a few interleavings of a story."""
    kinds: set[Kind] = set()
    for seed in SEEDS:
        story = Story(seed, scenario)
        tell(story)
        kinds |= story.verdict()
    return kinds


# P3: the first open was not "re-opening"


@pytest.fixture
def beats_before_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that heartbeats before it has opened its id, so that a plan can name it by then."""
    beat = Load.beat

    def early(self: Load, log: Log) -> None:
        self.opened()
        beat(self, log)

    monkeypatch.setattr(Load, "beat", early)


def read_before_open(patch: pytest.MonkeyPatch) -> None:
    """S3: control is read before the id is opened, not after."""

    def read_then_open(self: lifecycle.Session) -> Steps[None]:
        yield from self.control.catch_up()
        self.producer.open()
        yield Step("opened")

    patch.setattr(lifecycle.Session, "open", read_then_open)


def named_but_not_open(story: Story) -> Process:
    """W0 is named in the plan while its main thread has not taken a step yet."""
    late = story.process("w0")
    late.main.wake = FOR_EVER
    story.until(lambda: bool(story.tiles(late)))
    return late


def runs_beside_its_heirs(story: Story, late: Process) -> None:
    """W0 comes back, hears nothing new from control, and there is work for whoever believes to own it."""
    story.cut(late, nothing_new)
    story.release(late)
    story.turns(400)
    story.feed(24)
    story.turns(400)
    story.uncut(late)


def nothing_new(call: Call) -> Fault | None:
    """Polls of control bring nothing."""
    return Fault.EMPTY if call == Call("poll", "sim.control") else None


def opens_after_its_death(story: Story) -> None:
    """P3: W0 is declared dead and fenced before its first open, which then succeeds."""
    late = named_but_not_open(story)
    story.hold(late)
    story.until(lambda: story.given_away(late))
    runs_beside_its_heirs(story, late)


def opens_after_its_death_with_the_old_plan(story: Story) -> None:
    """P3 when control is read before the open: W0 has read the plan that names it."""
    late = named_but_not_open(story)
    story.release(late)
    story.reach(late, "control-read")
    story.hold(late)
    story.until(lambda: story.given_away(late))
    runs_beside_its_heirs(story, late)


@pytest.mark.usefixtures("beats_before_it_opens")
def test_p3_control_read_after_the_first_open_says_that_it_is_dead() -> None:
    """The first open is like any other: W0 reads control to a fresh end after it, and exits."""
    assert found(opens_after_its_death) == set()


@pytest.mark.usefixtures("beats_before_it_opens")
def test_p3_runs_beside_its_heir_when_control_is_read_before_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule S3 taken out."""
    read_before_open(monkeypatch)
    assert Kind.TWO_OWNERS in found(opens_after_its_death_with_the_old_plan)


# P4: control trimmed behind a plan lost a decision


def forget_undelivered_deaths(patch: pytest.MonkeyPatch) -> None:
    """S3: a plan lists the dead whose tiles are not given away yet as members, and does not repeat their death."""
    carry_out = Leader._carry_out

    def forgetful(self: Leader, command: Command) -> Steps[None]:
        if isinstance(command, Publish):
            plan = command.plan
            names = self.state.control.names
            members = (*plan.members, *(Member(names[incarnation], incarnation) for incarnation in plan.dead))
            command = replace(command, plan=replace(plan, members=members, dead=()))
        yield from carry_out(self, command)

    patch.setattr(Leader, "_carry_out", forgetful)


def reads_trimmed_control(story: Story) -> None:
    """P4: W0 is declared dead and fenced, a plan follows that leaves its tiles, control is trimmed behind that plan."""
    late, leader = named_but_not_open(story), story.process("l0")
    story.hold(late)
    story.reach(leader, "fenced")
    story.cluster.start_worker("w9")  # somebody joins while the dead one's successor is waited for
    story.until(lambda: newest_version(story) == 2)
    story.hold(leader)
    assert story.tiles(late), "the story needs a plan that has not given the tiles away yet"
    story.until(lambda: all(w.load.snapshot.plan_version == 2 for _, w in others(story, late)))
    trim_behind_newest_plan(story)
    story.release(late)
    if story.reach(late, "control-read"):
        story.hold(late)
    story.release(leader)
    story.until(lambda: story.given_away(late))
    runs_beside_its_heirs(story, late)


def others(story: Story, process: Process) -> list[tuple[str, Worker]]:
    """The other workers that live, by incarnation."""
    return [(i, worker) for i, worker in story.cluster.live.items() if i != process.incarnation]


def newest_version(story: Story) -> int:
    """Version of the newest plan, 0 when there is none."""
    plan = story.cluster.plan()
    return plan.version if plan else 0


def trim_behind_newest_plan(story: Story) -> None:
    """DeleteRecords on control: the newest full plan is the first record that is left."""
    source = TopicPartition(story.cluster.control_topic, 0)
    records = story.world.log.records(source)
    plans = [r.offset for r in records if isinstance(decode_control(r.value or b""), PlanPublished)]
    story.world.log.delete_records({source: plans[-1]})


@pytest.mark.usefixtures("beats_before_it_opens")
def test_p4_a_plan_repeats_the_deaths_that_stand_before_it() -> None:
    """W0 finds its death in the plan itself, and exits."""
    assert found(reads_trimmed_control, PATIENT) == set()


@pytest.mark.usefixtures("beats_before_it_opens")
def test_p4_goes_on_as_a_member_when_plans_do_not_repeat_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members in every plan taken out: W0 finds no decision, and runs beside its heir."""
    forget_undelivered_deaths(monkeypatch)
    assert Kind.TWO_OWNERS in found(reads_trimmed_control, PATIENT)


# What the simulation itself found


def read_bit_by_bit(story: Story) -> None:
    """A leader is replaced; its successor gets control record by record, and in between no answer; it dies, too."""
    story.until(lambda: newest_version(story) == 1)
    story.world.crash(story.process("l0"))
    story.until(lambda: any(process.name == "l0" for process in story.world.running()))
    successor = story.process("l0")
    story.reach(successor, "opened")
    answers = iter([Fault.SHORT, Fault.RETRYABLE, Fault.SHORT, Fault.RETRYABLE])
    story.cut(successor, lambda call: next(answers, None) if call == Call("poll", "sim.control") else None)
    story.reach(successor, "term-started")
    story.world.crash(successor)


def test_no_control_message_is_lost_when_the_broker_stops_answering_midway() -> None:
    """Otherwise the new leader counts its term, or plan, from what it has not lost, and no later leader can start."""
    assert found(read_bit_by_bit) == set()


def joined_and_moved_within_one_epoch(story: Story) -> None:
    """A range comes back, both tiles are joined, and a part is to be released before the source's epoch is over."""
    source, (target,) = cast(story)
    story.moved(SHARD, UPPER, target)
    story.move(SHARD, UPPER, source)
    worker = story.cluster.live[source.incarnation]
    assert story.until(lambda: story.runs(source, SHARD, UPPER.lo))
    story.feed(8)
    assert story.until(lambda: not worker.at_rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunningEpoch, "full", lambda _: False)
        assert story.until(lambda: any(tile.key_range == FULL_RANGE for tile in of_shard(story.tiles(source))))
        story.move(SHARD, LOWER, target)
        story.until_release()
        story.turns(200)
    story.turns(400)


def of_shard(tiles: Sequence[Tile]) -> list[Tile]:
    """Those of the shard that the story is about."""
    return [tile for tile in tiles if tile.shard == SHARD]


def test_a_release_counts_under_the_grant_of_the_plan_that_orders_it() -> None:
    """The source's pieces still had their older grants: under the tile's newer one it would take the range again."""
    assert found(joined_and_moved_within_one_epoch) == set()
