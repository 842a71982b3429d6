"""The control topic as a worker follows it: the newest plan and every decision after it (rule S3)."""

from __future__ import annotations

from enum import Enum

from kstate.clock import Clock, Step, Steps
from kstate.errors import KstateError
from kstate.interfaces import Log
from kstate.messages import Control, JobHalted, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, moves_fault, tiling_fault
from kstate.state.control import ControlReader

AWAIT_CONTROL = Step("await-control", wait=0.1)
CONTROL_READ = Step("control-read")


class Standing(Enum):
    """What the newest plan and the decisions after it say of an incarnation."""

    UNKNOWN = "not yet named: heartbeat only, own nothing"
    MEMBER = "a live member: work"
    DEAD = "declared dead, or no longer a member: exit"


class ControlFollower:
    """Reads the control topic in order and keeps what counts.

    Invariant: `plan` is the newest plan read, `own` the newest of this worker's own build, `halted` is set while the
    term read last has halted the job, `dead` holds every incarnation ever declared dead in what was read.
    """

    def __init__(self, log: Log, app: str, clock: Clock, build: str = "") -> None:
        self.plan: Plan | None = None
        self.own: Plan | None = None
        self._build = build
        self.halted: JobHalted | None = None
        self._dead: set[str] = set()
        self._named: set[str] = set()
        self._log = log
        self._reader = ControlReader(log, app, clock)

    def catch_up(self) -> Steps[None]:
        """Read to a fresh end: everything that was committed, or being committed, when this was called (S1, S3)."""
        topic = self._reader.partition.topic
        while self._log.partitions([topic])[topic] is None:
            yield AWAIT_CONTROL
        self._take((yield from self._reader.fresh()))
        yield CONTROL_READ

    def poll(self) -> None:
        """Take in what has become visible, without waiting."""
        self._take(self._reader.poll())

    def standing(self, incarnation: str) -> Standing:
        """Where this incarnation stands; one that was named once and is named no more is out.

        Control may have been trimmed behind a later plan, and its death with it.
        """
        if incarnation in self._dead:
            return Standing.DEAD
        if self.plan is not None and self.plan.member(incarnation):
            return Standing.MEMBER
        return Standing.DEAD if incarnation in self._named else Standing.UNKNOWN

    def _check(self, plan: Plan) -> None:
        """Raise KstateError for a plan that nobody may act on (S8)."""
        if self.plan is not None and plan.version <= self.plan.version:
            raise KstateError(f"Control topic: plan {plan.version} follows plan {self.plan.version} (S8).")
        if fault := tiling_fault(plan) or moves_fault(plan):
            raise KstateError(f"Control topic: {fault} (S8).")

    def _take(self, messages: list[Control]) -> None:
        for message in messages:
            match message:
                case PlanPublished(plan):
                    self._check(plan)
                    self.plan = plan
                    self.own = plan if plan.build == self._build else self.own
                    self.halted = None  # nobody makes plans for a job that was halted: that is over, though trimmed
                    members = {member.incarnation for member in plan.members}
                    self._dead |= {*plan.dead, *(self._named - members)}  # the decision itself may have been trimmed
                    self._named |= members
                case WorkerDied(incarnation=incarnation):
                    self._dead.add(incarnation)
                case JobHalted():
                    self.halted = message
                case TermStarted():
                    self.halted = None  # whoever leads now starts the job anew
