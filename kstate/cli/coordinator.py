"""`kstate coordinator JOB`: one candidate for the leadership of a job."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from kstate.adapters.heart import HeartbeatThread
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import die_with, new_incarnation, on_stop
from kstate.cli.logging import configure
from kstate.cli.running import AsJson, Incarnation, JobArgument, Parent, await_broker, exit_code_of, runnable_job
from kstate.cli.settings import Bootstrap, Data
from kstate.clock import SystemClock, run_steps
from kstate.coordinator.core import Rules
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.leader import Leader, Office

STOP_S = 2.0
"""A leader has nothing to finish: the next one goes on from what stands in control."""

NAME = "coordinator"

UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop when what the inputs hold now is processed.")]


def coordinator(  # noqa: PLR0913 (a command takes its options as parameters)
    job: JobArgument,
    *,
    until_end: UntilEnd = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="How many workers the first plan waits for.")
    ] = None,
    bootstrap: Bootstrap = None,
    data: Data = None,
    as_json: AsJson = False,
    incarnation: Incarnation = None,
    parent: Parent = None,
) -> None:
    """Lead a job: make its plans, notice dead workers, give their tiles away. Any number may run: one leads."""
    die_with(parent)
    logger = configure(NAME, as_json=as_json)
    with exit_code_of(f"kstate {NAME}"):
        runnable = runnable_job(job, bootstrap, data)
        settings = runnable.settings
        rules = Rules(settings.failure, expected_workers=workers, recovery=settings.recovery)
        office = Office(incarnation or new_incarnation(runnable.app, NAME), until_end=until_end, rules=rules)
        with closing(KafkaLog(settings, SystemClock())) as log:
            await_broker(log, logger)
            edges = LeaderEdges(log, SystemClock(), logger)
            leader = Leader(runnable.description(), settings, edges, office)
            on_stop(leader.stop, lambda: logger.warning("stopped while waiting for the broker"), STOP_S)
            with HeartbeatThread(leader.beat, settings.failure.heartbeat_ms / 1000):
                code = run_steps(leader.run(), edges.clock)
        if code and (halted := leader.state.control.halted):
            typer.echo(f"kstate {NAME}: job '{runnable.app}' is halted. {halted.reason}", err=True)
    raise typer.Exit(code)
