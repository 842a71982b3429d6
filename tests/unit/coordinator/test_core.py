"""What the leader decides, under any interleaving of what it may learn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.coordinator.commands import Command, Declare, Fence, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.core import Rules, State, decide, fresh_state, observe
from kstate.coordinator.events import (
    ControlRead,
    Draft,
    EndsTaken,
    Event,
    Fenced,
    OwnBeat,
    Surveyed,
    Tick,
    TopicsCounted,
)
from kstate.description import InputDescription, JobDescription, OperatorDescription
from kstate.keyspace import FULL_RANGE
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    PlanPublished,
    ProcessExited,
    TermStarted,
    TileReport,
    WorkerDied,
)
from kstate.plan import InputPartition, Plan, Registry, Shard, tiling_fault

WORDS = "app.split.words"
JOB = JobDescription(
    "app",
    (
        OperatorDescription("split", "none", (InputDescription("lines", "lines"),)),
        OperatorDescription("count", "string", (InputDescription("words", WORDS, internal=True, source_uid="split"),)),
    ),
)
STARTS = {("split", "lines", 0): 0, ("count", WORDS, 0): 0, ("count", WORDS, 1): 0}
COUNTS = {"lines": 1, WORDS: 2}


def draft(ends: Mapping[InputPartition, int] | None = None) -> Draft:
    """What a survey of the job finds: one partition of lines, two of words."""
    return Draft(Registry(), COUNTS, {"split": 1, "count": 2}, STARTS, ends or {}, ends is not None, "")


def beat(name: str, start: int = 1, **fields: Any) -> Heartbeat:
    """A heartbeat of the n-th start of a worker."""
    fields = {"build": JOB.build, **fields}
    return Heartbeat(f"{name}-{start}", name, "host", 1, 1, 0, fields.pop("tiles", ()), **fields)


@dataclass
class Leading:
    """A leader's core and the control topic it reads back; what it commits is checked as it is written."""

    rules: Rules = field(default_factory=lambda: Rules(expected_workers=2))
    log: list[Control] = field(default_factory=list)
    fenced: set[str] = field(default_factory=set)
    now_ms: int = 0
    ends: Mapping[InputPartition, int] | None = None

    def __post_init__(self) -> None:
        self.state = fresh_state(JOB, self.rules)
        self.take_over()

    def take_over(self) -> None:
        """A new leader: it knows nothing but what stands in control."""
        self.state = fresh_state(JOB, self.rules)
        self.fenced.clear()
        self.see(Tick(self.now_ms))
        for message in self.log:
            self.see(ControlRead(message))
        self.write(TermStarted(self.state.control.term + 1, "leader"))
        if self.state.control.plan is None:
            self.see(Surveyed(draft(self.ends)))

    def see(self, *events: Event) -> None:
        for event in events:
            self.state = observe(self.state, event)

    def wait(self, seconds: float) -> None:
        """Time goes by and the leader reads its own beats."""
        for _ in range(round(seconds / 0.4)):
            self.now_ms += 400
            self.see(Tick(self.now_ms), OwnBeat())

    def write(self, message: Control) -> None:
        """Append to control, checking the rules, and read it back."""
        self._check(message)
        self.log.append(message)
        self.see(ControlRead(message))

    def run(self, limit: int = 50) -> list[Command]:
        """Do what the core says until it says nothing more."""
        done: list[Command] = []
        while (command := decide(self.state)) is not None and not isinstance(command, Finish):
            done.append(command)
            self.carry_out(command)
            assert len(done) < limit, done
        return done

    def carry_out(self, command: Command, *, lost: bool = False) -> None:
        """One command; a lost one fails before it had any effect."""
        if lost:
            return
        match command:
            case Declare(incarnation, reason):
                self.write(WorkerDied(self.state.control.term, incarnation, reason))
            case Fence(incarnation):
                assert incarnation in self.deaths(), "S2: fenced before the decision was seen"
                self.fenced.add(incarnation)
                self.see(Fenced(incarnation))
            case Publish(plan, reason):
                self.write(PlanPublished(plan, reason))
            case Halt(reason, exit_code):
                self.write(JobHalted(self.state.control.term, reason, exit_code))
            case TakeEnds(places):
                self.see(EndsTaken(dict.fromkeys(places, 5)))
            case Finish():
                raise AssertionError("the loop's own affair")

    def deaths(self) -> set[str]:
        return {m.incarnation for m in self.log if isinstance(m, WorkerDied)}

    def plans(self) -> list[Plan]:
        return [m.plan for m in self.log if isinstance(m, PlanPublished)]

    def owners(self) -> dict[Shard, str | None]:
        return {tile.shard: tile.worker for tile in self.plans()[-1].tiles}

    def _check(self, message: Control) -> None:
        """S2 and S8 as seen by whoever reads control."""
        if not isinstance(message, PlanPublished):
            return
        plan, plans = message.plan, self.plans()
        assert tiling_fault(plan) is None
        assert {t.shard for t in plan.tiles} == {Shard("split", 0), Shard("count", 0), Shard("count", 1)}
        before = {tile.shard: tile for tile in plans[-1].tiles} if plans else {}
        assert plan.version == (plans[-1].version + 1 if plans else 1)
        assert not {m.incarnation for m in plan.members} & self.deaths(), "a dead worker is a member"
        assert len({m.name for m in plan.members}) == len(plan.members), "two members of one name"
        for tile in plan.tiles:
            old = before.get(tile.shard)
            if old == tile:
                continue
            assert tile.grant == plan.version
            assert tile.worker not in self.deaths(), "S2: a dead worker is given a tile"
            assert plan.member(tile.worker or "") is not None, "a stranger is given a tile"
            if old is not None and old.worker is not None:
                assert old.worker in self.deaths(), "S2: taken from a live worker"
                assert old.worker in self.fenced, "S2: given before the fence"
        owners = {tile.worker for tile in plan.tiles}
        assert set(plan.dead) == self.deaths() & owners, "S3: undelivered deaths are repeated in every plan"


def started(**options: Any) -> Leading:
    """A leader of two workers, a and b, whose first plan is out."""
    lead = Leading(**options)
    lead.see(beat("a"), beat("b"))
    lead.run()
    return lead


def test_the_first_plan_waits_for_the_expected_workers() -> None:
    """One of two is not enough; with both the tiles are spread."""
    lead = Leading()
    lead.see(beat("a"))
    assert lead.run() == []
    lead.see(beat("b"))
    assert [type(c) for c in lead.run()] == [Publish]
    assert lead.owners() == {Shard("split", 0): "a-1", Shard("count", 0): "a-1", Shard("count", 1): "b-1"}


def test_the_first_plan_does_not_wait_for_ever() -> None:
    """After ten seconds it is made for those who came."""
    lead = Leading()
    for _ in range(25):
        lead.see(beat("a"))
        assert lead.run() == []
        lead.wait(0.4)
    assert [type(c) for c in lead.run()] == [Publish]


def test_without_an_expectation_the_first_plan_settles() -> None:
    """Two seconds after the first heartbeat, for all who are there by then."""
    lead = Leading(Rules())
    lead.see(beat("a"))
    lead.wait(1.6)
    lead.see(beat("a"), beat("b"), beat("c"))
    assert lead.run() == []
    lead.wait(0.4)
    lead.run()
    assert [m.name for m in lead.plans()[0].members] == ["a", "b", "c"]


def test_a_death_is_decided_seen_fenced_and_given_in_this_order() -> None:
    """S2, with the successor at hand: three commands and no more."""
    lead = started()
    lead.see(ProcessExited("b-1", -9), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish]
    assert lead.owners()[Shard("count", 1)] == "b-2"


def test_silence_is_noticed_within_two_seconds() -> None:
    """Four beats of the leader without one of the worker; the other one, heard, stays."""
    lead = started()
    for _ in range(3):
        lead.wait(0.4)
        lead.see(beat("a"))
    lead.wait(0.4)
    assert lead.run() == []
    lead.wait(0.4)
    assert lead.run()[:2] == [Declare("b-1", "no heartbeat for 1600 ms"), Fence("b-1")]


def test_a_leader_that_was_stopped_suspects_nobody() -> None:
    """After a pause of a minute between two of its own beats the others have some seconds to be heard again."""
    lead = started()
    lead.wait(0.4)
    lead.now_ms += 60_000
    lead.see(Tick(lead.now_ms), OwnBeat())
    for _ in range(11):
        assert lead.run() == []
        lead.wait(0.4)
    lead.wait(0.4)
    assert isinstance(lead.run()[0], Declare)


def test_a_leader_that_reads_nothing_suspects_nobody() -> None:
    """Time without its own beats does not count at all."""
    lead = started()
    lead.wait(0.4)
    for _ in range(100):
        lead.now_ms += 400
        lead.see(Tick(lead.now_ms))
    assert lead.run() == []


def test_the_others_get_the_tiles_after_the_wait() -> None:
    """A second without a successor, then the least loaded."""
    lead = started()
    lead.see(ProcessExited("b-1", 1))
    assert [type(c) for c in lead.run()] == [Declare, Fence]
    for _ in range(2):
        lead.wait(0.4)
        lead.see(beat("a"))
        assert lead.run() == []
    lead.wait(0.4)
    lead.see(beat("a"))
    assert [type(c) for c in lead.run()] == [Publish]
    assert set(lead.owners().values()) == {"a-1"}


def test_a_successor_that_is_being_started_is_waited_for_longer() -> None:
    """The supervisor said so: fifteen seconds, also when another worker joins meanwhile."""
    lead = started()
    lead.see(ProcessExited("b-1", -9, restarts=True))
    lead.run()
    for second in range(36):
        lead.wait(0.4)
        lead.see(beat("a"), *([beat("c")] if second else []))
        lead.run()
    assert lead.owners()[Shard("count", 1)] == "b-1"
    lead.wait(0.8)
    lead.see(beat("a"), beat("c"))
    lead.run()
    assert lead.owners()[Shard("count", 1)] == "c-1"


def test_a_new_leader_fences_again_before_it_gives() -> None:
    """S2: the fence of the leader before is not known to the next; the decision is."""
    lead = started()
    lead.see(ProcessExited("b-1", 1))
    assert [type(c) for c in lead.run()] == [Declare, Fence]
    lead.take_over()
    lead.see(beat("a"), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Fence, Publish]
    assert lead.owners()[Shard("count", 1)] == "b-2"


def test_a_fence_without_a_decision_counts_for_nothing() -> None:
    """Hearing that a live worker was fenced gives none of its tiles away."""
    lead = started()
    lead.see(Fenced("b-1"))
    assert lead.run() == []
    lead.see(ProcessExited("b-1", 1), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish]


def test_a_fatal_worker_halts_the_job() -> None:
    """The reason and the exit code are the worker's; the leader waits a little for workers to go."""
    lead = started()
    lead.see(beat("a", fatal="operator 'count' failed at lines[0]@7", exit_code=3))
    assert lead.run() == [Halt("a: operator 'count' failed at lines[0]@7", 3)]
    assert decide(lead.state) is None
    lead.see(beat("a", leaving=True), ProcessExited("b-1", 3))
    assert decide(lead.state) == Finish(3)


def test_a_fatal_stranger_halts_nothing() -> None:
    """A worker that is no member, or was declared dead, cannot stop a job that runs."""
    lead = started()
    lead.see(ProcessExited("b-1", 1), beat("b", 2))
    lead.run()
    lead.see(beat("c", fatal="cannot open its folder", exit_code=2), beat("b", 1, fatal="fenced", exit_code=4))
    assert not any(isinstance(c, Halt) for c in lead.run())


def test_a_worker_that_merely_has_to_start_again_halts_nothing() -> None:
    """Fenced, out of time, or with a damaged store: its successor goes on."""
    lead = started()
    lead.see(beat("a", fatal="the local store is damaged", exit_code=6), beat("b", fatal="fenced", exit_code=4))
    assert lead.run() == []


def test_workers_that_do_not_go_are_not_waited_for_for_ever() -> None:
    """Five seconds after the halt was read the leader ends."""
    lead = started()
    lead.see(beat("a", fatal="broken", exit_code=3))
    lead.run()
    for _ in range(12):
        lead.wait(0.4)
        lead.see(beat("a"), beat("b"))
        assert decide(lead.state) is None
    lead.wait(0.4)
    lead.see(beat("a"), beat("b"))
    assert decide(lead.state) == Finish(3)


def test_changed_topics_halt_the_job() -> None:
    """Partitions that were added are not skipped: exit code 2, both counts and the mend."""
    lead = started()
    lead.see(TopicsCounted({"lines": 1, WORDS: 2}))
    assert lead.run() == []
    lead.see(TopicsCounted({"lines": 3, WORDS: 2}))
    (halt,) = lead.run()
    assert isinstance(halt, Halt)
    assert halt.exit_code == 2
    assert "'lines' had 1 partition when the job was first started and has 3 now" in halt.reason


def test_a_new_term_starts_a_halted_job_anew() -> None:
    """People mended it: what an earlier term halted does not hold the next one."""
    lead = started()
    lead.see(beat("a", fatal="broken", exit_code=3))
    lead.run()
    lead.take_over()
    assert lead.state.control.halted is None
    for _ in range(20):
        lead.wait(0.4)
        lead.see(beat("a"), beat("b"))
        assert decide(lead.state) is None


def at(uid: str, partition: int, progress: dict[str, int]) -> TileReport:
    """A running tile."""
    return TileReport(Shard(uid, partition), FULL_RANGE, 1, "running", 1, progress)


def test_a_bounded_run_ends_operator_by_operator() -> None:
    """Source finished → ends of its streams taken and published → downstream finished → complete → finish."""
    lead = started(ends={("split", "lines", 0): 10})
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 9}), at("count", 0, {WORDS: 3}))))
    assert lead.run() == []
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 10}), at("count", 0, {WORDS: 3}))))
    assert [type(c) for c in lead.run()] == [TakeEnds, Publish]
    assert lead.plans()[-1].ends == {("split", "lines", 0): 10, ("count", WORDS, 0): 5, ("count", WORDS, 1): 5}
    lead.see(beat("a", tiles=(at("count", 0, {WORDS: 5}),)))
    assert lead.run() == []
    lead.see(beat("b", tiles=(at("count", 1, {WORDS: 5}),)))
    assert [type(c) for c in lead.run()] == [Publish]
    assert lead.plans()[-1].complete
    assert decide(lead.state) is None
    lead.see(beat("a", leaving=True), beat("b", leaving=True))
    assert decide(lead.state) == Finish(0)


def test_a_death_during_a_bounded_run_is_mended_first() -> None:
    """Progress that a dead worker committed counts; its other tiles go on elsewhere."""
    lead = started(ends={("split", "lines", 0): 10})
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 10}),)), ProcessExited("a-1", -9), beat("a", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish, TakeEnds, Publish]
    assert lead.owners()[Shard("split", 0)] == "a-2"


def test_a_finished_job_is_run_again_to_new_ends() -> None:
    """A survey with other ends makes the next plan incomplete again; one without news finishes at once."""
    lead = started(ends={("split", "lines", 0): 0})
    tiles = (at("split", 0, {"lines": 0}), at("count", 0, {WORDS: 5}), at("count", 1, {WORDS: 5}))
    lead.see(beat("a", tiles=tiles))
    lead.run()
    lead.take_over()
    lead.see(ProcessExited("a-1", 0), ProcessExited("b-1", 0))
    assert decide(lead.state) == Finish(0)
    lead.see(Surveyed(draft({("split", "lines", 0): 8})), beat("a", 2))
    lead.run()
    plan = lead.plans()[-1]
    assert (plan.complete, plan.bounded, plan.ends) == (False, True, {("split", "lines", 0): 8})


def test_new_operators_get_tiles() -> None:
    """A draft with one more operator: its tiles are given in the same plan that brings it."""
    lead = started()
    old = lead.plans()[-1]
    wider = replace(draft(), shards={"split": 1, "count": 2, "third": 2}, reason="new: operator 'third'")
    lead.see(Surveyed(wider))
    command = decide(lead.state)
    assert isinstance(command, Publish)
    assert tiling_fault(command.plan) is None
    assert command.plan.tiles[:3] == old.tiles
    assert {(t.shard, t.worker) for t in command.plan.tiles[3:]} == {
        (Shard("third", 0), "b-1"),
        (Shard("third", 1), "a-1"),
    }
    assert command.reason.startswith("new: operator 'third'; ")


# -- any interleaving

NAMES = st.sampled_from(("a", "b", "c"))
HEARD = st.builds(beat, NAMES, st.integers(1, 3))
GONE = st.builds(lambda name, n, again: ProcessExited(f"{name}-{n}", 1, again), NAMES, st.integers(1, 3), st.booleans())
ACTIONS = st.one_of(HEARD, GONE, st.sampled_from(("beat", "long", "one", "one", "lose", "all", "take over", "restudy")))


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.lists(ACTIONS, max_size=60))
def test_no_interleaving_breaks_the_order_of_s2_or_the_tiling(running: bool, actions: Iterable[Any]) -> None:
    """Heartbeats, exits, time, lost commands and new leaders in any order: every plan is checked as it is written.

    At the end two workers stay alive: all tiles are then owned by live members, nothing is wedged.
    """
    lead = started() if running else Leading()
    for action in actions:
        match action:
            case "beat":
                lead.wait(0.4)
            case "long":
                lead.wait(2.0)
            case "one" | "lose":
                if (command := decide(lead.state)) is not None and not isinstance(command, Finish):
                    lead.carry_out(command, lost=action == "lose")
            case "all":
                lead.run()
            case "take over":
                lead.take_over()
            case "restudy":
                lead.see(Surveyed(None if lead.plans() else draft()))
            case event:
                lead.see(event)
    for _ in range(40):
        lead.see(beat("a", 9), beat("b", 9))
        lead.run()
        lead.wait(0.4)
    assert set(lead.owners().values()) <= {"a-9", "b-9"}


def test_observing_changes_nothing_in_place() -> None:
    """The state is a value: an old one decides today as it did then."""
    lead = started()
    before: State = lead.state
    lead.see(ProcessExited("b-1", 1))
    assert decide(before) is None
    assert isinstance(decide(lead.state), Declare)
