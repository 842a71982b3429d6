"""What the commands that run a job share: the job, its settings, the log, errors for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kstate.adapters.avro import AvroCodecs
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.registry import open_registry
from kstate.api.describe import describe
from kstate.api.specs import Topology
from kstate.cli.check import checked
from kstate.cli.jobs import load_job
from kstate.cli.settings import load_settings
from kstate.clock import SystemClock
from kstate.config import Settings
from kstate.description import JobDescription
from kstate.errors import ConfigError, KstateError, RetryableError
from kstate.worker.formats import framed_outputs

BROKER_WAIT_S = 1.0
"""Pause between two questions to a broker, or a schema registry, that does not answer."""

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job, as module:attribute.")]
AsJson = Annotated[bool, typer.Option("--json", help="Log lines as JSON.")]
Parent = Annotated[int | None, typer.Option("--parent", hidden=True, help="End with this process (kstate run).")]
Incarnation = Annotated[str | None, typer.Option("--incarnation", hidden=True, help="Chosen by kstate run.")]


@dataclass(frozen=True, slots=True)
class RunnableJob:
    """A job that can be run."""

    topology: Topology
    settings: Settings
    codecs: AvroCodecs

    @property
    def app(self) -> str:
        return self.topology.app

    def description(self) -> JobDescription:
        """The job as the control plane sees it."""
        return describe(self.topology, lambda kind: self.codecs.value(kind).schema)


def runnable_job(job: str, bootstrap: str | None, data: Path | None) -> RunnableJob:
    """Load and check a job and its settings. Raises ConfigError with every fault of either."""
    loaded = load_settings(bootstrap, data)
    codecs = AvroCodecs(open_registry(loaded.settings.registry))
    topology = checked(load_job(job), codecs)
    if loaded.epoch_ms is not None:
        topology = replace(topology, epoch_ms=loaded.epoch_ms)
    return RunnableJob(topology, loaded.settings, codecs)


def checked_name(name: str) -> str:
    """A worker's name: it names a folder and is part of a transactional id."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{name!r} is no name for a worker.", hint="use letters, digits, '.', '_' and '-', as in worker-1."
        )
    return name


@contextmanager
def exit_code_of(command: str) -> Iterator[None]:
    """Errors that we raise on purpose become a message on stderr and their exit code; anything else is a bug."""
    try:
        yield
    except KstateError as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


def await_broker(log: KafkaLog, logger: Any) -> str:
    """The id of the cluster, once a broker answers: one that is away for a while is waited for, and said so."""
    clock = SystemClock()
    while True:
        try:
            return log.cluster_id()
        except RetryableError as error:
            logger.warning("waiting for the broker", reason=str(error))
            clock.sleep(BROKER_WAIT_S)


def claim_schemas(job: RunnableJob, logger: Any) -> None:
    """Have the schemas of all framed outputs registered before anything is produced; a registry that is away is waited
    for. Raises ConfigError, with the registry's message, for one that is refused.
    """
    clock = SystemClock()
    for topic, codec in framed_outputs(job.topology, job.codecs):
        while True:
            try:
                logger.debug("schema claimed", topic=topic, id=codec.claim())
                break
            except RetryableError as error:
                logger.warning("waiting for the schema registry", topic=topic, reason=str(error))
                clock.sleep(BROKER_WAIT_S)
