"""`kstate run JOB`: a whole job on this machine: a coordinator and workers, supervised; or both in one thread."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import Child, new_incarnation, on_stop
from kstate.cli import coordinator
from kstate.cli.coordinator import UntilEnd
from kstate.cli.inline import run_inline
from kstate.cli.logging import configure
from kstate.cli.running import AsJson, JobArgument, RunnableJob, exit_code_of, runnable_job
from kstate.cli.settings import Bootstrap, Data
from kstate.cli.supervisor import Supervisor
from kstate.clock import SystemClock, run_steps
from kstate.errors import ConfigError
from kstate.interfaces import Log
from kstate.messages import ProcessExited
from kstate.plan import reports_topic
from kstate.wire import encode_report


@dataclass(frozen=True, slots=True)
class Orders:
    """What all children are told on their command lines."""

    job: str
    workers: int
    until_end: bool
    bootstrap: str | None
    data: Path | None
    as_json: bool

    def of(self, name: str, incarnation: str) -> list[str]:
        """The arguments of the child with this name."""
        if name == coordinator.NAME:
            own = ["coordinator", self.job, "--workers", str(self.workers), *["--until-end"] * self.until_end]
        else:
            own = ["worker", self.job, "--name", name]
        shared = ["--bootstrap", self.bootstrap] if self.bootstrap else []
        shared += ["--data", str(self.data)] if self.data else []
        return [*own, "--incarnation", incarnation, *shared, *["--json"] * self.as_json]


class _Machine:
    """`Surroundings` of the supervisor: processes of this machine, reports to the leader, lines for people."""

    def __init__(self, app: str, orders: Orders, log: Log, logger: Any) -> None:
        self._app = app
        self._orders = orders
        self._log = log
        self._logger = logger

    def spawn(self, name: str) -> tuple[str, Child]:
        incarnation = new_incarnation(self._app, name)
        return incarnation, Child(self._orders.of(name, incarnation))

    def exited(self, incarnation: str, exit_code: int, *, restarts: bool) -> None:
        report = encode_report(ProcessExited(incarnation, exit_code, restarts))
        self._log.report(reports_topic(self._app), {"value": report, "partition": 0})

    def say(self, event: str, **fields: object) -> None:
        self._logger.info(event, **fields)


def run(  # noqa: PLR0913 (a command takes its options as parameters)
    job: JobArgument,
    *,
    workers: Annotated[int, typer.Option("--workers", min=1, help="How many worker processes.")] = 1,
    until_end: UntilEnd = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="For development: all in one thread, so that breakpoint() works.")
    ] = False,
    bootstrap: Bootstrap = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Run a job on this machine: a coordinator and N workers, started again unless stopped by SIGTERM, until Ctrl-C.

    With --until-end it ends by itself, with exit code 0, when everything that the inputs hold now is processed.
    """
    logger = configure("run", as_json=as_json)
    with exit_code_of("kstate run"):
        if inline and workers > 1:
            raise ConfigError(f"--inline runs one worker, not {workers}.", hint="leave --workers out, or --inline.")
        runnable = runnable_job(job, bootstrap, data)
        if inline:
            code = run_inline(runnable, logger, until_end=until_end)
        else:
            code = _run_supervised(runnable, Orders(job, workers, until_end, bootstrap, data, as_json), logger)
        logger.info("stopped", exit_code=code)
    raise typer.Exit(code)


def _run_supervised(runnable: RunnableJob, orders: Orders, logger: Any) -> int:
    """Child processes, watched until the job is over; the exit code."""
    with closing(KafkaLog(runnable.settings, SystemClock())) as log:
        names = [f"worker-{number}" for number in range(1, orders.workers + 1)]
        machine = _Machine(runnable.app, orders, log, logger)
        supervisor = Supervisor(coordinator.NAME, names, machine, SystemClock())
        on_stop(supervisor.stop)
        return run_steps(supervisor.run(), SystemClock())
