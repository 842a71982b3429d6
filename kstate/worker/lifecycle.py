"""A worker's standing: its transactional id and what the control topic says of it (rules S3 and S4)."""

from __future__ import annotations

from kstate.clock import Clock, Step, Steps
from kstate.errors import FencedError, RetryableError
from kstate.interfaces import EventLog, Log, Producer
from kstate.plan import Member
from kstate.worker.control import ControlFollower, Standing

OPENED = Step("opened")
WAITING = Step("waiting", wait=0.1)
RETRY = Step("retry", wait=0.5)


class Session:
    """One incarnation's hold on its identity.

    Invariant: after every open of the transactional id control was read to a fresh end before anything else was done.
    """

    def __init__(self, log: Log, control: ControlFollower, member: Member, clock: Clock, logger: EventLog) -> None:
        self.control = control
        self.member = member
        self.producer: Producer = log.producer(member.incarnation)
        self._log = log
        self._clock = clock
        self._logger = logger
        self._told = member.build

    def open(self) -> Steps[None]:
        """Open the id, then read control to a fresh end, again and again until the broker answers (S3)."""
        while True:
            try:
                self.producer.open()
                yield OPENED
                yield from self.control.catch_up()
            except RetryableError as error:
                self._logger.warning("broker-away", doing="opening", reason=str(error))
                yield RETRY
                self._renew()
            else:
                self.check()
                return

    def reopen(self) -> Steps[None]:
        """Discard a tainted producer and open the same id anew (S4)."""
        self._renew()
        yield from self.open()

    def await_membership(self) -> Steps[None]:
        """Own nothing until a plan names this incarnation; an earlier halt of the job does not concern it.

        While the leader runs another build none will, which is no reason to end: it may be stopped any moment.
        """
        while self.control.standing(self.member.incarnation) is Standing.UNKNOWN:
            self.control.halted = None
            self._tell_builds("waiting", "this worker gets no tiles until it is of the same build")
            yield WAITING
            yield from self.follow()

    def follow(self) -> Steps[None]:
        """Take in new plans and decisions; raises FencedError when they end this incarnation."""
        try:
            self.control.poll()
        except RetryableError as error:
            self._logger.warning("broker-away", doing="following control", reason=str(error))
            yield RETRY
        self.check()
        if self.control.standing(self.member.incarnation) is Standing.MEMBER:
            self._tell_builds("superseded", "this worker keeps what it owns until it stops, and gets nothing more")

    def look(self) -> Steps[None]:
        """Read control to a fresh end; raises FencedError as `follow` does."""
        yield from self.control.catch_up()
        self.check()

    def check(self) -> None:
        """Raise FencedError when this incarnation was declared dead or is a member no more."""
        if self.control.standing(self.member.incarnation) is Standing.DEAD:
            raise FencedError(
                f"Worker {self.member.name!r}, incarnation {self.member.incarnation}, was declared dead: it stops.",
                hint="nothing is lost; start the worker again and it joins as a new incarnation.",
            )

    def _tell_builds(self, event: str, meaning: str) -> None:
        """Once per build of the leader that is not this worker's."""
        plan = self.control.plan
        leading = self.member.build if plan is None else plan.build
        if leading not in (self.member.build, self._told):
            reason = f"the leader runs build {leading or 'unknown'}, this worker {self.member.build}: {meaning}"
            self._logger.info(event, reason=reason)
        self._told = leading

    def _renew(self) -> None:
        self.producer.close()
        self.producer = self._log.producer(self.member.incarnation)
