"""The leader: the loop that does what the core decides.

    preparing ─▶ standing by ─▶ opened ─▶ control read ─▶ term started ─▶ leading ─▶ finished
                                  ▲  (S3)                                    │
                                  └───── a tainted transaction (S4) ─────────┘

It hears reports, follows the control topic, asks `decide` for the one next thing, does it, and reads back what became
of it. It may die at every step: the next leader reads the same topic. One that is fenced, or reads a newer term, stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from kstate.clock import Step, Steps
from kstate.config import Settings
from kstate.coordinator.candidacy import stand_by
from kstate.coordinator.commands import Answer, Command, Declare, Fence, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.continuity import check_continues
from kstate.coordinator.control import ControlView, take
from kstate.coordinator.control_log import ControlLog
from kstate.coordinator.core import Rules, State, decide, evidence_of, fresh_state, observe, waiting
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.events import ControlRead, EndsTaken, Event, Fenced, OwnBeat, Surveyed, Tick, TopicsCounted
from kstate.coordinator.reports import ReportsReader, send_report
from kstate.coordinator.survey import Survey, prepare
from kstate.coordinator.trimming import Trimmer
from kstate.description import JobDescription
from kstate.errors import ConfigError, FencedError, KstateError, RetryableError, TaintedError
from kstate.keyspace import slot_of
from kstate.messages import Control, JobHalted, LeaderBeat, OrderAnswered, PlanPublished, TermStarted, WorkerDied
from kstate.plan import TopicPartition

T = TypeVar("T")

IDLE = Step("idle", wait=0.05)
RETRY = Step("retry", wait=0.5)
CONTROL_READ = Step("control-read")
CONTINUES = Step("continues")
FENCED = Step("fenced")
ENDS_TAKEN = Step("ends-taken")
TERM_STARTED = Step("term-started")

TOPICS_CHECK_S = 5.0
"""How often partition counts are compared; a partition that was added in between waits, unread."""


@dataclass(frozen=True, slots=True)
class Office:
    """Who leads and how: `name` is unique per start, like a worker's incarnation."""

    name: str
    until_end: bool = False
    rules: Rules = field(default_factory=Rules)


class _Stopping(Exception):  # noqa: N818 (no error: how a stop leaves the nested protocols)
    """The process was asked to stop."""


class Leader:
    """One candidate for the leadership of a job, and its leader while it lasts."""

    def __init__(self, job: JobDescription, settings: Settings, edges: LeaderEdges, office: Office) -> None:
        self._job = job
        self._settings = settings
        self._edges = edges
        self._office = office
        self._state = fresh_state(job, office.rules)
        self._control = ControlLog(edges.log, job.app, edges.clock)
        self._reports: ReportsReader | None = None
        self._beat: LeaderBeat | None = None
        self._topics_at = float("-inf")
        self._told: frozenset[str] = frozenset()
        self._trimmer = Trimmer(edges, job.app, settings.rebase)
        self._stopping = False

    @property
    def state(self) -> State:
        """What this leader knows, an immutable value."""
        return self._state

    def stop(self) -> None:
        """End at the next step; the next leader goes on from what stands in control."""
        self._stopping = True

    def beat(self) -> None:
        """Tell that this term's leader lives: to be called every `heartbeat_ms`, also from another thread.

        Candidates stay quiet by it, and the leader itself counts the silence of workers in its own beats.
        """
        if (beat := self._beat) is not None:
            send_report(self._edges, self._job.app, beat)

    def run(self) -> Steps[int]:
        """Wait until nobody leads, then lead; the result is the job's exit code.

        Raises ConfigError for what people must mend, and FencedError when another leader took over.
        """
        try:
            yield from self._patiently(lambda: prepare(self._edges.log, self._job, self._settings))
            yield from self._patiently(self._check_continues)
            ended = yield from self._patiently(self._stand_by)
            if ended is not None:
                return ended
            yield from self._patiently(self._check_continues)  # whoever led meanwhile may have run another version
            return (yield from self._lead())
        except _Stopping:
            return 0
        finally:
            self._beat = None
            self._trimmer.close()
            self._control.close()
            if self._reports is not None:
                self._reports.close()

    def _lead(self) -> Steps[int]:
        yield from self._start_term()
        yield from self._survey()
        while True:
            yield from self._listen()
            match decide(self._state):
                case None:
                    self._tell_who_waits()
                    yield from self._trim()
                    yield IDLE
                case Finish(exit_code):
                    return exit_code
                case command:
                    try:
                        yield from self._carry_out(command)
                    except RetryableError as error:  # what is still due is decided anew
                        yield from self._pause(error)

    def _check_continues(self) -> Steps[None]:
        """Refuse a job that does not continue the newest plan before anybody who leads is disturbed."""
        control, view = ControlLog(self._edges.log, self._job.app, self._edges.clock), ControlView()
        try:
            for message in (yield from control.visible()):
                view = take(view, message)
        finally:
            control.close()
        if view.plan is not None:
            check_continues(self._job, view.plan)
        yield CONTINUES

    def _stand_by(self) -> Steps[int | None]:
        waiting = stand_by(self._edges, self._job.app, self._patience_s())
        while True:
            self._check_stop()
            try:
                step = next(waiting)
            except StopIteration as end:
                ended: int | None = end.value
                return ended
            yield step

    def _patience_s(self) -> float:
        """How long the leader must be silent; a share that differs from candidate to candidate keeps them apart."""
        failure = self._settings.failure
        share = slot_of(self._office.name.encode()) / 65536
        return failure.heartbeat_ms * (failure.heartbeats_missed + 2 * share) / 1000

    # -- the term

    def _start_term(self) -> Steps[None]:
        """Open, read, and announce the term: until that is read back, other leaders may still come first."""
        yield from self._patiently(self._open_and_read)
        before = self._state.control.term
        while self._state.control.leader != self._office.name:
            if self._state.control.term != before:
                raise self._superseded()
            yield from self._write("term", TermStarted(before + 1, self._office.name))
        self._reports = ReportsReader(self._edges, self._job.app)
        yield from self._patiently(self._start_reports)
        self._beat = LeaderBeat(self._state.control.term, self._office.name)
        self._edges.logger.info("leading", term=self._beat.term)
        yield TERM_STARTED

    def _open_and_read(self) -> Steps[None]:
        """S3: whatever was decided before this open is known after it."""
        yield from self._control.open()
        self._take((yield from self._control.fresh()))
        yield CONTROL_READ

    def _start_reports(self) -> Steps[None]:
        assert self._reports is not None
        self._reports.start_now()
        yield Step("reports-started")

    def _survey(self) -> Steps[None]:
        """Compare job and cluster; what people must mend halts the job, so that its workers stop too.

        Workers of another version are left alone: it is this one that is wrong.
        """
        plan = self._state.control.plan
        survey = Survey(self._edges.log, self._job, self._settings, plan)
        try:
            draft = yield from self._patiently(lambda: survey.run(bounded=self._office.until_end))
        except ConfigError as error:
            if plan is not None and plan.build != self._job.build:
                raise
            while self._state.control.halted is None:
                yield from self._write("halt", JobHalted(self._state.control.term, str(error), error.exit_code))
            raise
        self._observe(Surveyed(draft))

    # -- the loop

    def _listen(self) -> Steps[None]:
        """Hear reports, follow control, look at the topics now and then."""
        self._check_stop()
        try:
            self._hear()
            self._take(self._control.poll())
            self._count_topics_if_due()
        except RetryableError as error:
            yield from self._pause(error)
        if self._state.control.leader != self._office.name:
            raise self._superseded()

    def _tell_who_waits(self) -> None:
        """Once per reason, as long as it lasts: what is not decided, and what for."""
        reasons = waiting(self._state)
        for reason in reasons:
            if reason not in self._told:
                self._edges.logger.warning("waiting", reason=reason)
        self._told = frozenset(reasons)

    def _trim(self) -> Steps[None]:
        """Where there is nothing to decide, see to the logs."""
        try:
            self._trim_control()
            yield from self._trimmer.tick(self._state.control.plan, evidence_of(self._state))
        except RetryableError as error:
            yield from self._pause(error)

    def _trim_control(self) -> None:
        place, logger = str(self._control.partition), self._edges.logger
        try:
            if (before := self._control.trim(self._settings.rebase.plans_kept)) is not None:
                logger.debug("trimmed", partition=place, before=before)
        except RetryableError:
            raise
        except KstateError as error:  # a log that grows is no reason to have no leader
            logger.warning("not-trimmed", partition=place, reason=str(error))

    def _hear(self) -> None:
        assert self._reports is not None
        self._observe(Tick(round(self._edges.clock.monotonic() * 1000)))
        for report in self._reports.poll():
            if not isinstance(report, LeaderBeat):
                self._observe(report)
            elif report == self._beat:
                self._observe(OwnBeat())

    def _count_topics_if_due(self) -> None:
        now = self._edges.clock.monotonic()
        plan = self._state.control.plan
        if plan is not None and now - self._topics_at >= TOPICS_CHECK_S:
            self._topics_at = now
            self._observe(TopicsCounted(self._edges.log.partitions(plan.partitions)))

    # -- doing

    def _carry_out(self, command: Command) -> Steps[None]:
        """Do one thing. What a command changes is known only once it has been read back."""
        term = self._state.control.term
        match command:
            case Declare(incarnation, reason):
                yield from self._write("decision", WorkerDied(term, incarnation, reason))
            case Publish(plan, reason, order):
                yield from self._write("plan", PlanPublished(plan, reason, order))
            case Answer(order, accepted, reason):
                yield from self._write("answer", OrderAnswered(term, order, accepted, reason))
            case Halt(reason, exit_code):
                yield from self._write("halt", JobHalted(term, reason, exit_code))
            case Fence(incarnation):
                yield from self._fence(incarnation)
            case TakeEnds(places):
                yield from self._take_ends(places)
            case Finish():
                raise AssertionError("finishing is the loop's own affair")

    def _write(self, name: str, message: Control) -> Steps[None]:
        """Commit a message and see it; in doubt, open anew and see what is there (S4)."""
        try:
            yield from self._control.commit(name, message)
        except TaintedError as error:
            self._edges.logger.warning("control transaction in doubt", what=name, reason=str(error))
            yield from self._reopen()
            return
        except RetryableError as error:  # before the transaction began: nothing is written
            yield from self._pause(error)
            return
        yield from self._patiently(self._see)
        yield Step(f"{name}-seen")

    def _see(self) -> Steps[None]:
        self._take((yield from self._control.fresh()))

    def _reopen(self) -> Steps[None]:
        """The same id once more, unless somebody else leads by now: opening it would fence them."""
        started = self._beat is not None
        yield from self._patiently(self._glance)
        if started and self._state.control.leader != self._office.name:
            raise self._superseded()
        yield from self._patiently(self._open_and_read)
        if started and self._state.control.leader != self._office.name:
            raise self._superseded()

    def _glance(self) -> Steps[None]:
        self._take(self._control.poll())
        yield CONTROL_READ

    def _fence(self, incarnation: str) -> Steps[None]:
        """S2: only called for a death that was read back from control."""
        assert incarnation in self._state.control.dead
        self._edges.log.fence(incarnation)
        self._edges.logger.info("fenced", worker=incarnation)
        self._observe(Fenced(incarnation))
        yield FENCED

    def _take_ends(self, places: tuple[tuple[str, str, int], ...]) -> Steps[None]:
        """H of streams whose sources are finished: read_uncommitted, so that nothing committed lies behind it."""
        sources = {TopicPartition(topic, partition) for _, topic, partition in places}
        ends = self._edges.log.end_offsets(sorted(sources), committed=False)
        self._observe(EndsTaken({place: ends[TopicPartition(place[1], place[2])] for place in places}))
        yield ENDS_TAKEN

    # -- small parts

    def _take(self, messages: Iterable[Control]) -> None:
        for message in messages:
            self._observe(ControlRead(message))
            if self._beat is not None:
                decision = self._state.control.decisions[-1]
                self._edges.logger.info(decision.what, term=decision.term, reason=decision.reason)

    def _observe(self, event: Event) -> None:
        self._state = observe(self._state, event)

    def _patiently(self, protocol: Callable[[], Steps[T]]) -> Steps[T]:
        """Repeat a protocol from its start while the broker does not answer."""
        while True:
            self._check_stop()
            try:
                return (yield from protocol())
            except RetryableError as error:
                yield from self._pause(error)

    def _pause(self, error: RetryableError) -> Steps[None]:
        self._edges.logger.warning("the broker does not answer; trying again", reason=str(error))
        yield RETRY

    def _check_stop(self) -> None:
        if self._stopping:
            raise _Stopping

    def _superseded(self) -> FencedError:
        view = self._state.control
        leader = view.leader or "Another leader"
        return FencedError(
            f"{leader} leads job '{self._job.app}' since term {view.term}; {self._office.name} stops.",
            hint="nothing: one leader is enough, this process may be started again as a candidate.",
        )
