"""`kstate status JOB`: how a job stands, from its topics alone: works when nothing of it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from kstate.adapters.kafka import KafkaLog
from kstate.cli.settings import Bootstrap, load_settings
from kstate.cli.status_view import as_json as overview_json
from kstate.cli.status_view import console, page
from kstate.cli.watching import WATCH, AppArgument, Watch, WatchEdges, app_of, patiently, quiet
from kstate.clock import Steps, SystemClock, run_steps
from kstate.config import FailureSettings
from kstate.coordinator.status import Overview
from kstate.errors import KstateError

LISTEN_BEATS = 3
"""So many heartbeats long those are waited for who should be heard and were not: clocks of machines may differ."""

Timeout = Annotated[float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait for the broker.")]


def status(
    job: AppArgument,
    *,
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
    timeout: Timeout = 10.0,
) -> None:
    """Show plan, leader, workers, key ranges with their lag and state, moves, and the last decisions with reasons."""
    with onlooker("kstate status", job, bootstrap) as (watch, edges, failure):
        shown = run_steps(looked(watch, edges, failure, timeout), edges.clock)
        if as_json:
            typer.echo(json.dumps(overview_json(shown)))
        else:
            console().print(page(shown))


def looked(watch: Watch, edges: WatchEdges, failure: FailureSettings, timeout_s: float) -> Steps[Overview]:
    """One look at a job. Raises ConfigError when it never ran here, RetryableError when no broker answers in time."""
    yield from patiently(watch.begin, edges.clock, timeout_s)
    silence_max_ms = failure.silence_max_ms
    deadline = edges.clock.monotonic() + LISTEN_BEATS * failure.heartbeat_ms / 1000
    while watch.is_anyone_unheard(silence_max_ms) and edges.clock.monotonic() < deadline:
        yield WATCH
        watch.look()
    return watch.overview(silence_max_ms)


@contextmanager
def onlooker(command: str, job: str, bootstrap: str | None) -> Iterator[tuple[Watch, WatchEdges, FailureSettings]]:
    """What a command needs to look on; errors that we raise on purpose become a message and their exit code."""
    quiet()
    try:
        settings = load_settings(bootstrap).settings
        app = app_of(job)
        with closing(KafkaLog(settings, SystemClock())) as log:
            edges = WatchEdges(log, SystemClock())
            with closing(Watch(edges, app)) as watch:
                yield watch, edges, settings.failure
    except KstateError as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
