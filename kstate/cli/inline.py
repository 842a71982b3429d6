"""`kstate run JOB --inline`: a coordinator and one worker in one thread, for development: `breakpoint()` works.

The two protocols take turns, step by step, as in the simulation, but on a real broker and in real time. A handler that
sits in a debugger holds everything up, the leader too, so nobody inside notices. Candidates and workers outside are
kept quiet by the heartbeats, the only other thread, which prints nothing. Transactions are open only while an epoch is
committed, never while a handler runs, so none of them expires meanwhile.

    Ctrl-C       running: finish the epoch in hand, then end; asked twice: end at once
                 at the debugger's prompt: the prompt again; after its `continue`: the prompt again, wherever we are
    (Pdb) quit   end at once, as if killed: the epoch in hand is repeated by the next run

Quitting raises BdbQuit in the handler. It is no failure of the record, which must not become a dead letter for it.
"""

from __future__ import annotations

import signal
from bdb import Bdb, BdbQuit
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import wraps
from types import FrameType
from typing import Any, TypeVar

from kstate.adapters.heart import HeartbeatThread
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import new_incarnation, where_am_i
from kstate.api.specs import OperatorSpec, Topology
from kstate.cli import coordinator
from kstate.cli.running import RunnableJob, await_broker, claim_schemas
from kstate.cli.worker import local_store
from kstate.clock import Clock, Step, Steps, SystemClock
from kstate.coordinator.core import Rules
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.leader import Leader, Office
from kstate.errors import FINAL_EXIT_CODES, CorruptStateError, KstateError
from kstate.messages import ProcessExited
from kstate.plan import Member, reports_topic
from kstate.wire import encode_report
from kstate.worker.edges import WorkerEdges
from kstate.worker.load import Load
from kstate.worker.worker import Worker

WORKER = "worker-1"
"""The name that the first worker of `kstate run` has: its local store is used and kept warm."""

RESTART = Step("restarting", wait=1.0)
ABANDONED_EXIT_CODE = 130
"""What shells give for an interrupted command."""

S = TypeVar("S")


class TurnClock:
    """The machine's clock, read once per turn: within a turn time stands still, as in the simulation.

    So a worker that found nothing to do ends its turn; by a running clock its wait for records has just been one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.monotonic()

    def turn(self) -> float:
        """The next turn begins; the time."""
        self._now = self._clock.monotonic()
        return self._now

    def monotonic(self) -> float:
        return self._now

    def time_ms(self) -> int:
        return self._clock.time_ms()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self.turn()


class Abandoned(BaseException):
    """End at once: the debugger was left, or a stop was asked for a second time.

    An order, no failure: `except Exception` in the engine must let it pass.
    """


def run_inline(runnable: RunnableJob, logger: Any, *, until_end: bool) -> int:
    """Run until a stop is asked for or, when bounded, the job is complete; the exit code.

    Raises KstateError when the job cannot run, ConfigError for what people must mend among them.
    """
    with closing(KafkaLog(runnable.settings, SystemClock())) as log:
        cluster = await_broker(log, logger)
        claim_schemas(runnable, logger)
        inline = _Inline(replace(runnable, topology=leavable(runnable.topology)), log, cluster, logger)
        try:
            return inline.run(until_end=until_end)
        except (Abandoned, BdbQuit, KeyboardInterrupt):
            logger.warning("left in mid-epoch", reason="nothing of it is committed, the next run repeats it")
            return ABANDONED_EXIT_CODE


class _Inline:
    """One leader, and one worker that is started again as a new incarnation when it was fenced or lost its store."""

    def __init__(self, runnable: RunnableJob, log: KafkaLog, cluster: str, logger: Any) -> None:
        self._runnable = runnable
        self._log = log
        self._cluster = cluster
        self._logger = logger
        self._clock = TurnClock(SystemClock())
        self._leader: Leader | None = None
        self._worker: Worker | None = None
        self._incarnations: list[str] = []
        """Those that have begun and whose end was not yet reported."""
        self._stops = 0
        self._stopping = False

    def run(self, *, until_end: bool) -> int:
        settings = self._runnable.settings
        office = Office(
            self._begun(coordinator.NAME), until_end=until_end, rules=Rules(settings.failure, expected_workers=1)
        )
        edges = LeaderEdges(self._log, self._clock, self._logger)
        self._leader = Leader(self._runnable.description(), settings, edges, office)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        try:
            with HeartbeatThread(self._beat, settings.failure.heartbeat_ms / 1000):
                return take_turns([self._leader.run(), self._lives()], self._clock, self._stop)
        finally:
            for incarnation in self._incarnations:
                self._report_exit(incarnation, 0, restarts=False)

    def _lives(self) -> Steps[int]:
        """The worker's lives, one after the other, until one of them ends for good."""
        code = 0
        while not self._stopping:
            member = Member(WORKER, self._begun(WORKER), self._runnable.description().build)
            code = yield from self._life(member)
            if code == 0 or code in FINAL_EXIT_CODES or self._stopping:
                break
            self._incarnations.remove(member.incarnation)
            self._report_exit(member.incarnation, code, restarts=True)
            self._logger.info("restarting", name=WORKER, exit_code=code)
            yield RESTART
        return code

    def _life(self, member: Member) -> Steps[int]:
        runnable = self._runnable
        with closing(local_store(runnable, member, self._cluster, self._logger)) as store:
            edges = WorkerEdges(self._log, store, runnable.codecs, self._clock, self._logger)
            load = Load(runnable.app, member, *where_am_i(), edges)
            self._worker = Worker(runnable.topology, runnable.settings, edges, load, member)
            try:
                code = yield from self._worker.run()
            except CorruptStateError as error:
                store.condemn(str(error))
                return CorruptStateError.exit_code
        load.beat(self._log)
        return code

    def _begun(self, name: str) -> str:
        incarnation = new_incarnation(self._runnable.app, name)
        self._incarnations.append(incarnation)
        return incarnation

    def _beat(self) -> None:
        """From the thread of the heartbeats; what fails here, the main thread meets and tells, too."""
        with suppress(KstateError):
            if self._worker is not None:
                self._worker.load.beat(self._log)
            if self._leader is not None:
                self._leader.beat()

    def _report_exit(self, incarnation: str, exit_code: int, *, restarts: bool) -> None:
        """As a supervisor does: the next leader need not wait for missed heartbeats."""
        report = encode_report(ProcessExited(incarnation, exit_code, restarts))
        self._log.report(reports_topic(self._runnable.app), {"value": report, "partition": 0})

    def _stop(self) -> None:
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()
        if self._leader is not None:
            self._leader.stop()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        debugging = _is_debugger(frame)
        if debugging and number == signal.SIGINT:
            raise KeyboardInterrupt  # the debugger's own affair: it prompts again
        self._stops += 1
        if debugging or self._stops > 1:
            raise Abandoned
        self._stop()


@dataclass(slots=True)
class _Actor:
    """One protocol and when its next step is due."""

    steps: Steps[int]
    due: float = 0.0


def take_turns(protocols: Sequence[Steps[int]], clock: TurnClock, stop: Callable[[], None]) -> int:
    """Run protocols to their ends, step by step in turn; the first exit code that is not 0, otherwise 0.

    When the first of them ends, the others are asked to `stop`. What one of them raises is raised when all have ended.
    """
    actors = [_Actor(steps, clock.monotonic()) for steps in protocols]
    codes: list[int] = []
    failures: list[KstateError] = []
    while actors:
        actor = min(actors, key=lambda each: each.due)
        if (wait := actor.due - clock.turn()) > 0:
            clock.sleep(wait)
        try:
            step = next(actor.steps)
        except StopIteration as end:
            codes.append(end.value)
        except KstateError as error:
            failures.append(error)
        else:
            actor.due = clock.turn() + step.wait
            continue
        actors.remove(actor)
        stop()
    if failures:
        raise failures[0]
    return next((code for code in codes if code), 0)


def leavable(topology: Topology) -> Topology:
    """The same job with functions that can be left: BdbQuit in one of them ends the run and fails no record."""
    return replace(topology, operators=tuple(map(_leavable_operator, topology.operators)))


def _leavable_operator(spec: OperatorSpec) -> OperatorSpec:
    inputs = tuple(map(_leavable_end, spec.inputs))
    return replace(spec, inputs=inputs, states=tuple(map(_leavable_end, spec.states)))


def _leavable_end(spec: S) -> S:
    functions = {name: getattr(spec, name, None) for name in ("handler", "event_time")}
    wrapped = {name: _leavable_function(function) for name, function in functions.items() if function is not None}
    return replace(spec, **wrapped) if wrapped else spec  # type: ignore[type-var]


def _leavable_function(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BdbQuit as left:
            raise Abandoned from left

    return call


def _is_debugger(frame: FrameType | None) -> bool:
    """Whether a debugger is under way in this thread: all of Python's derive from Bdb."""
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), Bdb):
            return True
        frame = frame.f_back
    return False
