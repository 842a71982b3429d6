"""The control plane as two pure functions: `observe(state, event) → state` and `decide(state) → command`.

Decisions are level-triggered: `decide` looks at what is known and names the one next thing to do. A decision that
failed is simply named again, and a new leader that read the same control topic and hears the same reports goes on where
the last one stopped. What was decided counts only once it was read back from the control topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kstate.config import FailureSettings, RecoverySettings
from kstate.coordinator import assignment, completion, membership, planning, recovery, standbys
from kstate.coordinator.commands import Answer, Command, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.completion import Achieved
from kstate.coordinator.control import ControlView, take, undelivered
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
from kstate.coordinator.evidence import Evidence
from kstate.coordinator.membership import Membership
from kstate.coordinator.orders import Reply, carried_out
from kstate.coordinator.recovery import Recovery
from kstate.coordinator.safety import giving_fault, release_fault
from kstate.coordinator.scene import Ownership, Roll, Scene, kept_of
from kstate.coordinator.topics import changed_counts
from kstate.description import JobDescription
from kstate.errors import FINAL_EXIT_CODES, ConfigError
from kstate.messages import Control, Heartbeat, Order, PlanPublished, ProcessExited
from kstate.plan import InputPartition, Plan, Registry, moves_fault, tiling_fault

OUTAGE_MS = 5_000
"""A leader that read nothing, not even its own beats, for so long was cut off, and the others with it."""

ORDERS_KEPT = 100
"""Orders that wait for their answer; one more is heard again later, because whoever gave it repeats it."""

RECONNECT_MS = 3_000
"""After the broker was away: clients try to reconnect once a second, and a restarted broker is busy at first."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long the leader waits for what, and how prepared it is for deaths."""

    failure: FailureSettings = field(default_factory=FailureSettings)
    expected_workers: int | None = None
    """The first plan waits for so many."""
    settle_ms: int = 2_000
    """The first plan's wait after the first heartbeat, when nobody said how many to expect."""
    start_wait_ms: int = 10_000
    """After so long the first plan is made for those who are there, even if more are expected."""
    linger_ms: int = 5_000
    """How long a leader waits for workers to go once the job is complete or halted."""
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    """Standbys, and into how many ranges a lost tile is cut."""


@dataclass(frozen=True, slots=True)
class State:
    """All that the leader knows."""

    job: JobDescription
    rules: Rules
    present: Membership
    control: ControlView = field(default_factory=ControlView)
    recovery: Recovery = field(default_factory=Recovery)
    achieved: Achieved = field(default_factory=Achieved)
    draft: Draft | None = None
    """Not yet in any plan."""
    taken: Mapping[InputPartition, int] = field(default_factory=dict)
    """Ends that are not yet in any plan."""
    orders: tuple[Order, ...] = ()
    """Not yet answered, in the order in which they were heard."""
    fault: Halt | None = None
    now_ms: int = 0
    beat_ms: int | None = None
    """When the leader read its own beat last."""
    first_heard_ms: int | None = None
    over_ms: int | None = None
    """When it read that the job is complete or halted."""


def fresh_state(job: JobDescription, rules: Rules) -> State:
    """Nothing known yet."""
    return State(job, rules, Membership(rules.failure.silence_max_ms))


def evidence_of(state: State) -> Evidence:
    """What workers say of their pieces."""
    return Evidence(state.present.beats())


def observe(state: State, event: Event) -> State:
    """The state after an event; it never decides anything."""
    match event:
        case Tick(now_ms):
            return replace(state, now_ms=max(now_ms, state.now_ms))
        case OwnBeat():
            return _own_beat(state)
        case Heartbeat():
            return _heartbeat(state, event)
        case Order():
            return _order(state, event)
        case ProcessExited():
            return replace(state, present=membership.exited(state.present, event))
        case ControlRead(message):
            return _control_read(state, message)
        case Fenced(incarnation):
            return replace(state, recovery=recovery.was_fenced(state.recovery, state.control, incarnation))
        case EndsTaken(ends):
            return replace(state, taken={**state.taken, **ends})
        case Surveyed(draft):
            return replace(state, draft=draft)
        case TopicsCounted(found):
            fault = changed_counts(state.control.plan, found) if state.control.plan else None
            return replace(state, fault=state.fault or (Halt(fault, ConfigError.exit_code) if fault else None))


def decide(state: State) -> Command | None:
    """The next thing to do, None when all is as it should be."""
    view = state.control
    if view.halted is not None:
        return _refused(state, "the job is halted") or _finish(state, view.halted.exit_code)
    if view.plan is not None and view.plan.complete and state.draft is None:
        return _refused(state, "the job is complete") or _finish(state, 0)
    if state.fault is not None:
        return state.fault
    if step := recovery.next_step(view, state.present, state.recovery):
        return step
    if view.plan is None:
        return _first_plan(state) or _refused(state, "there is no plan yet, no worker has come; try again")
    return _changed_plan(state, view.plan) or _ordered(state, view.plan) or _bounded_run(state, view.plan)


def _own_beat(state: State) -> State:
    """Silence counts in the leader's own beats: while it reads none, it could not have read others' either.

    A pause between two of them counts as one and a half heartbeats at most, so that neither a stopped leader nor a
    broker that was away makes everybody look dead. After an outage everybody is given the time to find the broker
    again that the leader itself has just found.
    """
    pause_ms = 0 if state.beat_ms is None else state.now_ms - state.beat_ms
    limit_ms = state.rules.failure.heartbeat_ms * 3 // 2
    if pause_ms >= OUTAGE_MS:
        present = membership.excused(state.present, RECONNECT_MS)
    else:
        present = membership.waited(state.present, min(pause_ms, limit_ms))
    return replace(state, beat_ms=state.now_ms, present=present)


def _heartbeat(state: State, beat: Heartbeat) -> State:
    fault = state.fault
    view = state.control
    concerned = view.plan is None or view.is_live_member(beat.incarnation)
    final = beat.fatal is not None and beat.exit_code in FINAL_EXIT_CODES
    if final and concerned and beat.incarnation not in view.dead:
        fault = fault or Halt(f"{beat.name}: {beat.fatal}", beat.exit_code)
    return replace(
        state,
        fault=fault,
        present=membership.heard(state.present, beat),
        achieved=completion.reported(state.achieved, beat.tiles),
        first_heard_ms=state.now_ms if state.first_heard_ms is None else state.first_heard_ms,
    )


def _order(state: State, order: Order) -> State:
    """It is repeated until it is answered: what is known, or answered, is no news."""
    known = {*state.control.answered, *(o.id for o in state.orders)}
    if not order.id or order.id in known or len(state.orders) >= ORDERS_KEPT:
        return state
    return replace(state, orders=(*state.orders, order))


def _control_read(state: State, message: Control) -> State:
    view = take(state.control, message)
    over = view.halted is not None or (view.plan is not None and view.plan.complete)
    over_ms = state.now_ms if state.over_ms is None else state.over_ms
    state = replace(
        state,
        control=view,
        recovery=recovery.noticed(state.recovery, view, state.now_ms),
        over_ms=over_ms if over else None,
        orders=tuple(order for order in state.orders if order.id not in view.answered),
    )
    if not isinstance(message, PlanPublished):
        return state
    concerned = [*view.lost(), *(m.incarnation for m in message.plan.members)]
    present = membership.expect(membership.forget(state.present, concerned), message.plan.members)
    return replace(state, present=present, draft=None, taken={})


def _roll(state: State) -> Roll:
    failure, present = state.rules.failure, state.present

    def wait_ms(dead: str) -> int:
        if present.is_abandoned(dead):
            return 0
        return failure.restart_wait_ms if present.awaits_successor(dead) else failure.successor_wait_ms

    return Roll(
        alive=present.alive(),
        dead=state.control.dead,
        fenced=state.recovery.fenced,
        overdue=state.recovery.overdue(state.now_ms, wait_ms),
        names=state.control.names,
        build=state.job.build,
    )


def _first_plan(state: State) -> Publish | None:
    """The first plan, once there are enough workers to spread the tiles over."""
    members = assignment.newcomers(None, _roll(state))
    if state.draft is None or not members or not _are_enough(state, len(members)):
        return None
    tiles = assignment.first_tiles(state.draft.shards, members, 1)
    names = ", ".join(member.name for member in members)
    first = Ownership(members, tiles, notes=(f"first plan for {names}",))
    nothing = Plan(state.job.app, 0, state.control.term, (), (), (), Registry(), {}, {})
    return _publish(state, None, standbys.assigned(first, _scene(state, nothing)))


def _are_enough(state: State, workers: int) -> bool:
    """Whether the first plan may be made for those who are there."""
    expected = state.rules.expected_workers
    if expected is not None and workers >= expected:
        return True
    patience_ms = state.rules.settle_ms if expected is None else state.rules.start_wait_ms
    return state.first_heard_ms is not None and state.now_ms - state.first_heard_ms >= patience_ms


def _changed_plan(state: State, plan: Plan) -> Publish | None:
    """The next plan because of deaths, arrivals, reports, or what the job needs beyond the newest plan."""
    scene = _scene(state, plan)
    ownership = planning.changed(scene)
    if ownership is None and state.draft is not None:
        ownership = planning.evolved(kept_of(plan), scene)
    return None if ownership is None else _publish(state, plan, ownership)


def _ordered(state: State, plan: Plan) -> Publish | Answer | None:
    """What becomes of the oldest order that is not yet answered."""
    if not state.orders:
        return None
    order, scene = state.orders[0], _scene(state, plan)
    begun = carried_out(order, kept_of(plan), scene)
    if isinstance(begun, Reply):
        return Answer(order.id, begun.accepted, begun.reason)
    return replace(_publish(state, plan, planning.evolved(begun, scene)), order=order.id)


def _refused(state: State, reason: str) -> Answer | None:
    return Answer(state.orders[0].id, False, reason) if state.orders else None


def waiting(state: State) -> tuple[str, ...]:
    """What somebody waits for: workers of another build, tiles without a worker, moves, parked ranges."""
    plan = state.control.plan
    if plan is None:
        builds = assignment.waiting(None, _roll(state))
        return (builds,) if builds else ()
    return tuple(planning.waits(_scene(state, plan)))


def _scene(state: State, plan: Plan) -> Scene:
    return Scene(
        plan=plan,
        roll=_roll(state),
        job=state.job,
        draft=state.draft,
        evidence=evidence_of(state),
        achieved=state.achieved,
        recovery=state.rules.recovery,
        deaths_max=state.rules.failure.deaths_max,
    )


def _bounded_run(state: State, plan: Plan) -> Publish | TakeEnds | None:
    """The next step towards the end of a bounded run."""
    if not plan.bounded or plan.complete:
        return None
    same = kept_of(plan)
    open_ends = completion.open_ends(state.job, plan, state.achieved)
    if any(place not in state.taken for place in open_ends):
        return TakeEnds(open_ends)
    if open_ends:
        streams = ", ".join(sorted({topic for _, topic, _ in open_ends}))
        return _publish(state, plan, same.noted(f"ends of {streams} are fixed: their sources are finished"))
    if len(completion.finished(state.job, plan, state.achieved)) == len(state.job.operators):
        done = same.noted("all operators came to the ends of their inputs: complete")
        return _publish(state, replace(plan, complete=True), done)
    return None


def _publish(state: State, base: Plan | None, ownership: Ownership) -> Publish:
    """The next plan; that it breaks no rule is checked here, before anybody sees it (S2, S7, S8)."""
    draft = state.draft
    source = draft or base
    assert source is not None
    plan = Plan(
        app=state.job.app,
        version=1 if base is None else base.version + 1,
        term=state.control.term,
        members=ownership.members,
        dead=(),
        tiles=ownership.tiles,
        registry=source.registry,
        partitions=source.partitions,
        starts=source.starts,
        ends={**source.ends, **state.taken},
        bounded=source.bounded,
        complete=draft is None and base is not None and base.complete,
        build=state.job.build,
        moves=ownership.moves,
        standbys=ownership.standbys,
        parked=ownership.parked,
        drained=ownership.drained,
    )
    plan = replace(plan, dead=tuple(sorted(undelivered(plan, state.control.dead))))
    _check(state, base, plan)
    return Publish(plan, "; ".join(part for part in (draft.reason if draft else "", ownership.reason) if part))


def _check(state: State, base: Plan | None, plan: Plan) -> None:
    """Raises AssertionError for a plan that must not be published."""
    fault = tiling_fault(plan) or moves_fault(plan)
    if base is not None and fault is None:
        fenced, evidence = state.recovery.fenced, evidence_of(state)
        fault = giving_fault(base, plan, fenced) or release_fault(base, plan, fenced, evidence)
    if fault:
        raise AssertionError(f"plan {plan.version}: {fault} (S2, S7, S8)")


def _finish(state: State, exit_code: int) -> Finish | None:
    """The job is over: wait a little for its workers to go, so that they read why from the control topic."""
    members = () if state.control.plan is None else state.control.plan.members
    going = {m.incarnation for m in members} & {m.incarnation for m in state.present.alive()}
    over_ms = state.now_ms if state.over_ms is None else state.over_ms
    return None if going and state.now_ms - over_ms < state.rules.linger_ms else Finish(exit_code)
