"""The control topic as a worker follows it: the newest plan and every decision after it (rule S3)."""

from __future__ import annotations

from enum import Enum

from kstate.clock import Clock, Step, Steps
from kstate.errors import DecodeError, KstateError
from kstate.interfaces import Log, Reader
from kstate.messages import JobHalted, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, TopicPartition, control_topic
from kstate.state.freshness import fresh_end
from kstate.wire import decode_control

AWAIT_CONTROL = Step("await-control", wait=0.1)
CONTROL_READ = Step("control-read")


class Standing(Enum):
    """What the newest plan and the decisions after it say of an incarnation."""

    UNKNOWN = "not yet named: heartbeat only, own nothing"
    MEMBER = "a live member: work"
    DEAD = "declared dead, or no longer a member: exit"


class ControlFollower:
    """Reads the control topic in order and keeps what counts.

    Invariant: `plan` is the newest plan read, `dead` holds every incarnation ever declared dead in what was read.
    """

    def __init__(self, log: Log, app: str, clock: Clock) -> None:
        self.plan: Plan | None = None
        self.halted: JobHalted | None = None
        self._dead: set[str] = set()
        self._named: set[str] = set()
        self._log = log
        self._clock = clock
        self._partition = TopicPartition(control_topic(app), 0)
        self._reader: Reader | None = None
        self._position = 0

    def catch_up(self) -> Steps[None]:
        """Read to a fresh end: everything that was committed, or being committed, when this was called (S1, S3)."""
        topic = self._partition.topic
        while self._log.partitions([topic])[topic] is None:
            yield AWAIT_CONTROL
        end = yield from fresh_end(self._log, self._partition, self._clock)
        self._open()
        while self._position < end:
            self.poll()
            yield CONTROL_READ

    def poll(self) -> None:
        """Take in what has become visible, without waiting."""
        for batch in self._open().poll(1_000, 0.0):
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                self._take(offset, value or b"")
            self._position = batch.next_offset

    def standing(self, incarnation: str) -> Standing:
        """Where this incarnation stands; one that was named once and is named no more is out (P4)."""
        if incarnation in self._dead:
            return Standing.DEAD
        if self.plan is not None and self.plan.member(incarnation):
            return Standing.MEMBER
        return Standing.DEAD if incarnation in self._named else Standing.UNKNOWN

    def close(self) -> None:
        """Give up the reader."""
        if self._reader is not None:
            self._reader.close()

    def _open(self) -> Reader:
        if self._reader is None:
            self._position = self._log.start_offsets([self._partition])[self._partition]
            self._reader = self._log.reader()
            self._reader.assign({self._partition: self._position})
        return self._reader

    def _take(self, offset: int, value: bytes) -> None:
        try:
            message = decode_control(value)
        except DecodeError as error:
            raise KstateError(f"{self._partition}@{offset} is not a control message: {error}") from error
        match message:
            case PlanPublished(plan):
                self.plan = plan
                self._dead.update(plan.dead)
                self._named.update(member.incarnation for member in plan.members)
            case WorkerDied(incarnation=incarnation):
                self._dead.add(incarnation)
            case JobHalted():
                self.halted = message
            case TermStarted():
                pass
